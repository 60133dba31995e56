"""The controller on a run's checkpoints: believed, signed, tainted, signed off."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.sample_objects import checkpoint
from tests.unit import world
from tests.unit.controller.test_taints import release, tainted
from trainseal.api.driftreport import PodIdentity
from trainseal.api.sealedrun import RunTaint, SealedRun
from trainseal.cluster.api import NotFoundError
from trainseal.cluster.settings import Settings
from trainseal.controller.belief import PodFact
from trainseal.controller.checkpoints import Checkpoints, Outcome, RunFacts, shape
from trainseal.controller.world import World
from trainseal.provenance import outputbundles
from trainseal.provenance.checkpointmanifests import verify
from trainseal.provenance.keys import private_key_of

Object = dict[str, Any]
NODE, POD_UID = "node-1", "uid-of-pod"
BASE = "/apis/trainseal.dev/v1alpha1/namespaces/research/checkpoints"
CLAIM = "/api/v1/namespaces/research/persistentvolumeclaims/ckpt"
CREATED = "2026-11-23T12:00:05Z"


@dataclass
class Stage:
    """A sealed run with a pod on NODE, and its checkpoints as the API server has them."""

    objects: dict[str, Object] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    taint: RunTaint | None = None
    releases: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        sealed = world.sealed_world()
        self.seal, self.name = sealed.seal, sealed.seal["metadata"]["name"]
        self.pod: PodFact | None = PodFact(
            "w-0", POD_UID, NODE, frozenset({world.OBJECT_UID}), self.name, running=True
        )
        claim = {"metadata": {"uid": "claim-uid"}, "spec": {"volumeName": "pv-1"}}
        self.objects[CLAIM] = claim
        self.world = World(
            kube=self,  # type: ignore[arg-type]
            settings=Settings.model_validate({"gateImage": world.GATE_IMAGE}),
            cluster=world.CLUSTER,
            seal_key=world.SEAL_KEY,
            ticket_keyring=dict,
            seal_keyring=lambda: world.keyring(world.SEAL_KEY),
            policies=lambda _: (world.policy(),),
            broken_policies=lambda: (),
            verifier=None,  # type: ignore[arg-type]
            clock=lambda: world.NOW + timedelta(minutes=1),
        )
        self.checkpoints = Checkpoints(self.world)

    # The API server's part ------------------------------------------------------------------------

    async def get(self, path: str) -> Object:
        self.calls.append(f"GET {path}")
        if path not in self.objects:
            raise NotFoundError(404, "NotFound", path)
        return copy.deepcopy(self.objects[path])

    async def patch(self, path: str, patch: list[Object], kind: str) -> Object:
        self.calls.append(f"PATCH {path}")
        assert kind == "application/json-patch+json"
        obj = self.objects[path.removesuffix("/status")]
        test, add = patch
        assert test["value"] == obj["metadata"]["uid"]
        obj["status"] = copy.deepcopy(add["value"])
        return obj

    async def delete(self, path: str, *, uid: str) -> None:
        assert self.objects.pop(path)["metadata"]["uid"] == uid

    # What tests do --------------------------------------------------------------------------------

    def made(self, name: str = "w-0-aaaaaaaa-1", **spec: Any) -> str:
        """A Checkpoint as an agent creates it."""
        obj = checkpoint(name)
        obj["metadata"] |= {
            "namespace": "research",
            "uid": f"uid-of-{name}",
            "creationTimestamp": CREATED,
        }
        obj["spec"] |= {
            "sealedRun": self.name,
            "node": NODE,
            "pod": {"name": "w-0", "uid": POD_UID},
            "volume": {"claim": "ckpt", "path": "runs/char-lm"},
            "files": obj["spec"]["files"][:1],
        }
        obj["spec"] |= spec
        self.objects[f"{BASE}/{name}"] = obj
        return name

    def status(self, name: str = "w-0-aaaaaaaa-1") -> Object:
        found: Object = self.objects[f"{BASE}/{name}"]["status"]
        return found

    async def look(self) -> Outcome:
        """One look at the run."""
        self.calls.clear()

        async def find(_: str, pod: PodIdentity) -> PodFact | None:
            return self.pod if self.pod is not None and self.pod.uid == pod.uid else None

        facts = RunFacts(
            key=("research", self.name),
            seal=self.seal,
            sealed=SealedRun.parse(self.seal),
            bound=[world.OBJECT_UID],
            taint=self.taint,
            releases=self.releases,
            find=find,
        )
        objects = [o for p, o in self.objects.items() if p.startswith(BASE)]
        return await self.checkpoints.reconcile(facts, [shape(copy.deepcopy(o)) for o in objects])


@pytest.fixture
def stage() -> Stage:
    return Stage()


def keyring() -> Any:
    return world.keyring(world.SEAL_KEY)


async def test_a_checkpoint_of_a_pod_of_the_run_is_signed(stage: Stage) -> None:
    name = stage.made()
    await stage.look()
    status = stage.status()
    assert status["standing"] == "Signed"
    assert "tainted" not in status
    assert status["attested"]["claimUID"] == "claim-uid"
    assert status["attested"]["persistentVolume"] == "pv-1"
    assert status["attested"]["created"] == CREATED
    assert verify(keyring(), stage.objects[f"{BASE}/{name}"])


async def test_what_is_as_it_should_be_is_left_alone(stage: Stage) -> None:
    stage.made()
    await stage.look()
    before = copy.deepcopy(stage.objects)
    await stage.look()
    assert stage.calls == []
    assert stage.objects == before


async def test_a_finding_that_came_to_be_known_later_taints_what_was_signed(stage: Stage) -> None:
    name = stage.made()
    await stage.look()
    stage.taint = tainted()
    await stage.look()
    assert stage.status()["tainted"]["finding"] == "file.changed"
    assert verify(keyring(), stage.objects[f"{BASE}/{name}"])
    await stage.look()
    assert stage.calls == []


async def test_what_was_completed_before_the_finding_stays_clean(stage: Stage) -> None:
    stage.made()
    stage.taint = tainted(since=world.NOW + timedelta(seconds=30))
    await stage.look()
    assert "tainted" not in stage.status()


async def test_a_person_signs_off_what_they_name(stage: Stage) -> None:
    one, other = stage.made(), stage.made("w-0-aaaaaaaa-2")
    stage.taint = tainted()
    await stage.look()
    stage.releases = [release(one)]
    outcome = await stage.look()
    assert outcome.accepted
    assert stage.status(one)["accepted"]["user"] == "oncall"
    assert "accepted" not in stage.status(other)
    assert verify(keyring(), stage.objects[f"{BASE}/{one}"])
    assert not (await stage.look()).accepted


async def test_a_sign_off_that_is_taken_away_counts_no_more(stage: Stage) -> None:
    one = stage.made()
    stage.taint, stage.releases = tainted(), [release(one)]
    await stage.look()
    stage.releases = []
    await stage.look()
    assert "accepted" not in stage.status()


@pytest.mark.parametrize("part", ["tainted", "signature", "standing"])
async def test_what_somebody_takes_off_a_status_is_put_back(stage: Stage, part: str) -> None:
    name = stage.made()
    stage.taint = tainted()
    await stage.look()
    del stage.status()[part]
    await stage.look()
    assert stage.status()["tainted"]["finding"] == "file.changed"
    assert verify(keyring(), stage.objects[f"{BASE}/{name}"])


async def test_what_was_signed_stays_so_when_its_pod_is_gone(stage: Stage) -> None:
    stage.made()
    await stage.look()
    stage.pod, stage.taint = None, tainted()
    await stage.look()
    assert stage.status()["standing"] == "Signed"
    assert stage.status()["tainted"]


async def test_the_word_of_an_agent_whose_pod_nobody_saw_is_not_signed(stage: Stage) -> None:
    stage.pod = None
    stage.made()
    await stage.look()
    status = stage.status()
    assert status["standing"] == "Unproved"
    assert "signature" not in status
    await stage.look()
    assert stage.calls == []


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"node": "node-2"}, "node-2"),
        ({"volume": {"claim": "other", "path": "runs/char-lm"}}, "other"),
        ({"volume": {"claim": "ckpt"}}, "the top"),
        ({"volume": {"path": "runs/char-lm"}}, "a directory of the pod"),
    ],
)
async def test_the_word_of_another_agent_is_dropped_and_told(
    stage: Stage, spec: Object, words: str
) -> None:
    stage.taint = tainted()
    stage.made(**spec)
    outcome = await stage.look()
    status = stage.status()
    assert status["standing"] == "Dropped"
    assert words in status["message"]
    assert "signature" not in status
    assert "tainted" not in status, "whoever has an agent's token bars no job by it"
    (found,) = outcome.astray
    assert found.id == "watch.misreported"
    assert not (await stage.look()).astray, "it is told once"


async def test_files_that_were_never_read_are_tainted_and_not_signed(stage: Stage) -> None:
    file = {k: v for k, v in checkpoint()["spec"]["files"][0].items() if k != "digest"}
    stage.taint = tainted()
    stage.made(files=[file])
    await stage.look()
    status = stage.status()
    assert (status["standing"], bool(status["tainted"])) == ("Unread", True)
    assert "signature" not in status


async def test_a_forged_signature_does_not_make_a_checkpoint_the_runs(stage: Stage) -> None:
    """Its status says that it was signed; its content is another agent's."""
    name = stage.made()
    await stage.look()
    forged = copy.deepcopy(stage.status())
    stage.objects.pop(f"{BASE}/{name}")
    stage.made(node="node-2")
    stage.objects[f"{BASE}/{name}"]["status"] = forged
    stage.taint = tainted()
    await stage.look()
    assert stage.status()["standing"] == "Dropped"


