"""What a run leans on beside its pods: is it still what was sealed. Pure: objects in, words out.

The rules, in order:

1. ConfigMap, Service and NetworkPolicy say what was rendered and nothing beyond it, bear the labels
   by which the run is found, and belong to the TrainingJob. In quarantine the NetworkPolicy says
   what we made of it (``isolation``).
2. None of them is younger than the run's Jobs, before which they were made: a younger one was made
   anew. The API server's clock wrote both times.
3. A Job says what was sealed: only whether it is suspended may change, and where its pods go.
4. A claim that the pods mount is not younger than the run's first worker.

Sources: what the API server adds is in kubernetes pkg/apis/core/v1/defaults.go (Service).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta

from pydantic import JsonValue

from trainseal.api.findings import FindingId
from trainseal.api.model import JsonObject, json_object
from trainseal.controller.disturbances import timestamp
from trainseal.controller.objects import holds, owned_by, uid_of
from trainseal.controller.ownreport import Seen
from trainseal.engines.job import template_of
from trainseal.provenance.additions import Additions
from trainseal.provenance.differences import short
from trainseal.provenance.enginemarks import NO_MARKS, Marks
from trainseal.provenance.podmatch import PLACEMENT

_PARTS = ("data", "binaryData", "immutable", "spec")
#: What the API server fills in.
_SERVICE_DEFAULTS: Mapping[str, tuple[JsonValue, ...]] = {
    "internalTrafficPolicy": ("Cluster",),
    "sessionAffinity": ("None",),
    "type": ("ClusterIP",),
}
_SERVICE_ASSIGNED = frozenset({"clusterIPs", "ipFamilies", "ipFamilyPolicy"})
_JOB_CHANGING = frozenset({"manualSelector", "selector", "suspend", "template"})
_OURS = "trainseal.dev/"
#: Two API servers' clocks; ours and an API server's.
_SERVERS_APART = timedelta(seconds=2)
_CLOCKS_APART = timedelta(minutes=1)


def changes(wanted: JsonObject, live: JsonObject) -> tuple[str, ...]:
    """What of a ConfigMap, Service or NetworkPolicy is not as rendered: found and expected."""
    return tuple(_changes(wanted, live))


def _changes(wanted: JsonObject, live: JsonObject) -> Iterator[str]:
    labels = json_object(json_object(live.get("metadata")).get("labels"))
    for name, value in json_object(json_object(wanted.get("metadata")).get("labels")).items():
        if name.startswith(_OURS) and labels.get(name) != value:
            yield _words(f"metadata.labels[{name}]", labels.get(name), value)
    for part in _PARTS:
        one, other = wanted.get(part), live.get(part)
        if not isinstance(one, dict) or not isinstance(other, dict):
            if (one or other) and one != other:
                yield _words(part, other, one)
            continue
        for key in sorted(one.keys() | other.keys()):
            if not _same(str(wanted.get("kind")), key, one.get(key), other.get(key)):
                yield _words(f"{part}.{key}", other.get(key), one.get(key))


def _same(kind: str, key: str, wanted: JsonValue, found: JsonValue) -> bool:
    if wanted is None:
        if kind != "Service":
            return not found
        return not found or key in _SERVICE_ASSIGNED or found in _SERVICE_DEFAULTS.get(key, ())
    # A port's target is defaulted; all else of ours is complete.
    return holds(wanted, found) if key == "ports" else wanted == found


def job_changes(
    wanted: JsonObject, live: JsonObject, additions: Additions, added: Marks = NO_MARKS
) -> tuple[str, ...]:
    """What of a Job, its pods' template included, is not as sealed; ``wanted`` holds the sealed
    template, ``added`` what an engine's controller writes on it.
    """
    return tuple(_job_changes(wanted, live, additions, added))


def root_words(changes: Iterable[tuple[str, JsonValue, JsonValue]]) -> tuple[str, ...]:
    """What of an engine's root is not as sealed: field, found and expected."""
    return tuple(_words(*change) for change in changes)


