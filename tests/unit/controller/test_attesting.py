"""The statement on a run that has ended: when it is made, what it says, when it is made anew."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.unit import world
from tests.unit.controller.cluster import ENGINE, Cluster
from tests.unit.controller.test_taints import told as seen
from tests.unit.provenance.test_runstatements import ACCEPTED, TAINT, wrote
from trainseal.cluster.api import NotFoundError
from trainseal.cluster.settings import Settings
from trainseal.controller.attesting import SETTLES, Attesting
from trainseal.controller.checkpoints import shape
from trainseal.controller.runs import Runs
from trainseal.controller.sightings import Sighting
from trainseal.controller.world import World
from trainseal.provenance import outputbundles, runstatements
from trainseal.provenance.checkpointmanifests import sign
from trainseal.provenance.keys import private_key_of
from trainseal.provenance.statements import Statement

Object = dict[str, Any]
OURS = "/apis/trainseal.dev/v1alpha1/namespaces/research"
RING = world.keyring(world.SEAL_KEY)
OUTPUT_KEY = private_key_of(ec.generate_private_key(ec.SECP256R1()))
ENDED = world.NOW + timedelta(minutes=30)


@dataclass
class Stage:
    """A run that has ended, its manifests as the API server has them, and a clock."""

    agents: bool = True
    objects: dict[str, Object] = field(default_factory=dict)
    manifests: dict[str, Object] = field(default_factory=dict)
    sightings: list[Sighting] = field(default_factory=list)
    reports: list[Object] = field(default_factory=list)
    now: Any = ENDED + SETTLES
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        seal = copy.deepcopy(world.sealed_world().seal)
        seal["status"] |= {"phase": "Succeeded", "completionTime": ENDED.isoformat()}
        self.name = seal["metadata"]["name"]
        self.path = f"{OURS}/runstatements/{self.name}"
        self.objects[f"{OURS}/sealedruns/{self.name}"] = seal
        self.world = World(
            kube=self,  # type: ignore[arg-type]
            settings=Settings.model_validate(
                {"gateImage": world.GATE_IMAGE, "agents": {"enabled": self.agents}}
            ),
            cluster=world.CLUSTER,
            seal_key=world.SEAL_KEY,
            ticket_keyring=dict,
            seal_keyring=lambda: RING,
            policies=lambda _: (world.policy(),),
            broken_policies=lambda: (),
            verifier=None,  # type: ignore[arg-type]
            clock=lambda: self.now,
            output_key=OUTPUT_KEY,
        )

    async def get(self, path: str) -> Object:
        self.calls.append(f"GET {path}")
        if path not in self.objects:
            raise NotFoundError(404, "NotFound", path)
        return copy.deepcopy(self.objects[path])

    async def request(self, method: str, path: str, *, query: Object) -> Object:
        self.calls.append(f"LIST {path}")
        assert method == "GET"
        assert path == f"{OURS}/checkpoints"
        found = list(self.manifests.values())
        start = int(query.get("continue", 0))
        more = {"continue": str(start + 1)} if start + 1 < len(found) else {}
        return {"items": copy.deepcopy(found[start : start + 1]), "metadata": more}

    async def create(self, path: str, obj: Object, **_: Any) -> Object:
        self.calls.append(f"POST {path}")
        stored = copy.deepcopy(obj)
        stored["metadata"]["uid"] = "uid-1"
        self.objects[f"{path}/{obj['metadata']['name']}"] = stored
        return copy.deepcopy(stored)

    async def patch(self, path: str, patch: Any, *_: str) -> Object:
        self.calls.append(f"PATCH {path}")
        obj = self.objects[path.removesuffix("/status")]
        if isinstance(patch, list):
            obj["status"] = copy.deepcopy(patch[1]["value"])
        else:
            obj["status"] |= patch["status"]
        return obj

    # What tests do --------------------------------------------------------------------------------

    @property
    def seal(self) -> Object:
        return self.objects[f"{OURS}/sealedruns/{self.name}"]

    def wrote(self, name: str = "m-1", digits: str = "11", minute: int = 0, **status: Any) -> None:
        """A manifest that the controller signed."""
        obj: Any = wrote(name, {f"step-{name}/model": digits}, minute).obj
        obj["metadata"] |= {"namespace": "research", "uid": f"uid-{name}"}
        obj["spec"]["sealedRun"] = self.name
        obj["status"] = {"standing": "Signed"} | status
        obj["status"]["signature"] = sign(world.SEAL_KEY, obj, obj["status"], world.NOW)
        self.manifests[name] = obj

    async def look(self) -> float | None:
        self.calls.clear()
        shapes = [shape(copy.deepcopy(m)) for m in self.manifests.values()]
        return await Attesting(self.world).reconcile(
            ("research", self.name), copy.deepcopy(self.seal), self.sightings, self.reports, shapes
        )

    def statement(self) -> Statement:
        """What stands, verified."""
        return runstatements.read(RING, "research", self.name, self.objects[self.path]["status"])

    def wrote_anything(self) -> bool:
        return any(c.startswith(("POST", "PATCH")) for c in self.calls)


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def unwatched() -> Stage:
    """In a cluster without agents."""
    return Stage(agents=False, now=ENDED)


async def test_a_run_that_ended_gets_a_statement_over_its_outputs(stage: Stage) -> None:
    stage.wrote()
    assert await stage.look() is None
    statement = stage.statement()
    assert [s.name for s in statement.subjects] == ["step-m-1/model"]
    assert statement.predicate["outcome"] == "Succeeded"
    digest = runstatements.digest_of(statement.payload)
    assert stage.seal["status"]["statement"] == digest


async def test_model_signing_gets_a_bundle_of_the_same_files(stage: Stage) -> None:
    stage.wrote()
    await stage.look()
    statement, status = stage.statement(), stage.objects[stage.path]["status"]
    tree = outputbundles.tree_of(stage.name, outputbundles.files_of_statement(statement))
    ring = world.keyring(OUTPUT_KEY)
    assert outputbundles.bundle(ring, tree, status["outputs"], status["signedAt"])


async def test_nothing_is_said_before_agents_have_sent_what_was_written_last(stage: Stage) -> None:
    stage.now = ENDED + timedelta(seconds=15)
    assert await stage.look() == SETTLES.total_seconds() - 15
    assert not stage.wrote_anything()


async def test_where_there_are_no_agents_nobody_is_waited_for(unwatched: Stage) -> None:
    assert await unwatched.look() is None
    watch: Any = unwatched.statement().predicate["watch"]
    assert watch["agents"] is False


@pytest.mark.parametrize("phase", ["Bound", "Sealed"])
async def test_a_run_that_is_on_has_none(stage: Stage, phase: str) -> None:
    stage.seal["status"]["phase"] = phase
    assert await stage.look() is None
    assert not stage.wrote_anything()


async def test_a_run_that_was_never_bound_has_none(stage: Stage) -> None:
    del stage.seal["status"]["binding"]
    await stage.look()
    assert not stage.wrote_anything()


async def test_a_second_look_writes_nothing_and_lists_nothing(stage: Stage) -> None:
    stage.wrote("m-1")
    stage.wrote("m-2", "22", 1, tainted=TAINT)
    await stage.look()
    await stage.look()
    assert stage.calls == [f"GET {stage.path}"]


async def test_what_died_before_the_seal_was_told_is_told_by_the_next(stage: Stage) -> None:
    await stage.look()
    del stage.seal["status"]["statement"]
    await stage.look()
    assert stage.calls == [
        f"GET {stage.path}",
        f"PATCH {OURS}/sealedruns/{stage.name}/status",
    ]


async def test_a_late_finding_makes_it_anew(stage: Stage) -> None:
    stage.wrote()
    await stage.look()
    stage.sightings = [seen(severity="Critical")]
    await stage.look()
    statement = stage.statement()
    watch: Any = statement.predicate["watch"]
    assert [f["id"] for f in watch["findings"]] == ["file.changed"]
    assert runstatements.number_of(statement) == 2
    assert stage.objects[stage.path]["status"]["findings"] == "file.changed"
    await stage.look()
    assert not stage.wrote_anything()


async def test_files_that_are_tainted_later_are_subjects_no_more(stage: Stage) -> None:
    stage.wrote()
    await stage.look()
    assert runstatements.is_output(stage.statement())
    stage.wrote(tainted=TAINT)
    await stage.look()
    assert not runstatements.is_output(stage.statement())
    assert "outputs" not in stage.objects[stage.path]["status"]
    # Its twin: somebody signs them off.
    stage.wrote(tainted=TAINT, accepted=ACCEPTED)
    await stage.look()
    assert runstatements.is_output(stage.statement())


async def test_a_manifest_that_comes_late_is_added(stage: Stage) -> None:
    stage.wrote()
    await stage.look()
    stage.wrote("m-2", "22", 1)
    await stage.look()
    assert len(stage.statement().subjects) == 2


async def test_a_manifest_that_was_edited_is_no_output_and_is_counted(stage: Stage) -> None:
    stage.wrote()
    stage.manifests["m-1"]["spec"]["files"][0]["digest"] = "sha256:" + "f" * 64
    await stage.look()
    statement = stage.statement()
    assert not runstatements.is_output(statement)
    outputs: Any = statement.predicate["outputs"]
    assert outputs["unsigned"] == 1


async def test_a_manifest_of_another_run_is_none_of_this_ones(stage: Stage) -> None:
    stage.wrote()
    obj = stage.manifests["m-1"]
    obj["spec"]["sealedRun"] = "other"
    obj["status"]["signature"] = sign(world.SEAL_KEY, obj, obj["status"], world.NOW)
    await stage.look()
    assert not runstatements.is_output(stage.statement())


async def test_a_statement_that_somebody_edited_is_made_anew(stage: Stage) -> None:
    stage.sightings = [seen(severity="Critical")]
    await stage.look()
    status = stage.objects[stage.path]["status"]
    status["payload"] = status["payload"].replace("file.changed", "file.spotless")
    await stage.look()
    watch: Any = stage.statement().predicate["watch"]
    assert [f["id"] for f in watch["findings"]] == ["file.changed"]


def test_whoever_looks_at_runs_tells_of_those_without_a_statement() -> None:
    told: list[tuple[str, str]] = []
    cluster = Cluster()
    cluster.submit()
    cluster.settle()
    cluster.works()
    cluster.works()
    cluster.settle()
    assert cluster.objects[ENGINE]["status"]["succeeded"]
    name = cluster.seal["metadata"]["name"]

    def look() -> None:
        runs = Runs(cluster.world(), cluster.versions(), None, told.append)
        world.run(runs.reconcile(("research", "char-lm")))

    look()
    assert told == [("research", name)]
    cluster.seal["status"]["statement"] = "sha256:" + "0" * 64
    look()
    assert told == [("research", name)]
