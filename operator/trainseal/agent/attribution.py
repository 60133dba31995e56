"""Who may have done what nobody was seen doing: by the access records of that minute. Pure.

A process may be gone before its event is read. Whoever had just been let into the container is then
named, if it is one person only, and the finding says that time, or the command, is all that speaks
for it. What the trainer itself did has a process and is never put to anybody's account.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta

from trainseal.agent.sessions import SKEW
from trainseal.api.accessrecord import AccessRecord

#: How long an access counts as just now.
WINDOW = timedelta(seconds=60)
_ENTRIES = frozenset({"Exec", "EphemeralContainer"})

_ALONE_NAMES = "the command of the only access that names the file"
_BY_COMMAND = f"{_ALONE_NAMES}; its process was gone"
_BY_COMMAND_UNSEEN = f"{_ALONE_NAMES}; nobody was seen doing it, and it may come from the node"
_ALONE = "time: the only person inside, or let in within a minute before"
_BY_TIME = f"{_ALONE}; the process was gone"
_BY_TIME_OF_A_SIGNAL = f"{_ALONE}; no signal tells its sender"


@dataclass(frozen=True, slots=True)
class Near:
    """The person, the latest record, and what speaks for it."""

    user: str
    record: str
    by: str

    @property
    def by_command(self) -> bool:
        """Whether the command names the file."""
        return self.by in (_BY_COMMAND, _BY_COMMAND_UNSEEN)


def nearby(
    records: Iterable[AccessRecord],
    container: str | None,
    path: str | None,
    seen: datetime,
    inside: AbstractSet[str] = frozenset(),
    *,
    told: bool = True,
    signal: bool = False,
) -> Near | None:
    """The only person who can be meant; None where there is none, or more than one.

    ``inside`` names the records whose sessions are open, since whenever. Without ``told`` no event
    told of it: it may have been done on the node, and time alone accuses nobody. ``signal``: it
    was one, which nobody sees sent; that too may come from the node, and the finding says so.
    """
    fitting = sorted(
        (
            r
            for r in records
            if r.spec.action in _ENTRIES
            and r.spec.allowed
            and (r.spec.container is None or container is None or r.spec.container == container)
            and (-SKEW <= seen - r.spec.time <= WINDOW or r.metadata.name in inside)
        ),
        key=lambda r: r.spec.time,
    )
    naming = [r for r in fitting if path and any(_names(w, path) for w in r.spec.command or ())]
    if _one(naming):
        by = _BY_COMMAND if told else _BY_COMMAND_UNSEEN
        return Near(naming[-1].spec.username, naming[-1].metadata.name, by)
    if told and _one(fitting):
        by = _BY_TIME_OF_A_SIGNAL if signal else _BY_TIME
        return Near(fitting[-1].spec.username, fitting[-1].metadata.name, by)
    return None


def _names(word: str, path: str) -> bool:
    """Whether the path stands in it as such, and not as part of another."""
    return re.search(rf"(?<![\w./-]){re.escape(path)}(?![\w/-]|\.\w)", word) is not None


def _one(records: list[AccessRecord]) -> bool:
    return len({r.spec.username for r in records}) == 1
