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
   policy does not list).
5. No command, import path or working directory that resolves into a writable role:
   ``bash /lustre/run.sh`` signed once would be a standing bypass.
6. Every image stands by digest.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from trainseal.api.gateplan import MAX_PULL_SECRETS
from trainseal.provenance.commandlines import code_words, finds_code, loads_code

Json = Mapping[str, JsonValue]

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
#: Capabilities a container may add: the runtimes' default set, and memory locking for RDMA.
CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "IPC_LOCK", "KILL",
        "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT", "SYS_NICE",
    }
)  # fmt: skip
RESERVED_PREFIX = "trainseal.dev/"
RESERVED_NAMES = frozenset({"trainseal-gate"})

_WHY_FORBIDDEN = {
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


@dataclass(frozen=True, slots=True)
class Refusal:
    """One thing a template may not hold: a PascalCase reason, its field path, and words."""

    reason: str
    path: str
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.found}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class TemplateContext:
    """What a template is judged against.

    ``writable`` are the mount paths whose bytes nobody signed (checkpoints, scratch, unverified
    data); ``kept`` those of them that others may have filled before the pod starts;
    ``allowed_secrets`` the Secrets a policy lets a template read keys of.
    """

    writable: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    allowed_secrets: frozenset[str] = frozenset()
    require_digests: bool = True


def check_template(template: Json, context: TemplateContext, path: str) -> tuple[Refusal, ...]:
    """Every refusal in a PodTemplateSpec; ``path`` is its place (``spec.roles[0].template``)."""
    return tuple(_template(template, context, path))


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
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(_containers(spec, kind)):
            yield from _container(container, kind, context, f"{path}.spec.{kind}[{index}]")


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
                _WHY_FORBIDDEN.get(key, "not a field that sealed pods may use; remove it"),
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
    container: JsonValue, kind: str, context: TemplateContext, path: str
) -> Iterator[Refusal]:
    if not isinstance(container, Mapping):
        yield Refusal("Malformed", path, "not a container", "give name and image")
        return
    yield from _fields(container, CONTAINER_FIELDS, path)
    if container.get("name") in RESERVED_NAMES:
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
    yield from _environment(container.get("env"), context, f"{path}.env")
    yield from _working_directory(container, context, path)
    for place, argv in _commands(container):
        yield from _command(argv, container, context, f"{path}.{place}")


def _environment(env: JsonValue, context: TemplateContext, path: str) -> Iterator[Refusal]:
    for index, entry in enumerate(env if isinstance(env, list) else ()):
        if not isinstance(entry, Mapping):
            yield Refusal("Malformed", f"{path}[{index}]", "not a variable", "give name and value")
            continue
        name = str(entry.get("name", ""))
        source = entry.get("valueFrom")
        if isinstance(source, Mapping):
            yield from _value_source(source, context, f"{path}[{index}].valueFrom", name)
        value = entry.get("value")
        if isinstance(value, str):
            # A cache in a directory of the pod's own holds what the pod itself put there.
            places = (
                context.writable if loads_code(name) else context.kept if finds_code(name) else ()
            )
            inside = next((p for p in re.split(r"[:;, ]", value) if _within(p, places)), None)
            if inside is not None:
                yield Refusal(
                    "WritableCode",
                    f"{path}[{index}]",
                    f"{name} names {inside}, in a writable mount",
                    "code comes from code mounts or the image",
                )


def _value_source(
    source: Json, context: TemplateContext, path: str, name: str
) -> Iterator[Refusal]:
    for kind, reference in source.items():
        if kind in ("fieldRef", "resourceFieldRef"):
            continue
        if kind == "secretKeyRef":
            secret = reference.get("name") if isinstance(reference, Mapping) else None
            if secret in context.allowed_secrets and not (loads_code(name)):
                continue
            yield Refusal(
                "SecretNotListed",
                f"{path}.{kind}",
                f"Secret {secret!r} for variable {name}",
                "the policy's pods.allowedSecrets must list it, for a variable that loads no code",
            )
        else:
            yield Refusal(
                "UnsignedEnvironment",
                f"{path}.{kind}",
                f"the value of {name} is not in what was signed",
                "write the value itself, or put it into the config's parameters",
            )


def _working_directory(container: Json, context: TemplateContext, path: str) -> Iterator[Refusal]:
    directory = container.get("workingDir")
    if isinstance(directory, str) and _within(directory, context.writable):
        # Python and shells look for code in the directory they start in.
        yield Refusal(
            "WritableCode",
            f"{path}.workingDir",
            f"{directory} is in a writable mount",
            "start in a code mount or a directory of the image",
        )


def _commands(container: Json) -> Iterator[tuple[str, list[str]]]:
    command, args = container.get("command"), container.get("args")
    argv = [str(a) for part in (command, args) if isinstance(part, list) for a in part]
    if argv:
        yield ("command" if isinstance(command, list) and command else "args"), argv
    for hook in ("livenessProbe", "readinessProbe", "startupProbe"):
        yield from _exec_action(container.get(hook), hook)
    lifecycle = container.get("lifecycle")
    if isinstance(lifecycle, Mapping):
        for hook in ("postStart", "preStop"):
            yield from _exec_action(lifecycle.get(hook), f"lifecycle.{hook}")


def _exec_action(handler: JsonValue, place: str) -> Iterator[tuple[str, list[str]]]:
    action = handler.get("exec") if isinstance(handler, Mapping) else None
    command = action.get("command") if isinstance(action, Mapping) else None
    if isinstance(command, list):
        yield f"{place}.exec.command", [str(a) for a in command]


def _command(
    argv: Sequence[str], container: Json, context: TemplateContext, path: str
) -> Iterator[Refusal]:
    directory = container.get("workingDir")
    cwd = directory if isinstance(directory, str) else "/"
    for word in code_words(argv):
        if _within(posixpath.join(cwd, word), context.writable):
            yield Refusal(
                "WritableCode",
                path,
                f"runs {word}, in a writable mount",
                "whoever can write there decides what runs; put the file into a signed code mount",
            )
            return


def _within(path: str, roots: Sequence[str]) -> bool:
    """Whether an absolute path lies at or below one of the roots, after resolving ``..``."""
    if not path.startswith("/"):
        return False
    normal = posixpath.normpath(path)
    # POSIX leaves a leading double slash alone; the kernel does not.
    normal = "/" + normal.lstrip("/")
    return any(normal == root or normal.startswith(root + "/") for root in roots)
