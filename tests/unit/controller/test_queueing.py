"""What Kueue is answered about a Workload, and when a run that must not run may be in a queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit import world
from tests.unit.controller.cluster import ENGINE, JOB, Cluster
from tests.unit.controller.test_jobset_runs import CHILDREN
from tests.unit.controller.test_jobset_runs import cluster as jobset_cluster
from trainseal.cluster.api import MERGE_PATCH, ConflictError, KubeError
from trainseal.controller.queueing import NEVER_AGAIN, NOT_NOW_AGAIN, Kept, Queueing
from trainseal.controller.workloads import API, CONTROLLER_NAME
from trainseal.engines.engine import LABEL_QUEUE
from trainseal.provenance.verdicts import Outcome

Object = dict[str, Any]
CHECK = "provenance"
KEY = ("research", "job-char-lm-worker-1a2b3")
WORKLOAD = f"/apis/{API}/namespaces/research/workloads/{KEY[1]}"
THE_CHECK = f"/apis/{API}/admissionchecks/{CHECK}"
RESERVED, ADMITTED, EVICTED = "QuotaReserved", "Admitted", "Evicted"
HOLD = {
    "id": "0" * 16,
    "response": "Suspend",
    "since": "2026-11-23T12:00:00Z",
    "findings": ["0" * 16],
    "reason": "file.changed",
    "severity": "Critical",
    "message": "written",
}


@pytest.fixture
def cluster() -> Cluster:
    """A sealed run that waits in a queue, and Kueue's Workload of it."""
    found = Cluster(checks={CHECK})
    found.submit()
    found.edit(scheduling={"queueName": "team-a"})
    found.settle()
    job = found.objects[ENGINE]
    found.objects[WORKLOAD] = workload(job["metadata"]["uid"], job["spec"]["template"])
    return found


def workload(uid: str, template: Object) -> Object:
    """As Kueue makes it."""
    owner = {"kind": "Job", "name": "char-lm-worker", "uid": uid, "controller": True}
    return {
        "apiVersion": API,
        "kind": "Workload",
        "metadata": {
            "namespace": KEY[0],
            "name": KEY[1],
            "uid": "uid-workload",
            "resourceVersion": "7",
            "labels": {"kueue.x-k8s.io/job-uid": uid},
            "ownerReferences": [owner],
        },
        "spec": {"queueName": "team-a", "podSets": [{"name": "main", "template": template}]},
        "status": {
            "conditions": [],
            "admissionChecks": [
                {"name": "budget", "state": "Pending", "message": ""},
                {"name": CHECK, "state": "Pending", "message": "", "retryCount": 2},
            ],
        },
    }


def is_now(cluster: Cluster, *conditions: str) -> None:
    """The Workload's conditions that are true."""
    cluster.objects[WORKLOAD]["status"]["conditions"] = [
        {"type": type_, "status": "True"} for type_ in conditions
    ]


def answer(cluster: Cluster) -> float | None:
    """One look at the Workload, by a controller that has just started."""
    made = cluster.world()
    kept = Kept(cluster)  # type: ignore[arg-type]
    queueing = Queueing(made, kept)
    check: Object = {
        "metadata": {"name": CHECK, "generation": 1},
        "spec": {"controllerName": CONTROLLER_NAME},
    }
    queueing._checks._objects["", CHECK] = check
    kept.ours.add(CHECK)
    cluster.objects.setdefault(THE_CHECK, {"kind": "AdmissionCheck", **check})
    if WORKLOAD in cluster.objects:
        queueing._workloads._objects[KEY] = cluster.objects[WORKLOAD]
    return world.run(queueing.reconcile(KEY))


def said(cluster: Cluster) -> tuple[str, str]:
    """The state of our check, and its words."""
    (found,) = [
        c for c in cluster.objects[WORKLOAD]["status"]["admissionChecks"] if c["name"] == CHECK
    ]
    return found["state"], found["message"]


def state(cluster: Cluster) -> str:
    return said(cluster)[0]


def bare(cluster: Cluster) -> None:
    """It is of no run, and asks for a GPU."""
    template = cluster.objects[WORKLOAD]["spec"]["podSets"][0]["template"]
    template["metadata"]["labels"] = {}


