"""One job from its admission to its end, on an API server in memory."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.unit import world
from tests.unit.controller.cluster import (
    ENGINE,
    EVENTS,
    JOB,
    KEY,
    LOOKS,
    OURS,
    Cluster,
    DiedError,
)
from trainseal.cluster.api import KubeError
from trainseal.controller.objects import uid_of
from trainseal.controller.runs import LIVE_AGAIN, Runs
from trainseal.engines.engine import LABEL_QUEUE
from trainseal.provenance.helppages import REASONS
from trainseal.provenance.verdicts import Outcome

Object = dict[str, Any]
SEALS = f"{OURS}/sealedruns"


def submitted() -> Cluster:
    """A job that was just let in."""
    found = Cluster()
    found.submit()
    return found


@pytest.fixture
def cluster() -> Cluster:
    return submitted()


def lived(cluster: Cluster) -> Cluster:
    """The job's whole life."""
    cluster.settle()
    while cluster.works():
        cluster.settle()
    return cluster


# Events -------------------------------------------------------------------------------------------


def test_events_tell_each_step_once_and_in_order(cluster: Cluster) -> None:
    lived(cluster)
    assert cluster.told() == ["Sealed", "Running", "Succeeded"]
    sealed = next(o for o in cluster.objects.values() if o.get("reason") == "Sealed")
    for words in ("run 1 of sha256:", "bob@example.org", "signed by Alice"):
        assert words in sealed["message"]


def test_a_step_that_is_taken_again_is_told_again(cluster: Cluster) -> None:
    cluster.settle()
    cluster.works()
    cluster.settle()
    for suspend in (True, False, True, False):
        cluster.edit(suspend=suspend)
        cluster.engine()
        cluster.settle()
    assert cluster.told()[2:] == ["Suspended", "Resumed", "Suspended", "Resumed"]


def without_ticket(cluster: Cluster) -> None:
    cluster.objects[JOB]["metadata"]["annotations"] = {}


def of_no_form(cluster: Cluster) -> None:
    cluster.objects[JOB]["spec"]["roles"][0]["name"] = "Not A Label"


def unverified(cluster: Cluster) -> None:
    cluster.evidence.outcomes[world.CODE] = Outcome.REFUTED


def unread(cluster: Cluster) -> None:
    cluster.evidence.outcomes[world.CODE] = Outcome.UNDETERMINED


def of_no_template(cluster: Cluster) -> None:
    cluster.refuses[f"TRY {ENGINE}"] = KubeError(422, "Invalid", "spec.template: no such field")


@pytest.mark.parametrize(
    ("change", "reason", "phase"),
    [
        (without_ticket, "NoTicket", "Refused"),
        (of_no_form, "InvalidJob", "Refused"),
        (of_no_template, "InvalidTemplate", "Refused"),
        (unverified, "NotVerified", "Refused"),
        (unread, "NotVerified", "Pending"),
    ],
)
def test_a_refusal_is_told_once_with_its_reason(
    cluster: Cluster, change: Any, reason: str, phase: str
) -> None:
    change(cluster)
    cluster.settle()
    cluster.settle()
    assert cluster.told() == [reason]
    assert cluster.status["phase"] == phase
    (event,) = [o for p, o in cluster.objects.items() if p.startswith(EVENTS)]
    assert event["type"] == "Warning"
    assert cluster.condition("Verified")["message"].startswith(event["message"])
    place = REASONS[cluster.condition("Verified")["reason"]].replace("refused#", "refused.md#")
    assert cluster.status["message"].endswith(f"see docs/{place}")


def test_a_job_that_was_refused_and_then_passes_tells_both(cluster: Cluster) -> None:
    unverified(cluster)
    cluster.settle()
    cluster.evidence.outcomes.clear()
    cluster.settle()
    assert cluster.told() == ["NotVerified", "Sealed"]


def test_a_run_that_lost_its_job_fails_under_that_name(cluster: Cluster) -> None:
    cluster.settle()
    del cluster.objects[ENGINE]
    cluster.settle()
    assert cluster.told()[1:] == ["RunLost"]


# Killed in the middle -----------------------------------------------------------------------------

UNDISTURBED = lived(submitted())


