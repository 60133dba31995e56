"""Runs a program with what reading another process's memory takes, and nothing else.

``python -IS leastrights.py PROGRAM ARGUMENT…``: a file of its own that imports no part of ours, so
that it starts in milliseconds. What it runs parses bytes that a hostile process chose. So that has
two of the agent's capabilities, and of the kernel's calls those that read; little memory and the
lowest priority. It is the first that is killed where memory is short, and it ends with the agent.

By exec, user 0 would get every capability of its bounding set again. With ``no_new_privs`` it gets
no more than it had (capabilities(7); ``cap_bprm_creds_from_file`` in Linux' security/commoncap.c).
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys

_CAP_DAC_READ_SEARCH, _CAP_SYS_PTRACE = 2, 19
_KEPT = 1 << _CAP_DAC_READ_SEARCH | 1 << _CAP_SYS_PTRACE
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_CAPABILITY_VERSION = 0x20080522
_MEMORY, _MAPPED = 128 * 1024 * 1024, 2 * 1024 * 1024 * 1024
_FILES = 64
_LOWEST = 19

#: The kernel's names of machines: audit architecture, and the column of `CALLS`.
MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
#: What may be called, with its number on each machine. Neither writes to another process, signals
#: it, or opens a socket; a file can be opened for reading alone.
CALLS: dict[str, tuple[int | None, int | None]] = {
    "access": (21, None),
    "arch_prctl": (158, None),
    "brk": (12, 214),
    "clock_gettime": (228, 113),
    "close": (3, 57),
    "execve": (59, 221),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "faccessat": (269, 48),
    "fcntl": (72, 25),
    "fstat": (5, 80),
    "futex": (202, 98),
    "getcwd": (79, 17),
    "getdents64": (217, 61),
    "getpid": (39, 172),
    "getrandom": (318, 278),
    "gettid": (186, 178),
    "ioctl": (16, 29),
    "lseek": (8, 62),
    "lstat": (6, None),
    "madvise": (28, 233),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "munmap": (11, 215),
    "newfstatat": (262, 79),
    "poll": (7, None),
    "ppoll": (271, 73),
    "pread64": (17, 67),
    "process_vm_readv": (310, 270),
    "read": (0, 63),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "readv": (19, 65),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_getaffinity": (204, 123),
    "sched_yield": (24, 124),
    "set_robust_list": (273, 99),
    "set_tid_address": (218, 96),
    "sigaltstack": (131, 132),
    "stat": (4, None),
    "statx": (332, 291),
    "write": (1, 64),
    "writev": (20, 66),
}
#: Opens a file; and which argument holds its flags.
OPENS: dict[str, tuple[int | None, int | None, int]] = {
    "open": (2, None, 1),
    "openat": (257, 56, 2),
}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_SECCOMP_MODE_FILTER = 2
_REFUSE, _ALLOW, _KILL = 0x00050000 | 1, 0x7FFF0000, 0x80000000  # EPERM; the process
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER, _MACHINE, _ARGUMENTS = 0, 4, 16

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def refuse_new_rights() -> None:
    """From what is executed: set-user-ID programs, files' capabilities and user 0's own."""
    _check("no_new_privs", _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def drop_capabilities() -> None:
    """All but two, of this process and of what it executes."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    # Effective, permitted, inheritable; then the same of the capabilities above 31.
    sets = (ctypes.c_uint32 * 6)()
    _check("capget", _libc.capget(header, sets))
    kept = sets[1] & _KEPT
    wanted = (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)
    _check("capset", _libc.capset(header, wanted))


def bound_resources() -> None:
    """Of this process and of what it executes."""
    for kind, most in (
        (resource.RLIMIT_DATA, _MEMORY),
        (resource.RLIMIT_AS, _MAPPED),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _FILES),
    ):
        resource.setrlimit(kind, (most, most))
    os.nice(_LOWEST)


def first_to_be_killed() -> None:
    """Where memory is short. Where that cannot be said, it is not."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123 - it imports too much
            file.write("1000")
    except OSError:
        return


def refuse_calls(machine: str) -> None:
    """Every call that is not listed, with EPERM. Raises OSError, also on an unknown machine."""
    if machine not in MACHINES:
        raise OSError(f"found a machine {machine!r}, expected one of {', '.join(MACHINES)}")
    program = call_filter(machine)
    filled = _Program(len(program) // 8, program)
    mode = _SECCOMP_MODE_FILTER
    _check("seccomp", _libc.prctl(_PR_SET_SECCOMP, mode, ctypes.byref(filled), 0, 0))


def call_filter(machine: str) -> bytes:
    """The filter as the kernel reads it (seccomp(2)): classic BPF over ``struct seccomp_data``."""
    audit, column = MACHINES[machine]
    steps = [
        *((_LOAD, 0, 0, _MACHINE), (_EQUAL, 1, 0, audit), (_RETURN, 0, 0, _KILL)),
        (_LOAD, 0, 0, _NUMBER),
    ]
    for numbers in CALLS.values():
        number = numbers[column]
        if number is not None:
            steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for first, second, argument in OPENS.values():
        number = (first, second)[column]
        if number is not None:
            steps += [
                (_EQUAL, 0, 4, number),
                (_LOAD, 0, 0, _ARGUMENTS + 8 * argument),  # its lower half
                *((_ANY_BIT, 0, 1, _WRITES), (_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)),
            ]
    steps.append((_RETURN, 0, 0, _REFUSE))
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def main(command: list[str]) -> None:
    """Does not return."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    first_to_be_killed()
    bound_resources()
    refuse_new_rights()
    drop_capabilities()
    refuse_calls(os.uname().machine)
    os.execv(command[0], command)  # noqa: S606 - no shell is what is wanted


def _check(call: str, result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        sys.exit(f"Error: it could not be confined: {error}")
