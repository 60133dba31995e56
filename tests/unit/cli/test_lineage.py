"""`trainseal lineage`: back from a checkpoint over runs, each signature verified on the way."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from tests.sample_objects import checkpoint
from tests.unit import world
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_kube import FakeKube, connecting_to
from trainseal.archive.store import Store
from trainseal.cluster.api import KubeError
from trainseal.provenance import outputbundles, runstatements
from trainseal.provenance.checkpointmanifests import sign, verify
from trainseal.provenance.keys import private_key_of
from trainseal.provenance.runstatements import Found, Manifest, Watched
from trainseal.provenance.seals import BoundUid, bind, seal_digest

Object = dict[str, Any]
OURS = "/apis/trainseal.dev/v1alpha1/namespaces/research"
KEYRING = "/api/v1/namespaces/trainseal-system/configmaps/trainseal-keyring"
ARGUMENTS = ("-n", "research", "--kubeconfig", "unused")
OUTPUT_KEY = private_key_of(ec.generate_private_key(ec.SECP256R1()))
RING = world.keyring(world.SEAL_KEY)
CONFIG_MAP = {
    "data": {
        "keys.yaml": yaml.safe_dump(
            [
                {
                    "keyID": key.public.id,
                    "purpose": purpose,
                    "notBefore": "2025-11-23T12:00:00Z",
                    "publicKey": key.public.pem,
                }
                for purpose, key in (("seal", world.SEAL_KEY), ("output", OUTPUT_KEY))
            ]
        )
    }
}
SEAL = world.sealed_world().seal
TAINT = {"finding": "file.changed", "message": "changed, by mallory"}


class Stage:
    """Runs `first` and `second`, which could go on from it; each ended, with one checkpoint."""

    def __init__(self) -> None:
        self.kube = FakeKube(
            {
                KEYRING: copy.deepcopy(CONFIG_MAP),
                "/api/v1/namespaces/kube-system": {"metadata": {"uid": world.CLUSTER}},
            }
        )
        self.run("first")
        self.run("second", before=["first"])

    def run(self, name: str, before: list[str] | None = None, resume: str = "") -> None:
        """A run that ended, with a checkpoint and a statement, as the controller signed them."""
        seal = copy.deepcopy(SEAL)
        seal["metadata"]["name"] = name
        seal["spec"]["earlier"] = [
            {"inNamespace": "research", "sealedRun": b, "checkpoints": 3, "newest": f"{b}-1"}
            for b in before or []
        ]
        if resume:
            seal["spec"]["resume"] = {
                "sealedRun": resume,
                "checkpoints": [f"{resume}-1"],
                "manifest": "sha256:" + "0" * 64,
                "claim": "ckpt",
            }
        bound = (BoundUid("worker", "Job", "char-lm-worker", world.OBJECT_UID),)
        seal["status"] = {
            "binding": bind(
                world.SEAL_KEY,
                namespace="research",
                name=name,
                spec=seal["spec"],
                objects=bound,
                now=world.NOW,
            ),
            "phase": "Succeeded",
            "completionTime": "2026-11-23T12:30:00Z",
        }
        self.kube.objects[f"{OURS}/sealedruns/{name}"] = seal
        self.wrote(name)
        self.state(name)

    def wrote(self, run: str, **status: Any) -> Object:
        """The run's checkpoint."""
        obj = checkpoint(f"{run}-1")
        obj["metadata"] |= {"namespace": "research", "uid": f"uid-{run}"}
        content = f"weights of {run}".encode()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        file = {"path": f"{run}/model", "size": 1, "digest": digest, "writer": "Trainer"}
        file["changed"] = "2026-11-23T12:20:00Z"
        obj["spec"] |= {"sealedRun": run, "files": [file]}
        del obj["spec"]["unlisted"], obj["spec"]["removed"]
        attested = {"sealDigest": seal_digest("research", run, self.seal(run)["spec"])}
        obj["status"] = {"standing": "Signed", "attested": attested} | status
        obj["status"]["signature"] = sign(world.SEAL_KEY, obj, obj["status"], world.NOW)
        if "tainted" not in status:
            tree = outputbundles.tree_of(f"{run}-1", outputbundles.files_of_checkpoint(obj))
            obj["status"]["bundle"] = outputbundles.sign(OUTPUT_KEY, tree)
        self.kube.objects[f"{OURS}/checkpoints/{run}-1"] = obj
        return obj

    def state(self, run: str, *findings: Found) -> None:
        """The run's statement, over its checkpoint as it stands."""
        obj = self.kube.objects[f"{OURS}/checkpoints/{run}-1"]
        manifest = Manifest(obj, runstatements.digest_of(verify(RING, obj)))
        said = runstatements.content(
            self.seal(run),
            (),
            Watched(1, findings, {}, {}),
            runstatements.outputs_of([manifest], 0),
        )
        status = runstatements.sign(world.SEAL_KEY, said, 1, world.NOW + timedelta(hours=1))
        statement = runstatements.read(RING, "research", run, status)
        if runstatements.is_output(statement):
            files = outputbundles.files_of_statement(statement)
            status["outputs"] = outputbundles.sign(OUTPUT_KEY, outputbundles.tree_of(run, files))
        self.seal(run)["status"]["statement"] = runstatements.digest_of(statement.payload)
        metadata = {"name": run, "namespace": "research", "uid": f"uid-of-statement-{run}"}
        self.kube.objects[f"{OURS}/runstatements/{run}"] = {
            "kind": "RunStatement",
            "metadata": metadata,
            "spec": {"sealedRun": run},
            "status": status,
        }

    def seal(self, run: str) -> Object:
        return self.kube.objects[f"{OURS}/sealedruns/{run}"]

    def manifest(self, run: str) -> Object:
        return self.kube.objects[f"{OURS}/checkpoints/{run}-1"]

    def statement(self, run: str) -> Object:
        return self.kube.objects[f"{OURS}/runstatements/{run}"]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    found = Stage()
    monkeypatch.setattr("trainseal.cli.lineageasking.connect", connecting_to(found.kube))
    return found


