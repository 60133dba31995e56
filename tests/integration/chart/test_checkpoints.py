"""The life of checkpoints on a real API server, with the chart's own rights.

Signed, tainted by a finding, in the way of the next job, signed off by who may. Tests write what
agents would.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.cluster import CommandError
from tests.integration.chart.conftest import ApiServer, Object
from tests.integration.chart.test_drift import (
    EDITOR,
    RESPONDER,
    TEAM,
    Go,
    Stage,
    condition,
    stage,
    team,
    until,
)
from tests.unit import world
from trainseal.agent.checkpointobjects import Volume, object_of
from trainseal.agent.checkpointvalues import Batch, Completed, Stamp
from trainseal.agent.reports import Subject
from trainseal.api.checkpoint import Writer
from trainseal.api.model import API_VERSION
from trainseal.cluster.api import path_of
from trainseal.provenance.canonical import job_digest
from trainseal.provenance.checkpointmanifests import verify
from trainseal.provenance.tickets import TICKET_ANNOTATION, Ticket, issue_ticket

__all__ = ["stage", "team"]  # fixtures

CHECKPOINTS = path_of(API_VERSION, "checkpoints", TEAM)


@pytest.fixture(autouse=True)
def unbound(team: ApiServer) -> None:
    """Tests write what agents would; who may is tested where agents' bounds are."""
    team.kubectl(
        "delete", "validatingadmissionpolicybinding", "trainseal-checkpoints", "--ignore-not-found"
    )


async def wrote(s: Stage, pod: Object, step: int, writer: Writer = "Trainer") -> str:
    """A checkpoint of a pod, as its agent tells of it; its name."""
    metadata = pod["metadata"]
    seal = await s.seal()
    digest = format(abs(hash((s.name, step))), "064x")[-64:]
    stamp = Stamp(1, step, 100, int(s.clock().timestamp()) * 10**9)
    file = Completed(f"step-{step}.safetensors", stamp, f"sha256:{digest}", writer)
    obj = object_of(
        Subject(TEAM, metadata["name"], metadata["uid"], seal["metadata"]["name"]),
        pod["spec"]["nodeName"],
        Volume("ckpt", "runs/char-lm"),
        Batch((file,)),
        lambda _: None,
        s.clock(),
    )
    async with asyncio.timeout(10):
        while True:
            try:
                made = await s.kube.create(CHECKPOINTS, obj)
            except Exception as error:
                # The policy is unbound a moment after its binding is gone.
                if "found writer" not in str(error):
                    raise
                await asyncio.sleep(0.1)
            else:
                return str(made["metadata"]["name"])


async def becomes(s: Stage, name: str, read: Callable[[Object], Any]) -> Object:
    """Waits until something is there in a Checkpoint's status; the object."""
    found: Any = {}

    async def there() -> bool:
        nonlocal found
        found = await s.kube.get(f"{CHECKPOINTS}/{name}")
        with contextlib.suppress(KeyError):
            return bool(read(found["status"]))
        return False

    await until(there)
    known: Object = found
    return known


async def claim(s: Stage) -> None:
    """The claim that the jobs mount; its own for each test."""
    path = path_of("v1", "persistentvolumeclaims", TEAM)
    with contextlib.suppress(Exception):
        await s.kube.create(
            path,
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "ckpt", "namespace": TEAM},
                "spec": {
                    "accessModes": ["ReadWriteMany"],
                    "resources": {"requests": {"storage": "1Gi"}},
                    "storageClassName": "none",
                },
            },
        )


async def resubmit(s: Stage, name: str, path: str = "runs/char-lm") -> None:
    """Another job on the same claim, as the webhook would let it in."""
    job = world.job_object()
    job["metadata"] = {"name": name, "namespace": TEAM}
    job["spec"]["checkpoints"]["path"] = path
    world.sign_job(job, world.ALICE)
    ticket = Ticket("bob@example.org", "uid-bob", job_digest(job), s.clock())
    job["metadata"]["annotations"] = {TICKET_ANNOTATION: issue_ticket(world.TICKET_KEY, ticket)}
    await s.kube.create(path_of(API_VERSION, "trainingjobs", TEAM), job, strict=True)


