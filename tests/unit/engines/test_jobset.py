"""A run as a JobSet: what is rendered, and what its controller may write on Jobs and pods.

``made_by_jobset`` is what JobSet's controller makes, written after its source (v0.11.0,
``constructJob`` and ``labelAndAnnotateObject``).
"""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.unit import world
from tests.unit.engines.jobsets import ROOT_UID, in_two_roles, made_by_jobset, rendered
from trainseal.controller.engineobjects import changed_before_binding
from trainseal.engines import job as jobs
from trainseal.engines import jobset
from trainseal.engines.catalogue import expected_pod
from trainseal.provenance.additions import Additions
from trainseal.provenance.boundseals import BoundRole
from trainseal.provenance.podmatch import changed_parts, compare_pod
from trainseal.provenance.seals import BoundUid

Object = dict[str, Any]


def root(job: Object | None = None) -> Object:
    (found,) = rendered(job).roots
    return found


def bound(number: int = 0) -> BoundRole:
    """A role as its seal is bound."""
    found = rendered()
    role = found.roles[number]
    template = jobs.template_of(world.stored_job(role.owner, "dry-run"))
    return BoundRole(
        role.name,
        role.object_name,
        f"child-{number}",
        role.replicas,
        template,
        namespace="research",
        engine="JobSet",
        root=BoundUid("", "JobSet", "char-lm", ROOT_UID),
        peers=("worker", "server"),
    )


def pod(number: int = 0) -> Object:
    """A pod of the real thing."""
    child = made_by_jobset(root(), number)
    made = world.stored_job(child, f"child-{number}")
    found = world.pod(made)
    found["metadata"]["labels"]["jobset.sigs.k8s.io/priority"] = "0"
    found["spec"]["priority"] = 0
    return found


def test_the_jobset_waits_until_its_seal_is_bound_and_holds_one_job_a_role() -> None:
    spec = root()["spec"]
    assert spec["suspend"] is True
    assert [(r["name"], r["replicas"]) for r in spec["replicatedJobs"]] == [
        ("worker", 1),
        ("server", 1),
    ]
    assert "failurePolicy" not in spec, "a restart makes Jobs that no seal is bound to"


def test_it_lives_and_dies_with_the_training_job() -> None:
    (owner,) = root()["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == (
        "TrainingJob",
        world.JOB_UID,
        True,
    )


def test_workers_meet_at_the_first_roles_first_pod() -> None:
    for role in rendered().roles:
        spec = role.owner["spec"]["template"]["spec"]
        env = {e["name"]: e.get("value") for e in spec["containers"][0]["env"]}
        assert env["MASTER_ADDR"] == "char-lm-worker-0-0.char-lm.research.svc"


@pytest.mark.parametrize("length", [1, 40, 63])
def test_the_names_of_its_pods_are_labels_of_the_domain_name_system(length: int) -> None:
    name = jobset.jobset_name("a" * length, ["worker", "parameter-server"])
    assert len(f"{jobset.child_name(name, 'parameter-server')}-99999-abcde") <= 63


def test_a_child_job_as_its_controller_makes_it_is_what_was_sealed() -> None:
    for number, role in enumerate(rendered().roles):
        child = world.stored_job(made_by_jobset(root(), number), f"child-{number}")
        sealed = jobs.with_template(role.owner, bound(number).template)
        assert changed_before_binding(sealed, child, jobset.added(bound(number))) == ""


def other_uid(child: Object) -> None:
    labels = child["spec"]["template"]["metadata"]["labels"]
    labels["jobset.sigs.k8s.io/jobset-uid"] = "another"


def restarted(child: Object) -> None:
    annotations = child["spec"]["template"]["metadata"]["annotations"]
    annotations["jobset.sigs.k8s.io/restart-attempt"] = "1"


def one_more_label(child: Object) -> None:
    child["spec"]["template"]["metadata"]["labels"]["app"] = "mallory"


def other_command(child: Object) -> None:
    child["spec"]["template"]["spec"]["containers"][0]["command"] = ["sh"]


@pytest.mark.parametrize("change", [other_uid, restarted, one_more_label, other_command])
def test_a_child_job_of_other_content_is_bound_to_no_seal(change: Any) -> None:
    role = rendered().roles[0]
    child = world.stored_job(made_by_jobset(root(), 0), "child-0")
    change(child)
    sealed = jobs.with_template(role.owner, bound().template)
    assert changed_before_binding(sealed, child, jobset.added(bound())) == "spec.template"


@pytest.mark.parametrize("number", [0, 1])
def test_a_pod_of_it_is_what_its_seal_says(number: int) -> None:
    assert compare_pod(expected_pod(bound(number)), pod(number), Additions()) == ()


