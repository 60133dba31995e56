"""Whether a pod is what its seal says. A comparison in memory: no I/O, cheap enough for 8,000 pods.

The expected pod is the seal's template as the API server defaulted it, which then went through the
Job controller and the admission plugins of Kubernetes itself. What those add is named here, once;
what a platform adds is named in a policy; all else is a difference. The rules, in order:

1. The pod belongs to the seal by the UID of the bound engine object, never by labels.
2. Labels and annotations of the template stand unchanged; others come from Kubernetes' Job
   controller or a named addition.
3. Placement (node selector, tolerations, affinity, priority, gates) is not signed and may change;
   a pod that names its own node was not placed by the scheduler.
4. Containers, in order and number, are equal; environment, mounts and requests may be extended
   only as Kubernetes itself extends them, or as a policy's addition names.
5. Volumes are equal, but for the service account's token where the template mounts it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from trainseal.provenance.commandlines import loads_code

Json = Mapping[str, JsonValue]

#: Pod fields that say where and when, never what.
PLACEMENT = frozenset(
    {
        "affinity", "nodeName", "nodeSelector", "overhead", "preemptionPolicy", "priority",
        "priorityClassName", "schedulingGates", "tolerations", "topologySpreadConstraints",
    }
)  # fmt: skip
#: Pod fields with a check of their own below.
_OWN_CHECK = frozenset(
    {
        "containers", "hostname", "imagePullSecrets", "initContainers", "serviceAccount",
        "serviceAccountName", "volumes",
    }
)  # fmt: skip
_JOB_LABELS = ("batch.kubernetes.io/", "controller-uid", "job-name")
_JOB_ANNOTATION = "batch.kubernetes.io/"
_TOKEN_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path, no secret
_TOKEN_VOLUME = "kube-api-access-"  # noqa: S105 - a name, no secret
_INDEX_VARIABLE = "JOB_COMPLETION_INDEX"
_INDEX_PATHS = (
    "metadata.annotations['batch.kubernetes.io/job-completion-index']",
    "metadata.labels['batch.kubernetes.io/job-completion-index']",
)
#: Resources that a LimitRange may default; never an extended resource.
_DEFAULTABLE = frozenset({"cpu", "memory", "ephemeral-storage"})
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


@dataclass(frozen=True, slots=True)
class Additions:
    """What named platform additions allow: variables with a value's prefix, labels, annotations."""

    env: Mapping[str, str] = field(default_factory=dict)
    labels: frozenset[str] = frozenset()
    annotations: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ExpectedContainer:
    """A container as it must be, split so that equality is one comparison."""

    name: str
    fixed: Json
    env: tuple[Json, ...]
    mounts: tuple[Json, ...]
    requests: Json
    limits: Json


