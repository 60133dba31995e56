"""Group *Processes*: foreign programs, hands in the trainer's memory, and kills at random."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

from tests.attacks.case import Case, Finding, Missed, NotTried
from tests.attacks.scene import Scene

GROUP = "Processes"

_MEMFD = """
import os, time
fd = os.memfd_create("evil")
with open("/bin/sleep", "rb") as file:
    os.write(fd, file.read())
print(time.time(), flush=True)
os.execv(f"/proc/self/fd/{fd}", ["evil", "120"])
"""

_MEMFD_DATA = """
import os
fd = os.memfd_create("data"); os.write(fd, b"x" * 4096)
import mmap; m = mmap.mmap(fd, 4096); m[:1] = b"y"; time.sleep(1)
"""

_ATTACH = """
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
def trace(what):
    if libc.ptrace(what, 1, None, None) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")
trace(0x4206)
time.sleep({seconds})
"""

_MEMORY = """
import os, time
maps = [line.split() for line in open("/proc/1/maps")]
start = next(int(m[0].split("-")[0], 16) for m in maps if m[-1] == "[heap]")
with open("/proc/1/mem", "r+b", buffering=0) as memory:
    memory.seek(start)
    held = memory.read(8)
    memory.seek(start)
    memory.write(held)
    time.sleep({seconds})
"""

_WRITEV = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
maps = [line.split() for line in open("/proc/1/maps")]
start = next(int(m[0].split("-")[0], 16) for m in maps if m[-1] == "[heap]")
held = ctypes.create_string_buffer(8)
own = Vector(ctypes.addressof(held), 8); other = Vector(start, 8)
for call in (libc.process_vm_readv, libc.process_vm_writev):
    if call(1, ctypes.byref(own), 1, ctypes.byref(other), 1, 0) != 8:
        raise OSError(ctypes.get_errno(), "process_vm")
"""

#: The trainer's data loader: a child of the container's first process.
_CHILD = "$(cat /proc/1/task/1/children | cut -d' ' -f1)"


def _killed_from_the_node(scene: Scene) -> float:
    began = time.time()
    os.kill(scene.first_process(), signal.SIGKILL)
    return began


def _memory_from_the_node(scene: Scene) -> float:
    began = time.time()
    os.close(os.open(f"/proc/{scene.first_process()}/mem", os.O_RDWR))
    return began


@contextlib.contextmanager
def _stopped(scene: Scene) -> Iterator[float]:
    """The data loader stands still meanwhile."""
    began = scene.sh(f"kill -STOP {_CHILD}")
    try:
        yield began
    finally:
        scene.sh(f"kill -CONT {_CHILD}")


def _deleted_by_editor(scene: Scene) -> float:
    began = time.time()
    scene.lab.kubectl("delete", "pod", scene.name, "--wait=false")
    return began


def _evicted(scene: Scene) -> None:
    path = f"/api/v1/namespaces/{scene.namespace}/pods/{scene.name}/eviction"
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": scene.name, "namespace": scene.namespace},
    }
    scene.lab.admin("create", "--raw", path, "-f", "-", stdin=eviction)


def _drained(scene: Scene) -> None:
    """Of this job alone: all that a small cluster has is on the one node."""
    node, job = scene.pod["spec"]["nodeName"], scene.job["metadata"]["name"]
    try:
        scene.lab.admin(
            "drain", node, "--force", "--ignore-daemonsets", "--delete-emptydir-data",
            f"--pod-selector=trainseal.dev/job={job}", "--timeout=120s", seconds=150,
        )  # fmt: skip
    finally:
        scene.lab.admin("uncordon", node)


def _deleted_by_requester(scene: Scene) -> None:
    scene.lab.admin("delete", "pod", scene.name, "-n", scene.namespace, "--wait=false")