@pytest.mark.parametrize("number", range(1, len(UNDISTURBED.writes) + 1))
def test_killed_after_any_write_it_comes_to_the_same_end(cluster: Cluster, number: int) -> None:
    cluster.dies_after = number
    lived(cluster)
    assert cluster.deaths == 1
    assert cluster.objects == UNDISTURBED.objects
    assert cluster.told() == UNDISTURBED.told()


# Where nobody tells the controller of its own doing -----------------------------------------------


class Alone:
    """A controller that looks when others have done something, or when it wanted to."""

    def __init__(self, cluster: Cluster) -> None:
        self.ended: list[tuple[str, str]] = []
        self.runs = Runs(cluster.world(), cluster.versions(), ended=self.ended.append)

    def looks(self) -> None:
        """Until it wants to look again in a minute, or not at all."""
        for _ in range(LOOKS):
            again = world.run(self.runs.reconcile(KEY))
            if again is None or again >= LIVE_AGAIN:
                return
        raise AssertionError("it never comes to rest")


def test_a_run_lives_its_life_by_what_others_do_alone(cluster: Cluster) -> None:
    alone = Alone(cluster)
    alone.looks()
    assert alone.ended == []
    while cluster.works():
        alone.runs.heard(KEY, changed=False)
        alone.looks()
    assert cluster.told() == ["Sealed", "Running", "Succeeded"]
    assert cluster.seal["status"]["phase"] == "Succeeded"
    # Its statement can be made.
    assert alone.ended == [("research", cluster.seal["metadata"]["name"])]


def test_one_that_is_deleted_is_told_to_have_ended_by_the_look_that_closed_it(
    cluster: Cluster,
) -> None:
    alone = Alone(cluster)
    alone.looks()
    del cluster.objects[JOB]
    alone.runs.heard(KEY)
    alone.looks()
    assert cluster.seal["status"]["phase"] == "Deleted"
    assert alone.ended == [("research", cluster.seal["metadata"]["name"])]


# Seals of before ----------------------------------------------------------------------------------


@pytest.mark.parametrize("may_be_open", [True, False])
def test_a_new_job_is_sealed_without_a_look_through_all_seals_unless_one_may_be_open(
    cluster: Cluster, may_be_open: bool
) -> None:
    cluster.may_be_open = may_be_open
    cluster.reconcile()
    assert (SEALS in cluster.lists) == may_be_open
    assert cluster.status["phase"] == "Sealed"
    lived(cluster)
    assert cluster.told() == ["Sealed", "Running", "Succeeded"]


def test_a_seal_of_a_job_of_before_that_was_not_known_yet_is_closed_by_the_next_look(
    cluster: Cluster,
) -> None:
    cluster.settle()
    (before,) = (o for o in cluster.objects.values() if o["kind"] == "SealedRun")
    cluster.may_be_open = False
    del cluster.objects[JOB]
    cluster.submit()
    cluster.objects[JOB]["metadata"]["uid"] = "uid-of-the-next"
    cluster.reconcile()
    assert before["status"]["phase"] == "Bound"
    cluster.may_be_open = True
    cluster.settle()
    path = f"{SEALS}/{before['metadata']['name']}"
    assert cluster.objects[path]["status"]["phase"] == "Deleted"


# Looked at though nothing is heard of it ----------------------------------------------------------


def test_a_run_that_is_on_is_looked_at_each_minute_and_not_all_at_once(cluster: Cluster) -> None:
    again = cluster.settle()
    assert again is not None
    assert LIVE_AGAIN <= again < LIVE_AGAIN + 15
    assert lived(cluster).settle() is None


def test_what_an_editor_took_away_unheard_is_made_anew(cluster: Cluster) -> None:
    cluster.settle()
    name = cluster.seal["metadata"]["name"]
    path = f"/apis/networking.k8s.io/v1/namespaces/research/networkpolicies/{name}"
    del cluster.objects[path]
    cluster.settle()
    assert cluster.objects[path]["metadata"]["labels"]["trainseal.dev/job"] == "char-lm"


