"""Runs by TrainJob: bound to TrainJob, runtime, JobSet and Jobs, which three controllers make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tests.unit import world
from tests.unit.controller.cluster import Cluster
from tests.unit.controller.lookedat import bound, findings
from tests.unit.engines.jobsets import made_by_jobset
from tests.unit.engines.trainjobs import made_by_trainer, two_roles
from trainseal.api.sealedrun import SealedRun
from trainseal.cluster.api import KubeError, NotFoundError
from trainseal.controller.handlers import roots
from trainseal.controller.runversions import RunVersions, parts_of
from trainseal.engines.engine import LABEL_QUEUE

Object = dict[str, Any]
TRAINER = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/research"
ROOT, RUNTIME = f"{TRAINER}/trainjobs/char-lm", f"{TRAINER}/trainingruntimes/trainseal-char-lm"
JOBSET = "/apis/jobset.x-k8s.io/v1alpha2/namespaces/research/jobsets/char-lm"
JOBS = "/apis/batch/v1/namespaces/research/jobs"
CHILDREN = (f"{JOBS}/char-lm-worker-0", f"{JOBS}/char-lm-server-0")
ENABLED: Object = {"enabled": True, "controller": "somebody"}
ON: Object = {"engines": {"jobSet": ENABLED, "trainJob": ENABLED}}


@dataclass
class WithTrainer(Cluster):
    """The same with the trainer and JobSet's controller, each of which may be away."""

    trainer_away: bool = False
    jobset_away: bool = False
    #: A kind that is not there.
    missing: str = ""
    #: The trainer's webhook has not heard of a runtime so often.
    unheard: int = 0
    made: int = 0

    async def create(
        self, path: str, obj: Object, *, dry_run: bool = False, strict: bool = False
    ) -> Object:
        if obj["kind"] == self.missing:
            raise NotFoundError(404, "NotFound", "the server could not find the requested resource")
        if obj["kind"] == "TrainJob":
            assert not dry_run, "the trainer refuses one whose runtime is not there"
            if RUNTIME not in self.objects or self.unheard:
                self.unheard -= 1
                raise KubeError(403, "Forbidden", "runtime must be created before the TrainJob")
        return await super().create(path, obj, dry_run=dry_run, strict=strict)

    def trainer_works(self) -> None:
        """Makes the JobSet, and writes the runtime's over it where that is to be suspended or
        resumed; tells how it ended.
        """
        root, runtime = self.objects[ROOT], self.objects.get(RUNTIME)
        live = self.objects.get(JOBSET)
        waits = root["spec"]["suspend"] or live is None or live["spec"]["suspend"]
        if runtime is not None and waits:
            made = made_by_trainer(root, runtime)
            uid = live["metadata"]["uid"] if live else f"jobset-{self.made}"
            status = live.get("status") if live else None
            self.objects[JOBSET] = made | ({"status": status} if status else {})
            self.objects[JOBSET]["metadata"]["uid"] = uid
        for condition in self.objects[JOBSET].get("status", {}).get("conditions", []):
            ended = "Complete" if condition["type"] == "Completed" else condition["type"]
            root["status"] = {"conditions": [{**condition, "type": ended}]}

    def jobset_works(self) -> None:
        """Makes what is missing, and suspends and resumes as its JobSet is."""
        root = self.objects[JOBSET]
        for number, part in enumerate(root["spec"]["replicatedJobs"]):
            path = f"{JOBS}/char-lm-{part['name']}-0"
            if path not in self.objects:
                made = made_by_jobset(root, number)
                self.made += 1
                self.objects[path] = world.stored_job(made, f"child-{self.made}")
            self.objects[path]["spec"]["suspend"] = root["spec"]["suspend"]

    def look(self) -> None:
        """The controller looks until it rests, the others after it."""
        for _ in range(4):
            self.settle()
            if not self.trainer_away and ROOT in self.objects:
                self.trainer_works()
            if not self.jobset_away and JOBSET in self.objects:
                self.jobset_works()
        self.settle()

    @property
    def root(self) -> Object:
        return self.objects[ROOT]

    def suspended(self) -> list[bool]:
        """The TrainJob, its JobSet, and the Jobs of that."""
        return [self.objects[p]["spec"]["suspend"] for p in (ROOT, JOBSET, *CHILDREN)]


