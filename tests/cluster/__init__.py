"""The real cluster, as a tool of the project: `python -m tests.cluster --help`."""

from tests.cluster.api import ForeignCluster, connect
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.target import CommandError, Target
from tests.cluster.toolchain import Tools, tools

__all__ = [
    "Cluster",
    "ClusterError",
    "CommandError",
    "ForeignCluster",
    "Target",
    "Tools",
    "connect",
    "tools",
]
