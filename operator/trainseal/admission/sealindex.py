"""Seals in memory, ready for comparing pods: what makes the pod path read nothing.

A seal enters the index when its binding verifies, once, at the event that brought it; a seal that
does not verify is counted and logged, and no pod is ever compared with it. Memory: about 25 KiB a
role of a sealed run; of runs that have ended only the number is kept.
"""

from __future__ import annotations

import logging
from collections import Counter as Tally
from collections.abc import Mapping
from dataclasses import dataclass, replace

from prometheus_client import Counter, Gauge
from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.cluster.informer import Event
from trainseal.engines.catalogue import expected_pod, owner_kind
from trainseal.provenance.boundseals import (
    BoundRole,
    bound_roles,
    has_ended,
    kept_by_watchers,
)
from trainseal.provenance.canonical import CanonicalError
from trainseal.provenance.containermatch import INDEX
from trainseal.provenance.keyrings import Keyring, UntrustedError
from trainseal.provenance.livepods import claims_of
from trainseal.provenance.podmatch import ExpectedPod, is_index
from trainseal.provenance.selectors import Selector

_log = logging.getLogger(__name__)
_UNTRUSTED = Counter("trainseal_seals_untrusted_total", "Seals whose binding does not verify.")
_BOUND = Gauge("trainseal_seals_bound", "Seals in the index.")
#: The Job controller shortens a Job's name in its pods' names, but never to less than this.
_KEPT_OF_A_NAME = 40
#: What the API server copies from a node to the pods that are bound to it.
_TOPOLOGY = "topology.kubernetes.io/"


@dataclass(frozen=True, slots=True)
class SealedPod:
    """What pods of one bound object must be, and the seal that says so."""

    namespace: str
    seal: str
    role: str
    policies: tuple[str, ...]
    expected: ExpectedPod
    #: Kind of the bound object.
    owner: str = "Job"
    #: Of an elastic role the most that it may have, of whom ``expected.replicas`` are members now.
    most: int = 0

    def may_join(self, index: JsonValue) -> bool:
        """Whether a pod of this index may be a member of an epoch that is not seen yet."""
        return is_index(index, self.most) and not is_index(index, self.expected.replicas)


@dataclass(frozen=True, slots=True)
class LiveSeal:
    """What is kept of a run that lives, beside its pods: the UIDs of its objects, who asked for it,
    the claims that its pods mount, and whether it is in quarantine, cut off from everything.
    """

    uids: tuple[str, ...]
    requester: str
    claims: frozenset[str]
    isolated: bool = False


