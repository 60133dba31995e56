"""Additions proposed from what stands in sealed pods beside their templates. Pure.

Under `Audit` a mesh or a Vault injector changes pods, and they run all the same. What such pods
have in common is proposed as an addition for a policy; whether it should be one a person decides.
The laws, which a test holds:

1. With the proposal, a pod that nothing is left of is what its seal says.
2. What is proposed is what was seen: a name, an image's digest, a command, a mount that no pod had
   is not allowed. A variable's value begins with what all values seen begin with.
3. What one pod of a role has and another has not is not proposed, nor what no policy may allow.
   All of that is left, with the reason.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import JsonValue, ValidationError

from trainseal.api.model import JsonObject, json_object, problems_of
from trainseal.api.policyadditions import Addition
from trainseal.cli.learning import alike_for
from trainseal.provenance.additionmatch import VOLUME_KINDS, is_field
from trainseal.provenance.additions import (
    AddedContainer,
    AddedMount,
    AddedVolume,
    AdditionError,
    Additions,
    compile_additions,
)
from trainseal.provenance.additionsfound import (
    Beside,
    beside,
    container_as_found,
    mount_as_found,
    volume_as_found,
)
from trainseal.provenance.commandlines import finds_code, loads_code
from trainseal.provenance.differences import Json, objects
from trainseal.provenance.livepods import WRITTEN_LATER
from trainseal.provenance.podmatch import RUNTIME_ANNOTATIONS, ExpectedPod, compare_pod
from trainseal.provenance.podrules import RESERVED_PREFIX

#: Characters of a value that the kind holds.
_LONGEST = 256
_MOST_ADDITIONS = 32
#: Of each kind, in one addition.
_MOST = {
    "env": 64,
    "fields": 64,
    "labels": 64,
    "annotations": 64,
    "containers": 4,
    "volumes": 16,
    "mounts": 16,
}
#: What the parts of an addition are called in a pod.
_IN_A_POD = {"mounts": "volumeMounts"}
_PLACE = re.compile(r"(\w+)\[([^\[\]]*)\]$")

T = TypeVar("T", bound=Hashable)
#: Why something is not proposed, by where it stands in a pod and its name.
_Why = dict[tuple[str, str], str]


@dataclass(frozen=True, slots=True)
class RolePods:
    """The pods of one role of a run; ``expected`` is what they must be."""

    namespace: str
    seal: str
    role: str
    expected: ExpectedPod
    pods: tuple[JsonObject, ...]

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.namespace}/{self.seal} {self.role}"


@dataclass(frozen=True, slots=True)
class Left:
    """A difference that no addition is proposed for, why, and on how many pods it was seen."""

    place: str
    why: str
    count: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """What is proposed, and what is left to a person. ``pods`` were looked at."""

    additions: tuple[Addition, ...]
    left: tuple[Left, ...]
    pods: int


@dataclass(slots=True)
class _Seen:
    """What was seen in common, of all roles; and of what was not, why it is not proposed."""

    env: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    fields: set[str] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)
    annotations: set[str] = field(default_factory=set)
    containers: dict[tuple[bool, str], list[AddedContainer]] = field(
        default_factory=lambda: defaultdict(list)
    )
    volumes: dict[tuple[str, str], list[AddedVolume]] = field(
        default_factory=lambda: defaultdict(list)
    )
    mounts: set[AddedMount] = field(default_factory=set)
    why: _Why = field(default_factory=dict)


def propose(roles: Sequence[RolePods]) -> Proposal:
    """Additions for what all pods of each role have beside their template."""
    seen = _Seen()
    for role in roles:
        _look(role, seen)
    why = seen.why
    containers = (_container(found, why) for found in seen.containers.values())
    parts: dict[str, list[JsonValue]] = {
        "env": [*_variables("env", seen.env, why)],
        "fields": [*sorted(seen.fields)],
        "labels": [*sorted(seen.labels)],
        "annotations": [*sorted(seen.annotations)],
        "containers": [c for c in containers if c is not None],
        "volumes": [*_usable("volumes", map(_volume, seen.volumes.values()), "name", why)],
        "mounts": [*_usable("mounts", map(_mount, _sorted(seen.mounts)), "volume", why)],
    }
    additions = tuple(_additions(parts, _reason(roles)))
    left = _left(roles, compile_additions(additions), why)
    return Proposal(additions, tuple(left), sum(len(r.pods) for r in roles))


# What is seen -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Role:
    """What stands in the pods of one role, pod by pod; ``why`` is told what only some have."""

    name: str
    pods: tuple[Beside, ...]
    why: _Why

    def common(self, what: str, items: Callable[[Beside], Iterable[T]]) -> Iterator[T]:
        """What all of them have. A key of several parts ends in the name."""
        counts = Counter(item for pod in self.pods for item in dict.fromkeys(items(pod)))
        for item, count in counts.items():
            if count == len(self.pods):
                yield item
            else:
                name = item[-1] if isinstance(item, tuple) else item
                self.why[what, str(name)] = (
                    f"{count} of {len(self.pods)} pods of {self.name} have it, the others do not"
                )


def _look(role: RolePods, seen: _Seen) -> None:
    found = tuple(beside(role.expected, pod) for pod in role.pods)
    pods = _Role(role.name, found, seen.why)
    _look_at_variables(pods, seen)
    labels = pods.common("labels", lambda pod: pod.labels)
    seen.labels.update(name for name in labels if not name.startswith(RESERVED_PREFIX))
    for name in pods.common("annotations", lambda pod: pod.annotations):
        if name.startswith(RESERVED_PREFIX):
            continue
        if name.startswith(RUNTIME_ANNOTATIONS):
            seen.why["annotations", name] = (
                "container runtimes and their hooks act on it; name it by hand if that is meant"
            )
        else:
            seen.annotations.add(name)
    for key in pods.common(
        "containers", lambda p: ((i, str(c.get("name"))) for i, c in p.containers)
    ):
        init, name = key
        seen.containers[key] += [
            container_as_found(_plain(c, pod.token), init=init)
            for pod in found
            for i, c in pod.containers
            if (i, c.get("name")) == key
        ]
    for name in pods.common("volumes", lambda pod: (str(v.get("name")) for v in pod.volumes)):
        for volume in (v for pod in found for v in pod.volumes if v.get("name") == name):
            rule = volume_as_found(volume)
            if rule.kind in VOLUME_KINDS:
                seen.volumes[name, rule.kind].append(rule)
    keys = pods.common(
        "volumeMounts",
        lambda pod: ((m.path, m.read_only, m.volume) for m in map(mount_as_found, pod.mounts)),
    )
    seen.mounts.update(AddedMount(volume, path, read_only) for path, read_only, volume in keys)


def _look_at_variables(role: _Role, seen: _Seen) -> None:
    for name in role.common("env", lambda pod: (str(e.get("name")) for e in pod.env)):
        entries = [e for pod in role.pods for e in pod.env if e.get("name") == name]
        if why := _not_variable(name):
            seen.why["env", name] = why
        elif all(e.keys() <= {"name", "value"} for e in entries):
            seen.env[name].update(str(e.get("value", "")) for e in entries)
        elif all(map(is_field, entries)):
            seen.fields.add(name)
        else:
            seen.why["env", name] = "its value comes from elsewhere"


def _plain(container: Json, token: str) -> Json:
    """Without the token's mount, whose volume has another name in each pod: it needs no rule."""
    mounts = [m for m in objects(container.get("volumeMounts")) if m.get("name") != token]
    return {**container, "volumeMounts": [dict(m) for m in mounts]}


