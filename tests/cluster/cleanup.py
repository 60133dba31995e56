"""Removes every trace of a cluster, whatever state it was left in.

Nothing here trusts that an orderly record exists: processes are found by cgroup, by network
namespace and by pidfile, mounts by where they are mounted.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import stat
import subprocess
from pathlib import Path

from tests.cluster.addresses import AddressPlan
from tests.cluster.cgroups import Cgroup
from tests.cluster.errors import ClusterError
from tests.cluster.launch import FOLDER_VARIABLE
from tests.cluster.network import Network, namespace_exists, processes_in, remove_namespace
from tests.cluster.places import RunDir
from tests.cluster.processes import Process, daemon_environment, having, kill_all, kubelets

_MOUNTINFO = Path("/proc/self/mountinfo")

# Where kubelet, containerd and the CNI library write, whatever their configuration says.
_CONTAINER_LOGS = Path("/var/log/containers")
_CNI_RESULTS = Path("/var/lib/cni/results")
_DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")


def remove_processes(run: RunDir) -> None:
    """Kill what pidfiles name, with their sessions, and what was started and not written down.

    Enough for the API-server-only mode.
    """
    recorded = {p for f in run.pids.glob("*.json") if (p := Process.load(f)) is not None}
    if left := kill_all(recorded | having(FOLDER_VARIABLE, str(run.root))):
        raise ClusterError(
            f"these processes do not die: {', '.join(str(p.pid) for p in left)}",
            expected="all processes of the cluster to end when they are killed",
            action="look at /proc/PID/stack for what they wait on, then run `down` again",
        )


def remove_node(run: RunDir, system_name: str, plan: AddressPlan | None) -> None:
    """Kill and unmount everything that a node of this name left on the machine.

    `plan` is None if its record is lost; what is found by name is removed all the same.
    """
    cgroup = Cgroup(system_name)
    cgroup.kill()
    kill_all(processes_in(system_name))
    if plan is not None:
        Network(system_name, plan).remove()
    remove_namespace(system_name)
    sockets = _shim_sockets(run)
    unmount_below(run.root)
    cgroup.remove()
    for socket in sockets:
        socket.unlink(missing_ok=True)
    _remove_log_links(run)
    _remove_cni_results(run)
    _remove_device_plugin_socket()


def node_traces(system_name: str) -> bool:
    """Whether a node of that name left something outside its run directory."""
    groups = any(f.exists() for f in Cgroup(system_name).folders())
    return groups or namespace_exists(system_name)


def remove_folder(run: RunDir) -> None:
    """Delete the run directory; refuses while anything is mounted in it."""
    if left := mounts_below(run.root):
        raise ClusterError(
            f"still mounted: {', '.join(map(str, left[:5]))}",
            action="find who uses it (`fuser -vm`), end that, then run `down` again",
        )
    if run.root.exists():
        shutil.rmtree(run.root)


def mounts_below(root: Path) -> list[Path]:
    """Mount points under a folder, the latest mounted first."""
    prefix = f"{root}/"
    points = [_unescape(line.split()[4]) for line in _MOUNTINFO.read_text().splitlines()]
    return [Path(p) for p in reversed(points) if p.startswith(prefix)]


def unmount_below(root: Path) -> None:
    """Unmount everything under a folder, lazily: a process may still be on its way out."""
    for _ in range(3):  # mounts may be stacked on one point
        points = mounts_below(root)
        if not points:
            return
        for start in range(0, len(points), 200):
            subprocess.run(
                ["umount", "-l", *map(str, points[start : start + 200])],
                check=False,
                capture_output=True,
                env=daemon_environment(),
            )


def _shim_sockets(run: RunDir) -> list[Path]:
    """containerd's shims put their sockets in one folder for all; each bundle names its own."""
    found = []
    for file in (run.root / "containerd/state").glob("io.containerd.runtime.v2.task/*/*/address"):
        with contextlib.suppress(OSError):
            path = Path(file.read_text().strip().removeprefix("unix://"))
            if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
                found.append(path)
    return found


def _remove_log_links(run: RunDir) -> None:
    if not _CONTAINER_LOGS.is_dir():
        return
    for link in _CONTAINER_LOGS.iterdir():
        if link.is_symlink() and link.readlink().is_relative_to(run.root):
            link.unlink(missing_ok=True)


def _remove_cni_results(run: RunDir) -> None:
    """The CNI library keeps a file a pod interface, for all clusters in one folder."""
    ours = str(run.root).encode() + b"/"
    for file in _CNI_RESULTS.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            if ours in file.read_bytes():
                file.unlink()


def _remove_device_plugin_socket() -> None:
    if kubelets():
        return  # of another cluster, ours or not
    (_DEVICE_PLUGINS / "kubelet.sock").unlink(missing_ok=True)
    for folder in (_DEVICE_PLUGINS, _DEVICE_PLUGINS.parent):
        with contextlib.suppress(OSError):  # somebody else has something there
            folder.rmdir()


def _unescape(path: str) -> str:
    """mountinfo writes space, tab, newline and backslash as octal."""
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m.group(1), 8)), path)
