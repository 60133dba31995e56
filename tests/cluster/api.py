"""One way to a cluster for demo, end-to-end tests and benches, whoever's it is.

`connect()` gives the user's own cluster if TRAINSEAL_KUBECONFIG names its kubeconfig, else one
of ours, started if need be. For a cluster of the user's:

- TRAINSEAL_REGISTRY: a registry it can pull from, as its nodes and pods call it (`HOST:PORT`);
- TRAINSEAL_REGISTRY_FROM_HOST: how this machine calls the same registry, if differently.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from tests.cluster.cluster import DEFAULT_NAME, Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.target import Target
from tests.cluster.toolchain import tools

_FOREIGN_TOOLS = ("kubectl", "helm", "cosign", "crane")


class ForeignCluster(Target):
    """The user's own cluster: used, never started or stopped."""

    owned = False

    def __init__(self, kubeconfig: Path, registry: str, registry_from_host: str) -> None:
        if not kubeconfig.is_file():
            raise ClusterError(
                f"TRAINSEAL_KUBECONFIG names {kubeconfig}, which is no file",
                expected="the kubeconfig of a test cluster",
            )
        if not registry:
            raise ClusterError(
                "TRAINSEAL_KUBECONFIG is set and TRAINSEAL_REGISTRY is not",
                expected="HOST:PORT of a registry that the cluster can pull from",
                action="set it; and TRAINSEAL_REGISTRY_FROM_HOST, if this machine calls it "
                "by another name",
            )
        self.kubeconfig = kubeconfig
        self.registry = registry
        self.registry_from_host = registry_from_host or registry
        self.tools = tools(_FOREIGN_TOOLS)
        # Removed with this object: whoever reads these files has the user's own rights.
        self._folder = tempfile.TemporaryDirectory(prefix="trainseal-users-")

    def user_kubeconfig(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig that impersonates the user: we have no authority to issue certificates."""
        text = self.kubectl("config", "view", "--raw", "--minify", "--flatten")
        config = yaml.safe_load(text)
        for entry in config["users"]:
            entry["user"] |= {"as": user, "as-groups": [*groups, "system:authenticated"]}
        folder = Path(self._folder.name)
        path = folder / f"{len(list(folder.iterdir()))}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config))
        return path


def connect(name: str = DEFAULT_NAME) -> Cluster | ForeignCluster:
    """The cluster to work on; `owned` says whether it is ours to break."""
    kubeconfig = os.environ.get("TRAINSEAL_KUBECONFIG")
    if kubeconfig:
        return ForeignCluster(
            Path(kubeconfig).expanduser().absolute(),
            os.environ.get("TRAINSEAL_REGISTRY", ""),
            os.environ.get("TRAINSEAL_REGISTRY_FROM_HOST", ""),
        )
    return Cluster.up(name)
