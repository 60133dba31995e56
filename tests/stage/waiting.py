"""Waiting on conditions."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Nothing is asserted of how long a thing takes. Where several clusters share two cores, seconds
#: become minutes.
_PATIENCE = 240.0


def eventually(condition: Callable[[], bool], what: str, seconds: float = _PATIENCE) -> float:
    """Seconds until the condition held; fails with ``what`` was waited for."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.2)
    return time.monotonic() - start
