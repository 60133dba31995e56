"""What somebody with the edit role can, and cannot, do to a job that runs."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
from collections.abc import Callable, Iterator

import pytest

from tests.cluster import CommandError
from tests.e2e.lab import EDITOR, TEAM, Lab, Object
from tests.stage.jobs import FINISH, SHORT_CODE
from tests.stage.reading import asked, collection_path, object_path
from tests.stage.signing import signed
from tests.stage.waiting import eventually

SHOW_RENDEZVOUS = {
    **SHORT_CODE,
    "show.py": (
        "import os\n"
        "print(os.environ['MASTER_ADDR'], os.environ['MASTER_PORT'])\n"
        "links = ('MASTER_PORT_', 'MASTER_SERVICE_', 'METRICS_')\n"
        "print([name for name in os.environ if name.startswith(links)])\n"
    ),
}


_NUMBERS = itertools.count(1)


@pytest.fixture
def running(lab: Lab, apply: Callable[[Object], Object]) -> Object:
    """A job that runs; under a name of its own, so that none waits for another's end."""
    job = apply(lab.signed_job(f"runs-{next(_NUMBERS)}"))
    lab.wait_for_phase(job, "Running")
    return job


def name_of(job: Object) -> str:
    found: str = job["metadata"]["name"]
    return found


def patch(lab: Lab, resource: str, name: str, change: Object) -> None:
    lab.kubectl("patch", resource, name, "--type=merge", "-p", json.dumps(change))


def made_anew(lab: Lab, theirs: Object) -> bool:
    """The editor deletes what stands there and makes their own. The controller hears it go, and
    makes it anew: the editor has to be faster, and may not be."""
    port, editor = lab.reader.port, {"Impersonate-User": EDITOR}
    asked(port, "DELETE", object_path(theirs), headers=editor)
    json_ = {"Content-Type": "application/json"}
    status, _ = asked(port, "POST", collection_path(theirs), theirs, editor | json_)
    return status == 201


def test_a_job_that_was_admitted_cannot_be_changed(lab: Lab, running: Object) -> None:
    change = {"spec": {"config": {"parameters": {"learning_rate": 0.3}}}}
    with pytest.raises(CommandError, match=r"spec\.config") as refused:
        patch(lab, "trainingjob", name_of(running), change)
    assert "have it signed" in refused.value.stderr
    live = lab.get("trainingjob", name_of(running))
    assert live["spec"]["config"]["parameters"]["learning_rate"] == 0.003
    # Where and when may change, and counts: here the queue that would start the run next time.
    patch(lab, "trainingjob", name_of(running), {"spec": {"scheduling": {"queueName": "research"}}})
    label = "kueue.x-k8s.io/queue-name"
    eventually(
        lambda: lab.engine(running)["metadata"]["labels"].get(label) == "research",
        "the Job is in the queue",
    )
    assert not lab.engine(running)["spec"]["suspend"]


def test_nobody_speaks_for_another_requester(lab: Lab, running: Object) -> None:
    ticket = lab.get("trainingjob", name_of(running))["metadata"]["annotations"][
        "trainseal.dev/ticket"
    ]
    forged = {"metadata": {"annotations": {"trainseal.dev/ticket": "forged"}}}
    patch(lab, "trainingjob", name_of(running), forged)
    live = lab.get("trainingjob", name_of(running))
    assert live["metadata"]["annotations"]["trainseal.dev/ticket"] == ticket
    seal = lab.get("sealedrun", lab.status(running)["sealedRun"])
    assert seal["spec"]["requester"]["username"] == "mallory@example.org"


def test_the_seal_is_nobodys_to_change_or_delete(lab: Lab, running: Object) -> None:
    seal = lab.status(running)["sealedRun"]
    for by in (lab.kubectl, lambda *args: lab.admin("-n", TEAM, *args)):
        with pytest.raises(CommandError, match=r"Forbidden|forbidden|denied"):
            by("delete", "sealedrun", seal)
        with pytest.raises(CommandError, match=r"Forbidden|forbidden|denied|immutable"):
            by("patch", "sealedrun", seal, "--type=merge", "-p", '{"spec": {"run": 7}}')


