"""The gate on the run's own checkpoints, when a worker is tried again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.unit import world
from tests.unit.gate.world import digest
from trainseal.api.gateplan import GatePlan, PlannedOwn
from trainseal.gate.main import Patience, run
from trainseal.gate.own import PATIENCE, PAUSE
from trainseal.provenance.keys import PrivateKey
from trainseal.provenance.signedfiles import SignedFile, sign

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
FILES = {"step-1/model": b"weights", "step-1/rank-1/state": b"state", "step-1/.done": b""}


@dataclass
class Stage:
    """A mount with one whole checkpoint, and the list that the controller signed of it."""

    folder: Path
    list_: Path
    slept: list[float] = field(default_factory=list)
    meanwhile: Callable[[], object] = lambda: None

    def __post_init__(self) -> None:
        self.folder.mkdir()
        for path, content in FILES.items():
            self.write(path, content)
        self.signed = {path: self.entry(path) for path in FILES}
        self.publish()

    def write(self, path: str, content: bytes) -> int:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        return (self.folder / path).write_bytes(content)

    def entry(self, path: str, *, read: bool = True, barred: bool = False) -> SignedFile:
        """As a manifest says of the file as it is now."""
        status, content = (self.folder / path).stat(), (self.folder / path).read_bytes()
        known = digest(content) if read else None
        return SignedFile(path, status.st_size, status.st_ctime_ns // 1000, known, barred)

    def publish(self, key: PrivateKey = world.SEAL_KEY, of: str = "run-1") -> None:
        self.list_.write_text(sign(key, "research", of, list(self.signed.values()), NOW))

    def touched(self, path: str) -> None:
        """A link to it is made and taken away: another ctime, the same content."""
        before = (self.folder / path).stat().st_ctime_ns
        while (self.folder / path).stat().st_ctime_ns // 1000 == before // 1000:
            os.link(self.folder / path, self.folder / "link")
            (self.folder / "link").unlink()

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.meanwhile()
        await asyncio.sleep(0)

    def opened(self) -> tuple[int, str]:
        """Exit code and word of the gate."""
        own = PlannedOwn(
            source=str(self.folder),
            signed=str(self.list_),
            key=world.SEAL_KEY.public.pem,
            namespace="research",
            run="run-1",
            marker=".done",
            mount_path="/checkpoints",
        )
        log = self.folder.parent / "log"
        log.touch()
        code = run(GatePlan(own=own), termination_log=log, patience=Patience(sleep=self._sleep))
        return code, log.read_text()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "mount", tmp_path / "signed")


def changed(stage: Stage) -> None:
    stage.touched("step-1/model")
    stage.write("step-1/model", b"weightz")


def test_checkpoints_as_the_run_left_them_open_the_gate(stage: Stage) -> None:
    code, words = stage.opened()
    assert (code, "3 files of the run's own checkpoints" in words) == (0, True)
    assert stage.slept == []


def test_where_there_is_no_whole_checkpoint_nothing_is_asked_for(stage: Stage) -> None:
    (stage.folder / "step-1" / ".done").unlink()
    changed(stage)
    stage.write("log.txt", b"step 3")
    stage.list_.unlink()
    assert stage.opened()[0] == 0


def test_a_file_that_was_not_changed_is_not_read(stage: Stage) -> None:
    """Its ctime says so, which no program can set: here the digest would say otherwise."""
    entry = replace(stage.signed["step-1/model"], digest=digest(b"another"))
    stage.signed["step-1/model"] = entry
    stage.publish()
    assert stage.opened()[0] == 0


def test_one_that_was_not_read_in_time_is_known_by_its_ctime(stage: Stage) -> None:
    stage.signed["step-1/model"] = stage.entry("step-1/model", read=False)
    stage.publish()
    assert stage.opened()[0] == 0


def test_one_with_another_ctime_is_read_and_compared(stage: Stage) -> None:
    stage.touched("step-1/model")
    assert stage.opened()[0] == 0


def _unread(stage: Stage) -> None:
    stage.signed["step-1/model"] = stage.entry("step-1/model", read=False)
    stage.publish()
    stage.touched("step-1/model")


UNDETERMINED: dict[str, tuple[Callable[[Stage], object], str]] = {
    "a byte": (changed, "step-1/model: changed: found sha256:"),
    "a file put beside it": (
        lambda s: s.write("step-1/evil.pt", b"evil"),
        "step-1/evil.pt: no signed manifest lists it",
    ),
    "a checkpoint put beside it": (
        lambda s: [s.write(f"step-9/{name}", b"evil") for name in ("model", ".done")],
        "step-9/model: no signed manifest lists it",
    ),
    "an older one by a newer name": (
        lambda s: (s.folder / "step-1").rename(s.folder / "step-9"),
        "no signed manifest lists it",
    ),
    "no list": (lambda s: s.list_.unlink(), "no signed manifest lists it"),
    "a list of another run": (lambda s: s.publish(of="run-2"), "it is of run run-2"),
    "a list by another key": (
        lambda s: s.publish(key=world.TICKET_KEY),
        "which the keyring does not hold",
    ),
    "a list that somebody edited": (
        lambda s: s.list_.write_text("e30" + s.list_.read_text()),
        "the list of the run's checkpoints",
    ),
    "no list at all": (lambda s: s.list_.write_bytes(b"\xff" * 9), "the list of the run's"),
    "one that was not read and has changed": (_unread, "which has no digest"),
}


@pytest.mark.parametrize(("change", "words"), UNDETERMINED.values(), ids=UNDETERMINED)
def test_what_no_signed_manifest_says_is_waited_for_and_then_no_trainer_starts(
    stage: Stage, change: Callable[[Stage], object], words: str
) -> None:
    change(stage)
    code, said = stage.opened()
    assert (code, words in said) == (2, True), said
    assert sum(stage.slept) >= PATIENCE


def test_a_manifest_that_comes_while_the_gate_waits_opens_it(stage: Stage) -> None:
    """As of a checkpoint that another worker has just completed."""
    stage.write("step-2/model", b"weights of 2")
    stage.write("step-2/.done", b"")

    def signed() -> None:
        if len(stage.slept) == 3:
            stage.signed |= {p: stage.entry(p) for p in ("step-2/model", "step-2/.done")}
            stage.publish()

    stage.meanwhile = signed
    assert stage.opened()[0] == 0
    assert stage.slept == [PAUSE] * 3


def test_a_checkpoint_that_is_taken_away_while_the_gate_waits_opens_it(stage: Stage) -> None:
    changed(stage)
    stage.meanwhile = lambda: (stage.folder / "step-1" / ".done").unlink(missing_ok=True)
    assert stage.opened()[0] == 0


def _barred(stage: Stage) -> None:
    changed(stage)
    stage.signed["step-1/model"] = stage.entry("step-1/model", barred=True)
    stage.publish()


def _link(stage: Stage) -> None:
    stage.write("other", b"weights")
    (stage.folder / "step-1" / "model").unlink()
    (stage.folder / "step-1" / "model").symlink_to("../other")


def _way_out(stage: Stage) -> None:
    (stage.folder / "tmp").mkdir()
    (stage.folder / "tmp" / "x").symlink_to("/elsewhere")
    (stage.folder / "latest").symlink_to("tmp/x")


REFUTED: dict[str, tuple[Callable[[Stage], object], str]] = {
    "one that the watch found replaced": (_barred, "somebody who is not the trainer"),
    "a link in it": (_link, "step-1/model: a link"),
    "a directory that is a link": (
        lambda s: (s.folder / "step-1" / "more").symlink_to("/elsewhere"),
        "step-1/more: a link",
    ),
    "a checkpoint that is a link": (
        lambda s: (s.folder / "step-9").symlink_to("/elsewhere"),
        "step-9: a link",
    ),
    "one that climbs": (lambda s: (s.folder / "step-9").symlink_to("../x"), "step-9: a link"),
    "one by another link": (_way_out, "latest: a link"),
}


@pytest.mark.parametrize(("change", "words"), REFUTED.values(), ids=REFUTED)
def test_what_speaks_against_it_is_refuted_at_once(
    stage: Stage, change: Callable[[Stage], object], words: str
) -> None:
    change(stage)
    code, said = stage.opened()
    assert (code, words in said) == (1, True), said
    assert stage.slept == []


@pytest.mark.parametrize("target", ["step-1", "/checkpoints/step-1", "./step-1", "step-1/model"])
def test_a_link_to_a_checkpoint_of_the_mount_is_none_of_its_files(
    stage: Stage, target: str
) -> None:
    (stage.folder / "latest").symlink_to(target)
    assert stage.opened()[0] == 0