def cluster(**more: Any) -> WithTrainer:
    """With a signed job of two roles."""
    found = WithTrainer(settings=ON, **more)
    found.submit(two_roles)
    return found


def test_a_seal_is_bound_to_all_that_the_pods_come_from_before_they_are_let_go() -> None:
    found = cluster()
    found.settle()
    assert found.status["phase"] == "Sealed"
    assert "binding" not in found.seal.get("status", {})
    assert found.root["spec"]["suspend"] is True
    found.look()
    objects = found.seal["status"]["binding"]["objects"]
    assert [(o["role"], o["kind"], o["name"]) for o in objects] == [
        ("", "TrainJob", "char-lm"),
        ("", "TrainingRuntime", "trainseal-char-lm"),
        ("", "JobSet", "char-lm"),
        ("worker", "Job", "char-lm-worker-0"),
        ("server", "Job", "char-lm-server-0"),
    ]
    assert found.suspended() == [False] * 4


def test_a_run_of_as_many_roles_as_there_may_be_is_bound() -> None:
    def eight_roles(job: Object) -> None:
        two_roles(job)
        (_, server) = job["spec"]["roles"]
        job["spec"]["roles"] += [{**server, "name": f"more-{n}"} for n in range(6)]

    found = WithTrainer(settings=ON)
    found.submit(eight_roles)
    found.look()
    assert found.condition("Sealed")["status"] == "True"
    assert len(found.seal["status"]["binding"]["objects"]) == 8 + 3


def test_the_webhook_knows_the_pods_by_the_jobs_and_what_these_were_made_from() -> None:
    found = cluster()
    found.look()
    roles = bound(found)
    assert [r.object_uid for r in roles] == [
        found.objects[path]["metadata"]["uid"] for path in CHILDREN
    ]
    for role in roles:
        assert role.root is not None
        assert role.root.uid == found.root["metadata"]["uid"]
        assert [item.kind for item in role.above] == ["TrainingRuntime", "JobSet"]


@pytest.mark.parametrize(
    ("away", "waits_for"),
    [
        ("trainer_away", "JobSet char-lm, which the controller of TrainJob makes"),
        ("jobset_away", "Job char-lm-worker-0, which the controller of JobSet makes"),
    ],
)
def test_while_a_controller_is_away_a_run_waits_and_says_for_which(
    away: str, waits_for: str
) -> None:
    found = cluster(**{away: True})
    found.look()
    assert f"waiting for {waits_for}" in found.status["message"]
    assert found.condition("Sealed")["reason"] == "NotMadeYet"
    setattr(found, away, False)
    found.look()
    assert found.condition("Sealed")["status"] == "True"


def test_a_trainjob_is_made_again_once_the_trainer_has_heard_of_its_runtime() -> None:
    found = cluster(unheard=2)
    found.settle()
    assert "must be created before the TrainJob" in found.status["message"]
    found.look()
    assert found.suspended() == [False] * 4


@pytest.mark.parametrize("kind", ["TrainingRuntime", "JobSet"])
def test_a_cluster_without_one_of_the_kinds_refuses_in_words(kind: str) -> None:
    found = cluster(missing=kind)
    found.settle()
    assert found.status["phase"] == "Refused"
    assert f"found no kind {kind} (" in found.status["message"]


def test_an_engine_that_is_not_enabled_is_refused_in_words() -> None:
    found = WithTrainer(settings={"engines": {"jobSet": ENABLED}})
    found.submit(two_roles)
    found.settle()
    assert found.status["phase"] == "Refused"
    assert "found the engines Job, JobSet enabled" in found.status["message"]
    assert ROOT not in found.objects
    assert RUNTIME not in found.objects


def of_another_owner(jobset: Object) -> None:
    jobset["metadata"]["ownerReferences"][0]["uid"] = "of-another-trainjob"


def test_a_jobset_of_anothers_under_the_runs_name_is_not_bound() -> None:
    found = cluster(trainer_away=True)
    found.settle()
    forged = made_by_trainer(found.root, found.objects[RUNTIME])
    of_another_owner(forged)
    found.objects[JOBSET] = forged
    found.settle()
    assert found.condition("Sealed")["reason"] == "NameTaken"