def _job_changes(
    wanted: JsonObject, live: JsonObject, additions: Additions, added: Marks
) -> Iterator[str]:
    labels = json_object(json_object(live.get("metadata")).get("labels"))
    for name, value in json_object(json_object(wanted.get("metadata")).get("labels")).items():
        if name.startswith(_OURS) and labels.get(name) != value:
            yield _words(f"metadata.labels[{name}]", labels.get(name), value)
    own, found = json_object(wanted.get("spec")), json_object(live.get("spec"))
    for field in sorted((own.keys() | found.keys()) - _JOB_CHANGING):
        if field not in own or not holds(own[field], found.get(field)):
            yield _words(f"spec.{field}", found.get(field), own.get(field))
    template, sealed = template_of(live, added), json_object(own.get("template"))
    pod, expected = json_object(template.get("spec")), json_object(sealed.get("spec"))
    for field in sorted((pod.keys() | expected.keys()) - PLACEMENT):
        if pod.get(field) != expected.get(field):
            yield _words(f"spec.template.spec.{field}", pod.get(field), expected.get(field))
    for what, allowed in (("labels", additions.labels), ("annotations", additions.annotations)):
        has = json_object(json_object(template.get("metadata")).get(what))
        must = json_object(json_object(sealed.get("metadata")).get(what))
        for name in sorted(has.keys() | must.keys()):
            if has.get(name) != must.get(name) and (name in must or name not in allowed):
                yield _words(
                    f"spec.template.metadata.{what}[{name}]", has.get(name), must.get(name)
                )


def surroundings(
    wanted: JsonObject, live: JsonObject | None, owner: str, since: datetime | None
) -> Iterator[Seen]:
    """Findings on one of the three; ``since``: when the first of the run's Jobs was made."""
    name = f"{wanted['kind']} {json_object(wanted['metadata'])['name']}"
    if live is None:
        yield deleted(name, "it is gone", "gone", {})
        return
    made = timestamp(json_object(live.get("metadata")).get("creationTimestamp"))
    facts = {"uid": uid_of(live), "made": made.isoformat() if made else ""}
    if not owned_by(live, owner):
        yield deleted(
            name, "one of its name does not belong to the TrainingJob", uid_of(live), facts
        )
    elif since is not None and made is not None and made > since + _SERVERS_APART:
        words = f"it was made anew at {made.isoformat()}, after the run's Job"
        yield deleted(name, words, uid_of(live), facts)
    if found := changes(wanted, live):
        yield changed(name, found, facts)


def deleted(name: str, words: str, occasion: str, facts: Mapping[str, str]) -> Seen:
    """The finding on an object that is gone or was; ``name`` is its kind and name."""
    return Seen(
        id=FindingId.OBJECT_DELETED,
        subject=name,
        message=f"{name} was deleted: {words}",
        occasion=occasion,
        evidence={"object": name, **facts},
    )


def changed(name: str, found: tuple[str, ...], facts: Mapping[str, str]) -> Seen:
    """The finding on an object that is not as it was sealed."""
    words = "; ".join(found)
    return Seen(
        id=FindingId.OBJECT_CHANGED,
        subject=name,
        message=f"{name} is not as sealed: {words}",
        occasion=f"{facts.get('uid', '')} {words}",
        evidence={"object": name, **facts},
    )


def replaced_claim(claim: JsonObject, first_worker: datetime | None) -> Seen | None:
    """The finding on a claim that is younger than the run's first worker."""
    metadata = json_object(claim.get("metadata"))
    made = timestamp(metadata.get("creationTimestamp"))
    if made is None or first_worker is None or made <= first_worker + _CLOCKS_APART:
        return None
    name = f"PersistentVolumeClaim {metadata.get('name')}"
    return Seen(
        id=FindingId.VOLUME_REPLACED,
        subject=name,
        message=f"{name} was made at {made.isoformat()}; the run's first worker had started at "
        f"{first_worker.isoformat()}",
        occasion=uid_of(claim),
        evidence={"object": name, "uid": uid_of(claim), "made": made.isoformat()},
    )


def _words(path: str, found: JsonValue, expected: JsonValue) -> str:
    return f"{path}: found {short(found)}, sealed {short(expected)}"
