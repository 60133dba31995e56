"""Which addresses a cluster has.

Each cluster gets one /24 out of 10.213.0.0/16 for the pair of interfaces that joins its
network namespace to the host: .1 is the host, .2 the node. The number in the third place
comes from the cluster's name, so that it stays the same from run to run; where it is taken by
another cluster or another network of this machine, the next free one is used. Pod and service
addresses exist inside the namespace only and are the same in every cluster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

from tests.cluster.errors import ClusterError

POD_CIDR = "10.244.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE_IP = "10.96.0.1"
CLUSTER_DOMAIN = "cluster.local"

_SUBNETS = 256


@dataclass(frozen=True)
class AddressPlan:
    """The addresses that follow from the number of a cluster's subnet."""

    subnet: int

    @property
    def cidr(self) -> str:
        """The network between host and node."""
        return f"10.213.{self.subnet}.0/24"

    @property
    def host(self) -> str:
        """The host's end."""
        return f"10.213.{self.subnet}.1"

    @property
    def node(self) -> str:
        """The node's end: API server, registries and cluster DNS listen here."""
        return f"10.213.{self.subnet}.2"

    @property
    def registry(self) -> str:
        """The registry with the referrers API, as host, node and pods all call it."""
        return f"{self.node}:5000"

    @property
    def registry_plain(self) -> str:
        """The registry without the referrers API."""
        return f"{self.node}:5001"

    @property
    def host_interface(self) -> str:
        """At most 15 characters, the kernel's limit."""
        return f"trainseal{self.subnet}"


def preferred_subnet(name: str) -> int:
    """The number that the cluster `name` gets if nobody else has it."""
    return hashlib.sha256(name.encode()).digest()[0] % _SUBNETS


def choose_plan(name: str, taken: Collection[int]) -> AddressPlan:
    """The first free plan from the preferred one on."""
    first = preferred_subnet(name)
    for step in range(_SUBNETS):
        subnet = (first + step) % _SUBNETS
        if subnet not in taken:
            return AddressPlan(subnet)
    raise ClusterError(
        "all 256 test subnets are in use",
        expected="a free /24 in 10.213.0.0/16",
        action="python -m tests.cluster down --name … for clusters no longer needed",
    )
