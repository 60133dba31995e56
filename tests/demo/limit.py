"""The time that the demo promises: five minutes, where nothing has to be built first."""

from __future__ import annotations

from tests.cluster.places import cache_dir
from tests.cluster.progress import minutes
from tests.images.cache import images_dir

SECONDS = 300.0


def products() -> frozenset[str]:
    """Tools and images that are built, by the names under which the cache keeps them."""
    folders = (cache_dir() / "tools", images_dir())
    return frozenset(path.name for folder in folders for path in folder.glob("[!.]*"))


def overrun(seconds: float, before: frozenset[str], after: frozenset[str]) -> str:
    """What to say of a demo that took too long; nothing where it did not, or had to build."""
    if seconds <= SECONDS or after - before:
        return ""
    return f"it took {minutes(seconds)}, expected {minutes(SECONDS)} with tools and images built"
