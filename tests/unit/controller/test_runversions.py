"""A run is not read again while nothing of it has changed; whatever changes, it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.unit import world
from tests.unit.controller.cluster import ENGINE, JOB, KEY, Cluster, Own
from trainseal.api.sealedrun import SealedRun
from trainseal.cluster.api import KubeError
from trainseal.controller.comparing import Comparing
from trainseal.controller.disturbances import Record
from trainseal.controller.runs import LIVE_AGAIN, Runs
from trainseal.controller.runversions import FRESH_SECONDS, parts_of

Object = dict[str, Any]
LABEL = "trainseal.dev/job"
SERVICE = "/api/v1/namespaces/research/services/char-lm"
CLAIM = "/api/v1/namespaces/research/persistentvolumeclaims/ckpt"


def running() -> Cluster:
    """A run whose workers are all at work."""
    cluster = Cluster()
    cluster.submit()
    cluster.settle()
    cluster.works()
    cluster.settle()
    assert cluster.status["phase"] == "Running"
    cluster.objects[CLAIM] = {
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "ckpt", "creationTimestamp": "2026-11-20T12:00:00Z"},
    }
    return cluster


def place_of(cluster: Cluster, plural: str) -> str:
    (found,) = [path for path in cluster.objects if path.split("/")[-2] == plural]
    return found


def relabelled(cluster: Cluster, plural: str) -> None:
    del cluster.objects[place_of(cluster, plural)]["metadata"]["labels"][LABEL]


def edited(cluster: Cluster, plural: str) -> None:
    cluster.objects[place_of(cluster, plural)]["metadata"]["annotations"] = {"by": "eve"}


def made_anew(cluster: Cluster, plural: str) -> None:
    cluster.objects[place_of(cluster, plural)]["metadata"]["uid"] = "uid-of-another"


def deleted(cluster: Cluster, plural: str) -> None:
    del cluster.objects[place_of(cluster, plural)]


def added(cluster: Cluster, plural: str) -> None:
    path = place_of(cluster, plural)
    obj = cluster.objects[path]
    cluster.objects[f"{path}-2"] = {**obj, "metadata": {**obj["metadata"], "name": "another"}}


CHANGES = [
    (change, plural)
    for plural in ("jobs", "configmaps", "services", "networkpolicies")
    for change in (relabelled, edited, made_anew, deleted, added)
]
CHANGED = pytest.mark.parametrize(
    ("change", "plural"), CHANGES, ids=[f"{c.__name__}-{p}" for c, p in CHANGES]
)
Change = Callable[[Cluster, str], None]


class Look:
    """A controller that goes on, and how often it reads the run."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.versions = cluster.versions()

    def at(self, seconds: float) -> int:
        """Looks then; how many objects it read."""
        self.cluster.seconds = seconds
        before = len(self.cluster.reads)
        self.look()
        return len(self.cluster.reads) - before

    def look(self) -> None:
        raise NotImplementedError


class Reconciling(Look):
    """Of the TrainingJob."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self.runs = Runs(cluster.world(), self.versions)
        self.again: float | None = None

    def look(self) -> None:
        self.again = world.run(self.runs.reconcile(KEY))


class Passing(Look):
    """Full passes over the run's seal."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self.comparing = Comparing(cluster.world(), self.versions, lambda: cluster.seconds)
        self.own = Own()
        self.comparing._own = self.own  # type: ignore[assignment]
        self.key = ("research", cluster.seal["metadata"]["name"])

    def look(self) -> None:
        self.comparing._full.add(self.key)
        world.run(self.comparing.reconcile(self.key))


@pytest.fixture(params=[Reconciling, Passing])
def looking(request: pytest.FixtureRequest) -> Look:
    """One that has found the run in order."""
    found: Look = request.param(running())
    assert found.at(0) > 3
    found.at(FRESH_SECONDS + 1)  # the first look may have written to it
    return found


def test_a_run_of_which_nothing_has_changed_is_not_read_again(looking: Look) -> None:
    for minute in range(1, 5):
        # The seal and the claims of its pods are not among what is listed.
        assert looking.at(60.0 * minute) <= 2
    if isinstance(looking, Reconciling):
        assert looking.again is not None
        assert LIVE_AGAIN <= looking.again < 2 * LIVE_AGAIN


@CHANGED
def test_a_run_of_which_anything_has_changed_is_read(
    looking: Look, change: Change, plural: str
) -> None:
    change(looking.cluster, plural)
    assert looking.at(60) > 3


@pytest.mark.parametrize("plural", ["jobs", "configmaps", "services", "networkpolicies"])
def test_a_part_that_has_lost_its_label_is_looked_at_each_time(looking: Look, plural: str) -> None:
    relabelled(looking.cluster, plural)
    for minute in (1, 2, 3):
        assert looking.at(60.0 * minute) > 3


def test_what_is_heard_is_looked_at_though_the_list_is_older(looking: Look) -> None:
    looking.at(60)
    looking.cluster.objects[SERVICE]["spec"]["selector"] = {"app": "mallory"}
    if isinstance(looking, Reconciling):
        looking.runs.heard(KEY)
    elif isinstance(looking, Passing):
        looking.comparing._jobs[KEY].add(looking.key)
        world.run(_heard(looking.comparing))
    assert looking.at(61) > 3


