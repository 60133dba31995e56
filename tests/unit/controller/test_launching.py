"""Runs that are made from a template: sealed as what they are, so many at a time, let go again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit import world
from tests.unit.controller.cluster import OURS, Cluster, Own
from trainseal.api.sealedrun import SealedRun
from trainseal.controller.comparing import Comparing
from trainseal.controller.launchbook import LaunchBook, shape
from trainseal.controller.ownreport import Seen
from trainseal.controller.runs import Runs
from trainseal.controller.runversions import parts_of
from trainseal.provenance.canonical import job_digest, template_digest

Object = dict[str, Any]
FIRST, SECOND = ("research", "sweep-x7k2f"), ("research", "sweep-b8m4q")


def template(**launch: Any) -> Object:
    found = world.template_object()
    found["spec"]["launch"] |= launch
    return world.sign_template(found, world.ALICE)


def look(cluster: Cluster, *keys: tuple[str, str], book: LaunchBook | None = None) -> None:
    """As often as is needed, by one controller, which has heard of all seals that there are."""
    book = book or LaunchBook()
    for seal in seals(cluster):
        book.listen("ADDED", ("research", seal["metadata"]["name"]), shape(seal))
    runs = Runs(cluster.world(), cluster.versions(), book)

    async def work() -> None:
        for _ in range(6):
            for key in keys:
                runs.heard(key)
                await runs.reconcile(key)

    world.run(work())


def job(cluster: Cluster, key: tuple[str, str] = FIRST) -> Object:
    return cluster.objects[f"{OURS}/trainingjobs/{key[1]}"]


def seals(cluster: Cluster) -> list[Object]:
    return [o for o in cluster.objects.values() if o["kind"] == "SealedRun"]


def test_a_run_is_sealed_with_its_template_its_parameters_and_the_job_that_was_made() -> None:
    cluster, made_of = Cluster(), template()
    cluster.launch(made_of, parameters={"learning_rate": 0.0005}, replicas={"worker": 3})
    look(cluster, FIRST)
    (seal,) = seals(cluster)
    spec, status = seal["spec"], job(cluster)["status"]
    launch = spec["launch"]
    assert (launch["template"], launch["digest"]) == ("pretrain-v7", template_digest(made_of))
    assert launch["asked"] == job_digest(job(cluster))
    assert launch["parameters"] == {"learning_rate": 0.0005}
    whole = {**job(cluster), "spec": launch["job"]}
    whole["metadata"] = {k: v for k, v in whole["metadata"].items() if k != "generateName"}
    assert spec["job"]["digest"] == job_digest(whole) == status["jobDigest"]
    assert spec["roles"][0]["replicas"] == 3
    assert (status["phase"], status["template"]) == ("Sealed", "pretrain-v7")
    assert status["signers"] == "Alice"
    engine = cluster.objects["/apis/batch/v1/namespaces/research/jobs/sweep-x7k2f-worker"]
    assert engine["spec"]["completions"] == 3
    assert not engine["spec"]["suspend"]
    config = cluster.objects[
        f"/api/v1/namespaces/research/configmaps/{seal['metadata']['name']}-config"
    ]
    assert '"learning_rate": 0.0005' in config["data"]["config.json"]


@pytest.mark.parametrize(("replicas", "has_one"), [(1, False), (2, True)])
def test_a_run_of_one_worker_has_no_service_and_lacks_none(replicas: int, has_one: bool) -> None:
    cluster = Cluster()
    cluster.launch(template(), replicas={"worker": replicas})
    look(cluster, FIRST)
    (seal,) = seals(cluster)
    assert (("services", "sweep-x7k2f") in parts_of(SealedRun.parse(seal))) == has_one
    service = cluster.objects.get("/api/v1/namespaces/research/services/sweep-x7k2f")
    assert (service is not None) == has_one
    env = seal["spec"]["roles"][0]["template"]["spec"]["containers"][0]["env"]
    (address,) = (e["value"] for e in env if e["name"] == "MASTER_ADDR")
    assert (address == "localhost") == (not has_one)
    reasons = {o.get("reason") for o in cluster.objects.values() if o["kind"] == "Event"}
    assert "ObjectChanged" not in reasons
    assert job(cluster)["status"]["phase"] == "Sealed"
    assert missed(cluster, seal) == []


def missed(cluster: Cluster, seal: Object) -> list[Seen]:
    """What a full pass over the run finds."""
    own = Own()
    comparing = Comparing(cluster.world(), cluster.versions(), lambda: cluster.seconds)
    comparing._own = own  # type: ignore[assignment]
    key = ("research", seal["metadata"]["name"])
    comparing._full.add(key)
    world.run(comparing.reconcile(key))
    return own.seen


def test_a_second_run_of_it_is_the_second() -> None:
    cluster, made_of = Cluster(), template()
    cluster.launch(made_of)
    cluster.launch(made_of, SECOND[1])
    look(cluster, FIRST, SECOND)
    assert sorted(s["spec"]["run"] for s in seals(cluster)) == [1, 2]


def test_runs_of_before_this_controller_count() -> None:
    cluster, made_of = Cluster(), template()
    cluster.launch(made_of)
    look(cluster, FIRST)
    cluster.launch(made_of, SECOND[1])
    look(cluster, SECOND)
    assert sorted(s["spec"]["run"] for s in seals(cluster)) == [1, 2]


def test_who_may_not_start_one_is_told_and_nothing_is_made() -> None:
    cluster = Cluster()
    cluster.launch(template(requesters=[{"user": "carol@example.org"}]))
    look(cluster, FIRST)
    assert job(cluster)["status"]["phase"] == "Refused"
    assert "carol@example.org" in job(cluster)["status"]["message"]
    assert seals(cluster) == []


def test_one_beyond_those_at_a_time_waits_and_starts_once_another_has_ended() -> None:
    cluster, made_of = Cluster(), template(maxConcurrent=1)
    told: list[tuple[str, str]] = []
    book = LaunchBook(told.append)
    cluster.launch(made_of)
    cluster.launch(made_of, SECOND[1])
    look(cluster, FIRST, SECOND, book=book)
    (seal,) = seals(cluster)
    waiting = job(cluster, SECOND)["status"]
    assert waiting["phase"] == "Pending"
    assert waiting["message"].startswith("waiting: 1 runs of template pretrain-v7 are on")
    seal["status"]["phase"] = "Succeeded"
    book.listen("MODIFIED", ("research", seal["metadata"]["name"]), shape(seal))
    assert told == [SECOND]
    look(cluster, SECOND, book=book)
    assert job(cluster, SECOND)["status"]["phase"] == "Sealed"


def test_a_run_goes_on_whatever_becomes_of_its_template_and_does_not_go_on_again_without_it() -> (
    None
):
    cluster = Cluster()
    cluster.launch(template())
    look(cluster, FIRST)
    del cluster.objects[f"{OURS}/trainingtemplates/pretrain-v7"]
    look(cluster, FIRST)
    assert job(cluster)["status"]["phase"] == "Sealed"
    for suspend in (True, False):
        job(cluster)["spec"]["suspend"] = suspend
        look(cluster, FIRST)
    status = job(cluster)["status"]
    assert status["phase"] == "Suspended"
    assert "no template of this name" in status["message"]


def test_a_revoked_template_keeps_a_suspended_run_from_going_on() -> None:
    cluster, made_of = Cluster(), template()
    cluster.launch(made_of)
    look(cluster, FIRST)
    job(cluster)["spec"]["suspend"] = True
    look(cluster, FIRST)
    made_of["spec"]["revoked"] = {"reason": "diverges"}
    job(cluster)["spec"]["suspend"] = False
    look(cluster, FIRST)
    assert "it is revoked: diverges" in job(cluster)["status"]["message"]


def test_of_two_at_once_no_more_are_made_than_its_signers_allow() -> None:
    """Both are verified before either has a seal: each counts once more when its turn comes."""
    made_of = world.template_object()
    made_of["spec"]["job"]["validity"] = {"maxRuns": 1}
    world.sign_template(made_of, world.ALICE)
    cluster = Cluster()
    cluster.launch(made_of)
    cluster.launch(made_of, SECOND[1])
    runs = Runs(cluster.world(), cluster.versions())

    async def both() -> None:
        await asyncio.gather(*(runs.reconcile(key) for key in (FIRST, SECOND)))

    world.run(both())
    look(cluster, FIRST, SECOND)
    assert len(seals(cluster)) == 1
    assert sorted(job(cluster, key)["status"]["phase"] for key in (FIRST, SECOND)) == [
        "Refused",
        "Sealed",
    ]


def test_two_at_once_are_not_the_same_run() -> None:
    cluster, made_of = Cluster(), template()
    cluster.launch(made_of)
    cluster.launch(made_of, SECOND[1])
    runs = Runs(cluster.world(), cluster.versions())

    async def both() -> None:
        await asyncio.gather(*(runs.reconcile(key) for key in (FIRST, SECOND)))

    world.run(both())
    assert sorted(s["spec"]["run"] for s in seals(cluster)) == [1, 2]
