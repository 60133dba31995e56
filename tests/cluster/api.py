"""One way to a cluster for demo, end-to-end tests and benches, whoever's it is.

`connect()` gives the user's own cluster if TRAINSEAL_KUBECONFIG names its kubeconfig, else one
of ours, started if need be. For a cluster of the user's:

- TRAINSEAL_REGISTRY: a registry it can pull from, as its nodes and pods call it (`HOST:PORT`);
- TRAINSEAL_REGISTRY_FROM_HOST: how this machine calls the same registry, if differently.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.cluster import packages, pins, readiness
from tests.cluster.cluster import DEFAULT_NAME, Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.target import Target
from tests.cluster.toolchain import tools


@dataclass(frozen=True)
class Foreign:
    """Where the user's own cluster is, and its registry, as nodes and as this machine call it."""

    kubeconfig: Path
    registry: str
    registry_from_host: str

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Foreign | None:
        """What the variables name; None if they name no cluster. ClusterError if they are wrong."""
        given = variables.get("TRAINSEAL_KUBECONFIG")
        if not given:
            return None
        kubeconfig = Path(given).expanduser().absolute()
        registry = variables.get("TRAINSEAL_REGISTRY", "")
        if not kubeconfig.is_file():
            raise ClusterError(
                f"TRAINSEAL_KUBECONFIG names {kubeconfig}, which is no file",
                expected="the kubeconfig of a test cluster",
                action="name one, or unset it: a cluster is then made here",
            )
        if not registry:
            raise ClusterError(
                "TRAINSEAL_KUBECONFIG is set and TRAINSEAL_REGISTRY is not",
                expected="HOST:PORT of a registry that the cluster can pull from",
                action="set it; and TRAINSEAL_REGISTRY_FROM_HOST, if this machine calls it "
                "by another name",
            )
        return cls(kubeconfig, registry, variables.get("TRAINSEAL_REGISTRY_FROM_HOST") or registry)


class ForeignCluster(Target):
    """The user's own cluster: used, never started or stopped."""

    owned = False

    def __init__(self, foreign: Foreign) -> None:
        self.kubeconfig = foreign.kubeconfig
        self.registry = foreign.registry
        self.registry_from_host = foreign.registry_from_host
        readiness.require_for_foreign()
        self.tools = tools(pins.FOREIGN)
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


def connect(name: str = DEFAULT_NAME, *, temporary: bool = False) -> Cluster | ForeignCluster:
    """The cluster to work on; `owned` says whether it is ours to break.

    `temporary` is for one of ours that does not run yet: see `Cluster.up`.
    """
    if foreign := Foreign.of(os.environ):
        return ForeignCluster(foreign)
    return Cluster.up(name, temporary=temporary)


def require_ready(*, install: bool = True) -> None:
    """Whether this machine has what `connect` needs, said before anything long begins."""
    if Foreign.of(os.environ):
        readiness.require_for_foreign(install=install)
    else:
        readiness.require_for_cluster(install=install)


def needed_tools() -> tuple[str, ...]:
    """The tools that `connect` would build."""
    return pins.FOREIGN if Foreign.of(os.environ) else pins.CLUSTER


def needed_packages() -> tuple[str, ...]:
    """The Debian packages that `connect` would install."""
    return packages.FOREIGN if Foreign.of(os.environ) else tuple(packages.PACKAGES)
