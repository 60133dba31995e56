"""What runtimes leave in a container: silent, and loud for whoever copies the names."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta

import pytest

from trainseal.agent.layers import Entry, Kind
from trainseal.agent.runtimeleavings import Left, left_by_runtime

STARTED = datetime(2026, 1, 1, tzinfo=UTC)
BEFORE = STARTED - timedelta(seconds=1)
LIB = "/usr/lib/x86_64-linux-gnu"


def left(
    path: str,
    kind: Kind = "file",
    *,
    changed: datetime = BEFORE,
    beginning: bytes = b"",
    target: str | None = None,
    target_covered: bool = False,
) -> Left:
    mode = stat.S_IFLNK if kind == "link" else stat.S_IFREG
    moment = changed.timestamp()
    status = os.stat_result((mode, 1, 1, 1, 0, 0, len(beginning), moment, moment, moment))
    return Left(Entry(path, kind, status), beginning, target, target_covered)


BENIGN = {
    "mtab": left("/etc/mtab", "link", target="/proc/mounts"),
    "docker's mark": left("/.dockerenv"),
    "linker cache": left("/etc/ld.so.cache", beginning=b"glibc-ld.so.cache1.1 ..."),
    "driver link": left(f"{LIB}/libcuda.so", "link", target="libcuda.so.1", target_covered=True),
    "driver conf": left("/etc/ld.so.conf.d/00-nvcr-123.conf", beginning=f"{LIB}\n".encode()),
}
ATTACKS = {
    "mtab that leads elsewhere": left("/etc/mtab", "link", target="/tmp/mounts"),
    "a full docker mark": left("/.dockerenv", beginning=b"x"),
    "a cache that is none": left("/etc/ld.so.cache", beginning=b"/tmp/evil.so"),
    "a driver link to a written file": left(f"{LIB}/libcuda.so", "link", target="libcuda.so.1"),
    "a driver link out of the directory": left(
        f"{LIB}/libcuda.so", "link", target="/tmp/x.so", target_covered=True
    ),
    "a library named like a driver": left(f"{LIB}/libcuda.so.1", beginning=b"\x7fELF"),
    "a conf that names scratch": left("/etc/ld.so.conf.d/nvcr-1.conf", beginning=b"/tmp\n"),
    "another library": left(f"{LIB}/libc.so", "link", target="libc.so.6", target_covered=True),
    "a preload": left("/etc/ld.so.preload"),
}


@pytest.mark.parametrize("case", BENIGN)
def test_left_by_a_runtime(case: str) -> None:
    assert left_by_runtime(BENIGN[case], STARTED)


@pytest.mark.parametrize("case", ATTACKS)
def test_not_left_by_a_runtime(case: str) -> None:
    assert not left_by_runtime(ATTACKS[case], STARTED)


def test_the_same_made_after_the_start_is_a_difference() -> None:
    late = STARTED + timedelta(seconds=1)
    assert not left_by_runtime(
        left("/etc/ld.so.cache", beginning=b"glibc-ld.so.cache1.1", changed=late), STARTED
    )
