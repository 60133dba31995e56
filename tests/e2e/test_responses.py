"""What a policy may answer a finding with, each for real: a worker's PyTorch is edited."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator

import pytest

from tests.cluster import CommandError
from tests.e2e.lab import EDITOR, TEAM, Lab, Object, changed
from tests.e2e.reports import answered_by, condition
from tests.e2e.test_training import trainseal
from tests.guides.ground import ADMIN, Ground
from tests.stage.alertmanager import Alertmanager
from tests.stage.jobs import FINISH
from tests.stage.release import NAMESPACE
from tests.stage.signing import signed
from tests.stage.waiting import eventually

OPTIMIZER = "/usr/lib/python3/dist-packages/torch/optim/sgd.py"
#: What `trainseal drift` shows of the attack.
SEEN = f"""\
research/char-lm run …, seal char-lm-4f2a9c01-7a0c1f2e
  held since 2026-11-23T12:00:06Z: … by {EDITOR}
  `trainseal thaw char-lm` lets it go on
… Critical  file.changed  a signed file was changed
        pod      char-lm-worker-0-x7kq2/trainer on …
        path     {OPTIMIZER}
        by       {EDITOR} …
"""
Start = Callable[..., tuple[Object, list[Object]]]


@pytest.fixture
def response(lab: Lab, request: pytest.FixtureRequest) -> Iterator[str]:
    """The parameter, which the team's policy says of critical findings."""
    with answered_by(lab, request.param):
        yield request.param


@pytest.fixture
def start(lab: Lab, response: str, apply: Callable[[Object], Object]) -> Start:
    """Runs a job of so many workers until all of them are watched."""

    def do(workers: int = 1, name: str = "") -> tuple[Object, list[Object]]:
        job = changed(
            lab.job(name or f"answered-{response.lower()}"),
            lambda j: j["spec"]["roles"][0].update(replicas=workers),
        )
        apply(signed(job, lab.alice))
        lab.wait_for_phase(job, "Running")
        eventually(lambda: len(lab.pods(job)) == workers, "all workers are there")
        pods = lab.pods(job)
        for pod in pods:
            eventually(_is(lab, pod, "Watching", "True"), "the pod is watched")
        return job, pods

    return do


def _is(lab: Lab, pod: Object, type_: str, status: str) -> Callable[[], bool]:
    return lambda: condition(lab, pod, type_) == status


def edit(lab: Lab, pod: Object) -> None:
    """The attack."""
    # A frozen session does not end well.
    with contextlib.suppress(CommandError):
        script = f"echo '#' >> {OPTIMIZER}"
        lab.kubectl("exec", pod["metadata"]["name"], "--", "sh", "-c", script)


def finish(lab: Lab, pod: Object) -> None:
    """Tells a worker to end well."""
    with contextlib.suppress(CommandError):  # it may end before the session does
        lab.kubectl("exec", pod["metadata"]["name"], "--", *FINISH)


def seal(lab: Lab, job: Object) -> Object:
    """The status of the run's seal."""
    found: Object = lab.get("sealedrun", str(lab.status(job)["sealedRun"])).get("status", {})
    return found


def held(lab: Lab, job: Object) -> str:
    """The response that holds the run, or nothing."""
    return str(seal(lab, job).get("hold", {}).get("response", ""))


def release(lab: Lab, job: Object) -> None:
    """`trainseal thaw`, as the administrator, whom no finding names."""
    command = ("thaw", job["metadata"]["name"], "-n", TEAM, "--reason", "seen, harmless")

    def lifted() -> bool:
        try:
            trainseal(lab, *command, kubeconfig=lab.target.kubeconfig)
        except CommandError as error:
            # One edit makes several findings: a hold that grew meanwhile is another.
            if "more was found meanwhile" not in error.stderr:
                raise
            return False
        return not held(lab, job)

    eventually(lifted, "the hold is lifted")


def _counted(lab: Lab, finding: str) -> float:
    """What the controller that leads says of findings of this id."""
    pods = ("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=controller")
    ready = "{range .items[?(@.status.containerStatuses[0].ready==true)]}{.metadata.name} {end}"
    found = 0.0
    for name in lab.admin("get", *pods, "-o", f"jsonpath={ready}").split():
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}:8080/proxy/metrics"
        for line in lab.admin("get", "--raw", path).splitlines():
            if line.startswith("trainseal_findings_total{") and f'id="{finding}"' in line:
                found += float(line.rpartition(" ")[2])
    return found


def _alerted(told: Alertmanager, job: Object) -> Callable[[], list[tuple[str, str]]]:
    name = job["metadata"]["name"]
    return lambda: [(a["labels"]["finding"], a["labels"]["severity"]) for a in told.about(name)]


@pytest.mark.parametrize("response", ["Record", "Alert"], indirect=True)
def test_what_is_only_told_holds_nothing(lab: Lab, start: Start, response: str) -> None:
    job, (pod,) = start()
    edit(lab, pod)
    eventually(lambda: "critical" in lab.status(job).get("drifted", ""), "the job says so")
    eventually(lambda: "FileChanged" in lab.told(job), "an event tells it")
    assert held(lab, job) == ""
    eventually(lambda: _counted(lab, "file.changed") > 0, "Prometheus is told")
    alerted = _alerted(lab.alertmanager, job) if lab.alertmanager else None
    if alerted is not None and response == "Alert":
        eventually(lambda: ("file.changed", "critical") in alerted(), "an alert goes out")
    finish(lab, pod)
    lab.wait_for_phase(job, "Succeeded")
    if alerted is not None and response == "Record":
        assert alerted() == []


