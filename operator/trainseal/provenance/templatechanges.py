"""What of a template, or a job, is another than before, in the order in which it matters. Pure.

For who signed the one and is asked to sign the other. Laws, each tested:

* there is a change exactly where the canonical forms differ;
* a bound is called wider only where it admits all that it admitted and more, narrower only where it
  admits less and nothing else; ``same`` is another spelling, ``different`` is all else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, get_args

from pydantic import JsonValue, ValidationError

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.api.trainingtemplate import Parameter, Scalar
from trainseal.provenance.templates import admits

Json = Mapping[str, JsonValue]
#: The weightiest first.
Weight = Literal["launch", "bounds", "references", "commands", "environment", "rest"]
WEIGHTS: tuple[Weight, ...] = get_args(Weight)
Effect = Literal["wider", "narrower", "same", "different"]

#: By these the entries of a list are told apart, if all have one and no two the same.
_NAMES = ("name", "mountPath")
_CONTAINERS = frozenset({"containers", "initContainers", "ephemeralContainers"})
_FIELDS: Mapping[str, Weight] = {
    "image": "references",
    "command": "commands",
    "args": "commands",
    "workingDir": "commands",
    "lifecycle": "commands",
    "livenessProbe": "commands",
    "readinessProbe": "commands",
    "startupProbe": "commands",
    "env": "environment",
    "envFrom": "environment",
}
#: Whole numbers of which each is tried.
_FEW = 64

#: Keys, and of lists the entry's name or number.
_Way = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One field: what it was and what it is; None where it is absent.

    ``effect`` is of fields that bound what runs may do; None for all others.
    """

    weight: Weight
    path: str
    before: JsonValue
    after: JsonValue
    effect: Effect | None = None


def changes(old: Json, new: Json) -> tuple[Change, ...]:
    """From one canonical form to another, the weightiest first; none where they are the same."""
    found = list(_mapping((), old, new))
    return tuple(sorted(found, key=lambda change: WEIGHTS.index(change.weight)))


def job_changes(old: Json, new: Json) -> tuple[Change, ...]:
    """The same of two jobs, by what people sign of their ``spec``."""
    found = changes({"spec": {"job": dict(old)}}, {"spec": {"job": dict(new)}})
    return tuple(replace(c, path=c.path.replace("spec.job", "spec", 1)) for c in found)


def _value(way: _Way, old: JsonValue, new: JsonValue) -> Iterator[Change]:
    if _text(old) == _text(new):
        return
    if own := _own(way, old, new):
        yield from own
    elif _are(dict, old, new):
        yield from _mapping(way, json_object(old), json_object(new))
    elif _are(list, old, new) and _all_objects(old) and _all_objects(new):
        yield from _objects(way, json_objects(old), json_objects(new))
    else:
        yield _change(way, old, new)


def _mapping(way: _Way, old: Json, new: Json) -> Iterator[Change]:
    for key in [*old, *(k for k in new if k not in old)]:
        yield from _value((*way, key), old.get(key), new.get(key))


def _objects(way: _Way, old: Sequence[JsonObject], new: Sequence[JsonObject]) -> Iterator[Change]:
    before, after = _named(old, new)
    for name in [*before, *(n for n in after if n not in before)]:
        yield from _value((*way, f"[{name}]"), before.get(name), after.get(name))
    was, now = [n for n in before if n in after], [n for n in after if n in before]
    if was != now:
        yield _change(way, list(was), list(now))


def _named(
    old: Sequence[JsonObject], new: Sequence[JsonObject]
) -> tuple[dict[str, JsonObject], dict[str, JsonObject]]:
    """The entries of both lists, by names if they have such, else by their places."""
    for field in _NAMES:
        pair = [{str(entry.get(field)): entry for entry in entries} for entries in (old, new)]
        if all(isinstance(entry.get(field), str) for entry in (*old, *new)) and (
            (len(pair[0]), len(pair[1])) == (len(old), len(new))
        ):
            return pair[0], pair[1]
    before, after = ({str(at): e for at, e in enumerate(entries)} for entries in (old, new))
    return before, after


def _are(kind: type[dict[str, JsonValue]] | type[list[JsonValue]], *pair: JsonValue) -> bool:
    """Whether each is of the kind or absent, and one has something in it."""
    return all(v is None or isinstance(v, kind) for v in pair) and any(pair)


def _all_objects(value: JsonValue) -> bool:
    return not isinstance(value, list) or all(isinstance(entry, dict) for entry in value)


def _text(value: JsonValue) -> str:
    """Python holds 1 and True for equal; a canonical form has 1.0 as 1."""
    return json.dumps(value, sort_keys=True)


def _change(way: _Way, before: JsonValue, after: JsonValue, effect: Effect | None = None) -> Change:
    path = ""
    for part in way:
        path += part if part.startswith("[") else f".{part}"
    return Change(_weight(way), path.removeprefix("."), before, after, effect)


def _weight(way: _Way) -> Weight:
    if way[:2] == ("spec", "launch") or way[:3] == ("spec", "job", "validity"):
        return "launch"
    if way[:1] == ("spec",) and way[1:2] and (way[1] in _EFFECTS_OF or way[1] == "resume"):
        return "bounds"
    if way[:3] == ("spec", "job", "code"):
        return "references"
    if way[:3] == ("spec", "job", "roles"):
        for at, part in enumerate(way):
            if part in _CONTAINERS and at + 2 < len(way):
                return _FIELDS.get(way[at + 2], "rest")
            if part == "volumes" and "image" in way[at:]:
                return "references"
    return "rest"


