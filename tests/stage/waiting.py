"""Waiting on conditions."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Where several clusters share two cores, seconds become minutes. What must come sooner, since it
#: would come by itself later, has a bound of its own.
PATIENCE = 240.0


def eventually(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> float:
    """Seconds until the condition held; fails with ``what`` was waited for."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.2)
    return time.monotonic() - start
