"""Whether a pod that runs is what its seal says: what admission compared, compared again.

Pure. A webhook can be away, or be bypassed; what then got in shows here. The rules, in order:

1. The live pod's spec, its owner and what of its metadata has a meaning equal the expected pod's.
   Where it runs, and labels and annotations that somebody hung on it later, do not count; but those
   that a variable or a volume of the pod is read from do. A container that asks for just what a
   resize was let ask for counts as asking for what was sealed.
2. No debug container joined it.
3. Each image that the kubelet reports is the sealed one, by whichever of its digests.
4. The pods of a role have the same containers with the same variables, and run the image for the
   same platform, whatever a policy lets a platform add to each.

Laws: a pod that admission finds no difference in has none here once it is scheduled and runs; every
difference that admission finds in its spec is found here, but for cpu and memory of what was
resized.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from pydantic import JsonValue

from trainseal.provenance.additions import Additions
from trainseal.provenance.containermatch import INDEX
from trainseal.provenance.differences import Difference, Json, mapping, objects, short, strings
from trainseal.provenance.enginemarks import KUBEFLOW_INDEX
from trainseal.provenance.podmatch import (
    CONTROLLERS_LABELS,
    RUNTIME_ANNOTATIONS,
    ExpectedPod,
    compare_pod,
)
from trainseal.provenance.resizes import Size, sizes, with_sealed_sizes

_KINDS = ("initContainers", "containers")
_MEANINGFUL_LABELS = ("trainseal.dev/", *CONTROLLERS_LABELS)
_MEANINGFUL_ANNOTATIONS = ("trainseal.dev/", "batch.kubernetes.io/", *RUNTIME_ANNOTATIONS)
#: What CNI plugins write down of a network that is up already.
WRITTEN_LATER = frozenset(
    {"k8s.v1.cni.cncf.io/network-status", "k8s.v1.cni.cncf.io/networks-status"}
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class KnownImage:
    """The digests of a sealed image. ``platforms``: those of one platform, by its name."""

    digests: frozenset[str]
    platforms: Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class OddRank:
    """A pod that is not like its peers, and in what."""

    pod: Json
    index: str
    words: str


def known_images(seal_spec: Json) -> dict[str, KnownImage]:
    """The sealed images, by the reference that the template names."""
    found = {}
    for image in objects(seal_spec.get("images")):
        platforms = {
            str(p.get("platform")): frozenset({str(p.get("manifest")), str(p.get("config"))})
            for p in objects(image.get("platforms"))
        }
        found[str(image.get("reference"))] = KnownImage(
            frozenset({str(image.get("digest"))}.union(*platforms.values())), platforms
        )
    return found


def live_differences(
    expected: ExpectedPod, pod: Json, additions: Additions, let: Collection[Size] = ()
) -> tuple[Difference, ...]:
    """What of a live pod is not what the seal says; ``let``: sizes that it was let have since."""
    pod = with_sealed_sizes(pod, _sealed_sizes(expected), let)
    metadata = mapping(pod.get("metadata"))
    view: Json = {
        "metadata": {
            **metadata,
            "labels": _kept(
                metadata.get("labels"),
                expected.labels.keys()
                | expected.added.labels.keys()
                | _referred(expected, "labels"),
                _MEANINGFUL_LABELS,
            ),
            "annotations": _kept(
                metadata.get("annotations"),
                expected.annotations.keys()
                | expected.added.annotations.keys()
                | _referred(expected, "annotations"),
                _MEANINGFUL_ANNOTATIONS,
            ),
        },
        "spec": {
            k: v
            for k, v in mapping(pod.get("spec")).items()
            if k not in ("nodeName", "ephemeralContainers")
        },
    }
    return compare_pod(expected, view, additions)


def unlike_sealed(expected: ExpectedPod, pod: Json) -> frozenset[Size]:
    """Sizes of a live pod's containers that are others than sealed: by a resize, by what the
    cluster gives to who asks for nothing, or past the webhook."""
    sealed = _sealed_sizes(expected)
    found = sizes(pod).items()
    return frozenset(size for name, size in found if sealed.get(name, size) != size)


def _sealed_sizes(expected: ExpectedPod) -> dict[str, Size]:
    containers = (*expected.init_containers, *expected.containers)
    return {c.name: Size.of(c.name, c.resources) for c in containers}


def _referred(expected: ExpectedPod, part: str) -> frozenset[str]:
    return frozenset(key.name for key in expected.referred if key.part == part)


def _kept(found: JsonValue, wanted: Set[str], prefixes: tuple[str, ...]) -> dict[str, JsonValue]:
    return {
        k: v
        for k, v in strings(found).items()
        if k in wanted or (k.startswith(prefixes) and k not in WRITTEN_LATER)
    }


def debug_containers(pod: Json) -> tuple[str, ...]:
    """Name and image of each ephemeral container."""
    found = objects(mapping(pod.get("spec")).get("ephemeralContainers"))
    return tuple(f"{c.get('name')} ({c.get('image')})" for c in found)


def image_differences(pod: Json, images: Mapping[str, KnownImage]) -> tuple[Difference, ...]:
    """Containers whose image the kubelet reports by a digest that the seal does not have.

    A container that has not started reports none; an image that the seal does not list (the
    gate's, which stands in the template by digest) is left to the runtime.
    """
    return tuple(
        Difference(f"status.{name}.imageID", digest, " or ".join(sorted(known.digests)))
        for name, digest, known in _reported(pod, images)
        if digest not in known.digests
    )


def _reported(pod: Json, images: Mapping[str, KnownImage]) -> Iterator[tuple[str, str, KnownImage]]:
    spec, status = mapping(pod.get("spec")), mapping(pod.get("status"))
    named = {c.get("name"): c.get("image") for kind in _KINDS for c in objects(spec.get(kind))}
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in objects(status.get(kind)):
            known = images.get(str(named.get(container.get("name"))))
            digests = _DIGEST.findall(str(container.get("imageID") or ""))
            if known is not None and digests:
                yield str(container.get("name")), digests[-1], known


def index_of(pod: Json) -> str:
    """The pod's place in its run; empty where it has none."""
    metadata = mapping(pod.get("metadata"))
    by_jobs = strings(metadata.get("annotations")).get(INDEX)
    return by_jobs or strings(metadata.get("labels")).get(KUBEFLOW_INDEX, "")


def odd_ranks(pods: Sequence[Json], images: Mapping[str, KnownImage]) -> tuple[OddRank, ...]:
    """Pods of one role that are not like most of them; where none are most, like the first."""
    traits = [(pod, dict(_traits(pod, images))) for pod in sorted(pods, key=_place)]
    found: dict[int, list[str]] = {}
    for trait in sorted({name for _, has in traits for name in has}):
        values = [(at, has[trait]) for at, (_, has) in enumerate(traits) if trait in has]
        usual = Counter(value for _, value in values).most_common(1)[0][0]
        for at, value in values:
            if value != usual:
                found.setdefault(at, []).append(f"{trait}: {_versus(value, usual)}")
    return tuple(
        OddRank(traits[at][0], index_of(traits[at][0]), "; ".join(words))
        for at, words in sorted(found.items())
    )


def _place(pod: Json) -> tuple[int, str]:
    index = index_of(pod)
    return (int(index) if index.isascii() and index.isdigit() else -1, index)


def _traits(pod: Json, images: Mapping[str, KnownImage]) -> Iterator[tuple[str, frozenset[str]]]:
    spec = mapping(pod.get("spec"))
    containers = (c for kind in _KINDS for c in objects(spec.get(kind)))
    yield "containers", frozenset(str(c.get("name")) for c in containers)
    for kind in _KINDS:
        for container in objects(spec.get(kind)):
            names = frozenset(str(e.get("name")) for e in objects(container.get("env")))
            yield f"variables of {container.get('name')}", names
    for name, digest, known in _reported(pod, images):
        platforms = {p for p, digests in known.platforms.items() if digest in digests}
        if len(platforms) == 1:
            yield f"image of {name}", frozenset(platforms)


def _versus(found: frozenset[str], usual: frozenset[str]) -> str:
    words = []
    if more := sorted(found - usual):
        words.append(f"has {short(', '.join(more))}")
    if less := sorted(usual - found):
        words.append(f"lacks {short(', '.join(less))}")
    return ", ".join(words)


def claims_of(template: Json) -> tuple[str, ...]:
    """Names of the claims that a template's pods mount."""
    volumes = objects(mapping(template.get("spec")).get("volumes"))
    names = [mapping(v.get("persistentVolumeClaim")).get("claimName") for v in volumes]
    return tuple(dict.fromkeys(str(n) for n in names if n))


def secrets_of(template: Json) -> tuple[str, ...]:
    """Names of the Secrets that a template's pods read: of variables, of volumes, for pulling."""
    spec = mapping(template.get("spec"))
    names: list[JsonValue] = [s.get("name") for s in objects(spec.get("imagePullSecrets"))]
    for kind in _KINDS:
        for container in objects(spec.get(kind)):
            sources = [mapping(e.get("valueFrom")) for e in objects(container.get("env"))]
            names += [mapping(s.get("secretKeyRef")).get("name") for s in sources]
    for volume in objects(spec.get("volumes")):
        names.append(mapping(volume.get("secret")).get("secretName"))
        for source in objects(mapping(volume.get("projected")).get("sources")):
            names.append(mapping(source.get("secret")).get("name"))
    return tuple(dict.fromkeys(str(n) for n in names if n))


def account_of(template: Json) -> str:
    """Name of the service account that a template's pods run as."""
    return str(mapping(template.get("spec")).get("serviceAccountName") or "default")


def claim_templates_of(template: Json) -> tuple[str, ...]:
    """Names of the ResourceClaimTemplates that a template's pods get their devices by."""
    claims = objects(mapping(template.get("spec")).get("resourceClaims"))
    names = [claim.get("resourceClaimTemplateName") for claim in claims]
    return tuple(dict.fromkeys(str(n) for n in names if n))
