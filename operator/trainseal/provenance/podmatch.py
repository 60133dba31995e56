"""Whether a pod is what its seal says. A comparison in memory: no I/O, cheap enough for 8,000 pods.

The expected pod is the seal's template as the API server defaulted it, which then went through the
Job controller and the admission plugins of Kubernetes itself. What those add is named here, once;
what another engine's controller adds, by that engine, with the values that it must have; what a
platform adds is named in a policy; all else is a difference. The rules, in order:

1. The pod belongs to the seal by the UID of the bound engine object, never by labels; its index and
   its host name are the Job controller's. Where another controller makes the pods, index and name
   are where and as that one writes them.
2. Labels and annotations of the template stand unchanged; others come from Kubernetes' Job
   controller, from the engine, or from a named addition.
3. Placement (node selector, tolerations, affinity, priority, gates) is not signed and may change;
   a pod that names its own node was not placed by the scheduler. Gates are there to be taken away,
   by the controllers whose they are; that none is added later is Kubernetes' own rule.
4. Containers, in their order, are equal; environment, mounts and requests may be extended only as
   Kubernetes itself extends them, or as a policy's addition names. Others are a policy's additions.
5. Volumes are equal, but for the service account's token where the template mounts it, and for a
   policy's additions.
6. A pod that is there stays as it is: an update changes placement and foreign metadata, no more;
   a label or an annotation that a variable or a volume of the pod is read from is not foreign.

Laws: a pod that Kubernetes makes of a template has no difference from it; any other value of any
field outside placement is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from trainseal.provenance.additionmatch import volume_fault
from trainseal.provenance.additions import Additions
from trainseal.provenance.containermatch import (
    BY_JOBS,
    INDEX,
    Around,
    ExpectedContainer,
    compare_containers,
    expected_container,
    token_volume,
)
from trainseal.provenance.differences import (
    NOTHING,
    Difference,
    Json,
    mapping,
    mapping_differences,
    named_differences,
    objects,
    same,
    short,
    strings,
)
from trainseal.provenance.downward import Key, referred_keys
from trainseal.provenance.enginemarks import KUBEFLOW, NO_MARKS, Marks

#: Pod fields that say where and when, never what.
PLACEMENT = frozenset(
    {
        "affinity", "nodeName", "nodeSelector", "overhead", "preemptionPolicy", "priority",
        "priorityClassName", "schedulingGates", "tolerations", "topologySpreadConstraints",
    }
)  # fmt: skip
#: Pod fields with a check of their own below. Pull secrets decide whether an image can be had,
#: never which: images stand by digest.
_OWN_CHECK = frozenset(
    {
        "containers", "hostname", "imagePullSecrets", "initContainers", "serviceAccount",
        "serviceAccountName", "volumes",
    }
)  # fmt: skip
_NOT_FIXED = PLACEMENT | _OWN_CHECK
_JOB_PREFIX = "batch.kubernetes.io/"
#: Labels by which controllers know their pods.
CONTROLLERS_LABELS = (_JOB_PREFIX, "controller-uid", "job-name", KUBEFLOW)
#: What LimitRanger writes down of its defaults.
_LIMIT_RANGER = "kubernetes.io/limit-ranger"
#: Annotations that container runtimes and their hooks act on when a sandbox is made.
RUNTIME_ANNOTATIONS = (
    "cdi.k8s.io/",
    "container.apparmor.security.beta.kubernetes.io/",
    "container.seccomp.security.alpha.kubernetes.io/",
    "io.containerd.",
    "io.katacontainers.",
    "io.kubernetes.cri",
    "k8s.v1.cni.cncf.io/",
    "seccomp.security.alpha.kubernetes.io/",
)
_OURS = "trainseal.dev/"
KINDS: tuple[Literal["initContainers", "containers"], ...] = ("initContainers", "containers")


@dataclass(frozen=True, slots=True)
class ExpectedPod:
    """A role's pod, prepared once when its seal is read."""

    object_name: str
    object_uid: str
    replicas: int
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    job_labels: Mapping[str, str]
    added: Marks
    fixed: Json
    containers: tuple[ExpectedContainer, ...]
    init_containers: tuple[ExpectedContainer, ...]
    volumes: list[Json]
    volume_names: frozenset[str]
    service_account: str
    token: bool
    referred: frozenset[Key]


