"""Signed files that are written under another name of theirs: hard links. No I/O of its own.

An event has the name that the writer used. Where the file has others, the upper layer is looked
through for those that the image has too (to link a file of the image copies it there). A look
takes a bounded time a call; what is written meanwhile is left to the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from trainseal.agent.observed import Act
from trainseal.agent.scene import Identity
from trainseal.agent.touches import Touch

#: So much of a look at a time; seconds.
_STEP = 0.03
#: From the end of a look to the next one, times what it took.
_SHARE = 50
#: Files that wait for a look, with who wrote them; what is beyond is left to the walk.
_MOST = 1_000


class LinkedNames:
    """Of one container. ``next`` is when ``look`` wants to be called, monotonic; None: not soon."""

    def __init__(
        self,
        files: Callable[[], Iterable[tuple[str, Identity]]],
        signed: Callable[[str], bool],
        monotonic: Callable[[], float],
    ) -> None:
        """``files`` lists the upper layer, ``signed`` says whether the image shows a name of it."""
        self._files = files
        self._signed = signed
        self._monotonic = monotonic
        self._written: dict[tuple[Identity, int], Touch] = {}
        self._looking: Iterator[Touch | None] | None = None
        self._spent = 0.0
        self._free = 0.0

    @property
    def next(self) -> float | None:
        """See the class."""
        return self._free if self._looking is not None or self._written else None

    def written(self, file: Identity, touch: Touch) -> None:
        """A file of the upper layer with several names was written under that of ``touch``."""
        known = self._written.get((file, touch.pid))
        if known is None and len(self._written) < _MOST:
            known = self._written[file, touch.pid] = Touch(
                touch.path, touch.pid, touch.since, touch.lineage
            )
        if known is not None:
            known.acts |= touch.acts & {Act.WRITTEN, Act.CLOSED}

    def look(self, now: float, *, final: bool = False) -> Iterator[Touch]:
        """What was written, once more under each of the file's signed names; ``final``: all."""
        while self.next is not None and (final or now >= self._free):
            began = self._monotonic()
            if self._looking is None:
                self._looking, self._spent = self._look(), 0.0
            for touch in self._looking:
                if touch is not None:
                    yield touch
                if not final and self._monotonic() - began > _STEP:
                    self._spent += self._monotonic() - began
                    return
            self._looking = None
            self._free = now + _SHARE * (self._spent + self._monotonic() - began)

    def _look(self) -> Iterator[Touch | None]:
        """None now and then: a place to pause."""
        written, self._written = self._written, {}
        files = {file for file, _ in written}
        for path, file in self._files():
            if file in files and self._signed(path):
                for (other, _), touch in written.items():
                    if other == file and touch.path != path:
                        acts = set(touch.acts)
                        yield Touch(
                            path, touch.pid, touch.since, touch.lineage, acts, written_as=touch.path
                        )
            yield None
