"""What the machine must have: looked at before anything is started, installed where it can be."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.cgroups import hierarchies
from tests.cluster.errors import ClusterError
from tests.cluster.node import CNI_PLUGINS
from tests.cluster.processes import daemon_environment, kubelets
from tests.cluster.progress import say

# Debian package -> a file or command that shows that it is there.
PACKAGES: dict[str, str] = {
    "containerd": "containerd",
    "runc": "runc",
    "containernetworking-plugins": str(CNI_PLUGINS / "ptp"),
    "nftables": "nft",
    "conntrack": "conntrack",
    "socat": "socat",  # kubectl port-forward
    "iproute2": "ip",
    "procps": "sysctl",
    "util-linux": "nsenter",
    "catatonit": "catatonit",
    "buildah": "buildah",
    "skopeo": "skopeo",
    "mmdebstrap": "mmdebstrap",
    "busybox-static": "/usr/share/doc/busybox-static",
}

_POLICY = Path("/usr/sbin/policy-rc.d")


def require_linux() -> None:
    """What both modes need."""
    if sys.platform != "linux":
        raise ClusterError(f"this is {sys.platform}", expected="Linux (a virtual machine will do)")


def require_node() -> None:
    """Raise ClusterError unless this machine can run a node; installs missing packages."""
    require_linux()
    if os.geteuid() != 0:
        raise ClusterError(
            "not running as root",
            expected="root: network namespaces, mounts and cgroups are needed",
            action="run it again with sudo, or use `up --api-only`, which needs no root, or set "
            "TRAINSEAL_KUBECONFIG to test against a cluster of your own",
        )
    _require_kernel()
    _require_no_kubelet()
    install_packages()


def _require_no_kubelet() -> None:
    if found := kubelets(of_others=True):
        raise ClusterError(
            f"a kubelet of somebody else's runs on this machine (pid {found[0]})",
            expected="none: ours would take its device plugins away",
            action="stop it, or set TRAINSEAL_KUBECONFIG to use the cluster it belongs to",
        )


def missing_packages() -> list[str]:
    """Packages whose command or file is not there."""
    path = daemon_environment()["PATH"]
    return [
        package
        for package, proof in PACKAGES.items()
        if not (Path(proof).exists() if "/" in proof else shutil.which(proof, path=path))
    ]


def install_packages() -> None:
    """Install what is missing, on Debian and as root; else say what to install."""
    missing = missing_packages()
    if not missing:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise ClusterError(
            f"missing: {', '.join(f'{PACKAGES[p]} ({p})' for p in missing)}",
            expected="these programs on the PATH (in brackets: Debian's package)",
            action="install them with the system's package manager",
        )
    say(f"Installing Debian packages: {' '.join(missing)}")
    with _no_services():
        for argv in (
            ["apt-get", "-q", "update"],
            ["apt-get", "-q", "-y", "--no-install-recommends", "install", *missing],
        ):
            env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
            result = subprocess.run(
                argv,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            if result.returncode != 0:
                raise ClusterError(
                    f"`{' '.join(argv)}` failed",
                    action="install the packages by hand, then run this again",
                    detail="\n".join(result.stdout.splitlines()[-15:]),
                )
    if still := missing_packages():
        raise ClusterError(f"still missing after installation: {', '.join(still)}")


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Keep package scripts from starting daemons: we run a containerd of our own."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)


def _require_kernel() -> None:
    for feature, path in (
        ("network namespaces", "/proc/self/ns/net"),
        ("cgroups", "/proc/self/cgroup"),
        ("the kernel's log device, which the kubelet reads", "/dev/kmsg"),
    ):
        if not Path(path).exists():
            raise ClusterError(f"{path} is missing", expected=f"a kernel with {feature}")
    if not _has_overlayfs():
        raise ClusterError(
            "overlay is not in /proc/filesystems and cannot be loaded",
            expected="a kernel with overlayfs, on which containers run",
        )
    mounted = hierarchies()
    controllers = {c for h in mounted for c in h.controllers}
    needed = {"cpu", "cpuset", "memory", "pids"}
    if lacking := needed - controllers:
        raise ClusterError(
            f"cgroup controllers found: {', '.join(sorted(controllers)) or 'none'}; "
            f"lacking: {', '.join(sorted(lacking))}",
            expected="cgroups v1 or v2 mounted under /sys/fs/cgroup",
        )
    if all(h.version == 1 for h in mounted) and "freezer" not in controllers:
        raise ClusterError(
            "neither cgroup v2 nor the v1 freezer is mounted",
            expected="one of them: pods are frozen, and processes found, by it",
        )
    writable = [h.mount for h in mounted if not os.access(h.mount, os.W_OK)]
    if writable:
        raise ClusterError(
            f"read-only: {', '.join(map(str, writable))}",
            expected="cgroups that root may write (a privileged container, if it is one)",
        )


def _has_overlayfs() -> bool:
    filesystems = Path("/proc/filesystems")
    if "\toverlay\n" in filesystems.read_text():
        return True
    if shutil.which("modprobe"):
        subprocess.run(["modprobe", "-q", "overlay"], check=False)
    return "\toverlay\n" in filesystems.read_text()
