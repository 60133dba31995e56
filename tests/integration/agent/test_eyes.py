"""Real acts in a real overlay, seen by fanotify: each attack beside its benign twin."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import py_compile
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.integration.agent.minicontainer import (
    ADAM,
    TORCH,
    MiniContainer,
    make_image,
    started,
)
from trainseal.agent import scripts, upperwalk
from trainseal.agent.addedcontainers import is_told
from trainseal.agent.eyes import Eyes
from trainseal.agent.fanotify import Capabilities, probe
from trainseal.agent.mounttable import MountTable
from trainseal.agent.observed import FOUND_BY, LOOKING, Lineage, Observation, Process
from trainseal.agent.processes import Processes
from trainseal.api.findings import FindingId as F

PYC = f"{TORCH}/optim/__pycache__/adam.cpython-311.pyc"
NOTHING = Capabilities(files=False, names=False, safe_open=True)


def who(pid: int) -> Lineage | None:
    """As much of a process as these tests need."""
    return Lineage((Process(pid, 0, datetime(2026, 1, 1, tzinfo=UTC), "/bin/sh", (), 0, None),))


class Watched:
    """A container with eyes on it."""

    def __init__(self, container: MiniContainer, eyes: Eyes) -> None:
        self.container = container
        self.eyes = eyes
        self.at_start = eyes.open()
        self.observations: list[Observation] = []
        self._marks = 0

    def read_for(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Reads as an event loop would."""
        end = time.monotonic() + seconds
        while not until() and (left := end - time.monotonic()) > 0:
            if select.select(self.eyes.filenos(), [], [], left)[0]:
                self.observations += self.eyes.read()

    def after(self, script: str) -> set[tuple[F, str | None]]:
        """What is seen of a script and of a last act, which shows that all was read."""
        self.observations.clear()
        self.container.run(script)
        return self.seen()

    def seen(self) -> set[tuple[F, str | None]]:
        """All that was seen up to now."""
        self._marks += 1
        mark = f"/opt/mark{self._marks}"
        self.container.run(f"echo mark > {mark}; rm {mark}")
        self.read_for(20, lambda: any(o.path == mark for o in self.observations))
        assert any(o.path == mark for o in self.observations), "the queue never ran empty"
        self.observations += self.eyes.read(final=True)
        self.observations = [o for o in self.observations if o.path != mark]
        return {(o.finding, o.path) for o in self.observations}

    def one(self, finding: F) -> Observation:
        """The only one of its kind."""
        (found,) = [o for o in self.observations if o.finding is finding]
        return found


@contextlib.contextmanager
def watch(container: MiniContainer, capabilities: Capabilities | None = None) -> Iterator[Watched]:
    eyes = Eyes(container.watched(), capabilities or probe(), who, node=container.node)
    try:
        yield Watched(container, eyes)
    finally:
        eyes.close()


@pytest.fixture
def watched(tmp_path: Path, image: Path) -> Iterator[Watched]:
    with started(tmp_path, image) as container, watch(container) as found:
        assert found.at_start == []
        yield found


