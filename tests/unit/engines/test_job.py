"""The objects of a run: a suspended Indexed Job a role, and what lives beside it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.unit import world
from trainseal.engines.engine import LABEL_QUEUE
from trainseal.engines.job import observe, outcome
from trainseal.engines.podtemplate import GATE_REFUTED, GATE_UNDETERMINED
from trainseal.engines.surroundings import isolated
from trainseal.gate.outcomes import RefusedError, UndeterminedError
from trainseal.provenance.configfiles import config_files

Object = dict[str, Any]


def made(job: Object | None = None) -> Any:
    return world.render_job(job or world.job_object())


def test_the_job_waits_until_its_seal_is_bound() -> None:
    spec = made().roles[0].owner["spec"]
    assert spec["suspend"] is True
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert spec["podReplacementPolicy"] == "Failed"


def ends(job: Object | None, pod: Object) -> str:
    """What becomes of a Job whose pod failed so; as its controller reads the policy."""
    for rule in made(job).roles[0].owner["spec"]["podFailurePolicy"]["rules"]:
        on = rule.get("onExitCodes")
        codes = [c["code"] for c in pod.get("ended", ()) if on and c["name"] == on["containerName"]]
        if on and set(codes) & set(on["values"]):
            return str(rule["action"])
        if any(c in pod.get("conditions", ()) for c in rule.get("onPodConditions", ())):
            return str(rule["action"])
    return "Count"


GATE, TRAINER = "trainseal-gate", "trainer"
DRAINED: Object = {"type": "DisruptionTarget", "status": "True"}


@pytest.mark.parametrize(
    ("pod", "becomes"),
    [
        ({"ended": [{"name": GATE, "code": 1}]}, "FailJob"),
        ({"ended": [{"name": GATE, "code": 1}], "conditions": [DRAINED]}, "FailJob"),
        ({"ended": [{"name": GATE, "code": 2}]}, "Ignore"),
        ({"ended": [{"name": TRAINER, "code": 143}], "conditions": [DRAINED]}, "Ignore"),
        ({"conditions": [DRAINED]}, "Ignore"),
        ({"conditions": [{**DRAINED, "status": "False"}]}, "Count"),
        ({"ended": [{"name": GATE, "code": 137}]}, "Count"),
        ({"ended": [{"name": TRAINER, "code": 1}]}, "Count"),
        ({"ended": [{"name": TRAINER, "code": 2}]}, "Count"),
        ({"ended": [{"name": TRAINER, "code": 137}]}, "Count"),
    ],
)
def test_how_a_worker_ended_decides_what_becomes_of_the_job(pod: Object, becomes: str) -> None:
    assert ends(None, pod) == becomes


def test_the_gates_exit_codes_are_those_that_the_job_goes_by() -> None:
    assert (RefusedError.exit_code, UndeterminedError.exit_code) == (
        GATE_REFUTED,
        GATE_UNDETERMINED,
    )


def test_a_job_without_a_gate_names_no_container_that_it_has_not() -> None:
    """The API server would refuse it."""
    job = world.job_object()
    del job["spec"]["code"], job["spec"]["config"]
    (rule,) = made(job).roles[0].owner["spec"]["podFailurePolicy"]["rules"]
    assert rule == {"action": "Ignore", "onPodConditions": [DRAINED]}


@pytest.mark.parametrize("replicas", [1, 4, 512])
def test_a_worker_may_fail_as_often_whatever_the_number_of_workers(replicas: int) -> None:
    job = world.job_object()
    job["spec"]["roles"][0]["replicas"] = replicas
    spec = made(job).roles[0].owner["spec"]
    assert (spec["backoffLimitPerIndex"], spec["maxFailedIndexes"]) == (3, 0)
    assert spec["backoffLimit"] == 2**31 - 1, "as the API server fills it in"


def test_a_job_selects_its_roles_pods_by_labels_that_they_alone_bear() -> None:
    job = world.job_object()
    second = copy.deepcopy(job["spec"]["roles"][0]) | {"name": "server"}
    job["spec"]["roles"].append(second)
    selectors = []
    for role in made(job).roles:
        spec = role.owner["spec"]
        assert spec["manualSelector"] is True
        selector = spec["selector"]["matchLabels"]
        assert set(selector) == {"trainseal.dev/seal", "trainseal.dev/role"}
        assert spec["template"]["metadata"]["labels"].items() >= selector.items()
        selectors.append(selector)
    assert selectors[0] != selectors[1]


def test_every_object_lives_and_dies_with_the_training_job() -> None:
    found = made()
    for obj in (found.config_map, found.service, found.network_policy, found.roles[0].owner):
        (owner,) = obj["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == (world.JOB_UID, True)
        assert obj["metadata"]["namespace"] == "research"
        assert obj["metadata"]["labels"]["trainseal.dev/job"] == "char-lm"


def test_the_config_map_holds_the_signed_parameters_and_is_immutable() -> None:
    found = made().config_map
    assert found["immutable"] is True
    assert found["data"] == config_files(world.job_object()["spec"]["config"]["parameters"])


def test_without_config_there_is_no_config_map() -> None:
    job = world.job_object()
    del job["spec"]["config"]
    assert made(job).config_map is None


def test_only_the_runs_own_pods_reach_its_rendezvous() -> None:
    found = made()
    selector = {"trainseal.dev/seal": found.network_policy["metadata"]["name"]}
    spec = found.network_policy["spec"]
    assert spec["podSelector"] == {"matchLabels": selector}
    assert spec["ingress"] == [{"from": [{"podSelector": {"matchLabels": selector}}]}]
    assert found.service["spec"]["selector"] == selector
    labels = found.roles[0].owner["spec"]["template"]["metadata"]["labels"]
    assert labels.items() >= selector.items()


def test_in_quarantine_the_same_pods_are_reached_by_nobody_and_reach_nobody() -> None:
    ordinary = made().network_policy
    found = isolated(ordinary)
    assert found["spec"] == {
        "podSelector": ordinary["spec"]["podSelector"],
        "policyTypes": ["Ingress", "Egress"],
    }, "types without rules allow nothing"
    assert found["metadata"] == ordinary["metadata"]


def test_a_job_is_made_outside_any_queue_and_its_pods_stay_so() -> None:
    """A queue may have it once its seal is bound."""
    job = world.job_object()
    job["spec"]["scheduling"] = {"queueName": "research"}
    rendered = made(job).roles[0].owner
    assert LABEL_QUEUE not in rendered["metadata"]["labels"]
    assert LABEL_QUEUE not in rendered["spec"]["template"]["metadata"]["labels"]


def test_no_label_of_the_training_job_reaches_anything() -> None:
    job = world.job_object()
    job["metadata"]["labels"] = {"mine": "x"}
    assert made(job) == made()


# What the Job reports ---------------------------------------------------------------------------


def test_counts_are_those_of_the_job() -> None:
    status = {"active": 1, "ready": 1, "succeeded": 1, "failed": 3}
    found = observe("worker", 2, {"status": status})
    assert found.wire() == {"name": "worker", "replicas": 2, **status}


def test_pods_that_have_ended_count_before_kubernetes_has_counted_them() -> None:
    uncounted = {"succeeded": ["uid-1"], "failed": ["uid-2", "uid-3"]}
    found = observe("worker", 4, {"status": {"succeeded": 1, "uncountedTerminatedPods": uncounted}})
    assert (found.succeeded, found.failed) == (2, 2)


@pytest.mark.parametrize("status", [None, {}, "x", {"active": "x", "failed": None}])
def test_a_job_that_reports_nothing_has_no_pods(status: Any) -> None:
    found = observe("worker", 2, {"status": status})
    assert (found.active, found.ready, found.succeeded, found.failed) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("conditions", "ended"),
    [
        ([{"type": "Complete", "status": "True"}], ("Complete", "")),
        ([{"type": "Failed", "status": "True", "message": "m"}], ("Failed", "m")),
        ([{"type": "Failed", "status": "False"}], None),
        ([{"type": "FailureTarget", "status": "True"}], None),
        ([{"type": "SuccessCriteriaMet", "status": "True"}], None),
        ([{"type": "Suspended", "status": "True"}], None),
        (["x"], None),
        (None, None),
    ],
)
def test_a_job_has_ended_when_it_says_so(conditions: Any, ended: Any) -> None:
    assert outcome({"status": {"conditions": conditions}}) == ended
