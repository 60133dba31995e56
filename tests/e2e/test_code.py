"""Code: signed by whom, and the very bytes that were signed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.e2e.lab import Lab, Object
from tests.stage.jobs import SHORT_CODE
from tests.stage.signing import signed

EVIL = {**SHORT_CODE, "finish.py": SHORT_CODE["finish.py"] + "print('and something else')\n"}


def with_code(lab: Lab, name: str, code: str) -> Object:
    """A job that alice signed, whose code is this."""
    job = lab.job(name, "finish.py")
    job["spec"]["code"][0]["oci"]["reference"] = code
    return signed(job, lab.alice)


def test_unsigned_code_is_refused(lab: Lab) -> None:
    code = lab.push_tree("unsigned", {**EVIL, "unsigned": ""}, None)
    said = lab.refusal(with_code(lab, "code-unsigned", code))
    assert "code trainer: refuted: no signature found" in said
    assert "trainseal sign code" in said


def test_code_signed_by_a_named_person_is_accepted(lab: Lab) -> None:
    for signer in (lab.alice, lab.bob):
        code = lab.push_tree("signed", {**EVIL, "by": signer.name}, signer)
        assert lab.accepts(with_code(lab, "code-signed", code))


def test_code_signed_by_somebody_the_policy_does_not_name_is_refused(lab: Lab) -> None:
    code = lab.push_tree("by-mallory", EVIL, lab.mallory)
    said = lab.refusal(with_code(lab, "code-by-mallory", code))
    assert "none that counts" in said
    assert "one of alice, bob" in said


def test_a_code_reference_without_a_digest_is_refused(lab: Lab) -> None:
    tag = lab.code.partition("@")[0] + ":latest"
    assert "has no digest" in lab.refusal(with_code(lab, "code-by-tag", tag))


def test_signed_code_runs(lab: Lab, apply: Callable[[Object], Object]) -> None:
    job = apply(lab.signed_job("as-signed", "finish.py"))
    lab.wait_for_phase(job, "Succeeded")
    (pod,) = lab.pods(job)
    logs = lab.kubectl("logs", pod["metadata"]["name"], "-c", "trainer")
    assert logs == "learning rate 0.003\n"
    assert "as signed" in gate_message(pod)


def test_the_gate_refuses_a_tree_under_the_manifest_of_another(
    lab: Lab, apply: Callable[[Object], Object]
) -> None:
    code = lab.push_tree("other-tree", EVIL, lab.alice, manifest_of=SHORT_CODE)
    job = apply(with_code(lab, "other-tree", code))
    assert_refused_by_gate(lab, job, "finish.py")


@pytest.fixture
def changed_in_the_registry(lab: Lab, cluster: Cluster) -> Iterator[str]:
    """Signed code, one byte of which was changed in the registry after it was pushed."""
    code = lab.push_tree("changed", {**SHORT_CODE, "changed": "x"}, lab.alice)
    crane = str(cluster.tools["crane"])
    manifest = json.loads(cluster.run([crane, "manifest", "--insecure", lab.on_host(code)]))
    (layer,) = manifest["layers"]
    blob: Path = cluster.registry_blobs / layer["digest"].replace(":", "/")
    good = blob.read_bytes()
    assert good.count(b"learning rate") == 1
    blob.write_bytes(good.replace(b"learning rate", b"learning rats"))
    yield code
    blob.write_bytes(good)


def test_the_gate_names_the_file_whose_bytes_were_changed_in_the_registry(
    lab: Lab, apply: Callable[[Object], Object], changed_in_the_registry: str
) -> None:
    job = apply(with_code(lab, "changed-bytes", changed_in_the_registry))
    assert_refused_by_gate(lab, job, "finish.py")


def assert_refused_by_gate(lab: Lab, job: Object, file: str) -> None:
    """The job fails at once, not retried; pod and job name the file; nothing was trained."""
    status = lab.wait_for_phase(job, "Failed")
    assert file in status["message"]
    (pod,) = lab.pods(job)
    assert file in gate_message(pod)
    # Not "not started": that is also true of one that ran and has ended.
    (trainer,) = pod["status"]["containerStatuses"]
    assert list(trainer["state"]) == ["waiting"], trainer
    assert not trainer.get("lastState"), trainer
    complete = next(c for c in status["conditions"] if c["type"] == "Complete")
    assert complete["status"] == "False"
    assert file in complete["message"]


def gate_message(pod: Object) -> str:
    """The termination message of the gate."""
    gate = pod["status"]["initContainerStatuses"][0]
    assert gate["name"] == "trainseal-gate"
    message: str = gate["state"]["terminated"]["message"]
    return message