def test_a_checkpoint_leads_over_two_runs_to_inputs_and_signers(
    trainseal: Run, stage: Stage
) -> None:
    answer = trainseal("lineage", "second-1", *ARGUMENTS)
    assert (answer.code, answer.err) == (0, "")
    assert "all verified, over 2 runs" in answer.out
    for words in (
        "checkpoint research/second-1 verified",
        "run research/second verified",
        "could go on from 3 checkpoints of first, the newest first-1 verified",
        "run research/first verified",
        "signed by Alice (job research/char-lm)",
        "asked for by",
        "code trainer sha256:",
        "config sha256:",
        "Succeeded",
        "nothing was found",
        "output first/model",
    ):
        assert words in answer.out, answer.out
    assert stage.kube.made == 0


def test_a_name_may_bear_its_namespace(trainseal: Run, stage: Stage) -> None:
    assert trainseal("lineage", "research/second-1", "--kubeconfig", "unused").code == 0
    both = ("lineage", "research/second-1", "-n", "other", "--kubeconfig", "unused")
    assert trainseal(*both).code == 64
    assert stage.kube.made == 0


def test_a_run_is_asked_for_by_its_seal_or_its_job(trainseal: Run, stage: Stage) -> None:
    by_seal = trainseal("lineage", "second", *ARGUMENTS)
    stage.kube.objects[f"{OURS}/sealedruns"] = {"items": [stage.seal("second")]}
    assert trainseal("lineage", "char-lm", *ARGUMENTS).out == by_seal.out
    assert by_seal.out.startswith("run research/second verified")


