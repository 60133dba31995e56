"""A pod's checkpoints, from the first write to the manifest, on real files."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from trainseal.agent import checkpointbook, checkpointpod
from trainseal.agent.checkpointevents import CheckpointWrites
from trainseal.agent.checkpointobjects import Volume
from trainseal.agent.checkpoints import CheckpointWatch, Place
from trainseal.agent.checkpointvalues import Written
from trainseal.agent.files import Tree
from trainseal.agent.ledger import Person
from trainseal.agent.observed import (
    FOUND_BY,
    HASHING,
    Lineage,
    Observation,
    Process,
    RoleMount,
    WatchedContainer,
)
from trainseal.agent.reports import Subject
from trainseal.api.findings import FindingId
from trainseal.cluster.api import ConflictError, KubeError

POD = Subject("research", "w-0", "0aa3b1c2-1111-2222-3333-444455556666", "seal")
SHELL = Process(4711, 1, datetime(2026, 1, 1, tzinfo=UTC), "/bin/sh", ("sh",), 0, "c" * 64)
SESSION = Lineage((SHELL,), session=SHELL)


@dataclass
class Api:
    """Takes Checkpoints; ``failing`` is raised instead."""

    objects: dict[str, Any] = field(default_factory=dict)
    failing: KubeError | None = None
    lists: int = 0

    async def create(self, path: str, obj: Any) -> Any:
        del path
        if self.failing is not None:
            raise self.failing
        name = obj["metadata"]["name"]
        if name in self.objects:
            raise ConflictError(409, "AlreadyExists", name)
        created = f"2026-11-23T12:{len(self.objects):02}:00Z"
        obj = obj | {"metadata": obj["metadata"] | {"creationTimestamp": created}}
        self.objects[name] = obj
        return obj

    async def request(self, method: str, path: str, **_: Any) -> Any:
        del method, path
        if self.failing is not None:
            raise self.failing
        self.lists += 1
        return {"items": list(self.objects.values()), "metadata": {}}

    @property
    def files(self) -> dict[str, Any]:
        return {f["path"]: f for o in self.objects.values() for f in o["spec"]["files"]}


@dataclass
class Told:
    """What the reports were told."""

    seen: list[Observation] = field(default_factory=list)

    def see(self, uid: str, container: str | None, seen: Observation) -> None:
        assert (uid, container) == (POD.uid, "trainer")
        self.seen.append(seen)


@dataclass
class Lab:
    """A container that is a process, a mount that is a folder, and time that is told."""

    folder: Path
    process: subprocess.Popen[bytes]
    api: Api = field(default_factory=Api)
    told: Told = field(default_factory=Told)
    now: float = 1000.0
    lives: bool = True
    #: Files that the command of an access names.
    named: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.container = WatchedContainer(
            *("research", POD.pod, POD.uid, POD.seal, "trainer", "c" * 64, self.process.pid),
            datetime.now(UTC),
            (RoleMount(str(self.folder), "checkpoints", "checkpoints"),),
            {},
        )
        self.watch = self.agent()

    def agent(self) -> CheckpointWatch:
        """An agent that has just started."""
        watch = CheckpointWatch(
            self.api,  # type: ignore[arg-type]
            "node-1",
            node_root="/proc/self/root",
            place_of=lambda _: Place(POD, Volume("ckpt", "")),
            lives=lambda _: self.lives,
            session_of=lambda *_: Person("mallory@example.org", "exec-1"),
            named=lambda *asked: asked[2] in self.named,
            told=lambda: True,
            clock=lambda: datetime.now(UTC),
            monotonic=lambda: self.now,
        )
        watch.connect(self.told)
        return watch

    def opens(self) -> None:
        self.watch.opened(self.container)

    def write(self, path: str, content: bytes, lineage: Lineage | None = SESSION) -> None:
        """In the container, closed and told of."""
        self.change(path, content)
        status = (self.folder / path).stat()
        writer: Any = "Session" if lineage is SESSION else "Trainer"
        writer = writer if lineage is not None else "Container"
        key = (status.st_dev, status.st_ino)
        self.watch.wrote(self.container, Written(key, path, writer, lineage))

    def change(self, path: str, content: bytes) -> None:
        """From outside: nobody tells."""
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(content)

    async def after(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 1
            await self.watch.step()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    folder = tmp_path / "ckpt"
    folder.mkdir()
    process = subprocess.Popen(["sleep", "1000"])
    found = Lab(folder, process)
    yield found
    process.kill()
    process.wait()


TRAINER = Lineage((SHELL,))


async def test_a_checkpoint_of_the_trainer_gets_a_manifest(lab: Lab) -> None:
    lab.opens()
    lab.write("step-1/model", b"one", TRAINER)
    await lab.after(10)
    (obj,) = lab.api.objects.values()
    (file,) = obj["spec"]["files"]
    assert (file["path"], file["writer"], file["size"]) == ("step-1/model", "Trainer", 3)
    assert file["digest"].startswith("sha256:7692c3ad")
    assert obj["spec"]["volume"] == {"claim": "ckpt"}
    assert obj["metadata"]["labels"]["trainseal.dev/seal"] == "seal"
    assert lab.told.seen == []


async def test_what_a_session_wrote_names_the_person(lab: Lab) -> None:
    lab.opens()
    lab.write("step-1", b"one")
    await lab.after(10)
    assert lab.api.files["step-1"]["user"] == "mallory@example.org"


async def test_a_session_that_overwrites_a_checkpoint_is_a_finding(lab: Lab) -> None:
    lab.opens()
    lab.write("step-1", b"one", TRAINER)
    await lab.after(10)
    lab.write("step-1", b"bad")
    await lab.after(30)
    (seen,) = lab.told.seen
    assert seen.finding is FindingId.CHECKPOINT_REPLACED
    assert seen.path == f"{lab.folder}/step-1"
    assert seen.lineage is SESSION
    assert lab.api.files["step-1"]["writer"] == "Session"


async def test_one_overwritten_by_who_was_gone_is_a_finding_where_an_access_names_it(
    lab: Lab,
) -> None:
    lab.opens()
    lab.write("latest", b"one", TRAINER)
    lab.write("step-1", b"one", TRAINER)
    await lab.after(10)
    lab.named = {f"{lab.folder}/step-1"}
    lab.write("latest", b"two", None)  # by a helper of the trainer's, for all that is known
    lab.write("step-1", b"bad", None)
    await lab.after(30)
    (seen,) = lab.told.seen
    assert (seen.finding, seen.path) == (FindingId.CHECKPOINT_REPLACED, f"{lab.folder}/step-1")
    assert "by a process that was gone" in seen.message
    assert FOUND_BY not in seen.evidence, "it is not from outside"


async def test_a_checkpoint_that_is_changed_from_outside_is_a_finding(lab: Lab) -> None:
    lab.opens()
    lab.write("step-1", b"one", TRAINER)
    await lab.after(10)
    lab.change("step-1", b"bad")
    await lab.after(150)
    (seen,) = lab.told.seen
    assert seen.finding is FindingId.CHECKPOINT_REPLACED
    assert seen.evidence["signed digest"] != seen.evidence["digest"]
    assert seen.evidence[FOUND_BY] == HASHING, "else whoever was inside by then would be named"
    assert lab.api.files["step-1"]["writer"] == "Outside"
    await lab.after(300)
    assert len(lab.told.seen) == 1


async def test_one_that_the_trainer_holds_open_is_none(lab: Lab) -> None:
    lab.opens()
    lab.write("log", b"one", TRAINER)
    await lab.after(10)
    with (lab.folder / "log").open("ab") as file:  # by this process, of the same mount namespace
        file.write(b"two")
        file.flush()
        await lab.after(200)
        assert lab.told.seen == []
    lab.write("log", b"onetwothree", TRAINER)
    await lab.after(30)
    assert lab.told.seen == []
    assert lab.api.files["log"]["writer"] == "Trainer"


async def test_what_was_written_last_is_read_although_the_container_is_gone(lab: Lab) -> None:
    lab.opens()
    lab.write("step-1", b"one", TRAINER)
    await lab.after(10)
    lab.write("final", b"two", TRAINER)
    lab.process.kill()
    lab.process.wait()
    lab.watch.closed(lab.container)
    lab.lives = False
    await lab.after(2)
    assert lab.api.files["final"]["digest"].startswith("sha256:")
    assert not lab.watch._pods, "and then the pod is forgotten"


async def test_what_went_with_its_volume_has_a_manifest_without_a_digest(lab: Lab) -> None:
    lab.opens()
    lab.write("step-1", b"one", TRAINER)
    await lab.after(10)
    lab.write("final", b"two", TRAINER)
    await lab.after(1)
    lab.process.kill()
    lab.process.wait()
    lab.folder.rename(lab.folder.with_name("taken-off"))
    lab.lives = False
    await lab.after(2)
    assert "digest" not in lab.api.files["final"]
    assert not lab.watch._pods


async def test_a_file_renamed_after_its_last_event_is_found_at_the_end(lab: Lab) -> None:
    lab.opens()
    lab.write("final.tmp", b"two", TRAINER)
    await lab.after(1)
    (lab.folder / "final.tmp").rename(lab.folder / "final")
    lab.process.kill()
    lab.process.wait()
    lab.lives = False
    await lab.after(5)
    assert lab.api.files["final"]["digest"].startswith("sha256:")


async def test_while_the_api_server_is_away_manifests_wait(lab: Lab) -> None:
    lab.opens()
    lab.api.failing = KubeError(0, "Unreachable", "away")
    lab.write("step-1", b"one", TRAINER)
    await lab.after(20)
    assert lab.api.objects == {}
    lab.api.failing = None
    await lab.after(10)
    assert set(lab.api.files) == {"step-1"}
    lab.api.failing = KubeError(503, "Unavailable", "away")
    lab.write("step-2", b"two", TRAINER)
    await lab.after(20)
    lab.api.failing = None
    await lab.after(10)
    assert set(lab.api.files) == {"step-1", "step-2"}


async def test_a_manifest_that_is_refused_keeps_no_other_from_being_made(lab: Lab) -> None:
    lab.opens()
    await lab.after(12)
    lab.api.failing = KubeError(403, "Forbidden", "not yours")
    lab.write("step-1", b"one", TRAINER)
    await lab.after(10)
    lab.api.failing = None
    lab.write("step-2", b"two", TRAINER)
    await lab.after(10)
    assert set(lab.api.files) == {"step-2"}


async def test_an_agent_that_starts_anew_repeats_nothing_and_misses_nothing(lab: Lab) -> None:
    lab.opens()
    lab.write("step-1", b"one", TRAINER)
    await lab.after(10)
    lab.change("step-2", b"two")  # while no agent is there
    lab.watch = lab.agent()
    lab.opens()
    await lab.after(60)
    assert [f["path"] for o in lab.api.objects.values() for f in o["spec"]["files"]] == [
        "step-1",
        "step-2",
    ]
    assert lab.api.files["step-2"]["writer"] == "Unwatched"
    assert lab.told.seen == []


async def test_the_next_run_finds_what_was_changed_between_two_runs(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpointbook, "CLOCKS_APART", 0)
    lab.opens()
    lab.write("step-1", b"one", TRAINER)
    lab.write("step-2", b"two", TRAINER)
    await lab.after(10)
    lab.change("step-1", b"bad")
    resumed = Subject("research", POD.pod, POD.uid, "next-seal")
    lab.__post_init__()
    lab.watch._place_of = lambda _: Place(resumed, Volume("ckpt", ""))
    lab.opens()
    # What the last run wrote is none of this one's, whoever is asked.
    for obj in lab.api.objects.values():
        obj["spec"]["pod"]["uid"] = "another"
    await lab.after(60)
    assert [s.path for s in lab.told.seen] == [f"{lab.folder}/step-1"]


async def test_an_idle_pod_costs_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.opens()
    await lab.after(15)
    turns: list[int] = []
    monkeypatch.setattr(checkpointpod.PodFiles, "turn", lambda *_, **__: turns.append(1))
    await lab.after(10)
    assert turns == []
    assert lab.api.lists == 1


async def test_thousands_of_small_files_make_few_objects_in_a_few_turns(lab: Lab) -> None:
    lab.opens()
    for number in range(2000):
        lab.write(f"shards/{number}", b"x", TRAINER)
    await lab.after(20)
    assert len(lab.api.files) == 2000
    assert len(lab.api.objects) == 8


# Events ------------------------------------------------------------------------------------------


class Listens:
    def __init__(self) -> None:
        self.written: list[Written] = []

    def wrote(self, _: WatchedContainer, written: Written) -> None:
        self.written.append(written)

    def lost(self, container: WatchedContainer) -> None:
        raise AssertionError(container)


Take = Callable[..., bool]


@pytest.fixture
def taking(tmp_path: Path) -> tuple[Listens, Take]:
    """A checkpoints mount and a data mount on one device."""
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "data").mkdir()
    container = WatchedContainer(
        *("research", "w-0", "uid", "seal", "trainer", "c" * 64, 1),
        datetime.now(UTC),
        (
            RoleMount(str(tmp_path / "ckpt"), "checkpoints", "checkpoints"),
            RoleMount(str(tmp_path / "data"), "data", "data-x"),
        ),
        {},
    )
    listens = Listens()
    writes = CheckpointWrites(container, listens)
    with Tree("/") as root:
        writes.begin(root)

    def take(path: Path, lineage: Lineage | None = TRAINER) -> bool:
        path.write_text("x")
        with path.open("rb") as file:
            return writes.take(file.fileno(), lambda: lineage)

    return listens, take


def test_a_write_into_checkpoints_is_taken_with_its_name(
    taking: tuple[Listens, Take], tmp_path: Path
) -> None:
    listens, take = taking
    assert take(tmp_path / "ckpt" / "step-1")
    (written,) = listens.written
    assert (written.path, written.writer, written.lineage) == ("step-1", "Trainer", TRAINER)


@pytest.mark.parametrize(
    ("lineage", "writer"),
    [
        (SESSION, "Session"),
        (None, "Container"),
        (Lineage((replace(SHELL, container_id=None),)), "Outside"),  # /proc/PID/root/checkpoints
        (Lineage((replace(SHELL, container_id="d" * 64),)), "Outside"),
    ],
)
def test_who_wrote_is_told_by_where_they_came_from(
    taking: tuple[Listens, Take], tmp_path: Path, lineage: Lineage | None, writer: str
) -> None:
    listens, take = taking
    assert take(tmp_path / "ckpt" / "step-1", lineage)
    assert [w.writer for w in listens.written] == [writer]


def test_a_write_elsewhere_on_the_same_device_is_left_to_be_judged(
    taking: tuple[Listens, Take], tmp_path: Path
) -> None:
    listens, take = taking
    assert not take(tmp_path / "data" / "shard-1")
    assert listens.written == []


def test_a_flood_of_events_is_bounded_and_counted(lab: Lab) -> None:
    lab.opens()
    done = threading.Event()
    lab.watch._thread.submit(done.set)
    done.wait(10)
    pod = lab.watch._pods[POD.uid]
    for number in range(30_000):
        lab.watch.wrote(lab.container, Written((1, number), "", "Trainer"))
    assert len(pod.files._events) == 20_000
    assert pod.files._missed > 9_000