CASES = (
    Case(
        GROUP, "dropped program run from scratch", "T1105",
        Finding("exec.foreign", "/tmp/dropped"),
        lambda s: s.sh("cp /bin/true /tmp/dropped; /tmp/dropped"),
        lambda s: s.sh("/bin/true; ls / | wc -l; tar --version"),
        "programs of the image run",
    ),
    Case(
        GROUP, "dropped program run from the root", "T1105",
        Finding("exec.foreign", "/var/tmp/dropped"),
        lambda s: s.sh("cp /bin/true /var/tmp/dropped; /var/tmp/dropped"),
        lambda s: s.sh("cp /bin/true /tmp/kept; chmod +x /tmp/kept; sha256sum /tmp/kept"),
        "a program copied into scratch and never run",
    ),
    Case(
        GROUP, "program run from the file for the last message", "T1105",
        Finding("exec.foreign", "/dev/termination-log"),
        lambda s: s.sh(
            "cd /dev; cp /bin/true termination-log; chmod +x termination-log; ./termination-log;"
            "chmod 666 termination-log; : > termination-log"
        ),
        lambda s: s.sh("echo done > /dev/termination-log; cat /etc/hosts /etc/resolv.conf | wc"),
        "a last message written, the runtime's files read",
    ),
    Case(
        GROUP, "program run from memory (memfd)", "T1620",
        Finding("exec.memory", tells=("memfd:evil",)),
        lambda s: s.held_py(_MEMFD),
        lambda s: s.py(_MEMFD_DATA), "memory shared by memfd as data",
    ),
    Case(
        GROUP, "deleted executable", "T1070.004",
        Finding("exec.deleted", "/var/tmp/gone"),
        lambda s: s.held("cp /bin/sleep /var/tmp/gone; /var/tmp/gone 120 & rm /var/tmp/gone; wait"),
        lambda s: s.sh("echo x > /tmp/f; exec 3< /tmp/f; rm /tmp/f; sleep 1; cat <&3"),
        "an open file deleted",
    ),
    Case(
        GROUP, "ptrace held", "T1055.008",
        Finding("process.traced"),
        lambda s: s.held_py(_ATTACH.format(seconds=120)),
        lambda s: s.sh("cat /proc/1/status /proc/1/stat /proc/1/maps | wc -l"),
        "the trainer's status and maps read",
    ),
    Case(
        GROUP, "ptrace for a moment", "T1055.008",
        Missed(
            "it is over between two sweeps, and seeing the call itself needs eBPF or audit; who "
            "came in, and the command, are on record"
        ),
        lambda s: s.py(_ATTACH.format(seconds=0)),
    ),
    Case(
        GROUP, "/proc/PID/mem held for writing", "T1055.009",
        Finding("process.memory-opened"),
        lambda s: s.held_py(_MEMORY.format(seconds=120)),
        lambda s: s.py("f = open('/proc/self/mem', 'r+b'); time.sleep(1)"),
        "a process's own memory opened",
    ),
    Case(
        GROUP, "/proc/PID/mem written in a moment", "T1055.009",
        Finding("process.memory-opened", tells=("had the memory",)),
        lambda s: s.py(_MEMORY.format(seconds=0)),
        lambda s: s.py(
            "open('/proc/self/mem', 'r+b').close(); open('/proc/1/mem', 'rb').close()\n"
            "open('/proc/self/oom_score_adj', 'w').write('0')\n"
        ),
        "its own opened, the trainer's for reading, another file of /proc written",
    ),
    Case(
        GROUP, "/proc/PID/mem written by root on the node, from outside", "T1055.009",
        Missed("the node's /proc is no file system of the pod's; held over a sweep it is found"),
        _memory_from_the_node,
    ),
    Case(
        GROUP, "process_vm_writev", "T1055",
        Missed("it leaves nothing open; `sys.remote_exec` of Python 3.14 is such a call"),
        lambda s: s.py(_WRITEV),
    ),
    Case(
        GROUP, "entered from the node with nsenter", "T1611",
        Finding("process.unrecorded", by="", tells=("sleep",)),
        lambda s: s.nsenter_held("sleep", "120"),
        lambda s: s.sh("true"), "entered by kubectl exec; the kubelet's probe, all the while",
    ),
    Case(
        GROUP, "nsenter for a moment, with an edit", "T1554",
        Finding("file.changed", "/usr/lib/python3/dist-packages/torch/optim/optimizer.py", by=None),
        lambda s: s.nsenter(
            "sh", "-c",
            "echo '# mallory' >> /usr/lib/python3/dist-packages/torch/optim/optimizer.py",
        ),
    ),
    Case(
        GROUP, "SIGTERM to the trainer by exec", "T1489",
        Finding("pod.killed", tells=("SIGTERM",)),
        lambda s: s.sh("kill -TERM 1"),
        _evicted, "a pod evicted",
        on="killed",
    ),
    Case(
        GROUP, "SIGKILL to the trainer from the node", "T1489",
        Finding("pod.killed", by="", tells=("SIGKILL",)),
        _killed_from_the_node,
        _drained, "its node drained by an administrator, and taken back",
        on="killed",
    ),
    Case(
        GROUP, "SIGKILL from the node to a trainer with a liveness probe", "T1489",
        Missed("the kubelet kills for a probe that fails, and nothing tells the two apart"),
        _killed_from_the_node,
        on="probed",
    ),
    Case(
        GROUP, "kubectl delete pod", "T1489",
        Finding("pod.deleted"),
        _deleted_by_editor, _deleted_by_requester, "the requester deletes a pod of theirs",
        on="killed",
    ),
    Case(
        GROUP, "SIGSTOP to a process of the trainer by exec", "T1489",
        Finding("process.stopped"),
        _stopped,
        lambda s: s.sh("sleep 90 & kill -STOP $!; sleep 30; kill -KILL $!"),
        "a job stopped in the session that began it",
    ),
    Case(
        GROUP, "SIGSTOP for a moment", "T1489",
        Missed("it goes on between two sweeps; who came in, and the command, are on record"),
        lambda s: s.sh(f"kill -STOP {_CHILD}; sleep 1; kill -CONT {_CHILD}"),
    ),
    Case(
        GROUP, "SIGKILL to a process of the trainer by exec", "T1489",
        Missed(
            "the trainer then ends by itself, with an exit code and not by a signal; who came in, "
            "and the command, are on record"
        ),
        lambda s: s.sh(f"kill -KILL {_CHILD}"),
        on="probed",
    ),
    Case(GROUP, "sys.remote_exec", "T1055", NotTried("Python 3.14; see process_vm_writev")),
    Case(GROUP, "foreign process on the GPU", "T1496", NotTried("a GPU")),
)  # fmt: skip