# Fields that bound what runs may do ------------------------------------------------------------


def _own(way: _Way, old: JsonValue, new: JsonValue) -> list[Change]:
    """The changes of a field whose effect can be told; of others none."""
    if way == ("spec", "launch", "requesters"):
        return list(_requesters(way, old, new))
    if way == ("spec", "resume"):
        return [_change(way, old, new, _opened(old, new) or "different")]
    if way[:1] == ("spec",) and len(way) == 3 and way[1] in _EFFECTS_OF:
        named = (*way[:2], f"[{way[2]}]")
        effect = _opened(old, new) or _EFFECTS_OF[way[1]](old, new)
        return [_change(named, old, new, effect)]
    if way in (("spec", "launch", "notAfter"), ("spec", "job", "validity", "notAfter")):
        return [_change(way, old, new, _limit(_time(old), _time(new)))]
    if way in (("spec", "launch", "maxConcurrent"), ("spec", "job", "validity", "maxRuns")):
        return [_change(way, old, new, _limit(_amount(old), _amount(new)))]
    if way == ("spec", "job", "validity", "cluster"):
        gone: Effect = "wider" if new is None else "different"
        return [_change(way, old, new, "narrower" if old is None else gone)]
    return []


def _requesters(way: _Way, old: JsonValue, new: JsonValue) -> Iterator[Change]:
    before = {_text(r): r for r in (old if isinstance(old, list) else ())}
    after = {_text(r): r for r in (new if isinstance(new, list) else ())}
    for text, requester in before.items():
        if text not in after:
            yield _change(way, requester, None, "narrower")
    for text, requester in after.items():
        if text not in before:
            yield _change(way, None, requester, "wider")
    if before.keys() == after.keys():
        yield _change(way, old, new, "same")


def _opened(old: JsonValue, new: JsonValue) -> Effect | None:
    if old is None:
        return "wider"
    return "narrower" if new is None else None


def _limit(old: float | None, new: float | None) -> Effect:
    """Of a most that may be absent (infinite); None where one of them cannot be read."""
    if old is None or new is None:
        return "different"
    return "same" if old == new else "wider" if new > old else "narrower"


def _amount(value: JsonValue) -> float | None:
    if value is None:
        return float("inf")
    return float(value) if isinstance(value, int | float) else None


def _time(value: JsonValue) -> float | None:
    if value is None:
        return float("inf")
    try:
        read = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return read.timestamp() if read.tzinfo else None


def _sizes(old: JsonValue, new: JsonValue) -> Effect:
    least = _limit(_amount(json_object(old).get("min")), _amount(json_object(new).get("min")))
    most = _limit(_amount(json_object(old).get("max")), _amount(json_object(new).get("max")))
    upward: dict[Effect, Effect] = {"wider": "narrower", "narrower": "wider"}
    found = {upward.get(least, least), most} - {"same"}
    return found.pop() if len(found) == 1 else "different" if found else "same"


def _choice(_old: JsonValue, _new: JsonValue) -> Effect:
    return "different"


def _parameters(old: JsonValue, new: JsonValue) -> Effect:
    try:
        before, after = Parameter.model_validate(old), Parameter.model_validate(new)
    except ValidationError:
        return "different"
    kept, added = _within(before, after), _within(after, before)
    if kept and added:
        return "same"
    return "wider" if kept else "narrower" if added else "different"


_EFFECTS_OF = {"parameters": _parameters, "replicas": _sizes, "code": _choice}


def _within(one: Parameter, other: Parameter) -> bool:
    """Whether ``other`` admits whatever ``one`` admits; False too where that cannot be told."""
    values = _values(one)
    if values is not None:
        return all(admits(other, value) for value in values if admits(one, value))
    if other.enum is not None:
        return False
    if one.type == "string" or other.type == "string":
        longest = (one.max_length, other.max_length)
        return one.type == other.type and None not in longest and longest[0] <= longest[1]  # type: ignore[operator]
    if "boolean" in (one.type, other.type) or (one.type, other.type) == ("number", "integer"):
        return False
    bounds = _bounds(one)
    if bounds is None or other.minimum is None or other.maximum is None:
        return False
    return other.minimum <= bounds[0] and bounds[1] <= other.maximum


def _values(parameter: Parameter) -> Sequence[Scalar] | None:
    """All that it admits, and perhaps more; None where those are too many."""
    if parameter.enum is not None:
        return parameter.enum
    if parameter.type == "boolean":
        return [True, False]
    bounds = _bounds(parameter)
    if bounds is None or not bounds[1] - bounds[0] <= _FEW:
        return None
    least, most = bounds
    if parameter.type == "integer":
        return list(range(int(least), int(most) + 1))
    return [least] if least == most else None


def _bounds(parameter: Parameter) -> tuple[float, float] | None:
    """The least and the most that a number may be."""
    least, most = parameter.minimum, parameter.maximum
    if least is None or most is None:
        return None
    return (math.ceil(least), math.floor(most)) if parameter.type == "integer" else (least, most)