def placed(lab: Lab, job: Object) -> str:
    """The reason of the condition that says how far `spec.scheduling` counts."""
    conditions = lab.status(job).get("conditions", [])
    return next((str(c["reason"]) for c in conditions if c["type"] == "Placed"), "")


def test_suspended_it_has_no_pods_and_resumed_it_runs_again(lab: Lab, running: Object) -> None:
    sealed = lab.status(running)["sealedRun"]
    patch(lab, "trainingjob", name_of(running), {"spec": {"suspend": True}})
    status = lab.wait_for_phase(running, "Suspended")
    assert status["message"] == "suspended by the user"
    eventually(lambda: not lab.pods(running), "its pods are gone")
    patch(lab, "trainingjob", name_of(running), {"spec": {"suspend": False}})
    assert lab.wait_for_phase(running, "Running")["sealedRun"] == sealed
    steps = ["Sealed", "Running", "Suspended", "Resumed", "Running"]
    assert lab.told(running) == steps


def test_scheduling_that_is_changed_counts_from_the_next_start_on(
    lab: Lab, running: Object
) -> None:
    selector = {"kubernetes.io/os": "linux"}
    name = name_of(running)
    patch(lab, "trainingjob", name, {"spec": {"scheduling": {"nodeSelector": selector}}})
    eventually(lambda: placed(lab, running) == "NextStart", "it is said that the change waits")
    assert all(p["spec"].get("nodeSelector") is None for p in lab.pods(running))
    patch(lab, "trainingjob", name, {"spec": {"suspend": True}})
    lab.wait_for_phase(running, "Suspended")
    # Before 1.36 the API server lets it change only until the first start, which is told as well.
    reasons = ("AsScheduled", "PlacementRefused")
    eventually(lambda: placed(lab, running) in reasons, "it is placed, or said why not")
    if lab.target.owned:
        assert placed(lab, running) == "AsScheduled"
    counts = placed(lab, running) == "AsScheduled"
    patch(lab, "trainingjob", name, {"spec": {"suspend": False}})
    lab.wait_for_phase(running, "Running")
    (pod,) = [p for p in lab.pods(running) if "deletionTimestamp" not in p["metadata"]]
    assert pod["spec"].get("nodeSelector") == (selector if counts else None)


def test_a_network_policy_that_is_taken_away_comes_back(lab: Lab, running: Object) -> None:
    name = lab.status(running)["sealedRun"]
    before = lab.get("networkpolicy", name)
    with pytest.raises(CommandError, match="a change of what it says"):
        patch(lab, "networkpolicy", name, {"spec": {"ingress": [{}]}})
    # Without its label no watch would tell of its end.
    with pytest.raises(CommandError, match="a change of its labels"):
        lab.kubectl("label", "networkpolicy", name, "trainseal.dev/job-")
    lab.kubectl("delete", "networkpolicy", name)

    def anew() -> bool:
        with contextlib.suppress(CommandError):
            found = lab.get("networkpolicy", name)
            return bool(
                found["metadata"]["uid"] != before["metadata"]["uid"]
                and found["metadata"]["labels"] == before["metadata"]["labels"]
                and found["spec"] == before["spec"]
            )
        return False

    eventually(anew, "the rendezvous is closed again", 30)


def test_a_late_worker_does_not_read_a_configuration_made_anew(lab: Lab, running: Object) -> None:
    status = lab.status(running)
    name = f"{status['sealedRun']}-config"
    with pytest.raises(CommandError, match="immutable"):
        patch(lab, "configmap", name, {"data": {"config.json": "{}"}})
    evil = copy.deepcopy(lab.get("configmap", name))
    values = json.loads(evil["data"]["config.json"])
    evil["data"]["config.json"] = json.dumps(values | {"learning_rate": 30})
    for field in ("uid", "resourceVersion", "creationTimestamp", "managedFields"):
        evil["metadata"].pop(field, None)
    with pytest.raises(CommandError, match="bears a label of TrainSeal's"):
        lab.kubectl("create", "--dry-run=server", "-f", "-", stdin=evil)
    del evil["metadata"]["labels"]
    eventually(lambda: made_anew(lab, evil), "the editor's configuration stands")
    (pod,) = lab.pods(running)
    lab.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
    status = lab.wait_for_phase(running, "Failed")
    assert "config.json" in status["message"]


