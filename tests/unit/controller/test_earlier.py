"""What a seal says of the runs that its job could go on from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.unit import world
from tests.unit.controller.cluster import KEY, Cluster
from tests.unit.controller.test_taintedvolumes import stored as checkpoint
from tests.unit.controller.test_taintedvolumes import told
from trainseal.controller.runs import Runs
from trainseal.controller.taintedvolumes import TaintedVolumes

CLAIM = "/api/v1/namespaces/research/persistentvolumeclaims/ckpt"


def submitted() -> Cluster:
    """A job that keeps its checkpoints on a claim."""

    def on_a_claim(job: dict[str, Any]) -> None:
        volume = {"persistentVolumeClaim": {"claimName": "ckpt"}}
        job["spec"]["checkpoints"] |= {"volume": volume, "path": "runs/char-lm"}

    cluster = Cluster()
    cluster.objects[CLAIM] = {
        "kind": "PersistentVolumeClaim",
        "metadata": {"uid": "u-2", "name": "ckpt", "namespace": "research"},
        "spec": {"volumeName": "pv-1"},
    }
    cluster.submit(on_a_claim)
    return cluster


def looked(cluster: Cluster, volumes: TaintedVolumes) -> float | None:
    found = replace(cluster.world(), volumes=volumes)
    return world.run(Runs(found, cluster.versions()).reconcile(KEY))


def test_a_seal_names_the_run_whose_checkpoints_lie_where_its_own_will() -> None:
    cluster, clean = submitted(), checkpoint()
    del clean["status"]["tainted"]
    looked(cluster, told(clean))
    assert cluster.seal["spec"]["earlier"] == [
        {
            "inNamespace": "default",
            "sealedRun": "char-lm-1",
            "checkpoints": 1,
            "newest": f"{clean['metadata']['name']}-0",
        }
    ]


def test_a_job_that_finds_nothing_has_nothing_before_it() -> None:
    cluster = submitted()
    looked(cluster, TaintedVolumes())
    assert "earlier" not in cluster.seal["spec"]


def test_nothing_is_sealed_before_it_is_known_what_lies_there() -> None:
    cluster, volumes = submitted(), TaintedVolumes()
    volumes.expect()
    assert looked(cluster, volumes) is not None
    assert cluster.status["phase"] == "Pending"
    assert not [o for o in cluster.objects.values() if o["kind"] == "SealedRun"]
    volumes.listed()
    looked(cluster, volumes)
    assert cluster.seal