# In order -----------------------------------------------------------------------------------------


def test_a_run_in_order_is_ready_once_quota_is_reserved_and_not_before(cluster: Cluster) -> None:
    answer(cluster)
    assert state(cluster) == "Pending"
    assert "verified" in said(cluster)[1]
    is_now(cluster, RESERVED)
    assert answer(cluster) is None
    assert state(cluster) == "Ready"


def test_an_answer_is_written_once_and_leaves_other_checks_and_kueues_counts(
    cluster: Cluster,
) -> None:
    is_now(cluster, RESERVED)
    answer(cluster)
    writes = len(cluster.writes)
    answer(cluster)
    assert len(cluster.writes) == writes
    budget, ours = cluster.objects[WORKLOAD]["status"]["admissionChecks"]
    assert budget == {"name": "budget", "state": "Pending", "message": ""}
    assert ours["retryCount"] == 2


def test_one_that_lost_its_quota_is_judged_anew_when_it_gets_some(cluster: Cluster) -> None:
    is_now(cluster, RESERVED)
    answer(cluster)
    is_now(cluster)
    answer(cluster)
    assert state(cluster) == "Pending"


def test_what_asks_for_no_gpu_and_is_of_no_run_passes(cluster: Cluster) -> None:
    bare(cluster)
    template = cluster.objects[WORKLOAD]["spec"]["podSets"][0]["template"]
    template["spec"] = {"containers": [{"name": "main", "image": "x"}]}
    is_now(cluster, RESERVED)
    answer(cluster)
    assert said(cluster) == ("Ready", "it asks for no GPU")


# Not now, and never -------------------------------------------------------------------------------


def held(cluster: Cluster) -> None:
    cluster.seal["status"]["hold"] = dict(HOLD)


def suspended(cluster: Cluster) -> None:
    cluster.edit(suspend=True)


def unread(cluster: Cluster) -> None:
    cluster.evidence.outcomes[world.CODE] = Outcome.UNDETERMINED


def unbound(cluster: Cluster) -> None:
    del cluster.seal["status"]["binding"]


def leaving(cluster: Cluster) -> None:
    del cluster.objects[JOB]


def ended(cluster: Cluster) -> None:
    cluster.seal["status"]["phase"] = "Failed"


def refuted(cluster: Cluster) -> None:
    cluster.evidence.outcomes[world.CODE] = Outcome.REFUTED


def of_another_object(cluster: Cluster) -> None:
    owner = cluster.objects[WORKLOAD]["metadata"]["ownerReferences"][0]
    owner["uid"] = "uid-mallory"


def of_nobody(cluster: Cluster) -> None:
    del cluster.objects[WORKLOAD]["metadata"]["ownerReferences"]


def forged(cluster: Cluster) -> None:
    cluster.seal["status"]["binding"]["objects"][0]["uid"] = "uid-mallory"
    of_another_object(cluster)


def of_no_such_seal(cluster: Cluster) -> None:
    template = cluster.objects[WORKLOAD]["spec"]["podSets"][0]["template"]
    template["metadata"]["labels"]["trainseal.dev/seal"] = "none"


def of_another_job(cluster: Cluster) -> None:
    cluster.objects[JOB]["metadata"]["uid"] = "uid-of-another"


NOT_NOW = [held, suspended, unread, unbound, leaving, ended]
NEVER = [refuted, bare, of_another_object, of_nobody, forged, of_no_such_seal, of_another_job]


@pytest.mark.parametrize("reserved", [False, True])
@pytest.mark.parametrize("change", NOT_NOW)
def test_what_may_not_run_now_is_told_to_try_again(
    cluster: Cluster, change: Callable[[Cluster], None], reserved: bool
) -> None:
    change(cluster)
    is_now(cluster, *([RESERVED] if reserved else []))
    assert answer(cluster) == NOT_NOW_AGAIN
    assert state(cluster) == "Retry"
    assert said(cluster)[1]


@pytest.mark.parametrize("change", NEVER)
def test_what_is_refuted_or_of_no_run_is_rejected(
    cluster: Cluster, change: Callable[[Cluster], None]
) -> None:
    change(cluster)
    is_now(cluster, RESERVED)
    assert answer(cluster) == NEVER_AGAIN
    assert state(cluster) == "Rejected"


