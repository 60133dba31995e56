"""Debian packages that clusters and images are made of: which are missing; how they come."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.node import CNI_PLUGINS
from tests.cluster.places import locked, state_root
from tests.cluster.processes import daemon_environment
from tests.cluster.progress import say

# Debian package -> a file or command that shows that it is there.
PACKAGES: dict[str, str] = {
    "containerd": "containerd",
    "runc": "runc",
    "containernetworking-plugins": str(CNI_PLUGINS / "ptp"),
    "nftables": "nft",
    "conntrack": "conntrack",
    "iptables": "iptables",  # kube-router's rules
    "ipset": "ipset",
    "socat": "socat",  # kubectl port-forward
    "iproute2": "ip",
    "procps": "sysctl",
    "util-linux": "nsenter",
    "catatonit": "catatonit",
    "buildah": "buildah",
    "skopeo": "skopeo",
    "mmdebstrap": "mmdebstrap",
    "busybox-static": "/usr/share/doc/busybox-static",
    "openssl": "openssl",  # people of demo and tests make keys with it
    "jq": "jq",  # a page pipes into it
}

FOREIGN = ("buildah", "skopeo", "mmdebstrap", "openssl", "jq")
"""What is needed beside a cluster of the user's: images, keys, and what pages pipe into."""

_POLICY = Path("/usr/sbin/policy-rc.d")
_POLICY_TEXT = """\
#!/bin/sh
# Of TrainSeal's tests.cluster, which is installing packages: none of them starts a daemon.
exit 101
"""


def missing_packages(packages: Iterable[str] = PACKAGES) -> list[str]:
    """Those whose command or file is not there."""
    path = daemon_environment()["PATH"]
    return [
        package
        for package in packages
        if not (
            Path(proof).exists()
            if "/" in (proof := PACKAGES[package])
            else shutil.which(proof, path=path)
        )
    ]


def install_packages(packages: Iterable[str] = PACKAGES) -> None:
    """Install what is missing, on Debian and as root; else say what to install."""
    wanted = tuple(packages)
    missing = missing_packages(wanted)
    able = shutil.which("apt-get") is not None and os.geteuid() == 0
    if not missing and not (able and _left_behind()):
        return
    if not able:
        raise ClusterError(
            f"missing: {', '.join(f'{PACKAGES[p]} ({p})' for p in missing)}",
            expected="these programs on the PATH (in brackets: Debian's package)",
            action="install them with the system's package manager",
        )
    # One at a time: who ends first takes the policy away from under the other's installation.
    with locked(state_root() / ".packages.lock"), _no_services():
        missing = missing_packages(wanted)
        if not missing:
            return
        say(f"Installing Debian packages: {' '.join(missing)}")
        _apt_get("update")
        _apt_get("-y", "--no-install-recommends", "install", *missing)
    if still := missing_packages(wanted):
        raise ClusterError(
            f"still missing after installation: {', '.join(still)}",
            expected=", ".join(PACKAGES[p] for p in still),
            action="install them by hand, then run this again",
        )


def _apt_get(*arguments: str) -> None:
    argv = ["apt-get", "-q", *arguments]
    result = subprocess.run(
        argv,
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise ClusterError(
            f"`{' '.join(argv)}` failed",
            expected="Debian's packages to be within reach",
            action="read on below; or install the packages by hand, then run this again",
            detail="\n".join(result.stdout.splitlines()[-15:]),
        )


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Keep package scripts from starting daemons: we run a containerd of our own.

    Somebody else's policy is left as it is. One of ours can only be what a killed installation
    left, since the lock is held: it serves once more and goes.
    """
    if _POLICY.exists() and not _left_behind():
        yield
        return
    # By a rename, so that whatever is there is whole and known as ours.
    new = _POLICY.with_name(".policy-rc.d.trainseal")
    new.write_text(_POLICY_TEXT)
    new.chmod(0o755)
    new.rename(_POLICY)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)


def _left_behind() -> bool:
    """Whether the policy that is there is ours."""
    try:
        return _POLICY.read_text() == _POLICY_TEXT
    except (OSError, ValueError):
        return False