@dataclass(frozen=True, slots=True)
class ExpectedPod:
    """A role's pod, prepared once when its seal is read."""

    object_name: str
    object_uid: str
    replicas: int
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    fixed: Json
    containers: tuple[ExpectedContainer, ...]
    init_containers: tuple[ExpectedContainer, ...]
    volumes: tuple[Json, ...]
    service_account: str
    token: bool


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between pod and seal: a field path, what was found, what the seal says."""

    path: str
    found: str
    sealed: str

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}, the seal says {self.sealed}"


def prepare(object_name: str, object_uid: str, replicas: int, template: Json) -> ExpectedPod:
    """Reads a sealed template once, so that each pod costs only comparisons."""
    metadata, spec = _object(template.get("metadata")), _object(template.get("spec"))
    skipped = PLACEMENT | _OWN_CHECK
    return ExpectedPod(
        object_name=object_name,
        object_uid=object_uid,
        replicas=replicas,
        labels=_strings(metadata.get("labels")),
        annotations=_strings(metadata.get("annotations")),
        fixed={k: v for k, v in spec.items() if k not in skipped},
        containers=tuple(_split(c) for c in _objects(spec.get("containers"))),
        init_containers=tuple(_split(c) for c in _objects(spec.get("initContainers"))),
        volumes=tuple(_objects(spec.get("volumes"))),
        service_account=str(spec.get("serviceAccountName") or "default"),
        token=spec.get("automountServiceAccountToken") is not False,
    )


def compare_pod(
    expected: ExpectedPod, pod: Json, additions: Additions, *, created: bool
) -> tuple[Difference, ...]:
    """All differences; none means that the pod is what the seal says.

    ``created`` is true while the pod is being created: then nothing has placed it yet.
    """
    return tuple(_compare(expected, pod, additions, created))


def changed_annotations(old: Json, new: Json) -> tuple[str, ...]:
    """Annotations that a runtime acts on and that an update adds, changes or takes away."""
    before = _strings(_object(old.get("metadata")).get("annotations"))
    after = _strings(_object(new.get("metadata")).get("annotations"))
    return tuple(
        sorted(
            name
            for name in before.keys() | after.keys()
            if name.startswith(RUNTIME_ANNOTATIONS) and before.get(name) != after.get(name)
        )
    )


def _compare(
    expected: ExpectedPod, pod: Json, additions: Additions, created: bool
) -> Iterator[Difference]:
    metadata, spec = _object(pod.get("metadata")), _object(pod.get("spec"))
    yield from _metadata(expected, metadata, additions, created)
    if created and spec.get("nodeName"):
        yield Difference("spec.nodeName", f"{spec['nodeName']!r}", "the scheduler places the pod")
    if spec.get("ephemeralContainers"):
        yield Difference("spec.ephemeralContainers", "present", "none")
    fixed = {
        k: v
        for k, v in spec.items()
        if k not in PLACEMENT and k not in _OWN_CHECK and k != "ephemeralContainers"
    }
    if fixed != expected.fixed:
        yield from _mapping_differences("spec", fixed, expected.fixed)
    account = spec.get("serviceAccountName") or "default"
    if account != expected.service_account:
        yield Difference("spec.serviceAccountName", f"{account!r}", f"{expected.service_account!r}")
    yield from _volumes(expected, spec)
    for kind, wanted in (
        ("initContainers", expected.init_containers),
        ("containers", expected.containers),
    ):
        yield from _containers(f"spec.{kind}", wanted, spec.get(kind), expected.token, additions)


def _metadata(
    expected: ExpectedPod, metadata: Json, additions: Additions, created: bool
) -> Iterator[Difference]:
    owners = _objects(metadata.get("ownerReferences"))
    if [o.get("uid") for o in owners] != [expected.object_uid] or not owners[0].get("controller"):
        yield Difference(
            "metadata.ownerReferences",
            f"{[o.get('uid') for o in owners]}",
            f"the one controller {expected.object_name} ({expected.object_uid})",
        )
    labels = _strings(metadata.get("labels"))
    annotations = _strings(metadata.get("annotations"))
    for what, found, wanted in (
        ("labels", labels, expected.labels),
        ("annotations", annotations, expected.annotations),
    ):
        for name, value in wanted.items():
            if found.get(name) != value:
                yield Difference(f"metadata.{what}[{name}]", f"{found.get(name)!r}", f"{value!r}")
    for name in labels:
        if (
            name not in expected.labels
            and not name.startswith(_JOB_LABELS)
            and name not in additions.labels
            and (created or name.startswith("trainseal.dev/"))
        ):
            yield Difference(f"metadata.labels[{name}]", "present", "no such label")
    if created:
        for name in annotations:
            if (
                name not in expected.annotations
                and not name.startswith(_JOB_ANNOTATION)
                and name not in additions.annotations
            ):
                yield Difference(f"metadata.annotations[{name}]", "present", "no such annotation")
    index = annotations.get("batch.kubernetes.io/job-completion-index", "")
    if not (index.isascii() and index.isdigit() and int(index) < expected.replicas):
        yield Difference(
            "metadata.annotations[batch.kubernetes.io/job-completion-index]",
            f"{index!r}",
            f"an index below {expected.replicas}",
        )


def _volumes(expected: ExpectedPod, spec: Json) -> Iterator[Difference]:
    found = [
        v for v in _objects(spec.get("volumes")) if not (expected.token and _is_token_volume(v))
    ]
    if tuple(found) != expected.volumes:
        yield from _named_differences("spec.volumes", found, expected.volumes)


def _is_token_volume(volume: Json) -> bool:
    """A projected volume as the ServiceAccount admission plugin writes it, and nothing more."""
    if not str(volume.get("name", "")).startswith(_TOKEN_VOLUME):
        return False
    sources = _objects(_object(volume.get("projected")).get("sources"))
    kinds = [sorted(source) for source in sources]
    if kinds != [["serviceAccountToken"], ["configMap"], ["downwardAPI"]]:
        return False
    return _object(sources[1]["configMap"]).get("name") == "kube-root-ca.crt"


def _containers(
    path: str,
    expected: Sequence[ExpectedContainer],
    found: JsonValue,
    token: bool,
    additions: Additions,
) -> Iterator[Difference]:
    containers = _objects(found)
    names = [c.get("name") for c in containers]
    if names != [c.name for c in expected]:
        yield Difference(path, f"{names}", f"{[c.name for c in expected]}")
        return
    for index, (wanted, container) in enumerate(zip(expected, containers, strict=True)):
        yield from _container(f"{path}[{index}]", wanted, container, token, additions)


def _container(
    path: str, expected: ExpectedContainer, found: Json, token: bool, additions: Additions
) -> Iterator[Difference]:
    actual = _split(found)
    if actual.fixed != expected.fixed:
        yield from _mapping_differences(path, actual.fixed, expected.fixed)
    if actual.env != expected.env:
        yield from _env(f"{path}.env", expected.env, actual.env, additions)
    if actual.mounts != expected.mounts:
        mounts = [m for m in actual.mounts if not (token and m.get("mountPath") == _TOKEN_MOUNT)]
        if tuple(mounts) != expected.mounts:
            yield from _named_differences(f"{path}.volumeMounts", mounts, expected.mounts)
    if actual.limits != expected.limits:
        yield from _quantities(f"{path}.resources.limits", actual.limits, expected.limits, {})
    if actual.requests != expected.requests:
        # Kubernetes sets a request that is not given to its limit.
        yield from _quantities(
            f"{path}.resources.requests", actual.requests, expected.requests, actual.limits
        )


def _quantities(path: str, found: Json, wanted: Json, implied: Json) -> Iterator[Difference]:
    for name in sorted(found.keys() | wanted.keys()):
        value = found.get(name)
        if value == wanted.get(name) or (name not in wanted and value == implied.get(name)):
            continue
        if name not in wanted and name in _DEFAULTABLE:
            continue
        yield Difference(f"{path}[{name}]", f"{value!r}", f"{wanted.get(name)!r}")


def _env(
    path: str, expected: Sequence[Json], found: Sequence[Json], additions: Additions
) -> Iterator[Difference]:
    rest = [e for e in found if e in expected or not _is_index_variable(e)]
    if tuple(rest) == tuple(expected):
        return
    names = [e.get("name") for e in expected]
    for entry in rest:
        name = str(entry.get("name"))
        if entry in expected:
            continue
        prefix = additions.env.get(name)
        value = entry.get("value", "")
        if (
            name not in names
            and prefix is not None
            and not loads_code(name)
            and isinstance(value, str)
            and "valueFrom" not in entry
            and value.startswith(prefix)
        ):
            continue
        yield Difference(f"{path}[{name}]", "present or changed", "no such variable or value")
    for entry in expected:
        if entry not in rest:
            yield Difference(f"{path}[{entry.get('name')}]", "absent or changed", "as signed")
    kept = [e for e in rest if e in expected]
    if len(kept) == len(expected) and kept != list(expected):
        # A later variable overrides an earlier one of its name: order has meaning.
        yield Difference(path, "another order", "the signed order")


def _is_index_variable(entry: Json) -> bool:
    """The variable that the Job controller adds to each container of an Indexed Job."""
    reference = _object(_object(entry.get("valueFrom")).get("fieldRef"))
    return (
        entry.get("name") == _INDEX_VARIABLE
        and set(entry) == {"name", "valueFrom"}
        and reference.get("fieldPath") in _INDEX_PATHS
    )


def _split(container: Json) -> ExpectedContainer:
    resources = _object(container.get("resources"))
    fixed = {
        k: v
        for k, v in container.items()
        # AlwaysPullImages, an admission plugin, may set the pull policy.
        if k not in ("env", "volumeMounts", "resources", "imagePullPolicy")
    }
    claims = resources.get("claims")
    if claims:
        fixed["resources.claims"] = claims
    return ExpectedContainer(
        name=str(container.get("name")),
        fixed=fixed,
        env=tuple(_objects(container.get("env"))),
        mounts=tuple(_objects(container.get("volumeMounts"))),
        requests=_object(resources.get("requests")),
        limits=_object(resources.get("limits")),
    )


def _mapping_differences(path: str, found: Json, wanted: Json) -> Iterator[Difference]:
    for key in sorted(found.keys() | wanted.keys()):
        if found.get(key) != wanted.get(key):
            yield Difference(f"{path}.{key}", _short(found.get(key)), _short(wanted.get(key)))


def _named_differences(
    path: str, found: Sequence[Json], wanted: Sequence[Json]
) -> Iterator[Difference]:
    by_name = {str(w.get("name")): w for w in wanted}
    for entry in found:
        name = str(entry.get("name"))
        if entry not in wanted:
            yield Difference(f"{path}[{name}]", _short(entry), _short(by_name.get(name)))
    for entry in wanted:
        if entry not in found:
            yield Difference(f"{path}[{entry.get('name')}]", "absent or changed", _short(entry))
    if len(found) != len(wanted) or list(found) != list(wanted):
        yield Difference(path, "another order or number", "the sealed order")


def _short(value: JsonValue | Json) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "…"


def _object(value: JsonValue | Json) -> Json:
    return value if isinstance(value, Mapping) else {}


def _objects(value: JsonValue) -> list[Json]:
    return [v for v in value if isinstance(v, Mapping)] if isinstance(value, list) else []


def _strings(value: JsonValue) -> Mapping[str, str]:
    return {k: v for k, v in value.items() if isinstance(v, str)} if isinstance(value, dict) else {}
