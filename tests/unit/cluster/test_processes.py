"""Pidfiles: a process is found again, and never confused with a later one of its number."""

import os
import platform
import sys
import time
from pathlib import Path

from tests.cluster.processes import Process, kill_all, spawn, tail
from tests.stage.waiting import eventually


def start(tmp_path: Path, *argv: str) -> Process:
    return spawn(argv, log=tmp_path / "log", pidfile=tmp_path / "pid.json")


def test_a_spawned_process_is_found_again_by_its_pidfile(tmp_path: Path) -> None:
    process = start(tmp_path, "sleep", "60")
    try:
        found = Process.load(tmp_path / "pid.json")
        assert found == process
        assert found.alive
    finally:
        assert kill_all([process]) == []
    assert not process.alive


def test_a_spawned_process_leads_a_session_of_its_own(tmp_path: Path) -> None:
    process = start(tmp_path, "sleep", "60")
    try:
        assert os.getsid(process.pid) == process.pid
    finally:
        kill_all([process])


def test_a_number_that_belongs_to_a_later_process_is_not_alive() -> None:
    now = Process.running(os.getpid())
    assert now is not None
    stranger = Process(now.pid, now.start_time - 1)
    assert not stranger.alive
    stranger.kill()  # and is not killed either, or this test would end here


def test_children_of_a_killed_process_die_with_it(tmp_path: Path) -> None:
    child_file = tmp_path / "child"
    process = start(tmp_path, "sh", "-c", f"sleep 60 & echo $! > {child_file}; wait")
    deadline = time.monotonic() + 10
    while not (child_file.exists() and child_file.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child = Process.running(int(child_file.read_text()))
    assert child is not None
    assert kill_all([process, child]) == []


def test_a_process_that_ended_is_not_alive(tmp_path: Path) -> None:
    process = start(tmp_path, "sleep", "0.05")
    deadline = time.monotonic() + 10
    while process.alive:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_missing_or_torn_pidfile_is_no_process(tmp_path: Path) -> None:
    assert Process.load(tmp_path / "none") is None
    for text in ("", "{", "[]", '{"pid": 1}', "null"):
        (tmp_path / "torn").write_text(text)
        assert Process.load(tmp_path / "torn") is None


def test_the_output_of_a_process_is_in_its_log(tmp_path: Path) -> None:
    process = start(tmp_path, "sh", "-c", "echo out; echo err >&2; sleep 60")
    deadline = time.monotonic() + 10
    while "err" not in tail(tmp_path / "log"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert "out" in tail(tmp_path / "log")
    kill_all([process])


def test_tail_gives_the_last_lines_only(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("".join(f"line {n}\n" for n in range(100)))
    assert tail(tmp_path / "log", 2).splitlines()[1:] == ["line 98", "line 99"]


def test_a_process_lives_until_its_last_thread_lets_go_of_what_it_holds(tmp_path: Path) -> None:
    """Its first thread is a zombie by then: by exit(2), which unlike exit(3) ends one thread."""
    number = {"x86_64": 60, "aarch64": 93}[platform.machine()]
    script = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        f"ctypes.CDLL(None).syscall({number}, 0)\n"
    )
    process = start(tmp_path, sys.executable, "-c", script)
    try:
        stat = Path(f"/proc/{process.pid}/stat")
        eventually(lambda: ") Z " in stat.read_text(), "the first thread has ended")
        assert process.alive
    finally:
        assert not kill_all([process])
    assert not process.alive
