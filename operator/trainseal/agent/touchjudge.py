"""What was touched, judged: each touch becomes the observations that a report can hold.

When it is told, and how much of its evidence is looked at, is bounded here: a flood of files must
neither hide the one that counts nor fill a report.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime

from trainseal.agent.evidence import with_evidence
from trainseal.agent.judge import Facts, judge
from trainseal.agent.observed import (
    FOUND_BY,
    LOOKING,
    Act,
    FileEvent,
    Lineage,
    Observation,
    WatchedContainer,
)
from trainseal.agent.scene import Scene
from trainseal.agent.touches import Touch
from trainseal.api.findings import FindingId

#: New files whose content is looked at, a second: a flood must not hide the one that counts.
_NEW_FILES = 100
_NOT_LOOKED_AT = f"not looked at: more than {_NEW_FILES} new files within a second"
_IN_FLOODS_WITHOUT = (FindingId.FILE_CREATED, FindingId.IMPORT_CHANGED)
#: Bytes of files that one call hands on with what it observed; further ones are read again later.
_BYTES = 4 * 1024 * 1024
#: A file written again and again is looked at again after this, then after twice as long; seconds.
_PACE, _SLOWEST = 1.0, 30.0
#: A new file that nothing loads code from may be but a name on the way; seconds.
_BEAT = 0.1
#: Byte code is compared for so long a call; seconds.
_COMPILING = 0.03
_MOST_REMEMBERED = 20_000


class TouchJudge:
    """See the module. ``begin`` is called first in each call of the eyes."""

    def __init__(
        self, container: WatchedContainer, scene: Scene, monotonic: Callable[[], float]
    ) -> None:
        self._container = container
        self._scene = scene
        self._monotonic = monotonic
        self._changed: set[str] = set()
        self._pace: dict[tuple[str, int], tuple[float, float]] = {}
        #: What was written, and whether nobody was seen to: a walk found it.
        self._uncompared: deque[tuple[Touch, bool]] = deque()
        self._looked_at = (0, 0)
        self._bytes = _BYTES

    def begin(self) -> None:
        """A call has room of its own for the bytes of files."""
        self._bytes = _BYTES

    def due(self, key: tuple[str, int], touch: Touch, now: float) -> float:
        """When it is time to judge: what may still get another name, or is written on, can wait."""
        if touch.steady:
            return self._pace.get(key, (now, 0.0))[0]
        path = touch.path
        if not touch.only_new or touch.waited or self._container.mount_of(path) is not None:
            return now
        touch.waited = True
        return now if self._scene.loaders.imports(path) else now + _BEAT

    def judged(
        self, key: tuple[str, int], touch: Touch, now: float, walked: datetime
    ) -> list[Observation]:
        """What its acts say. Before ``walked``, nothing was written that a walk had not found."""
        found: list[Observation] = []
        for act in touch.telling():
            event = FileEvent(act, touch.path, touch.pid, touch.directory)
            found += self._judge(event, touch, walked)
        if found and touch.steady:
            _, pace = self._pace.get(key, (0.0, _PACE / 2))
            pace = min(2 * pace, _SLOWEST)
            if len(self._pace) >= _MOST_REMEMBERED:
                self._pace.clear()
            self._pace[key] = (now + pace, pace)
        return found

    def _judge(self, event: FileEvent, touch: Touch, walked: datetime | None) -> list[Observation]:
        """``walked`` is None where a walk found it."""
        if touch.own:
            facts = self._scene.facts(event, from_beside=touch.beside)
        else:
            facts = Facts(hidden=True)
        content = event.act is not Act.ATTRIBUTES
        if content and facts.bytecode is not None and facts.bytecode.matches is None:
            self._uncompared.append((touch, walked is None))
            self._tells_its_time(event.path)
        if event.path in self._changed and set(facts.attributes) == {"time"}:
            return []  # told already with what was written, or about to be
        observation = judge(event, self._container, facts)
        if observation is None:
            return []
        if content:
            self._tells_its_time(event.path)
        since: datetime | None = touch.since
        if event.act is Act.CLOSED and walked:  # a mapping that is closed changed it before
            in_layer = self._container.mount_of(event.path) is None
            since = min(touch.since, walked) if in_layer else None
        if touch.written_as is not None:
            observation = replace(
                observation,
                message=f"{observation.message} through a hard link, {touch.written_as}",
                evidence={**observation.evidence, "written as": touch.written_as},
            )
        return [self.finished(replace(observation, not_before=since), touch.lineage)]

    def _tells_its_time(self, path: str) -> None:
        if len(self._changed) < _MOST_REMEMBERED:
            self._changed.add(path)

    def found(self, event: FileEvent, since: datetime) -> list[Observation]:
        """What a walk found: nobody was seen to do it."""
        touch = Touch(event.path, 0, since, directory=event.directory)
        return self._judge(event, touch, None)

    def finished(self, observation: Observation, lineage: Lineage | None) -> Observation:
        """With who, and the evidence that there is room for."""
        found = replace(observation, lineage=lineage)
        if self._worth_a_look(observation):
            found = with_evidence(found, self._scene)
        else:
            found = replace(found, evidence={**found.evidence, "content": _NOT_LOOKED_AT})
        self._bytes -= len(found.content.head) if found.content else 0
        return replace(
            found,
            content=found.content if self._bytes >= 0 else None,
            message=_printable(found.message),
            path=None if found.path is None else _printable(found.path),
            evidence={name: _printable(text) for name, text in found.evidence.items()},
        )

    def _worth_a_look(self, observation: Observation) -> bool:
        if observation.finding not in _IN_FLOODS_WITHOUT:
            return True
        second = int(self._monotonic())
        if second != self._looked_at[0]:
            self._looked_at = (second, 0)
        self._looked_at = (second, self._looked_at[1] + 1)
        return self._looked_at[1] <= _NEW_FILES

    @property
    def behind(self) -> bool:
        """Whether there is byte code left to compare."""
        return bool(self._uncompared)

    def compare_bytecode(self) -> Iterator[Observation]:
        """For a moment of this call; the rest with a later one."""
        until = self._monotonic() + _COMPILING
        while self._uncompared and self._monotonic() < until:
            touch, walked = self._uncompared.popleft()
            path = touch.path
            facts = Facts(bytecode=self._scene.compiled(path), from_beside=True)
            observation = judge(FileEvent(Act.CREATED, path, 0), self._container, facts)
            if observation is None:
                continue
            found = self.finished(replace(observation, not_before=touch.since), touch.lineage)
            yield (
                replace(found, evidence={**found.evidence, FOUND_BY: LOOKING}) if walked else found
            )


def _printable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
