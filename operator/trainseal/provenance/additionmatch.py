"""Whether what a platform added to a pod is what policies name; one part of ``podmatch``.

The rules, in order:

1. What no policy can allow: in a container a privileged mode, capabilities beyond the runtimes'
   default set but for networks, devices, a GPU, variables from objects, input by hand, ports of the
   node; a volume of the node, of a claim or a Secret; a mount of the run's own volumes that could
   be written to, of the gate's sources, or over what is mounted already.
2. A container is one of a policy's by its name and place; its image is one of those listed, by
   digest; command, arguments, hooks and capabilities are as listed, its variables and mounts among
   those listed.
3. A volume is one of a policy's by name and kind, and holds what is listed.
4. A mount in a signed container is of such a volume, at a listed directory or below.
5. Each policy allows it.

Nothing is read: an image counts by its digest, so that no registry is asked while a pod waits
(docs/decisions/0030). Laws: several policies allow what each allows alone; without a policy nothing
is allowed; whatever they allow, nothing that was signed is another than it was signed.
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from pydantic import JsonValue

from trainseal.provenance.additions import (
    AddedContainer,
    AddedMount,
    AddedVolume,
    Additions,
    Rules,
    is_systems,
)
from trainseal.provenance.capabilities import CAPABILITIES
from trainseal.provenance.commandlines import loads_code
from trainseal.provenance.differences import Json, mapping, objects, short

_FIELDS = frozenset(
    {
        "args", "command", "env", "image", "imagePullPolicy", "lifecycle", "livenessProbe", "name",
        "ports", "readinessProbe", "resizePolicy", "resources", "restartPolicy", "securityContext",
        "startupProbe", "terminationMessagePath", "terminationMessagePolicy", "volumeMounts",
        "workingDir",
    }
)  # fmt: skip
_SECURITY = frozenset(
    {
        "allowPrivilegeEscalation", "appArmorProfile", "capabilities", "privileged", "procMount",
        "readOnlyRootFilesystem", "runAsGroup", "runAsNonRoot", "runAsUser", "seccompProfile",
    }
)  # fmt: skip
_MOUNT = frozenset({"mountPath", "name", "readOnly", "recursiveReadOnly", "subPath"})
_RESOURCES = frozenset({"cpu", "memory", "ephemeral-storage"})
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_HOOKS = ("postStart", "preStop")
#: The volumes of a run that an added container may read, by the names that rendering gives them.
_READABLE = re.compile(r"(code|data|scratch)-.+|config|checkpoints")
_BY_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}\Z")
#: Others lead to the node, to claims or to Secrets.
VOLUME_KINDS = frozenset({"emptyDir", "downwardAPI", "configMap", "projected", "csi"})
_NOT_NAMED = "no policy's addition has one of this name"

T = TypeVar("T", AddedContainer, AddedVolume, AddedMount)


def container_fault(
    container: Json,
    *,
    init: bool,
    volumes: frozenset[str],
    token: Json | None,
    additions: Additions,
) -> str | None:
    """Why this container may not be there beside those signed, in words; None where it may.

    ``volumes``: names of the template's volumes. ``token``: the mount of the service account's
    token, where pods have one.
    """
    mounts = [m for m in objects(container.get("volumeMounts")) if m != token]
    for fault in _forbidden(container, init=init):
        return fault
    for mount in mounts:
        for fault in _mount_forbidden(mount):
            return fault
        if str(mount.get("name")) in volumes and (writes := _of_the_run(mount)):
            return writes
    name = str(container.get("name"))
    return _allowed(
        additions.containers,
        lambda rule: rule.name == name and rule.init == init,
        lambda rule: next(_container_faults(container, mounts, rule), None),
    )


def volume_fault(volume: Json, additions: Additions) -> str | None:
    """Why this volume may not be there beside the template's; None where it may."""
    name = str(volume.get("name"))
    kinds = sorted(volume.keys() - {"name"})
    if len(kinds) != 1 or kinds[0] not in VOLUME_KINDS:
        return f"it is of kind {', '.join(kinds) or 'none'}, which no platform may add"
    return _allowed(
        additions.volumes,
        lambda rule: rule.kind == kinds[0] and fnmatch.fnmatchcase(name, rule.name),
        lambda rule: next(_volume_faults(mapping(volume[kinds[0]]), rule), None),
    )


