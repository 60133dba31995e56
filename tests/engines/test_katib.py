"""Sweeps over a signed template by Katib, with its own controllers."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.cluster import Cluster
from tests.e2e.lab import EDITOR, TEAM, Lab
from tests.e2e.test_templates import EXAMPLES, of_the_team
from tests.engines.runs import found_of
from tests.guides.pages import ROOT
from tests.stage.katib import CONTROLLER, install_katib
from tests.stage.signing import signed
from tests.stage.templates import template_of
from tests.stage.waiting import eventually

Object = dict[str, Any]
#: Where what the policy must let Katib do is printed: the block that has this key.
PAGE, KEY = ROOT / "docs" / "how-to" / "templates.md", "KATIB_TRIAL_NAME"
#: Three runs, two at a time, and Katib's own pods, on one small node.
SECONDS = 240.0


@pytest.fixture(scope="module")
def katib(cluster: Cluster, lab: Lab) -> None:
    """Its controllers and its database, and what the how-to says of it."""
    for command in re.findall(r"\$ kubectl (create clusterrole.*)", PAGE.read_text()):
        lab.admin(*shlex.split(command))
    install_katib(cluster)
    lab.admin("label", "namespace", TEAM, "katib.kubeflow.org/metrics-collector-injection=enabled")
    (printed,) = (
        b for b in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL) if KEY in b
    )
    addition = yaml.safe_load(printed)["pods"]["additions"]
    policy = lab.get("provenancepolicies.trainseal.dev", TEAM, "")
    additions = [*policy["spec"]["pods"].get("additions", ()), *addition]
    change = {"spec": {"pods": {"additions": additions}}}
    lab.admin("patch", "provenancepolicy", TEAM, "--type=merge", "-p", json.dumps(change))


@pytest.fixture
def experiment(lab: Lab, katib: None, request: pytest.FixtureRequest) -> Iterator[Object]:
    """The example, made for a template of which this user may start runs."""
    of = template_of(lab.job("unused", "finish.py"), "pretrain-v7", request.param)
    template = signed(of, lab.alice)
    lab.apply(template)
    made: Object = yaml.safe_load(of_the_team((EXAMPLES / "katib.yaml").read_text(), template))
    made["spec"] |= {"maxTrialCount": 3, "parallelTrialCount": 2}
    lab.admin("create", "-n", TEAM, "-f", "-", stdin=made)
    yield made
    # It has a finalizer on each trial, which wants its database.
    lab.admin("delete", "experiment", made["metadata"]["name"], "-n", TEAM, "--timeout=120s")
    lab.admin("delete", "trainingtemplate", "pretrain-v7", "-n", TEAM)


def trials(lab: Lab) -> list[Object]:
    return lab.listed("trials.kubeflow.org")


def seals(lab: Lab) -> list[Object]:
    """Of the runs of its trials, which are called as these."""
    names = {trial["metadata"]["name"] for trial in trials(lab)}
    return [seal for seal in lab.listed("sealedruns") if seal["spec"]["job"]["name"] in names]


def has_ended(lab: Lab, experiment: Object) -> bool:
    status = lab.get("experiments.kubeflow.org", experiment["metadata"]["name"]).get("status", {})
    ends = ("Succeeded", "Failed")
    return any(c["type"] in ends and c["status"] == "True" for c in status.get("conditions", ()))


@pytest.mark.parametrize("experiment", [CONTROLLER], indirect=True)
def test_an_experiments_trials_each_run_from_the_template_to_their_end(
    lab: Lab, experiment: Object
) -> None:
    """Katib deletes a trial's job once it has ended, as it does by default: the seals stay."""
    eventually(lambda: has_ended(lab, experiment), "the experiment ends", SECONDS)
    eventually(lambda: all("completionTime" in s["status"] for s in seals(lab)), "so do the seals")
    # Of two that end at once Katib may start one too many.
    assert len(seals(lab)) in (3, 4)
    assert {s["status"]["phase"] for s in seals(lab)} == {"Succeeded"}
    assert {s["spec"]["requester"]["username"] for s in seals(lab)} == {CONTROLLER}
    suggested = {
        (float(by["lr"]), int(by["steps"]))
        for trial in trials(lab)
        for by in [{a["name"]: a["value"] for a in trial["spec"]["parameterAssignments"]}]
    }
    parameters = [s["spec"]["launch"]["parameters"] for s in seals(lab)]
    assert {(float(p["learning_rate"]), int(p["steps"])) for p in parameters} == suggested
    assert [found for s in seals(lab) for found in found_of(lab, s["metadata"]["name"])] == []


@pytest.mark.parametrize("experiment", [EDITOR], indirect=True)
def test_where_the_template_does_not_name_katib_its_trials_say_so_and_nothing_runs(
    lab: Lab, experiment: Object
) -> None:
    def told() -> str:
        events = lab.listed("events", fields="involvedObject.kind=Trial")
        return json.dumps([event.get("message") for event in events])

    words = f"{CONTROLLER} asks"
    eventually(lambda: words in told(), f"an event of a trial says {words}", SECONDS)
    assert not seals(lab)
    assert not lab.listed("trainingjobs")
