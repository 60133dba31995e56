"""Programs that interpreters read from places nobody signed: each beside a like one that is not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from trainseal.agent import scripts as scripts_module
from trainseal.agent.observed import Lineage, Process
from trainseal.agent.origins import Origin
from trainseal.agent.scripts import StartedScripts, foreign_script

NOW = datetime(2026, 11, 26, 11, 0, tzinfo=UTC)
PLACES: Mapping[str, Origin] = {
    "/tmp": "mount:scratch",
    "/checkpoints": "mount:checkpoints",
    "/data": "mount:data",
    "/dev/shm": "mount:other",
    "/proc": "mount:other",
    "/opt": "upper",
    "/workspace": "mount:code",
}


class Container:
    """Files that are there, by path; ``/opt/link.py`` leads into scratch."""

    def __init__(self, *files: str) -> None:
        self.files = files

    def origin(self, path: str) -> Origin:
        return next((o for top, o in PLACES.items() if path.startswith(f"{top}/")), "image")

    def in_image(self, path: str) -> bool:
        return self.origin(path) == "image"

    def resolved(self, path: str, pid: int | None = None) -> str:  # noqa: ARG002
        return {"/workspace/link.py": "/tmp/evil.py"}.get(path, os.path.normpath(path))

    def status(self, path: str) -> os.stat_result | None:
        return os.stat_result(range(10)) if path in self.files else None


def python(*words: str, pid: int = 41) -> Process:
    return Process(pid, 40, NOW, "/usr/bin/python3.11", ("python3", *words), 0, "c")


@pytest.mark.parametrize(
    "path",
    ["/tmp/evil.py", "/checkpoints/x", "/data/x.py", "/dev/shm/x.py", "/opt/x.py", "/tmp/../tmp/a"],
)
def test_a_program_from_a_place_that_nobody_signed_is_found(path: str) -> None:
    found = foreign_script(python("-u", path, "--steps", "1"), "/", Container())
    assert found is not None
    assert (found.finding, found.path) == ("exec.foreign", os.path.normpath(path))
    assert found.subject == found.path, "or the event of one that is executed would be another"
    assert found.evidence == {
        "interpreter": "/usr/bin/python3.11",
        "script": path,
        "command": f"python3 -u {path} --steps 1",
    }


@pytest.mark.parametrize("path", ["/workspace/train.py", "/usr/bin/torchrun", "/proc/7/fd/3"])
def test_signed_programs_and_open_files_are_silent(path: str) -> None:
    assert foreign_script(python(path, "/tmp/x.py"), "/tmp", Container("/tmp/x.py")) is None


def test_a_link_is_followed_to_the_file() -> None:
    found = foreign_script(python("/workspace/link.py"), "/", Container())
    assert found is not None
    assert found.path == "/tmp/evil.py"


def test_a_program_reached_through_a_process_that_is_gone_is_found() -> None:
    found = foreign_script(python("/proc/50/root/x.py"), "/", Container())
    assert found is not None
    assert found.path == "/proc/50/root/x.py"
    assert "gone" in found.message


def test_a_relative_name_counts_where_the_process_is_and_has_such_a_file() -> None:
    there = Container("/tmp/train.py")
    found = foreign_script(python("train.py"), "/tmp", there)
    assert found is not None
    assert found.path == "/tmp/train.py"
    assert foreign_script(python("train.py"), "/workspace", there) is None
    assert foreign_script(python("train.py"), "/tmp", Container()) is None, "it went there later"
    assert foreign_script(python("train.py"), None, there) is None
    for word in ("train.py", "/proc/self/cwd/train.py"):
        assert foreign_script(python(word), "/tmp", there, relative=False) is None


def look(*steps: Process | None) -> list[int]:
    """How many are found each time, 50 ms apart, after an interpreter was executed."""
    now = [0.0]
    scripts = StartedScripts(
        Container(),
        lambda _: Lineage((step,)) if (step := steps[round(now[0] / 0.05)]) else None,
        lambda _: "/",
    )
    scripts.executed(41, "/usr/bin/python3.11", 0.0, NOW)
    found = []
    for number in range(len(steps)):
        now[0] = number * 0.05
        seen = [*scripts.look(now[0])]
        assert all(one.not_before == NOW for one, _ in seen), "it was executed no earlier"
        found.append(len(seen))
    assert scripts.next is None
    return found


def test_who_is_still_another_program_is_looked_at_until_it_is_this_one() -> None:
    shell = Process(41, 40, NOW, "/bin/sh", ("sh", "-c", "python3 /tmp/evil.py"), 0, "c")
    evil = python("/tmp/evil.py")
    assert look(shell, shell, evil, evil, evil) == [0, 0, 1, 0, 0]


def test_who_ends_or_runs_what_is_signed_is_not_looked_at_for_ever() -> None:
    assert look(python("/workspace/train.py"), None) == [0, 0]
    assert look(*[python("/workspace/train.py")] * 5) == [0] * 5


def test_a_program_that_is_over_within_milliseconds_is_looked_at_meanwhile() -> None:
    seen: list[float] = []
    now = [7.0]

    def lineage(_: int) -> Lineage:
        seen.append(round(now[0] - 7.0, 3))
        return Lineage((python("/workspace/train.py"),))

    scripts = StartedScripts(Container(), lineage, lambda _: "/")
    scripts.executed(41, "/usr/bin/python3.11", 7.0, NOW)
    while (due := scripts.next) is not None:
        now[0] = due
        assert [*scripts.look(due - 0.0005), *scripts.look(due)] == []
    assert seen == [0.0, 0.003, 0.006, 0.012, 0.025, 0.05, 0.1, 0.2]


def test_who_comes_late_looks_once_for_all_looks_that_are_over() -> None:
    scripts = StartedScripts(
        Container(), lambda _: Lineage((python("/workspace/train.py"),)), lambda _: "/"
    )
    scripts.executed(41, "/usr/bin/python3.11", 0.0, NOW)
    assert [*scripts.look(0.03)] == []
    assert scripts.next == 0.05


def test_other_programs_are_not_looked_at() -> None:
    scripts = StartedScripts(Container(), lambda _: None, lambda _: None)
    scripts.executed(41, "/usr/bin/cat", 0.0, NOW)
    assert scripts.next is None


def test_interpreters_beyond_so_many_are_counted_as_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts_module, "MOST", 2)
    scripts = StartedScripts(Container(), lambda _: None, lambda _: None)
    for pid in (41, 42):
        scripts.executed(pid, "/usr/bin/python3.11", 0.0, NOW)
    assert scripts.missed == 0
    scripts.executed(43, "/usr/bin/python3.11", 0.0, NOW)
    scripts.executed(44, "/usr/bin/cat", 0.0, NOW)
    assert scripts.missed == 1
