"""`trainseal wrap`: each kind of workload, as people write it, becomes a TrainingJob."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit import world
from tests.unit.cli.conftest import Answer, Run
from trainseal.api.trainingjob import TrainingJob
from trainseal.engines import jobset
from trainseal.engines.catalogue import unfit
from trainseal.engines.podtemplate import RenderInputs
from trainseal.provenance.yamlreader import read_documents

Object = dict[str, Any]
MANIFESTS = Path(__file__).parent / "manifests"
INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"


@pytest.fixture(autouse=True)
def manifests(tmp_path: Path) -> None:
    for path in MANIFESTS.iterdir():
        shutil.copy(path, tmp_path)


def job_of(answer: Answer) -> Object:
    (document,) = read_documents(answer.out, "job.yaml")
    TrainingJob.parse(document.value)
    return document.value


def template(job: Object, role: int = 0) -> Object:
    found: Object = job["spec"]["roles"][role]["template"]["spec"]
    return found


def container(job: Object, role: int = 0) -> Object:
    found: Object = template(job, role)["containers"][0]
    return found


def env(job: Object, role: int = 0) -> Object:
    entries = container(job, role).get("env", [])
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in entries}


def said(answer: Answer, outcome: str) -> list[str]:
    """Paths of what is said of an outcome, for the files' objects."""
    lines = (line.split(": ") for line in answer.err.splitlines() if not line.startswith("    "))
    return [parts[1] for parts in lines if len(parts) > 3 and parts[2] == outcome]


# PyTorchJob --------------------------------------------------------------------------------------


def test_a_pytorchjob_becomes_what_stands_beside_it_word_for_word(trainseal: Run) -> None:
    answer = trainseal("wrap", "-f", "mnist.yaml")
    assert answer.code == 1
    assert answer.out == (MANIFESTS / "mnist.wrapped.yaml").read_text()
    assert answer.err == (MANIFESTS / "mnist.notes.txt").read_text()


def test_master_and_workers_that_are_alike_are_one_role_with_the_ranks_they_had(
    trainseal: Run,
) -> None:
    job = job_of(trainseal("wrap", "-f", "mnist.yaml"))
    assert [(r["name"], r["replicas"]) for r in job["spec"]["roles"]] == [("worker", 4)]
    variables = env(job)
    assert variables["PET_NNODES"] == "4"
    assert variables["WORLD_SIZE"] == "16"
    assert variables["PET_NODE_RANK"] == {"fieldRef": {"fieldPath": INDEX}}
    assert variables["LOG_HOST"] == "tcp://mnist-worker-0.mnist:9000"


def test_a_pytorchjob_may_stay_one_and_its_operator_tells_the_pods(trainseal: Run) -> None:
    job = job_of(trainseal("wrap", "-f", "mnist.yaml", "--keep-engine"))
    assert job["spec"]["engine"] == "PyTorchJob"
    assert [(r["name"], r["replicas"]) for r in job["spec"]["roles"]] == [("worker", 4)]
    variables = env(job)
    assert variables["PET_NPROC_PER_NODE"] == "4"
    assert variables["LOG_HOST"] == "tcp://mnist:9000", "the run's Service is the first pod"
    assert not {"PET_NNODES", "PET_NODE_RANK", "PET_MASTER_ADDR", "RANK"} & variables.keys()
    assert unfit(TrainingJob.parse(job)) == ""


def test_what_the_operator_would_not_run_as_signed_is_refused(
    trainseal: Run, tmp_path: Path
) -> None:
    documents = [*yaml.safe_load_all((tmp_path / "mnist.yaml").read_text())]
    specs = documents[0]["spec"]["pytorchReplicaSpecs"]
    for replicas in specs.values():
        container = replicas["template"]["spec"]["containers"][0]
        container["env"].append({"name": "PET_NNODES", "value": "1:4"})
    (tmp_path / "mnist.yaml").write_text(yaml.safe_dump_all(documents))
    assert "found variable PET_NNODES" not in trainseal("wrap", "-f", "mnist.yaml").err
    answer = trainseal("wrap", "-f", "mnist.yaml", "--keep-engine")
    assert (
        "refused: spec.engine is PyTorchJob: role worker: found variable PET_NNODES" in answer.err
    )


def other_workers(path: Path, change: Any) -> None:
    documents = [*yaml.safe_load_all(path.read_text())]
    specs = documents[0]["spec"]["pytorchReplicaSpecs"]
    specs["Worker"] = json.loads(json.dumps(specs["Worker"]))
    change(specs)
    path.write_text(yaml.safe_dump_all(documents))


