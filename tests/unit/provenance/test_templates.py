"""A job made from a template: what is left open is filled in, within bounds, and nothing else."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit import world
from trainseal.api.model import InvalidObjectError
from trainseal.api.trainingjob import TrainingJob
from trainseal.api.trainingtemplate import TrainingTemplate
from trainseal.provenance.configfiles import config_files
from trainseal.provenance.templates import FaultyLaunchError, made_from, template_faults

Object = dict[str, Any]
Change = Callable[[Object], object]
NEWER = world.CODE.partition("@")[0] + "@sha256:" + "d" * 64
FROM = {"run": "sweep-a1b2c", "select": "LatestUntainted"}


def made(template: Object | None = None, **spec: Any) -> Object:
    template = template or world.template_object()
    return made_from(template, world.launched_job(template, **spec))


def faults(template: Object) -> list[tuple[str, str]]:
    return [(f.reason, f.place) for f in template_faults(TrainingTemplate.parse(template))]


def refused(template: Object | None = None, **spec: Any) -> list[tuple[str, str]]:
    with pytest.raises(FaultyLaunchError) as caught:
        made(template, **spec)
    return [(f.reason, f.place) for f in caught.value.faults]


# What is made -----------------------------------------------------------------------------------


def test_without_anything_given_the_job_is_the_templates_own() -> None:
    template = world.template_object()
    job = made(template)
    assert job["spec"] == template["spec"]["job"]
    assert job["metadata"]["name"] == "sweep-x7k2f"
    assert "generateName" not in job["metadata"]
    TrainingJob.parse(job)


def test_what_is_given_is_in_the_job_and_the_rest_stays_as_it_was_signed() -> None:
    template = world.template_object()
    before = copy.deepcopy(template)
    job = made(
        template,
        parameters={"learning_rate": 0.0005, "optim.seed": 17, "optim.name": "sgd", "amp": True},
        replicas={"worker": 4},
        codeReferences=[{"name": "trainer", "reference": NEWER}],
        scheduling={"queueName": "research"},
        suspend=True,
    )
    wanted = copy.deepcopy(before["spec"]["job"])
    wanted["config"]["parameters"] |= {"learning_rate": 0.0005, "amp": True}
    wanted["config"]["parameters"]["optim"] |= {"seed": 17, "name": "sgd"}
    wanted["roles"][0]["replicas"] = 4
    wanted["code"][0]["oci"]["reference"] = NEWER
    assert job["spec"] == wanted | {"scheduling": {"queueName": "research"}, "suspend": True}
    assert template == before
    TrainingJob.parse(job)


def test_a_run_goes_on_from_another_where_the_template_lets_it() -> None:
    template = world.template_object(resume={"mountPath": "/resumed"})
    own = template["spec"]["job"]["checkpoints"]
    job = made(template, resumeFrom=FROM)
    wanted = {**own, "resume": {"from": FROM, "mountPath": "/resumed"}}
    assert job["spec"] == template["spec"]["job"] | {"checkpoints": wanted}
    TrainingJob.parse(job)


def test_where_the_template_lets_it_a_run_may_start_anew() -> None:
    template = world.template_object(resume={"mountPath": "/resumed"})
    assert made(template)["spec"] == template["spec"]["job"]


@pytest.mark.parametrize("checkpoints", [None, {"resume": {"from": FROM, "mountPath": "/other"}}])
def test_a_template_whose_runs_may_go_on_has_checkpoints_without_a_resume_of_their_own(
    checkpoints: Object | None,
) -> None:
    template = world.template_object(resume={"mountPath": "/resumed"})
    if checkpoints is None:
        del template["spec"]["job"]["checkpoints"]
    else:
        template["spec"]["job"]["checkpoints"] |= checkpoints
    assert faults(template) == [("InvalidTemplate", "spec.resume")]


@given(
    rate=st.floats(0.00001, 0.001),
    seed=st.integers(0, 65535),
    name=st.sampled_from(["adam", "sgd"]),
    tag=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,15}", fullmatch=True),
    workers=st.integers(1, 8),
)
def test_within_the_bounds_only_what_is_left_open_differs(
    rate: float, seed: int, name: str, tag: str, workers: int
) -> None:
    given = {"learning_rate": rate, "optim.seed": seed, "optim.name": name, "tag": tag}
    job = made(parameters=given, replicas={"worker": workers})
    found, own = job["spec"], world.template_object()["spec"]["job"]
    parameters = found["config"]["parameters"]
    assert (parameters["learning_rate"], parameters["optim"]["seed"]) == (rate, seed)
    assert (parameters["optim"]["name"], parameters["tag"]) == (name, tag)
    for restored in (parameters, own["config"]["parameters"]):
        for key in ("learning_rate", "tag"):
            restored.pop(key)
        restored["optim"] = restored["optim"]["eps"]
    found["roles"][0]["replicas"] = own["roles"][0]["replicas"]
    assert found == own


@given(rate=st.floats(0.00001, 0.001), seed=st.integers(0, 65535), amp=st.booleans())
def test_a_number_or_truth_value_may_come_as_its_text(rate: float, seed: int, amp: bool) -> None:
    """As from Katib, which fills in strings."""
    values = {"learning_rate": rate, "optim.seed": seed, "amp": amp}
    texts = {path: json.dumps(value) for path, value in values.items()}
    assert made(parameters=texts)["spec"] == made(parameters=values)["spec"]


def test_text_stays_text_where_a_text_is_declared() -> None:
    assert made(parameters={"tag": "17"})["spec"]["config"]["parameters"]["tag"] == "17"


def test_a_parameter_reaches_the_config_files_and_no_command_or_variable() -> None:
    job = made(parameters={"tag": "needle-17"})
    spec = TrainingJob.parse(job).spec
    assert spec.config is not None
    assert "needle-17" in config_files(spec.config.parameters)["config.json"]
    assert "needle-17" not in str(job["spec"]["roles"])


def test_one_that_is_not_named_yet_is_judged_under_a_name_as_long_as_the_one_it_gets() -> None:
    template = world.template_object()
    job = world.launched_job(template)
    del job["metadata"]["name"]
    assert made_from(template, job)["metadata"]["name"] == "sweep-00000"


# What is refused of a job -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("learning_rate", 0.1),
        ("learning_rate", 0),
        ("learning_rate", "0.1"),
        ("learning_rate", " 0.0003"),
        ("learning_rate", "0.0003\n"),
        ("learning_rate", "+0.0003"),
        ("learning_rate", ".0003"),
        ("learning_rate", "0x1"),
        ("learning_rate", "1_0"),
        ("learning_rate", "nan"),
        ("learning_rate", "1e999"),
        ("learning_rate", "\u0660.\u0660\u0661"),
        ("learning_rate", "${trialParameters.lr}"),
        ("learning_rate", "0" * 65),
        ("optim.seed", "1.5"),
        ("optim.seed", "true"),
        ("learning_rate", True),
        ("learning_rate", [0.0003]),
        ("learning_rate", {"_target_": "os.system"}),
        ("optim.seed", 1.5),
        ("optim.seed", 65536),
        ("optim.seed", True),
        ("optim.name", "lamb"),
        ("optim.name", 1),
        ("amp", 1),
        ("amp", "True"),
        ("amp", "1"),
        ("tag", ""),
        ("tag", "x" * 17),
        ("tag", "${oc.env:HOME}"),
        ("tag", "a b"),
        ("tag", "a/b"),
        ("tag", "-rf"),
        ("tag", ".."),
        ("tag", "!!python"),
        ("tag", "näme"),
        ("tag", "a\n"),
    ],
)
def test_a_value_out_of_bounds_is_refused_with_its_place(path: str, value: Any) -> None:
    assert refused(parameters={path: value}) == [("OutOfBounds", f"spec.parameters[{path}]")]


@pytest.mark.parametrize(
    "path", ["steps", "optim", "optim.eps", "_target_", "hydra.run.dir", "optim.seed.x", "", "a..b"]
)
def test_a_parameter_that_is_not_left_open_is_refused(path: str) -> None:
    assert refused(parameters={path: 1}) == [("UndeclaredParameter", f"spec.parameters[{path}]")]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"replicas": {"worker": 9}}, "OutOfBounds"),
        ({"replicas": {"leader": 1}}, "UndeclaredReplicas"),
        ({"codeReferences": [{"name": "other", "reference": NEWER}]}, "UndeclaredCode"),
        ({"codeReferences": [{"name": "trainer", "reference": NEWER}] * 2}, "OutOfBounds"),
        ({"resumeFrom": FROM}, "UndeclaredResume"),
        (
            {"codeReferences": [{"name": "trainer", "reference": NEWER.replace("/code", "/x")}]},
            "OutOfBounds",
        ),
        (
            {"codeReferences": [{"name": "trainer", "reference": NEWER.replace("@", ":v1@")}]},
            "OutOfBounds",
        ),
        (
            {"codeReferences": [{"name": "trainer", "reference": NEWER.partition("@")[0] + ":v1"}]},
            "OutOfBounds",
        ),
    ],
)
def test_what_else_is_not_left_open_is_refused(given: Object, reason: str) -> None:
    assert [r for r, _ in refused(**given)] == [reason]


def test_a_parameter_without_a_value_of_the_templates_must_be_given() -> None:
    template = world.template_object()
    del template["spec"]["job"]["config"]["parameters"]["tag"]
    assert refused(template) == [("ParameterMissing", "spec.parameters[tag]")]
    assert made(template, parameters={"tag": "x"})["spec"]["config"]["parameters"]["tag"] == "x"


@pytest.mark.parametrize(
    "spec",
    [
        {"engine": "Job"},
        {"roles": [{"name": "worker", "replicas": 1, "template": {}}]},
        {"config": {"mountPath": "/x", "parameters": {}}},
        {"signatures": []},
        {"validity": {"maxRuns": 5}},
        {"unknown": 1},
        {"replicas": {"worker": 0}},
    ],
)
def test_nothing_of_a_whole_job_stands_beside_a_template(spec: Object) -> None:
    with pytest.raises(InvalidObjectError):
        made(**spec)


# What is refused of a template ------------------------------------------------------------------


def test_the_template_has_no_fault() -> None:
    assert faults(world.template_object()) == []


def opened(path: str, **parameter: Any) -> Change:
    return lambda t: t["spec"]["parameters"].update({path: parameter})


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (opened("steps", type="number"), "spec.parameters[steps]"),
        (opened("steps", type="integer", minimum=1), "spec.parameters[steps]"),
        (opened("steps", type="integer", minimum=5000, maximum=1), "spec.parameters[steps]"),
        (opened("new", type="string"), "spec.parameters[new]"),
        (opened("new", type="string", maxLength=3, enum=["a"]), "spec.parameters[new]"),
        (opened("new", type="boolean", maxLength=3), "spec.parameters[new]"),
        (opened("new", type="boolean", minimum=0, maximum=1), "spec.parameters[new]"),
        (opened("new", type="string", enum=["${x}"]), "spec.parameters[new].enum"),
        (opened("new", type="integer", enum=[1, "2"]), "spec.parameters[new].enum"),
        (opened("hydra.run", type="boolean"), "spec.parameters[hydra.run]"),
        (opened("defaults", type="boolean"), "spec.parameters[defaults]"),
        (
            opened("steps.x", type="boolean"),
            "spec.job.config.parameters.steps",
        ),
        (
            opened("steps", type="integer", minimum=1, maximum=2),
            "spec.job.config.parameters.steps",
        ),
        (lambda t: t["spec"]["replicas"].update(worker={"min": 3, "max": 4}),
         "spec.job.roles[worker].replicas"),
        (lambda t: t["spec"]["replicas"].update(x={"min": 3, "max": 4}), "spec.replicas[x]"),
        (lambda t: t["spec"]["code"].update(x=t["spec"]["code"]["trainer"]), "spec.code[x]"),
    ],
)  # fmt: skip
def test_a_template_that_makes_no_sense_is_refused_with_its_place(
    change: Change, place: str
) -> None:
    template = world.template_object()
    change(template)
    assert faults(template) == [("InvalidTemplate", place)]
    with pytest.raises(FaultyLaunchError):
        made(template)


def test_a_parameter_within_another_is_refused() -> None:
    template = world.template_object()
    opened("optim", type="boolean")(template)
    assert ("InvalidTemplate", "spec.parameters[optim]") in faults(template)


@pytest.mark.parametrize("path", ["_target_", "a._partial_", "1a", "a b", "a.", "ä", "x" * 129])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    template = world.template_object()
    opened(path, type="boolean")(template)
    with pytest.raises(InvalidObjectError):
        made(template)
