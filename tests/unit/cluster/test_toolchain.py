"""Tools are built once, whole or not at all, by one builder at a time."""

import os
import threading
import time
from pathlib import Path

import pytest

from tests.cluster import pins, toolchain
from tests.cluster.errors import ClusterError
from tests.cluster.pins import Program
from tests.cluster.places import locked
from tests.cluster.toolchain import cached, tools, unbuilt

_GO = """\
#!/bin/sh
test "$1" = env && printf 'go1.99.0\\nlocal\\n/nowhere\\n/nowhere\\n' && exit
echo "$*" >> "$BUILDS"
while test "$1" != -o; do shift; done
echo built > "$2"
"""


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `go` that writes its arguments into a file beside it, and builds; two pinned programs."""
    monkeypatch.setenv("TRAINSEAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pins, "TOOLS_SOURCE", tmp_path / "source")
    (tmp_path / "source/group").mkdir(parents=True)
    (tmp_path / "source/group/go.mod").write_text("module x\n\ngo 1.26.0\n")
    made = {n: Program(n, "group", f"example.org/{n}", 1) for n in ("one", "two")}
    for module in (pins, toolchain):
        monkeypatch.setattr(module, "PROGRAMS", made)
    program = tmp_path / "bin/go"
    program.parent.mkdir()
    program.write_text(_GO)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("BUILDS", str(program.with_name("builds")))
    return program


def builds(go: Path) -> list[str]:
    record = go.with_name("builds")
    return record.read_text().splitlines() if record.exists() else []


def test_what_is_missing_is_built_and_found_from_then_on(go: Path) -> None:
    found = tools(["one", "two"])
    assert found["one"].read_text() == "built\n"
    assert [line.split()[-1] for line in builds(go)] == ["example.org/one", "example.org/two"]
    assert tools(["two", "one"]) == found
    assert len(builds(go)) == 2


def test_what_is_built_is_not_missing(go: Path) -> None:
    tools(["one"])
    assert [program.name for program in unbuilt(["one", "two"])] == ["two"]


def test_what_is_there_needs_no_go(go: Path) -> None:
    tools(["one"])
    go.unlink()
    assert tools(["one"])["one"].exists()


def test_without_go_nothing_is_built_and_the_error_says_so(go: Path) -> None:
    go.unlink()
    with pytest.raises(ClusterError, match="no `go` on the PATH"):
        tools(["one"])


def test_a_failed_build_shows_its_end_and_leaves_nothing(go: Path) -> None:
    go.write_text(_GO.replace("echo built", "echo 'x.go:1: undefined: y'; exit 1; echo"))
    with pytest.raises(ClusterError, match="building one failed") as caught:
        tools(["one"])
    assert "undefined: y" in caught.value.message
    assert not cached(pins.PROGRAMS["one"]).exists()
    assert list((go.parents[1] / "cache/tools").glob(".build-*")) == []


def test_a_build_that_failed_is_tried_again(go: Path) -> None:
    go.write_text(_GO.replace("echo built", "exit 1; echo"))
    with pytest.raises(ClusterError):
        tools(["one"])
    go.write_text(_GO)
    assert tools(["one"])["one"].exists()


def test_who_waits_for_another_builder_finds_its_program(go: Path) -> None:
    program = pins.PROGRAMS["one"]
    target = cached(program)
    waiting = threading.Thread(target=lambda: tools(["one"]))
    with locked(target.parents[1] / f".{program.key()}.lock"):
        waiting.start()
        # It is past the look at the cache once it has asked for Go's version; then it waits.
        deadline = time.monotonic() + 10
        while not _waits_for_a_lock():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        target.parent.mkdir()
        target.write_text("built by another\n")
    waiting.join(10)
    assert builds(go) == []
    assert target.read_text() == "built by another\n"


def _waits_for_a_lock() -> bool:
    """Whether a thread of this process is blocked on a file lock (`->` in /proc/locks)."""
    waiting = (line for line in Path("/proc/locks").read_text().splitlines() if " -> " in line)
    return any(f" {os.getpid()} " in line for line in waiting)


def test_a_tool_of_another_mode_is_named(go: Path) -> None:
    with pytest.raises(ClusterError, match="two was not built for this mode"):
        tools(["one"])["two"]
