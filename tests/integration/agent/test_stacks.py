"""Python stacks of real processes in a real container, read by the real py-spy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.agent.sweeplab import Lab, eventually, started
from trainseal.agent import leastrights, spying
from trainseal.agent.freezer import Freezer
from trainseal.agent.processes import Processes
from trainseal.agent.spying import SpyError
from trainseal.agent.stacktaking import StackTaker
from trainseal.api.stackdump import MAX_FRAMES, ProcessStacks, ThreadStack

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root: namespaces"
)
SECRET = "hunter2"
#: Debian's own, whose symbols are stripped.
DEBIAN = "/usr/bin/python3"
_TRAIN = f"""
import os, sys, threading, time
def step(password):
    time.sleep(1000)
def epoch(password):
    step(password)
def pin_memory(password):
    time.sleep(1000)
def deep(n):
    deep(n - 1) if n else time.sleep(1000)
if "nobody" in sys.argv:
    os.setuid(65534)
threading.Thread(target=pin_memory, args=("{SECRET}",), name="pin\\x1b[31m", daemon=True).start()
deep(900) if "deep" in sys.argv else epoch("{SECRET}")
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A container with the script in a mount that its command may not lead to, and does."""
    with started(tmp_path / "layers") as made:
        (tmp_path / "train.py").write_text(_TRAIN)
        made.run(f"cp {tmp_path}/train.py /scratch/train.py")
        yield made


def take(lab: Lab) -> list[ProcessStacks]:
    return list(StackTaker(Processes()).take([lab.watched]).processes)


def trainer(lab: Lab, python: str, word: str = "") -> ProcessStacks:
    """The stacks of a training that was started, once it trains."""
    lab.child(python, "/scratch/train.py", word or "train")
    pid = lab.member(Processes(), word or "train").pid
    return eventually(lambda: training(lab, pid))


def training(lab: Lab, pid: int) -> ProcessStacks | None:
    for process in take(lab):
        names = {f.name for t in process.threads or () for f in t.frames or ()}
        if process.pid == pid and {"pin_memory"} < names and names & {"step", "deep"}:
            return process
    return None


def main_thread(process: ProcessStacks) -> ThreadStack:
    (found,) = [t for t in process.threads or () if t.main]
    return found


@pytest.mark.parametrize("python", [DEBIAN, sys.executable])
def test_the_stacks_of_a_training_name_functions_files_and_lines(lab: Lab, python: str) -> None:
    process = trainer(lab, str(Path(python).resolve()))
    main, other = process.threads or []
    assert main.main
    assert [(f.name, f.file, f.line) for f in main.frames or ()] == [
        ("step", "/scratch/train.py", 4),
        ("epoch", "/scratch/train.py", 6),
        ("<module>", "/scratch/train.py", 14),
    ]
    assert other.name == "pin\x1b[31m"
    assert (other.frames or [])[0].name == "pin_memory"


def test_no_value_is_in_them(lab: Lab) -> None:
    process = trainer(lab, DEBIAN)
    assert SECRET not in process.model_dump_json()
    # It is there to be read, by who asks py-spy for more than we do.
    told = subprocess.run(
        [spying.program(), "dump", "--nonblocking", "--locals", "--pid", str(process.pid)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert SECRET in told.stdout


def test_a_frozen_pod_is_read_as_any_other(lab: Lab) -> None:
    process = trainer(lab, DEBIAN)
    Freezer().freeze(lab.group)
    try:
        frozen = training(lab, process.pid)
        assert Freezer().state(lab.group) == "frozen"
    finally:
        Freezer().thaw(lab.group)
    assert frozen == process


def test_a_process_of_another_user_is_read_with_the_two_capabilities_alone(lab: Lab) -> None:
    process = trainer(lab, DEBIAN, "nobody")
    found = Processes().read(process.pid)
    assert found
    assert found.uid == 65534
    assert main_thread(process).frames


def confined(*command: str) -> str:
    """What a program says that runs as py-spy does."""
    launch = [sys.executable, "-IS", leastrights.__file__, *command]
    return subprocess.run(launch, capture_output=True, text=True, check=True).stdout


def test_what_runs_py_spy_leaves_it_two_capabilities() -> None:
    status = confined("/bin/cat", "/proc/self/status")
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    two = f"{1 << 19 | 1 << 2:016x}"
    assert (lines["CapPrm"], lines["CapEff"], lines["CapInh"]) == (two, two, "0" * 16)
    assert (lines["NoNewPrivs"], lines["Seccomp"]) == ("1", "2")


@pytest.mark.parametrize(
    ("act", "passes"),
    [
        ("os.open(f'/proc/{victim}/maps', os.O_RDONLY)", True),
        ("os.open(f'/proc/{victim}/mem', os.O_RDONLY)", True),
        ("os.open(f'/proc/{victim}/mem', os.O_RDWR)", False),
        ("os.open(f'/proc/{victim}/root/tmp/made', os.O_RDONLY | os.O_CREAT)", False),
        ("os.open(f'/proc/{victim}/root/etc/passwd', os.O_RDONLY | os.O_TRUNC)", False),
        ("os.unlink(f'/proc/{victim}/root/tmp/none')", False),
        ("os.kill(victim, 0)", False),
        ("os.fork()", False),
        ("_socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)", False),
    ],
)
def test_what_took_py_spy_over_could_read_and_do_nothing_else(
    tmp_path: Path, act: str, passes: bool
) -> None:
    script = tmp_path / "act.py"
    script.write_text(
        "import os, sys, _socket\nvictim = int(sys.argv[1])\n"
        f"try:\n    {act}\n    print('passed')\nexcept PermissionError:\n    print('refused')\n"
    )
    victim = subprocess.Popen(["sleep", "1000"])
    try:
        said = confined(str(Path(DEBIAN).resolve()), "-IS", str(script), str(victim.pid))
    finally:
        victim.kill()
        victim.wait()
    assert said == ("passed\n" if passes else "refused\n")


def test_a_deep_recursion_is_cut_at_its_outermost_calls(lab: Lab) -> None:
    main = main_thread(trainer(lab, DEBIAN, "deep"))
    assert len(main.frames or ()) == MAX_FRAMES
    assert main.frames_omitted == 900 + 2 - MAX_FRAMES


def test_what_is_no_python_is_passed_over(lab: Lab) -> None:
    lab.child("sleep", "1001")
    other = lab.member(Processes(), "1001")
    assert other.pid not in [p.pid for p in take(lab)]


def test_what_only_calls_itself_python_says_that_there_are_no_stacks(lab: Lab) -> None:
    lab.run("cp $(command -v sleep) /scratch/python3")
    lab.child("/scratch/python3", "1002")
    other = lab.member(Processes(), "1002")
    (found,) = [p for p in take(lab) if p.pid == other.pid]
    assert found.threads is None
    assert (found.problem or "").startswith("no Python stacks: Failed to find python version")


def _ended() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("script", "seconds", "words"),
    [
        ("while True: os.write(1, bytes(65536))", 20.0, "more than 4 MiB"),
        ("while True: os.write(2, bytes(65536))", 1.0, "took more than 1 s"),
        ("while True: pass", 1.0, "took more than 1 s"),
        ("os.close(1); os.close(2); import silence", 20.0, "ended with status 1"),
        ("os.closerange(1, 3)\nwhile True: pass", 1.0, "took more than 1 s"),
        ("ctypes.string_at(0)", 20.0, "ended by signal 11"),
        ("os.write(2, b'Error: it is broken'); os._exit(1)", 20.0, "it is broken"),
    ],
)
def test_whatever_py_spy_does_it_ends_in_time_and_within_bounds(
    tmp_path: Path, script: str, seconds: float, words: str
) -> None:
    spy = tmp_path / "py-spy"
    spy.write_text(f"#!{DEBIAN} -IS\nimport ctypes, os\n{script}\n")
    spy.chmod(0o755)
    with pytest.raises(SpyError, match=words):
        spying.dump(os.getpid(), seconds, spy)


@pytest.mark.parametrize(
    ("pid", "spy", "words"),
    [
        (_ended, None, "Failed to get process executable name"),
        (os.getpid, Path("/nonexistent/py-spy"), "found no /nonexistent/py-spy"),
    ],
)
def test_why_there_are_no_stacks_is_said(
    pid: Callable[[], int], spy: Path | None, words: str
) -> None:
    with pytest.raises(SpyError, match=words):
        spying.dump(pid(), 5.0, spy)
