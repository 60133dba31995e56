"""What is mounted over signed names after the start, and what may be mounted."""

from __future__ import annotations

import pytest

from tests.unit.agent.test_judge import ADAM, CONTAINER
from trainseal.agent.latermounts import LaterMounts
from trainseal.agent.mounts import parse
from trainseal.agent.observed import FOUND_BY

START = """\
900 800 0:44 / / rw - overlay overlay rw,lowerdir=/1,upperdir=/2
901 900 0:46 / /proc rw,nosuid - proc proc rw
905 900 8:1 /pods/u/etc-hosts /etc/hosts rw - ext4 /dev/sda1 rw
909 900 8:1 /pods/u/scratch-0 /tmp rw - ext4 /dev/sda1 rw
"""
EVIL = f"910 900 8:1 /evil.py {ADAM} rw - ext4 /dev/sda1 rw\n"


def later(*tables: str) -> list[list[str | None]]:
    mounts = LaterMounts(
        CONTAINER, parse(START), lambda path: path.startswith(("/usr", "/etc", "/work"))
    )
    return [[o.path for o in mounts.look(parse(table))] for table in tables]


def test_a_mount_over_a_signed_name_is_found_once_and_again_when_it_is_made_again() -> None:
    assert later(START + EVIL, START + EVIL, START, START + EVIL) == [[ADAM], [], [], [ADAM]]


def test_it_says_what_was_mounted_and_accuses_nobody_who_was_in_the_pod() -> None:
    mounts = LaterMounts(CONTAINER, parse(START), lambda _: True)
    (found,) = mounts.look(parse(START + EVIL))
    assert found.finding == "file.renamed"
    assert found.evidence["mounted"] == "/evil.py of ext4 on 8:1"
    assert FOUND_BY in found.evidence


@pytest.mark.parametrize(
    "table",
    [
        # A number is given again as soon as it is free.
        START.replace("8:1 /pods/u/etc-hosts /etc/hosts", f"8:1 /evil.py {ADAM}"),
        # Moved: the number stays.
        START.replace(" /etc/hosts", f" {ADAM}"),
        f"{START}910 900 0:60 / /workspace rw - tmpfs evil rw\n",
    ],
)
def test_neither_a_number_nor_a_move_hides_it(table: str) -> None:
    assert len(later(table)[0]) == 1


@pytest.mark.parametrize("path", ["/tmp/fuse", "/checkpoints/x", "/proc/1", "/dev/shm", "/mnt"])
def test_mounts_elsewhere_are_no_finding(path: str) -> None:
    assert later(f"{START}910 900 0:60 / {path} rw - tmpfs some rw\n") == [[]]


def test_what_is_remounted_or_unmounted_is_no_finding() -> None:
    assert later(START.replace("/tmp rw", "/tmp ro"), START.partition("905")[0]) == [[], []]