def mount_fault(mount: Json, taken: Iterable[str], additions: Additions) -> str | None:
    """Why this mount may not be there in a signed container, beside those signed; None where it
    may. ``taken``: the paths of those signed.
    """
    for fault in _mount_forbidden(mount):
        return fault
    path = str(mount.get("mountPath"))
    for other in taken:
        if _below(path, other) or _below(other, path):
            return f"its path {path} overlaps {other}, which was signed"
    if is_systems(path):
        return f"its path {path} is the system's, where the image has its programs"
    name = str(mount.get("name"))
    return _allowed(
        additions.mounts,
        lambda rule: fnmatch.fnmatchcase(name, rule.volume),
        lambda rule: _mount_misfit(mount, rule),
    )


def _allowed(
    policies: Rules[T], meant: Callable[[T], bool], fault: Callable[[T], str | None]
) -> str | None:
    """Why one of the policies does not allow it: each must have a rule that is meant and fits."""
    for rules in policies:
        why = _NOT_NAMED
        for rule in sorted(filter(meant, rules), key=repr):
            found = fault(rule)
            if found is None:
                break
            why = found
        else:
            return why
    return None if policies else _NOT_NAMED


# Containers ---------------------------------------------------------------------------------------


def _forbidden(container: Json, *, init: bool) -> Iterator[str]:
    """What no policy can allow."""
    if unknown := sorted(k for k in container.keys() - _FIELDS if container[k]):
        yield f"its {unknown[0]} is set, which no platform's container may have"
    if not _BY_DIGEST.search(str(container.get("image"))):
        yield "its image has no digest, and a tag can be moved"
    restart = container.get("restartPolicy")
    if restart not in ((None, "Always") if init else (None,)):
        yield f"its restartPolicy is {short(restart)}"
    yield from _insecure(mapping(container.get("securityContext")))
    for port in objects(container.get("ports")):
        if port.get("hostPort"):
            yield f"it has port {port['hostPort']} of the node"
    resources = mapping(container.get("resources"))
    asked = {name for part in ("limits", "requests") for name in mapping(resources.get(part))} | (
        resources.keys() - {"limits", "requests"}
    )
    if asked - _RESOURCES:
        yield f"it asks for {', '.join(sorted(asked - _RESOURCES))}"
    for handler in _handlers(container):
        for kind in ("httpGet", "tcpSocket"):
            if mapping(handler.get(kind)).get("host"):
                yield "a probe or hook of it calls another host"


def _insecure(context: Json) -> Iterator[str]:
    if unknown := sorted(k for k in context.keys() - _SECURITY if context[k]):
        yield f"its securityContext.{unknown[0]} is set"
    if context.get("privileged"):
        yield "it is privileged"
    if context.get("procMount", "Default") != "Default":
        yield f"its securityContext.procMount is {short(context['procMount'])}"
    for profile in ("seccompProfile", "appArmorProfile"):
        if mapping(context.get(profile)).get("type", "RuntimeDefault") != "RuntimeDefault":
            yield f"its securityContext.{profile} is not RuntimeDefault"


def _container_faults(container: Json, mounts: list[Json], rule: AddedContainer) -> Iterator[str]:
    if container.get("image") not in rule.images:
        yield f"its image {container.get('image')} is none of those listed"
    for field, wanted in (("command", rule.command), ("args", rule.args)):
        if _words(container.get(field)) != wanted:
            yield f"its {field} {short(container.get(field))} is not what is listed"
    for entry in objects(container.get("env")):
        if not _is_variable(entry, rule):
            yield f"its variable {entry.get('name')} is not listed, or not with this value"
    for handler in _handlers(container):
        command = _words(mapping(handler.get("exec")).get("command"))
        if command is not None and command not in rule.hooks:
            yield f"a probe or hook of it runs {short(list(command))}, which is not listed"
    for capability in added_capabilities(container):
        if capability not in CAPABILITIES and capability not in rule.capabilities:
            yield f"it adds the capability {capability}"
    for mount in mounts:
        name = str(mount.get("name"))
        wanted_mounts = [r for r in rule.mounts if fnmatch.fnmatchcase(name, r.volume)]
        if not any(_mount_misfit(mount, r) is None for r in wanted_mounts):
            yield f"its mount of {name} at {mount.get('mountPath')} is not listed"


