"""Pod templates that only the API server can judge, on a real one with the chart's own rights.

The schema leaves templates opaque and the webhook judges what they may hold; whether one is a pod's
at all the controller asks with a server-side dry run. Nothing runs the pods.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.chart.conftest import Object
from tests.integration.chart.test_drift import TEAM, Stage, condition, stage, team, until
from tests.unit import world
from trainseal.api.model import API_VERSION
from trainseal.cluster.api import KubeError, NotFoundError, path_of
from trainseal.provenance.seals import MAX_SPEC_BYTES, stored_bytes

__all__ = ["stage", "team"]  # fixtures
Go = Callable[..., None]
Change = Callable[[Object], object]
GATE: Object = {"name": "platform.example/checked"}
OTHER_GATE: Object = {"name": "platform.example/paid"}


def container(**fields: Any) -> Change:
    """Fields of the trainer's container."""
    return lambda job: job["spec"]["roles"][0]["template"]["spec"]["containers"][0].update(fields)


def scheduling(**fields: Any) -> Change:
    return lambda job: job["spec"].update(scheduling=fields)


async def another(s: Stage, change: Change) -> Stage:
    """A second job beside the stage's own, which is its benign twin."""
    found = dataclasses.replace(s, name=f"{s.name}-b")
    await found.submit(change)
    return found


async def refused(s: Stage) -> Object:
    """Waits until the job is refused; returns it."""

    async def is_refused() -> bool:
        return bool((await s.status()).get("phase") == "Refused")

    await until(is_refused)
    return await s.job()


async def seals_of(s: Stage) -> list[Any]:
    listed: Any = await s.kube.request(
        "GET",
        path_of(API_VERSION, "sealedruns", TEAM),
        query={"labelSelector": f"trainseal.dev/job={s.name}"},
    )
    return list(listed["items"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (container(ports=[{"containerPort": 99999}]), "containerPort: Invalid value: 99999"),
        (container(ports=[{"containerPort": 80, "protocl": "TCP"}]), 'unknown field "spec.templ'),
        (container(terminationMessagePolicy="Sometimes"), "Unsupported value"),
    ],
    ids=["a value out of range", "a misspelled field", "a value of no set"],
)
def test_a_template_that_is_no_pods_is_refused_in_the_api_servers_words(
    stage: Go, change: Change, words: str
) -> None:
    async def play(s: Stage) -> None:
        bad = await another(s, change)
        async with s.controlled():
            await s.runs()
            job = await refused(bad)
        verified = condition(job, "Verified")
        assert (verified["status"], verified["reason"]) == ("False", "InvalidTemplate")
        assert verified["observedGeneration"] == job["metadata"]["generation"]
        for part in ("the pods of role worker", words, "sign it again"):
            assert part in job["status"]["message"]
        assert await bad.events("InvalidTemplate")
        # Nothing was sealed, so nothing counts as a run; and nothing was made.
        assert await seals_of(bad) == []
        assert len(await seals_of(s)) == 1
        with pytest.raises(NotFoundError):
            await bad.engine()

    stage(play)


def test_a_template_with_the_same_fields_set_right_is_sealed(stage: Go) -> None:
    async def play(s: Stage) -> None:
        good = await another(
            s,
            container(
                ports=[{"containerPort": 9999, "protocol": "TCP"}],
                terminationMessagePolicy="FallbackToLogsOnError",
            ),
        )
        async with s.controlled():
            await good.runs()

    stage(play)


def test_what_is_not_signed_and_wrong_is_corrected_without_a_new_signature(stage: Go) -> None:
    async def play(s: Stage) -> None:
        bad = await another(s, scheduling(tolerations=[{"key": "a", "operator": "Sometimes"}]))
        async with s.controlled():
            job = await refused(bad)
            assert condition(job, "Verified")["reason"] == "InvalidTemplate"
            assert "or correct spec.scheduling" in job["status"]["message"]
            tolerations = [{"key": "a", "operator": "Exists"}]
            await s.kube.patch(bad.job_path, {"spec": {"scheduling": {"tolerations": tolerations}}})
            await bad.runs()
            verified = condition(await bad.job(), "Verified")
        assert verified["status"] == "True"

    stage(play)


def variables(count: int) -> Change:
    return container(env=[{"name": f"V{n}", "value": "x" * 1000} for n in range(count)])


def test_a_run_whose_seal_would_be_too_large_is_refused_and_one_below_the_bound_is_stored(
    stage: Go,
) -> None:
    async def play(s: Stage) -> None:
        large = await another(s, variables(700))
        async with s.controlled():
            await large.runs()
            (seal,) = await seals_of(large)
            assert 0.9 * MAX_SPEC_BYTES < stored_bytes(seal["spec"]) <= MAX_SPEC_BYTES
            too_large = await another(large, variables(800))
            job = await refused(too_large)
        assert condition(job, "Verified")["reason"] == "SealTooLarge"
        assert "move long commands and variables into the config" in job["status"]["message"]
        assert await seals_of(too_large) == []

    stage(play)


def test_a_gate_holds_the_pods_until_it_is_taken_away_and_none_is_added(stage: Go) -> None:
    async def play(s: Stage) -> None:
        gated = await another(s, scheduling(schedulingGates=[GATE, OTHER_GATE]))
        async with s.controlled():
            await gated.runs()
            engine: Any = await gated.engine()
            (seal,) = await seals_of(gated)
        assert engine["spec"]["template"]["spec"]["schedulingGates"] == [GATE, OTHER_GATE]
        sealed = seal["spec"]["roles"][0]["template"]["spec"]
        assert sealed["schedulingGates"] == [GATE, OTHER_GATE]

        pod = world.pod(engine, 0)
        del pod["metadata"]["finalizers"], pod["status"]  # nobody is there to take it off
        made: Any = await s.kube.create(path_of("v1", "pods", TEAM), pod)
        path = path_of("v1", "pods", TEAM, made["metadata"]["name"])

        async def gates() -> Any:
            found: Any = await s.kube.get(path)
            return found["spec"].get("schedulingGates")

        await s.kube.patch(path, {"spec": {"schedulingGates": [OTHER_GATE]}})
        assert await gates() == [OTHER_GATE]
        with pytest.raises(KubeError, match="only deletion is allowed"):
            await s.kube.patch(path, {"spec": {"schedulingGates": [OTHER_GATE, GATE]}})
        await s.kube.patch(path, {"spec": {"schedulingGates": None}})
        assert await gates() is None
        with contextlib.suppress(NotFoundError):
            await s.kube.request("DELETE", path, body={"gracePeriodSeconds": 0})

    stage(play)
