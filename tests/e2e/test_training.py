"""The whole path: signed with the tools, applied, trained on two workers, told to its user."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.lab import TEAM, Lab, Object
from tests.stage.jobs import EXAMPLE, char_lm
from tests.stage.people import signing_environment

_LOSS = re.compile(r"step (\d+) loss ([0-9.]+)")
_WEIGHTS = re.compile(r"finished, weights (sha256:[0-9a-f]{64})")
OPERATOR = EXAMPLE.parents[1] / "operator"


def trainseal(lab: Lab, *args: str) -> str:
    """The command line of this checkout, as the editor."""
    program = "import sys; from trainseal.cli.main import main; sys.exit(main())"
    return lab.target.run(
        [sys.executable, "-c", program, *args],
        kubeconfig=lab.editor,
        extra={**signing_environment(), "PYTHONPATH": str(OPERATOR), "COLUMNS": "200"},
    )


@pytest.fixture
def claim(lab: Lab) -> Iterator[str | None]:
    """A claim for checkpoints with a volume on the node; on the user's cluster there is none."""
    if not lab.target.owned:
        yield None
        return
    name = "ckpt"
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": TEAM},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "",
            "volumeName": "e2e-ckpt",
        },
    }
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "e2e-ckpt"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Gi"},
            "hostPath": {"path": str(lab.folder / "checkpoints"), "type": "DirectoryOrCreate"},
            "claimRef": {"name": name, "namespace": TEAM},
            "storageClassName": "",
        },
    }
    lab.admin("apply", "-f", "-", stdin=volume)
    lab.admin("apply", "-f", "-", stdin=claim)
    yield name
    lab.delete(claim)
    lab.delete(volume)


@pytest.fixture
def signed_file(lab: Lab, claim: str | None) -> Path:
    """The example's job, code and all, signed with `trainseal sign`."""
    plain = ("--plain-http", lab.target.registry_from_host)
    repository = f"{lab.target.registry_from_host}/{TEAM}/char-lm-code"
    key = ("--key", str(lab.alice.key_file))
    printed = trainseal(lab, "sign", "code", str(EXAMPLE), *key, "--push", repository, *plain)
    job = char_lm(TEAM, lab.image, lab.in_cluster(printed.strip()), claim)
    file = lab.folder / "char-lm.yaml"
    file.write_text(yaml.safe_dump(job))
    trainseal(lab, "sign", "job", "-f", str(file), *key, *plain)
    return file


def test_a_signed_job_trains_to_its_end_on_two_workers(
    lab: Lab, apply: Callable[[Object], Object], signed_file: Path, claim: str | None
) -> None:
    policy = lab.folder / "policy.yaml"
    policy.write_text(lab.admin("get", "provenancepolicy", TEAM, "-o", "yaml"))
    if lab.target.registry == lab.target.registry_from_host:
        plain = ("--plain-http", lab.target.registry)
        offline = ("-f", str(signed_file), "--policy", str(policy), "-o", "json", *plain)
        assert json.loads(trainseal(lab, "verify", *offline))["outcome"] == "verified"

    job = apply(yaml.safe_load(signed_file.read_text()))
    status = lab.wait_for_phase(job, "Succeeded", 300)

    logs = [lab.kubectl("logs", pod["metadata"]["name"], "-c", "trainer") for pod in lab.pods(job)]
    assert len(logs) == 2
    (first,) = [log for log in logs if "checkpoint step-000080" in log]
    losses = [float(loss) for _, loss in _LOSS.findall(first)]
    assert losses[-1] < 0.75 * losses[0]
    assert '"learning_rate": 0.003' in first
    assert len({_WEIGHTS.findall(log)[0] for log in logs}) == 1
    if claim:
        kept = list((lab.folder / "checkpoints" / "runs" / "char-lm").glob("*.safetensors"))
        assert len(kept) >= 1

    assert status["verified"] == "verified"
    assert status["requester"] == "mallory@example.org"
    assert status["roles"][0]["succeeded"] == 2
    columns = lab.kubectl("get", "tj", "char-lm")
    for words in ("Succeeded", "verified", "alice, platform", "mallory@example.org"):
        assert words in columns
    told = trainseal(lab, "status", "char-lm", "-n", TEAM)
    for words in ("Succeeded", "alice", "platform", "mallory@example.org", status["jobDigest"]):
        assert words in told, told


def test_a_submitted_tree_runs_and_a_change_of_it_runs_too(lab: Lab) -> None:
    """`trainseal submit`: the everyday loop, twice."""
    tree = lab.folder / "submitted"
    tree.mkdir()
    file = lab.folder / "submitted.yaml"
    job = lab.job("submitted", "finish.py")
    code = f"{lab.target.registry_from_host}/{TEAM}/submitted"
    job["spec"]["code"][0]["oci"]["reference"] = lab.in_cluster(code)
    file.write_text(yaml.safe_dump(job))
    flags = ("--key", str(lab.alice.key_file), "--plain-http", lab.target.registry_from_host)
    try:
        for number in (1, 2):
            (tree / "finish.py").write_text(f"print('version {number}')\n")
            trainseal(
                lab, "submit", "-f", str(file), "--code", str(tree), *flags,
                "--replace", "--wait", "end",
            )  # fmt: skip
            logs = [lab.kubectl("logs", p["metadata"]["name"]) for p in lab.pods(job)]
            assert f"version {number}\n" in logs
    finally:
        lab.delete(job)