def test_what_cannot_be_heard_of_any_more_is_looked_at_soon_and_told(cluster: Cluster) -> None:
    cluster.settle()
    name = cluster.seal["metadata"]["name"]
    path = f"/apis/networking.k8s.io/v1/namespaces/research/networkpolicies/{name}"
    del cluster.objects[path]["metadata"]["labels"]["trainseal.dev/job"]
    assert cluster.settle() == 15
    assert cluster.told()[1:] == ["ObjectChanged"]
    cluster.objects[path]["metadata"]["labels"]["note"] = "x"
    cluster.objects[path]["metadata"]["labels"]["trainseal.dev/job"] = "char-lm"
    again = cluster.settle()
    assert again is not None
    assert again >= LIVE_AGAIN, "what else people note on it is their business"


# What the status is believed ----------------------------------------------------------------------


def test_a_status_that_says_ended_is_not_believed_while_the_seal_is_open(cluster: Cluster) -> None:
    cluster.settle()
    cluster.works()
    cluster.objects[JOB]["status"]["phase"] = "Succeeded"
    cluster.settle()
    assert cluster.status["phase"] == "Running"


def test_a_run_that_has_ended_is_left_as_it_is(cluster: Cluster) -> None:
    lived(cluster)
    before = len(cluster.writes)
    cluster.edit(suspend=True)
    assert cluster.settle() is None
    assert len(cluster.writes) == before


def test_what_the_seal_says_of_the_end_stays_whatever_becomes_of_the_job(cluster: Cluster) -> None:
    cluster.settle()
    cluster.engine(conditions=[{"type": "Failed", "status": "True", "message": "gave up"}])
    cluster.dies_after = len(cluster.writes) + 1
    with pytest.raises(DiedError, match="sealedruns"):
        cluster.reconcile()
    cluster.engine(succeeded=2, conditions=[{"type": "Complete", "status": "True"}])
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["message"]) == ("Failed", "gave up")
    assert cluster.seal["status"]["phase"] == "Failed"


def test_when_a_run_ended_is_said_once(cluster: Cluster) -> None:
    cluster.settle()
    cluster.engine(succeeded=2, conditions=[{"type": "Complete", "status": "True"}])
    cluster.dies_after = len(cluster.writes) + 1
    with pytest.raises(DiedError, match="sealedruns"):
        cluster.reconcile()
    cluster.now += timedelta(minutes=1)
    cluster.settle()
    assert cluster.seal["status"]["completionTime"] == "2026-11-23T12:00:00Z"
    assert cluster.status["completionTime"] == "2026-11-23T12:00:00Z"


def test_a_deleted_job_that_a_finalizer_keeps_is_looked_at_until_its_run_is_over(
    cluster: Cluster,
) -> None:
    cluster.settle()
    cluster.objects[JOB]["metadata"]["deletionTimestamp"] = "2026-11-23T12:00:00Z"
    again = cluster.settle()
    assert again is not None
    assert again >= LIVE_AGAIN
    cluster.seal["status"]["phase"] = "Failed"
    assert cluster.settle() is None


# How a run starts ---------------------------------------------------------------------------------


def two_roles(job: Object) -> None:
    """A driver beside the workers."""
    (worker,) = job["spec"]["roles"]
    job["spec"]["roles"] = [{**worker, "name": "driver", "replicas": 1}, worker]


def writes_of_jobs(cluster: Cluster) -> list[str]:
    return [what for what in cluster.writes if "/jobs/" in what]


def test_a_run_of_one_job_is_made_running_and_bound_at_once(cluster: Cluster) -> None:
    cluster.settle()
    assert writes_of_jobs(cluster) == [f"POST {ENGINE}"]
    assert cluster.objects[ENGINE]["spec"]["suspend"] is False
    after = cluster.writes[cluster.writes.index(f"POST {ENGINE}") + 1]
    assert after.startswith(f"PATCH {OURS}/sealedruns/")
    (bound,) = cluster.seal["status"]["binding"]["objects"]
    assert bound["uid"] == uid_of(cluster.objects[ENGINE])


def test_one_that_was_made_and_not_bound_is_suspended_until_it_is(cluster: Cluster) -> None:
    """So that its controller, who was refused its pods meanwhile, tries them at once."""
    dying = next(n for n, what in enumerate(dry_life(), 1) if what == f"POST {ENGINE}")
    cluster.dies_after = dying
    with pytest.raises(DiedError):
        cluster.reconcile()
    assert cluster.objects[ENGINE]["spec"]["suspend"] is False
    cluster.settle()
    jobs = [what for what in cluster.writes if "/jobs/" in what or "/sealedruns/" in what]
    seal = next(what for what in jobs if what.startswith(f"PATCH {OURS}/sealedruns/"))
    after = jobs[jobs.index(f"POST {ENGINE}") + 1 :][:3]
    assert after == [f"PATCH {ENGINE}", seal, f"PATCH {ENGINE}"]
    assert cluster.objects[ENGINE]["spec"]["suspend"] is False


