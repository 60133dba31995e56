"""What is taken for a finding: the file's bytes, and processes that are still there."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from trainseal.agent.evidencetaking import EvidenceTaker
from trainseal.agent.files import Content
from trainseal.agent.observed import Lineage, Observation, Process, WatchedContainer
from trainseal.agent.processes import Processes
from trainseal.api.findings import FindingId

NOW = datetime(2026, 11, 26, tzinfo=UTC)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a secret in its environment, which waits."""
    script = "import sys; sys.stdout.write('x'); sys.stdout.flush(); sys.stdin.read()"
    environment = {"HF_TOKEN": "hunter2", "PYTHONPATH": "/opt"}
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        yield process
        process.kill()


@pytest.fixture
def processes() -> Processes:
    return Processes()


@pytest.fixture
def taker(processes: Processes) -> EvidenceTaker:
    return EvidenceTaker(processes, lambda: NOW)


def container(pid: int) -> WatchedContainer:
    return WatchedContainer("research", "w-0", "uid", "seal", "trainer", "c" * 64, pid, NOW, (), {})


def seen(path: str | None = None, **changed: Any) -> Observation:
    fields: dict[str, Any] = {"finding": FindingId.FILE_CHANGED, "message": "x", "path": path}
    return Observation(**(fields | changed))


def lineage(processes: Processes, pid: int) -> Lineage:
    process = processes.read(pid)
    assert process is not None
    return Lineage((process,))


def test_bytes_that_were_read_with_the_finding_are_those_that_are_kept(
    taker: EvidenceTaker, tmp_path: Path
) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(b"later")
    found = Content("sha256:" + "0" * 64, 3, 0o644, b"now", steady=True)
    taken = taker.take(seen(str(path), content=found), container(os.getpid()))
    assert (taken.file, taken.content) == ("Kept", found)


def test_a_file_that_was_not_read_yet_is_read_in_the_container(
    taker: EvidenceTaker, tmp_path: Path
) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(b"now")
    tree = seen(str(path), finding=FindingId.TREE_CHANGED)
    taken = taker.take(tree, container(os.getpid()))
    assert taken.content is not None
    assert (taken.file, taken.content.head) == ("Kept", b"now")
    path.unlink()
    assert taker.take(tree, container(os.getpid())).file == "Gone"
    assert taker.take(tree, None).file == "Gone"
    path.mkdir()
    assert taker.take(tree, container(os.getpid())).file == "NotAFile"


def test_a_program_without_a_path_is_read_by_the_kernels_link(
    taker: EvidenceTaker, child: subprocess.Popen[bytes]
) -> None:
    source = f"/proc/{child.pid}/exe"
    taken = taker.take(
        seen("/memfd:x", finding=FindingId.EXEC_MEMORY, source=source), container(os.getpid())
    )
    assert taken.content is not None
    whole = Path(sys.executable).resolve().read_bytes()
    assert taken.content.digest == f"sha256:{hashlib.sha256(whole).hexdigest()}"
    device = seen("/x", finding=FindingId.MAP_FOREIGN, source="/dev/zero")
    assert taker.take(device, None).file == "NotAFile"
    gone = seen("/x", finding=FindingId.MAP_FOREIGN, source=f"/proc/{child.pid}/map_files/0-1")
    assert taker.take(gone, None).file == "Gone"


def test_who_acted_is_taken_with_environment_and_mapped_files(
    taker: EvidenceTaker, processes: Processes, child: subprocess.Popen[bytes]
) -> None:
    who = lineage(processes, child.pid)
    (taken,) = taker.take(seen(lineage=who), None).processes
    assert (taken.acting, taken.ended) == (True, False)
    assert ("HF_TOKEN", "hunter2") in (taken.environment or ())
    assert any("python" in path and "x" in rights for path, rights in (taken.files or {}).items())


def test_who_has_ended_or_is_another_by_now_is_said_to_have_ended(
    taker: EvidenceTaker, processes: Processes, child: subprocess.Popen[bytes]
) -> None:
    (process,) = lineage(processes, child.pid).chain
    another = Lineage((replace(process, started=NOW),))
    (taken,) = taker.take(seen(lineage=another), None).processes
    assert (taken.ended, taken.environment, taken.files) == (True, None, None)
    child.kill()
    child.wait()
    (taken,) = taker.take(seen(lineage=Lineage((process,))), None).processes
    assert (taken.ended, taken.process) == (True, process)


def test_the_other_processes_of_the_container_are_listed_after_who_acted(
    taker: EvidenceTaker,
    processes: Processes,
    child: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = Process(17, 1, NOW, "/usr/bin/python3", ("python3",), 0, "c" * 64)
    acting = lineage(processes, child.pid)

    class Member:
        def __init__(self, process: Process) -> None:
            self.process, self.pid = process, process.pid

    monkeypatch.setattr(
        processes,
        "members",
        lambda watched: {
            c.container_id: [Member(p) for p in (*acting.chain, other)] for c in watched
        },
    )
    found = taker.take(seen(lineage=acting), container(os.getpid())).processes
    assert [(t.process.pid, t.acting) for t in found] == [(child.pid, True), (17, False)]
    assert found[1].environment is None
