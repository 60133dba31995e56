"""cert-manager on a cluster: kinds, accounts and rights of its own chart; its programs run here.

They are built from the pinned module and run as processes on this machine, each with a token of the
service account that it has in a cluster. cert-manager's own webhook is not there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.cluster import Cluster, CommandError
from tests.cluster.launch import Launcher
from tests.cluster.pins import CERT_MANAGER
from tests.cluster.toolchain import module_files, tools

NAMESPACE = "cert-manager"
CONTROLLER = f"system:serviceaccount:{NAMESPACE}:cert-manager"
INJECTOR = f"system:serviceaccount:{NAMESPACE}:cert-manager-cainjector"

_MODULE = "github.com/cert-manager/cert-manager"
_TEMPLATES = (
    *("serviceaccount.yaml", "rbac.yaml"),
    *("cainjector-serviceaccount.yaml", "cainjector-rbac.yaml"),
    *(f"crd-cert-manager.io_{kind}.yaml" for kind in (
        "issuers", "clusterissuers", "certificates", "certificaterequests",
    )),
    *(f"crd-acme.cert-manager.io_{kind}.yaml" for kind in ("orders", "challenges")),
)  # fmt: skip
_ACCOUNTS = {"controller": "cert-manager", "cainjector": "cert-manager-cainjector"}


@contextlib.contextmanager
def cert_manager(cluster: Cluster) -> Iterator[None]:
    """Installs it and runs it; the processes end with the context, or with the cluster."""
    program = tools(CERT_MANAGER)["cert-manager"]
    with contextlib.suppress(CommandError):  # there from an earlier run
        cluster.kubectl("create", "namespace", NAMESPACE)
    cluster.kubectl("apply", "--server-side", "-f", "-", input=_manifests(cluster))
    for kind in ("issuers", "certificates", "clusterissuers", "certificaterequests"):
        crd = f"crd/{kind}.cert-manager.io"
        cluster.kubectl("wait", "--for=condition=Established", crd, "--timeout=60s")
    launcher = Launcher(cluster.run_dir)
    try:
        for part, account in _ACCOUNTS.items():
            kubeconfig = _kubeconfig(cluster, account)
            launcher.start(f"cert-manager-{part}", [program, part, kubeconfig])
        yield
        launcher.require_alive(f"cert-manager-{part}" for part in _ACCOUNTS)
    finally:
        for part in _ACCOUNTS:
            launcher.stop(f"cert-manager-{part}")


def _manifests(cluster: Cluster) -> str:
    """What its chart makes, but for Deployments and its webhook."""
    chosen = [flag for name in _TEMPLATES for flag in ("--show-only", f"templates/{name}")]
    chart = str(module_files("cert-manager", _MODULE) / "deploy" / "charts" / "cert-manager")
    flags = ("--namespace", NAMESPACE, "--set", "crds.enabled=true")
    return cluster.helm("template", "cert-manager", chart, *flags, *chosen)


def _kubeconfig(cluster: Cluster, account: str) -> Path:
    """The administrator's, with the account's token in the place of their certificate."""
    config = yaml.safe_load(cluster.kubectl("config", "view", "--raw", "--minify", "--flatten"))
    token = cluster.kubectl("create", "token", account, "-n", NAMESPACE, "--duration=6h").strip()
    for entry in config["users"]:
        entry["user"] = {"token": token}
    path = cluster.run_dir.sub("users") / f"{account}.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
    return path