def test_json_has_all_of_it(trainseal: Run, stage: Stage) -> None:
    stage.state("first", Found("file.changed", "Critical", 1, 2, proved=True))
    answer = trainseal("lineage", "second-1", *ARGUMENTS, "-o", "json")
    found = json.loads(answer.out)
    assert found["verdict"] == "verified"
    second, first = found["runs"]
    assert second["earlier"][0]["newest"]["verdict"] == "verified"
    assert first["statement"]["predicate"]["watch"]["findings"][0]["id"] == "file.changed"
    assert first["depth"] == 1
    assert {"images", "code", "configDigest", "requester"} <= set(first["inputs"])


def test_findings_on_an_earlier_run_are_shown(trainseal: Run, stage: Stage) -> None:
    stage.state("first", Found("file.changed", "Critical", 1, 2, proved=True))
    answer = trainseal("lineage", "second-1", *ARGUMENTS)
    assert answer.code == 0
    assert "finding file.changed (Critical)" in answer.out


def _resigned(stage: Stage) -> None:
    stage.manifest("second")["status"]["attested"]["sealDigest"] = "sha256:" + "0" * 64
    obj = stage.manifest("second")
    obj["status"]["signature"] = sign(world.SEAL_KEY, obj, obj["status"], world.NOW)


REFUTED: dict[str, Callable[[Stage], object]] = {
    "a file of the checkpoint": lambda s: s.manifest("second")["spec"]["files"][0].update(
        digest="sha256:" + "0" * 64
    ),
    "its taint taken off": lambda s: s.wrote("second", tainted=TAINT)["status"].pop("tainted"),
    "another seal": _resigned,
    "the requester in a seal": lambda s: s.seal("first")["spec"]["requester"].update(
        username="bob"
    ),
    "the runs before taken off": lambda s: s.seal("second")["spec"].pop("earlier"),
    "the findings in a statement": lambda s: s.statement("first")["status"].update(
        payload=s.statement("first")["status"]["payload"].replace('"findings":[]', '"findings":[1]')
    ),
    "a statement of another run": lambda s: s.statement("second").update(
        status=s.statement("first")["status"]
    ),
    "the earlier checkpoint": lambda s: s.manifest("first")["spec"].update(node="n9"),
}


@pytest.mark.parametrize("change", REFUTED.values(), ids=REFUTED)
def test_what_was_changed_is_refuted(
    trainseal: Run, stage: Stage, change: Callable[[Stage], object]
) -> None:
    change(stage)
    answer = trainseal("lineage", "second-1", *ARGUMENTS)
    assert answer.code == 1, answer.out
    assert "refuted" in answer.out
    assert "all verified" not in answer.out


def test_nothing_is_shown_of_a_seal_that_is_not_ours(trainseal: Run, stage: Stage) -> None:
    stage.seal("second")["spec"]["requester"]["username"] = "spotless@example.org"
    answer = trainseal("lineage", "second", *ARGUMENTS)
    assert answer.code == 1
    assert "spotless" not in answer.out
    assert "research/first" not in answer.out


UNDETERMINED: dict[str, tuple[Callable[[Stage], object], str]] = {
    "no seal": (lambda s: s.kube.objects.pop(f"{OURS}/sealedruns/first"), "not in the cluster"),
    "a seal that cannot be read": (
        lambda s: s.kube.failures.update(
            {f"{OURS}/sealedruns/first": KubeError(403, "Forbidden", "you may not")}
        ),
        "you may not",
    ),
    "no statement": (
        lambda s: s.kube.objects.pop(f"{OURS}/runstatements/second"),
        "one was made, and is gone",
    ),
    "a run that is on": (
        lambda s: (
            s.seal("second")["status"].update(phase="Bound"),
            s.kube.objects.pop(f"{OURS}/runstatements/second"),
        ),
        "the run is on",
    ),
    "a checkpoint that is not signed": (
        lambda s: s.manifest("second")["status"].pop("signature"),
        "it is not signed",
    ),
    "an older statement": (
        lambda s: s.seal("second")["status"].update(statement="sha256:" + "0" * 64),
        "an older one was put back",
    ),
}


