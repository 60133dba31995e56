"""What the kernel writes below /proc/PID, read as values."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainseal.agent import procfiles
from trainseal.agent.procfiles import ProcFileError, parse_stat, parse_status

ID, OTHER = "a1" * 32, "b2" * 32
UID = "0f7a1c52-1111-4222-8333-000000000001"
UNDERSCORED = UID.replace("-", "_")
NUMBERS = (
    "4194560 1 2 3 4 5 6 7 8 20 0 1 0 7777 10 20 30 100 200 300 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 "
    "400 500 600 700 800 900 1000 0"
)


def _stat(name: bytes, flags: int = 4194560) -> bytes:
    return b"42 (%b) S 7 42 41 0 -1 %d %b\n" % (name, flags, NUMBERS.encode().partition(b" ")[2])


@given(st.binary(min_size=0, max_size=15).filter(lambda b: b"\0" not in b))
def test_no_name_of_a_process_changes_what_its_stat_says(name: bytes) -> None:
    stat = parse_stat(_stat(name))
    assert (stat.pid, stat.parent, stat.session, stat.ticks) == (42, 7, 41, 7777)
    assert stat.name == os.fsdecode(name)


def test_a_name_that_looks_like_the_rest_of_the_line_is_a_name() -> None:
    stat = parse_stat(_stat(b"x) R 1 1 1"))
    assert (stat.parent, stat.state) == (7, "S")


def test_the_same_process_with_another_image_is_another_reading() -> None:
    one = parse_stat(_stat(b"sh"))
    assert one.same_image(parse_stat(_stat(b"sh").replace(b"S 7", b"R 1")))
    assert not one.same_image(parse_stat(_stat(b"sleep")))
    assert not one.same_image(parse_stat(_stat(b"sh").replace(b" 700 ", b" 701 ")))


def test_what_ended_and_is_not_yet_waited_for_is_what_it_was_until_then() -> None:
    alive = parse_stat(_stat(b"sh"))
    zombie = parse_stat(_stat(b"sh").replace(b"S 7", b"Z 7").replace(b" 700 ", b" 0 "))
    assert not zombie.same_image(alive)
    assert zombie.ended_as(alive)
    assert not alive.ended_as(alive)
    # It had become another program, which nobody looked at.
    assert not parse_stat(_stat(b"sed").replace(b"S 7", b"Z 7")).ended_as(alive)


def test_a_kernel_thread_is_known_by_its_flag() -> None:
    assert parse_stat(_stat(b"kworker", 0x00200040)).kernel
    assert not parse_stat(_stat(b"kworker")).kernel


@given(st.binary(max_size=300))
def test_whatever_else_stands_there_is_an_error_and_nothing_worse(data: bytes) -> None:
    for parse in (parse_stat, parse_status):
        try:
            parse(data)
        except ProcFileError:
            continue
    list(procfiles.mappings(data))
    list(procfiles.variables(data))
    procfiles.words(data)
    procfiles.containers(data.decode(errors="replace"))


def test_this_very_process_is_read() -> None:
    stat = parse_stat(Path("/proc/self/stat").read_bytes())
    assert (stat.pid, stat.parent, stat.session) == (os.getpid(), os.getppid(), os.getsid(0))
    status = parse_status(Path("/proc/self/status").read_bytes())
    assert (status.uid, status.tracer) == (os.geteuid(), 0)
    assert os.getpid() in status.pids


@pytest.mark.parametrize(
    "text",
    [
        f"0::/kubepods.slice/kubepods-burstable-pod{UNDERSCORED}.slice/cri-containerd-{ID}.scope",
        f"0::/kubepods/burstable/pod{UID}/{ID}",
        f"0::/../../burstable/pod{UID}/{ID}",
        f"0::/../cri-containerd-{ID}.scope",
        f"0::/kubepods/pod{UID}/{ID}/docker/{OTHER}",
        f"0::/kubepods.slice/kubepods-pod{UNDERSCORED}.slice/crio-{ID}.scope/nested",
        f"12:pids:/kubepods/pod{UID}/{ID}\n1:name=systemd:/kubepods/pod{UID}/{ID}\n0::/",
        f"0::/system.slice/containerd.service/kubepods-pod{UNDERSCORED}.slice:cri-containerd:{ID}",
    ],
)
def test_the_container_is_read_from_every_form_of_control_group(text: str) -> None:
    assert procfiles.containers(text) == (ID,)


def test_of_hierarchies_that_disagree_all_are_named() -> None:
    text = f"4:memory:/kubepods/pod{UID}/{OTHER}\n1:name=systemd:/kubepods/pod{UID}/{ID}\n0::/"
    assert procfiles.containers(text) == (ID, OTHER)


@pytest.mark.parametrize(
    "text", ["0::/", "", "0::/user.slice/session-3.scope", f"0::/x{ID}y", "::"]
)
def test_outside_of_containers_there_is_none(text: str) -> None:
    assert procfiles.containers(text) == ()


def test_the_pod_is_read_with_dashes_and_with_underscores() -> None:
    assert procfiles.pod_uid(f"0::/kubepods/burstable/pod{UID}/{ID}") == UID
    assert procfiles.pod_uid(f"0::/a.slice/kubepods-pod{UNDERSCORED}.slice/x.scope") == UID
    assert procfiles.pod_uid("0::/init.scope") is None


MAPS = rb"""55d0-55d1 r--p 00000000 08:01 11   /usr/bin/python3.11
55d1-55d2 r-xp 00001000 08:01 11                   /usr/bin/python3.11
55d2-55d3 rw-p 00002000 08:01 11                   /usr/bin/python3.11
55d3-55d4 rwxp 00000000 00:00 0
55d4-55d5 rw-p 00000000 00:00 0                    [heap]
7f00-7f01 r-xp 00000000 fd:10 12                   /scratch/a b\012c.so (deleted)
7f01-7f02 rw-s 00000000 00:01 13                   /dev/zero (deleted)
7f02-7f03 r--s 00000000 08:01 14                   /usr/lib/gconv.cache
7f03-7f04 --xp 00000000 00:01 15                   /memfd:x (deleted)
ffff-fffff r-xp 00000000 00:00 0                   [vsyscall]
"""


def test_of_mappings_the_executable_and_the_shared_ones_of_files_are_given() -> None:
    found = [(m.path, m.executable, m.writable, m.shared) for m in procfiles.mappings(MAPS)]
    assert found == [
        ("/usr/bin/python3.11", True, False, False),
        ("/scratch/a b\nc.so (deleted)", True, False, False),
        ("/dev/zero (deleted)", False, True, True),
        ("/usr/lib/gconv.cache", False, False, True),
        ("/memfd:x (deleted)", True, False, False),
    ]


def test_a_mapping_names_device_inode_and_span() -> None:
    found = next(iter(procfiles.mappings(MAPS)))
    assert (found.device, found.inode, found.span) == (os.makedev(8, 1), 11, "55d1-55d2")


def test_a_variable_that_is_there_twice_is_given_twice() -> None:
    data = b"A=1\0A=2\0nonsense\0B=\0=C\0"
    assert list(procfiles.variables(data)) == [("A", "1"), ("A", "2"), ("B", ""), ("", "C")]


def test_words_beyond_the_bound_are_left_out() -> None:
    assert procfiles.words(b"a\0b\0c\0", 2) == ("a", "b")
    assert procfiles.words(b"a\0\0") == ("a", "")


def test_each_mapped_file_is_given_once_with_what_any_mapping_of_it_allows() -> None:
    assert procfiles.mapped_files(
        MAPS + b"7f04-7f05 rwxp 00000000 00:00 0   [stack]\nnonsense\n"
    ) == {
        "/usr/bin/python3.11": "rwxp",
        "(anonymous)": "rwxp",
        "/scratch/a b\nc.so (deleted)": "r-xp",
        "/dev/zero (deleted)": "rw-s",
        "/usr/lib/gconv.cache": "r--s",
        "/memfd:x (deleted)": "--xp",
        "[stack]": "rwxp",
    }
