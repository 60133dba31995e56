"""Many events on one file become few acts. Pure.

One write by an editor is five events; a batch is judged by what it leaves: a file that was made,
written and renamed counts once, under its last name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from trainseal.agent.observed import Act, Lineage

#: Acts that make a name lead to other content, the one that tells most first.
_CONTENT = (Act.MOVED_TO, Act.CREATED, Act.WRITTEN, Act.CLOSED)

_FILLED = {Act.CREATED, Act.WRITTEN, Act.CLOSED, Act.ATTRIBUTES}


@dataclass(slots=True)
class Touch:
    """What one process did to one file in a batch.

    ``own`` as in ``scene.Located``. ``beside``: renamed from a new name of the same directory.
    ``followed``: renamed to a name that is judged itself. ``found``: by looking into a directory
    that appeared, so that ``pid`` is who made the directory. ``waited``: it was put off once.
    ``since``: nothing of it was done before.
    ``written_as``: the name under which this file was written, where it is another.
    """

    path: str
    pid: int
    since: datetime
    lineage: Lineage | None = None
    acts: set[Act] = field(default_factory=set)
    directory: bool = False
    own: bool = True
    beside: bool = False
    followed: bool = False
    found: bool = False
    waited: bool = False
    written_as: str | None = None

    def telling(self) -> Iterator[Act]:
        """The acts that say something, in the order of judging."""
        acts = self.acts
        if Act.EXECUTED in acts:
            yield Act.EXECUTED
        content = next((act for act in _CONTENT if act in acts), None)
        if content is not None and not (self.followed and content is not Act.WRITTEN):
            yield content
        if Act.DELETED in acts:
            yield Act.DELETED
        elif Act.MOVED_FROM in acts:
            yield Act.MOVED_FROM
        elif content in (None, Act.CLOSED) and Act.ATTRIBUTES in acts:
            yield Act.ATTRIBUTES

    def join(self, earlier: Touch) -> None:
        """Takes in what the same process did to the same file before."""
        self.acts |= earlier.acts
        self.since = min(self.since, earlier.since)
        self.lineage = self.lineage or earlier.lineage
        self.beside = self.beside or earlier.beside
        self.followed = self.followed or earlier.followed
        self.waited = self.waited or earlier.waited
        self.written_as = self.written_as or earlier.written_as

    @property
    def only_new(self) -> bool:
        """Whether a name was made and filled, and nothing else."""
        return Act.CREATED in self.acts and self.acts <= _FILLED

    @property
    def steady(self) -> bool:
        """Whether it is but another write to a file."""
        return self.acts <= {Act.WRITTEN, Act.CLOSED}