def with_restarts(jobset: Object) -> None:
    jobset["spec"]["failurePolicy"] = {"maxRestarts": 9}


def without_our_label(jobset: Object) -> None:
    del jobset["metadata"]["labels"]["trainseal.dev/seal"]


def with_another_command(jobset: Object) -> None:
    pod = jobset["spec"]["replicatedJobs"][1]["template"]["spec"]["template"]["spec"]
    pod["containers"][0]["command"] = ["sh", "/tmp/x"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (with_restarts, "spec.failurePolicy"),
        (without_our_label, "label trainseal.dev/seal"),
        (with_another_command, "template of the pods of role server"),
    ],
)
def test_a_jobset_that_is_another_than_was_rendered_is_not_bound(change: Any, said: str) -> None:
    found = cluster(trainer_away=True)
    found.settle()
    forged = made_by_trainer(found.root, found.objects[RUNTIME])
    change(forged)
    found.objects[JOBSET] = forged
    found.look()
    assert found.status["phase"] == "Failed"
    assert said in found.status["message"]
    assert "binding" not in found.seal.get("status", {})
    assert found.root["spec"]["suspend"] is True


def test_a_jobset_as_it_was_rendered_is_bound_whoever_wrote_it_down_first() -> None:
    """The benign twin: by its owner it goes with the run, and what it says was signed."""
    found = cluster(trainer_away=True)
    found.settle()
    found.objects[JOBSET] = made_by_trainer(found.root, found.objects[RUNTIME])
    found.objects[JOBSET]["metadata"]["uid"] = "jobset"
    found.look()
    assert found.condition("Sealed")["status"] == "True"


def test_ports_without_names_which_the_trainer_mixes_up_are_not_bound() -> None:
    def two_ports(job: Object) -> None:
        two_roles(job)
        container = job["spec"]["roles"][0]["template"]["spec"]["containers"][0]
        container["ports"] = [{"containerPort": 1}, {"containerPort": 2}]

    found = WithTrainer(settings=ON)
    found.submit(two_ports)
    found.look()
    assert found.status["phase"] == "Failed"
    assert "template of the pods of role worker" in found.status["message"]


def test_a_runtime_that_was_changed_before_binding_ends_the_run() -> None:
    found = cluster(trainer_away=True)
    found.settle()
    found.objects[RUNTIME]["spec"]["mlPolicy"] = {"numNodes": 9}
    found.look()
    assert found.status["phase"] == "Failed"
    assert "TrainingRuntime trainseal-char-lm was changed" in found.status["message"]


def test_whoever_suspends_it_suspends_all_of_it_while_the_controllers_are_away() -> None:
    found = cluster()
    found.look()
    found.trainer_away = found.jobset_away = True
    found.edit(suspend=True)
    found.look()
    assert found.suspended() == [True] * 4
    found.trainer_away = found.jobset_away = False
    found.edit(suspend=False)
    found.look()
    assert found.suspended() == [False] * 4


def test_a_queue_gets_the_trainjob() -> None:
    found = cluster()
    found.edit(scheduling={"queueName": "gpus"})
    found.look()
    assert found.root["metadata"]["labels"][LABEL_QUEUE] == "gpus"
    assert all(LABEL_QUEUE not in found.objects[p]["metadata"]["labels"] for p in (JOBSET, RUNTIME))
    assert found.suspended() == [True] * 4


def test_placement_is_changed_in_the_runtime_and_in_all_that_is_made_of_it() -> None:
    """Else the trainer would write the old one over the new."""
    found = cluster()
    found.edit(suspend=True)
    found.look()
    found.edit(scheduling={"nodeSelector": {"pool": "b"}})
    found.look()
    found.edit(suspend=False)
    found.look()
    parts = [
        *found.objects[RUNTIME]["spec"]["template"]["spec"]["replicatedJobs"],
        *found.objects[JOBSET]["spec"]["replicatedJobs"],
    ]
    specs = [p["template"]["spec"]["template"]["spec"] for p in parts]
    specs += [found.objects[path]["spec"]["template"]["spec"] for path in CHILDREN]
    assert [spec["nodeSelector"] for spec in specs] == [{"pool": "b"}] * 6
    assert found.condition("Placed")["status"] == "True"
    assert findings(found) == []