@pytest.mark.parametrize("part", ["labels", "annotations"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jobset-uid", "another"),
        ("jobset-name", "another"),
        ("replicatedjob-name", "server"),
        ("restart-attempt", "1"),
        ("job-key", "0"),
        ("job-global-index", "1"),
    ],
)
def test_what_jobset_writes_has_the_value_that_follows_from_the_jobset(
    part: str, name: str, value: str
) -> None:
    found = pod()
    found["metadata"][part][f"jobset.sigs.k8s.io/{name}"] = value
    (difference,) = compare_pod(expected_pod(bound()), found, Additions())
    assert difference.path == f"metadata.{part}[jobset.sigs.k8s.io/{name}]"


@pytest.mark.parametrize("part", ["labels", "annotations"])
def test_what_jobset_does_not_write_is_no_mark_of_its(part: str) -> None:
    found = pod()
    found["metadata"][part]["jobset.sigs.k8s.io/other"] = "1"
    assert len(compare_pod(expected_pod(bound()), found, Additions())) == 1


def test_the_priority_label_says_the_pods_own_priority() -> None:
    found = pod()
    found["metadata"]["labels"]["jobset.sigs.k8s.io/priority"] = "1000"
    assert len(compare_pod(expected_pod(bound()), found, Additions())) == 1


def test_marks_are_none_on_a_pod_of_the_built_in_engine() -> None:
    sealed = world.sealed_world()
    found = sealed.pod()
    found["metadata"]["labels"]["jobset.sigs.k8s.io/jobset-name"] = "char-lm"
    role = BoundRole("worker", "char-lm-worker", world.OBJECT_UID, 2, sealed.template)
    assert len(compare_pod(expected_pod(role), found, Additions())) == 1


def test_marks_of_a_pod_that_is_there_stay() -> None:
    old, new = pod(), pod()
    new["metadata"]["labels"]["jobset.sigs.k8s.io/job-key"] = "0"
    assert changed_parts(old, new, expected_pod(bound())) == (
        "metadata.labels[jobset.sigs.k8s.io/job-key]",
    )


def test_a_jobset_as_rendered_has_no_change() -> None:
    live = copy.deepcopy(root())
    live["spec"]["suspend"] = False
    assert list(jobset.root_changes(root(), live)) == []


def with_restarts(spec: Object) -> None:
    spec["failurePolicy"] = {"maxRestarts": 3}


def of_another_manager(spec: Object) -> None:
    spec["managedBy"] = "example.org/mallory"


def of_more_jobs(spec: Object) -> None:
    spec["replicatedJobs"][0]["replicas"] = 2


def with_one_more_role(spec: Object) -> None:
    spec["replicatedJobs"].append(spec["replicatedJobs"][0] | {"name": "more"})


def with_other_retries(spec: Object) -> None:
    spec["replicatedJobs"][0]["template"]["spec"]["backoffLimitPerIndex"] = 100


@pytest.mark.parametrize(
    "change",
    [with_restarts, of_another_manager, of_more_jobs, with_one_more_role, with_other_retries],
)
def test_a_jobset_that_says_something_else_is_told_of(change: Any) -> None:
    live = copy.deepcopy(root())
    change(live["spec"])
    assert len(list(jobset.root_changes(root(), live))) == 1


@pytest.mark.parametrize(
    ("condition", "ended"),
    [
        ({"type": "Completed", "status": "True", "message": "m"}, ("Complete", "m")),
        ({"type": "Failed", "status": "True", "message": "m"}, ("Failed", "m")),
        ({"type": "Completed", "status": "False", "message": "m"}, None),
        ({"type": "Suspended", "status": "True", "message": "m"}, None),
    ],
)
def test_how_it_ended(condition: Object, ended: object) -> None:
    assert jobset.outcome({"status": {"conditions": [condition]}}) == ended


def test_where_its_pods_are_placed() -> None:
    assert jobset.pods_at(root(), "server") == "/spec/replicatedJobs/1/template/spec/template/spec"
    child = made_by_jobset(root(), 1)
    assert jobset.pods_at(child, "server") == "/spec/template/spec"


def test_sealed_pods_are_in_the_jobset_and_in_its_jobs() -> None:
    sealed = {"worker": {"spec": {"a": 1}}, "server": {"spec": {"b": 1}}}
    found: Any = jobset.with_templates(rendered(in_two_roles()), sealed)  # type: ignore[arg-type]
    parts = found.roots[0]["spec"]["replicatedJobs"]
    assert [p["template"]["spec"]["template"] for p in parts] == list(sealed.values())
    assert [r.owner["spec"]["template"] for r in found.roles] == list(sealed.values())