def dry_life() -> list[str]:
    """What is written until a run has started."""
    cluster = submitted()
    cluster.settle()
    return cluster.writes


def test_a_run_of_several_jobs_starts_once_all_are_there() -> None:
    cluster = Cluster()
    cluster.submit(two_roles)
    cluster.settle()
    made = [what for what in cluster.writes if "/jobs/" in what and what.startswith("POST")]
    bound = next(n for n, w in enumerate(cluster.writes) if "/sealedruns/" in w and "PATCH" in w)
    assert [cluster.writes.index(what) < bound for what in made] == [True, True]
    let_go = [n for n, w in enumerate(cluster.writes) if "/jobs/" in w and w.startswith("PATCH")]
    assert len(let_go) == 2
    assert min(let_go) > bound, "each is resumed once its seal is bound"


@pytest.mark.parametrize(
    "change",
    [{"suspend": True}, {"scheduling": {"queueName": "research"}}],
    ids=["suspended", "queued"],
)
def test_a_run_that_is_not_to_start_yet_is_made_suspended(cluster: Cluster, change: Object) -> None:
    cluster.edit(**change)
    cluster.settle()
    assert cluster.objects[ENGINE]["spec"]["suspend"] is True
    assert cluster.seal["status"]["phase"] == "Bound"


def test_an_elastic_run_is_brought_to_its_size_before_it_starts() -> None:
    cluster = Cluster()
    cluster.submit(lambda job: job["spec"]["roles"][0].update(replicas={"min": 1, "max": 2}))
    cluster.edit(scheduling={"replicas": {"worker": 1}})
    cluster.settle()
    first, *later = writes_of_jobs(cluster)
    assert first == f"POST {ENGINE}"
    assert later[-1] == f"PATCH {ENGINE}", "it is resumed last"
    assert len(later) == 2
    assert cluster.objects[ENGINE]["spec"]["completions"] == 1


# Placement and queues -----------------------------------------------------------------------------


def pods_spec(cluster: Cluster) -> Object:
    found: Object = cluster.objects[ENGINE]["spec"]["template"]["spec"]
    return found


def running(cluster: Cluster, **scheduling: Any) -> Cluster:
    if scheduling:
        cluster.edit(scheduling=scheduling)
    cluster.settle()
    cluster.works()
    cluster.settle()
    assert cluster.status["phase"] == "Running"
    return cluster


def stopped(cluster: Cluster) -> Cluster:
    """Suspended by its user, and its pods gone."""
    cluster.edit(suspend=True)
    cluster.settle()
    cluster.engine(
        startTime="2026-11-23T12:00:00Z", conditions=[{"type": "Suspended", "status": "True"}]
    )
    cluster.settle()
    return cluster


def test_a_run_starts_where_its_scheduling_says_when_it_starts(cluster: Cluster) -> None:
    cluster.edit(suspend=True)
    cluster.settle()
    cluster.edit(scheduling={"nodeSelector": {"pool": "a100"}}, suspend=False)
    cluster.settle()
    assert pods_spec(cluster)["nodeSelector"] == {"pool": "a100"}
    assert not cluster.objects[ENGINE]["spec"]["suspend"]
    assert cluster.status["scheduling"] == {"nodeSelector": {"pool": "a100"}}


def test_a_change_while_it_is_on_counts_from_its_next_start_on_and_says_so(
    cluster: Cluster,
) -> None:
    running(cluster, nodeSelector={"pool": "a100"})
    cluster.edit(scheduling={"tolerations": [{"operator": "Exists"}]})
    cluster.settle()
    placed = cluster.condition("Placed")
    assert (placed["status"], placed["reason"]) == ("False", "NextStart")
    assert "nodeSelector, tolerations" in placed["message"]
    assert cluster.told()[-1] == "NextStart"
    assert pods_spec(cluster)["nodeSelector"] == {"pool": "a100"}

    stopped(cluster)
    assert cluster.condition("Placed")["status"] == "True"
    assert "nodeSelector" not in pods_spec(cluster)
    assert pods_spec(cluster)["tolerations"] == [{"operator": "Exists"}]
    assert cluster.status["scheduling"] == {"tolerations": [{"operator": "Exists"}]}


