"""`trainseal status`: what was verified, who signed, who asked, what runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.unit import world
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_kube import FakeKube, connecting_to
from trainseal.cluster import api
from trainseal.cluster.api import KubeError
from trainseal.controller.sealing import artifacts
from trainseal.provenance.keys import PrivateKey

NAMESPACE = "/apis/trainseal.dev/v1alpha1/namespaces/research"
JOB = f"{NAMESPACE}/trainingjobs/char-lm"


@pytest.fixture
def kube(monkeypatch: pytest.MonkeyPatch) -> FakeKube:
    """A sealed run of two workers, one of which the gate refused."""
    sealed = world.sealed_world()
    seal, job = sealed.seal, sealed.job
    name = seal["metadata"]["name"]
    job["status"] = {
        "phase": "Running",
        "message": "1/2 workers ready",
        "verified": "verified",
        "jobDigest": seal["spec"]["job"]["digest"],
        "sealedRun": name,
        "run": 1,
        "requester": "bob@example.org",
        "signers": "Alice",
        "roles": [{"name": "worker", "replicas": 2, "ready": 1, "failed": 1}],
        "artifacts": seal["spec"]["artifacts"],
    }
    good, bad = (pod(sealed, index) for index in (0, 1))
    bad["status"] = {
        "phase": "Failed",
        "initContainerStatuses": [
            {
                "name": "trainseal-gate",
                "state": {"terminated": {"exitCode": 1, "message": "train.py: changed\n"}},
            }
        ],
    }
    found = FakeKube(
        {
            JOB: job,
            f"{NAMESPACE}/sealedruns/{name}": seal,
            "/api/v1/namespaces/research/pods": {"items": [good, bad]},
        }
    )
    monkeypatch.setattr(api, "connect", connecting_to(found))
    return found


def pod(sealed: world.World, index: int) -> Any:
    found = sealed.pod(index)
    found["metadata"]["name"] = f"char-lm-worker-{index}"
    found["status"] = {"phase": "Running"}
    return found


def test_it_tells_what_was_verified_who_signed_who_asked_and_what_runs(
    trainseal: Run, kube: FakeKube
) -> None:
    answer = trainseal("status", "char-lm", "-n", "research")
    assert answer.code == 0
    for words in (
        "research/char-lm Running",
        "1/2 workers ready",
        "asked by   bob@example.org at 2026-11-23T12:00:00Z",
        "✓ job research/char-lm signed by Alice",
        f"{world.IMAGE}",
        "policy     research (Enforce)",
        "1/2 ready, 1 failed",
        "gate: train.py: changed",
    ):
        assert words in answer.out


def test_programs_get_the_same_as_json(trainseal: Run, kube: FakeKube) -> None:
    found = json.loads(trainseal("status", "char-lm", "-n", "research", "-o", "json").out)
    assert found["phase"] == "Running"
    assert found["requester"] == "bob@example.org"
    assert [a["outcome"] for a in found["artifacts"]] == ["verified"] * 3
    assert found["pods"][1]["gate"] == "gate: train.py: changed"


def test_of_an_elastic_run_it_tells_the_members_and_who_chose_them(
    trainseal: Run, kube: FakeKube
) -> None:
    seal = sealed_run(kube)
    seal["status"]["epochs"] = [
        world.membership(4).told(None),
        world.membership(3, 2).told("carol@example.org"),
    ]
    found = trainseal("status", "char-lm", "-n", "research").out
    words = "members    3 worker (epoch 2, since 2026-11-23T12:00:00Z, chosen by carol@example.org)"
    assert words in found
    listed = json.loads(trainseal("status", "char-lm", "-n", "research", "-o", "json").out)
    assert [e["number"] for e in listed["epochs"]] == [1, 2]
    seal["spec"]["run"] = 7  # not TrainSeal's any more
    publish(kube, world.SEAL_KEY)
    assert "members" not in trainseal("status", "char-lm", "-n", "research").out


def test_a_refused_job_shows_each_artifacts_reason(trainseal: Run, kube: FakeKube) -> None:
    refused = world.verify(world.job_object())
    kube.objects[JOB]["status"] = {
        "phase": "Refused",
        "message": "",
        "artifacts": [a.wire() for a in artifacts(refused.verdicts)],
    }
    answer = trainseal("status", "char-lm", "-n", "research")
    assert "✗ job research/char-lm" in answer.out
    assert "no signature found" in answer.out


def test_a_job_nobody_looked_at_yet_is_pending(trainseal: Run, kube: FakeKube) -> None:
    del kube.objects[JOB]["status"]
    assert "research/char-lm Pending" in trainseal("status", "char-lm", "-n", "research").out


def test_a_job_that_is_not_there_is_said_so(trainseal: Run, kube: FakeKube) -> None:
    answer = trainseal("status", "other", "-n", "research")
    assert answer.code == 1
    assert "no TrainingJob other in namespace research" in answer.err


def test_what_one_may_not_see_is_said_and_the_rest_shown(trainseal: Run, kube: FakeKube) -> None:
    path = "/api/v1/namespaces/research/pods"
    kube.failures[path] = KubeError(403, "Forbidden", "you may not list pods")
    answer = trainseal("status", "char-lm", "-n", "research")
    assert answer.code == 0
    assert "not shown: the pods: you may not list pods" in answer.out


def test_a_cluster_that_is_away_is_undetermined(trainseal: Run, kube: FakeKube) -> None:
    kube.failures[JOB] = KubeError(0, "Unreachable", "connection refused")
    assert trainseal("status", "char-lm", "-n", "research").code == 2


def test_watched_it_says_each_step_once_until_the_run_ends(trainseal: Run, kube: FakeKube) -> None:
    sealed = {"phase": "Sealed", "message": "waiting for its pods"}
    kube.states = [{}, sealed, sealed, {"phase": "Succeeded", "message": "all workers completed"}]
    answer = trainseal("status", "char-lm", "-n", "research", "--watch")
    assert answer.out.splitlines() == [
        "Pending",
        "Sealed: waiting for its pods",
        "Succeeded: all workers completed",
    ]


def test_a_watched_job_that_is_deleted_ends_the_watch(trainseal: Run, kube: FakeKube) -> None:
    suspended = {**kube.objects[JOB], "status": {"phase": "Suspended"}}
    kube.events = [("MODIFIED", suspended), ("BOOKMARK", {}), ("DELETED", suspended)]
    answer = trainseal("status", "char-lm", "-n", "research", "--watch")
    assert answer.code == 1
    assert answer.out.splitlines() == ["Running: 1/2 workers ready", "Suspended"]


# The seal's signature -----------------------------------------------------------------------------

KEYRING = "/api/v1/namespaces/trainseal-system/configmaps/trainseal-keyring"


def publish(kube: FakeKube, *keys: PrivateKey, cluster: str = world.CLUSTER) -> None:
    """The operator's public keys, where the reader may read them."""
    entries = [
        {"purpose": "seal", "notBefore": "2025-01-01T00:00:00Z", "publicKey": key.public.pem}
        for key in keys
    ]
    kube.objects[KEYRING] = {"data": {"keys.yaml": yaml.safe_dump(entries)}}
    kube.objects["/api/v1/namespaces/kube-system"] = {"metadata": {"uid": cluster}}