def test_what_of_no_run_asks_for_a_gpu_is_told_what_to_do(cluster: Cluster) -> None:
    bare(cluster)
    answer(cluster)
    words = said(cluster)[1]
    assert "asks for nvidia.com/gpu" in words
    assert "expected a signed TrainingJob" in words


def test_where_the_policies_only_audit_it_passes_with_a_word(cluster: Cluster) -> None:
    bare(cluster)
    cluster.policy = world.policy(mode="Audit")
    is_now(cluster, RESERVED)
    answer(cluster)
    assert state(cluster) == "Ready"
    assert "only audit" in said(cluster)[1]


@pytest.mark.parametrize("change", [held, suspended, of_another_job, forged])
def test_one_that_is_admitted_is_evicted_for_what_is_told_of_it_since(
    cluster: Cluster, change: Callable[[Cluster], None]
) -> None:
    is_now(cluster, RESERVED)
    answer(cluster)
    is_now(cluster, RESERVED, ADMITTED)
    change(cluster)
    answer(cluster)
    assert state(cluster) in ("Retry", "Rejected")


def test_one_that_is_admitted_is_not_judged_by_its_signatures_again(cluster: Cluster) -> None:
    is_now(cluster, RESERVED, ADMITTED)
    refuted(cluster)
    answer(cluster)
    assert state(cluster) == "Ready"


@pytest.mark.parametrize("response", ["Freeze", "Quarantine"])
def test_a_run_that_is_frozen_keeps_its_quota_as_it_keeps_its_pods(
    cluster: Cluster, response: str
) -> None:
    cluster.seal["status"]["hold"] = {**HOLD, "response": response}
    is_now(cluster, RESERVED, ADMITTED)
    answer(cluster)
    assert state(cluster) == "Ready"
    is_now(cluster, RESERVED)
    answer(cluster)
    assert state(cluster) == "Retry"


def test_what_waits_no_more_is_left_alone(cluster: Cluster) -> None:
    held(cluster)
    is_now(cluster, "Finished")
    assert answer(cluster) is None
    del cluster.objects[WORKLOAD]["status"]["admissionChecks"]
    is_now(cluster, RESERVED)
    assert answer(cluster) is None
    del cluster.objects[WORKLOAD]
    assert answer(cluster) is None


def test_what_kueue_wrote_meanwhile_is_read_before_it_is_answered(cluster: Cluster) -> None:
    cluster.refuses[f"PATCH {WORKLOAD}/status"] = ConflictError(409, "Conflict", "changed")
    again = answer(cluster)
    assert again is not None
    assert again < 1
    assert state(cluster) == "Pending"


# Whether a label may be borne ---------------------------------------------------------------------


def label(cluster: Cluster) -> str:
    """The queue's on the run's Job."""
    found: str = cluster.objects[ENGINE]["metadata"]["labels"].get(LABEL_QUEUE, "")
    return found


def terminated(cluster: Cluster) -> None:
    cluster.seal["status"]["hold"] = {**HOLD, "response": "Terminate"}


@pytest.mark.parametrize("change", [held, suspended, terminated])
def test_a_held_run_is_back_in_its_queue_once_our_check_keeps_it_out(
    cluster: Cluster, change: Callable[[Cluster], None]
) -> None:
    cluster.objects[ENGINE]["spec"]["suspend"] = False
    is_now(cluster, RESERVED, ADMITTED)
    answer(cluster)
    change(cluster)
    cluster.settle()
    # Kueue would resume it: it is admitted.
    assert cluster.objects[ENGINE]["spec"]["suspend"]
    assert label(cluster) == ""
    answer(cluster)
    cluster.settle()
    assert label(cluster) == ""
    is_now(cluster, RESERVED, ADMITTED, EVICTED)
    cluster.settle()
    # Without its label Kueue would count its quota as taken.
    assert label(cluster) == "team-a"
    assert cluster.objects[ENGINE]["spec"]["suspend"]


