"""A run on the API server in memory, as those see it who compare it with its seal."""

from __future__ import annotations

from typing import Any

from tests.unit import world
from tests.unit.controller.cluster import Cluster
from trainseal.admission.sealindex import SealIndex
from trainseal.api.sealedrun import SealedRun
from trainseal.controller.runreferences import reference_findings
from trainseal.controller.runstate import LiveRun, read_run
from trainseal.provenance.additions import Additions
from trainseal.provenance.boundseals import BoundRole, bound_roles


def key_of(found: Cluster) -> tuple[str, str]:
    """Of its seal."""
    return "research", found.seal["metadata"]["name"]


def bound(found: Cluster) -> tuple[BoundRole, ...]:
    """The roles of its seal by the objects they are bound to."""
    namespace, name = key_of(found)
    ring = world.keyring(world.SEAL_KEY)
    return bound_roles(ring, cluster=world.CLUSTER, namespace=namespace, name=name, seal=found.seal)


def live_run(found: Cluster) -> LiveRun:
    """As the controller reads it."""
    kube: Any = found
    sealed = SealedRun.parse(found.seal)
    return world.run(read_run(kube, key_of(found), found.seal, sealed, bound(found)))


def findings(found: Cluster) -> list[str]:
    """On what the run is made of."""
    seen, _ = world.run(reference_findings(found.world(), live_run(found), Additions()))
    return [f"{s.id} {s.subject}" for s in seen]


def index_of(found: Cluster) -> SealIndex:
    """The webhook's, with its seal in it."""
    index = SealIndex(world.CLUSTER)
    index.use_keyring(world.keyring(world.SEAL_KEY))
    index.on_seal("ADDED", key_of(found), found.seal)
    return index
