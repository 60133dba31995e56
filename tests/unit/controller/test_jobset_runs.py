"""Runs by JobSet: bound to the JobSet and to the Jobs that its controller makes of it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest

from tests.unit import world
from tests.unit.controller.cluster import EVENTS, JOB, Cluster
from tests.unit.controller.lookedat import bound, findings, index_of, key_of
from tests.unit.engines.jobsets import made_by_jobset, two_roles
from trainseal.cluster.api import KubeError, NotFoundError
from trainseal.controller.runversions import RunVersions
from trainseal.engines.engine import LABEL_QUEUE
from trainseal.provenance.selectors import equal_to

Object = dict[str, Any]
ROOT = "/apis/jobset.x-k8s.io/v1alpha2/namespaces/research/jobsets/char-lm"
JOBS = "/apis/batch/v1/namespaces/research/jobs"
CHILDREN = (f"{JOBS}/char-lm-worker-0", f"{JOBS}/char-lm-server-0")
ON: Object = {"engines": {"jobSet": {"enabled": True, "controller": "jobset"}}}


@dataclass
class WithJobSet(Cluster):
    """The same with JobSet's controller, which may be away."""

    away: bool = False
    #: Its kind is not there.
    missing: bool = False
    made: int = 0

    async def create(
        self, path: str, obj: Object, *, dry_run: bool = False, strict: bool = False
    ) -> Object:
        if obj["kind"] == "JobSet" and self.missing:
            raise NotFoundError(404, "NotFound", "the server could not find the requested resource")
        return await super().create(path, obj, dry_run=dry_run, strict=strict)

    def jobset_works(self) -> None:
        """Makes what is missing, and suspends and resumes as its JobSet is."""
        root = self.objects[ROOT]
        for number, path in enumerate(CHILDREN):
            if path not in self.objects:
                made = made_by_jobset(root, number)
                self.made += 1
                self.objects[path] = world.stored_job(made, f"child-{self.made}")
            self.objects[path]["spec"]["suspend"] = root["spec"]["suspend"]

    def look(self) -> None:
        """The controller looks until it rests, JobSet's after it."""
        for _ in range(3):
            self.settle()
            if not self.away and ROOT in self.objects:
                self.jobset_works()
        self.settle()

    @property
    def root(self) -> Object:
        return self.objects[ROOT]

    def suspended(self) -> list[bool]:
        """The JobSet, and its Jobs."""
        return [self.objects[p]["spec"]["suspend"] for p in (ROOT, *CHILDREN)]


def cluster(**more: Any) -> WithJobSet:
    """With a signed job of two roles."""
    found = WithJobSet(settings=ON, **more)
    found.submit(two_roles)
    return found


def test_a_seal_is_bound_to_the_jobset_and_its_jobs_before_they_are_let_go() -> None:
    found = cluster()
    found.settle()
    assert found.status["phase"] == "Sealed"
    assert "binding" not in found.seal.get("status", {})
    assert found.root["spec"]["suspend"] is True
    found.look()
    objects = found.seal["status"]["binding"]["objects"]
    assert [(o["role"], o["kind"], o["name"]) for o in objects] == [
        ("", "JobSet", "char-lm"),
        ("worker", "Job", "char-lm-worker-0"),
        ("server", "Job", "char-lm-server-0"),
    ]
    assert found.suspended() == [False, False, False]


def test_the_webhook_knows_the_pods_by_the_jobs() -> None:
    found = cluster()
    found.look()
    roles = bound(found)
    assert [r.object_uid for r in roles] == [
        found.objects[path]["metadata"]["uid"] for path in CHILDREN
    ]
    assert {r.root.uid for r in roles if r.root} == {found.root["metadata"]["uid"]}


def test_while_its_controller_is_away_a_run_waits_and_says_for_what() -> None:
    found = cluster(away=True)
    found.look()
    assert "waiting for Job char-lm-worker-0" in found.status["message"]
    assert found.condition("Sealed")["reason"] == "NotMadeYet"
    assert {"run", "requester", "signers", "artifacts"} <= found.status.keys()
    told = [str(obj["message"]) for path, obj in found.objects.items() if path.startswith(EVENTS)]
    assert any("SealedRun" in message for message in told)
    assert not [message for message in told if "None" in message or "nobody" in message]
    found.away = False
    found.look()
    assert found.condition("Sealed")["status"] == "True"


