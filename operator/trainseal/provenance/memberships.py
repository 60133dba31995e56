"""Who belongs to an elastic run: how many pods of each role whose signed size is a range. Pure.

The rules:

1. The range is signed with the job, and stands in the seal. Within it ``spec.scheduling.replicas``
   chooses, which nobody signs; a role that it does not name has as many as its range allows.
2. Members of a role are the pods with the indexes below its number. Each change of a number makes
   the next *epoch*; epoch and members are signed with the seal's binding (``seals``), and only
   then does a pod come or go by them.
3. An engine whose objects cannot be changed runs its roles at their most: it has no members.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import JsonValue

from trainseal.api.model import FieldProblem, JsonObject, json_object, json_objects
from trainseal.api.sealedrun import SealedRunSpec
from trainseal.api.trainingjob import EngineName

Json = Mapping[str, JsonValue]
#: Engines that change how many pods a role has while the run is on.
ELASTIC_ENGINES: frozenset[EngineName] = frozenset({"Job"})
PLACE = "spec.scheduling.replicas"
#: What clocks of the API server and of the controller may be apart.
_SLACK = timedelta(seconds=10)
#: An engine's controller that works behind takes pods away for so long after the next epoch.
_LATE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Range:
    """How many pods a role may have."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class SignedSizes:
    """What is signed of a job's size: by role, in their order, a range or the one size; and the
    engine, which may be one that knows no ranges.
    """

    engine: str
    roles: Mapping[str, Range | int]


@dataclass(frozen=True, slots=True)
class Membership:
    """What is signed: ``members`` by elastic role, in the seal's order; ``since``: when, as text by
    RFC 3339.
    """

    epoch: int
    members: Mapping[str, int]
    since: str

    def listed(self) -> list[JsonValue]:
        """The members as a binding and an epoch hold them."""
        return [{"role": role, "replicas": count} for role, count in self.members.items()]

    def told(self, user: str | None) -> JsonObject:
        """An entry of a seal's ``status.epochs``; ``user``: who chose it, where that is known."""
        found: JsonObject = {
            "number": self.epoch,
            "since": self.since,
            "members": self.listed(),
        }
        return {**found, "user": user} if user else found


def sizes_of_job(spec: Json) -> SignedSizes:
    """Of the ``spec`` of a whole job; what is no size is none."""
    found: dict[str, Range | int] = {}
    for role in json_objects(spec.get("roles")):
        size = role.get("replicas")
        least, most = json_object(size).get("min"), json_object(size).get("max")
        if isinstance(size, int):
            found[str(role.get("name"))] = size
        elif isinstance(least, int) and isinstance(most, int):
            found[str(role.get("name"))] = Range(least, most)
    return SignedSizes(str(spec.get("engine")), found)


def sizes_of_seal(spec: Json) -> SignedSizes:
    """Of a seal's ``spec``. One of a release that ran ranges at their most has no ranges."""
    found: dict[str, Range | int] = {}
    for role in json_objects(spec.get("roles")):
        most, least = role.get("replicas"), role.get("minReplicas")
        if isinstance(most, int):
            found[str(role.get("name"))] = Range(least, most) if isinstance(least, int) else most
    return SignedSizes(str(spec.get("engine")), found)


def ranges_of(spec: SealedRunSpec) -> dict[str, Range]:
    """The elastic roles of a seal."""
    return {
        role.name: Range(role.min_replicas, role.replicas)
        for role in spec.roles
        if role.min_replicas is not None
    }


def asked_replicas(spec: Json) -> JsonObject:
    """What ``spec.scheduling.replicas`` of a job says; nothing where it is absent."""
    return json_object(json_object(spec.get("scheduling")).get("replicas"))


def choice_faults(asked: Mapping[str, JsonValue], signed: SignedSizes) -> Iterator[FieldProblem]:
    """Why a choice of ``spec.scheduling.replicas`` cannot count; nothing for one that can."""
    for role, count in asked.items():
        place, size = f"{PLACE}[{role}]", signed.roles.get(role)
        if size is None:
            yield FieldProblem(place, "no role of this name", f"one of {_list(signed.roles)}")
        elif isinstance(size, int):
            elastic = [name for name, other in signed.roles.items() if isinstance(other, Range)]
            yield FieldProblem(
                place,
                f"a role whose signed size is {size}",
                f"one whose signed `replicas` are a range: {_list(elastic)}",
            )
        elif not isinstance(count, int) or not size.least <= count <= size.most:
            yield FieldProblem(
                place, f"{count}", f"a number from {size.least} to {size.most}, as is signed"
            )
        elif signed.engine not in ELASTIC_ENGINES and count != size.most:
            yield FieldProblem(
                place,
                f"{count} with engine {signed.engine}, whose objects cannot be changed",
                f"{size.most}, at which it runs the role; or sign the job with engine "
                f"{' or '.join(sorted(ELASTIC_ENGINES))}",
            )


def chosen(ranges: Mapping[str, Range], asked: Mapping[str, int]) -> dict[str, int]:
    """The members that a choice without faults makes."""
    return {role: asked.get(role, size.most) for role, size in ranges.items()}


@dataclass(frozen=True, slots=True)
class Shrunk:
    """For how long pods of a role from an index on belonged to no epoch; ``until`` is None for the
    present one.
    """

    below: int
    since: datetime
    until: datetime | None

    def explains(self, index: int, at: datetime) -> bool:
        """Whether the engine's controller takes a pod of this index away at this time."""
        over = self.until is not None and at > self.until + _LATE
        return index >= self.below and at >= self.since - _SLACK and not over


def shrunk(epochs: Sequence[Json], role: str) -> tuple[Shrunk, ...]:
    """By a seal's ``status.epochs``, oldest first."""
    told = [(_time(e.get("since")), _count(e, role)) for e in epochs]
    known = [(since, count) for since, count in told if since is not None and count is not None]
    ends: list[datetime | None] = [since for since, _ in known[1:]]
    return tuple(
        Shrunk(count, since, until)
        for (since, count), until in zip(known, [*ends, None], strict=False)
    )


def sizes_told(epochs: Iterable[Json], role: str) -> frozenset[int]:
    """How many pods a role had in these epochs."""
    found = (_count(epoch, role) for epoch in epochs)
    return frozenset(count for count in found if count is not None)


def members_of(value: JsonValue) -> dict[str, int]:
    """The members that an epoch or a binding holds."""
    return {
        str(member.get("role")): count
        for member in json_objects(value)
        if isinstance(count := member.get("replicas"), int)
    }


def in_words(members: Mapping[str, int]) -> str:
    """``4 worker, 1 evaluator``."""
    return ", ".join(f"{count} {role}" for role, count in members.items())


def _count(epoch: Json, role: str) -> int | None:
    return members_of(epoch.get("members")).get(role)


def _time(value: JsonValue) -> datetime | None:
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
