"""NetworkPolicies of others that open a sealed run's network, and who made them.

The webhook refuses them while a run lives; those that were there before, or came past it, are found
here, by the labels that the run's pods have. NetworkPolicies add up, so each that lets something in
counts, whatever others say; in quarantine also one that lets something out. The run's own is
compared with what was rendered (``references``).

What is not promised: whether the cluster's network plugin enforces NetworkPolicies at all; and
other kinds by which such plugins let traffic in (``CiliumNetworkPolicy``, ``AdminNetworkPolicy``)
are not read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from trainseal.api.accessrecord import LABEL_OBJECT
from trainseal.api.findings import FindingId
from trainseal.api.model import JsonObject, json_object, metadata_name
from trainseal.cluster.api import Kube, path_of
from trainseal.cluster.informer import Event, Informer
from trainseal.controller.disturbances import Record
from trainseal.controller.ownreport import Seen
from trainseal.controller.records import records
from trainseal.engines.podtemplate import LABEL_SEAL
from trainseal.provenance.differences import strings
from trainseal.provenance.networks import Opening, opening

Key = tuple[str, str]
_METADATA = ("creationTimestamp", "generation", "name", "namespace", "resourceVersion", "uid")
#: Pods named in one finding.
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Network:
    """A NetworkPolicy that allows something; ``generation`` counts changes of its spec."""

    name: str
    uid: str
    generation: str
    made: str
    opening: Opening

    def chooses(self, pod: JsonObject) -> bool:
        """Whether it is for this pod, as it is."""
        labels = strings(json_object(pod.get("metadata")).get("labels"))
        return self.opening.selector.chooses(labels)

    @property
    def seal(self) -> str:
        """The one seal whose pods it is for, as a run's own says; empty: it does not say so."""
        for requirement in self.opening.selector.requirements:
            if requirement.key == LABEL_SEAL and requirement.operator == "In":
                return next(iter(requirement.values)) if len(requirement.values) == 1 else ""
        return ""


def shape(policy: JsonObject) -> JsonObject:
    """What is kept of a NetworkPolicy."""
    metadata = json_object(policy.get("metadata"))
    return {
        "metadata": {k: metadata[k] for k in _METADATA if k in metadata},
        "spec": json_object(policy.get("spec")),
    }


def network(policy: JsonObject) -> Network | None:
    """None where it allows nothing."""
    opened = opening(json_object(policy.get("spec")))
    if opened is None:
        return None
    metadata = json_object(policy.get("metadata"))
    name, uid = str(metadata.get("name")), str(metadata.get("uid"))
    made = str(metadata.get("creationTimestamp") or "")
    return Network(name, uid, str(metadata.get("generation")), made, opened)


def opened(
    networks: Iterable[Network], seal: str, pods: Sequence[JsonObject], *, isolated: bool
) -> Iterator[tuple[Network, Seen]]:
    """Pure. The findings on a run, by its pods as they are; ``isolated``: it is in quarantine."""
    for one in networks:
        rules = one.opening.opens(isolated=isolated)
        if one.name == seal or not rules:
            continue
        chosen = [metadata_name(p) for p in pods if one.chooses(p)]
        if chosen:
            yield one, _seen(one, rules, sorted(chosen))


def _seen(one: Network, rules: str, pods: list[str]) -> Seen:
    name = f"NetworkPolicy {one.name}"
    more = f" and {len(pods) - _MOST_NAMED} more" if len(pods) > _MOST_NAMED else ""
    named = f"{', '.join(pods[:_MOST_NAMED])}{more}"
    return Seen(
        id=FindingId.NETWORK_OPENED,
        subject=name,
        message=f"{name} opens the network of the run's pods {named}: found {rules}, expected none "
        "beside the run's own",
        occasion=f"{one.uid} {one.generation} {rules}",
        evidence={
            "object": name,
            "uid": one.uid,
            "made": one.made,
            "pods": named,
            "rules": rules,
        },
    )


def by_whom(seen: Seen, found: Iterable[Record]) -> Seen:
    """The finding with who last made or changed the NetworkPolicy, where that is on record."""
    last = max(found, key=lambda r: (r.time, r.name), default=None)
    if last is None:
        return seen
    did = "made" if last.action == "Create" else "changed"
    return dataclasses.replace(
        seen,
        message=f"{seen.message}; {last.user} {did} it",
        user=last.user,
        access_record=last.name,
    )


class Openings:
    """The NetworkPolicies of the cluster that allow something; ``informer`` feeds it.

    ``changed`` is told of a namespace and of what came to be allowed there.
    """

    def __init__(self, kube: Kube, changed: Callable[[str, Network], None]) -> None:
        self._kube = kube
        self._changed = changed
        self._networks: dict[Key, Network] = {}
        #: By namespace, and the one seal that they are for: others' runs are many.
        self._names: dict[Key, set[str]] = {}
        #: Who made it, by UID and generation.
        self._makers: dict[Key, tuple[str, tuple[Record, ...]]] = {}
        self.informer = Informer(
            kube,
            path_of("networking.k8s.io/v1", "networkpolicies"),
            listener=self.listen,
            shape=shape,
        )

    def listen(self, event: Event, key: Key, obj: JsonObject) -> None:
        """The informer's listener."""
        before = self._networks.pop(key, None)
        if before is not None:
            place = (key[0], before.seal)
            self._names[place].discard(key[1])
            if not self._names[place]:
                del self._names[place]
        found = network(obj) if event != "DELETED" else None
        if found is None:
            self._makers.pop(key, None)
            return
        self._networks[key] = found
        self._names.setdefault((key[0], found.seal), set()).add(key[1])
        if before is None or before.opening != found.opening:
            self._changed(key[0], found)

    async def on(self, key: Key, pods: Sequence[JsonObject], *, isolated: bool) -> list[Seen]:
        """The findings on a run, with who did it. Raises KubeError."""
        namespace, seal = key
        names = sorted(self._names.get((namespace, ""), set()) | self._names.get(key, set()))
        networks = [self._networks[namespace, name] for name in names]
        return [
            by_whom(seen, await self._made(namespace, one))
            for one, seen in opened(networks, seal, pods, isolated=isolated)
        ]

    async def _made(self, namespace: str, one: Network) -> tuple[Record, ...]:
        """What is on record of it; read once for each change of it."""
        key = (namespace, one.name)
        mark = f"{one.uid} {one.generation}"
        known = self._makers.get(key)
        if known is None or known[0] != mark:
            found = await records(self._kube, namespace, f"{LABEL_OBJECT}={one.uid}")
            known = self._makers[key] = (mark, tuple(found))
        return known[1]
