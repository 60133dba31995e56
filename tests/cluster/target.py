"""What demo, end-to-end tests and benches need of a cluster, ours or the user's own."""

from __future__ import annotations

import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.images import push
from tests.cluster.toolchain import Tools


class CommandError(ClusterError):
    """A command that ended with an error; what it printed is kept apart for tests to look at."""

    def __init__(self, argv: Sequence[str], result: subprocess.CompletedProcess[str]) -> None:
        self.returncode = result.returncode
        self.stdout = result.stdout
        self.stderr = result.stderr
        super().__init__(
            f"`{' '.join(argv)}` ended with {result.returncode}",
            detail=(result.stderr + result.stdout)[-4000:],
        )


class Target(ABC):
    """A cluster that can be used.

    `registry` is how images are named and how pods and nodes reach them; `registry_from_host`
    how this machine reaches the same registry.
    """

    kubeconfig: Path
    registry: str
    registry_from_host: str
    tools: Tools
    owned: bool

    @abstractmethod
    def user_kubeconfig(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig with which one is that user, in those groups, and nothing more."""

    def kubectl(
        self,
        *args: str,
        input: str | None = None,  # noqa: A002 - subprocess.run's own word for it
        kubeconfig: Path | None = None,
        timeout: float = 300.0,
    ) -> str:
        """Run kubectl and return its standard output; CommandError if it fails."""
        return self.run([str(self.tools.kubectl), *args], input, kubeconfig, timeout)

    def helm(self, *args: str, timeout: float = 300.0) -> str:
        """Run helm and return its standard output; CommandError if it fails."""
        return self.run([str(self.tools.helm), *args], None, None, timeout)

    def run(
        self,
        argv: Sequence[str],
        input: str | None = None,  # noqa: A002
        kubeconfig: Path | None = None,
        timeout: float = 120.0,
        extra: Mapping[str, str] | None = None,
    ) -> str:
        """Run any command with `environment()`, and with `extra` variables."""
        result = subprocess.run(
            list(argv),
            input=input,
            env=self.environment(kubeconfig) | dict(extra or {}),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        if result.returncode != 0:
            raise CommandError(argv, result)
        return result.stdout

    def environment(self, kubeconfig: Path | None = None) -> dict[str, str]:
        """The environment in which commands reach this cluster and find its tools."""
        return os.environ | {
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
            "PATH": self.tools.search_path,
        }

    def push_image(self, source: str | Path, repository: str) -> str:
        """Push an image and return its reference by digest, as pods use it.

        `source` is an archive, an OCI layout folder, or the name of an image in buildah's
        storage; `repository` has no registry in it and may end in a tag.
        """
        digest = push(source, f"{self.registry_from_host}/{repository}")
        name = repository.rpartition(":")[0] or repository
        return f"{self.registry}/{name}@{digest}"
