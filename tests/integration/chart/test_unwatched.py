"""An editor's ways to have a run go on after its watch has ended, or past what holds it.

As in test_drift, of which the stage is: real admission by RBAC, no webhook, nothing runs the pods.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.cluster import CommandError
from tests.integration.chart import test_drift
from tests.integration.chart.conftest import Object
from tests.integration.chart.test_drift import (
    EDITOR,
    Go,
    Stage,
    has,
    stage,  # noqa: F401 - a fixture
    team,  # noqa: F401 - a fixture
    until,
)
from tests.unit import world
from trainseal.api.model import API_VERSION
from trainseal.cluster.api import path_of
from trainseal.controller.world import World
from trainseal.provenance.canonical import job_digest
from trainseal.provenance.tickets import TICKET_ANNOTATION, Ticket, issue_ticket

TEAM = "unwatched"
FINALIZER = '{"metadata":{"finalizers":["example.org/wait"]}}'


@pytest.fixture(scope="module", autouse=True)
def _elsewhere() -> Iterator[None]:
    """The stage in a namespace of its own: nobody here takes away one that was deleted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_drift, "TEAM", TEAM)
        yield


def as_editor(s: Stage, *args: str) -> str:
    """kubectl in the team's namespace; CommandError where it is refused."""
    return s.server.kubectl(*args, "-n", TEAM, EDITOR)


async def submit_with_evaluator(s: Stage) -> None:
    """A job of two roles, in the place of the stage's own."""
    s.name += "-two"
    job = world.job_object()
    job["metadata"] = {"name": s.name, "namespace": TEAM}
    (worker,) = job["spec"]["roles"]
    job["spec"]["roles"] = [worker, {**worker, "name": "evaluator", "replicas": 1}]
    world.sign_job(job, world.ALICE)
    ticket = Ticket("bob@example.org", "uid-bob", job_digest(job), s.clock())
    job["metadata"]["annotations"] = {TICKET_ANNOTATION: issue_ticket(world.TICKET_KEY, ticket)}
    await s.kube.create(path_of(API_VERSION, "trainingjobs", TEAM), job, strict=True)


async def ended(s: Stage, phase: str) -> None:
    async def there() -> bool:
        return bool((await s.status()).get("phase") == phase)

    await until(there)


def test_a_job_that_a_finalizer_keeps_from_going_is_held_all_the_same(stage: Go) -> None:  # noqa: F811
    async def play(s: Stage) -> None:
        async with s.controlled():
            await s.runs()
            await s.status()
            as_editor(s, "patch", "tj", s.name, "--type=merge", "-p", FINALIZER)
            as_editor(s, "delete", "tj", s.name, "--wait=false")
            await s.report(await s.pod(f"{s.name}-0"))
            await has(s, lambda seal: seal["status"]["hold"])
            await until(s.suspended)

    stage(play, "Suspend")


def test_a_job_that_a_finalizer_keeps_from_going_runs_on_while_nothing_holds_it(
    stage: Go,  # noqa: F811
) -> None:
    async def play(s: Stage) -> None:
        async with s.controlled():
            await s.runs()
            as_editor(s, "patch", "tj", s.name, "--type=merge", "-p", FINALIZER)
            as_editor(s, "delete", "tj", s.name, "--wait=false")
            await s.report(await s.pod(f"{s.name}-0"))
            await has(s, lambda seal: seal["status"]["told"])
            assert not await s.suspended()

    stage(play, "Alert")


def test_what_is_left_behind_of_a_deleted_job_stops(stage: Go) -> None:  # noqa: F811
    async def play(s: Stage) -> None:
        async with s.controlled():
            await s.runs()
            seal = path_of(API_VERSION, "sealedruns", TEAM, (await s.seal())["metadata"]["name"])
            # What the garbage collector does for `kubectl delete --cascade=orphan`.
            await s.kube.patch(
                path_of("batch/v1", "jobs", TEAM, f"{s.name}-worker"),
                {"metadata": {"ownerReferences": None}},
            )
            as_editor(s, "delete", "tj", s.name)

            async def closed() -> bool:
                found: Any = await s.kube.get(seal)
                return bool(found["status"]["phase"] == "Deleted")

            await until(closed)
            assert await s.suspended()

    stage(play)