@pytest.mark.parametrize("response", ["Freeze"], indirect=True)
def test_a_frozen_run_is_thawed_and_goes_on(lab: Lab, start: Start) -> None:
    job, (pod,) = start()
    edit(lab, pod)
    eventually(_is(lab, pod, "Frozen", "True"), "the pod is frozen", seconds=10)
    eventually(lambda: held(lab, job) == "Freeze", "the run is held")
    release(lab, job)
    eventually(_is(lab, pod, "Frozen", "False"), "the pod is thawed", seconds=20)
    finish(lab, pod)
    lab.wait_for_phase(job, "Succeeded")


@pytest.mark.parametrize("response", ["Freeze"], indirect=True)
def test_a_freeze_that_nobody_lifts_is_followed_by_what_the_policy_says(
    lab: Lab, start: Start
) -> None:
    job, (pod,) = start()
    freeze = {"maxDurationSeconds": 10, "then": "Terminate"}
    patch = json.dumps({"spec": {"drift": {"freeze": freeze}}})
    lab.admin("patch", "provenancepolicy", TEAM, "--type=merge", "-p", patch)
    edit(lab, pod)
    eventually(_is(lab, pod, "Frozen", "True"), "the pod is frozen", seconds=10)
    eventually(lambda: held(lab, job) == "Terminate", "the next response holds the run")
    lab.wait_for_phase(job, "Failed")
    eventually(lambda: not lab.pods(job), "its pods are gone")


@pytest.mark.parametrize("response", ["Suspend"], indirect=True)
def test_a_suspended_run_loses_its_pods_and_starts_anew_once_it_is_released(
    lab: Lab, ground: Ground, start: Start
) -> None:
    """Looked at and let go on as how-to/respond-to-drift.md says."""
    job, (pod,) = start(name="char-lm")
    edit(lab, pod)
    eventually(lambda: held(lab, job) == "Suspend", "the run is held")
    lab.wait_for_phase(job, "Suspended")
    eventually(lambda: not lab.pods(job), "its pods are gone")
    walk = ground.walk("how-to/respond-to-drift.md", "ann")
    walk.instead |= {
        "kubectl get tj": f"char-lm Suspended verified … {EDITOR} … critical",
        "trainseal drift char-lm": SEEN,
        "trainseal drift learn": "",
    }
    walk.statuses |= {"trainseal drift char-lm": 1, "trainseal drift learn": 1}
    walk.before("kubectl create rolebinding", walk.become(ADMIN))
    walk.before("trainseal thaw", walk.become("ann"))
    walk.go()
    learnt = (walk.folder / "exceptions.yaml").read_text()
    assert "# Not proposed:" in learnt
    lab.admin("delete", "rolebinding", "oncall", "-n", TEAM)
    eventually(lambda: not held(lab, job), "the hold is lifted")
    lab.wait_for_phase(job, "Running")
    (anew,) = lab.pods(job)
    assert anew["metadata"]["uid"] != pod["metadata"]["uid"]
    finish(lab, anew)
    lab.wait_for_phase(job, "Succeeded")


@pytest.mark.parametrize("response", ["Terminate"], indirect=True)
def test_a_terminated_run_has_failed_and_its_pods_are_gone(lab: Lab, start: Start) -> None:
    job, (pod,) = start()
    edit(lab, pod)
    status = lab.wait_for_phase(job, "Failed")
    assert "terminated after a finding" in status["message"]
    eventually(lambda: not lab.pods(job), "its pods are gone")


@pytest.mark.parametrize("response", ["Quarantine"], indirect=True)
def test_a_quarantined_run_stands_still_and_alone_until_it_is_released(
    lab: Lab, start: Start
) -> None:
    job, pods = start(workers=2)
    name = str(lab.status(job)["sealedRun"])
    ordinary = lab.get("networkpolicy", name)["spec"]
    edit(lab, pods[0])
    # Also the worker on which nothing was found.
    for pod in pods:
        eventually(_is(lab, pod, "Frozen", "True"), "both workers are frozen", seconds=20)
    eventually(lambda: "isolatedSince" in seal(lab, job), "the run is isolated")
    assert lab.get("networkpolicy", name)["spec"] == {
        "podSelector": ordinary["podSelector"],
        "policyTypes": ["Ingress", "Egress"],
    }
    assert held(lab, job) == "Quarantine"
    assert "until" not in seal(lab, job)["freeze"]
    # Neither its user nor whoever would look inside takes anything away.
    lab.kubectl("patch", "tj", job["metadata"]["name"], "--type=merge", "-p",
                '{"spec":{"suspend":true}}')  # fmt: skip
    eventually(lambda: "spec.suspend counts once" in lab.status(job)["message"], "the user is told")
    with pytest.raises(CommandError):
        lab.kubectl("exec", pods[1]["metadata"]["name"], "--", "true")
    assert {p["metadata"]["uid"] for p in lab.pods(job)} == {p["metadata"]["uid"] for p in pods}
    lab.kubectl("patch", "tj", job["metadata"]["name"], "--type=merge", "-p",
                '{"spec":{"suspend":false}}')  # fmt: skip

    release(lab, job)
    for pod in pods:
        eventually(_is(lab, pod, "Frozen", "False"), "both workers are thawed", seconds=20)
    eventually(lambda: "isolatedSince" not in seal(lab, job), "the ordinary policy is back")
    assert lab.get("networkpolicy", name)["spec"] == ordinary
    assert "ObjectChanged" not in lab.told(job)
    for pod in pods:
        finish(lab, pod)
    lab.wait_for_phase(job, "Succeeded")
