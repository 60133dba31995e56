"""The calls that are left to py-spy: few, and by the numbers that the kernel has for them."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from trainseal.agent.leastrights import CALLS, MACHINES, OPENS, call_filter, refuse_calls

#: Where Debian's linux-libc-dev has the kernel's numbers: x86_64's, and those of newer machines.
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
#: Would reach into another process, the network or a file.
NEVER = ("process_vm_writev", "ptrace", "kill", "tgkill", "socket", "openat2", "unlinkat", "clone")


def numbers(machine: str) -> dict[str, int]:
    """The kernel's names of calls."""
    text = HEADERS[machine].read_text()
    found = {
        name: int(number)
        for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)
    }
    # The generic table has one call of two names.
    return {"newfstatat": found.get("fstatat", 0)} | found


def run(machine: str, number: int, *arguments: int, audit: int | None = None) -> int:
    """What the kernel would make of a call: the filter's answer."""
    data = struct.pack("<II", number, MACHINES[machine][0] if audit is None else audit)
    data += struct.pack("<Q6Q", 0, *arguments, *([0] * (6 - len(arguments))))
    steps = list(struct.iter_unpack("<HBBI", call_filter(machine)))
    held, at = 0, 0
    while True:
        code, if_so, if_not, value = steps[at]
        if code == 0x06:
            return int(value)
        if code == 0x20:
            held = struct.unpack_from("<I", data, value)[0]
            at += 1
        else:
            holds = held == value if code == 0x15 else bool(held & value)
            at += 1 + (if_so if holds else if_not)


ALLOWED, REFUSED, KILLED = 0x7FFF0000, 0x00050001, 0x80000000


@pytest.mark.parametrize("machine", MACHINES)
def test_the_numbers_are_the_kernels(machine: str) -> None:
    if not HEADERS[machine].exists():
        pytest.skip(f"needs {HEADERS[machine]}, of linux-libc-dev")
    column, known = MACHINES[machine][1], numbers(machine)
    ours = {name: found[column] for name, found in CALLS.items()}
    ours |= {name: found[column] for name, found in OPENS.items()}
    wrong = {n: (v, known.get(n)) for n, v in ours.items() if v is not None and v != known.get(n)}
    assert wrong == {}
    assert not set(NEVER) & ours.keys()


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_listed_passes_and_all_else_is_refused(machine: str) -> None:
    column = MACHINES[machine][1]
    listed = {found[column] for found in CALLS.values()} - {None}
    opens = {found[column] for found in OPENS.values()} - {None}
    for number in range(600):
        if number not in opens:
            assert run(machine, number) == (ALLOWED if number in listed else REFUSED), number
    assert run(machine, 0x40000000) == REFUSED  # x86_64 has its calls there a second time


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("flags", "answer"),
    [(0, ALLOWED), (0o2000000, ALLOWED), (1, REFUSED), (2, REFUSED), (0o100, REFUSED),
     (0o1000, REFUSED)],
)  # fmt: skip
def test_files_are_opened_for_reading_alone(machine: str, flags: int, answer: int) -> None:
    for first, second, argument in OPENS.values():
        number = (first, second)[MACHINES[machine][1]]
        if number is not None:
            arguments = [0xFFFFFFFF] * argument + [flags]
            assert run(machine, number, *arguments) == answer


def test_calls_in_another_machines_way_end_the_process() -> None:
    assert run("x86_64", 0, audit=0x40000003) == KILLED  # as 32-bit programs make them


def test_an_unknown_machine_is_refused_in_words() -> None:
    with pytest.raises(OSError, match="found a machine 'riscv64', expected one of x86_64, aarch64"):
        refuse_calls("riscv64")