ATTACKS = {
    f"echo '    # x' >> {ADAM}": {(F.FILE_CHANGED, ADAM)},
    f"sed -i s/-lr/lr/ {ADAM}": {(F.FILE_CHANGED, ADAM)},
    f"cat {ADAM} > /scratch/a; echo x >> {ADAM}; cat /scratch/a > {ADAM}": {(F.FILE_CHANGED, ADAM)},
    f"rm {ADAM}": {(F.FILE_REMOVED, ADAM)},
    f"mv {ADAM} /opt/x": {(F.FILE_REMOVED, ADAM)},
    f"chmod 666 {ADAM}": {(F.FILE_ATTRIBUTES, ADAM)},
    f"touch {ADAM}": {(F.FILE_ATTRIBUTES, ADAM)},
    f"echo x > {TORCH}/evil.py": {(F.IMPORT_CHANGED, f"{TORCH}/evil.py")},
    "echo x > /usr/lib/python3/dist-packages/a.pth": {
        (F.IMPORT_CHANGED, "/usr/lib/python3/dist-packages/a.pth")
    },
    "echo x > /opt/sitecustomize.py; rm /opt/sitecustomize.py": {
        (F.IMPORT_CHANGED, "/opt/sitecustomize.py")
    },
    f"mkdir -p {TORCH}/a/b; echo x > {TORCH}/a/b/c.py": {(F.IMPORT_CHANGED, f"{TORCH}/a/b/c.py")},
    "touch /etc/ld.so.preload": {(F.IMPORT_CHANGED, "/etc/ld.so.preload")},
    "echo x > /etc/nccl.conf": {(F.IMPORT_CHANGED, "/etc/nccl.conf")},
    "ln -s /scratch/evil.so /usr/lib/libnccl-net.so": {
        (F.IMPORT_CHANGED, "/usr/lib/libnccl-net.so")
    },
    "echo x > /opt/new.txt": {(F.FILE_CREATED, "/opt/new.txt")},
    f"ln /etc/passwd {TORCH}/p.py": {(F.FILE_RENAMED, f"{TORCH}/p.py")},
    f"ln {ADAM} /opt/x; echo x >> /opt/x": {(F.FILE_CHANGED, ADAM), (F.FILE_CREATED, "/opt/x")},
    f"ln {ADAM} /opt/x; echo x >> /opt/x; rm /opt/x": {(F.FILE_CHANGED, ADAM)},
    f"rm -r {TORCH}/optim": {
        (F.FILE_REMOVED, ADAM),
        (F.FILE_REMOVED, f"{TORCH}/optim"),
    },
    "cp /bin/true /scratch/t; /scratch/t": {(F.EXEC_FOREIGN, "/scratch/t")},
    "cp /bin/true /checkpoints/t; /checkpoints/t": {(F.EXEC_FOREIGN, "/checkpoints/t")},
    "cp /bin/true /dev/t; /dev/t": {(F.EXEC_FOREIGN, "/dev/t")},
    "cp /bin/true /dev/termination-log; chmod +x /dev/termination-log; /dev/termination-log": {
        (F.EXEC_FOREIGN, "/dev/termination-log")
    },
    "cp /bin/true /opt/t; /opt/t": {(F.EXEC_FOREIGN, "/opt/t"), (F.FILE_CREATED, "/opt/t")},
    "echo x >> /workspace/train.py": {(F.FILE_CHANGED, "/workspace/train.py")},
    "echo x > /workspace/lib/torch.py": {(F.IMPORT_CHANGED, "/workspace/lib/torch.py")},
    "rm /workspace/lib/helpers.py": {(F.FILE_REMOVED, "/workspace/lib/helpers.py")},
}


@pytest.mark.parametrize("script", ATTACKS)
def test_an_attack_is_seen(watched: Watched, script: str) -> None:
    assert watched.after(script) == ATTACKS[script]


def test_a_file_written_elsewhere_and_renamed_into_the_code_is_seen(watched: Watched) -> None:
    watched.after("echo x > /opt/x")
    assert watched.after(f"mv /opt/x {TORCH}/x.py") == {(F.FILE_RENAMED, f"{TORCH}/x.py")}


@pytest.mark.parametrize(
    "script",
    [
        "echo x > /scratch/a.py; mkdir /scratch/d; mv /scratch/a.py /scratch/d/; rm -r /scratch/d",
        "for i in 1 2 3; do echo $i > /checkpoints/new; mv /checkpoints/new /checkpoints/c; done",
        "echo x > /dev/shm-like; rm /dev/shm-like",
        "echo x > /dev/termination-log; cat /dev/termination-log > /scratch/log; /usr/bin/driver",
        f"cat {ADAM} /workspace/train.py > /scratch/copy; true",
        f"exec 3<>{ADAM}; exec 3>&-",
        "echo x > /scratch/a; ln /scratch/a /scratch/b; echo y >> /scratch/b",
        f"ln {ADAM} /opt/x; cat /opt/x > /scratch/copy; exec 3<>/opt/x; exec 3>&-; rm /opt/x",
    ],
)
def test_ordinary_work_is_silent(watched: Watched, script: str) -> None:
    assert watched.after(script) == set()


