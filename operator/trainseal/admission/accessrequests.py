"""What a request on a pod, or on an object of a run, asks for, and the AccessRecord that says so.
Values in, values out.

The rules, in order:

1. A dry run asks for nothing, wherever it says that it is one.
2. Two requests are one record where they are the same act: the API server asks twice about a pod
   that is deleted at once, and a page behind the proxy is hundreds of requests. Deletions and
   evictions of a pod by one user within ten minutes, and requests for one path of it, are one
   record; each exec, attach, port-forward, ephemeral container and resize is its own.
3. Every field that a person chooses is bounded, and a cut one is named in ``truncated``; but what a
   resize asks for is on record whole, or it is none that is recorded: the controller goes by it.

Sources: k8s.io/api/core/v1, PodExecOptions, PodAttachOptions, PodPortForwardOptions,
PodProxyOptions, EphemeralContainer; k8s.io/api/policy/v1, Eviction; k8s.io/apimachinery,
DeleteOptions and net.SplitSchemeNamePort.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import JsonValue

from trainseal.admission.reviews import Request, meta
from trainseal.api.accessrecord import (
    LABEL_ACTION,
    LABEL_BREAK_GLASS,
    LABEL_NODE,
    LABEL_POD,
    LABEL_RESIZED,
    LABEL_SEAL,
    MAX_COMMAND_BYTES,
    MAX_CREDENTIAL,
    MAX_GROUPS,
    MAX_PORTS,
    MAX_RESIZED,
    Action,
    ObjectKind,
    command_digest,
    first_words,
    node_label,
)
from trainseal.api.model import API_VERSION, JsonObject, json_object, json_objects
from trainseal.api.policylanes import LABEL_LANE
from trainseal.provenance.resizes import resized

_TEXT = 1024
_SHORT = 256
#: Requests that are one act: within one of these slots of time.
_SLOT_SECONDS = 600
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_CREDENTIAL_PREFIX = "authentication.kubernetes.io/"
_CREDENTIAL_KEY = re.compile(r"[a-z][a-z-]{0,62}")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")

_CONNECT: Mapping[str, Action] = {
    "exec": "Exec",
    "attach": "Attach",
    "portforward": "PortForward",
    "proxy": "Proxy",
}


_KINDS: Mapping[str, ObjectKind] = {
    "configmaps": "ConfigMap",
    "jobs": "Job",
    "jobsets": "JobSet",
    "networkpolicies": "NetworkPolicy",
    "persistentvolumeclaims": "PersistentVolumeClaim",
    "pytorchjobs": "PyTorchJob",
    "services": "Service",
    "trainingjobs": "TrainingJob",
    "trainingruntimes": "TrainingRuntime",
    "trainjobs": "TrainJob",
}


class OddRequestError(ValueError):
    """The request names no pod that can exist, or is none that is recorded."""


@dataclass(frozen=True, slots=True)
class Access:
    """What was asked for: the pod's name, and the record's fields that the action has.

    Of a deleted object of a run ``pod`` is empty, and ``object`` its kind and name. ``once`` is
    what makes two requests the same act; empty where each is its own.
    """

    action: Action
    pod: str
    fields: JsonObject = field(default_factory=dict)
    truncated: tuple[str, ...] = ()
    once: tuple[str, ...] = ()
    object: tuple[ObjectKind, str] | None = None

    @property
    def what(self) -> str:
        """The pod, or the object, by its name."""
        return f"{self.object[0]} {self.object[1]}" if self.object else f"pod {self.pod}"


def read_access(request: Request) -> Access | None:
    """What is asked; None for a dry run. Raises OddRequestError."""
    if request.dry_run or _rehearsed(request):
        return None
    match (request.operation, request.resource, request.subresource):
        case ("CONNECT", "pods", subresource) if subresource in _CONNECT:
            return _connect(request, _CONNECT[subresource])
        case ("CONNECT", "services", "proxy"):
            return _by_service(request)
        case ("UPDATE", "pods", "ephemeralcontainers"):
            return _debug(request)
        case ("UPDATE", "pods", "resize"):
            return _resize(request)
        case ("DELETE", "pods", ""):
            name = request.name or str(meta(request.old).get("name", ""))
            return _end("Delete", name, request.options)
        case ("CREATE", "pods", "eviction"):
            name = request.name or str(meta(request.object).get("name", ""))
            return _end("Evict", name, json_object(request.object.get("deleteOptions")))
        case ("DELETE", resource, "") if resource in _KINDS:
            return _gone(request, _KINDS[resource])
    what = "/".join(part for part in (request.resource, request.subresource) if part)
    raise OddRequestError(f"{request.operation} of {what}: found no access that is recorded")


def _rehearsed(request: Request) -> bool:
    """An eviction may say in its body alone that it is a dry run."""
    return bool(json_object(request.object.get("deleteOptions")).get("dryRun"))


def _connect(request: Request, action: Action) -> Access:
    options = request.object
    fields: JsonObject = {}
    cut: list[str] = []
    once: tuple[str, ...] = ()
    name = request.name
    if action == "Proxy":
        name = _proxied(name)
        path = str(options.get("path") or "/").partition("?")[0]
        fields["path"] = _cut(path, _TEXT, "path", cut)
        once = (path,)
    if action == "PortForward":
        asked = options.get("ports")
        ports = list(asked) if isinstance(asked, list) else []
        real = [p for p in ports if type(p) is int and 0 < p < 2**16]
        if len(real) < len(ports):
            cut.append("ports")
        _put(fields, "ports", _most([*real], MAX_PORTS, "ports", cut))
    if action in ("Exec", "Attach"):
        if container := options.get("container"):
            fields["container"] = _cut(str(container), _SHORT, "container", cut)
        fields |= {k: True for k in ("stdin", "tty") if options.get(k) is True}
    if action == "Exec":
        fields |= _command(options.get("command"), cut)
    return Access(action, _checked(name), fields, tuple(cut), once)


def _by_service(request: Request) -> Access:
    cut: list[str] = []
    name = _checked(_proxied(request.name), "Service")
    path = str(request.object.get("path") or "/").partition("?")[0]
    fields: JsonObject = {
        "object": {"kind": "Service", "name": name, "uid": ""},
        "path": _cut(path, _TEXT, "path", cut),
    }
    return Access("ServiceProxy", "", fields, tuple(cut), (name, path), ("Service", name))


def _debug(request: Request) -> Access:
    had = {c.get("name") for c in _ephemeral(request.old)}
    new = [c for c in _ephemeral(request.object) if c.get("name") not in had]
    fields: JsonObject = {}
    cut: list[str] = []
    if new:
        first = new[0]
        fields["container"] = _cut(str(first.get("name", "")), _SHORT, "container", cut)
        fields["image"] = _cut(str(first.get("image", "")), _TEXT, "image", cut)
        fields |= {k: True for k in ("stdin", "tty") if first.get(k) is True}
        words = [*_words(first.get("command")), *_words(first.get("args"))]
        fields |= _command(list(words), cut)
        if len(new) > 1:
            cut += [name for name in ("container", "image") if name not in cut]
    name = request.name or str(meta(request.old).get("name", ""))
    return Access("EphemeralContainer", _checked(name), fields, tuple(cut))


def _ephemeral(pod: JsonObject) -> list[JsonObject]:
    return json_objects(json_object(pod.get("spec")).get("ephemeralContainers"))


def _resize(request: Request) -> Access:
    sizes = [size.wire() for size in resized(request.old, request.object)]
    if len(sizes) > MAX_RESIZED:
        raise OddRequestError(
            f"found a resize of {len(sizes)} containers, expected at most {MAX_RESIZED} at once"
        )
    fields: JsonObject = {"resized": [*sizes]} if sizes else {}
    return Access(
        "Resize", _checked(request.name or str(meta(request.old).get("name", ""))), fields
    )


def _end(action: Action, name: str, options: JsonObject) -> Access:
    grace = options.get("gracePeriodSeconds")
    known = type(grace) is int and 0 <= grace < 2**31
    fields: JsonObject = {"gracePeriodSeconds": grace} if known else {}
    return Access(action, _checked(name), fields, (), (str(fields),))


def _gone(request: Request, kind: ObjectKind) -> Access:
    metadata = meta(request.old)
    name = _checked(request.name or str(metadata.get("name", "")), kind)
    uid = str(metadata.get("uid", ""))[:_SHORT]
    fields: JsonObject = {"object": {"kind": kind, "name": name, "uid": uid}}
    return Access("DeleteObject", "", fields, once=(kind, uid), object=(kind, name))


def _proxied(name: str) -> str:
    """The pod's name in ``NAME``, ``NAME:PORT`` or ``SCHEME:NAME:PORT``."""
    parts = name.split(":")
    if len(parts) > 3:
        raise OddRequestError(f"proxy to {name!r:.300}: expected NAME, NAME:PORT, SCHEME:NAME:PORT")
    return parts[1] if len(parts) == 3 else parts[0]