def test_where_they_differ_each_is_a_role_and_a_rank_that_cannot_be_told_is_said(
    trainseal: Run, tmp_path: Path
) -> None:
    def change(specs: Object) -> None:
        specs["Worker"]["template"]["spec"]["containers"][0]["command"] = ["python", "/opt/w.py"]

    other_workers(tmp_path / "mnist.yaml", change)
    answer = trainseal("wrap", "-f", "mnist.yaml")
    job = job_of(answer)
    assert [(r["name"], r["replicas"]) for r in job["spec"]["roles"]] == [
        ("master", 1), ("worker", 3),
    ]  # fmt: skip
    assert env(job, 0)["RANK"] == "0"
    assert "RANK" not in env(job, 1)
    assert "the workers' RANK is their index and 1 more" in answer.err


def test_an_elastic_range_is_the_roles(trainseal: Run, tmp_path: Path) -> None:
    value: Object = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "echo", "namespace": "research"},
        "spec": {
            "elasticPolicy": {
                "minReplicas": 1, "maxReplicas": 3, "maxRestarts": 100, "rdzvBackend": "c10d",
                "metrics": [{"type": "Resource"}], "rdzvHosts": "x",
            },
            "pytorchReplicaSpecs": {
                "Master": {"replicas": 0, "template": {}},
                "Worker": {
                    "replicas": 2,
                    "template": {"spec": {"containers": [{"name": "pytorch", "image": "i:v1"}]}},
                },
            },
        },
    }  # fmt: skip
    (tmp_path / "echo.yaml").write_text(yaml.safe_dump(value))
    answer = trainseal("wrap", "-f", "echo.yaml")
    job = job_of(answer)
    assert [(r["name"], r["replicas"]) for r in job["spec"]["roles"]] == [
        ("worker", {"min": 1, "max": 3})
    ]
    assert env(job)["PET_NNODES"] == "1:3"
    assert env(job)["PET_RDZV_ENDPOINT"] == "echo-worker-0.echo:29500"
    assert env(job)["PET_MAX_RESTARTS"] == "100"
    assert said(answer, "left") == ["spec.elasticPolicy.metrics", "spec.elasticPolicy.rdzvHosts"]


# JobSet ------------------------------------------------------------------------------------------


def test_a_jobset_becomes_a_role_for_each_of_its_jobs_and_its_host_names_are_the_new_ones(
    trainseal: Run,
) -> None:
    answer = trainseal("wrap", "-f", "jobset.yaml", "-n", "research")
    job = job_of(answer)
    assert [(r["name"], r["replicas"]) for r in job["spec"]["roles"]] == [
        ("driver", 1), ("workers", 8),
    ]  # fmt: skip
    assert env(job, 0) == {"SET": "resnet"}
    # The first worker is set by TrainSeal; the seventh of the second Job is the seventh of all.
    assert env(job, 1) == {"MASTER_PORT": "3389", "PEER": "resnet-workers-6.resnet"}
    assert "--master_addr=resnet-driver-0.resnet " in container(job, 1)["command"][2]
    # Not all pods ask for it: it stays with those that do.
    assert template(job, 1)["nodeSelector"] == {"gpu": "h100"}
    assert "scheduling" not in job["spec"]
    assert said(answer, "guessed") == ["spec.replicatedJobs[1].replicas"]
    assert said(answer, "left") == ["spec.replicatedJobs[1].dependsOn"]


def test_a_jobset_stays_one_where_that_is_asked_for_and_its_host_names_are_its_own(
    trainseal: Run,
) -> None:
    job = job_of(trainseal("wrap", "-f", "jobset.yaml", "-n", "research", "--keep-engine"))
    assert job["spec"]["engine"] == "JobSet"
    parsed = TrainingJob.parse(job)
    inputs = RenderInputs(seal_name="s", job_uid="u", gate_image="g", code=())
    first, second = (role.object_name for role in jobset.render(parsed, inputs).roles)
    assert env(job, 1)["PEER"] == f"{second}-6.resnet"
    assert f"--master_addr={first}-0.resnet " in container(job, 1)["command"][2]


# TrainJob ----------------------------------------------------------------------------------------


