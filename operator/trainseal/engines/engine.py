"""What an engine is to the rest of TrainSeal: a small protocol, and one module that keeps it each.

An engine runs the pods of a run; TrainSeal makes no pods. It is known by two kinds of objects:

- its **roots**: what our controller makes, suspended, places, suspends and lets go;
- the **owners** of the pods, one a role: the roots themselves, or what the engine's own controller
  makes of them. A seal is bound to the UIDs of both, and a pod belongs to it by its owner's.

Some have more: what a root needs **beside** it, which our controller makes first, and what stands
**between** root and owners, where one engine's controller makes another engine's root. A seal is
bound to the UIDs of these, too.

The rules that an engine keeps:

1. Roots are rendered suspended, and no pod is made of a suspended root. One that is bound to its
   seal as soon as it is made may be made running (``running``): its first pod is let in once the
   binding is there.
2. A role's pods are equal but for their index, which their owner's kind says.
3. What the engine's controllers write on pods, and on owners' templates, beyond what is sealed, is
   named by name and content (``added``). All else is a difference.
4. Owners go when their root goes, and roots when the TrainingJob goes: by owner references.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import JsonValue

from trainseal.api.model import JsonObject
from trainseal.api.trainingjob import RoleStatus, TrainingJob
from trainseal.engines.podtemplate import RenderInputs
from trainseal.provenance.boundseals import BoundRole
from trainseal.provenance.enginemarks import Marks

LABEL_QUEUE = "kueue.x-k8s.io/queue-name"
Json = Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class ObjectKind:
    """A kind of the Kubernetes API, and the name of its collection."""

    kind: str
    api_version: str
    plural: str


@dataclass(frozen=True, slots=True)
class RenderedRole:
    """A role and what owns its pods: as our controller makes it, or as the engine's is to.

    ``trial``: a Job of the same pods, where the API server fills nothing in of an owner's; it is
    never made.
    """

    name: str
    replicas: int
    object_name: str
    owner: JsonObject
    trial: JsonObject | None = None

    @property
    def tried(self) -> JsonObject:
        """What the API server is asked about for the pods as it would have them."""
        return self.trial or self.owner


@dataclass(frozen=True, slots=True)
class Rendered:
    """All objects of a run; those beside the roots come first.

    Where the roots own the pods, ``roots`` are the roles' owners. ``between`` are as the engine's
    controller is to make them, in that order, and name no owner.
    """

    config_map: JsonObject | None
    service: JsonObject | None
    network_policy: JsonObject
    roots: tuple[JsonObject, ...]
    roles: tuple[RenderedRole, ...]
    beside: tuple[JsonObject, ...] = ()
    between: tuple[JsonObject, ...] = ()


class Owners(Protocol):
    """A kind of owners of pods."""

    #: Whether its controller, once one is resumed, takes pods of before that still end for failed.
    WAITS_FOR_PODS: bool

    def as_job(self, owner: Json) -> JsonObject:
        """An owner read as a Job: its pods at ``spec.template``, whether it is suspended at
        ``spec.suspend``, and all else that it says beside.
        """

    def outcome(self, root: Json) -> tuple[str, str] | None:
        """See ``Engine``."""

    def is_suspended(self, root: Json) -> bool:
        """See ``Engine``."""

    def is_idle(self, owner: Json) -> bool:
        """Whether it is suspended and its controller has taken its pods away."""

    def is_ending(self, owner: Json) -> bool:
        """Whether its controller deletes the pods that are left."""


class Engine(Protocol):
    """One engine. A module keeps it as well as an object."""

    ROOT: ObjectKind
    OWNER: ObjectKind
    #: Engines whose roots this one's controller makes of its own, each of its root's name.
    BETWEEN: tuple[Engine, ...]
    #: Kinds of what a root needs beside it, with what their names have before the root's.
    BESIDE: Mapping[ObjectKind, str]
    #: Fields of the pods' placement that its roots never let change, though Jobs do.
    FIXED: frozenset[str]

    def render(self, job: TrainingJob, inputs: RenderInputs) -> Rendered:
        """The objects for one run; a pure function of the signed job and the seal."""

    def with_templates(self, rendered: Rendered, templates: Mapping[str, JsonObject]) -> Rendered:
        """The same with these pods, by role: those that a seal holds."""

    def root_names(self, job: str, owners: Sequence[tuple[str, str]]) -> tuple[str, ...]:
        """Names of the roots of a run, by its TrainingJob's name and its roles with their owners'
        names.
        """

    def added(self, role: BoundRole) -> Marks:
        """What the engine's controllers write on the role's pods, and on its owner's template."""

    def root_changes(self, wanted: Json, live: Json) -> Iterator[tuple[str, JsonValue, JsonValue]]:
        """What of a root, or of what is beside or between, is not as rendered, found and expected;
        nothing of one that owns pods, which is compared as such.
        """

    def observe(self, role: str, replicas: int, owner: Json) -> RoleStatus:
        """How many pods there are, by the owner's status."""

    def outcome(self, root: Json) -> tuple[str, str] | None:
        """``("Complete" | "Failed", message)`` once the root has ended, else None."""

    def is_suspended(self, root: Json) -> bool:
        """Whether it is to have no pods."""

    def running(self, root: JsonObject) -> JsonObject | None:
        """A root as it is made where its binding follows at once; None where it must be suspended
        until then: it does not own the pods, or whoever makes them does not try again by itself.
        """

    def suspension(self, suspended: bool) -> JsonObject:
        """The merge patch that suspends a root, or lets it go."""

    def pods_at(self, obj: Json, role: str) -> str:
        """Where an object of a run has the spec of a role's pods: a JSON pointer (RFC 6901); empty
        where it has none.
        """
