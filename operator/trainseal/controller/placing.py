"""Where the pods of a run go, brought to what ``spec.scheduling`` says now. Pure.

Placement is not signed: it may change while a job lives. What Kubernetes lets change of a Job is
less, and the rules are (pkg/apis/batch/validation, validatePodTemplateUpdate, v1.36):

1. Node selector, tolerations, scheduling gates and node affinity change while the Job is suspended
   and has no pods; before 1.36 only until it first starts.
2. Priority class, spread over the topology, and affinity to pods stay as the Job was made.

Platforms and queues add to the placement as well. So it is compared thrice: what the run went by so
far, what it shall go by, and what the Job says. Only a field that was changed is touched, and what
others added to it stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object, json_objects

Json = Mapping[str, JsonValue]
_MAP, _LISTS = "nodeSelector", ("schedulingGates", "tolerations")
_NODES = "nodeAffinity"
_FIXED = ("priorityClassName", "topologySpreadConstraints")
_FIXED_AFFINITIES = ("podAffinity", "podAntiAffinity")


@dataclass(frozen=True, slots=True)
class Placing:
    """What is to be done with one Job.

    ``movable``: fields of the pods' spec with their new values, None where they go; ``fixed``:
    fields that differ and that no Job lets change.
    """

    movable: JsonObject
    fixed: tuple[str, ...]

    def without(self, fields: frozenset[str]) -> Placing:
        """The same where these fields cannot be changed."""
        movable = {k: v for k, v in self.movable.items() if k not in fields}
        more = (k for k in self.movable if k in fields)
        return Placing(movable, (*self.fixed, *more))

    def operations(self, at: str, spec: Json) -> list[JsonValue]:
        """A JSON patch (RFC 6902) of an object that has the pods' ``spec`` at a JSON pointer."""
        found: list[JsonValue] = []
        for field, value in self.movable.items():
            path = f"{at}/{field}"
            if value is not None:
                found.append({"op": "add", "path": path, "value": value})
            elif field in spec:
                found.append({"op": "remove", "path": path})
        return found


def resolved(obj: JsonValue, pointer: str) -> JsonValue:
    """What an object has at a JSON pointer (RFC 6901) without escapes, or None."""
    for part in pointer.split("/")[1:]:
        if isinstance(obj, dict):
            obj = obj.get(part)
        elif isinstance(obj, list) and part.isdigit() and int(part) < len(obj):
            obj = obj[int(part)]
        else:
            return None
    return obj


def placing(before: Json, wanted: Json, live: Json) -> Placing:
    """``before`` and ``wanted``: the placement that the run went by, and that it shall go by;
    ``live``: the spec of the Job's pods.
    """
    movable = dict(_movable(before, wanted, live))
    fixed = [f for f in _FIXED if _differs(before, wanted, live, f)]
    one, other, now = (json_object(x.get("affinity")) for x in (before, wanted, live))
    fixed += [f"affinity.{f}" for f in _FIXED_AFFINITIES if _differs(one, other, now, f)]
    return Placing(movable, tuple(fixed))


def _differs(before: Json, wanted: Json, live: Json, field: str) -> bool:
    return before.get(field) != wanted.get(field) != live.get(field)


def _movable(before: Json, wanted: Json, live: Json) -> Iterator[tuple[str, JsonValue]]:
    if before.get(_MAP) != wanted.get(_MAP):
        was, must, has = (json_object(x.get(_MAP)) for x in (before, wanted, live))
        selector = {k: v for k, v in has.items() if k not in was and k not in must} | must
        if selector != has:
            yield _MAP, selector or None
    for field in _LISTS:
        if before.get(field) != wanted.get(field):
            gone, must_have, present = (json_objects(x.get(field)) for x in (before, wanted, live))
            theirs = [item for item in present if item not in gone and item not in must_have]
            items: list[JsonValue] = [*must_have, *theirs]
            # In whatever order: it has no meaning.
            if len(items) != len(present) or any(item not in present for item in items):
                yield field, items or None
    one, other, now = (json_object(x.get("affinity")) for x in (before, wanted, live))
    if _differs(one, other, now, _NODES):
        rest = {k: v for k, v in now.items() if k != _NODES}
        nodes = other.get(_NODES)
        yield "affinity", (rest | ({_NODES: nodes} if nodes else {})) or None
