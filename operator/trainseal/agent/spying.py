"""py-spy as a program of its own: the Python stacks of one process, as JSON that nobody trusts yet.

It reads the process's memory (process_vm_readv(2)) and never attaches to it, so that the process
neither stops nor has to run: a frozen one is read as any. What it reads was chosen by that process;
`leastrights` says with which rights it reads.

Reading while the process runs may meet a stack that changes under it. Then it is read again.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from trainseal.agent import leastrights

#: Of py-spy's answer; a frame takes about 250 bytes of it.
MAX_ANSWER = 4 * 1024 * 1024
_MAX_WORDS = 4096
_LONGEST_WORDS = 300
_ATTEMPTS = 2
_PIECE = 64 * 1024


class SpyError(Exception):
    """There are no stacks of a process; the words say why."""


def program() -> Path:
    """Where py-spy is: beside this Python's other programs, as its wheel installs it."""
    return Path(sysconfig.get_path("scripts")) / "py-spy"


def dump(pid: int, seconds: float, spy: Path | None = None) -> bytes:
    """py-spy's JSON on one process. Takes at most so many seconds. Raises SpyError."""
    deadline = time.monotonic() + seconds
    for left in reversed(range(_ATTEMPTS)):
        try:
            return _dump(pid, deadline, seconds, spy or program())
        except SpyError:
            if not left or time.monotonic() >= deadline:
                raise
    raise SpyError("it was not tried")


def _dump(pid: int, deadline: float, seconds: float, spy: Path) -> bytes:
    command = [
        *(sys.executable, "-IS", leastrights.__file__),
        *(str(spy), "dump", "--nonblocking", "--json", "--pid", str(pid)),
    ]
    if not spy.exists():
        raise SpyError(f"found no {spy} in the agent's image, expected py-spy")
    # A variable of ours is nothing that it needs.
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={},
        cwd="/",
    ) as process:
        try:
            answer, words = _read(process, deadline, seconds)
            status = process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise SpyError(_too_long(seconds)) from None
        finally:
            process.kill()
    if status < 0:
        raise SpyError(f"py-spy ended by signal {-status}")
    if status > 0:
        raise SpyError(_first_line(words) or f"py-spy ended with status {status}")
    return answer


def _read(process: subprocess.Popen[bytes], deadline: float, seconds: float) -> tuple[bytes, bytes]:
    """What it says on both streams, each within its bound."""
    if process.stdout is None or process.stderr is None:
        raise SpyError("py-spy has no streams")
    answer, words = process.stdout.fileno(), process.stderr.fileno()
    said = {answer: bytearray(), words: bytearray()}
    poll = select.poll()
    for fd in said:
        poll.register(fd, select.POLLIN)
    open_ones = set(said)
    while open_ones:
        left = deadline - time.monotonic()
        events = poll.poll(left * 1000) if left > 0 else []
        if not events:
            raise SpyError(_too_long(seconds))
        for fd, _ in events:
            piece = os.read(fd, _PIECE)
            if not piece:
                poll.unregister(fd)
                open_ones.discard(fd)
            elif fd == answer and len(said[fd]) + len(piece) > MAX_ANSWER:
                raise SpyError(f"found more than {MAX_ANSWER // 1024**2} MiB of stacks in it")
            elif fd == answer or len(said[fd]) < _MAX_WORDS:
                said[fd] += piece
    return bytes(said[answer]), bytes(said[words])


def _too_long(seconds: float) -> str:
    return f"reading it took more than {seconds:.0f} s"


def _first_line(words: bytes) -> str:
    """What went wrong and its cause; a backtrace of py-spy's own follows them."""
    lines = words.decode(errors="replace").splitlines()
    head = lines[0].removeprefix("Error: ").strip() if lines else ""
    with contextlib.suppress(ValueError, IndexError):
        cause = lines[lines.index("Caused by:") + 1].strip()
        head = f"{head}: {cause.removeprefix('0: ')}"
    return head[:_LONGEST_WORDS]