def _checked(name: str, kind: str = "pod") -> str:
    if not _NAME.fullmatch(name):
        raise OddRequestError(f"{name!r:.300} is not the name of a {kind}")
    return name


def record(
    request: Request,
    access: Access,
    pod: Mapping[str, JsonValue],
    seal: str,
    now: datetime,
    *,
    allowed: bool,
    lane: str = "",
    break_glass: str = "",
    message: str = "",
) -> JsonObject:
    """The AccessRecord; ``pod`` is the live one, or the object, ``now`` with a time zone,
    ``seal`` empty for a pod of a ``lane``, ``break_glass`` the name of the BreakGlass that let it
    pass, ``message`` why it did not.

    Its name is the same for the same act, so that what is asked twice is not recorded twice.
    """
    uid = str(meta(pod).get("uid", "")) if access.pod else ""
    node = json_object(pod.get("spec")).get("nodeName") if access.pod else None
    cut = list(access.truncated)
    spec: JsonObject = {
        **({"pod": {"name": access.pod, "uid": uid[:_SHORT]}} if access.pod else {}),
        **({"lane": lane} if lane else {"sealedRun": seal}),
        "action": access.action,
        **identity(request, cut),
        **access.fields,
        "allowed": allowed,
        "time": _text(now),
    }
    if message:
        spec["message"] = message[:_TEXT]
    if isinstance(node, str) and node:
        spec["node"] = node
    if break_glass:
        spec["breakGlass"] = break_glass
    if access.object and isinstance(thing := spec.get("object"), dict) and not thing["uid"]:
        spec["object"] = {**thing, "uid": str(meta(pod).get("uid", ""))[:_SHORT]}
    if cut:
        spec["truncated"] = list(dict.fromkeys(cut))
    labels = {
        LABEL_SEAL: seal,
        LABEL_LANE: lane,
        LABEL_NODE: node_label(node) if isinstance(node, str) else "",
        LABEL_ACTION: access.action,
        LABEL_POD: uid,
        LABEL_BREAK_GLASS: "true" if break_glass else "",
        LABEL_RESIZED: "true" if allowed and access.action == "Resize" else "",
    }
    # A claim that is deleted may belong to several runs.
    name = _name(request, access, uid or seal, now, break_glass if allowed else "denied")
    return about(name, request.namespace, labels, spec)