def ended(found: WithTrainer, type_: str, message: str = "") -> None:
    condition = {"type": type_, "status": "True", "message": message}
    found.objects[JOBSET]["status"] = {"conditions": [condition]}


@pytest.mark.parametrize("away", [False, True])
def test_a_run_ends_as_its_jobset_does_also_while_the_trainer_is_away(away: bool) -> None:
    found = cluster()
    found.look()
    found.trainer_away = away
    ended(found, "Completed")
    found.look()
    assert found.status["phase"] == "Succeeded"


def test_jobs_that_are_taken_away_after_a_failure_are_no_loss_before_the_trainer_has_told_it() -> (
    None
):
    found = cluster()
    found.look()
    found.trainer_away = found.jobset_away = True
    ended(found, "Failed", "jobset failed (first failed job: char-lm-worker-0)")
    del found.objects[CHILDREN[1]]
    found.settle()
    assert found.status["phase"] == "Failed"
    assert "first failed job" in found.status["message"]
    assert findings(found) == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (ROOT, "TrainJob char-lm"),
        (RUNTIME, "TrainingRuntime trainseal-char-lm"),
        (JOBSET, "JobSet char-lm"),
        (CHILDREN[1], "Job char-lm-server-0"),
    ],
)
def test_what_somebody_deletes_ends_the_run_stops_the_rest_and_is_found(
    path: str, name: str
) -> None:
    found = cluster()
    found.look()
    found.trainer_away = found.jobset_away = True
    del found.objects[path]
    assert findings(found) == [f"object.deleted {name}"]
    found.settle()
    assert found.status["phase"] == "Failed"
    assert f"{name} of this run was deleted" in found.status["message"]
    for rest in {ROOT, JOBSET, *CHILDREN} - {path}:
        assert found.objects[rest]["spec"]["suspend"] is True, rest


def test_a_jobset_that_is_made_anew_is_not_the_runs() -> None:
    found = cluster()
    found.look()
    for path in (JOBSET, *CHILDREN):
        del found.objects[path]
    found.trainer_works()
    found.jobset_works()
    found.look()
    assert found.status["phase"] == "Failed"
    assert "JobSet char-lm was deleted and made anew" in found.status["message"]
    assert found.suspended() == [True] * 4


def test_a_run_as_it_was_sealed_has_no_finding() -> None:
    found = cluster()
    found.look()
    assert findings(found) == []


def overridden(found: WithTrainer) -> str:
    found.root["spec"]["podSpecOverrides"] = [{"targetJobs": [], "serviceAccountName": "admin"}]
    return "TrainJob char-lm"


def of_more_nodes(found: WithTrainer) -> str:
    found.objects[RUNTIME]["spec"]["mlPolicy"] = {"numNodes": 9}
    return "TrainingRuntime trainseal-char-lm"


def of_more_jobs(found: WithTrainer) -> str:
    found.objects[JOBSET]["spec"]["replicatedJobs"][0]["replicas"] = 2
    return "JobSet char-lm"


def of_another_jobset(found: WithTrainer) -> str:
    labels = found.objects[CHILDREN[1]]["spec"]["template"]["metadata"]["labels"]
    labels["jobset.sigs.k8s.io/jobset-uid"] = found.root["metadata"]["uid"]
    return "Job char-lm-server-0"


@pytest.mark.parametrize("change", [overridden, of_more_nodes, of_more_jobs, of_another_jobset])
def test_what_is_changed_of_a_run_is_found(change: Any) -> None:
    found = cluster()
    found.look()
    name = change(found)
    assert findings(found) == [f"object.changed {name}"]


def test_all_that_a_run_is_made_of_is_watched_and_listed() -> None:
    kinds = {plural for _, _, plural in roots(("Job", "JobSet", "TrainJob"))}
    assert kinds == {"trainjobs", "trainingruntimes", "jobsets"}
    found = cluster()
    found.look()
    kube: Any = found
    standing = world.run(
        RunVersions(kube, lambda: 0.0, ("Job", "JobSet", "TrainJob")).of("research", "char-lm")
    )
    assert parts_of(SealedRun.parse(found.seal)) <= standing.parts
