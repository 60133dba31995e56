"""The engine's objects of one run as the API has them: its roots, and what owns the pods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from trainseal.api.model import JsonObject
from trainseal.engines.engine import Engine, ObjectKind


@dataclass(frozen=True, slots=True)
class LiveObjects:
    """``owners`` are by role; a role whose owner has gone with its ended root has an empty one.

    ``beside`` and ``between``: see ``engines.engine``; the latter with the engines whose roots they
    are.
    """

    engine: Engine
    roots: tuple[JsonObject, ...]
    owners: Mapping[str, JsonObject]
    beside: tuple[tuple[ObjectKind, JsonObject], ...] = ()
    between: tuple[tuple[Engine, JsonObject], ...] = ()

    @property
    def made(self) -> Iterator[JsonObject]:
        """Owners that the engine's own controller made of the roots."""
        if self.engine.OWNER != self.engine.ROOT:
            yield from (owner for owner in self.owners.values() if owner)

    def outcomes(self) -> list[tuple[str, str] | None]:
        """How each root has ended; None for one that has not.

        What was made of a root ends first, and says so whoever is away that tells it of the root.
        """
        ends = (engine.outcome(obj) for engine, obj in self.between)
        below = next((end for end in ends if end is not None), None)
        return [self.engine.outcome(root) or below for root in self.roots]

    def is_suspended(self) -> bool:
        """Whether all of it is."""
        return all(map(self.engine.is_suspended, self.roots))

    def stands_still(self) -> bool:
        """Whether a root is suspended that has not ended: what lets it go on starts it anew."""
        return any(
            self.engine.is_suspended(root) and end is None
            for root, end in zip(self.roots, self.outcomes(), strict=True)
        )

    def placed(self, owner: JsonObject) -> Iterator[tuple[ObjectKind, JsonObject]]:
        """What says where the pods of an owner go, that itself last.

        Of what owners are made from each is placed: it gives its own placement on once it is
        resumed, and takes away nothing that the owner has.
        """
        yield from self.beside
        if self.engine.OWNER != self.engine.ROOT:
            for root in self.roots:
                yield self.engine.ROOT, root
        for engine, obj in self.between:
            yield engine.ROOT, obj
        yield self.engine.OWNER, owner