def _not_variable(name: str) -> str:
    """Why a variable of this name is not proposed; empty where one may be."""
    if loads_code(name):
        return "it decides which code a process loads, and no policy may let a platform add it"
    if finds_code(name):
        return "programs look for code below what it names; add it by hand if that is meant"
    return ""


# What is proposed ---------------------------------------------------------------------------------


def _additions(parts: Mapping[str, list[JsonValue]], reason: str) -> Iterator[Addition]:
    """As many as it takes: each holds so many of a kind."""
    for number in range(_MOST_ADDITIONS):
        chunk = {
            name: items[number * most : (number + 1) * most]
            for name, most in _MOST.items()
            if (items := parts[name])
        }
        given = {name: items for name, items in chunk.items() if items}
        if not given:
            return
        yield Addition.model_validate({"name": f"learnt-{number + 1}", "reason": reason, **given})


def _usable(part: str, items: Iterable[JsonObject], name: str, why: _Why) -> Iterator[JsonObject]:
    """Those that a policy may have."""
    for item in items:
        try:
            addition = Addition.model_validate({"name": "x", "reason": "x", part: [item]})
            compile_additions([addition])
        except ValidationError as error:
            problems = "; ".join(str(problem) for problem in problems_of(error)[:2])
            why[_IN_A_POD.get(part, part), str(item[name])] = problems
        except AdditionError as error:
            words = str(error).removeprefix("addition x: ")
            why[_IN_A_POD.get(part, part), str(item[name])] = words
        else:
            yield item