def test_a_job_of_anothers_under_the_name_of_one_of_its_jobs_is_not_bound() -> None:
    found = cluster(away=True)
    found.settle()
    root = copy.deepcopy(found.root)
    root["metadata"]["uid"] = "of-another-jobset"
    found.objects[CHILDREN[0]] = world.stored_job(made_by_jobset(root, 0), "mallorys")
    found.settle()
    assert found.condition("Sealed")["reason"] == "NameTaken"


def more_pods(job: Object) -> None:
    job["spec"]["parallelism"] = 64


def other_pods(job: Object) -> None:
    job["spec"]["template"]["spec"]["containers"][0]["command"] = ["sh", "/tmp/x"]


@pytest.mark.parametrize("change", [more_pods, other_pods])
def test_a_job_with_a_copied_owner_and_other_content_ends_the_run(change: Any) -> None:
    found = cluster(away=True)
    found.settle()
    forged = world.stored_job(made_by_jobset(found.root, 0), "mallorys")
    change(forged)
    found.objects[CHILDREN[0]] = forged
    found.jobset_works()
    found.settle()
    assert found.status["phase"] == "Failed"
    assert "changed before it was bound" in found.status["message"]
    assert found.root["spec"]["suspend"] is True


def test_a_jobset_that_was_changed_before_binding_ends_the_run() -> None:
    found = cluster(away=True)
    found.settle()
    found.root["spec"]["failurePolicy"] = {"maxRestarts": 9}
    found.look()
    assert found.status["phase"] == "Failed"
    assert "spec.failurePolicy" in found.status["message"]


def test_whoever_suspends_it_suspends_its_jobs_while_its_controller_is_away() -> None:
    found = cluster()
    found.look()
    found.away = True
    found.edit(suspend=True)
    found.look()
    assert found.suspended() == [True, True, True]
    found.away = False
    found.edit(suspend=False)
    found.look()
    assert found.suspended() == [False, False, False]


def test_with_a_queue_the_jobset_bears_its_label_and_is_not_resumed() -> None:
    found = cluster()
    found.edit(scheduling={"queueName": "gpus"})
    found.look()
    assert found.root["metadata"]["labels"][LABEL_QUEUE] == "gpus"
    assert all(LABEL_QUEUE not in found.objects[p]["metadata"]["labels"] for p in CHILDREN)
    assert found.suspended() == [True, True, True]


def test_placement_is_changed_in_the_jobset_and_in_its_jobs() -> None:
    found = cluster()
    found.edit(suspend=True)
    found.look()
    found.edit(scheduling={"nodeSelector": {"pool": "b"}})
    found.look()
    specs = [
        p["template"]["spec"]["template"]["spec"] for p in found.root["spec"]["replicatedJobs"]
    ]
    specs += [found.objects[path]["spec"]["template"]["spec"] for path in CHILDREN]
    assert [spec["nodeSelector"] for spec in specs] == [{"pool": "b"}] * 4
    assert found.condition("Placed")["status"] == "True"


def test_affinity_waits_for_the_next_run_as_no_jobset_lets_it_change() -> None:
    found = cluster()
    found.edit(suspend=True)
    found.look()
    nodes: Object = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}
    found.edit(scheduling={"affinity": {"nodeAffinity": nodes}})
    found.look()
    assert found.condition("Placed")["reason"] == "NextRun"


def ended(found: WithJobSet, type_: str, message: str = "") -> None:
    found.root["status"] = {"conditions": [{"type": type_, "status": "True", "message": message}]}


def test_a_run_ends_as_its_jobset_does() -> None:
    found = cluster()
    found.look()
    ended(found, "Completed")
    found.settle()
    assert found.status["phase"] == "Succeeded"


def test_jobs_that_its_controller_takes_away_after_a_failure_are_no_loss() -> None:
    found = cluster()
    found.look()
    ended(found, "Failed", "jobset failed (first failed job: char-lm-worker-0)")
    del found.objects[CHILDREN[1]]
    found.settle()
    assert found.status["phase"] == "Failed"
    assert "first failed job" in found.status["message"]


