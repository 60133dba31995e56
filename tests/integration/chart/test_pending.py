"""A job that waits for signatures, and `trainseal approve`, on a real API server.

The controller has the chart's own rights; the webhook is not there. Nothing runs the pods.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.chart.conftest import Object
from tests.integration.chart.test_drift import TEAM, Go, Stage, condition, stage, team, until
from tests.unit import world
from tests.unit.cli.conftest import key_file
from trainseal.cli import approving
from trainseal.cli.failures import Failure
from trainseal.provenance.canonical import canonical_job
from trainseal.provenance.sealedjobs import sealed_job

__all__ = ["stage", "team"]  # fixtures
OPERATOR = Path(__file__).parents[3] / "operator"
ONE: Object = {"authorities": ["alice", "bob"]}
MISSING = "Bob"


async def waiting(s: Stage, change: Callable[[Object], object] | None = None) -> Stage:
    """Where Alice and Bob both must sign, a job that she signed."""
    two = {"job": {**ONE, "threshold": 2}, "image": ONE, "code": ONE}
    s.policies[:] = [world.policy(requirements=two, pending={})]
    found = dataclasses.replace(s, name=f"{s.name}-waits")
    await found.submit(change)
    return found


async def is_pending(s: Stage) -> None:
    async def pending() -> bool:
        return (await s.status()).get("missing") == MISSING

    await until(pending)


async def approve(s: Stage, *args: str) -> str:
    """The command line of this checkout."""
    program = "import sys; from trainseal.cli.main import main; sys.exit(main())"
    words = [sys.executable, "-c", program, "approve", s.name, "-n", TEAM, *args]
    paths = {"PYTHONPATH": str(OPERATOR)}
    return await asyncio.to_thread(lambda: s.server.cluster.run(words, extra=paths))


def test_it_waits_until_the_second_person_has_looked_and_signed(stage: Go, tmp_path: Path) -> None:
    bob = key_file(tmp_path / "bob.key", world.BOB)

    async def play(s: Stage) -> None:
        job = await waiting(s)
        async with job.controlled():
            await is_pending(job)
            status = await job.status()
            assert status["phase"] == "Pending"
            assert condition(await job.job(), "Verified")["reason"] == "SignaturesMissing"
            shown = job.server.kubectl("get", "tj", job.name, "-n", TEAM)
            assert "MISSING" in shown
            assert MISSING in shown.splitlines()[-1]
            assert "No approved run of this name is known" in await approve(job)
            await is_pending(job)
            told = json.loads(await approve(job, "--key", str(bob), "--yes", "-o", "json"))
            assert told["added"] is True
            await job.runs()
        assert "missing" not in await job.status()
        # What a real API server stored of it is what was signed.
        form = json.loads(canonical_job(await job.job()))
        assert sealed_job(await job.seal()) == form["spec"] == told["spec"]

    stage(play)


def test_a_status_that_was_written_meanwhile_is_in_nobodys_way_and_another_job_is(
    stage: Go,
) -> None:
    async def play(s: Stage) -> None:
        job = await waiting(s)
        shown = await approving.proposal(job.kube, TEAM, job.name, "trainseal-system")
        await job.kube.patch(f"{job.job_path}/status", {"status": {"message": "other"}})
        assert await approving.approve(job.kube, shown, world.BOB) is True
        assert await approving.approve(job.kube, shown, world.BOB) is False
        # Deleted, and made anew under its name: the same to the letter, and another object.
        await job.kube.delete(job.job_path)
        await job.submit()
        with pytest.raises(Failure, match="is another one by now than what was shown"):
            await approving.approve(job.kube, shown, world.BOB)
        found: Any = await job.job()
        assert len(found["spec"]["signatures"]) == 1

    stage(play)