def _variables(what: str, values: Mapping[str, set[str]], why: _Why) -> Iterator[JsonObject]:
    for name in sorted(values):
        prefix = min(values[name])[: alike_for(sorted(values[name]))][:_LONGEST]
        if prefix:
            yield {"name": name, "valuePrefix": prefix}
        else:
            why[what, name] = "its values begin with nothing in common: any value would be allowed"


def _container(found: Sequence[AddedContainer], why: _Why) -> JsonObject | None:
    first = found[0]
    images = _union(c.images for c in found)
    if tags := [image for image in images if "@sha256:" not in image]:
        why["containers", first.name] = (
            f"its image {tags[0]} has no digest, and a tag can be moved; have what adds it name "
            "its image by digest"
        )
        return None
    for what, kinds in (("command", {c.command for c in found}), ("args", {c.args for c in found})):
        if len(kinds) > 1:
            why["containers", first.name] = f"its {what} is not alike in all pods"
            return None
    values: dict[str, set[str]] = defaultdict(set)
    for name, value in _union(c.env for c in found):
        values[name].add(value)
    unlike: _Why = {}
    env = [*_variables("env", values, unlike)]
    made: JsonObject = {
        "name": first.name,
        "init": True if first.init else None,
        "images": [*images],
        "command": [*first.command] if first.command else None,
        "args": [*first.args] if first.args else None,
        "env": [*env] or None,
        "fields": [*_union(c.fields for c in found)] or None,
        "mounts": [_mount(m) for m in _union(c.mounts for c in found)] or None,
        "hooks": [[*hook] for hook in _union(c.hooks for c in found)] or None,
        "capabilities": [*_union(c.capabilities for c in found)] or None,
    }
    kept: JsonObject = {k: v for k, v in made.items() if v is not None}
    usable = next(_usable("containers", [kept], "name", why), None)
    if usable is not None and unlike:
        names = ", ".join(sorted(name for _, name in unlike))
        why["containers", first.name] = (
            f"the values of its {names} begin with nothing in common; name them by hand"
        )
    return usable


def _volume(found: Sequence[AddedVolume]) -> JsonObject:
    made: dict[str, JsonValue] = {
        "name": found[0].name,
        "kind": found[0].kind,
        "configMaps": [*_union(v.config_maps for v in found)],
        "audiences": [*_union(v.audiences for v in found)],
        "drivers": [*_union(v.drivers for v in found)],
    }
    return {k: v for k, v in made.items() if v}


def _mount(rule: AddedMount) -> JsonObject:
    made: JsonObject = {"volume": rule.volume, "path": rule.path}
    return made | ({"readOnly": True} if rule.read_only else {})


def _union(sets: Iterable[frozenset[T]]) -> list[T]:
    return _sorted(frozenset[T]().union(*sets))


def _sorted(items: Iterable[T]) -> list[T]:
    return sorted(items, key=repr)


def _reason(roles: Sequence[RolePods]) -> str:
    pods = sum(len(r.pods) for r in roles)
    where = ", ".join(dict.fromkeys(r.name for r in roles))
    return f"WRITE HERE what adds it and why it is trusted (seen on {pods} pods of {where})"[:256]


# What is left -------------------------------------------------------------------------------------


def _left(roles: Sequence[RolePods], allowed: Additions, why: _Why) -> Iterator[Left]:
    """Every difference that the proposal leaves."""
    found: dict[tuple[str, str], int] = defaultdict(int)
    for role in roles:
        for pod in role.pods:
            seen = {
                (d.path, why.get(_key(d.path), str(d)))
                for d in compare_pod(role.expected, as_admitted(pod), allowed)
            }
            for item in seen:
                found[item] += 1
    for (place, words), count in sorted(found.items()):
        yield Left(place, words, count)


def _key(path: str) -> tuple[str, str]:
    match = _PLACE.search(path)
    if match is None:
        return "", ""
    return ("containers" if match[1] == "initContainers" else match[1]), match[2]


def as_admitted(pod: JsonObject) -> JsonObject:
    """A live pod as the webhook saw it: not placed, and not joined by anybody."""
    spec, metadata = json_object(pod.get("spec")), json_object(pod.get("metadata"))
    annotations = json_object(metadata.get("annotations"))
    kept: JsonObject = {k: v for k, v in annotations.items() if k not in WRITTEN_LATER}
    return {
        "metadata": {**metadata, "annotations": kept},
        "spec": {k: v for k, v in spec.items() if k not in ("nodeName", "ephemeralContainers")},
    }
