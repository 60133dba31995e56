"""The engines of others work on the test cluster, without TrainSeal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cluster import Cluster, CommandError
from tests.cluster.pause import binary_archive

Object = dict[str, Any]


@pytest.fixture(scope="module")
def image(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a program that says its version and ends."""
    archive = tmp_path_factory.mktemp("image") / "image.tar"
    binary_archive(archive, "says:1", cluster.tools.crane, ["/bin/crane", "version"])
    return cluster.push_image(archive, "says")


@pytest.mark.usefixtures("jobset")
def test_a_plain_jobset_runs_to_its_end(cluster: Cluster, image: str) -> None:
    create(cluster, jobset("plain", replicated("driver", image), replicated("worker", image, 2)))
    cluster.kubectl(
        "wait", "jobset/plain", "--for=jsonpath={.status.terminalState}=Completed", "--timeout=240s"
    )
    ours = ("-l", "jobset.sigs.k8s.io/jobset-name=plain")
    jobs = json.loads(cluster.kubectl("get", "jobs", *ours, "-o", "json"))["items"]
    ended = {job["metadata"]["name"]: job["status"]["succeeded"] for job in jobs}
    assert ended == {"plain-driver-0": 1, "plain-worker-0": 2}


@pytest.mark.usefixtures("jobset")
def test_its_webhook_refuses_a_jobset_that_waits_for_a_job_it_has_not(
    cluster: Cluster, image: str
) -> None:
    wrong = jobset("wrong", replicated("driver", image))
    wrong["spec"]["successPolicy"] = {"operator": "All", "targetReplicatedJobs": ["leader"]}
    with pytest.raises(CommandError, match="denied the request"):
        create(cluster, wrong)


@pytest.mark.usefixtures("trainer")
def test_a_plain_trainjob_runs_to_its_end(cluster: Cluster, image: str) -> None:
    step = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    node = replicated("node", image)
    node["template"]["metadata"] = {"labels": step}
    node["template"]["spec"]["template"]["spec"]["containers"][0]["name"] = "node"
    create(
        cluster,
        {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "TrainingRuntime",
            "metadata": {"name": "trains", "namespace": "default"},
            "spec": {
                "mlPolicy": {"numNodes": 1},
                "template": {"spec": {"replicatedJobs": [node]}},
            },
        },
    )
    create(
        cluster,
        {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "TrainJob",
            "metadata": {"name": "trains", "namespace": "default"},
            "spec": {"runtimeRef": {"name": "trains", "kind": "TrainingRuntime"}},
        },
    )
    cluster.kubectl("wait", "trainjob/trains", "--for=condition=Complete", "--timeout=240s")


@pytest.mark.usefixtures("training_operator")
def test_a_plain_pytorchjob_runs_to_its_end(cluster: Cluster, image: str) -> None:
    pod = {"containers": [{"name": "pytorch", "image": image}]}
    master = {"replicas": 1, "restartPolicy": "Never", "template": {"spec": pod}}
    create(
        cluster,
        {
            "apiVersion": "kubeflow.org/v1",
            "kind": "PyTorchJob",
            "metadata": {"name": "trains", "namespace": "default"},
            "spec": {"pytorchReplicaSpecs": {"Master": master}},
        },
    )
    cluster.kubectl("wait", "pytorchjob/trains", "--for=condition=Succeeded", "--timeout=240s")


def create(cluster: Cluster, obj: Object) -> None:
    """As the administrator."""
    cluster.kubectl("create", "-f", "-", input=json.dumps(obj))


def jobset(name: str, *jobs: Object) -> Object:
    """A JobSet of these Jobs."""
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicatedJobs": list(jobs)},
    }


def replicated(name: str, image: str, workers: int = 1) -> Object:
    """A Job of a JobSet that ends at once."""
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": image}]}
    spec = {
        "completionMode": "Indexed",
        "completions": workers,
        "parallelism": workers,
        "template": {"spec": pod},
    }
    return {"name": name, "replicas": 1, "template": {"spec": spec}}