def test_a_job_that_is_left_of_a_failed_run_gives_its_quota_back(cluster: Cluster) -> None:
    # Another role failed: this one was suspended, out of the queue's reach, and never ends.
    del cluster.objects[ENGINE]["metadata"]["labels"][LABEL_QUEUE]
    cluster.seal["status"]["phase"] = cluster.objects[JOB]["status"]["phase"] = "Failed"
    is_now(cluster, RESERVED, ADMITTED)
    answer(cluster)
    assert state(cluster) == "Retry"
    cluster.settle()
    assert label(cluster) == ""
    is_now(cluster, RESERVED, ADMITTED, EVICTED)
    cluster.settle()
    assert label(cluster) == "team-a"
    assert cluster.objects[ENGINE]["spec"]["suspend"]


def test_who_follows_the_run_is_told_when_our_check_keeps_it_out(cluster: Cluster) -> None:
    told: list[tuple[str, str]] = []
    kept = Kept(cluster)  # type: ignore[arg-type]
    kept.ours.add(CHECK)
    queueing = Queueing(cluster.world(), kept, told.append)
    for conditions in ((RESERVED, ADMITTED), (RESERVED, ADMITTED, EVICTED)):
        is_now(cluster, *conditions)
        queueing._on_workload("MODIFIED", KEY, cluster.objects[WORKLOAD])
    assert told == [("research", "char-lm")]


@pytest.mark.parametrize(
    "breaks",
    [
        lambda w: w["status"].pop("admissionChecks"),
        lambda w: w["status"]["admissionChecks"][1].update(state="Ready"),
        lambda w: w["metadata"]["ownerReferences"][0].update(uid="uid-mallory"),
    ],
)
def test_without_a_check_of_ours_that_is_shut_it_stays_out_of_every_queue(
    cluster: Cluster, breaks: Callable[[Object], object]
) -> None:
    held(cluster)
    is_now(cluster)
    answer(cluster)
    breaks(cluster.objects[WORKLOAD])
    cluster.settle()
    assert label(cluster) == ""


# A queue that does not let go ---------------------------------------------------------------------


def test_a_label_that_cannot_be_taken_off_keeps_no_hold_from_the_run(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.objects[ENGINE]["spec"]["suspend"] = False
    held(cluster)
    made = cluster.patch

    async def refuse(path: str, patch: Any, content_type: str = MERGE_PATCH) -> Object:
        if path == ENGINE and "labels" in patch.get("metadata", {}):
            raise KubeError(403, "Forbidden", "queue-name must not be empty")
        return await made(path, patch, content_type)

    monkeypatch.setattr(cluster, "patch", refuse)
    cluster.settle()
    assert cluster.objects[ENGINE]["spec"]["suspend"]


def test_a_run_that_a_queue_keeps_is_not_resumed_behind_its_back() -> None:
    cluster = Cluster()
    cluster.submit()
    cluster.edit(suspend=True)
    cluster.settle()
    # As Kueue's webhook does in a namespace with a default queue.
    cluster.objects[ENGINE]["metadata"]["labels"][LABEL_QUEUE] = "default"
    cluster.refuses[f"PATCH {ENGINE}"] = KubeError(403, "Forbidden", "must not be empty")
    cluster.edit(suspend=False)
    cluster.settle()
    assert cluster.objects[ENGINE]["spec"]["suspend"]
    placed = cluster.condition("Placed")
    assert placed["reason"] == "QueueRefused"
    assert "is in the queue default" in placed["message"]


# Of another engine --------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "expected"), [("JobSet", "Ready"), ("Job", "Rejected")])
def test_a_jobsets_workload_stands_for_the_jobset_and_not_for_a_job_of_it(
    kind: str, expected: str
) -> None:
    found = jobset_cluster(checks={CHECK})
    found.edit(scheduling={"queueName": "team-a"})
    found.look()
    child = found.objects[CHILDREN[0]]
    of = {"JobSet": found.root, "Job": child}[kind]
    made = workload(of["metadata"]["uid"], child["spec"]["template"])
    made["metadata"]["ownerReferences"][0]["kind"] = kind
    found.objects[WORKLOAD] = made
    is_now(found, RESERVED)
    answer(found)
    assert state(found) == expected
