"""Cache keys: the same pins give the same key, and nothing else does."""

from pathlib import Path

import pytest

from tests.cluster import pins
from tests.cluster.pins import API_ONLY, CERT_MANAGER, CLUSTER, ENGINES, PROGRAMS, Program, digest


@pytest.fixture
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of pins that the test may change."""
    monkeypatch.setattr(pins, "TOOLS_SOURCE", tmp_path)
    folder = tmp_path / "group"
    folder.mkdir()
    (folder / "go.mod").write_text("module x\n")
    (folder / "go.sum").write_text("")
    return folder


def program(**changes: str) -> Program:
    values = {"name": "tool", "group": "group", "package": "example.org/tool"} | changes
    return Program(**values, seconds=1)


def test_a_key_is_stable(pinned: Path) -> None:
    assert program().key() == program().key()


@pytest.mark.parametrize("file", ["go.mod", "go.sum", "main.go"])
def test_a_changed_or_added_source_file_changes_the_key(pinned: Path, file: str) -> None:
    before = program().key()
    (pinned / file).write_text("// changed\n")
    assert program().key() != before


@pytest.mark.parametrize("change", [{"package": "example.org/other"}, {"ldflags": "-w"}])
def test_another_package_or_flag_is_another_key(pinned: Path, change: dict[str, str]) -> None:
    assert program(**change).key() != program().key()


def test_content_cannot_move_between_parts() -> None:
    assert digest([("a", b"bc"), ("d", b"")]) != digest([("a", b"b"), ("d", b"c")])


def test_every_tool_has_its_pins_and_its_checksums() -> None:
    for tool in PROGRAMS.values():
        assert (tool.source / "go.mod").is_file(), tool.name
        assert (tool.source / "go.sum").is_file(), tool.name


def test_the_api_only_mode_needs_a_part_of_the_tools() -> None:
    assert set(API_ONLY) < set(PROGRAMS)


def test_a_cluster_needs_every_tool_but_those_of_one_target_alone() -> None:
    assert set(PROGRAMS) - set(CLUSTER) == {*CERT_MANAGER, *ENGINES}


def test_kubernetes_is_pinned_to_the_version_its_programs_report() -> None:
    text = (PROGRAMS["kubelet"].source / "go.mod").read_text()
    assert f"k8s.io/kubernetes {pins.KUBERNETES_VERSION}" in text