def test_a_change_carries_both_digests_the_difference_and_who_did_it(watched: Watched) -> None:
    watched.after(f"sed -i s/-lr/lr/ {ADAM}")
    found = watched.one(F.FILE_CHANGED)
    assert found.evidence["digest"].startswith("sha256:")
    assert found.evidence["digest"] != found.evidence["signed digest"]
    assert found.difference is not None
    assert "-    return -lr\n+    return lr" in found.difference
    assert found.lineage is not None


def test_an_event_tells_when_it_was_done_and_a_walk_since_when_it_can_have_been(
    watched: Watched,
) -> None:
    watched.seen()
    before = datetime.now(UTC)
    watched.after(f"echo x >> {ADAM}")
    told = watched.one(F.FILE_CHANGED).not_before
    assert told is not None
    assert told >= before
    watched.observations.clear()
    done = datetime.now(UTC)
    (watched.container.upper / "etc").mkdir(exist_ok=True)
    (watched.container.upper / "etc/ld.so.preload").write_text("/tmp/evil.so\n")
    watched.read_for(15, lambda: bool(watched.observations))
    found = watched.one(F.IMPORT_CHANGED)
    assert found.evidence[FOUND_BY] == LOOKING
    assert found.not_before is not None
    assert found.not_before <= done


def test_what_waited_in_a_full_queue_was_done_before_it_was_read(watched: Watched) -> None:
    def flood() -> None:
        Path("/opt/flood").mkdir()
        with Path(ADAM).open("a") as file:
            file.write("# x\n")
        for n in range(8_000):
            Path(f"/opt/flood/{n}").write_text("x")

    watched.container.python(flood)
    time.sleep(1)  # nobody reads
    done = datetime.now(UTC)
    watched.seen()
    by_path = {o.path: o for o in watched.observations}
    last = by_path[f"/opt/flood/{7_999}"].not_before
    assert last is not None
    assert last <= done + timedelta(seconds=0.5), "it was read seconds later"


def test_a_change_through_a_hard_link_is_of_the_signed_file_and_says_so(watched: Watched) -> None:
    watched.container.run(f"mkdir -p /opt/cache; ln {ADAM} /opt/cache/x")
    watched.after("echo '# evil' >> /opt/cache/x")
    found = watched.one(F.FILE_CHANGED)
    assert (found.path, found.evidence["written as"]) == (ADAM, "/opt/cache/x")
    assert "through a hard link" in found.message
    assert found.lineage is not None
    assert found.difference is not None
    assert found.difference.endswith("+# evil")


def test_what_is_seen_of_a_file_comes_with_the_bytes_that_its_digest_is_of(
    watched: Watched,
) -> None:
    watched.after(f"echo '# mallory' >> {ADAM}; cp /bin/true /scratch/t; /scratch/t")
    for finding, ending in ((F.FILE_CHANGED, b"# mallory\n"), (F.EXEC_FOREIGN, b"")):
        found = watched.one(finding)
        assert found.content is not None
        assert found.content.head.endswith(ending)
        assert found.content.digest == found.evidence["digest"]


