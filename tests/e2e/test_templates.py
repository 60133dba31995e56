"""Signed once, run many times: runs of a template by whom it names, within its bounds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import CommandError
from tests.e2e.lab import EDITOR, TEAM, Lab, Object
from tests.stage.jobs import FINISH, SHORT_CODE
from tests.stage.signing import signed
from tests.stage.templates import job_from, template_of
from tests.stage.waiting import eventually

EXAMPLES = Path(__file__).parents[2] / "examples" / "sweeps"
#: What Argo's workflows, or Katib's controller, run as: nobody of the team makes pods there.
SWEEPS = "system:serviceaccount:argo:sweeps"
#: What a ServiceAccount of the team's namespace is called; anybody there can act as it.
ACCOUNT = f"system:serviceaccount:{TEAM}:default"


def template(lab: Lab, name: str, script: str = "finish.py", **launch: Any) -> Object:
    """One that alice signed and that is in the cluster."""
    made = signed(template_of(lab.job("unused", script), name, EDITOR, **launch), lab.alice)
    lab.apply(made)
    return made


@pytest.fixture(scope="module")
def short(lab: Lab) -> Iterator[Object]:
    """Whose runs end at once."""
    found = template(lab, "short")
    yield found
    lab.delete(found)


@pytest.fixture
def start(lab: Lab) -> Iterator[Callable[..., Object]]:
    """Starts a run, which is deleted afterwards."""
    made: list[Object] = []

    def do(of: Object, **spec: Any) -> Object:
        made.append(lab.create(job_from(of, **spec)))
        return made[-1]

    yield do
    for job in made:
        lab.delete(job)


def seal_of(lab: Lab, job: Object) -> Object:
    return lab.get("sealedrun", lab.status(job)["sealedRun"])


def test_one_signature_runs_many_jobs_each_with_its_own_parameters(
    lab: Lab, short: Object, start: Callable[..., Object]
) -> None:
    jobs = [start(short, parameters={"learning_rate": rate}) for rate in (0.001, 0.002, 0.005)]
    assert len({job["metadata"]["name"] for job in jobs}) == 3
    for job, rate in zip(jobs, (0.001, 0.002, 0.005), strict=True):
        status = lab.wait_for_phase(job, "Succeeded")
        assert (status["template"], status["requester"]) == ("short", EDITOR)
        assert "alice" in status["signers"]
        assert "signatures" not in lab.get("trainingjob", job["metadata"]["name"])["spec"]
        (pod,) = lab.pods(job)
        assert lab.kubectl("logs", pod["metadata"]["name"], "-c", "trainer").strip() == (
            f"learning rate {rate}"
        )
        launch = seal_of(lab, job)["spec"]["launch"]
        assert launch["parameters"] == {"learning_rate": rate}
        assert launch["digest"] == job["spec"]["templateRef"]["digest"]
    assert {seal_of(lab, job)["spec"]["run"] for job in jobs} == {1, 2, 3}


def test_a_run_may_be_larger_where_the_template_leaves_that_open(
    lab: Lab, short: Object, start: Callable[..., Object]
) -> None:
    job = start(short, replicas={"worker": 2})
    lab.wait_for_phase(job, "Succeeded")
    assert len(lab.pods(job)) == 2


def test_newer_code_runs_if_whom_the_template_names_signed_it(
    lab: Lab, short: Object, start: Callable[..., Object]
) -> None:
    says = {"finish.py": "print('newer code', flush=True)\n"}
    by_bob = lab.push_tree("code", SHORT_CODE | says, lab.bob)
    by_alice = lab.push_tree("code", SHORT_CODE | says | {"x.py": ""}, lab.alice)
    job = start(short, codeReferences=[{"name": "trainer", "reference": by_bob}])
    lab.wait_for_phase(job, "Succeeded")
    (pod,) = lab.pods(job)
    assert "newer code" in lab.kubectl("logs", pod["metadata"]["name"], "-c", "trainer")
    # The policy would take her signature; the template asks for his.
    newer = [{"name": "trainer", "reference": by_alice}]
    said = lab.refusal(job_from(short, codeReferences=newer))
    assert "a signature by bob, as the template says" in said


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"parameters": {"learning_rate": 1}}, "spec.parameters[learning_rate]"),
        ({"parameters": {"learning_rate": "${oc.env:HOME}"}}, "a number"),
        ({"parameters": {"_target_": "os.system"}}, "does not leave open"),
        ({"parameters": {"hydra.run.dir": "/tmp"}}, "does not leave open"),
        ({"replicas": {"worker": 3}}, "1 to 2"),
        ({"engine": "Job"}, "templateRef"),
        ({"signatures": []}, "templateRef"),
    ],
)
def test_what_the_template_does_not_leave_open_is_refused_with_its_field(
    lab: Lab, short: Object, spec: Object, words: str
) -> None:
    assert words in lab.refusal(job_from(short, **spec))


def test_a_generated_name_is_for_jobs_of_templates(lab: Lab) -> None:
    job = lab.signed_job("whole")
    job["metadata"] = {"generateName": "whole-", "namespace": TEAM}
    assert "metadata.generateName" in lab.refusal(job)


@pytest.mark.parametrize("user", ["carol@example.org", ACCOUNT])
def test_who_is_not_named_starts_nothing_whatever_rights_they_have(
    lab: Lab, short: Object, user: str
) -> None:
    words = ("create", "--as", user, "--as-group", "system:masters", "-f", "-")
    assert f"user {EDITOR}" in _refused(lab, *words, stdin=json.dumps(job_from(short)))


def _refused(lab: Lab, *words: str, stdin: str) -> str:
    try:
        lab.target.kubectl("-n", TEAM, *words, input=stdin)
    except CommandError as error:
        return error.stderr
    raise AssertionError("it was let in")


def test_a_template_is_signed_when_it_is_made_and_does_not_change(lab: Lab, short: Object) -> None:
    unsigned = template_of(lab.job("unused", "finish.py"), "unsigned", EDITOR)
    assert "no signature found" in lab.refusal(unsigned)
    by_mallory = signed(template_of(lab.job("unused"), "mallorys", EDITOR), lab.mallory)
    assert "none that counts" in lab.refusal(by_mallory)
    wider = json.dumps({"spec": {"launch": {"requesters": [{"user": ACCOUNT}]}}})
    said = _refused(
        lab, "patch", "trainingtemplate", "short", "--type=merge", "-p", wider, stdin=""
    )
    assert "cannot be changed" in said or "make a template of another name" in said


def test_so_many_run_at_a_time_and_the_next_starts_when_one_has_ended(
    lab: Lab, start: Callable[..., Object]
) -> None:
    one = template(lab, "one-at-a-time", "wait.py", maxConcurrent=1)
    first = start(one)
    lab.wait_for_phase(first, "Running")
    second = start(one)
    status = lab.wait_for_phase(second, "Pending")
    assert "launch.maxConcurrent" in status["message"]
    (pod,) = lab.pods(first)
    lab.kubectl("exec", pod["metadata"]["name"], "-c", "trainer", "--", *FINISH)
    lab.wait_for_phase(second, "Running")
    lab.delete(one)


def test_a_revoked_template_starts_nothing_and_stays_revoked(
    lab: Lab, start: Callable[..., Object]
) -> None:
    made = template(lab, "revoked", "wait.py")
    job = start(made)
    lab.wait_for_phase(job, "Running")
    revoked = json.dumps({"spec": {"revoked": {"reason": "diverges"}}})
    lab.kubectl("patch", "tmpl", "revoked", "--type=merge", "-p", revoked)
    assert "it is revoked: diverges" in lab.refusal(job_from(made))
    back = json.dumps({"spec": {"revoked": None}})
    said = _refused(lab, "patch", "tmpl", "revoked", "--type=merge", "-p", back, stdin="")
    assert "stays once it is there" in said
    # What is on goes on; what was suspended does not.
    name = job["metadata"]["name"]
    assert lab.status(job)["phase"] == "Running"
    for suspend in ("true", "false"):
        patch = f'{{"spec":{{"suspend":{suspend}}}}}'
        lab.kubectl("patch", "tj", name, "--type=merge", "-p", patch)
        lab.wait_for_phase(job, "Suspended")
    eventually(lambda: "diverges" in lab.status(job)["message"], "it says why it does not go on")
    lab.delete(made)


# Other controllers ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(lab: Lab) -> Iterator[Object]:
    """A template that another controller may start runs of, and does."""
    binding = ("rolebinding", "sweeps")
    lab.admin("create", *binding, "-n", TEAM, "--clusterrole=edit", "--serviceaccount=argo:sweeps")
    found = template(lab, "pretrain-v7", requesters=[{"user": SWEEPS}])
    yield found
    lab.delete(found)
    lab.admin("delete", *binding, "-n", TEAM)


def by_the_controller(lab: Lab, text: str) -> Object:
    words = ("-n", TEAM, "create", "-f", "-", "-o", "json", "--as", SWEEPS)
    found: Object = json.loads(lab.target.kubectl(*words, input=text))
    return found


def of_the_team(text: str, of: Object) -> str:
    """The example, for this team and template."""
    digest = job_from(of)["spec"]["templateRef"]["digest"]
    return text.replace(f"sha256:{'0' * 64}", digest).replace("namespace: research", "")


def test_katibs_trials_run_from_a_template(lab: Lab, swept: Object) -> None:
    """As Katib makes them: the trial's JSON with its strings filled in, named by Katib."""
    example = yaml.safe_load(of_the_team((EXAMPLES / "katib.yaml").read_text(), swept))
    trial = example["spec"]["trialTemplate"]
    text = json.dumps(trial["trialSpec"])
    for parameter in trial["trialParameters"]:
        value = {"lr": "0.0031415926", "steps": "17"}[parameter["reference"]]
        text = text.replace(f"${{trialParameters.{parameter['name']}}}", value)
    named = {**json.loads(text), "metadata": {"name": "pretrain-v7-w2h6xk9q", "namespace": TEAM}}
    job = by_the_controller(lab, json.dumps(named))
    status = lab.wait_for_phase(job, "Succeeded")
    assert status["requester"] == SWEEPS
    # What its successCondition asks for.
    assert [c["status"] for c in status["conditions"] if c["type"] == "Complete"] == ["True"]
    (pod,) = lab.pods(job)
    said = lab.kubectl("logs", pod["metadata"]["name"], "-c", "trainer")
    assert said.strip() == "learning rate 0.0031415926"
    assert seal_of(lab, job)["spec"]["launch"]["job"]["config"]["parameters"]["steps"] == 17
    lab.delete(job)


def test_argos_steps_run_from_a_template(lab: Lab, swept: Object) -> None:
    """As Argo makes them: the manifest's text filled in, given to kubectl create."""
    workflow = yaml.safe_load((EXAMPLES / "argo.yaml").read_text())
    (step,) = (t for t in workflow["spec"]["templates"] if t["name"] == "run")
    manifest = of_the_team(step["resource"]["manifest"], swept)
    job = by_the_controller(lab, manifest.replace("{{inputs.parameters.lr}}", "0.0003"))
    status = lab.wait_for_phase(job, "Succeeded")
    assert f"status.phase == {status['phase']}" == step["resource"]["successCondition"]
    assert status["requester"] == SWEEPS
    lab.delete(job)


def test_a_sweep_out_of_bounds_is_refused_though_its_numbers_are_text(
    lab: Lab, swept: Object
) -> None:
    job = job_from(swept, parameters={"learning_rate": "0.1"})
    words = ("create", "--as", SWEEPS, "-f", "-")
    assert "spec.parameters[learning_rate]" in _refused(lab, *words, stdin=json.dumps(job))
