"""When things were last looked at: what is found came after an earlier look. Pure.

A checkpoint is clean only if it was surely written before whatever was found later; so each finding
carries the time at which it was surely not so yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime

#: Looks that are remembered.
MOST_LOOKS = 20


class Looks:
    """The looks at one thing, which begin and end; a look that is broken off says nothing."""

    def __init__(self, start: datetime) -> None:
        """Before ``start`` there was nothing to be looked at."""
        self._start = start
        self._current = start
        self._ended: deque[datetime] = deque(maxlen=MOST_LOOKS)

    def begin(self, now: datetime) -> None:
        """A look begins; one that did not end is forgotten."""
        self._current = now

    def end(self) -> None:
        """All of it was looked at, and what there was to tell is told."""
        self._ended.append(self._current)

    def before(self, looks: int = 1) -> datetime:
        """When the last look that ended began, or the one so many before that (2: the last but
        one). ``MOST_LOOKS`` at most.
        """
        return self._ended[-looks] if len(self._ended) >= looks else self._start


class Pulse:
    """Beats while the event loop has its turn. Events that wait for a loop that stands still, as
    when the agent gets no processor or is stopped, came earlier than they are read.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._last = self._last_but_one = clock()

    def beat(self) -> None:
        """To be called by the loop, again and again."""
        self._last_but_one, self._last = self._last, self._clock()

    def __call__(self) -> datetime:
        """The earliest time at which an event can have come that the loop finds ready now. Between
        the last beats but one and now it asked for what is ready at least once.
        """
        return self._last_but_one
