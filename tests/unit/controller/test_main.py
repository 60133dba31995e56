"""The controller's program: what it loads before it leads."""

from __future__ import annotations

import subprocess
import sys


def test_the_official_clients_typed_models_are_not_loaded() -> None:
    """They take more memory than thousands of pods, and more time than a Lease lasts."""
    program = "import sys, trainseal.controller.main; print('\\n'.join(sys.modules))"
    output = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert [m for m in output.split() if m.startswith("kubernetes.aio.client.models.")] == []
