"""What became of each field of a manifest. The law: no field is without an answer.

Whoever reads a field says what becomes of it: ``carry``, ``note`` or ``settle``. What nobody asked
about is left, and ``rest`` says so: a field that nobody here has heard of is not lost in silence.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import JsonValue

from trainseal.cli.wrapping.fields import Field
from trainseal.provenance.document import FieldPath, format_path


class Outcome(enum.StrEnum):
    """What became of a field. All but the first are for a person to look at before signing."""

    CHANGED = "changed"
    """It stands elsewhere or otherwise now, or TrainSeal does it by itself."""
    GUESSED = "guessed"
    """What it is for was guessed."""
    LEFT = "left"
    """The TrainingJob has nothing of it; or what it does is a person's to change."""
    REFUSED = "refused"
    """It is in the TrainingJob, and would not be let in so."""


@dataclass(frozen=True, slots=True)
class Note:
    """One thing to know. ``at`` is the place in the TrainingJob, where there is one."""

    outcome: Outcome
    place: str
    path: str
    why: str
    remedy: str = ""
    at: FieldPath | None = None
    order: tuple[int, int, int] = (0, 0, 0)


class Ledger:
    """The answers given so far."""

    def __init__(self, *roots: Field) -> None:
        """``roots`` are the documents of which every field must have an answer."""
        self._roots = list(roots)
        self._settled: set[tuple[int, FieldPath]] = set()
        self._notes: list[Note] = []
        self._origins: dict[FieldPath, Field] = {}

    def answers_for(self, root: Field) -> None:
        """One more document of which every field must have an answer."""
        self._roots.append(root)

    def settle(self, *fields: Field | None) -> None:
        """No word is needed: what the cluster wrote itself, what says what is said elsewhere."""
        for field in fields:
            if field is not None:
                self._settled.add((id(field.document), field.path))

    def carry(self, field: Field, at: FieldPath) -> JsonValue:
        """The field's value, to be put into the TrainingJob as it is."""
        self._mark(field)
        self._origins.setdefault(at, field)
        return field.value

    def came_from(self, at: FieldPath, field: Field) -> None:
        """A part of the TrainingJob was made of this field."""
        self._origins.setdefault(at, field)

    def note(
        self,
        outcome: Outcome,
        field: Field,
        why: str,
        remedy: str = "",
        at: FieldPath | None = None,
        *,
        settles: bool = True,
    ) -> None:
        """What became of the field and all in it; of it alone, unless it ``settles`` that."""
        if settles:
            self._mark(field)
        self._notes.append(
            Note(outcome, field.place, format_path(field.path), why, remedy, at, self._order(field))
        )
        if at is not None:
            self._origins.setdefault(at, field)

    def changed(
        self, field: Field, why: str, at: FieldPath | None = None, *, settles: bool = True
    ) -> None:
        """It stands elsewhere or otherwise now."""
        self.note(Outcome.CHANGED, field, why, at=at, settles=settles)

    def left(
        self,
        field: Field,
        why: str,
        remedy: str,
        at: FieldPath | None = None,
        *,
        settles: bool = True,
    ) -> None:
        """The TrainingJob has nothing of it, or a person has something to do about it."""
        self.note(Outcome.LEFT, field, why, remedy, at, settles=settles)

    def guessed(self, field: Field, why: str, remedy: str, at: FieldPath | None = None) -> None:
        """What it is for was guessed."""
        self.note(Outcome.GUESSED, field, why, remedy, at)

    def warned(self, at: FieldPath, why: str, default: Field) -> None:
        """What the TrainingJob may have, and may come to regret."""
        self._told(Outcome.GUESSED, at, why, "see whether it is wanted in a sealed pod", default)

    def refused(self, at: FieldPath, why: str, remedy: str, default: Field) -> None:
        """A rule refuses the TrainingJob there; ``default`` is whence what has no origin comes."""
        self._told(Outcome.REFUSED, at, why, remedy, default)

    def _told(self, outcome: Outcome, at: FieldPath, why: str, remedy: str, default: Field) -> None:
        field, below = self.origin(at) or (default, ())
        path = (*field.path, *below)
        place = field.document.where(path) if field.document.position.line else field.place
        self._notes.append(
            Note(
                outcome, place, format_path(path), why, remedy, at,
                self._order(field),
            )
        )  # fmt: skip

    def origin(self, at: FieldPath) -> tuple[Field, FieldPath] | None:
        """The field that a place in the TrainingJob was made of, and the path below it."""
        for length in range(len(at), 0, -1):
            if found := self._origins.get(at[:length]):
                return found, at[length:]
        return None

    def rest(self) -> None:
        """Everything that nobody gave an answer for is left out, and said."""
        ancestors = {
            (document, path[:length])
            for document, path in self._settled
            for length in range(len(path))
        }
        for root in self._roots:
            for field in self._unanswered(root, ancestors):
                self.left(
                    field,
                    "a TrainingJob has no such field",
                    "see whether the run needs it",
                )

    def notes(self) -> tuple[Note, ...]:
        """All of them, in the order of the manifest."""
        return tuple(sorted(dict.fromkeys(self._notes), key=lambda note: note.order))

    def _unanswered(self, field: Field, ancestors: set[tuple[int, FieldPath]]) -> Iterator[Field]:
        key = (id(field.document), field.path)
        if key in self._settled or field.content in (None, ()):
            return
        inner = [f for _, f in field.entries()] or list(field.items())
        if key not in ancestors and field.path:
            yield field
            return
        for child in inner:
            yield from self._unanswered(child, ancestors)

    def _mark(self, field: Field) -> None:
        """Also what a field holds of another document."""
        self._settled.add((id(field.document), field.path))
        for inner in [f for _, f in field.entries()] or field.items():
            self._mark(inner)

    def _order(self, field: Field) -> tuple[int, int, int]:
        documents = [id(root.document) for root in self._roots]
        known = id(field.document)
        position = field.document.position
        for part in field.path:
            position = position.child(part) or position
        at = documents.index(known) if known in documents else len(documents)
        return at, position.line, position.column