@pytest.mark.parametrize(("change", "words"), UNDETERMINED.values(), ids=UNDETERMINED)
def test_what_is_not_there_is_undetermined_and_never_refuted(
    trainseal: Run, stage: Stage, change: Callable[[Stage], object], words: str
) -> None:
    change(stage)
    answer = trainseal("lineage", "second-1", *ARGUMENTS)
    assert answer.code == 2, answer.out
    assert words in answer.out
    assert "refuted" not in answer.out


def test_a_manifest_that_was_removed_is_not_missed_where_a_statement_names_it(
    trainseal: Run, stage: Stage
) -> None:
    del stage.kube.objects[f"{OURS}/checkpoints/first-1"]
    answer = trainseal("lineage", "second-1", *ARGUMENTS)
    assert answer.code == 0
    assert "removed since; the statement of its run names it" in answer.out


def test_a_tainted_checkpoint_is_said_and_ends_with_1(trainseal: Run, stage: Stage) -> None:
    stage.wrote("second", tainted=TAINT)
    stage.state("second")
    answer = trainseal("lineage", "second-1", *ARGUMENTS)
    assert answer.code == 1
    assert "tainted by file.changed: changed, by mallory" in answer.out
    assert "1 tainted files, which are no outputs" in answer.out
    signed_off = {"release": "r", "user": "carol", "reason": "seen"}
    stage.wrote("second", tainted=TAINT, accepted=signed_off)
    stage.state("second")
    assert trainseal("lineage", "second-1", *ARGUMENTS).code == 0


def test_a_run_that_was_resumed_goes_on_from_the_checkpoint_in_its_seal(
    trainseal: Run, stage: Stage
) -> None:
    stage.run("second", resume="first")
    answer = trainseal("lineage", "second-1", *ARGUMENTS)
    assert answer.code == 0, answer.out
    assert "── goes on from 1 checkpoint of first, the newest first-1 verified" in answer.out
    assert "run research/first verified" in answer.out


def test_runs_that_lead_to_each_other_are_shown_once(trainseal: Run, stage: Stage) -> None:
    stage.run("first", before=["second"])
    answer = trainseal("lineage", "second-1", *ARGUMENTS)
    assert answer.out.count("run research/second verified") == 1
    assert "run research/second: see above" in answer.out


def test_no_more_runs_are_walked_than_were_asked_for(trainseal: Run, stage: Stage) -> None:
    answer = trainseal("lineage", "second-1", *ARGUMENTS, "--depth", "0")
    assert answer.code == 2
    assert "farther back than --depth" in answer.out
    assert f"GET {OURS}/sealedruns/first" not in stage.kube.calls


def test_a_seal_of_another_cluster_is_refuted(trainseal: Run, stage: Stage) -> None:
    stage.kube.objects["/api/v1/namespaces/kube-system"]["metadata"]["uid"] = "another"
    assert trainseal("lineage", "second", *ARGUMENTS).code == 1


def test_a_name_that_is_nothing_says_what_to_do(trainseal: Run, stage: Stage) -> None:
    stage.kube.objects[f"{OURS}/sealedruns"] = {"items": []}
    answer = trainseal("lineage", "nothing", *ARGUMENTS)
    assert answer.code == 2
    assert "--archive FOLDER" in answer.err


# From the archive ---------------------------------------------------------------------------------


@pytest.fixture
def folder(stage: Stage, tmp_path: Path) -> Path:
    """An archive that has recorded all of it."""
    kinds = {
        "sealedruns": "SealedRun",
        "checkpoints": "Checkpoint",
        "runstatements": "RunStatement",
    }
    with Store(tmp_path / "archive") as store:
        for path, obj in stage.kube.objects.items():
            if path.startswith(OURS):
                kind = kinds[path.split("/")[-2]]
                uid = f"{kind}-{obj['metadata']['name']}"
                metadata = {**obj["metadata"], "uid": uid}
                store.append({**obj, "kind": kind, "metadata": metadata}, world.NOW)
    return tmp_path / "archive"