def test_a_run_that_lost_one_role_does_not_go_on_with_the_others(stage: Go) -> None:  # noqa: F811
    async def play(s: Stage) -> None:
        await submit_with_evaluator(s)
        async with s.controlled():
            await s.runs()
            as_editor(s, "delete", "job", f"{s.name}-evaluator")
            await ended(s, "Failed")
            assert await s.suspended()

    stage(play)


def test_a_run_of_which_one_role_failed_does_not_go_on_with_the_others(stage: Go) -> None:  # noqa: F811
    async def play(s: Stage) -> None:
        await submit_with_evaluator(s)
        async with s.controlled():
            await s.runs()
            path = path_of("batch/v1", "jobs", TEAM, f"{s.name}-evaluator")
            time = s.clock().isoformat().replace("+00:00", "Z")

            def condition(type_: str) -> Object:
                return {
                    "type": type_,
                    "status": "True",
                    "reason": "BackoffLimitExceeded",
                    "message": "too many failures",
                    "lastProbeTime": time,
                    "lastTransitionTime": time,
                }

            async def started() -> bool:
                found: Any = await s.kube.get(path)
                return not found["spec"]["suspend"]

            await until(started)
            conditions = [condition("FailureTarget"), condition("Failed")]
            await s.kube.patch(
                f"{path}/status", {"status": {"startTime": time, "conditions": conditions}}
            )
            await ended(s, "Failed")
            assert await s.suspended()

    stage(play)


@contextlib.asynccontextmanager
async def full_quota(s: Stage, resource: str) -> AsyncIterator[None]:
    """Nobody makes another of the resource in the team's namespace, until the end of the block."""
    quota: Object = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": s.name, "namespace": TEAM},
        "spec": {"hard": {resource: "0"}},
    }
    path = path_of("v1", "resourcequotas", TEAM)
    await s.kube.create(path, quota)
    # As the quota's controller counts.
    status: Object = {"hard": {resource: "0"}, "used": {resource: "0"}}
    await s.kube.patch(f"{path}/{s.name}/status", {"status": status})
    try:
        yield
    finally:
        s.server.kubectl("delete", "resourcequota", s.name, "-n", TEAM)


def test_an_editor_who_fills_a_quota_keeps_no_hold_from_the_run(stage: Go) -> None:  # noqa: F811
    async def play(s: Stage) -> None:
        probe = ["create", "service", "clusterip", "probe", "--tcp=1", "--dry-run=server"]

        async def refused() -> bool:
            with contextlib.suppress(CommandError):
                as_editor(s, *probe)
                return False
            return True

        async with s.controlled():
            await s.runs()
            async with full_quota(s, "count/services"):
                await until(refused)
                as_editor(s, "delete", "service", s.name)
                await s.report(await s.pod(f"{s.name}-0"))
                await has(s, lambda seal: seal["status"]["hold"])
                await until(s.suspended)

    stage(play, "Suspend")


def test_a_report_of_ours_that_cannot_be_written_keeps_no_hold_from_the_run(
    stage: Go,  # noqa: F811
) -> None:
    async def play(s: Stage) -> None:
        async with s.controlled():
            await s.runs()
            astray, good = await s.pod(f"{s.name}-0"), await s.pod(f"{s.name}-1")
        await s.report(astray, node="node-2")
        await s.report(good)
        async with full_quota(s, "count/driftreports.trainseal.dev"), s.controlled():
            hold = await has(s, lambda seal: seal["status"]["hold"])
            assert f"{s.name}-1" in hold["message"]
            await until(s.suspended)

    stage(play, "Suspend")


def test_a_run_is_held_before_anybody_is_told(
    stage: Go,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    async def play(s: Stage) -> None:
        async with s.controlled():
            await s.runs()
            monkeypatch.setattr(World, "event", never)
            await s.report(await s.pod(f"{s.name}-0"))
            await has(s, lambda seal: seal["status"]["hold"])

    stage(play, "Suspend")