def test_a_job_that_somebody_deleted_ends_the_run_and_stops_the_rest() -> None:
    found = cluster()
    found.look()
    del found.objects[CHILDREN[1]]
    found.jobset_works()
    found.settle()
    assert found.status["phase"] == "Failed"
    assert "char-lm-server-0 was deleted and made anew" in found.status["message"]
    assert found.root["spec"]["suspend"] is True


def test_a_jobset_that_somebody_deleted_ends_the_run_and_stops_its_jobs() -> None:
    found = cluster()
    found.look()
    del found.objects[ROOT]
    found.settle()
    assert "JobSet char-lm of this run was deleted" in found.status["message"]
    assert [found.objects[p]["spec"]["suspend"] for p in CHILDREN] == [True, True]


def test_a_cluster_without_the_kind_refuses_in_words() -> None:
    found = cluster(missing=True)
    found.settle()
    assert found.status["phase"] == "Refused"
    assert "found no kind JobSet (jobset.x-k8s.io/v1alpha2)" in found.status["message"]


def test_an_engine_that_is_not_enabled_is_refused_in_words() -> None:
    found = WithJobSet()
    found.submit(two_roles)
    found.settle()
    assert found.status["phase"] == "Refused"
    assert "found the engines Job enabled" in found.status["message"]
    assert ROOT not in found.objects


def test_runs_of_the_built_in_engine_are_listed_while_the_kind_is_missing() -> None:
    class Without(WithJobSet):
        async def metadata(self, path: str, query: Object) -> Any:
            if path.endswith("/jobsets"):
                raise NotFoundError(404, "NotFound", "the server could not find it")
            async for item in super().metadata(path, query):
                yield item

    found: Any = Without()
    found.submit()
    versions = RunVersions(found, lambda: 0.0, ("Job", "JobSet"))
    assert world.run(versions.of("research", "char-lm")) is not None


def test_what_jobsets_webhook_refuses_is_told() -> None:
    found = cluster()
    found.refuses[f"TRY {ROOT}"] = KubeError(422, "Invalid", "JobSet name is too long")
    found.settle()
    assert found.status["phase"] == "Refused"
    assert "JobSet name is too long" in found.status["message"]
    assert found.objects[JOB]["status"]["phase"] == "Refused"


def test_a_run_as_it_was_sealed_has_no_finding() -> None:
    found = cluster()
    found.look()
    assert findings(found) == []


def test_a_changed_jobset_is_found() -> None:
    found = cluster()
    found.look()
    found.root["spec"]["ttlSecondsAfterFinished"] = 1
    assert findings(found) == ["object.changed JobSet char-lm"]


def test_a_changed_job_of_it_is_found() -> None:
    found = cluster()
    found.look()
    labels = found.objects[CHILDREN[1]]["spec"]["template"]["metadata"]["labels"]
    labels["jobset.sigs.k8s.io/jobset-uid"] = "another"
    assert findings(found) == ["object.changed Job char-lm-server-0"]


def test_a_deleted_jobset_is_found() -> None:
    found = cluster()
    found.look()
    del found.objects[ROOT]
    assert findings(found) == ["object.deleted JobSet char-lm"]


def test_a_deleted_job_of_it_is_found_unless_its_jobset_has_ended() -> None:
    found = cluster()
    found.look()
    del found.objects[CHILDREN[1]]
    assert findings(found) == ["object.deleted Job char-lm-server-0"]
    ended(found, "Failed")
    assert findings(found) == []


@pytest.mark.parametrize(
    ("labels", "reached"),
    [
        ({"jobset.sigs.k8s.io/jobset-name": "char-lm"}, True),
        ({"jobset.sigs.k8s.io/priority": "0"}, True),
        ({"jobset.sigs.k8s.io/jobset-name": "another"}, False),
    ],
)
def test_a_run_is_reached_by_labels_that_jobset_gives_its_pods(
    labels: Object, reached: bool
) -> None:
    """Else another's NetworkPolicy could let somebody in by them."""
    found = cluster()
    found.look()
    _, name = key_of(found)
    assert index_of(found).reached_by("research", equal_to(labels)) == [name] * reached
