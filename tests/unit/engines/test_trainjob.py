"""A run as a TrainJob: what is rendered, and what the trainer and JobSet make of it.

``made_by_trainer`` is what the trainer makes, written after its source (v2.0.0).
"""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.unit import world
from tests.unit.engines.jobsets import made_by_jobset
from tests.unit.engines.trainjobs import ROOT_UID, RUNTIME_UID, made_by_trainer, rendered
from trainseal.controller.engineobjects import changed_before_binding
from trainseal.engines import job as jobs
from trainseal.engines import jobset, trainjob
from trainseal.engines.catalogue import expected_pod
from trainseal.engines.engine import Rendered
from trainseal.provenance.additions import Additions
from trainseal.provenance.boundseals import BoundRole
from trainseal.provenance.podmatch import compare_pod
from trainseal.provenance.seals import BoundUid

Object = dict[str, Any]
JOBSET_UID = "jobset-uid"


def root() -> Object:
    (found,) = rendered().roots
    return found


def runtime() -> Object:
    (found,) = rendered().beside
    return found


def between() -> Object:
    """The JobSet as it is to be made."""
    (found,) = rendered().between
    return found


def made() -> Object:
    """The JobSet as the trainer makes it."""
    found = made_by_trainer(root(), runtime())
    found["metadata"]["uid"] = JOBSET_UID
    return found


def bound(number: int = 0) -> BoundRole:
    """A role as its seal is bound."""
    role = rendered().roles[number]
    template = jobs.template_of(world.stored_job(role.owner, "dry-run"))
    return BoundRole(
        role.name,
        role.object_name,
        f"child-{number}",
        role.replicas,
        template,
        namespace="research",
        engine="TrainJob",
        root=BoundUid("", "TrainJob", "char-lm", ROOT_UID),
        above=(
            BoundUid("", "TrainingRuntime", "trainseal-char-lm", RUNTIME_UID),
            BoundUid("", "JobSet", "char-lm", JOBSET_UID),
        ),
        peers=("worker", "server"),
    )


def pod(number: int = 0) -> Object:
    """A pod of the real thing."""
    child = world.stored_job(made_by_jobset(made(), number), f"child-{number}")
    found = world.pod(child)
    found["metadata"]["labels"]["jobset.sigs.k8s.io/priority"] = "0"
    found["spec"]["priority"] = 0
    return found


def test_the_trainjob_waits_until_its_seal_is_bound_and_says_nothing_but_its_runtime() -> None:
    assert root()["spec"] == {
        "suspend": True,
        "managedBy": "trainer.kubeflow.org/trainjob-controller",
        "runtimeRef": {
            "apiGroup": "trainer.kubeflow.org",
            "kind": "TrainingRuntime",
            "name": runtime()["metadata"]["name"],
        },
    }


def test_the_runtime_has_nothing_by_which_the_trainer_changes_containers() -> None:
    """No policy of its own, and no Job that it takes for the trainer's or an initializer's."""
    assert runtime()["spec"].keys() == {"template"}
    for part in runtime()["spec"]["template"]["spec"]["replicatedJobs"]:
        labels = part["template"]["metadata"]["labels"]
        assert not any(name.startswith("trainer.kubeflow.org/") for name in labels)


def test_the_runtime_has_no_field_that_the_trainers_jobset_has_not() -> None:
    """JobSet v0.8.2, by the schema of TrainingRuntimes: a strict API server would refuse it."""
    spec = runtime()["spec"]["template"]["spec"]
    assert spec.keys() <= {"network", "successPolicy", "startupPolicy", "replicatedJobs"}
    assert all(part.keys() == {"name", "replicas", "template"} for part in spec["replicatedJobs"])


def test_the_runtimes_name_is_one_that_nobody_elses_trainjob_may_say() -> None:
    assert runtime()["metadata"]["name"] == "trainseal-char-lm"


def test_trainjob_and_runtime_live_and_die_with_the_training_job() -> None:
    for obj in (root(), runtime()):
        (owner,) = obj["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == (
            "TrainingJob",
            world.JOB_UID,
            True,
        )


def test_what_the_trainer_makes_is_the_jobset_that_is_expected() -> None:
    live, wanted = made(), between()
    assert list(trainjob.root_changes(wanted, live)) == []
    assert live["metadata"]["labels"] == wanted["metadata"]["labels"]
    assert live["spec"]["replicatedJobs"] == wanted["spec"]["replicatedJobs"]


def test_its_jobs_are_what_was_sealed() -> None:
    for number, role in enumerate(rendered().roles):
        child = world.stored_job(made_by_jobset(made(), number), f"child-{number}")
        sealed = jobs.with_template(role.owner, bound(number).template)
        assert changed_before_binding(sealed, child, trainjob.added(bound(number))) == ""


def test_workers_meet_at_the_first_roles_first_pod() -> None:
    for role in rendered().roles:
        spec = role.owner["spec"]["template"]["spec"]
        env = {e["name"]: e.get("value") for e in spec["containers"][0]["env"]}
        assert env["MASTER_ADDR"] == "char-lm-worker-0-0.char-lm.research.svc"


@pytest.mark.parametrize("number", [0, 1])
def test_a_pod_of_it_is_what_its_seal_says(number: int) -> None:
    assert compare_pod(expected_pod(bound(number)), pod(number), Additions()) == ()


@pytest.mark.parametrize("part", ["labels", "annotations"])
@pytest.mark.parametrize("uid", [ROOT_UID, RUNTIME_UID, "another"])
def test_its_marks_follow_from_the_jobset_and_from_no_other_object(part: str, uid: str) -> None:
    found = pod()
    found["metadata"][part]["jobset.sigs.k8s.io/jobset-uid"] = uid
    (difference,) = compare_pod(expected_pod(bound()), found, Additions())
    assert difference.path == f"metadata.{part}[jobset.sigs.k8s.io/jobset-uid]"