async def phase(s: Stage, name: str, wanted: str) -> Object:
    """Waits until a job has that phase; its status."""
    path = path_of(API_VERSION, "trainingjobs", TEAM, name)
    found: Object = {}

    async def there() -> bool:
        nonlocal found
        found = await s.kube.get(path)
        return bool((found.get("status") or {}).get("phase") == wanted)

    await until(there)
    return found


def sign_off(s: Stage, seal: str, names: list[str], user: str, by: str) -> None:
    s.server.create(
        {
            "apiVersion": API_VERSION,
            "kind": "HoldRelease",
            "metadata": {"generateName": f"{s.name}-", "namespace": TEAM},
            "spec": {
                "sealedRun": seal,
                "checkpoints": names,
                "user": user,
                "reason": "compared with a backup",
            },
        },
        by,
    )


Play = Callable[[Stage], Awaitable[None]]


@pytest.fixture
def played(stage: Go, team: ApiServer) -> Any:
    """Runs a play; no job, claim or checkpoint of it is left for the next."""

    def go(play: Play, *more: Any, **drift: Any) -> None:
        try:
            stage(play, *more, **drift)
        finally:
            for kind in ("tj", "checkpoints", "sealedruns", "pvc"):
                team.kubectl("delete", kind, "--all", "-n", TEAM, "--wait=false")

    return go


def test_what_a_run_wrote_before_a_finding_is_clean_and_what_came_after_bars_the_next_job(
    played: Any,
) -> None:
    async def play(s: Stage) -> None:
        await claim(s)
        s.clock.now -= timedelta(minutes=5)
        async with s.controlled():
            await s.runs()
            pod = await s.pod(f"{s.name}-0")
            before = await wrote(s, pod, 1)
            clean = await becomes(s, before, lambda status: status["signature"])
            assert verify(world.keyring(world.SEAL_KEY), clean)
            assert "tainted" not in clean["status"]
            assert clean["status"]["attested"]["claimUID"]

            # Twin: a job that goes on from it runs.
            await resubmit(s, f"{s.name}-twin")
            await phase(s, f"{s.name}-twin", "Sealed")

            s.clock.now += timedelta(minutes=20)
            await s.report(pod)
            await until_tainted(s)
            after = await wrote(s, pod, 2)
            bad = await becomes(s, after, lambda status: status["tainted"])
            assert verify(world.keyring(world.SEAL_KEY), bad)
            assert bad["status"]["tainted"]["finding"] == "file.changed"
            first: Any = await s.kube.get(f"{CHECKPOINTS}/{before}")
            assert "tainted" not in first["status"]

            await resubmit(s, f"{s.name}-next", "runs")
            refused = await phase(s, f"{s.name}-next", "Refused")
            assert condition(refused, "Verified")["reason"] == "TaintedCheckpoint"
            message = refused["status"]["message"]
            for words in ("runs/char-lm/step-2.safetensors", "file.changed", "mallory", s.name):
                assert words in message, message
            assert "step-1" not in message
            assert "sealedRun" not in refused["status"], "no run is counted for it"

            # Twin: one on another path of the same claim runs.
            await resubmit(s, f"{s.name}-else", "runs/other")
            await phase(s, f"{s.name}-else", "Sealed")

            seal = (await s.seal())["metadata"]["name"]
            with pytest.raises(CommandError, match="forbidden"):
                sign_off(s, seal, [after], "dev@example.org", EDITOR)
            sign_off(s, seal, [after], "oncall@example.org", RESPONDER)
            accepted = await becomes(s, after, lambda status: status["accepted"])
            assert accepted["status"]["accepted"]["user"] == "oncall@example.org"
            assert verify(world.keyring(world.SEAL_KEY), accepted)
            # A refused job is looked at again by itself, which takes longer than a test waits.
            await resubmit(s, f"{s.name}-last")
            await phase(s, f"{s.name}-last", "Sealed")

    played(play)


def test_what_a_run_wrote_between_an_act_and_its_late_finding_is_tainted(played: Any) -> None:
    async def play(s: Stage) -> None:
        await claim(s)
        async with s.controlled():
            await s.runs()
            pod = await s.pod(f"{s.name}-0")
            looked = s.clock().isoformat().replace("+00:00", "Z")
            name = await wrote(s, pod, 1)
            await becomes(s, name, lambda status: status["signature"])
            s.clock.now += timedelta(minutes=20)
            await s.report(pod, notBefore=looked)
            bad = await becomes(s, name, lambda status: status["tainted"])
            assert verify(world.keyring(world.SEAL_KEY), bad)

    played(play)


