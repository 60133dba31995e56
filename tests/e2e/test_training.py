"""The whole path: signed with the tools, applied, trained on two workers, told to its user."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.lab import TEAM, Lab, Object
from tests.stage.jobs import EXAMPLE, char_lm
from tests.stage.people import signing_environment

_LOSS = re.compile(r"step (\d+) loss ([0-9.]+)")
_WEIGHTS = re.compile(r"finished, weights (sha256:[0-9a-f]{64})")
OPERATOR = EXAMPLE.parents[1] / "operator"


def trainseal(lab: Lab, *args: str, kubeconfig: Path | None = None) -> str:
    """The command line of this checkout, as the editor, or by another kubeconfig."""
    program = "import sys; from trainseal.cli.main import main; sys.exit(main())"
    return lab.target.run(
        [sys.executable, "-c", program, *args],
        kubeconfig=kubeconfig or lab.editor,
        extra={**signing_environment(), "PYTHONPATH": str(OPERATOR), "COLUMNS": "200"},
    )


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def trained(lab: Lab, signed_file: Path) -> Iterator[Object]:
    """The job, once it has come to its end."""
    job: Object = yaml.safe_load(signed_file.read_text())
    lab.apply(job)
    lab.wait_for_phase(job, "Succeeded", 300)
    yield job
    lab.delete(job)


def test_the_command_line_says_without_a_cluster_what_the_webhook_will_say(
    lab: Lab, signed_file: Path
) -> None:
    if lab.target.registry != lab.target.registry_from_host:
        pytest.skip("this machine calls the cluster's registry by another name than the job does")
    policy = lab.folder / "policy.yaml"
    policy.write_text(lab.admin("get", "provenancepolicy", TEAM, "-o", "yaml"))
    plain = ("--plain-http", lab.target.registry)
    offline = ("-f", str(signed_file), "--policy", str(policy), "-o", "json", *plain)
    assert json.loads(trainseal(lab, "verify", *offline))["outcome"] == "verified"
    assert lab.accepts(yaml.safe_load(signed_file.read_text()))


def test_a_signed_job_trains_to_its_end_on_two_workers(lab: Lab, trained: Object) -> None:
    names = [pod["metadata"]["name"] for pod in lab.pods(trained)]
    logs = [lab.kubectl("logs", name, "-c", "trainer") for name in names]
    assert len(logs) == 2
    (first,) = [log for log in logs if "checkpoint step-000080" in log]
    losses = [float(loss) for _, loss in _LOSS.findall(first)]
    assert losses[-1] < 0.75 * losses[0]
    assert '"learning_rate": 0.003' in first
    assert len({_WEIGHTS.findall(log)[0] for log in logs}) == 1

    status = lab.status(trained)
    assert lab.told(trained) == ["Sealed", "Running", "Succeeded"]
    assert status["verified"] == "verified"
    assert status["requester"] == "mallory@example.org"
    assert status["roles"][0]["succeeded"] == 2
    columns = lab.kubectl("get", "tj", "char-lm")
    for words in ("Succeeded", "verified", "alice, platform", "mallory@example.org"):
        assert words in columns
    told = trainseal(lab, "status", "char-lm", "-n", TEAM)
    for words in ("Succeeded", "alice", "platform", "mallory@example.org", status["jobDigest"]):
        assert words in told, told


def test_its_checkpoints_stay_on_the_volume(lab: Lab, claim: str | None, trained: Object) -> None:
    if claim is None:
        pytest.skip(
            "TRAINSEAL_KUBECONFIG names a cluster whose volumes are not to be seen from here"
        )
    kept = lab.folder / "checkpoints" / "runs" / trained["metadata"]["name"]
    assert sorted(path.name for path in kept.glob("*.safetensors")) == [
        f"step-0000{step}.safetensors" for step in (20, 40, 60, 80)
    ]


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
