"""The network namespace of a cluster and the pair of interfaces that joins it to the host."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.addresses import POD_CIDR, SERVICE_CIDR, AddressPlan
from tests.cluster.errors import ClusterError
from tests.cluster.processes import Process, daemon_environment

_NETNS = Path("/run/netns")


@dataclass(frozen=True)
class Network:
    """The namespace called `name`, with the addresses of `plan`."""

    name: str
    plan: AddressPlan

    @property
    def path(self) -> Path:
        """The namespace's file."""
        return _NETNS / self.name

    def enter_command(self) -> list[str]:
        """A command prefix that runs the command in the namespace.

        `ip netns exec` would do, but it mounts a new /sys and so hides /sys/fs/cgroup, and
        then the kubelet finds no cgroups.
        """
        return ["nsenter", f"--net={self.path}", "--"]

    def create(self) -> None:
        """Make namespace, interfaces, addresses and routes."""
        plan, host = self.plan, self.plan.host_interface
        _ip("netns", "add", self.name)
        _ip("link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _ip("addr", "add", f"{plan.host}/24", "dev", host)
        _ip("link", "set", host, "up")
        inside = ["-n", self.name]
        _ip(*inside, "link", "set", "lo", "up")
        _ip(*inside, "addr", "add", f"{plan.node}/24", "dev", "eth0")
        _ip(*inside, "link", "set", "eth0", "up")
        # Processes on the node reach Services only if a route leads somewhere before the
        # address is rewritten; everything else that is not here fails at once, not by timeout.
        # (A bridge without ports, because not every kernel has dummy interfaces.)
        _ip(*inside, "link", "add", "services", "type", "bridge")
        _ip(*inside, "link", "set", "services", "up")
        _ip(*inside, "route", "add", SERVICE_CIDR, "dev", "services", "src", plan.node)
        _ip(*inside, "route", "add", "unreachable", "default")
        _run([*self.enter_command(), "sysctl", "-q", "-w", "net.ipv4.ip_forward=1"])
        # Pods may call servers that a test runs on the host; only this network is masqueraded.
        rules = f"""
            table ip trainseal {{
              chain postrouting {{
                type nat hook postrouting priority srcnat; policy accept;
                ip saddr {POD_CIDR} ip daddr {plan.cidr} oifname "eth0" masquerade
              }}
            }}"""
        _run([*self.enter_command(), "nft", "-f", "-"], stdin=rules)

    def remove(self) -> None:
        """Remove the interfaces and the namespace; nothing happens if there are none."""
        # The namespace takes its interface along, but only once its last process is reaped:
        # by name it is gone at once, and the address free for whoever comes next.
        if Path(f"/sys/class/net/{self.plan.host_interface}").exists():
            with contextlib.suppress(ClusterError):  # it may vanish by itself meanwhile
                _ip("link", "del", self.plan.host_interface)
        remove_namespace(self.name)


def processes_in(name: str) -> set[Process]:
    """Every process whose network is the namespace `name` (one entered by hand, say)."""
    try:
        wanted = (_NETNS / name).stat()
    except FileNotFoundError:
        return set()
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            has = (entry / "ns/net").stat()
        except OSError:
            continue
        if (has.st_dev, has.st_ino) == (wanted.st_dev, wanted.st_ino):
            process = Process.running(int(entry.name))
            if process is not None:
                found.add(process)
    return found


def remove_namespace(name: str) -> None:
    """Remove a namespace of which the addresses may no longer be known."""
    if (_NETNS / name).exists():
        _ip("netns", "del", name)


def namespace_exists(name: str) -> bool:
    """Whether there is a namespace of that name, even a broken one."""
    return (_NETNS / name).exists()


def namespaces(prefix: str) -> list[str]:
    """The names of all namespaces that begin so."""
    return [f.name for f in _NETNS.glob(f"{prefix}*")]


def subnets_in_use() -> set[int]:
    """The numbers of 10.213.N.0/24 that interfaces of this machine have."""
    taken = set()
    for interface in json.loads(_run(["ip", "-j", "-4", "addr", "show"]) or "[]"):
        for address in interface.get("addr_info", []):
            parts = str(address.get("local", "")).split(".")
            if parts[:2] == ["10", "213"]:
                taken.add(int(parts[2]))
    return taken


def _ip(*args: str) -> None:
    _run(["ip", *args])


def _run(argv: list[str], stdin: str | None = None) -> str:
    result = subprocess.run(
        argv, input=stdin, capture_output=True, text=True, check=False, env=daemon_environment()
    )
    if result.returncode != 0:
        raise ClusterError(
            f"`{' '.join(argv)}` failed",
            expected="to be root, with network namespaces, veth and nftables in the kernel",
            detail=result.stderr or result.stdout,
        )
    return result.stdout