def test_a_process_that_has_ended_is_named_from_its_execution(tmp_path: Path, image: Path) -> None:
    living: set[int] = set()

    def seen_once(pid: int) -> Lineage | None:
        found = None if pid in living else who(pid)
        living.add(pid)
        return found

    with started(tmp_path, image) as container:
        eyes = Eyes(container.watched(), probe(), seen_once, node=container.node)
        with contextlib.closing(eyes):
            watched = Watched(container, eyes)
            fifo = f"/proc/{container.pid}/root/scratch/go"
            os.mkfifo(fifo)
            script = f"cd /; read go < /scratch/go; echo x >> {ADAM}"
            enter = [
                "nsenter",
                f"--target={container.pid}",
                "--mount",
                "--root",
                "sh",
                "-c",
                script,
            ]
            with subprocess.Popen(enter), Path(fifo).open("w") as file:  # open: it runs
                watched.read_for(0.2)
                file.write("go\n")
            watched.read_for(10, lambda: bool(watched.observations))
        assert watched.one(F.FILE_CHANGED).lineage is not None


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("sh /scratch/x.sh", {(F.EXEC_FOREIGN, "/scratch/x.sh")}),
        ("cd /checkpoints; sh -e ./y.sh", {(F.EXEC_FOREIGN, "/checkpoints/y.sh")}),
        ("sh -c 'cat /scratch/x.sh; sleep 0.1' /scratch/x.sh", set()),
        ("cat /scratch/x.sh | sh -s /scratch/x.sh", set()),
        ("sh < /scratch/x.sh", set()),
    ],
)
def test_a_program_that_an_interpreter_reads_is_seen_when_it_starts(
    tmp_path: Path, image: Path, script: str, found: set[tuple[F, str]]
) -> None:
    with started(tmp_path, image) as container:
        processes = Processes()

        def acting(pid: int) -> Lineage | None:
            process = processes.read(pid)
            return None if process is None else Lineage((process,))

        eyes = Eyes(container.watched(), probe(), acting, node=container.node)
        try:
            watched = Watched(container, eyes)
            container.run("for f in /scratch/x.sh /checkpoints/y.sh; do echo sleep 0.1 > $f; done")
            watched.seen()
            watched.observations.clear()
            running = subprocess.Popen(container.entering("sh", "-c", script))
            watched.read_for(20, lambda: running.poll() is not None)
            assert running.wait() == 0
            assert watched.seen() == found
            if found:
                assert watched.one(F.EXEC_FOREIGN).evidence["digest"].startswith("sha256:")
        finally:
            eyes.close()


