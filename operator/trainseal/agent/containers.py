"""Which containers of sealed pods run on this node.

A pod belongs to a seal by the UID of the controller that owns it, never by a label; a seal counts
by its verified binding. A container is known by its control group: the kubelet's own bind mount of
the file for termination messages (``…/pods/UID/containers/NAME/…``) tells, in the mount table of
its first process, which pod's and which container's it is. That is true a moment before the
container's program starts, and a second before the kubelet says so in the pod's status.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from prometheus_client import Counter, Gauge

from trainseal.agent.addedcontainers import containers_kept, gate_has_ended, live_containers
from trainseal.agent.observed import Process, WatchedContainer
from trainseal.agent.sealedtemplates import (
    SealedContainer,
    SealedPart,
    SealedTrees,
    config_digests,
    sealed_part,
)
from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.cluster.informer import Event
from trainseal.engines.podtemplate import sealed_checkpoints
from trainseal.provenance.boundseals import bound_roles, has_ended
from trainseal.provenance.canonical import CanonicalError
from trainseal.provenance.freezeorders import Order, read_order
from trainseal.provenance.keyrings import Keyring, UntrustedError

_log = logging.getLogger(__name__)
_UNTRUSTED = Counter("trainseal_agent_seals_untrusted_total", "Seals whose binding is not ours.")
_PODS = Gauge("trainseal_agent_pods", "Sealed pods of this node that have not ended.")
_OVER = frozenset({"Succeeded", "Failed"})
_MOUNTED_FROM = re.compile(r"/pods/([0-9a-f-]{36})/containers/([a-z0-9-]{1,63})/[0-9a-f]+$")

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class SealedPod:
    """A sealed pod of this node that has not ended. ``containers`` are those to watch, what a
    platform added among them; ``running`` are container ids by name, as the kubelet says them;
    ``trees`` what its signed mounts hold; ``ends`` when the time is over that
    its deletion gives it; ``checkpoints`` claim and directory of its checkpoints, as
    ``sealed_checkpoints`` gives them.
    """

    namespace: str
    name: str
    uid: str
    seal: str
    containers: Mapping[str, SealedContainer]
    running: Mapping[str, str] = field(default_factory=dict)
    trees: SealedTrees = field(default_factory=SealedTrees)
    order: Order | None = None
    ends: datetime | None = None
    checkpoints: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class _Described:
    namespace: str
    seal: str
    sealed: SealedPart
    trees: SealedTrees
    order: Order | None
    checkpoints: tuple[str, str] | None


class SealedPods:
    """The sealed pods of this node by UID, kept by two informers' listeners.

    ``changed`` is told the UID of each pod that came, changed or went.
    """

    def __init__(self, cluster: str, changed: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._changed = changed
        self._keyring: Keyring = {}
        self._seals: dict[Key, JsonObject] = {}
        self._owners: dict[str, _Described] = {}
        self._uids: dict[Key, tuple[str, ...]] = {}
        self._objects: dict[Key, JsonObject] = {}
        self._pods: dict[str, SealedPod] = {}

    @property
    def pods(self) -> Mapping[str, SealedPod]:
        """By UID."""
        return self._pods

    def use_keyring(self, keyring: Keyring) -> None:
        """Takes a new keyring; every seal is judged anew."""
        self._keyring = keyring
        for key, seal in self._seals.items():
            self._open(key, seal)
        self._match(self._objects)

    def on_seal(self, event: Event, key: Key, seal: JsonObject) -> None:
        """Listener for SealedRuns."""
        self._seals.pop(key, None)
        for uid in self._uids.pop(key, ()):
            self._owners.pop(uid, None)
        if event != "DELETED" and not has_ended(seal):
            self._seals[key] = seal
            self._open(key, seal)
        self._match(k for k in self._objects if k[0] == key[0])

    def on_pod(self, event: Event, key: Key, pod: JsonObject) -> None:
        """Listener for this node's pods."""
        if event == "DELETED":
            self._objects.pop(key, None)
            self._gone(str(json_object(pod.get("metadata")).get("uid")))
            return
        before = self._objects.get(key)
        self._objects[key] = pod
        if before is not None and _uid(before) != _uid(pod):
            self._gone(_uid(before))
        self._match((key,))

    def _open(self, key: Key, seal: JsonObject) -> None:
        namespace, name = key
        try:
            roles = bound_roles(
                self._keyring, cluster=self._cluster, namespace=namespace, name=name, seal=seal
            )
        except (UntrustedError, CanonicalError) as error:
            if self._keyring:  # before it is read, nothing verifies
                _UNTRUSTED.inc()
                _log.error("%s", error)
            return
        spec, order = json_object(seal.get("spec")), None
        ordered = json_object(json_object(seal.get("status")).get("freeze")).get("order")
        if isinstance(ordered, str) and roles:
            try:
                order = read_order(
                    self._keyring,
                    ordered,
                    cluster=self._cluster,
                    namespace=namespace,
                    name=name,
                    spec=spec,
                )
            except (UntrustedError, CanonicalError) as error:
                _log.error("%s", error)
        code = json_objects(spec.get("code"))
        digests = {f"code-{c.get('name')}": str(c.get("treeDigest")) for c in code}
        for role in roles:
            sealed = sealed_part(role.template)
            trees = SealedTrees(digests, config_digests(role.template))
            kept = sealed_checkpoints(role.template)
            self._owners[role.object_uid] = _Described(namespace, name, sealed, trees, order, kept)
        self._uids[key] = tuple(role.object_uid for role in roles)

    def _match(self, keys: Iterable[Key]) -> None:
        for key in list(keys):
            pod = self._objects[key]
            metadata, status = json_object(pod.get("metadata")), json_object(pod.get("status"))
            uid = str(metadata.get("uid"))
            if status.get("phase") in _OVER:
                self._gone(uid)
                continue
            before = self._pods.get(uid)
            described = self._owners.get(_owner(metadata))
            if described is not None and described.namespace == key[0]:
                seal, trees = described.seal, described.trees
                sealed, spec = described.sealed, json_object(pod.get("spec"))
                containers = live_containers(spec, sealed, gated=gate_has_ended(status, sealed))
                order, checkpoints = described.order, described.checkpoints
            elif before is not None:  # its run has ended, it has not: it is watched to its end
                seal, containers, trees = before.seal, before.containers, before.trees
                order, checkpoints = before.order, before.checkpoints
            else:
                continue
            ends, running = _ends(metadata), _running(status)
            found = SealedPod(
                *(*key, uid, seal, containers, running, trees, order, ends, checkpoints)
            )
            if found != before:
                self._pods[uid] = found
                _PODS.set(len(self._pods))
                self._changed(uid)

    def _gone(self, uid: str) -> None:
        if self._pods.pop(uid, None) is not None:
            _PODS.set(len(self._pods))
            self._changed(uid)


