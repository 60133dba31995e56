"""What a case is: an attack, what must come of it, and what is like it and no attack."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from tests.attacks.scene import Scene
from tests.e2e.lab import EDITOR, Object

#: Carries the attack out. Gives when it was done, by the node's clock; or, where what was done must
#: last until it is seen, a context in which it lasts, giving the same.
Attack = Callable[[Scene], object]
Twin = Callable[[Scene], object]


@dataclass(frozen=True, slots=True)
class Finding:
    """The finding that must come of it, once.

    ``by`` is who is named: a Kubernetes user, or nobody (empty) where it came past the API server.
    None: the process is gone before anybody can look, and who was in the pod just then may be named
    by the time, which the evidence says.
    ``tells`` are texts that the finding must have somewhere: evidence, message or difference.
    """

    id: str
    path: str = ""
    by: str | None = EDITOR
    tells: tuple[str, ...] = ()
    seconds: float = 60.0

    def is_in(self, found: Object) -> bool:
        """Whether this is the finding, whoever is named in it."""
        text = json.dumps(found)
        return (
            found["id"] == self.id
            and (not self.path or found.get("path") == self.path)
            and all(part in text for part in self.tells)
        )


@dataclass(frozen=True, slots=True)
class Refused:
    """It is not let happen: the answer says this."""

    says: str


@dataclass(frozen=True, slots=True)
class Told:
    """The case itself checks what is known of it: ``where``, in words."""

    where: str


@dataclass(frozen=True, slots=True)
class Missed:
    """It is carried out, and no finding comes of it: why, and what there is instead."""

    why: str


@dataclass(frozen=True, slots=True)
class NotTried:
    """It cannot be carried out on one node without a GPU."""

    why: str


Expected = Finding | Refused | Told | Missed | NotTried


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table. ``on`` names the training that is attacked.

    ``twin`` is done to a training that nobody attacks.
    """

    group: str
    name: str
    field: str
    expected: Expected
    attack: Attack | None = None
    twin: Twin | None = None
    twin_name: str = ""
    on: str = "attacked"

    @property
    def key(self) -> str:
        """Its name as a test's."""
        return f"{self.group}: {self.name}".lower().replace(" ", "-")