def prepare(
    object_name: str, object_uid: str, replicas: int, template: Json, added: Marks = NO_MARKS
) -> ExpectedPod:
    """Reads a sealed template once, so that each pod costs only comparisons.

    ``added``: what the engine's controllers write on its pods beyond Kubernetes' own.
    """
    metadata, spec = mapping(template.get("metadata")), mapping(template.get("spec"))
    of_jobs = added.pods is None
    entries = {k: ({"name": k, "value": v},) for k, v in added.env.items()}
    return ExpectedPod(
        object_name=object_name,
        object_uid=object_uid,
        replicas=replicas,
        labels=strings(metadata.get("labels")),
        annotations=strings(metadata.get("annotations")),
        job_labels={
            **(_labels_of_a_job(object_name, object_uid) if of_jobs else {}),
            **added.labels,
        },
        added=added,
        fixed={k: v for k, v in spec.items() if k not in _NOT_FIXED},
        containers=tuple(
            expected_container(c, {**(BY_JOBS if of_jobs else {}), **entries})
            for c in objects(spec.get("containers"))
        ),
        init_containers=tuple(
            expected_container(c, BY_JOBS if of_jobs else {})
            for c in objects(spec.get("initContainers"))
        ),
        volumes=objects(spec.get("volumes")),
        volume_names=frozenset(str(v.get("name")) for v in objects(spec.get("volumes"))),
        service_account=str(spec.get("serviceAccountName") or "default"),
        token=spec.get("automountServiceAccountToken") is not False,
        referred=referred_keys(spec),
    )


def _labels_of_a_job(name: str, uid: str) -> Mapping[str, str]:
    """What the Job controller writes on its pods."""
    return {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    }


def compare_pod(expected: ExpectedPod, pod: Json, additions: Additions) -> tuple[Difference, ...]:
    """All differences of a pod that is being created; none means that it is what the seal says."""
    return tuple(_compare(expected, pod, additions))


def changed_parts(old: Json, new: Json, expected: ExpectedPod | None) -> tuple[str, ...]:
    """What an update of a sealed pod changes and must not: field paths, none for a harmless one.

    Compared with what it was and not with the seal, so that a policy that changed meanwhile does
    not stand in the way of ending a pod. ``expected`` is None where the seal is not known any more.
    """
    return tuple(_changed(old, new, expected))


def _changed(old: Json, new: Json, expected: ExpectedPod | None) -> Iterator[str]:
    was, now = mapping(old.get("spec")), mapping(new.get("spec"))
    if was != now:
        for key in sorted(was.keys() | now.keys()):
            if key not in PLACEMENT and was.get(key) != now.get(key):
                yield f"spec.{key}"
    before, after = mapping(old.get("metadata")), mapping(new.get("metadata"))
    if _owners(before) != _owners(after):
        yield "metadata.ownerReferences"
    guarded: tuple[tuple[Literal["labels", "annotations"], tuple[str, ...]], ...] = (
        ("labels", (_OURS, *CONTROLLERS_LABELS)),
        ("annotations", (_OURS, _JOB_PREFIX, *RUNTIME_ANNOTATIONS)),
    )
    for what, prefixes in guarded:
        one, other = mapping(before.get(what)), mapping(after.get(what))
        if one == other:
            continue
        # By the pod's own spec, and so also where its seal is not known.
        kept = {key.name for key in referred_keys(was) if key.part == what}
        if expected is not None:
            kept |= getattr(expected, what).keys() | getattr(expected.added, what).keys()
            kept |= {expected.added.priority_label} - {""}
        for name in sorted(one.keys() | other.keys()):
            if one.get(name) != other.get(name) and (name.startswith(prefixes) or name in kept):
                yield f"metadata.{what}[{name}]"


def _owners(metadata: Json) -> list[tuple[JsonValue, bool]]:
    return [
        (o.get("uid"), bool(o.get("controller"))) for o in objects(metadata.get("ownerReferences"))
    ]


def _compare(expected: ExpectedPod, pod: Json, additions: Additions) -> Iterator[Difference]:
    metadata, spec = mapping(pod.get("metadata")), mapping(pod.get("spec"))
    yield from _metadata(expected, metadata, additions, spec.get("priority"))
    yield from _names(expected, metadata, spec)
    if spec.get("nodeName"):
        yield Difference("spec.nodeName", f"{spec['nodeName']!r}", "the scheduler places the pod")
    if not same(spec, _NOT_FIXED, expected.fixed):
        yield from mapping_differences("spec", spec, expected.fixed, _NOT_FIXED)
    account = spec.get("serviceAccountName") or "default"
    if account != expected.service_account:
        yield Difference("spec.serviceAccountName", f"{account!r}", f"{expected.service_account!r}")
    token = token_volume(spec.get("volumes")) if expected.token else ""
    if spec.get("volumes", NOTHING) != expected.volumes:
        found = [v for v in objects(spec.get("volumes")) if not token or v.get("name") != token]
        yield from _volumes(expected, found, additions)
    around = Around(token, expected.volume_names, additions)
    for kind in KINDS:
        wanted = expected.containers if kind == "containers" else expected.init_containers
        yield from compare_containers(kind, wanted, spec.get(kind), around)


def _names(expected: ExpectedPod, metadata: Json, spec: Json) -> Iterator[Difference]:
    """By its own name, or by its host name, a pod is known to the others."""
    _, index = _index(expected, metadata)
    hostname, pods = f"{expected.object_name}-{index}", expected.added.pods
    if pods is None and spec.get("hostname") != hostname:
        yield Difference("spec.hostname", short(spec.get("hostname")), repr(hostname))
    if pods is not None and "hostname" in spec:
        yield Difference("spec.hostname", short(spec["hostname"]), "none: the pod's name")
    if pods is not None and metadata.get("name") != f"{pods.name}{index}":
        yield Difference("metadata.name", short(metadata.get("name")), repr(f"{pods.name}{index}"))


