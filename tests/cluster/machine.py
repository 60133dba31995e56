"""What the machine must have for a node. Each function raises ClusterError with what it lacks.

They look and try, and leave nothing behind; `readiness` says which are asked when.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.cluster import cgroups
from tests.cluster.errors import ClusterError
from tests.cluster.places import state_root
from tests.cluster.processes import daemon_environment, kubelets
from tests.images import ImageError, debian

_FILES = {
    "/proc/self/ns/net": "a kernel with network namespaces",
    "/proc/self/cgroup": "a kernel with cgroups",
    "/dev/kmsg": "the kernel's log device, which the kubelet reads (a container gets it by "
    "`--device /dev/kmsg`)",
}

#: What a cluster's network and kube-proxy (mode nftables) ask of the kernel, in one table.
_RULES = """\
table ip trainseal-check {
  map services { type ipv4_addr . inet_proto . inet_service : verdict; }
  chain endpoint { meta l4proto tcp dnat to 10.0.0.1:80; }
  chain refused { reject; }
  chain forward { type filter hook forward priority filter; ct state new jump refused; }
  chain output {
    type nat hook output priority -100;
    fib daddr type local ip daddr . meta l4proto . th dport vmap @services;
    numgen random mod 1 vmap { 0 : goto endpoint };
  }
  chain postrouting { type nat hook postrouting priority srcnat; masquerade fully-random; }
}
"""

#: What kube-router's firewall asks of it, by iptables and ipset.
_FIREWALL = """\
ipset create check hash:ip
iptables -w -A FORWARD -m comment --comment check -m conntrack --ctstate NEW -m physdev \
  --physdev-is-bridged -m addrtype ! --src-type LOCAL -m set --match-set check src \
  -m mark --mark 0x10000/0x10000 -j REJECT
iptables -w -A FORWARD -m limit --limit 10/minute --limit-burst 10 -j NFLOG --nflog-group 100
iptables -w -A FORWARD -j MARK --set-xmark 0x10000/0x10000
"""

_LINKS = {
    "veth": ("ip", "link", "add", "check0", "type", "veth", "peer", "name", "check1"),
    "bridge": ("ip", "link", "add", "check2", "type", "bridge"),
}


def require_linux() -> None:
    """What every mode needs."""
    if sys.platform != "linux":
        raise ClusterError(
            f"this is {sys.platform}",
            expected="Linux",
            action="a virtual machine with Debian 12 (bookworm) will do",
        )


def require_root() -> None:
    """Network namespaces, mounts, cgroups and root filesystems are root's to make."""
    if os.geteuid() != 0:
        raise ClusterError(
            "not running as root",
            expected="root: network namespaces, mounts and cgroups are needed",
            action="run it again with sudo, or use `up --api-only`, which needs no root",
        )


def require_release() -> None:
    """Debian, with package sources of its own: programs come from it, and so do the images."""
    try:
        debian.python_version()
        debian.sources(debian.codename())
    except ImageError as error:
        raise ClusterError(error.found, expected=error.expected, action=error.action) from None


def require_no_kubelet() -> None:
    """All kubelets of a machine share one folder for device plugins."""
    if found := kubelets(of_others=True):
        raise ClusterError(
            f"a kubelet of somebody else's runs on this machine (pid {found[0]})",
            expected="none: ours would take its device plugins away",
            action="stop it, or set TRAINSEAL_KUBECONFIG to use the cluster it belongs to",
        )


def require_kernel() -> None:
    """Files by which the kernel and the container we may be in show what they offer."""
    missing = [path for path in _FILES if not Path(path).exists()]
    if missing:
        raise ClusterError(
            f"{', '.join(missing)}: no such file",
            expected="; ".join(_FILES[path] for path in missing),
            action="use a virtual machine, or a container that is given them",
        )


def require_cgroups() -> None:
    """The controllers that the kubelet needs, which may be handed to a group of ours."""
    mounted = cgroups.hierarchies()
    controllers = {c for h in mounted for c in h.controllers}
    if lacking := cgroups.NEEDED - controllers:
        raise ClusterError(
            f"cgroup controllers found: {', '.join(sorted(controllers)) or 'none'}; "
            f"lacking: {', '.join(sorted(lacking))}",
            expected="cgroups v1 or v2 mounted under /sys/fs/cgroup",
            action="mount them, or boot without `cgroup_disable=` on the kernel's command line",
        )
    if all(h.version == 1 for h in mounted) and "freezer" not in controllers:
        raise ClusterError(
            "neither cgroup v2 nor the v1 freezer is mounted",
            expected="one of them: pods are frozen, and processes found, by it",
            action="mount -t cgroup -o freezer cgroup /sys/fs/cgroup/freezer",
        )
    cgroups.try_out(mounted)


def require_overlayfs() -> None:
    """Overlays where containerd will put them: not every filesystem takes their upper layers."""
    folder = state_root()
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.which("modprobe"):
        subprocess.run(["modprobe", "-q", "overlay"], check=False, env=daemon_environment())
    with tempfile.TemporaryDirectory(prefix=".check-", dir=folder) as made:
        layers = {name: Path(made) / name for name in ("lowerdir", "upperdir", "workdir")}
        for layer in (*layers.values(), target := Path(made) / "merged"):
            layer.mkdir()
        options = ",".join(f"{name}={layer}" for name, layer in layers.items())
        # In a mount namespace of its own, so that the mount ends with the command.
        failed = _fails("--mount", "mount", "-t", "overlay", "overlay", "-o", options, str(target))
    if failed:
        raise ClusterError(
            f"overlayfs cannot be mounted in {folder}",
            expected="a kernel with overlayfs, and a filesystem such as ext4 or xfs below it",
            action="set TRAINSEAL_STATE to a folder on such a filesystem (in a container, whose "
            "own root is an overlay: a volume)",
            detail=failed,
        )


def require_network() -> None:
    """Interfaces and packet rules, tried in a network namespace that ends with each command.

    Needs the programs `ip`, `nft`, `iptables` and `ipset`.
    """
    for kind, command in _LINKS.items():
        if failed := _fails("--net", *command):
            raise ClusterError(
                f"an interface of type {kind} cannot be made in a new network namespace",
                expected=f"root's rights over networks, and a kernel with {kind}",
                action=f"modprobe {kind}, or use a virtual machine",
                detail=failed,
            )
    if failed := _fails("--net", "nft", "-f", "-", stdin=_RULES):
        raise ClusterError(
            "nftables does not take the rules of a cluster's network",
            expected="Linux 5.13 or later with nftables, NAT, fib and numgen, as kube-proxy needs",
            action="modprobe nf_tables nft_chain_nat nft_masq nft_fib_ipv4 nft_numgen nft_reject, "
            "or use a virtual machine",
            detail=failed,
        )
    if failed := _fails("--net", "sh", "-e", stdin=_FIREWALL):
        raise ClusterError(
            "iptables or ipset does not take the rules by which NetworkPolicies are enforced",
            expected="a kernel with ip_set, and the matches and targets that kube-router needs",
            action="modprobe ip_set ip_set_hash_ip xt_set xt_physdev xt_NFLOG br_netfilter, "
            "or use a virtual machine",
            detail=failed,
        )


def _fails(namespace: str, *command: str, stdin: str = "") -> str:
    """What a command in a new namespace prints when it fails; empty if it does not."""
    done = subprocess.run(
        ["unshare", namespace, "--", *command],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env=daemon_environment(),
    )
    if done.returncode == 0:
        return ""
    return (done.stderr + done.stdout).strip() or f"{command[0]} ended with {done.returncode}"
