"""How long a run was held, and by what: from its seal alone. No restart loses any of it. Pure.

A hold that goes on counts from ``responseSince`` until now, or until its run ended. What is over of
it (a person lifted it, a stronger response followed) stands in ``heldTime``, written in the same
patch as what ended it: so nothing is counted twice, and nothing is forgotten.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from trainseal.api.sealedrun import HeldTime, Hold


def began(hold: Hold) -> datetime:
    """Since when the run is held by this response. Of earlier releases: since it is held at all."""
    return hold.response_since or hold.since


def with_period(over: Sequence[HeldTime], hold: Hold, until: datetime) -> list[HeldTime]:
    """What is over, with the period of a hold that ends now."""
    total = Counter({item.response: item.seconds for item in over})
    total[hold.response] += _seconds(hold, until)
    return [HeldTime(response=r, seconds=s) for r, s in sorted(total.items())]


def seconds_held(over: Sequence[HeldTime], hold: Hold | None, until: datetime) -> dict[str, int]:
    """Seconds by response, until now or the run's end."""
    periods = with_period(over, hold, until) if hold is not None else over
    return {item.response: item.seconds for item in periods}


def _seconds(hold: Hold, until: datetime) -> int:
    """Never negative: the next leader's clock may be behind that of the last one."""
    return max(0, int((until - began(hold)).total_seconds()))