def _index(expected: ExpectedPod, metadata: Json) -> tuple[str, JsonValue]:
    """Where its owner's kind says a pod's index, and what stands there."""
    if expected.added.pods is None:
        return f"annotations[{INDEX}]", mapping(metadata.get("annotations")).get(INDEX)
    name = expected.added.pods.index_label
    return f"labels[{name}]", mapping(metadata.get("labels")).get(name)


def _volumes(
    expected: ExpectedPod, found: Sequence[Json], additions: Additions
) -> Iterator[Difference]:
    signed = [v for v in found if str(v.get("name")) in expected.volume_names]
    if signed != expected.volumes:
        yield from named_differences("spec.volumes", signed, expected.volumes)
    for volume in found if len(signed) < len(found) else ():
        if str(volume.get("name")) not in expected.volume_names:
            fault = volume_fault(volume, additions)
            if fault is not None:
                yield Difference(f"spec.volumes[{volume.get('name')}]", fault, "no such volume")


def _metadata(
    expected: ExpectedPod, metadata: Json, additions: Additions, priority: JsonValue
) -> Iterator[Difference]:
    if _owners(metadata) != [(expected.object_uid, True)]:
        yield Difference(
            "metadata.ownerReferences",
            f"{[uid for uid, _ in _owners(metadata)]}",
            f"the one controller {expected.object_name} ({expected.object_uid})",
        )
    labels, annotations = mapping(metadata.get("labels")), mapping(metadata.get("annotations"))
    for what, found, wanted in (
        ("labels", labels, expected.labels),
        ("annotations", annotations, expected.annotations),
    ):
        for name, value in wanted.items():
            if found.get(name) != value:
                yield Difference(f"metadata.{what}[{name}]", f"{found.get(name)!r}", f"{value!r}")
    place, index = _index(expected, metadata)
    yield from _others_labels(expected, labels, additions, index, priority)
    yield from _others_annotations(expected, annotations, additions)
    if not is_index(index, expected.replicas):
        yield Difference(f"metadata.{place}", short(index), f"an index below {expected.replicas}")


def _others_labels(
    expected: ExpectedPod,
    labels: Json,
    additions: Additions,
    index: JsonValue,
    priority: JsonValue,
) -> Iterator[Difference]:
    """Labels that the template does not have."""
    for name, found_value in labels.items():
        if name in expected.labels or name in additions.labels:
            continue
        of_job = index if name == _index_label(expected) else expected.job_labels.get(name)
        if name in _of_the_first(expected):
            of_job = _of_the_first(expected)[name] if index == "0" else ""
        if name == expected.added.priority_label:
            of_job = str(priority)
        if of_job is not None and found_value != of_job:
            yield Difference(f"metadata.labels[{name}]", f"{found_value!r}", f"{of_job!r}")
        if of_job is None and not is_kubernetes_own(expected, "labels", name):
            yield Difference(f"metadata.labels[{name}]", "present", "no such label")


def _others_annotations(
    expected: ExpectedPod, annotations: Json, additions: Additions
) -> Iterator[Difference]:
    """Annotations that the template does not have."""
    for name, value in expected.added.annotations.items():
        if name not in expected.annotations and annotations.get(name, value) != value:
            yield Difference(
                f"metadata.annotations[{name}]", f"{annotations[name]!r}", f"{value!r}"
            )
    for name in annotations:
        if (
            name not in expected.annotations
            and not is_kubernetes_own(expected, "annotations", name)
            and name not in additions.annotations
        ):
            yield Difference(f"metadata.annotations[{name}]", "present", "no such annotation")


def is_kubernetes_own(
    expected: ExpectedPod, part: Literal["labels", "annotations"], name: str
) -> bool:
    """Whether Kubernetes, or the engine, writes a label or an annotation of this name on such a
    pod.
    """
    of_jobs = expected.added.pods is None and name.startswith(_JOB_PREFIX)
    if part == "labels":
        return (
            name in expected.job_labels
            or of_jobs
            or name == _index_label(expected)
            or name in _of_the_first(expected)
            or name == (expected.added.priority_label or None)
        )
    return of_jobs or name == _LIMIT_RANGER or name in expected.added.annotations


def _of_the_first(expected: ExpectedPod) -> Mapping[str, str]:
    return expected.added.pods.first if expected.added.pods is not None else {}


def _index_label(expected: ExpectedPod) -> str:
    return INDEX if expected.added.pods is None else expected.added.pods.index_label


def is_index(text: JsonValue, replicas: int) -> bool:
    """Whether this is how Kubernetes writes an index below ``replicas``."""
    if not isinstance(text, str) or not (text.isascii() and text.isdigit()) or len(text) > 9:
        return False
    return str(int(text)) == text and int(text) < replicas