def test_what_is_gone_from_the_cluster_is_found_in_the_archive(
    trainseal: Run, stage: Stage, folder: Path
) -> None:
    for kind in ("sealedruns", "runstatements"):
        del stage.kube.objects[f"{OURS}/{kind}/first"]
    answer = trainseal("lineage", "second-1", *ARGUMENTS, "--archive", str(folder))
    assert answer.code == 0, answer.out
    assert "run research/first verified from the archive" in answer.out


def test_no_cluster_is_needed_where_archive_and_keyring_are_given(
    trainseal: Run, stage: Stage, folder: Path, tmp_path: Path
) -> None:
    stage.kube.failures = dict.fromkeys(stage.kube.objects, KubeError(0, "", "no cluster"))
    (tmp_path / "keyring.yaml").write_text(yaml.safe_dump(CONFIG_MAP))
    given = ("--archive", str(folder), "--keyring", "keyring.yaml", "--offline")
    answer = trainseal("lineage", "research/second-1", *given)
    assert answer.code == 0, answer.out
    assert stage.kube.calls == []
    assert trainseal("lineage", "research/second-1", "--offline").code == 64


def test_an_archive_that_was_changed_is_refuted(trainseal: Run, stage: Stage, folder: Path) -> None:
    (log,) = (folder / "log").glob("*.jsonl")
    log.write_bytes(log.read_bytes().replace(b"second", b"sec0nd", 1))
    answer = trainseal("lineage", "second-1", *ARGUMENTS, "--archive", str(folder))
    assert answer.code == 1
    assert stage.kube.made == 0


# Bundles -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["second-1", "second"])
def test_the_bundle_of_a_checkpoint_or_of_a_runs_outputs_is_one_that_model_signing_verifies(
    trainseal: Run, stage: Stage, tmp_path: Path, what: str
) -> None:
    verifying = pytest.importorskip("model_signing.verifying")
    written = ("--bundle", "output.sig", "--public-key", "operator.pub")
    answer = trainseal("lineage", what, *ARGUMENTS, *written)
    assert answer.code == 0, answer.err
    assert "the directory second of the checkpoints" in answer.err
    copied = tmp_path / "second"
    copied.mkdir()
    (copied / "model").write_bytes(b"weights of second")
    config = verifying.Config().use_elliptic_key_verifier(public_key=tmp_path / "operator.pub")
    config.verify(copied, tmp_path / "output.sig")
    (copied / "model").write_bytes(b"weights of mallory")
    with pytest.raises(ValueError, match="mismatch"):
        config.verify(copied, tmp_path / "output.sig")
    assert stage.kube.made == 0


@pytest.mark.parametrize("what", ["second-1", "second"])
def test_what_is_tainted_gets_no_bundle(
    trainseal: Run, stage: Stage, tmp_path: Path, what: str
) -> None:
    stage.wrote("second", tainted=TAINT)
    stage.state("second")
    answer = trainseal("lineage", what, *ARGUMENTS, "--bundle", "output.sig")
    assert answer.code != 0
    assert not (tmp_path / "output.sig").exists()


def test_a_bundle_that_the_outputs_key_did_not_sign_is_refuted(
    trainseal: Run, stage: Stage, tmp_path: Path
) -> None:
    obj = stage.manifest("second")
    tree = outputbundles.tree_of("x", outputbundles.files_of_checkpoint(obj))
    obj["status"]["bundle"] = outputbundles.sign(world.MALLORY, tree)
    answer = trainseal("lineage", "second-1", *ARGUMENTS, "--bundle", "output.sig")
    assert answer.code == 1
    assert not (tmp_path / "output.sig").exists()
