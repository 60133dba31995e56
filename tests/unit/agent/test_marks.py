"""Which marks a container gets."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.agent.test_judge import CONTAINER
from trainseal.agent.fanotify import MARK_FILESYSTEM, MARK_MOUNT, OPEN_EXEC
from trainseal.agent.marks import WRITES, file_marks
from trainseal.agent.mounts import parse

MOUNTS = parse("""\
900 800 0:44 / / rw - overlay overlay rw,lowerdir=/1,upperdir=/2
901 900 0:46 / /proc rw,nosuid - proc proc rw
902 900 0:47 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k
903 902 0:48 / /dev/pts rw - devpts devpts rw
904 902 8:1 /pods/u/containers/t/1 /dev/termination-log rw - ext4 /dev/sda1 rw
910 901 0:52 / /proc/cpuinfo rw - fuse.lxcfs lxcfs rw
911 901 0:47 /null /proc/kcore rw - tmpfs tmpfs rw
905 900 8:1 /pods/u/etc-hosts /etc/hosts rw - ext4 /dev/sda1 rw
906 900 8:1 /sandboxes/1/hostname /etc/hostname ro - ext4 /dev/sda1 rw
907 900 8:1 /usr/bin/nvidia-smi /usr/bin/nvidia-smi ro,nosuid - ext4 /dev/sda1 rw
908 900 0:50 / /workspace ro - tmpfs tmpfs rw,size=64k
909 900 8:1 /pods/u/scratch-0 /tmp rw - ext4 /dev/sda1 rw
""")


def test_executions_are_seen_in_every_mount_that_programs_may_be_put_into() -> None:
    mounts = tuple(m for m in CONTAINER.mounts if m.path in ("/workspace", "/tmp"))
    marks = {
        m.path: (m.kind, m.mask) for m in file_marks(replace(CONTAINER, mounts=mounts), MOUNTS)
    }
    assert marks == {
        "/": (MARK_FILESYSTEM, WRITES | OPEN_EXEC),
        "/workspace": (MARK_FILESYSTEM, WRITES | OPEN_EXEC),
        "/tmp": (MARK_MOUNT, OPEN_EXEC),
        "/dev": (MARK_MOUNT, OPEN_EXEC),
        "/dev/termination-log": (MARK_MOUNT, OPEN_EXEC),
        "/etc/hosts": (MARK_MOUNT, OPEN_EXEC),
    }
