"""A job that goes on from another run: which checkpoint is chosen, who may, what the pods get."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.unit import world
from tests.unit.controller.cluster import OURS, Cluster
from tests.unit.provenance.test_runstatements import wrote
from trainseal.provenance.checkpointmanifests import sign
from trainseal.provenance.resumepoints import Item, latest
from trainseal.provenance.seals import BoundUid, bind

Object = dict[str, Any]
CLAIM = "/api/v1/namespaces/research/persistentvolumeclaims/ckpt"
TAINT = {"finding": "file.changed", "message": "changed, by mallory"}
ACCEPTED = {"release": "r", "user": "carol", "reason": "seen"}
BEFORE = world.sealed_world().seal


@dataclass
class Stage(Cluster):
    """A run `before` of bob's that ended, with two checkpoints; a job of bob's that goes on."""

    def __post_init__(self) -> None:
        self.objects[CLAIM] = {
            "kind": "PersistentVolumeClaim",
            "metadata": {"uid": "u-2", "name": "ckpt", "namespace": "research"},
            "spec": {"volumeName": "pv-1"},
        }
        self.sealed()
        self.wrote("m-1", "step-1", 1)
        self.wrote("m-2", "step-2", 2)

    def sealed(self, requester: str = "bob@example.org", **status: Any) -> None:
        seal = copy.deepcopy(BEFORE)
        seal["metadata"] |= {"name": "before", "labels": {"trainseal.dev/job": "earlier"}}
        seal["spec"]["job"] |= {"uid": "uid-of-another", "name": "earlier"}
        seal["spec"]["requester"]["username"] = requester
        seal["status"] = {
            "binding": bind(
                world.SEAL_KEY,
                namespace="research",
                name="before",
                spec=seal["spec"],
                objects=(BoundUid("worker", "Job", "x", "uid-of-x"),),
                now=world.NOW,
            ),
            "phase": "Succeeded",
            "statement": "sha256:" + "0" * 64,
        } | status
        self.objects[f"{OURS}/sealedruns/before"] = seal

    def wrote(self, name: str, folder: str, minute: int, **status: Any) -> None:
        obj: Any = wrote(name, {f"{folder}/model": f"{minute}{minute}"}, minute).obj
        obj["metadata"] |= {
            "namespace": "research",
            "uid": f"uid-{name}",
            "labels": {"trainseal.dev/seal": "before"},
        }
        obj["spec"] |= {"sealedRun": "before", "volume": {"claim": "ckpt", "path": "runs/a"}}
        obj["status"] = {"standing": "Signed", "attested": {"claimUID": "u-2"}} | status
        obj["status"]["signature"] = sign(world.SEAL_KEY, obj, obj["status"], world.NOW)
        self.objects[f"{OURS}/checkpoints/{name}"] = obj

    def goes_on(self, run: str = "before", **checkpoints: Any) -> None:
        """The job is submitted, and looked at until it rests."""

        def change(job: Object) -> None:
            resume = {"from": {"run": run, "select": "LatestUntainted"}, "mountPath": "/resumed"}
            job["spec"]["checkpoints"] |= {"resume": resume} | checkpoints

        self.submit(change)
        self.reconcile()

    @property
    def made(self) -> Object:
        """The seal of the job."""
        (found,) = [
            o
            for o in self.objects.values()
            if o["kind"] == "SealedRun" and o["metadata"]["name"] != "before"
        ]
        return found

    @property
    def refusal(self) -> tuple[str, str]:
        (found,) = [c for c in self.status["conditions"] if c["type"] in ("Verified", "Sealed")]
        assert not [p for p in self.objects if "/sealedruns/" in p and not p.endswith("/before")]
        return found["reason"], self.status["message"]

    def pod(self) -> Object:
        found: Object = self.made["spec"]["roles"][0]["template"]["spec"]
        return found


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.mark.parametrize("run", ["before", "earlier"])
def test_the_last_checkpoint_is_in_the_seal_by_its_manifest(stage: Stage, run: str) -> None:
    stage.goes_on(run)
    obj = stage.objects[f"{OURS}/checkpoints/m-2"]
    assert stage.made["spec"]["resume"] == {
        "sealedRun": "before",
        "checkpoints": ["m-2"],
        "manifest": latest([Item(obj, good=True)]).manifest,
        "claim": "ckpt",
        "path": "runs/a/step-2",
    }


def test_gate_and_trainer_mount_it_read_only_and_the_gate_knows_each_file(stage: Stage) -> None:
    stage.goes_on()
    pod = stage.pod()
    (volume,) = [v for v in pod["volumes"] if v["name"] == "data-resume"]
    assert volume["persistentVolumeClaim"] == {"claimName": "ckpt", "readOnly": True}
    gate, trainer = pod["initContainers"][0], pod["containers"][0]
    for container, path in ((gate, "/gate/resume"), (trainer, "/resumed")):
        (mount,) = [m for m in container["volumeMounts"] if m["name"] == "data-resume"]
        assert (mount["mountPath"], mount["subPath"]) == (path, "runs/a/step-2")
        assert mount["readOnly"] is True
    plan = json.loads(gate["args"][-1])
    assert plan["resume"] == {
        "source": "/gate/resume",
        "files": [{"path": "model", "digest": "sha256:" + "22" * 32}],
        "whole": True,
    }


def test_a_job_that_names_no_run_has_none_of_it(stage: Stage) -> None:
    stage.submit()
    stage.reconcile()
    assert "resume" not in stage.made["spec"]
    assert "data-resume" not in {v["name"] for v in stage.pod()["volumes"]}


def test_a_tainted_one_is_passed_over_unless_it_was_signed_off(stage: Stage) -> None:
    stage.wrote("m-2", "step-2", 2, tainted=TAINT)
    stage.goes_on()
    assert stage.made["spec"]["resume"]["path"] == "runs/a/step-1"


def test_one_that_was_signed_off_is_taken(stage: Stage) -> None:
    stage.wrote("m-2", "step-2", 2, tainted=TAINT, accepted=ACCEPTED)
    stage.goes_on()
    assert stage.made["spec"]["resume"]["path"] == "runs/a/step-2"


def _edited(stage: Stage) -> None:
    for name in ("m-1", "m-2"):
        stage.objects[f"{OURS}/checkpoints/{name}"]["spec"]["files"][0]["size"] = 9


REFUSED: dict[str, tuple[Callable[[Stage], object], str, str]] = {
    "somebody else's run": (
        lambda s: s.sealed("alice@example.org"),
        "ResumeNotAllowed",
        "was asked for by alice@example.org",
    ),
    "no such run": (
        lambda s: s.objects.pop(f"{OURS}/sealedruns/before"),
        "NothingToResume",
        "found no run before",
    ),
    "a seal that somebody edited": (
        lambda s: s.objects[f"{OURS}/sealedruns/before"]["spec"].update(run=9),
        "NothingToResume",
        "found no run before",
    ),
    "manifests that somebody edited": (_edited, "NothingToResume", "is not signed"),
    "a claim that was made anew": (
        lambda s: s.objects[CLAIM]["metadata"].update(uid="u-9"),
        "NothingToResume",
        "was made anew",
    ),
    "a claim that is gone": (lambda s: s.objects.pop(CLAIM), "NothingToResume", "is gone"),
    "a run that is on": (
        lambda s: s.objects[f"{OURS}/sealedruns/before"]["status"].pop("statement"),
        "ResumeFromLiveRun",
        "waiting",
    ),
}


@pytest.mark.parametrize(("change", "reason", "words"), REFUSED.values(), ids=REFUSED)
def test_where_it_cannot_go_on_nothing_is_sealed(
    stage: Stage, change: Callable[[Stage], object], reason: str, words: str
) -> None:
    change(stage)
    stage.goes_on()
    found, said = stage.refusal
    assert found == reason
    assert words in said


def test_whom_a_policy_names_may_go_on_from_others_runs(stage: Stage) -> None:
    stage.sealed("alice@example.org")
    stage.policy = world.policy(checkpoints={"mayResume": {"users": ["bob@example.org"]}})
    stage.goes_on()
    assert stage.made["spec"]["resume"]["sealedRun"] == "before"


PICKLE = {"format": "pickle", "imports": ["posix.system", "torch.Size"], "moreImports": 4}
FORMATS: dict[str, tuple[Object, Object, Object, str]] = {
    "a pickle": (PICKLE, {}, {}, "step-2/model: found pickle that would import posix.system"),
    "a pickle of which something cannot be told": (
        {"format": "pickle", "doubt": "a name that it computes"},
        {},
        {},
        "found pickle (a name that it computes)",
    ),
    "what is not known": ({"format": "unknown"}, {}, {}, "a format that is not known"),
    "what nobody judged": ({}, {}, {}, "nobody judged its format"),
    "what the policy does not accept": (
        {"format": "dcp"},
        {"formats": ["safetensors"]},
        {},
        "found dcp; expected safetensors",
    ),
    "a pickle that the job does not load": (
        PICKLE,
        {"formats": ["pickle"]},
        {"format": ["dcp"]},
        "and 4 more; expected dcp",
    ),
    "what the job does not load": (
        {"format": "dcp"},
        {},
        {"format": ["safetensors"]},
        "found dcp; expected safetensors",
    ),
}
ACCEPTED_FORMATS: dict[str, tuple[Object, Object, Object]] = {
    "safetensors": ({"format": "safetensors"}, {}, {}),
    "a distributed checkpoint": ({"format": "dcp"}, {}, {"format": ["dcp"]}),
    "one where pickles are accepted": (
        {"format": "dcp"},
        {"formats": ["pickle"]},
        {"format": ["dcp"]},
    ),
    "text beside it": ({"format": "text"}, {"formats": ["safetensors"]}, {}),
    "a pickle where the policy says so": (PICKLE, {"formats": ["pickle"]}, {}),
    "anything where pickles are": ({"format": "unknown"}, {"formats": ["pickle"]}, {}),
}


def formatted(stage: Stage, file: Object, policy: Object) -> None:
    """The last checkpoint is of that format."""
    obj = stage.objects[f"{OURS}/checkpoints/m-2"]
    obj["spec"]["files"][0].pop("format")
    obj["spec"]["files"][0] |= file
    obj["status"]["signature"] = sign(world.SEAL_KEY, obj, obj["status"], world.NOW)
    stage.policy = world.policy(checkpoints=policy)


@pytest.mark.parametrize(("file", "policy", "job", "words"), FORMATS.values(), ids=FORMATS)
def test_what_is_of_another_format_is_not_gone_on_from(
    stage: Stage, file: Object, policy: Object, job: Object, words: str
) -> None:
    formatted(stage, file, policy)
    stage.goes_on(**job)
    found, said = stage.refusal
    assert found == "CheckpointFormat"
    assert words in said


@pytest.mark.parametrize(("file", "policy", "job"), ACCEPTED_FORMATS.values(), ids=ACCEPTED_FORMATS)
def test_what_is_of_a_format_that_is_accepted_is_gone_on_from(
    stage: Stage, file: Object, policy: Object, job: Object
) -> None:
    formatted(stage, file, policy)
    stage.goes_on(**job)
    assert stage.made["spec"]["resume"]["path"] == "runs/a/step-2"


def test_a_format_that_somebody_wrote_into_a_manifest_is_not_believed(stage: Stage) -> None:
    formatted(stage, PICKLE, {})
    obj = stage.objects[f"{OURS}/checkpoints/m-2"]
    obj["spec"]["files"][0]["format"] = "safetensors"
    stage.goes_on()
    assert stage.made["spec"]["resume"]["path"] == "runs/a/step-1"


def test_without_its_marker_a_checkpoint_was_cut_short(stage: Stage) -> None:
    stage.goes_on(complete={"marker": ".done"})
    assert "has no .done" in stage.refusal[1]


def test_a_suspended_run_does_not_go_on_from_one_that_is_tainted_by_now(stage: Stage) -> None:
    stage.goes_on()
    stage.settle()
    stage.edit(suspend=True)
    stage.settle()
    stage.wrote("m-2", "step-2", 2, tainted=TAINT)
    stage.edit(suspend=False)
    stage.reconcile()
    assert "Checkpoint m-2, which it goes on from, is tainted" in stage.status["message"]
    stage.wrote("m-2", "step-2", 2, tainted=TAINT, accepted=ACCEPTED)
    stage.reconcile()
    assert "tainted" not in stage.status["message"]


def test_nor_where_somebody_took_the_taint_off_the_manifest(stage: Stage) -> None:
    stage.goes_on()
    stage.settle()
    stage.edit(suspend=True)
    stage.settle()
    stage.wrote("m-2", "step-2", 2, tainted=TAINT)
    del stage.objects[f"{OURS}/checkpoints/m-2"]["status"]["tainted"]
    stage.edit(suspend=False)
    stage.reconcile()
    assert "m-2, which it goes on from, is not as the operator signed it" in stage.status["message"]