def added_capabilities(container: Json) -> tuple[str, ...]:
    """The capabilities that it adds, without ``CAP_``."""
    added = mapping(mapping(container.get("securityContext")).get("capabilities")).get("add")
    names = added if isinstance(added, list) else ()
    return tuple(str(name).upper().removeprefix("CAP_") for name in names)


def hooks_of(container: Json) -> tuple[tuple[str, ...], ...]:
    """The commands that its probes and lifecycle hooks run."""
    found = (_words(mapping(h.get("exec")).get("command")) for h in _handlers(container))
    return tuple(command for command in found if command is not None)


def is_field(entry: Json) -> bool:
    """Whether a variable is taken from the pod itself."""
    source = mapping(entry.get("valueFrom"))
    return entry.keys() == {"name", "valueFrom"} and (
        source.keys() == {"fieldRef"} or source.keys() == {"resourceFieldRef"}
    )


def _is_variable(entry: Json, rule: AddedContainer) -> bool:
    name, value = str(entry.get("name")), entry.get("value", "")
    if loads_code(name):
        return False
    if is_field(entry):
        return name in rule.fields
    return (
        entry.keys() <= {"name", "value"}
        and isinstance(value, str)
        and any(name == wanted and value.startswith(prefix) for wanted, prefix in rule.env)
    )


def _handlers(container: Json) -> Iterator[Json]:
    for probe in _PROBES:
        yield mapping(container.get(probe))
    for hook in _HOOKS:
        yield mapping(mapping(container.get("lifecycle")).get(hook))


def _words(value: JsonValue) -> tuple[str, ...] | None:
    return tuple(str(word) for word in value) if isinstance(value, list) and value else None


# Mounts -------------------------------------------------------------------------------------------


def _mount_forbidden(mount: Json) -> Iterator[str]:
    if unknown := sorted(mount.keys() - _MOUNT):
        yield f"its mount of {mount.get('name')} has {unknown[0]}"
    path = str(mount.get("mountPath"))
    if not path.startswith("/") or posixpath.normpath(path) != path:
        yield f"its mount path {path} is not plain"


def _of_the_run(mount: Json) -> str | None:
    name = str(mount.get("name"))
    if not _READABLE.fullmatch(name):
        return f"it mounts {name}, which is the gate's"
    if mount.get("readOnly") is not True:
        return f"it mounts the run's volume {name} and could write to it"
    return None


def _mount_misfit(mount: Json, rule: AddedMount) -> str | None:
    path = str(mount.get("mountPath"))
    if not _below(path, rule.path):
        return f"its path {path} is not at {rule.path} or below"
    if rule.read_only and mount.get("readOnly") is not True:
        return "it could be written to"
    return None


def _below(path: str, top: str) -> bool:
    return path == top or path.startswith(f"{top.rstrip('/')}/")


# Volumes ------------------------------------------------------------------------------------------


def _volume_faults(source: Json, rule: AddedVolume) -> Iterator[str]:
    if rule.kind == "configMap" and source.get("name") not in rule.config_maps:
        yield f"its ConfigMap {source.get('name')} is not listed"
    if rule.kind == "csi":
        if source.get("driver") not in rule.drivers:
            yield f"its driver {source.get('driver')} is not listed"
        if source.get("nodePublishSecretRef"):
            yield "it gives its driver a Secret"
    for part in objects(source.get("sources")) if rule.kind == "projected" else ():
        yield from _projected_faults(part, rule)


def _projected_faults(part: Json, rule: AddedVolume) -> Iterator[str]:
    if part.keys() == {"serviceAccountToken"}:
        audience = str(mapping(part["serviceAccountToken"]).get("audience") or "")
        if audience not in rule.audiences:
            yield f"it holds a token for {audience or 'the API server'}, which is not listed"
    elif part.keys() == {"configMap"}:
        name = mapping(part["configMap"]).get("name")
        if name not in rule.config_maps:
            yield f"its ConfigMap {name} is not listed"
    elif part.keys() != {"downwardAPI"}:
        yield f"it holds {', '.join(sorted(part))}, which no platform may add"