@dataclass(frozen=True, slots=True)
class Thing:
    """The object that a record is about, by its kind, name and UID."""

    kind: ObjectKind
    name: str
    uid: str


def record_of(
    request: Request,
    thing: Thing,
    namespace: str,
    spec: JsonObject,
    labels: Mapping[str, str],
    now: datetime,
    same: tuple[str, ...],
    truncated: Sequence[str] = (),
) -> JsonObject:
    """The AccessRecord about an object, by its ``spec`` without object, person and time;
    ``truncated`` are fields of it that are cut already.

    Its name is the same where ``same`` is, and object and action are.
    """
    cut = [*truncated]
    action, message = str(spec["action"]), str(spec["message"])
    whole: JsonObject = {
        **spec,
        "object": {"kind": thing.kind, "name": thing.name, "uid": thing.uid[:_SHORT]},
        **identity(request, cut),
        "message": message[:_TEXT],
        "time": _text(now),
    }
    if cut:
        whole["truncated"] = list(dict.fromkeys(cut))
    words = [*same, thing.kind, thing.name, action]
    mark = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:20]
    name = f"{thing.name[:200].rstrip('-.')}-{mark}"
    return about(name, namespace, {**labels, LABEL_ACTION: action}, whole)


def slot_of(now: datetime) -> str:
    """The ten minutes within which what is asked again is the same."""
    return str(int(now.timestamp()) // _SLOT_SECONDS)


def _text(now: datetime) -> str:
    return now.astimezone(UTC).isoformat().replace("+00:00", "Z")


def about(name: str, namespace: str, labels: Mapping[str, str], spec: JsonObject) -> JsonObject:
    """An AccessRecord; of the labels those whose value may be one."""
    return {
        "apiVersion": API_VERSION,
        "kind": "AccessRecord",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {k: v for k, v in labels.items() if _LABEL_VALUE.fullmatch(v)},
        },
        "spec": spec,
    }