def test_a_change_that_is_taken_back_waits_for_nothing(cluster: Cluster) -> None:
    running(cluster)
    cluster.edit(scheduling={"nodeSelector": {"pool": "a100"}})
    cluster.settle()
    cluster.edit(scheduling={})
    cluster.settle()
    assert cluster.condition("Placed")["status"] == "True"


def test_what_no_job_lets_change_is_said_and_the_rest_is_done(cluster: Cluster) -> None:
    cluster.edit(suspend=True)
    cluster.settle()
    cluster.edit(scheduling={"priorityClassName": "urgent", "nodeSelector": {"pool": "a100"}})
    cluster.settle()
    placed = cluster.condition("Placed")
    assert (placed["status"], placed["reason"]) == ("False", "NextRun")
    assert "priorityClassName" in placed["message"]
    assert "delete the TrainingJob and apply it again" in placed["message"]
    assert pods_spec(cluster)["nodeSelector"] == {"pool": "a100"}
    cluster.edit(suspend=False)
    cluster.settle()
    assert not cluster.objects[ENGINE]["spec"]["suspend"], "it starts all the same"


def test_an_older_api_server_that_refuses_keeps_nothing_else_from_being_done(
    cluster: Cluster,
) -> None:
    stopped(running(cluster))
    cluster.edit(scheduling={"nodeSelector": {"pool": "a100"}}, suspend=False)
    cluster.refuses[f"PLACE {ENGINE}"] = KubeError(422, "Invalid", "field is immutable")
    cluster.reconcile()
    placed = cluster.condition("Placed")
    assert (placed["status"], placed["reason"]) == ("False", "PlacementRefused")
    for words in ("nodeSelector", "field is immutable", "delete the TrainingJob"):
        assert words in placed["message"]
    assert not cluster.objects[ENGINE]["spec"]["suspend"]
    cluster.settle()
    assert cluster.condition("Placed")["status"] == "False"


def test_an_api_server_that_is_away_is_no_refusal(cluster: Cluster) -> None:
    cluster.edit(suspend=True)
    cluster.settle()
    cluster.edit(scheduling={"nodeSelector": {"pool": "a100"}})
    cluster.refuses[f"PLACE {ENGINE}"] = KubeError(0, "Unreachable", "connection refused")
    with pytest.raises(KubeError, match="connection refused"):
        cluster.settle()


def test_a_queue_that_is_no_label_is_told_and_keeps_no_hold_from_the_run(cluster: Cluster) -> None:
    running(cluster)
    cluster.edit(scheduling={"queueName": "no label"})
    cluster.refuses[f"PATCH {ENGINE}"] = KubeError(422, "Invalid", "metadata.labels: no label")
    cluster.settle()
    assert cluster.condition("Placed")["reason"] == "QueueRefused"
    cluster.refuses.clear()
    cluster.edit(suspend=True)
    cluster.settle()
    assert cluster.objects[ENGINE]["spec"]["suspend"]


def test_a_run_with_a_queue_is_left_to_the_queue_and_says_that_it_waits(cluster: Cluster) -> None:
    cluster.edit(scheduling={"queueName": "team-a"})
    cluster.settle()
    job = cluster.objects[ENGINE]
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    assert job["spec"]["suspend"]
    assert "waiting for the queue team-a" in cluster.status["message"]
    # The queue lets it start, and stops it again: neither is fought over.
    for suspend in (False, True):
        job["spec"]["suspend"] = suspend
        cluster.settle()
        assert cluster.objects[ENGINE]["spec"]["suspend"] is suspend