class SealIndex:
    """Expected pods by the UID of the engine's object."""

    def __init__(self, cluster: str) -> None:
        self._cluster = cluster
        self._keyring: Keyring = {}
        self._pods: dict[str, SealedPod] = {}
        self._live: dict[tuple[str, str], LiveSeal] = {}
        self._objects: dict[tuple[str, str], JsonObject] = {}
        self._digests: Tally[str] = Tally()

    def find(self, uid: str) -> SealedPod | None:
        """What pods of this object must be."""
        return self._pods.get(uid)

    def may_hold(self, namespace: str, pod: str) -> bool:
        """Whether a pod of this name could belong to a run that lives, by how owners name pods."""
        return any(
            pod.startswith(self._pods[uid].expected.object_name[:_KEPT_OF_A_NAME])
            for (where, _), live in self._live.items()
            if where == namespace
            for uid in live.uids
            if uid in self._pods
        )

    def live(self, namespace: str, name: str) -> LiveSeal | None:
        """A run that lives, by its seal's name."""
        return self._live.get((namespace, name))

    def mounting(self, namespace: str, claim: str) -> frozenset[str]:
        """Names of the seals of runs that live and whose pods mount the claim."""
        return frozenset(
            name
            for (where, name), live in self._live.items()
            if where == namespace and claim in live.claims
        )

    def reached_by(
        self, namespace: str, selector: Selector, added: frozenset[str] = frozenset()
    ) -> list[str]:
        """Names of the seals of runs that live and whose pods a selector may choose.

        Labels that a platform adds (``added``), or the cluster, count as chosen: which pod has
        which is not known here. Nobody else gives a sealed pod one.
        """
        return sorted(
            name
            for (where, name), live in self._live.items()
            if where == namespace
            and any(
                _may_choose(selector, self._pods[uid].expected, added)
                for uid in live.uids
                if uid in self._pods
            )
        )

    def knows(self, namespace: str, name: str) -> bool:
        """Whether there is a seal of this name, bound or not, of a run that lives or has ended."""
        return (namespace, name) in self._objects

    def unbound(self, namespace: str, name: str) -> bool:
        """Whether there is such a seal, of a run that has not ended, and it has no binding yet."""
        seal = self._objects.get((namespace, name))
        return (
            seal is not None
            and not has_ended(seal)
            and not json_object(seal.get("status")).get("binding")
        )

    def runs(self, signed: str) -> int:
        """Seals, ended ones too, of what was signed: a job, or a template, by its digest."""
        return self._digests[signed]

    def use_keyring(self, keyring: Keyring) -> None:
        """Takes a new keyring; every seal is judged anew."""
        self._keyring = keyring
        for key, obj in self._objects.items():
            self._drop(key)
            self._take(key, obj)
        _BOUND.set(len(self._live))

    def on_seal(self, event: Event, key: tuple[str, str], obj: JsonObject) -> None:
        """Listener for SealedRuns."""
        before = self._objects.pop(key, None)
        if before is not None:
            digest = _digest(before)
            self._digests[digest] -= 1
            if not self._digests[digest]:
                del self._digests[digest]
        self._drop(key)
        if event != "DELETED":
            self._objects[key] = obj
            self._digests[_digest(obj)] += 1
            self._take(key, obj)
        _BOUND.set(len(self._live))

    def _drop(self, key: tuple[str, str]) -> None:
        live = self._live.pop(key, None)
        for uid in live.uids if live else ():
            self._pods.pop(uid, None)

    def _take(self, key: tuple[str, str], obj: JsonObject) -> None:
        if has_ended(obj):
            return
        namespace, name = key
        try:
            bound = bound_roles(
                self._keyring, cluster=self._cluster, namespace=namespace, name=name, seal=obj
            )
            expected = {item.object_uid: expected_pod(_present(item)) for item in bound}
        except (UntrustedError, CanonicalError) as error:
            _UNTRUSTED.inc()
            _log.error("%s", error)
            return
        spec = json_object(obj.get("spec"))
        policies = tuple(str(p.get("name")) for p in json_objects(spec.get("policies")))
        for item in bound:
            self._pods[item.object_uid] = SealedPod(
                namespace,
                name,
                item.role,
                policies,
                expected[item.object_uid],
                owner=owner_kind(item),
                most=item.replicas,
            )
        if bound:
            self._live[key] = LiveSeal(
                tuple(item.object_uid for item in bound),
                str(json_object(spec.get("requester")).get("username")),
                frozenset(name for item in bound for name in claims_of(item.template)),
                bool(json_object(obj.get("status")).get("isolatedSince")),
            )


def _present(role: BoundRole) -> BoundRole:
    """The role with the members of the epoch that the binding is of."""
    return role if role.members is None else replace(role, replicas=role.members)


def _may_choose(selector: Selector, pod: ExpectedPod, added: frozenset[str]) -> bool:
    def unknown(key: str) -> bool:
        return (
            key == INDEX
            or (
                pod.added.pods is not None
                and (key == pod.added.pods.index_label or key in pod.added.pods.first)
            )
            or key in added
            or key.startswith(_TOPOLOGY)
            or key == pod.added.priority_label
        )

    # A Job whose selector is its own need not give them.
    with_the_jobs = {**pod.labels, **pod.job_labels}
    return any(selector.chooses(labels, unknown) for labels in (pod.labels, with_the_jobs))


def what_counts(seal: JsonObject) -> JsonObject:
    """What the webhook keeps of a seal: of one whose run has ended, that it counts as a run."""
    kept = kept_by_watchers(seal)
    if has_ended(seal):
        kept["spec"] = {k: {"digest": d} for k, d in _digests(seal).items()}
    return kept


def _digest(obj: Mapping[str, JsonValue]) -> str:
    """Of what was signed."""
    found = _digests(obj)
    return str(found.get("launch") or found.get("job"))


def _digests(obj: Mapping[str, JsonValue]) -> JsonObject:
    spec = json_object(obj.get("spec"))
    found = {part: json_object(spec.get(part)).get("digest") for part in ("job", "launch")}
    return {part: digest for part, digest in found.items() if digest is not None}
