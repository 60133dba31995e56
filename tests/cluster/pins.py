"""Which Go programs the cluster is made of, and the key under which each one is cached.

Versions are pinned by `tools/GROUP/go.mod` and `go.sum`. The key is a digest over all that
decides a program's bytes but the compiler: the same pins give the same key on every machine,
and a changed pin gives a new one, so that nothing stale is ever used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TOOLS_SOURCE = Path(__file__).parent / "tools"

KUBERNETES_VERSION = "v1.36.3"
BUILD_FLAGS = ("-trimpath", "-buildvcs=false", "-mod=readonly")
BUILD_ENV = {"CGO_ENABLED": "0", "GOOS": "linux", "GOWORK": "off", "GOFLAGS": ""}


@dataclass(frozen=True)
class Program:
    """One program: the module folder it is built in, its package, how long that takes.

    `seconds` is for a 2-core machine with nothing cached, in the order of `PROGRAMS`; it only
    feeds the progress display.
    """

    name: str
    group: str
    package: str
    seconds: int
    ldflags: str = "-s -w"

    @property
    def source(self) -> Path:
        """The folder with go.mod."""
        return TOOLS_SOURCE / self.group

    def flags(self) -> list[str]:
        """The arguments of `go build` between `build` and `-o`."""
        return [*BUILD_FLAGS, "-ldflags", self.ldflags]

    def key(self) -> str:
        """The digest of pins, our own source files, flags and package."""
        return digest(
            [
                *((p.name, p.read_bytes()) for p in sorted(self.source.iterdir()) if p.is_file()),
                ("package", self.package.encode()),
                ("flags", "\0".join(self.flags()).encode()),
                ("env", "\0".join(f"{k}={v}" for k, v in sorted(BUILD_ENV.items())).encode()),
            ]
        )


def digest(parts: Iterable[tuple[str, bytes]]) -> str:
    """SHA-256 over named parts; names and lengths are hashed too, so that no two mix."""
    total = hashlib.sha256()
    for name, content in parts:
        total.update(f"{name}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()


def _kubernetes(name: str, seconds: int) -> Program:
    version = f"-X k8s.io/component-base/version.gitVersion={KUBERNETES_VERSION}"
    package = f"k8s.io/kubernetes/cmd/{name}"
    return Program(name, "kubernetes", package, seconds, f"-s -w {version}")


def _katib(name: str, folder: str, seconds: int) -> Program:
    return Program(name, "katib", f"github.com/kubeflow/katib/cmd/{folder}/v1beta1", seconds)


PROGRAMS: dict[str, Program] = {
    p.name: p
    for p in (
        Program("etcd", "etcd", "go.etcd.io/etcd/server/v3", 75),
        _kubernetes("kube-apiserver", 370),
        _kubernetes("kubectl", 45),
        _kubernetes("kube-controller-manager", 100),
        _kubernetes("kube-scheduler", 10),
        _kubernetes("kubelet", 25),
        _kubernetes("kube-proxy", 15),
        Program("crane", "registry", "github.com/google/go-containerregistry/cmd/crane", 20),
        Program("registry", "registry", ".", 5),
        Program("distribution", "distribution", ".", 30),
        Program("coredns", "coredns", ".", 110),
        Program(
            "kube-router",
            "kube-router",
            "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router",
            120,
        ),
        Program("cosign", "cosign", "github.com/sigstore/cosign/v3/cmd/cosign", 220),
        Program("helm", "helm", "helm.sh/helm/v4/cmd/helm", 240),
        Program("cert-manager", "cert-manager", ".", 220),
        Program("jobset", "jobset", "sigs.k8s.io/jobset", 240),
        Program("kueue", "kueue", "sigs.k8s.io/kueue/cmd/kueue", 300),
        Program(
            "trainer",
            "trainer",
            "github.com/kubeflow/trainer/v2/cmd/trainer-controller-manager",
            180,
        ),
        Program(
            "training-operator",
            "training-operator",
            "github.com/kubeflow/training-operator/cmd/training-operator.v1",
            120,
        ),
        _katib("katib-controller", "katib-controller", 150),
        _katib("katib-db-manager", "db-manager", 10),
        _katib("goptuna-suggestion", "suggestion/goptuna", 10),
    )
}

API_ONLY = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
"""What the API-server-only mode runs."""

INTEGRATION = (*API_ONLY, "registry", "distribution", "crane", "cosign", "helm")
"""What the integration tests run: an API server, registries, and the field's own tools."""

FOREIGN = ("kubectl", "helm", "cosign", "crane")
"""What is needed to drive a cluster of the user's."""

CERT_MANAGER = ("cert-manager",)
"""What `make cert-manager` runs on a cluster besides; nothing else needs it."""

ENGINES = (
    *("jobset", "kueue", "trainer", "training-operator"),
    *("katib-controller", "katib-db-manager", "goptuna-suggestion"),
)
"""What `make engines` runs on a cluster besides: controllers of others that jobs are handed to, and
that make jobs.
"""

CLUSTER = tuple(name for name in PROGRAMS if name not in (*CERT_MANAGER, *ENGINES))
"""What the whole cluster runs, and the tools that tests drive it with."""


def fingerprint(names: Iterable[str]) -> str:
    """One digest for a set of programs: it changes when the pins of any of them do."""
    return digest((name, PROGRAMS[name].key().encode()) for name in sorted(names))
