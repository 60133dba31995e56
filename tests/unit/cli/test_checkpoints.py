"""`trainseal checkpoints`: listed, compared with a folder, signed off."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.sample_objects import checkpoint, status_of
from tests.unit import world
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_kube import FakeKube, connecting_to
from trainseal.cluster import api
from trainseal.cluster.api import KubeError
from trainseal.provenance.checkpointmanifests import sign

NAMESPACE = "/apis/trainseal.dev/v1alpha1/namespaces/research"
REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
KEYRING = "/api/v1/namespaces/trainseal-system/configmaps/trainseal-keyring"
ARGUMENTS = ("-n", "research", "--kubeconfig", "unused")
ENTRY = {
    "keyID": world.SEAL_KEY.public.id,
    "purpose": "seal",
    "notBefore": "2025-11-23T12:00:00Z",
    "publicKey": world.SEAL_KEY.public.pem,
}
CONFIG_MAP = {"data": {"keys.yaml": yaml.safe_dump([ENTRY])}}
FILES = {"step-20/model": b"weights of step 20", "step-20/state": b"state of step 20"}


class Stage:
    """A sealed run and its checkpoints; a folder with what it wrote."""

    def __init__(self, folder: Path) -> None:
        sealed = world.sealed_world()
        self.seal = sealed.seal
        self.name = self.seal["metadata"]["name"]
        self.folder = folder
        self.items: list[dict[str, Any]] = []
        self.kube = FakeKube(
            {
                f"{NAMESPACE}/sealedruns": {"items": [self.seal]},
                f"{NAMESPACE}/checkpoints": {"items": self.items},
                KEYRING: copy.deepcopy(CONFIG_MAP),
                REVIEWS: {"status": {"userInfo": {"username": "oncall@example.org"}}},
            }
        )
        for path, content in FILES.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)

    def wrote(
        self, name: str = "m-1", files: dict[str, bytes] | None = None, **status: Any
    ) -> dict[str, Any]:
        """A manifest as the controller signed it."""
        obj = checkpoint(name)
        obj["metadata"] |= {"namespace": "research", "uid": f"uid-{name}"}
        obj["spec"] |= {
            "sealedRun": self.name,
            "files": [
                {
                    "path": path,
                    "size": len(content),
                    "digest": f"sha256:{hashlib.sha256(content).hexdigest()}",
                    "changed": "2026-11-23T12:00:00.500000Z",
                    "writer": "Trainer",
                    "format": "safetensors",
                }
                for path, content in (FILES if files is None else files).items()
            ],
        }
        obj["spec"].pop("unlisted")
        sample = status_of("Checkpoint")
        obj["status"] = {"standing": "Signed", "attested": sample["attested"]} | status
        obj["status"]["signature"] = sign(world.SEAL_KEY, obj, obj["status"], world.NOW)
        self.items.append(obj)
        return obj


TAINT = {"finding": "file.changed", "message": "a signed file was changed, by mallory"}
ACCEPTED = {"release": "r", "user": "carol", "reason": "compared with a backup"}


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stage:
    found = Stage(tmp_path / "ckpt")
    monkeypatch.setattr(api, "connect", connecting_to(found.kube))
    monkeypatch.setattr("trainseal.cli.checkpointverification.connect", connecting_to(found.kube))
    monkeypatch.setattr("trainseal.cli.acceptance.PAUSE", 0.1)
    return found


# List --------------------------------------------------------------------------------------------


def test_a_jobs_checkpoints_are_listed_with_digest_and_time(trainseal: Run, stage: Stage) -> None:
    stage.wrote()
    answer = trainseal("checkpoints", "char-lm", *ARGUMENTS)
    assert (answer.code, answer.err) == (0, "")
    digest = hashlib.sha256(FILES["step-20/model"]).hexdigest()
    for words in (stage.name, "signed", "step-20/model", f"sha256:{digest[:16]}", "2026-11-23T12"):
        assert words in answer.out
    assert trainseal("checkpoints", "list", "char-lm", *ARGUMENTS).out == answer.out


def test_a_tainted_one_is_shown_with_its_finding_and_what_to_do(
    trainseal: Run, stage: Stage
) -> None:
    stage.wrote(tainted=TAINT)
    answer = trainseal("checkpoints", "char-lm", *ARGUMENTS)
    assert answer.code == 1
    assert "tainted by a signed file was changed, by mallory" in answer.out
    assert "trainseal checkpoints accept char-lm" in answer.out


def test_one_that_was_signed_off_names_the_person(trainseal: Run, stage: Stage) -> None:
    stage.wrote(tainted=TAINT, accepted=ACCEPTED)
    answer = trainseal("checkpoints", "char-lm", *ARGUMENTS)
    assert answer.code == 0
    assert "signed off by carol: compared with a backup" in answer.out


def test_one_that_is_not_signed_is_said(trainseal: Run, stage: Stage) -> None:
    obj = stage.wrote()
    obj["status"] = {"standing": "Unproved", "message": "pod w-0 was gone"}
    answer = trainseal("checkpoints", "char-lm", *ARGUMENTS)
    assert answer.code == 2
    assert "not signed (Unproved)" in answer.out
    assert "pod w-0 was gone" in answer.out


def test_what_a_file_is_and_what_a_pickle_would_import_is_shown(
    trainseal: Run, stage: Stage
) -> None:
    obj = stage.wrote()
    obj["spec"]["files"][0] |= {
        "format": "pickle",
        "imports": ["posix.system", "collections.OrderedDict"],
        "moreImports": 3,
        "doubt": "a name that it computes while it is loaded",
    }
    answer = trainseal("checkpoints", "char-lm", *ARGUMENTS)
    for words in (
        "pickle      step-20/model",
        "safetensors step-20/state",
        "would import posix.system, collections.OrderedDict and 3 more",
        "not told: a name that it computes",
    ):
        assert words in answer.out


def test_what_a_session_wrote_is_marked(trainseal: Run, stage: Stage) -> None:
    obj = stage.wrote()
    obj["spec"]["files"][0] |= {"writer": "Session", "user": "mallory"}
    assert "(session, mallory)" in trainseal("checkpoints", "char-lm", *ARGUMENTS).out


def test_json_has_the_envelope_of_each(trainseal: Run, stage: Stage) -> None:
    stage.wrote()
    found = json.loads(trainseal("checkpoints", "char-lm", *ARGUMENTS, "-o", "json").out)
    (item,) = found["checkpoints"]
    statement = json.loads(base64.b64decode(item["envelope"]["payload"]))
    assert [s["name"] for s in statement["subject"]] == list(FILES)
    assert item["spec"]["files"] == stage.items[0]["spec"]["files"]


def test_a_job_without_a_run_is_told(trainseal: Run, stage: Stage) -> None:
    stage.kube.objects[f"{NAMESPACE}/sealedruns"] = {"items": []}
    answer = trainseal("checkpoints", "char-lm", *ARGUMENTS)
    assert answer.code == 2
    assert "no run of char-lm" in answer.err


# Verify ------------------------------------------------------------------------------------------


def verify(trainseal: Run, stage: Stage, *more: str) -> Any:
    return trainseal(
        "checkpoints", "verify", str(stage.folder), "--job", "char-lm", *ARGUMENTS, *more
    )


def test_what_the_run_wrote_verifies(trainseal: Run, stage: Stage) -> None:
    stage.wrote()
    answer = verify(trainseal, stage)
    assert (answer.code, answer.err) == (0, "")
    assert "all 2 files are as signed" in answer.out


def test_a_changed_weight_does_not(trainseal: Run, stage: Stage) -> None:
    stage.wrote()
    (stage.folder / "step-20" / "model").write_bytes(b"weights of step 2o")
    answer = verify(trainseal, stage)
    assert answer.code == 1
    assert "changed  step-20/model: found sha256:" in answer.out


def test_a_file_without_a_manifest_does_not(trainseal: Run, stage: Stage) -> None:
    stage.wrote()
    (stage.folder / "poison.pt").write_bytes(b"x")
    answer = verify(trainseal, stage)
    assert answer.code == 1
    assert "unsigned poison.pt" in answer.out


def test_half_a_checkpoint_does_not(trainseal: Run, stage: Stage) -> None:
    stage.wrote()
    stage.wrote("m-2", {"step-40/model": b"elsewhere"})
    (stage.folder / "step-20" / "state").unlink()
    answer = verify(trainseal, stage)
    assert answer.code == 1
    assert "missing  step-20/state" in answer.out
    assert "step-40" not in answer.out, "a checkpoint that is not here at all is not missed"


def test_a_tainted_one_does_not_until_somebody_signed_it_off(trainseal: Run, stage: Stage) -> None:
    obj = stage.wrote(tainted=TAINT)
    answer = verify(trainseal, stage)
    assert answer.code == 1
    assert "tainted  step-20/model: file.changed" in answer.out
    stage.items.remove(obj)
    stage.wrote(tainted=TAINT, accepted=ACCEPTED)
    assert verify(trainseal, stage).code == 0


def test_a_manifest_that_somebody_edited_counts_for_nothing(trainseal: Run, stage: Stage) -> None:
    obj = stage.wrote(tainted=TAINT)
    del obj["status"]["tainted"]
    answer = verify(trainseal, stage)
    assert answer.code == 2
    assert "edited or forged" in answer.err


def test_the_last_manifest_of_a_file_counts(trainseal: Run, stage: Stage) -> None:
    stage.wrote("m-0", {"step-20/model": b"an older one"})
    stage.items[0]["spec"]["completed"] = "2026-11-23T11:00:00.000000Z"
    status = stage.items[0]["status"]
    status["signature"] = sign(world.SEAL_KEY, stage.items[0], status, world.NOW)
    stage.wrote()
    assert verify(trainseal, stage).code == 0


def test_a_part_of_the_directory_says_where_it_lay(trainseal: Run, stage: Stage) -> None:
    stage.wrote()
    part = str(stage.folder / "step-20")
    given = ("checkpoints", "verify", part, "--job", "char-lm", *ARGUMENTS)
    assert trainseal(*given).code == 1
    assert trainseal(*given, "--below", "step-20").code == 0


def test_links_are_said_and_not_followed(trainseal: Run, stage: Stage) -> None:
    stage.wrote()
    (stage.folder / "latest").symlink_to("step-20")
    answer = verify(trainseal, stage)
    assert answer.code == 0
    assert "latest: not looked at" in answer.out


def test_without_a_cluster_files_do(trainseal: Run, stage: Stage, tmp_path: Path) -> None:
    stage.wrote()
    manifests, keyring = tmp_path / "manifests.json", tmp_path / "keyring.yaml"
    manifests.write_text(trainseal("checkpoints", "char-lm", *ARGUMENTS, "-o", "json").out)
    keyring.write_text(yaml.safe_dump(CONFIG_MAP))
    stage.kube.objects.clear()
    given = ("--manifests", str(manifests), "--keyring", str(keyring))
    answer = trainseal("checkpoints", "verify", str(stage.folder), *given)
    assert (answer.code, answer.err) == (0, "")
    (stage.folder / "step-20" / "model").write_bytes(b"other")
    answer = trainseal("checkpoints", "verify", str(stage.folder), *given, "-o", "json")
    assert answer.code == 1
    verdicts = {f["path"]: f["verdict"] for f in json.loads(answer.out)["files"]}
    assert verdicts == {"step-20/model": "changed", "step-20/state": "signed"}


def test_another_clusters_keyring_is_undetermined(
    trainseal: Run, stage: Stage, tmp_path: Path
) -> None:
    stage.wrote()
    other = ENTRY | {"keyID": world.MALLORY.public.id, "publicKey": world.MALLORY.public.pem}
    keyring = tmp_path / "keyring.yaml"
    keyring.write_text(yaml.safe_dump({"data": {"keys.yaml": yaml.safe_dump([other])}}))
    answer = verify(trainseal, stage, "--keyring", str(keyring))
    assert answer.code == 2
    assert "keyring" in answer.err


def test_a_keyring_that_may_not_be_read_is_undetermined(trainseal: Run, stage: Stage) -> None:
    stage.wrote()
    stage.kube.failures[KEYRING] = KubeError(403, "Forbidden", "configmaps is forbidden")
    answer = verify(trainseal, stage)
    assert answer.code == 2
    assert "--keyring FILE" in answer.err


def test_manifests_come_from_one_place(trainseal: Run, stage: Stage) -> None:
    answer = trainseal("checkpoints", "verify", str(stage.folder))
    assert answer.code == 64
    assert "--job and --manifests" in answer.err


# Accept ------------------------------------------------------------------------------------------


def accept(trainseal: Run, *more: str) -> Any:
    return trainseal(
        "checkpoints", "accept", "char-lm", "--reason", "a backup says so", *ARGUMENTS, *more
    )


def test_what_is_tainted_now_is_signed_off_by_name(
    trainseal: Run, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.wrote()
    tainted = [stage.wrote(f"t-{n}", tainted=TAINT) for n in range(2)]
    create = stage.kube.create

    async def answered(path: str, obj: Any, **more: Any) -> Any:
        for item in tainted:
            item["status"]["accepted"] = ACCEPTED
        return await create(path, obj, **more)

    monkeypatch.setattr(stage.kube, "create", answered)
    answer = accept(trainseal)
    assert (answer.code, answer.err) == (0, "")
    assert "signed off" in answer.out
    (release,) = [o for p, o in stage.kube.objects.items() if "/holdreleases/" in p]
    assert release["spec"] == {
        "sealedRun": stage.name,
        "checkpoints": ["t-0", "t-1"],
        "user": "oncall@example.org",
        "reason": "a backup says so",
    }


def test_where_nothing_is_tainted_nothing_is_asked(trainseal: Run, stage: Stage) -> None:
    stage.wrote()
    answer = accept(trainseal)
    assert answer.code == 0
    assert not [c for c in stage.kube.calls if c.startswith("POST")]


def test_a_refusal_is_told(trainseal: Run, stage: Stage) -> None:
    stage.wrote(tainted=TAINT, refused="oncall@example.org wrote them; somebody else must")
    answer = accept(trainseal)
    assert answer.code == 1
    assert "somebody else must" in answer.err


def test_who_may_not_is_told_whom_to_ask(trainseal: Run, stage: Stage) -> None:
    stage.wrote(tainted=TAINT)
    stage.kube.refusal = KubeError(403, "Forbidden", "holdreleases is forbidden")
    answer = accept(trainseal)
    assert answer.code == 1
    assert "trainseal-responder" in answer.err


def test_where_nobody_answers_it_is_undetermined(trainseal: Run, stage: Stage) -> None:
    stage.wrote(tainted=TAINT)
    answer = accept(trainseal, "--wait", "1")
    assert answer.code == 2
    assert "trainseal doctor" in answer.err