def test_a_late_worker_reads_the_configuration_that_was_signed(lab: Lab, running: Object) -> None:
    """The twin: a worker that was lost is replaced, and its gate finds all as it was."""
    sealed = lab.status(running)["sealedRun"]
    (pod,) = lab.pods(running)
    lab.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")

    def replaced() -> bool:
        return any(
            p["metadata"]["uid"] != pod["metadata"]["uid"]
            and all(c["ready"] for c in p["status"].get("containerStatuses", [{"ready": False}]))
            for p in lab.pods(running)
        )

    eventually(replaced, "another worker runs")
    assert lab.wait_for_phase(running, "Running")["sealedRun"] == sealed


@pytest.fixture
def service(lab: Lab, request: pytest.FixtureRequest) -> Iterator[str]:
    """A Service of the editor's, by the name that the test gives."""
    name: str = request.param
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": TEAM},
        "spec": {"ports": [{"port": 6666}], "selector": {"app": "mallory"}},
    }
    lab.apply(service)
    yield name
    lab.delete(service)


@pytest.mark.parametrize("service", ["master", "metrics"], indirect=True)
def test_a_service_named_master_is_not_the_master_nor_is_one_needed(
    lab: Lab, apply: Callable[[Object], Object], service: str
) -> None:
    """The twin has a Service of another name: both runs meet at the same place."""
    name = f"meets-{service}"
    job = lab.job(name, "show.py")
    job["spec"]["code"][0]["oci"]["reference"] = lab.push_tree("show", SHOW_RENDEZVOUS, lab.alice)
    apply(signed(job, lab.alice))
    lab.wait_for_phase(job, "Succeeded")
    (pod,) = lab.pods(job)
    logs = lab.kubectl("logs", pod["metadata"]["name"], "-c", "trainer")
    assert logs == f"{name}-worker-0.{name}.research.svc 29500\n[]\n"


def test_a_run_whose_service_was_taken_over_is_followed_to_its_end(
    lab: Lab, running: Object
) -> None:
    name = name_of(running)
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": TEAM},
        "spec": {"clusterIP": "None", "selector": {"app": "mallory"}},
    }
    with pytest.raises(CommandError, match="a change of its labels"):
        lab.kubectl("replace", "-f", "-", stdin=theirs)
    eventually(lambda: made_anew(lab, theirs), "the editor's Service stands")
    assert "mallory" in json.dumps(lab.get("service", name)["spec"])
    try:
        (pod,) = lab.pods(running)
        lab.kubectl("exec", pod["metadata"]["name"], "-c", "trainer", "--", *FINISH)
        lab.wait_for_phase(running, "Succeeded", 60)
        events = lab.kubectl("get", "events", "--field-selector", f"involvedObject.name={name}")
        assert "does not belong to this job" in events
    finally:
        lab.delete(theirs)


def test_deletion_takes_everything_but_the_evidence(
    lab: Lab, apply: Callable[[Object], Object]
) -> None:
    job = apply(lab.signed_job("deleted"))
    status = lab.wait_for_phase(job, "Running")
    lab.kubectl("delete", "trainingjob", "deleted", "--timeout=30s")

    def left() -> str:
        kinds = "jobs,pods,services,configmaps,networkpolicies"
        return lab.admin("get", kinds, "-n", TEAM, "-l", "trainseal.dev/job=deleted", "-o", "name")

    eventually(lambda: not left(), "what the run was made of is gone")
    seal = status["sealedRun"]
    lab.admin(
        "wait", f"sealedrun/{seal}", "-n", TEAM, "--for=jsonpath={.status.phase}=Deleted",
        "--timeout=30s",
    )  # fmt: skip
    kept = lab.get("sealedrun", seal)
    assert kept["spec"]["job"]["digest"] == status["jobDigest"]
    assert "deleted before its run ended" in kept["status"]["message"]
