"""Who asks for a run, as the API server authenticated them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from trainseal.provenance.accessrules import workload_namespace

#: What is kept of a user's groups: directories give people hundreds.
MAX_GROUPS = 64
MAX_GROUP = 256


@dataclass(frozen=True, slots=True)
class Requester:
    """User name and groups. ``groups`` are not all of them where there are very many."""

    username: str
    groups: frozenset[str] = frozenset()

    @property
    def is_account(self) -> bool:
        """Whether this is a service account: whoever can make pods of its can act as it."""
        return workload_namespace(self.username) is not None

    def is_named(self, users: Collection[str], groups: Collection[str]) -> bool:
        """Whether user names or groups name them; a service account is named by user name alone."""
        return self.username in users or (
            not self.is_account and not self.groups.isdisjoint(groups)
        )


def groups_kept(groups: Iterable[object], wanted: Collection[str] = ()) -> tuple[str, ...]:
    """The groups that are worth keeping, those that somebody asks about first; at most 64."""
    found = {g for g in groups if isinstance(g, str) and len(g) <= MAX_GROUP}
    ordered = [*sorted(found & set(wanted)), *sorted(found - set(wanted))]
    return tuple(ordered[:MAX_GROUPS])