async def test_a_claim_that_is_gone_is_not_attested(stage: Stage) -> None:
    del stage.objects[CLAIM]
    stage.made()
    await stage.look()
    assert "claimUID" not in stage.status()["attested"]
    assert stage.status()["standing"] == "Signed"


async def test_the_run_is_judged_once_all_its_checkpoints_were_looked_at(stage: Stage) -> None:
    obj = stage.objects[f"{BASE}/{stage.made()}"]
    stage.world.volumes.listen("ADDED", ("research", "x"), shape(obj))
    assert stage.world.volumes.matter()
    await stage.look()
    assert not stage.world.volumes.matter()


async def test_manifests_of_files_that_are_gone_go_beyond_a_few(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainseal.controller.checkpoints.KEEP", 2)
    monkeypatch.setattr("trainseal.controller.checkpointretention.YOUNG", timedelta())
    for number in range(4):
        stage.made(f"m-{number}")
    await stage.look()
    await stage.look()
    left = sorted(p.rpartition("/")[2] for p in stage.objects if p.startswith(BASE))
    assert left == ["m-2", "m-3"]


OUTPUT_KEY = private_key_of(ec.generate_private_key(ec.SECP256R1()))


async def test_what_is_signed_gets_a_bundle_for_model_signing(stage: Stage) -> None:
    stage.checkpoints = Checkpoints(replace(stage.world, output_key=OUTPUT_KEY))
    stage.made()
    await stage.look()
    obj = stage.objects[f"{BASE}/w-0-aaaaaaaa-1"]
    tree = outputbundles.tree_of("w-0-aaaaaaaa-1", outputbundles.files_of_checkpoint(obj))
    signed_at = obj["status"]["signature"]["signedAt"]
    ring = world.keyring(OUTPUT_KEY)
    assert outputbundles.bundle(ring, tree, obj["status"]["bundle"], signed_at)


async def test_what_is_tainted_has_none_for_it_knows_of_no_taint(stage: Stage) -> None:
    stage.checkpoints = Checkpoints(replace(stage.world, output_key=OUTPUT_KEY))
    name = stage.made()
    await stage.look()
    assert "bundle" in stage.status()
    stage.taint = tainted()
    await stage.look()
    assert "bundle" not in stage.status()
    stage.releases = [release(name)]
    await stage.look()
    assert "bundle" in stage.status()


async def test_names_that_it_has_no_place_for_have_none_and_are_signed_all_the_same(
    stage: Stage,
) -> None:
    stage.checkpoints = Checkpoints(replace(stage.world, output_key=OUTPUT_KEY))
    obj = checkpoint("x")["spec"]["files"][0]
    stage.made(files=[obj | {"path": "a"}, obj | {"path": "A"}])
    await stage.look()
    assert stage.status()["standing"] == "Signed"
    assert "bundle" not in stage.status()
