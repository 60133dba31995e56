"""The gate on a checkpoint that the run goes on from."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.gate.world import digest
from trainseal.api.gateplan import GatePlan, PlannedFile, PlannedResume
from trainseal.gate.main import run

FILES = {"model": b"weights", "rank-1/state": b"state"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The checkpoint, as its run left it."""
    found = tmp_path / "step-20"
    for path, content in FILES.items():
        (found / path).parent.mkdir(parents=True, exist_ok=True)
        (found / path).write_bytes(content)
    return found


def opened(folder: Path, *, whole: bool = True) -> tuple[int, str]:
    """Exit code and word of a gate that finds it there."""
    files = [PlannedFile(path=p, digest=digest(c)) for p, c in FILES.items()]
    plan = GatePlan(resume=PlannedResume(source=str(folder), files=files, whole=whole))
    log = folder.parent / "log"
    log.touch()
    return run(plan, termination_log=log), log.read_text()


def test_a_checkpoint_as_its_manifest_says_opens_the_gate(folder: Path) -> None:
    code, words = opened(folder)
    assert (code, "a checkpoint of 2 files" in words) == (0, True)


def _outside(folder: Path) -> None:
    (folder / "model").unlink()
    (folder / "model").symlink_to(folder.parent / "elsewhere")
    (folder.parent / "elsewhere").write_bytes(FILES["model"])


def _pipe(folder: Path) -> None:
    (folder / "model").unlink()
    os.mkfifo(folder / "model")


REFUTED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte": (lambda f: (f / "model").write_bytes(b"weightz"), "model: changed: found sha256:"),
    "a file taken away": (lambda f: (f / "model").unlink(), "model: missing"),
    "a file put beside it": (lambda f: (f / "evil.pt").write_bytes(b""), "no manifest lists it"),
    "a file put below it": (
        lambda f: (f / "rank-1" / "evil").write_bytes(b""),
        "rank-1/evil: no manifest lists it",
    ),
    "a link with the same bytes": (_outside, "model: a link"),
    "a pipe, which would be waited for": (_pipe, "model: no plain file"),
    "a link to a directory": (
        lambda f: (f / "more").symlink_to(f / "rank-1"),
        "more: no manifest lists it",
    ),
}


@pytest.mark.parametrize(("change", "words"), REFUTED.values(), ids=REFUTED)
def test_what_was_changed_between_the_runs_keeps_it_shut(
    folder: Path, change: Callable[[Path], object], words: str
) -> None:
    change(folder)
    code, said = opened(folder)
    assert code == 1
    assert words in said
    assert "refuted" in said


def test_beside_files_of_the_mount_itself_others_may_lie(folder: Path) -> None:
    (folder / "older").write_bytes(b"")
    assert opened(folder, whole=False)[0] == 0


def test_a_directory_that_cannot_be_read_is_undetermined(folder: Path) -> None:
    code, said = opened(folder / "nowhere")
    assert code == 2
    assert "undetermined" in said