def told_by_torch(found: Object) -> None:
    found["spec"]["containers"][0]["env"].append({"name": "PET_MASTER_ADDR", "value": "mallory"})


def of_a_step(found: Object) -> None:
    found["metadata"]["labels"]["trainer.kubeflow.org/trainjob-ancestor-step"] = "trainer"


@pytest.mark.parametrize("change", [told_by_torch, of_a_step])
def test_what_the_trainer_may_write_on_pods_of_others_is_a_difference(change: Any) -> None:
    found = pod()
    change(found)
    assert len(compare_pod(expected_pod(bound()), found, Additions())) == 1


def test_without_its_jobset_nothing_is_its_controllers() -> None:
    role = bound()
    unbound = BoundRole(
        role.role, role.object_name, role.object_uid, role.replicas, role.template,
        namespace="research", engine="TrainJob", root=role.root, peers=role.peers,
    )  # fmt: skip
    assert compare_pod(expected_pod(unbound), pod(), Additions()) != ()


@pytest.mark.parametrize("what", ["roots", "beside", "between"])
def test_an_object_as_rendered_has_no_change(what: str) -> None:
    (wanted,) = getattr(rendered(), what)
    live = copy.deepcopy(wanted)
    live["spec"]["suspend" if what != "beside" else "template"] = (
        False if what != "beside" else live["spec"]["template"]
    )
    assert list(trainjob.root_changes(wanted, live)) == []


def with_overrides(spec: Object) -> None:
    spec["podSpecOverrides"] = [{"targetJobs": [{"name": "worker"}], "serviceAccountName": "admin"}]


def with_a_command(spec: Object) -> None:
    spec["trainer"] = {"command": ["sh"]}


def with_an_initializer(spec: Object) -> None:
    spec["initializer"] = {"dataset": {"storageUri": "hf://mallory/data"}}


def of_another_runtime(spec: Object) -> None:
    spec["runtimeRef"] = {**spec["runtimeRef"], "kind": "ClusterTrainingRuntime"}


def with_labels(spec: Object) -> None:
    spec["labels"] = {"trainseal.dev/seal": "another"}


@pytest.mark.parametrize(
    "change",
    [with_overrides, with_a_command, with_an_initializer, of_another_runtime, with_labels],
)
def test_a_trainjob_that_says_more_than_its_runtime_is_told_of(change: Any) -> None:
    live = copy.deepcopy(root())
    change(live["spec"])
    assert len(list(trainjob.root_changes(root(), live))) == 1


def with_a_policy(spec: Object) -> None:
    spec["mlPolicy"] = {"numNodes": 9}


def with_groups(spec: Object) -> None:
    spec["podGroupPolicy"] = {"coscheduling": {}}


def with_other_labels(spec: Object) -> None:
    spec["template"]["metadata"]["labels"]["trainseal.dev/seal"] = "another"


def with_restarts(spec: Object) -> None:
    spec["template"]["spec"]["failurePolicy"] = {"maxRestarts": 3}


def with_a_step(spec: Object) -> None:
    (job, _) = spec["template"]["spec"]["replicatedJobs"]
    job["template"]["metadata"]["labels"]["trainer.kubeflow.org/trainjob-ancestor-step"] = "trainer"


@pytest.mark.parametrize(
    "change", [with_a_policy, with_groups, with_other_labels, with_restarts, with_a_step]
)
def test_a_runtime_that_says_something_else_is_told_of(change: Any) -> None:
    live = copy.deepcopy(runtime())
    change(live["spec"])
    assert len(list(trainjob.root_changes(runtime(), live))) == 1


@pytest.mark.parametrize(
    ("condition", "ended"),
    [
        ({"type": "Complete", "status": "True", "message": "m"}, ("Complete", "m")),
        ({"type": "Failed", "status": "True", "message": "m"}, ("Failed", "m")),
        ({"type": "Complete", "status": "False", "message": "m"}, None),
        ({"type": "Suspended", "status": "True", "message": "m"}, None),
    ],
)
def test_how_it_ended(condition: Object, ended: object) -> None:
    assert trainjob.outcome({"status": {"conditions": [condition]}}) == ended


def test_where_its_pods_are_placed() -> None:
    at = "/spec/replicatedJobs/1/template/spec/template/spec"
    assert trainjob.pods_at(between(), "server") == at
    assert trainjob.pods_at(runtime(), "server") == "/spec/template" + at
    assert trainjob.pods_at(root(), "server") == ""
    assert trainjob.pods_at(made_by_jobset(made(), 1), "server") == "/spec/template/spec"


def test_sealed_pods_are_in_the_runtime_and_in_what_is_made_of_it() -> None:
    sealed = {"worker": {"spec": {"a": 1}}, "server": {"spec": {"b": 1}}}
    found: Rendered = trainjob.with_templates(rendered(), sealed)  # type: ignore[arg-type]
    (beside,), (below,) = found.beside, found.between
    for spec in (beside["spec"]["template"]["spec"], below["spec"]):
        parts = spec["replicatedJobs"]
        assert [p["template"]["spec"]["template"] for p in parts] == list(sealed.values())
    assert [r.owner["spec"]["template"] for r in found.roles] == list(sealed.values())
    assert found.roots == rendered().roots


def test_the_jobset_is_that_of_the_engine_jobset_but_for_whose_it_is() -> None:
    assert between()["kind"] == jobset.ROOT.kind
    assert "ownerReferences" not in between()["metadata"]