@pytest.mark.parametrize("how", ["the user", "a hold"])
def test_a_held_run_is_suspended_and_out_of_the_queues_reach(cluster: Cluster, how: str) -> None:
    cluster.edit(scheduling={"queueName": "team-a"})
    cluster.settle()
    cluster.objects[ENGINE]["spec"]["suspend"] = False
    if how == "the user":
        cluster.edit(suspend=True)
    else:
        cluster.seal["status"]["hold"] = {
            "id": "0" * 16,
            "response": "Suspend",
            "since": "2026-11-23T12:00:00Z",
            "findings": ["0" * 16],
            "reason": "file.changed",
            "severity": "Critical",
            "message": "written",
        }
    cluster.settle()
    job = cluster.objects[ENGINE]
    assert job["spec"]["suspend"]
    assert "kueue.x-k8s.io/queue-name" not in job["metadata"]["labels"]
    # Whoever resumes it, and puts the label back, does so in vain.
    job["spec"]["suspend"] = False
    job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "mine"
    cluster.settle()
    job = cluster.objects[ENGINE]
    assert job["spec"]["suspend"]
    assert "kueue.x-k8s.io/queue-name" not in job["metadata"]["labels"]


# Quarantine ---------------------------------------------------------------------------------------


def held(cluster: Cluster, response: str | None) -> None:
    """What `drift` writes into the seal; None: a person lifted the hold."""
    cluster.seal["status"]["hold"] = response and {
        "id": "0" * 16,
        "response": response,
        "since": "2026-11-23T12:00:00Z",
        "findings": ["0" * 16],
        "reason": "file.changed",
        "severity": "Critical",
        "message": "written",
    }


def rules(cluster: Cluster) -> Any:
    """The spec of the run's NetworkPolicy."""
    (found,) = [o for o in cluster.objects.values() if o["kind"] == "NetworkPolicy"]
    return found["spec"]


def test_a_quarantined_run_is_cut_off_and_keeps_its_pods_until_a_person_lifts_it(
    cluster: Cluster,
) -> None:
    running(cluster)
    ordinary = rules(cluster)
    held(cluster, "Quarantine")
    cluster.settle()
    assert rules(cluster) == {
        "podSelector": ordinary["podSelector"],
        "policyTypes": ["Ingress", "Egress"],
    }
    assert not cluster.objects[ENGINE]["spec"]["suspend"]
    assert cluster.seal["status"]["isolatedSince"]
    assert cluster.status["phase"] == "Running"
    assert "quarantined after a finding: written" in cluster.status["message"]
    assert "`trainseal thaw` lifts the hold" in cluster.status["message"]

    held(cluster, None)
    cluster.settle()
    assert rules(cluster) == ordinary
    assert not cluster.seal["status"].get("isolatedSince")
    assert not cluster.objects[ENGINE]["spec"]["suspend"]
    assert cluster.told()[2:] == ["Isolated", "IsolationEnded"]


@pytest.mark.parametrize("number", range(1, 8))
def test_a_quarantine_ends_up_the_same_whenever_the_controller_dies(
    cluster: Cluster, number: int
) -> None:
    running(cluster)
    ordinary, before = rules(cluster), len(cluster.writes)
    cluster.dies_after = before + number
    for _ in range(2):
        held(cluster, "Quarantine")
        cluster.settle()
        assert "ingress" not in rules(cluster)
        held(cluster, None)
        cluster.settle()
        assert rules(cluster) == ordinary
    assert cluster.deaths == 1
    assert "ObjectChanged" not in cluster.told()


def test_a_user_who_suspends_a_quarantined_run_takes_no_pods_away_and_is_told(
    cluster: Cluster,
) -> None:
    running(cluster)
    held(cluster, "Quarantine")
    cluster.edit(suspend=True)
    cluster.settle()
    assert not cluster.objects[ENGINE]["spec"]["suspend"]
    assert "spec.suspend counts once the hold is lifted" in cluster.status["message"]
    held(cluster, None)
    cluster.settle()
    assert cluster.objects[ENGINE]["spec"]["suspend"]
    assert cluster.status["phase"] == "Suspended"


def test_a_run_that_its_user_had_suspended_is_not_started_by_a_quarantine(
    cluster: Cluster,
) -> None:
    running(cluster)
    cluster.edit(suspend=True)
    cluster.settle()
    held(cluster, "Quarantine")
    cluster.edit(suspend=False)
    cluster.settle()
    assert cluster.objects[ENGINE]["spec"]["suspend"]
    assert cluster.status["phase"] == "Suspended"