def test_a_trainjob_stays_one_where_that_is_asked_for(trainseal: Run) -> None:
    files = ("-f", "trainjob.yaml", "--runtime", "runtime.yaml")
    job = job_of(trainseal("wrap", *files, "--keep-engine"))
    assert job["spec"]["engine"] == "TrainJob"
    assert env(job)["PET_MASTER_ADDR"] == "llama-node-0-0.llama"
    assert job_of(trainseal("wrap", *files))["spec"]["engine"] == "Job"


def test_a_trainjob_becomes_what_its_runtime_makes_of_it(trainseal: Run) -> None:
    answer = trainseal("wrap", "-f", "trainjob.yaml", "--runtime", "runtime.yaml")
    job = job_of(answer)
    assert job["metadata"] == {
        "name": "llama", "namespace": "research", "labels": {"team": "language"}
    }  # fmt: skip
    assert [(r["name"], r["replicas"]) for r in job["spec"]["roles"]] == [("node", 8)]
    found = container(job)
    assert found["image"] == "registry.example/language/llama:v3"
    assert (found["command"], found["args"]) == (
        ["torchrun"],
        ["/opt/llama/finetune.py", "--lr=3e-4"],
    )
    assert env(job) == {
        "NCCL_DEBUG": "INFO",
        "HF_HOME": "/workspace/model",
        "PET_NNODES": "8",
        "PET_NPROC_PER_NODE": "8",
        "PET_NODE_RANK": {"fieldRef": {"fieldPath": INDEX}},
        "PET_MASTER_ADDR": "llama-node-0.llama",
        "PET_MASTER_PORT": "29500",
    }
    assert job["spec"]["scheduling"] == {"tolerations": [{"key": "gpu", "operator": "Exists"}]}
    assert said(answer, "left") == [
        "spec.template.spec.replicatedJobs[0]", "spec.template.spec.replicatedJobs[1].dependsOn",
    ]  # fmt: skip


def test_a_runtime_may_stand_in_the_same_file_and_one_that_is_nowhere_is_asked_for(
    trainseal: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = trainseal("wrap", "-f", "trainjob.yaml", "--runtime", "runtime.yaml")
    texts = [(tmp_path / name).read_text() for name in ("trainjob.yaml", "runtime.yaml")]
    (tmp_path / "both.yaml").write_text("---\n".join(texts))
    assert trainseal("wrap", "-f", "both.yaml").out == both.out
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    alone = trainseal("wrap", "-f", "trainjob.yaml")
    assert (alone.code, alone.out) == (64, "")
    assert "trainjob.yaml:1:1: ClusterTrainingRuntime torch is not in the file" in alone.err
    assert "--runtime FILE" in alone.err
    assert trainseal("wrap", "-f", "trainjob.yaml", "--runtime", "job.yaml").code == 64


# Job ---------------------------------------------------------------------------------------------


def test_of_a_job_that_fetches_its_code_little_is_right_and_each_thing_is_said(
    trainseal: Run,
) -> None:
    answer = trainseal("wrap", "-f", "job.yaml")
    job = job_of(answer)
    assert job["spec"]["suspend"] is True
    assert job["spec"]["roles"][0]["replicas"] == 4
    assert env(job) == {"RANK": {"fieldRef": {"fieldPath": INDEX}}}
    assert container(job)["securityContext"] == {"runAsUser": 0}
    pod = "spec.template.spec"
    assert said(answer, "left") == [
        "spec.activeDeadlineSeconds", f"{pod}.hostIPC",
        f"{pod}.initContainers[0].command", f"{pod}.initContainers[0].command",
        f"{pod}.containers[0].envFrom[0]", f"{pod}.containers[0].securityContext.privileged",
        f"{pod}.containers[0].volumeMounts[1]", f"{pod}.containers[0].volumeMounts[2]",
    ]  # fmt: skip
    for words in ("`git clone` fetches", "`pip install` fetches", "/code/train.py, in a writable"):
        assert words in answer.err


def test_what_is_taken_over_whole_ends_well(trainseal: Run, tmp_path: Path) -> None:
    value: Object = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "small", "namespace": "research"},
        "spec": {
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [{"name": "t", "image": world.IMAGE, "command": ["true"]}],
                }
            }
        },
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(value))
    answer = trainseal("wrap", "-f", "small.yaml")
    assert answer.code == 0
    assert "0 changed, 0 guessed, 0 left, 0 refused" in answer.err
    assert container(job_of(answer)) == value["spec"]["template"]["spec"]["containers"][0]