def sealed_run(kube: FakeKube) -> Any:
    (found,) = [o for p, o in kube.objects.items() if "/sealedruns/" in p]
    return found


def unbound(kube: FakeKube) -> None:
    del sealed_run(kube)["status"]["binding"]


@pytest.mark.parametrize("state", [None, unbound], ids=["bound", "not bound yet"])
def test_a_seal_of_the_operators_is_shown_as_verified(
    trainseal: Run, kube: FakeKube, state: Callable[[FakeKube], None] | None
) -> None:
    publish(kube, world.SEAL_KEY)
    if state:
        state(kube)
    answer = trainseal("status", "char-lm", "-n", "research")
    assert answer.code == 0
    assert "its signature verified" in answer.out
    found = json.loads(trainseal("status", "char-lm", "-n", "research", "-o", "json").out)
    assert found["seal"] == {"outcome": "verified", "message": ""}


def test_a_seal_whose_keyring_one_may_not_read_is_shown_as_unverified(
    trainseal: Run, kube: FakeKube
) -> None:
    kube.failures[KEYRING] = KubeError(403, "Forbidden", "you may not read the keyring")
    answer = trainseal("status", "char-lm", "-n", "research")
    assert answer.code == 0
    assert "unverified: you may not read the keyring" in answer.out
    assert "✓ job research/char-lm signed by Alice" in answer.out


def other_signer(kube: FakeKube) -> None:
    sealed_run(kube)["spec"]["artifacts"][0]["signers"][0]["person"] = "Mallory"


def other_job(kube: FakeKube) -> None:
    kube.objects[JOB]["metadata"]["uid"] = "another"


def other_parameters(kube: FakeKube) -> None:
    kube.objects[JOB]["spec"]["config"]["parameters"]["learning_rate"] = 3


def no_mark(kube: FakeKube) -> None:
    unbound(kube)
    del sealed_run(kube)["metadata"]["annotations"]


def other_cluster(kube: FakeKube) -> None:
    publish(kube, world.SEAL_KEY, cluster="another")


def other_key(kube: FakeKube) -> None:
    publish(kube, world.MALLORY)


@pytest.mark.parametrize(
    "change", [other_signer, other_job, other_parameters, no_mark, other_cluster, other_key]
)
def test_what_a_seal_that_is_not_the_operators_says_is_not_shown(
    trainseal: Run, kube: FakeKube, change: Callable[[FakeKube], None]
) -> None:
    publish(kube, world.SEAL_KEY)
    change(kube)
    answer = trainseal("status", "char-lm", "-n", "research")
    assert answer.code == 1
    assert "the seal is not TrainSeal's" in answer.out
    assert "Tell the platform team" in answer.out
    assert "signed by Alice" not in answer.out.replace("signed by  Alice", "")
    found = json.loads(trainseal("status", "char-lm", "-n", "research", "-o", "json").out)
    assert found["seal"]["outcome"] == "refuted"
    assert found["artifacts"] == []
    assert found["policies"] is None