def test_a_run_that_its_queue_had_stopped_is_not_started_by_the_queue_in_quarantine(
    cluster: Cluster,
) -> None:
    cluster.edit(scheduling={"queueName": "team-a"})
    cluster.settle()
    assert cluster.objects[ENGINE]["spec"]["suspend"]
    held(cluster, "Quarantine")
    cluster.settle()
    assert LABEL_QUEUE not in cluster.objects[ENGINE]["metadata"]["labels"]
    assert cluster.status["phase"] == "Suspended"
    held(cluster, None)
    cluster.settle()
    assert cluster.objects[ENGINE]["metadata"]["labels"][LABEL_QUEUE] == "team-a"


def test_what_somebody_makes_of_the_policy_of_a_quarantined_run_is_told_and_left(
    cluster: Cluster,
) -> None:
    running(cluster)
    held(cluster, "Quarantine")
    cluster.settle()
    rules(cluster)["ingress"] = [{}]
    assert cluster.settle() == 15
    assert cluster.told()[2:] == ["Isolated", "ObjectChanged"]
    assert rules(cluster)["ingress"] == [{}]
    # One that is taken away is made anew, and as cut off as before.
    (path,) = [p for p, o in cluster.objects.items() if o["kind"] == "NetworkPolicy"]
    del cluster.objects[path]
    cluster.settle()
    assert "ingress" not in rules(cluster)


def test_a_policy_that_was_opened_before_does_not_stay_open_in_quarantine(
    cluster: Cluster,
) -> None:
    running(cluster)
    rules(cluster)["ingress"] = [{}]
    held(cluster, "Quarantine")
    cluster.settle()
    assert "ingress" not in rules(cluster)


def test_a_run_that_is_terminated_out_of_quarantine_stays_cut_off(cluster: Cluster) -> None:
    running(cluster)
    held(cluster, "Quarantine")
    cluster.settle()
    held(cluster, "Terminate")
    cluster.settle()
    assert cluster.status["phase"] == "Failed"
    assert cluster.objects[ENGINE]["spec"]["suspend"]
    assert "ingress" not in rules(cluster)


def test_a_policy_that_may_not_be_changed_is_told_and_hides_no_end(cluster: Cluster) -> None:
    running(cluster)
    (path,) = [p for p, o in cluster.objects.items() if o["kind"] == "NetworkPolicy"]
    cluster.refuses[f"PLACE {path}"] = KubeError(403, "Forbidden", "it may not")
    held(cluster, "Quarantine")
    assert cluster.settle() == 15
    assert not cluster.seal["status"].get("isolatedSince")
    assert "ObjectChanged" in cluster.told()
    cluster.engine(conditions=[{"type": "Failed", "status": "True", "message": "gave up"}])
    cluster.settle()
    assert cluster.status["phase"] == "Failed"


def test_without_a_queue_a_job_that_somebody_suspended_goes_on(cluster: Cluster) -> None:
    running(cluster)
    cluster.objects[ENGINE]["spec"]["suspend"] = True
    cluster.objects[ENGINE]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "mine"
    cluster.settle()
    job = cluster.objects[ENGINE]
    assert not job["spec"]["suspend"]
    assert "kueue.x-k8s.io/queue-name" not in job["metadata"]["labels"]


def test_no_queue_gets_a_job_whose_seal_is_not_bound_yet(cluster: Cluster) -> None:
    cluster.edit(scheduling={"queueName": "team-a"})
    cluster.settle()
    first = cluster.writes.index(f"POST {ENGINE}")
    bound = next(
        n for n, w in enumerate(cluster.writes) if w.startswith(f"PATCH {OURS}/sealedruns")
    )
    assert first < bound < cluster.writes.index(f"PATCH {ENGINE}")


# Parked -------------------------------------------------------------------------------------------


def short_lived(job: Object) -> None:
    job["spec"]["validity"] = {"notAfter": "2026-11-24T00:00:00Z"}


def parked() -> Cluster:
    """A job that is good for half a day, let in and suspended before it ever started."""
    found = Cluster()
    found.submit(short_lived)
    found.edit(suspend=True)
    found.settle()
    return found


def expire(cluster: Cluster) -> None:
    cluster.now += timedelta(days=1)