def identity(request: Request, cut: list[str]) -> JsonObject:
    """A record's fields that say who asked; what was cut of them is added to ``cut``."""
    found: JsonObject = {"username": _cut(request.username, _TEXT, "username", cut)}
    if request.user_uid:
        found["userUID"] = _cut(request.user_uid, _SHORT, "userUID", cut)
    groups: list[JsonValue] = [
        _cut(g, _TEXT, "groups", cut) for g in _words(request.user.get("groups"))
    ]
    _put(found, "groups", _most(groups, MAX_GROUPS, "groups", cut))
    if credential := _credential(request.user, cut):
        found["credential"] = credential
    return found


def _name(request: Request, access: Access, of: str, now: datetime, by: str) -> str:
    """``of`` is the pod's UID, or the run; ``by`` what let it pass, or that nothing did: between
    two requests of one act a policy may change.
    """
    same: list[str] = [request.uid]
    if access.once:
        same = [slot_of(now), request.username, request.user_uid, *access.once]
    if by:
        same.append(by)
    text = json.dumps([of, access.action, *same])
    name = access.object[1] if access.object else access.pod
    return f"{name[:200].rstrip('-.')}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


def _command(value: JsonValue, cut: list[str]) -> JsonObject:
    words = list(_words(value))
    if not words:
        return {}
    kept: list[JsonValue] = [*first_words(words, MAX_COMMAND_BYTES)]
    if kept == words:
        return {"command": kept}
    cut.append("command")
    return {"command": kept, "commandDigest": command_digest(words)}


def _credential(user: JsonObject, cut: list[str]) -> JsonObject:
    """Extra values of the API server's own authenticators, by their short names."""
    found: JsonObject = {}
    for key, values in sorted(json_object(user.get("extra")).items()):
        short = key.removeprefix(_CREDENTIAL_PREFIX)
        if short == key or not _CREDENTIAL_KEY.fullmatch(short):
            continue
        if len(found) == MAX_CREDENTIAL:
            cut.append("credential")
            break
        found[short] = _cut(", ".join(_words(values)), _TEXT, "credential", cut)
    return found


def _words(value: JsonValue) -> Iterator[str]:
    return (w for w in value if isinstance(w, str)) if isinstance(value, list) else iter(())


def _cut(text: str, most: int, name: str, cut: list[str]) -> str:
    if len(text) > most:
        cut.append(name)
    return text[:most]


def _most(values: list[JsonValue], most: int, name: str, cut: list[str]) -> list[JsonValue]:
    if len(values) > most:
        cut.append(name)
    return values[:most]


def _put(fields: JsonObject, name: str, values: list[JsonValue]) -> None:
    if values:
        fields[name] = values
