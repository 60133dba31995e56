"""One image for all containers of these tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.agent.minicontainer import make_image, missing


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Skips, with the reason, where there can be no container."""
    if why := missing():
        pytest.skip(why)
    return make_image(tmp_path_factory.mktemp("image"))