def drop_the_signer(cluster: Cluster) -> None:
    bob = {"authorities": ["bob"]}
    cluster.policy = world.policy(requirements={"job": bob, "image": bob, "code": bob})


@pytest.mark.parametrize(
    ("change", "words"),
    [(expire, "notAfter 2026-11-24T00:00:00"), (drop_the_signer, "wants a signature by bob")],
)
def test_a_parked_job_does_not_start_once_it_would_not_be_let_in(change: Any, words: str) -> None:
    cluster = parked()
    change(cluster)
    cluster.edit(suspend=False)
    again = cluster.settle()
    assert cluster.objects[ENGINE]["spec"]["suspend"] is True
    assert cluster.status["phase"] == "Suspended"
    assert words in cluster.status["message"]
    assert cluster.condition("Running")["reason"] == "NotResumed"
    assert again is not None


def test_a_parked_job_starts_while_it_would_be_let_in() -> None:
    cluster = parked()
    cluster.edit(suspend=False)
    lived(cluster)
    assert cluster.status["phase"] == "Succeeded"


def test_a_run_that_is_on_is_not_ended_by_its_time() -> None:
    cluster = Cluster()
    cluster.submit(short_lived)
    cluster.settle()
    cluster.works()
    expire(cluster)
    lived(cluster)
    assert cluster.status["phase"] == "Succeeded"


def test_a_run_waits_where_its_evidence_cannot_be_read_and_goes_on_when_it_can() -> None:
    cluster = parked()
    unread(cluster)
    cluster.edit(suspend=False)
    cluster.settle()
    assert "undetermined" in cluster.status["message"]
    assert cluster.objects[ENGINE]["spec"]["suspend"] is True
    cluster.evidence.outcomes.clear()
    lived(cluster)
    assert cluster.status["phase"] == "Succeeded"


def test_a_queue_cannot_start_a_job_that_would_not_be_let_in() -> None:
    cluster = Cluster()
    cluster.submit(short_lived)
    cluster.edit(scheduling={"queueName": "nightly"})
    cluster.settle()
    assert cluster.objects[ENGINE]["metadata"]["labels"][LABEL_QUEUE] == "nightly"
    expire(cluster)
    cluster.settle()
    assert LABEL_QUEUE not in cluster.objects[ENGINE]["metadata"]["labels"]
    assert cluster.condition("Running")["reason"] == "NotResumed"


# A name that is another's by now -----------------------------------------------------------------


class Replaced(Cluster):
    """The job is deleted and made anew while the controller looks at the old one's Job."""

    async def get(self, path: str) -> Object:
        if path == ENGINE and ENGINE in self.objects:
            del self.objects[ENGINE]
            self.submit()
            self.objects[JOB]["metadata"]["uid"] = "uid-of-the-next"
        return await super().get(path)


def test_what_became_of_a_job_is_not_said_of_the_next_that_has_its_name(cluster: Cluster) -> None:
    cluster.settle()
    cluster.works()
    cluster.settle()
    assert cluster.status["phase"] == "Running"
    replaced = Replaced(cluster.objects)
    replaced.reconcile()
    assert "status" not in replaced.objects[JOB]
    # Looked at again, it is taken for what it is.
    replaced.reconcile()
    assert replaced.status["phase"] != "Failed"


class Deleted(Cluster):
    """The job is deleted while the controller looks at its Job; what it owned goes with it."""

    finalizer = False

    async def get(self, path: str) -> Object:
        if path == ENGINE and ENGINE in self.objects:
            del self.objects[ENGINE]
            if self.finalizer:
                self.objects[JOB]["metadata"]["deletionTimestamp"] = "2026-11-23T12:00:00Z"
            else:
                del self.objects[JOB]
        return await super().get(path)


@pytest.mark.parametrize("finalizer", [False, True])
def test_a_job_that_is_deleted_meanwhile_has_not_lost_its_run(
    cluster: Cluster, finalizer: bool
) -> None:
    cluster.settle()
    cluster.works()
    cluster.settle()
    deleted = Deleted(cluster.objects)
    deleted.finalizer = finalizer
    deleted.reconcile()
    assert not deleted.told()
    assert deleted.seal["status"]["phase"] == "Bound"
    deleted.objects.pop(JOB, None)
    deleted.reconcile()
    assert deleted.seal["status"]["phase"] == "Deleted"