def test_interpreters_beyond_what_is_looked_at_side_by_side_are_said(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "sh -c true"
    assert watched.after(script) == set()
    monkeypatch.setattr(scripts, "MOST", 0)
    assert watched.after(script) == {(F.WATCH_BLIND, None)}


def test_an_editors_intermediate_file_is_not_told(tmp_path: Path, image: Path) -> None:
    with started(tmp_path, image) as container:
        # No time passes: the file is still put off when it gets its name.
        eyes = Eyes(container.watched(), probe(), who, node=container.node, monotonic=lambda: 0.0)
        with contextlib.closing(eyes):
            assert eyes.open() == []
            container.run(f"echo new > {TORCH}/optim/sedAbC")
            assert eyes.read() == []
            container.run(f"mv {TORCH}/optim/sedAbC {ADAM}")
            assert {(o.finding, o.path) for o in eyes.read()} == {(F.FILE_CHANGED, ADAM)}
            assert eyes.read(final=True) == []


def test_nothing_is_put_off_at_the_end(watched: Watched) -> None:
    watched.container.run("echo x > /opt/last")
    assert [o.path for o in watched.eyes.read(final=True)] == ["/opt/last"]


def test_a_write_through_a_long_held_descriptor_is_seen_at_once(watched: Watched) -> None:
    fd = os.open(f"/proc/{watched.container.pid}/root{ADAM}", os.O_WRONLY | os.O_APPEND)
    try:
        assert watched.seen() == set()
        os.write(fd, b"x")
        # Our own process is not reported; a child's write through the same descriptor is.
        child = os.fork()
        if child == 0:
            os.write(fd, b"y")
            os._exit(0)
        os.waitpid(child, 0)
        assert watched.seen() == {(F.FILE_CHANGED, ADAM)}
    finally:
        os.close(fd)


def test_a_change_through_a_shared_mapping_is_seen_when_the_file_is_closed(
    watched: Watched,
) -> None:
    def change() -> None:
        fd = os.open(ADAM, os.O_RDWR)
        with mmap.mmap(fd, 0) as memory:
            memory[0:1] = b"D"
        os.close(fd)

    watched.container.python(change)
    assert watched.seen() == {(F.FILE_CHANGED, ADAM)}
    assert watched.one(F.FILE_CHANGED).message.endswith("was changed")


def test_byte_code_that_python_writes_is_only_mentioned(watched: Watched) -> None:
    watched.container.python(lambda: py_compile.compile(ADAM, cfile=PYC, doraise=True))
    watched.seen()
    found = watched.one(F.BYTECODE_WRITTEN)
    assert found.path == PYC
    assert found.evidence["comparison"] == "the header and the code match the source"
    assert [o.path for o in watched.observations] == [PYC]


def test_byte_code_of_the_image_that_was_written_anew_is_found_as_such_and_not_by_its_time(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    image = make_image(tmp_path_factory.mktemp("compiled"))
    source, cache = (image / path.lstrip("/") for path in (ADAM, PYC))
    py_compile.compile(str(source), cfile=str(cache), dfile=ADAM, doraise=True)
    with started(tmp_path, image) as container:
        container.python(lambda: py_compile.compile(ADAM, cfile=PYC, doraise=True))
        with watch(container) as found:
            found.read_for(10, lambda: bool(found.observations))
            seen = [(o.finding, o.path) for o in (*found.at_start, *found.observations)]
            assert seen == [(F.BYTECODE_WRITTEN, PYC)]
            assert found.one(F.BYTECODE_WRITTEN).evidence[FOUND_BY] == LOOKING


def test_poisoned_byte_code_with_a_matching_header_is_seen(watched: Watched) -> None:
    def poison() -> None:
        py_compile.compile(ADAM, cfile=PYC, doraise=True)
        good = Path(PYC).read_bytes()
        evil = "/scratch/evil.py"
        Path(evil).write_text("def step(lr):\n    return +lr\n")
        py_compile.compile(evil, cfile="/scratch/evil.pyc", doraise=True)
        Path(PYC).write_bytes(good[:16] + Path("/scratch/evil.pyc").read_bytes()[16:])

    watched.container.python(poison)
    assert (F.BYTECODE_MISMATCH, PYC) in watched.seen()


def test_a_write_through_a_bind_mount_of_ones_own_is_seen_under_its_real_name(
    watched: Watched,
) -> None:
    def write_through_a_view() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        root = os.open(f"/proc/{watched.container.pid}/root", os.O_RDONLY)
        mounts = os.open(f"/proc/{watched.container.pid}/ns/mnt", os.O_RDONLY)
        assert libc.setns(mounts, 0) == 0
        os.fchdir(root)
        os.chroot(".")
        assert libc.unshare(0x00020000) == 0  # CLONE_NEWNS
        assert libc.mount(None, b"/", None, 0x4000 | 0x40000, None) == 0  # MS_REC | MS_PRIVATE
        assert libc.mount(TORCH.encode(), b"/scratch", None, 0x1000, None) == 0  # MS_BIND
        with Path("/scratch/optim/adam.py").open("a") as file:
            file.write("x")

    watched.container.python(write_through_a_view, enter=False)
    assert watched.seen() == {(F.FILE_CHANGED, ADAM)}


def mounted(container: MiniContainer, source: str, target: str, *, again: bool = False) -> None:
    """Root on the node binds a file or directory over another, and ``again`` takes it away."""

    def mount() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.setns(os.open(f"/proc/{container.pid}/ns/mnt", os.O_RDONLY), 0) == 0
        assert libc.mount(source.encode(), target.encode(), None, 0x1000, None) == 0  # MS_BIND
        assert not again or libc.umount2(target.encode(), 0) == 0

    container.python(mount, enter=False)


@pytest.mark.parametrize("target", [ADAM, TORCH, "/workspace/train.py", "/workspace", "/usr/bin"])
def test_a_mount_over_signed_code_is_found_at_once(watched: Watched, target: str) -> None:
    is_file = target.endswith(".py")
    watched.container.run("mkdir /scratch/evil; echo 'lr = 0' > /scratch/evil/adam.py")
    mounted(watched.container, "/scratch/evil/adam.py" if is_file else "/scratch/evil", target)
    watched.read_for(5, lambda: bool(watched.observations))
    found = watched.one(F.FILE_RENAMED)
    assert (found.path, "mounted over" in found.message) == (target, True)
    assert found.lineage is None
    assert FOUND_BY in found.evidence
    if target == ADAM:
        assert found.content is not None
        assert found.content.head == b"lr = 0\n"


def test_mounts_where_nothing_is_signed_are_silent(watched: Watched) -> None:
    watched.container.run("mkdir /scratch/a /scratch/b /opt/empty; echo x > /scratch/a/x.py")
    for target in ("/scratch/b", "/checkpoints", "/opt/empty", "/dev/termination-log"):
        source = "/scratch/a/x.py" if target.startswith("/dev") else "/scratch/a"
        mounted(watched.container, source, target)
        mounted(watched.container, source, target, again=True)
    assert watched.seen() == set()


def test_where_the_table_of_mounts_cannot_be_watched_that_is_said(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "pidfd_open", refused)
    with started(tmp_path, image) as container, watch(container) as found:
        assert [o.message for o in found.at_start] == [
            "what is mounted later is not seen: Operation not permitted"
        ]
        assert found.after(f"echo x >> {ADAM}") == {(F.FILE_CHANGED, ADAM)}


def test_a_table_of_mounts_that_cannot_be_read_costs_no_event(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_long(_: object) -> None:
        raise OSError("no line of mountinfo: …")

    monkeypatch.setattr(MountTable, "news", too_long)
    found = watched.after(f"echo x >> {ADAM}")
    assert (F.FILE_CHANGED, ADAM) in found
    said = [o.message for o in watched.observations if o.finding is F.WATCH_BLIND]
    assert "what is mounted later is not seen: no line of mountinfo: …" in said


def test_a_container_that_has_ended_keeps_none_of_its_mounts(watched: Watched) -> None:
    def tables() -> list[str]:
        found = []
        for fd in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(str(fd.readlink()))
        return [link for link in found if f"/{watched.container.pid}/mountinfo" in link]

    assert len(tables()) == 2
    watched.container.end()
    watched.read_for(5, lambda: not tables())
    assert tables() == []


def test_what_was_written_before_the_marks_is_found_by_the_walk(
    tmp_path: Path, image: Path
) -> None:
    with started(tmp_path, image) as container:
        container.run(f"echo x >> {ADAM}; rm /opt/notes.txt; echo x > /etc/ld.so.preload")
        container.run(f"touch {TORCH}/__init__.py; rm -r {TORCH}/lib; mkdir {TORCH}/lib")
        with watch(container) as found:
            assert {(o.finding, o.path) for o in found.at_start} == {
                (F.FILE_CHANGED, ADAM),
                (F.FILE_REMOVED, "/opt/notes.txt"),
                (F.IMPORT_CHANGED, "/etc/ld.so.preload"),
                (F.FILE_ATTRIBUTES, f"{TORCH}/__init__.py"),
                (F.FILE_REMOVED, f"{TORCH}/lib"),
            }
            assert {o.not_before for o in found.at_start} == {container.started}


class Slow(Eyes):
    """Something is done while it sets its marks."""

    def meanwhile(self) -> None:
        """To be set."""

    def _mark_names(self) -> Iterator[Observation]:
        yield from super()._mark_names()
        self.meanwhile()


@contextlib.contextmanager
def slowly(container: MiniContainer, script: str, capabilities: Capabilities) -> Iterator[Watched]:
    eyes = Slow(container.watched(), capabilities, who, node=container.node)
    eyes.meanwhile = lambda: container.run(script)  # type: ignore[method-assign]
    try:
        yield Watched(container, eyes)
    finally:
        eyes.close()


def test_what_is_done_while_the_marks_are_set_is_told_once_and_of_whom(
    tmp_path: Path, image: Path
) -> None:
    pth = "/usr/lib/python3/dist-packages/a.pth"
    script = f"echo x >> {ADAM}; echo x > {pth}; rm /opt/notes.txt"
    with started(tmp_path, image) as container, slowly(container, script, probe()) as found:
        assert found.at_start == []
        opened = datetime.now(UTC)
        found.read_for(5)
        seen = [(o.finding, o.path) for o in found.observations]
        assert sorted(seen) == [
            (F.FILE_CHANGED, ADAM),
            (F.FILE_REMOVED, "/opt/notes.txt"),
            (F.IMPORT_CHANGED, pth),
        ]
        assert found.one(F.FILE_CHANGED).lineage is not None
        assert found.one(F.IMPORT_CHANGED).lineage is not None
        since = found.one(F.FILE_CHANGED).not_before
        assert since is not None
        assert since <= opened


def test_what_is_done_meanwhile_is_found_by_the_next_walk_where_no_event_tells(
    tmp_path: Path, image: Path
) -> None:
    script = f"echo x >> {ADAM}"
    with started(tmp_path, image) as container, slowly(container, script, NOTHING) as found:
        found.read_for(10, lambda: bool(found.observations))
        assert {(o.finding, o.path) for o in found.observations} == {(F.FILE_CHANGED, ADAM)}


def test_what_a_runtime_leaves_is_silent(tmp_path: Path, image: Path) -> None:
    hook = (
        "ln -s /proc/mounts etc/mtab; printf glibc-ld.so.cache1.1 > etc/ld.so.cache; "
        "mkdir -p run/lock var/empty; touch .dockerenv"
    )
    with started(tmp_path, image, hook) as container, watch(container) as found:
        assert found.at_start == []


def test_a_write_straight_into_the_upper_layer_is_found_by_walking(watched: Watched) -> None:
    target = watched.container.upper / "usr/lib/python3/dist-packages/evil.pth"
    target.parent.mkdir(parents=True)
    target.write_text("import os\n")
    path = "/usr/lib/python3/dist-packages/evil.pth"
    watched.read_for(15, lambda: any(o.path == path for o in watched.observations))
    assert {(o.finding, o.path) for o in watched.observations} == {(F.IMPORT_CHANGED, path)}


def test_a_cache_of_many_files_keeps_no_change_elsewhere_from_being_found(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upperwalk, "_AT_ONCE", 500)
    with started(tmp_path, image) as container:
        cache = container.upper / "opt/cache"
        for number in range(5_000):
            folder = cache / str(number // 100)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / str(number)).touch()
        with watch(container) as found:
            assert 0 < len(found.at_start) < 1_000
            found.read_for(3)  # the second walk, and a third begins
            target = container.upper / ADAM.lstrip("/")
            target.parent.mkdir(parents=True)
            target.write_text("lr = 0\n")
            found.read_for(60, lambda: any(o.path == ADAM for o in found.observations))
            assert found.one(F.FILE_CHANGED).path == ADAM
            assert len({o.path for o in (*found.at_start, *found.observations)}) < 5_000


def test_what_the_container_does_not_see_yet_of_the_upper_layer_is_found(watched: Watched) -> None:
    # The overlay has looked the name up, and goes on showing the image's file.
    watched.container.run(f"cat {ADAM}")
    target = watched.container.upper / ADAM.lstrip("/")
    target.parent.mkdir(parents=True)
    target.write_text("lr = 0\n")
    watched.read_for(15, lambda: any(o.path == ADAM for o in watched.observations))
    found = watched.one(F.FILE_CHANGED)
    assert found.path == ADAM
    assert found.evidence[FOUND_BY] == LOOKING


def test_without_fanotify_the_walk_still_finds(tmp_path: Path, image: Path) -> None:
    with started(tmp_path, image) as container, watch(container, NOTHING) as found:
        container.run(f"echo x >> {ADAM}")
        found.read_for(10, lambda: bool(found.observations))
        assert {(o.finding, o.path) for o in found.observations} == {(F.FILE_CHANGED, ADAM)}


def test_a_link_out_of_the_container_is_never_followed(watched: Watched, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the node")
    watched.after(f"ln -s {secret} {TORCH}/secret.py")
    found = watched.one(F.IMPORT_CHANGED)
    assert found.evidence["link to"] == str(secret)
    assert found.difference is None
    assert "sha256" not in found.evidence["digest"]


def test_one_bad_write_in_a_flood_is_found(watched: Watched) -> None:
    def flood() -> None:
        Path("/opt/flood").mkdir()
        for n in range(20_000):
            with Path(f"/opt/flood/{n % 50}").open("w") as file:
                file.write("x")
            if n == 10_000:
                with Path(ADAM).open("a") as file:
                    file.write("# x\n")

    watched.container.python(flood)
    assert (F.FILE_CHANGED, ADAM) in watched.seen()


def test_lost_events_are_said_and_everything_is_compared_again(watched: Watched) -> None:
    def flood() -> None:
        Path("/opt/flood").mkdir()
        for n in range(20_000):
            Path(f"/opt/flood/{n}").write_text("x")
        with Path(ADAM).open("a") as file:
            file.write("# x\n")

    watched.container.python(flood)
    watched.read_for(30, lambda: any(o.path == ADAM for o in watched.observations))
    seen = {(o.finding, o.path) for o in watched.observations}
    assert (F.WATCH_OVERFLOW, None) in seen
    assert (F.FILE_CHANGED, ADAM) in seen
    assert watched.eyes.must_walk


def test_an_ignored_file_costs_nothing_and_its_neighbour_is_seen(watched: Watched) -> None:
    watched.after("echo x > /opt/train.log")
    watched.eyes.ignore("/opt/train.log")
    script = "echo x >> /opt/train.log; echo y >> /opt/other.log; echo z >> /opt/train.log"
    assert watched.after(script) == {(F.FILE_CREATED, "/opt/other.log")}


def test_of_a_container_that_a_platform_added_only_the_run_s_files_are_told(
    tmp_path: Path, image: Path
) -> None:
    """It writes and runs programs of its own all the time, and is signed by nobody."""
    own = (
        "echo x > /opt/new.txt; cp /bin/true /opt/t; /opt/t; cp /bin/true /scratch/t; /scratch/t; "
        f"sed -i s/-lr/lr/ {ADAM}; echo x > {TORCH}/more.py; cp /bin/true /dev/t; /dev/t"
    )
    with started(tmp_path, image) as container:
        container.run(own)
        added = replace(container.watched(), container="mesh-proxy", added=True)
        eyes = Eyes(added, probe(), who, node=container.node)
        with contextlib.closing(eyes):
            seen = [*eyes.open()]
            container.run(own)
            container.run("echo x >> /workspace/train.py")
            end = time.monotonic() + 20
            while not any(o.path == "/workspace/train.py" for o in seen):
                assert time.monotonic() < end, "the write to signed code was not seen"
                if select.select(eyes.filenos(), [], [], 1)[0]:
                    seen += eyes.read()
            seen += eyes.read(final=True)
            assert eyes.lacking == ()
    assert {(o.finding, o.path) for o in seen if is_told(added, o)} == {
        (F.FILE_CHANGED, "/workspace/train.py")
    }
