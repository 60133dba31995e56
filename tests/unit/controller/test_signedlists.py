"""The signed list of what a run's checkpoints are, kept where its gates mount it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.unit import world
from tests.unit.provenance.test_runstatements import wrote
from trainseal.api.sealedrun import SealedRun
from trainseal.cluster.api import NotFoundError
from trainseal.cluster.settings import Settings
from trainseal.controller.signedlists import SignedLists
from trainseal.controller.world import World
from trainseal.provenance.checkpointmanifests import sign
from trainseal.provenance.signedfiles import SignedFile, read

Object = dict[str, Any]
MAPS = "/api/v1/namespaces/research/configmaps"
ASKING = {"name": "signed-list", "configMap": {"name": "x", "optional": True}}


@dataclass
class Stage:
    """A run whose gates ask for the list, with one manifest; the API server's part."""

    objects: dict[str, Object] = field(default_factory=dict)
    manifests: list[Object] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    now: datetime = world.NOW

    def __post_init__(self) -> None:
        seal = copy.deepcopy(world.sealed_world().seal)
        seal["spec"]["roles"][0]["template"]["spec"].setdefault("volumes", []).append(ASKING)
        self.seal = seal
        self.name = seal["metadata"]["name"]
        self.path = f"{MAPS}/{self.name}-checkpoints"
        self.ring = world.keyring(world.SEAL_KEY)
        self.lists = SignedLists(
            World(
                kube=self,  # type: ignore[arg-type]
                settings=Settings.model_validate({"gateImage": world.GATE_IMAGE}),
                cluster=world.CLUSTER,
                seal_key=world.SEAL_KEY,
                ticket_keyring=dict,
                seal_keyring=lambda: self.ring,
                policies=lambda _: (world.policy(),),
                broken_policies=lambda: (),
                verifier=None,  # type: ignore[arg-type]
                clock=lambda: self.now,
            )
        )
        self.wrote("m-1", "step-1/model")

    def wrote(self, name: str, path: str) -> None:
        obj: Any = wrote(name, {path: "11"}, len(self.manifests)).obj
        obj["metadata"] |= {"namespace": "research", "resourceVersion": name}
        obj["spec"]["sealedRun"] = self.name
        obj["spec"]["files"][0]["changed"] = "2026-11-23T12:00:00Z"
        obj["status"] = {"standing": "Signed"}
        obj["status"]["signature"] = sign(world.SEAL_KEY, obj, obj["status"], world.NOW)
        self.manifests.append(obj)

    async def get(self, path: str) -> Object:
        self.calls.append(f"GET {path}")
        if path not in self.objects:
            raise NotFoundError(404, "NotFound", path)
        return copy.deepcopy(self.objects[path])

    async def request(self, _: str, path: str, **__: Any) -> Object:
        self.calls.append(f"LIST {path}")
        return {"items": copy.deepcopy(self.manifests), "metadata": {}}

    async def create(self, path: str, obj: Object) -> Object:
        self.calls.append(f"POST {path}")
        obj = copy.deepcopy(obj)
        obj["metadata"]["uid"] = "uid-of-list"
        self.objects[f"{path}/{obj['metadata']['name']}"] = obj
        return obj

    async def patch(self, path: str, patch: list[Object], _: str) -> Object:
        self.calls.append(f"PATCH {path}")
        obj = self.objects[path]
        assert patch[0]["value"] == obj["metadata"]["uid"]
        obj["data"] = patch[1]["value"]
        return obj

    async def look(self) -> float | None:
        self.calls.clear()
        key = ("research", self.name)
        return await self.lists.keep(key, SealedRun.parse(self.seal), self.manifests)

    @property
    def listed(self) -> dict[str, SignedFile]:
        text = self.objects[self.path]["data"]["signed"]
        return read(self.ring, "research", self.name, text)


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_what_manifests_say_is_listed_for_the_runs_gates(stage: Stage) -> None:
    await stage.look()
    assert stage.listed["step-1/model"].digest == "sha256:" + "11" * 32
    metadata = stage.objects[stage.path]["metadata"]
    assert metadata["labels"]["trainseal.dev/seal"] == stage.name
    assert metadata["ownerReferences"][0]["uid"] == stage.seal["spec"]["job"]["uid"]


async def test_a_newer_manifest_is_added_and_what_is_the_same_is_not_written(
    stage: Stage,
) -> None:
    await stage.look()
    await stage.look()
    assert stage.calls == []
    stage.wrote("m-2", "step-2/model")
    again = await stage.look()
    assert set(stage.listed) == {"step-1/model"}
    assert again is not None
    stage.now += timedelta(seconds=again)
    await stage.look()
    assert set(stage.listed) == {"step-1/model", "step-2/model"}


@pytest.mark.parametrize("change", ["deleted", "edited"])
async def test_a_list_that_an_editor_spoilt_is_made_again(stage: Stage, change: str) -> None:
    await stage.look()
    if change == "deleted":
        del stage.objects[stage.path]
    else:
        stage.objects[stage.path]["data"] = {"signed": "e30=.e30="}
    stage.now += timedelta(minutes=6)
    await stage.look()
    assert set(stage.listed) == {"step-1/model"}


async def test_a_manifest_that_somebody_edited_is_not_listed(stage: Stage) -> None:
    stage.wrote("m-2", "step-2/model")
    stage.manifests[1]["spec"]["files"][0]["digest"] = "sha256:" + "e" * 64
    await stage.look()
    assert set(stage.listed) == {"step-1/model"}


async def test_an_object_of_somebody_elses_is_left_alone(stage: Stage) -> None:
    stage.objects[stage.path] = {"metadata": {"uid": "u"}, "data": {"a": "b"}}
    await stage.look()
    assert stage.objects[stage.path]["data"] == {"a": "b"}


async def test_where_no_gate_asks_there_is_none(stage: Stage) -> None:
    stage.seal["spec"]["roles"][0]["template"]["spec"]["volumes"].remove(ASKING)
    await stage.look()
    assert stage.calls == []
