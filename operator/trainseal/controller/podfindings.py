"""What is wrong with the pods of one run as they stand, in findings. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from trainseal.api.findings import FindingId
from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.controller.ownreport import Seen
from trainseal.provenance.additions import Additions, Rules
from trainseal.provenance.additionsfound import (
    container_as_found,
    containers_in,
    mount_as_found,
    volume_as_found,
)
from trainseal.provenance.differences import strings
from trainseal.provenance.livepods import (
    KnownImage,
    debug_containers,
    image_differences,
    index_of,
    live_differences,
    odd_ranks,
    unlike_sealed,
)
from trainseal.provenance.podmatch import ExpectedPod
from trainseal.provenance.resizes import Size

_MOST = 8
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sealed:
    """What pods of a run must be: by the UID of the Job that controls them."""

    expected: Mapping[str, ExpectedPod]
    images: Mapping[str, KnownImage]


def owner_of(pod: JsonObject) -> str:
    """UID of the pod's controlling owner; empty where it has none."""
    owners = json_objects(json_object(pod.get("metadata")).get("ownerReferences"))
    return next((str(o.get("uid")) for o in owners if o.get("controller") is True), "")


def additions_as_found(pod: JsonObject) -> Additions:
    """What policies would have had to allow for this pod.

    For pods that were admitted under policies that have changed since: what was allowed then is
    not known any more. What no policy can allow is never among it.
    """
    metadata, found = json_object(pod.get("metadata")), list(containers_in(pod))
    env = {str(e.get("name")) for _, c in found for e in json_objects(c.get("env"))}
    mounts = (m for _, c in found for m in json_objects(c.get("volumeMounts")))
    volumes = json_objects(json_object(pod.get("spec")).get("volumes"))
    return Additions(
        dict.fromkeys(env, ("",)),
        frozenset(k for k in strings(metadata.get("labels")) if not k.startswith("trainseal.dev/")),
        frozenset(strings(metadata.get("annotations"))),
        _one(container_as_found(c, init=kind == "initContainers") for kind, c in found),
        _one(map(volume_as_found, volumes)),
        _one(map(mount_as_found, mounts)),
        frozenset(env),
    )


def _one(rules: Iterable[T]) -> Rules[T]:
    return frozenset({frozenset(rules)})


def sizes_in_question(pod: JsonObject, sealed: Sealed) -> frozenset[Size]:
    """What of a pod is no difference if it was let ask for it since; none where it is foreign."""
    expected = sealed.expected.get(owner_of(pod))
    return unlike_sealed(expected, pod) if expected is not None else frozenset()


def findings_on(
    pod: JsonObject,
    sealed: Sealed,
    additions: Additions | None,
    let: Collection[Size] = (),
) -> Iterator[Seen]:
    """What is wrong with one pod; ``additions`` None where those it was admitted under are lost,
    ``let``: sizes that resizes were let through with.
    """
    place = place_of(pod)
    expected = sealed.expected.get(owner_of(pod))
    if expected is None:
        yield _seen(
            FindingId.POD_FOREIGN,
            pod,
            f"pod {place['pod']} bears the run's label; found owner {owner_of(pod) or 'none'}, "
            f"expected {' or '.join(sealed.expected)}",
            owner_of(pod),
        )
        return
    allowed = additions if additions is not None else additions_as_found(pod)
    if found := live_differences(expected, pod, allowed, let):
        words = "; ".join(str(d) for d in found[:_MOST])
        yield _seen(FindingId.POD_CHANGED, pod, f"pod {place['pod']}: {words}", words)
    if images := image_differences(pod, sealed.images):
        words = "; ".join(str(d) for d in images[:_MOST])
        yield _seen(FindingId.POD_IMAGE, pod, f"pod {place['pod']}: {words}", words)
    if debug := debug_containers(pod):
        words = ", ".join(debug[:_MOST])
        yield _seen(
            FindingId.POD_EPHEMERAL, pod, f"pod {place['pod']} was joined by {words}", words
        )


def is_at_work(pod: JsonObject) -> bool:
    """Whether the pod holds its place: it has not ended and is not told to."""
    metadata, status = json_object(pod.get("metadata")), json_object(pod.get("status"))
    return not metadata.get("deletionTimestamp") and status.get("phase") not in (
        "Succeeded",
        "Failed",
    )


def findings_among(pods: Sequence[JsonObject], sealed: Sealed) -> Iterator[Seen]:
    """Two pods with one place, and ranks that differ from their peers, among pods at work."""
    by_owner: dict[str, list[JsonObject]] = defaultdict(list)
    for pod in pods:
        if owner_of(pod) in sealed.expected:
            by_owner[owner_of(pod)].append(pod)
    for owner, members in by_owner.items():
        places: dict[str, list[JsonObject]] = defaultdict(list)
        for pod in members:
            places[index_of(pod)].append(pod)
        for index, holders in places.items():
            if len(holders) > 1:
                yield _duplicate(owner, index, holders)
        for odd in odd_ranks(members, sealed.images):
            yield _seen(
                FindingId.RANK_DIFFERS,
                dict(odd.pod),
                f"rank {odd.index} of {sealed.expected[owner].object_name} differs from its peers: "
                f"{odd.words}",
                odd.words,
            )


def _duplicate(owner: str, index: str, holders: Sequence[JsonObject]) -> Seen:
    places = [place_of(p) for p in holders]
    words = ", ".join(f"{p['pod']} on {p['node'] or 'no node'}" for p in places)
    return Seen(
        id=FindingId.POD_DUPLICATE,
        subject=f"{owner} {index}",
        message=f"{len(holders)} pods run with index {index}: {words}",
        occasion=" ".join(sorted(p["podUID"] for p in places)),
        evidence={"index": index, "pods": words},
    )


def _seen(id_: FindingId, pod: JsonObject, message: str, occasion: str) -> Seen:
    place = place_of(pod)
    return Seen(id=id_, subject=place["podUID"], message=message, occasion=occasion, evidence=place)


def place_of(pod: JsonObject) -> dict[str, str]:
    """Where a pod stands, as findings on it say."""
    metadata = json_object(pod.get("metadata"))
    return {
        "pod": str(metadata.get("name")),
        "podUID": str(metadata.get("uid")),
        "index": index_of(pod),
        "node": str(json_object(pod.get("spec")).get("nodeName") or ""),
    }
