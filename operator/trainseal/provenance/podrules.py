"""What a sealed pod's template may hold, whoever signed it.

A signature says who approved a template; these rules say what nobody's approval makes safe,
because it would let unsigned bytes run after the gate (DESIGN, *Pods and gate*). The rules, in
order:

1. Only fields that are known to be safe may stand in the pod and its containers. A field that a
   later Kubernetes adds is refused until it was judged.
2. No host namespaces, privileged containers, host paths, or capabilities that reach other
   processes or the kernel.
3. Every mount has a role, given at the job's top level; a template brings no volumes of its own.
4. No environment from objects that anyone may edit (``envFrom``, ConfigMap keys, Secrets that the
   policy does not list), nor from what anyone may write on a pod: of the pod's own fields a closed
   list, and labels and annotations of the template (``downward``).
5. No command, import path or working directory that resolves into a writable role:
   ``bash /lustre/run.sh`` signed once would be a standing bypass. Judged as the kubelet expands it
   (``expansion``) and as a shell reads it (``codewords``).
6. No file mounted over signed code: the termination message goes below ``/dev``.
7. Every image stands by digest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue

from trainseal.api.gateplan import MAX_PULL_SECRETS
from trainseal.provenance.capabilities import CAPABILITIES
from trainseal.provenance.containercode import runs_unsigned
from trainseal.provenance.differences import Json, mapping
from trainseal.provenance.refusals import Refusal, TemplateContext
from trainseal.provenance.surroundings import Budget

POD_FIELDS = frozenset(
    {
        "activeDeadlineSeconds", "affinity", "automountServiceAccountToken", "containers",
        "dnsConfig", "dnsPolicy", "enableServiceLinks", "imagePullSecrets", "initContainers",
        "nodeSelector", "os", "preemptionPolicy", "priorityClassName", "resourceClaims",
        "restartPolicy", "runtimeClassName", "schedulerName", "securityContext",
        "serviceAccount", "serviceAccountName", "terminationGracePeriodSeconds", "tolerations",
        "topologySpreadConstraints",
    }
)  # fmt: skip
CONTAINER_FIELDS = frozenset(
    {
        "args", "command", "env", "image", "imagePullPolicy", "lifecycle", "livenessProbe", "name",
        "ports", "readinessProbe", "resources", "restartPolicy", "securityContext", "startupProbe",
        "terminationMessagePath", "terminationMessagePolicy", "workingDir",
    }
)  # fmt: skip
RESERVED_PREFIX = "trainseal.dev/"
RESERVED_NAMES = frozenset({"trainseal-gate"})

WHY_FORBIDDEN = {
    "volumes": "every mount has a role: declare it as code, config, data, checkpoints or scratch",
    "volumeMounts": "every mount has a role: declare it at the job's top level",
    "volumeDevices": "a raw device has no role",
    "envFrom": "whoever may edit the source adds variables such as LD_PRELOAD; list each under env",
    "hostNetwork": "the host's network is outside the seal",
    "hostPID": "the host's processes are outside the seal",
    "hostIPC": "the host's memory is outside the seal",
    "hostAliases": "names must mean what the cluster says",
    "shareProcessNamespace": "containers could trace each other",
    "ephemeralContainers": "a sealed pod runs what was signed and nothing else",
    "nodeName": "the scheduler places pods; use spec.scheduling",
    "schedulingGates": "others take them away while the pod waits; use spec.scheduling",
    "stdin": "a sealed container takes no input by hand",
    "tty": "a sealed container takes no input by hand",
}

_SECRET_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


def check_template(template: Json, context: TemplateContext, path: str) -> tuple[Refusal, ...]:
    """Every refusal in a PodTemplateSpec; ``path`` is its place (``spec.roles[0].template``)."""
    return tuple(_template(template, context, path))


def template_warnings(template: Json, path: str) -> Iterator[str]:
    """What a template may have, and whoever wants it should know: what ends a frozen pod."""
    spec = mapping(template.get("spec"))
    if spec.get("activeDeadlineSeconds") is not None:
        yield (
            f"{path}.spec.activeDeadlineSeconds: counts on while a pod is frozen, and ends it with "
            "what was found in it; use spec.validity or the trainer's own limit"
        )
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(_containers(spec, kind)):
            for probe in ("livenessProbe", "startupProbe"):
                if mapping(container).get(probe):
                    yield (
                        f"{path}.spec.{kind}[{index}].{probe}: fails while the pod is frozen, and "
                        "the kubelet kills the container with what was found in it; leave it out"
                    )


def pull_secret_names(spec: Json) -> tuple[str, ...]:
    """The Secrets under a pod's ``imagePullSecrets``, in order, each once, as many as may be.

    What ``check_template`` refuses is left out: in Audit a job runs all the same.
    """
    value = spec.get("imagePullSecrets")
    names = (_secret_name(entry) for entry in (value if isinstance(value, list) else ()))
    return tuple(dict.fromkeys(name for name in names if name))[:MAX_PULL_SECRETS]


def _template(template: Json, context: TemplateContext, path: str) -> Iterator[Refusal]:
    for key in template:
        if key not in ("metadata", "spec"):
            yield Refusal(
                "UnknownField", f"{path}.{key}", "not a field of PodTemplateSpec", "remove it"
            )
    yield from _metadata(template.get("metadata"), f"{path}.metadata")
    spec = template.get("spec")
    if not isinstance(spec, Mapping):
        yield Refusal("Malformed", f"{path}.spec", "no pod spec", "give the pod's containers")
        return
    yield from _fields(spec, POD_FIELDS, f"{path}.spec")
    if spec.get("restartPolicy", "Never") != "Never":
        yield Refusal(
            "RestartPolicy",
            f"{path}.spec.restartPolicy",
            f"{spec.get('restartPolicy')!r}",
            "use Never: each retry is a new pod with a new gate",
        )
    if spec.get("enableServiceLinks") is True:
        yield Refusal(
            "ServiceLinks",
            f"{path}.spec.enableServiceLinks",
            "true",
            "leave it out: a Service named master would inject MASTER_PORT",
        )
    yield from _security(spec.get("securityContext"), f"{path}.spec.securityContext")
    yield from _pull_secrets(spec.get("imagePullSecrets"), f"{path}.spec.imagePullSecrets")
    if not _containers(spec, "containers"):
        yield Refusal("Malformed", f"{path}.spec.containers", "none", "give at least one container")
    metadata, budget = mapping(template.get("metadata")), Budget()
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(_containers(spec, kind)):
            place = f"{path}.spec.{kind}[{index}]"
            yield from _container(container, kind, metadata, context, budget, place)


def _metadata(metadata: JsonValue, path: str) -> Iterator[Refusal]:
    if metadata is None:
        return
    if not isinstance(metadata, Mapping):
        yield Refusal("Malformed", path, "not an object", "give labels and annotations")
        return
    for key, value in metadata.items():
        if key not in ("labels", "annotations"):
            yield Refusal("UnknownField", f"{path}.{key}", "set", "only labels and annotations")
        elif isinstance(value, Mapping):
            for name in value:
                if name.startswith(RESERVED_PREFIX):
                    yield Refusal(
                        "ReservedName", f"{path}.{key}", name, "the prefix is TrainSeal's"
                    )


def _fields(value: Json, known: frozenset[str], path: str) -> Iterator[Refusal]:
    for key, content in value.items():
        if key not in known and content not in (False, None, [], {}):
            yield Refusal(
                "ForbiddenField",
                f"{path}.{key}",
                "set",
                WHY_FORBIDDEN.get(key, "not a field that sealed pods may use; remove it"),
            )


def _pull_secrets(value: JsonValue, path: str) -> Iterator[Refusal]:
    """Names of Secrets, no more than the gate takes.

    They need not be among ``allowed_secrets``, which is about what reaches the trainer: a pull
    secret reaches the kubelet and the gate, and decides whether bytes can be had, never which.
    """
    if value is not None and not isinstance(value, list):
        yield Refusal("PullSecret", path, "no list", "write [{name: …}]")
        return
    entries = value or ()
    if len(entries) > MAX_PULL_SECRETS:
        yield Refusal(
            "PullSecret",
            path,
            f"{len(entries)} of them",
            f"one Secret holds entries for many registries; at most {MAX_PULL_SECRETS}",
        )
    for index, entry in enumerate(entries):
        if not _secret_name(entry):
            yield Refusal(
                "PullSecret", f"{path}[{index}]", "no name of a Secret", "write {name: …}"
            )


def _secret_name(entry: JsonValue) -> str:
    name = entry.get("name") if isinstance(entry, Mapping) else None
    if not isinstance(name, str) or len(name) > 253 or not _SECRET_NAME.fullmatch(name):
        return ""
    return name


def _containers(spec: Json, kind: str) -> Sequence[JsonValue]:
    value = spec.get(kind)
    return value if isinstance(value, list) else ()


def _security(context: JsonValue, path: str) -> Iterator[Refusal]:
    if not isinstance(context, Mapping):
        return
    if context.get("privileged") is True:
        yield Refusal("Privileged", f"{path}.privileged", "true", "remove it")
    if context.get("procMount") not in (None, "Default"):
        yield Refusal("ProcMount", f"{path}.procMount", f"{context['procMount']!r}", "use Default")
    for field in ("windowsOptions", "sysctls"):
        if context.get(field):
            yield Refusal("ForbiddenField", f"{path}.{field}", "set", "remove it")
    capabilities = context.get("capabilities")
    added = capabilities.get("add") if isinstance(capabilities, Mapping) else None
    for name in added if isinstance(added, list) else ():
        if str(name).removeprefix("CAP_").upper() not in CAPABILITIES:
            yield Refusal(
                "Capability",
                f"{path}.capabilities.add",
                f"{name}",
                "it reaches other processes or the kernel; remove it",
            )


def _container(
    container: JsonValue,
    kind: str,
    metadata: Json,
    context: TemplateContext,
    budget: Budget,
    path: str,
) -> Iterator[Refusal]:
    if not isinstance(container, Mapping):
        yield Refusal("Malformed", path, "not a container", "give name and image")
        return
    yield from _fields(container, CONTAINER_FIELDS, path)
    if str(container.get("name")) in RESERVED_NAMES:
        yield Refusal(
            "ReservedName", f"{path}.name", f"{container['name']}", "the name is TrainSeal's"
        )
    if container.get("restartPolicy") is not None and kind == "containers":
        yield Refusal("RestartPolicy", f"{path}.restartPolicy", "set", "remove it")
    image = container.get("image")
    if not isinstance(image, str) or not image:
        yield Refusal("Malformed", f"{path}.image", "no image", "give an image by digest")
    elif context.require_digests and not _DIGEST.search(image):
        yield Refusal(
            "ImageNotByDigest",
            f"{path}.image",
            f"{image} has no digest; a tag can be moved after signing",
            "write repository@sha256:…, or let `trainseal sign job` resolve the tag",
        )
    yield from _security(container.get("securityContext"), f"{path}.securityContext")
    yield from runs_unsigned(container, metadata, context, budget, path)