def what_is_needed_of_a_pod(pod: JsonObject) -> JsonObject:
    """Shape for the informer: a node's pods are many, and most are not sealed."""
    metadata, status = json_object(pod.get("metadata")), json_object(pod.get("status"))
    wanted = (
        *("name", "namespace", "uid", "resourceVersion", "ownerReferences"),
        "deletionTimestamp",
    )
    kept = ("phase", "initContainerStatuses", "containerStatuses")
    return {
        "metadata": {k: metadata[k] for k in wanted if k in metadata},
        "spec": containers_kept(json_object(pod.get("spec"))) if _owner(metadata) else {},
        "status": {k: status[k] for k in kept if k in status},
    }


def named_by_mounts(mountinfo: str, pod: SealedPod) -> SealedContainer | None:
    """Which of the pod's containers a process's mount table is of; None where it is of none.

    Only the mount at the path that the sealed template gives counts: before the runtime has
    changed the root the table holds the same mount under another path. Just after that, until it
    takes the node's root away, both are mounted at ``/``, and the node's mounts are in the table.
    """
    found, roots = None, 0
    for line in mountinfo.splitlines():
        fields = line.split(" ", 5)
        if len(fields) < 6:
            continue
        roots += fields[4] == "/"
        match = _MOUNTED_FROM.search(fields[3])
        if match is None or match[1] != pod.uid:
            continue
        container = pod.containers.get(match[2])
        if found is None and container is not None and fields[4] == container.message_path:
            found = container
    return found if roots < 2 else None


def first_process(
    pids: Iterable[int],
    container_id: str,
    read: Callable[[int], Process | None],
) -> Process | None:
    """The oldest process of a container: that which all others descend from, or came in after."""
    found = [p for pid in pids if (p := read(pid)) is not None and p.container_id == container_id]
    return min(found, key=lambda p: (p.started, p.pid), default=None)


def recognise(
    pod: SealedPod,
    container_id: str,
    pids: Iterable[int],
    read: Callable[[int], Process | None],
    proc: Path,
) -> WatchedContainer | None:
    """The container of that id, once its first process is in its own root; None until then."""
    first = first_process(pids, container_id, read)
    if first is None:
        return None
    try:
        mountinfo = (proc / str(first.pid) / "mountinfo").read_text(errors="replace")
    except OSError:
        return None
    container = named_by_mounts(mountinfo, pod)
    if container is None:
        # Where nothing is mounted (no termination message), the kubelet's word has to do.
        name = next((n for n, i in pod.running.items() if i == container_id), None)
        container = pod.containers.get(name or "")
    if container is None:
        return None
    return WatchedContainer(
        namespace=pod.namespace,
        pod=pod.name,
        pod_uid=pod.uid,
        seal=pod.seal,
        container=container.name,
        container_id=container_id,
        pid=first.pid,
        started=first.started,
        mounts=container.mounts,
        env=container.env,
        added=container.added,
    )


def _uid(pod: JsonObject) -> str:
    return str(json_object(pod.get("metadata")).get("uid"))


def _owner(metadata: JsonObject) -> str:
    return next(
        (
            str(o.get("uid"))
            for o in json_objects(metadata.get("ownerReferences"))
            if o.get("controller")
        ),
        "",
    )


def _ends(metadata: JsonObject) -> datetime | None:
    until = metadata.get("deletionTimestamp")
    try:
        return datetime.fromisoformat(until) if isinstance(until, str) else None
    except ValueError:
        return None


def _running(status: JsonObject) -> dict[str, str]:
    found = {}
    for kind in ("initContainerStatuses", "containerStatuses"):
        for item in json_objects(status.get(kind)):
            if "running" in json_object(item.get("state")):
                found[str(item.get("name"))] = str(item.get("containerID")).partition("://")[2]
    return found
