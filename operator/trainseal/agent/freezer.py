"""Stopping all processes of a pod at once, and letting them go on: the control group's freezer.

Version 1 (``freezer.state``, Linux Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst) may
stay FREEZING while a process is in a call that cannot be stopped just then; the word is written
again until it says FROZEN. Version 2 (``cgroup.freeze``, admin-guide/cgroup-v2.rst) tells in
``cgroup.events``. What was asked for counts only once it was read back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

State = Literal["frozen", "thawed"]

_STEP_SECONDS = 0.005
#: A process that sleeps uninterruptibly (a hung volume) keeps a group from being frozen whole.
FREEZE_SECONDS = 5.0


class FreezeError(RuntimeError):
    """A pod could not be frozen, or thawed; the words say what was found."""


@dataclass(frozen=True, slots=True)
class Freezer:
    """The freezer of pods' control groups; clock and pause are injected for tests."""

    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep

    def freeze(self, group: Path, seconds: float = FREEZE_SECONDS) -> float:
        """Seconds until every process of the group stood still. Raises FreezeError.

        The group stays as it was asked to be even where not all of it stood still in time: what
        can be stopped is stopped.
        """
        return self._set(group, "frozen", seconds)

    def thaw(self, group: Path, seconds: float = FREEZE_SECONDS) -> float:
        """Seconds until the group's processes went on. Raises FreezeError."""
        return self._set(group, "thawed", seconds)

    def state(self, group: Path) -> State:
        """What the kernel says. Raises FreezeError where the group is gone or has no freezer."""
        try:
            if _is_v1(group):
                word = (group / "freezer.state").read_text().strip()
                return "frozen" if word == "FROZEN" else "thawed"
            events = dict(
                line.split(" ", 1) for line in (group / "cgroup.events").read_text().splitlines()
            )
        except (OSError, ValueError) as error:
            raise FreezeError(f"{group}: its state cannot be read: {error}") from None
        return "frozen" if events.get("frozen") == "1" else "thawed"

    def _set(self, group: Path, wanted: State, seconds: float) -> float:
        began = self.clock()
        while True:
            self._ask(group, wanted)
            if self.state(group) == wanted:
                return self.clock() - began
            if self.clock() - began >= seconds:
                raise FreezeError(
                    f"{group}: found it not {wanted} after {seconds:.0f} s: a process of it is in "
                    "a call that cannot be stopped; look at /proc/PID/stack of its processes"
                )
            self.pause(_STEP_SECONDS)

    def _ask(self, group: Path, wanted: State) -> None:
        try:
            if _is_v1(group):
                word = "FROZEN" if wanted == "frozen" else "THAWED"
                (group / "freezer.state").write_text(word)
            else:
                (group / "cgroup.freeze").write_text("1" if wanted == "frozen" else "0")
        except OSError as error:
            raise FreezeError(
                f"{group}: it cannot be {wanted}: {error}; the agent needs the node's control "
                "groups mounted writable (agent.freeze in the chart's values)"
            ) from None


def _is_v1(group: Path) -> bool:
    return (group / "freezer.state").exists()