ALL_IT_LEANS_ON = {"configmaps", "services", "networkpolicies"}


def leant_on(found: Reconciling, seconds: float, *, changed: bool) -> set[str]:
    """What of that is read by the look that follows what was heard."""
    found.cluster.reads.clear()
    found.runs.heard(KEY, changed=changed)
    found.at(seconds)
    assert ENGINE in found.cluster.reads
    return {path.split("/")[-2] for path in found.cluster.reads} & ALL_IT_LEANS_ON


def test_what_a_run_leans_on_is_not_read_again_because_its_pods_come_and_go() -> None:
    found = Reconciling(running())
    found.at(0)
    for second in (1, 2):
        assert leant_on(found, second, changed=False) == set()


def test_it_is_read_once_somebody_has_changed_something_also_during_a_look() -> None:
    found = Reconciling(running())
    found.at(0)
    assert leant_on(found, 1, changed=True) == ALL_IT_LEANS_ON
    real = found.cluster.get

    async def get(path: str) -> Object:
        if path == ENGINE:
            found.runs.heard(KEY)
        return await real(path)

    found.cluster.get = get  # type: ignore[method-assign]
    leant_on(found, 2, changed=False)
    found.cluster.get = real  # type: ignore[method-assign]
    assert leant_on(found, 3, changed=False) == ALL_IT_LEANS_ON


def test_it_is_read_each_time_while_it_is_not_what_was_sealed() -> None:
    found = Reconciling(running())
    found.cluster.objects[SERVICE]["spec"]["selector"] = {"app": "mallory"}
    found.at(0)
    assert leant_on(found, 1, changed=False) == ALL_IT_LEANS_ON


def test_a_look_that_left_it_out_counts_for_no_later_one() -> None:
    """A change may have been listed before it is heard of."""
    found = Reconciling(running())
    found.at(0)
    found.cluster.objects[SERVICE]["spec"]["selector"] = {"app": "mallory"}
    found.cluster.objects[SERVICE]["metadata"]["resourceVersion"] = "9999"
    assert leant_on(found, FRESH_SECONDS + 1, changed=False) == set()
    found.cluster.reads.clear()
    found.at(100)
    assert SERVICE in found.cluster.reads


async def _heard(comparing: Comparing) -> None:
    comparing.job_changed(*KEY)


def test_a_change_during_a_look_is_seen_by_the_next() -> None:
    cluster = running()
    found = Passing(cluster)
    found.at(0)
    real = cluster.get

    async def get(path: str) -> Object:
        answer = await real(path)
        if path == ENGINE:  # read before it was changed
            cluster.objects[ENGINE]["metadata"]["annotations"] = {"by": "eve"}
        return answer

    cluster.get = get  # type: ignore[method-assign]
    found.comparing._heard.add(found.key)
    found.at(60)
    cluster.get = real  # type: ignore[method-assign]
    assert found.at(120) > 3


def test_a_claim_that_was_replaced_is_found_though_the_run_is_as_it_was() -> None:
    found = Passing(running())
    found.at(0)
    found.at(60)
    found.cluster.objects[CLAIM]["metadata"]["creationTimestamp"] = "2026-11-24T12:00:00Z"
    found.at(120)
    assert [seen.id.value for seen in found.own.seen] == ["volume.replaced"]


def test_who_had_a_pod_deleted_is_found_though_the_run_is_as_it_was() -> None:
    found = Passing(running())
    found.at(0)
    found.at(60)
    record = Record("r", "p", "u", "n", "Delete", "eve@example.org", world.NOW)

    async def records(*_: object) -> list[Record]:
        return [record]

    found.comparing._records = records  # type: ignore[assignment,method-assign]
    found.at(120)
    assert [seen.id.value for seen in found.own.seen] == ["pod.deleted"]


def test_a_run_that_is_held_is_read_each_time() -> None:
    found = Reconciling(running())
    found.at(0)
    found.cluster.seal["status"]["hold"] = {
        "id": "0" * 16,
        "response": "Quarantine",
        "since": "2026-11-23T12:00:00Z",
        "findings": ["0" * 16],
        "reason": "pod.foreign",
        "severity": "Critical",
        "message": "held",
    }
    for minute in (1, 2, 3):
        assert found.at(60.0 * minute) > 3


def test_where_nothing_can_be_listed_every_run_is_read() -> None:
    found = Reconciling(running())

    async def refused(path: str, query: Object) -> AsyncIterator[Object]:
        if "labelSelector" in query or path:
            raise KubeError(403, "Forbidden", path)
        yield {}

    found.cluster.metadata = refused  # type: ignore[method-assign]
    for minute in range(3):
        assert found.at(60.0 * minute) > 3


def test_the_parts_of_a_run_are_all_that_bears_its_label() -> None:
    cluster = running()
    labelled = {
        (path.split("/")[-2], path.split("/")[-1])
        for path, obj in cluster.objects.items()
        if LABEL in obj["metadata"].get("labels", {}) or path == JOB
    }
    assert parts_of(SealedRun.parse(cluster.seal)) == labelled
