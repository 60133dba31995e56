"""The engine's objects of one run as the API has them: its roots, and what owns the pods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from trainseal.api.model import JsonObject
from trainseal.engines.engine import Engine


@dataclass(frozen=True, slots=True)
class LiveObjects:
    """``owners`` are by role; a role whose owner has gone with its ended root has an empty one."""

    engine: Engine
    roots: tuple[JsonObject, ...]
    owners: Mapping[str, JsonObject]

    @property
    def made(self) -> Iterator[JsonObject]:
        """Owners that the engine's own controller made of the roots."""
        if self.engine.OWNER != self.engine.ROOT:
            yield from (owner for owner in self.owners.values() if owner)

    def outcomes(self) -> list[tuple[str, str] | None]:
        """How each root has ended; None for one that has not."""
        return [self.engine.outcome(root) for root in self.roots]

    def is_suspended(self) -> bool:
        """Whether all of it is."""
        return all(map(self.engine.is_suspended, self.roots))

    def stands_still(self) -> bool:
        """Whether a root is suspended that has not ended: what lets it go on starts it anew."""
        return any(
            self.engine.is_suspended(root) and self.engine.outcome(root) is None
            for root in self.roots
        )
