"""The registries' authorities on their way into gates: read at the start, or no start."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from trainseal.cluster.settings import SettingsError
from trainseal.controller.main import Options, serve


@pytest.mark.parametrize("content", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_controller_with_authorities_that_no_gate_can_use_does_not_start(
    tmp_path: Path, content: str
) -> None:
    authorities, config = tmp_path / "ca.crt", tmp_path / "config.yaml"
    authorities.write_text(content)
    config.write_text(f"registries: {{caFile: {authorities}}}")
    with pytest.raises(SettingsError, match=r"registries\.caConfigMap.*ca\.crt.*no certificate"):
        asyncio.run(serve(Options(namespace="trainseal-system", config=config)))