async def until_tainted(s: Stage) -> None:
    async def there() -> bool:
        return bool((await s.seal())["status"].get("taint"))

    await until(there)


def test_a_held_run_whose_own_checkpoints_are_tainted_waits_for_a_second_word(
    played: Any,
) -> None:
    async def play(s: Stage) -> None:
        await claim(s)
        async with s.controlled():
            await s.runs()
            pod = await s.pod(f"{s.name}-0")
            await s.report(pod)
            await until(s.suspended)
            name = await wrote(s, pod, 1)
            await becomes(s, name, lambda status: status["tainted"])
            seal = await s.seal()
            hold = seal["status"]["hold"]
            s.release(hold["id"], "oncall@example.org", RESPONDER)

            async def waits() -> bool:
                return bool((await s.seal())["status"]["hold"].get("waiting"))

            await until(waits)
            assert "step-1.safetensors" in (await s.seal())["status"]["hold"]["waiting"]
            sign_off(s, seal["metadata"]["name"], [name], "oncall@example.org", RESPONDER)

            async def goes_on() -> bool:
                return not await s.suspended()

            await until(goes_on)

    played(play, "Suspend")


def test_a_job_that_was_sealed_before_the_finding_does_not_start_after_it(played: Any) -> None:
    async def play(s: Stage) -> None:
        await claim(s)
        async with s.controlled():
            await s.runs()
            pod = await s.pod(f"{s.name}-0")
            # Sealed, and suspended by its user.
            await resubmit(s, f"{s.name}-later")
            later = path_of(API_VERSION, "trainingjobs", TEAM, f"{s.name}-later")
            await s.kube.patch(later, {"spec": {"suspend": True}})
            await phase(s, f"{s.name}-later", "Suspended")
            await s.report(pod)
            await until_tainted(s)
            name = await wrote(s, pod, 1)
            await becomes(s, name, lambda status: status["tainted"])
            await s.kube.patch(later, {"spec": {"suspend": False}})

            async def barred() -> bool:
                job = await s.kube.get(later)
                return bool(condition(job, "Running")["reason"] == "NotResumed")

            await until(barred)
            engine: Any = await s.kube.get(
                path_of("batch/v1", "jobs", TEAM, f"{s.name}-later-worker")
            )
            assert engine["spec"]["suspend"] is True
            job: Any = await s.kube.get(later)
            assert "step-1.safetensors" in job["status"]["message"]

    played(play)


def test_the_word_of_another_nodes_agent_is_dropped_and_bars_nobody(played: Any) -> None:
    async def play(s: Stage) -> None:
        await claim(s)
        async with s.controlled():
            await s.runs()
            pod = await s.pod(f"{s.name}-0")
            elsewhere = {**pod, "spec": {"nodeName": "node-2"}}
            name = await wrote(s, elsewhere, 1, "Outside")
            dropped = await becomes(s, name, lambda status: status["standing"])
            assert dropped["status"]["standing"] == "Dropped"
            assert "signature" not in dropped["status"]

            async def told() -> bool:
                return bool(((await s.seal())["status"].get("drift") or {}).get("critical"))

            await until(told)
            assert "taint" not in (await s.seal())["status"]
            await resubmit(s, f"{s.name}-next")
            await phase(s, f"{s.name}-next", "Sealed")

    played(play)


def test_a_controller_that_starts_anew_bars_from_its_first_moment(played: Any) -> None:
    async def play(s: Stage) -> None:
        await claim(s)
        async with s.controlled():
            await s.runs()
            pod = await s.pod(f"{s.name}-0")
        # While no controller is there: a finding, a checkpoint after it, and the next job.
        await s.report(pod)
        s.clock.now += timedelta(seconds=5)
        name = await wrote(s, pod, 1)
        await resubmit(s, f"{s.name}-next")
        async with s.controlled():
            await phase(s, f"{s.name}-next", "Refused")
            await becomes(s, name, lambda status: status["tainted"])

    played(play)
