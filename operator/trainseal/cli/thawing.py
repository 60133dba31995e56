"""Asking for a hold to be lifted, and following what becomes of it."""

from __future__ import annotations

import asyncio

from trainseal.api.model import API_VERSION, JsonObject, json_object
from trainseal.cli.caller import caller
from trainseal.cli.clusters import SEALS
from trainseal.cli.failures import REFUTED, UNDETERMINED, Failure
from trainseal.cli.releases import PAUSE, ask
from trainseal.cli.statusview import job_of
from trainseal.cli.terminaltext import plain
from trainseal.cluster.api import Kube, path_of


async def thaw(kube: Kube, namespace: str, job: str, reason: str, wait: float) -> None:
    """Lifts the hold that stands now. Raises Failure where it does not go."""
    found = await job_of(kube, namespace, job)
    name = json_object(found.get("status")).get("sealedRun")
    path = path_of(API_VERSION, SEALS, namespace, str(name))
    hold = await _hold(kube, path) if isinstance(name, str) else {}
    if not hold:
        print(f"{namespace}/{job} is not held")  # noqa: T201
        return
    print(f"{hold.get('response')}: {plain(str(hold.get('message')))}")  # noqa: T201
    if hold.get("response") == "Terminate":
        raise Failure(
            "the run was terminated, and that is final",
            remedy="delete the TrainingJob and apply it again",
            code=REFUTED,
        )
    release: JsonObject = {"sealedRun": str(name), "hold": str(hold["id"])}
    user = (await caller(kube)).user
    await ask(kube, namespace, user, f"{name}-{hold['id']}", release, reason)
    # An earlier release may have been refused: that is not this one's answer yet.
    asked, before, attempts = hold["id"], hold.get("waiting"), max(1, round(wait / PAUSE))
    for _ in range(attempts):
        hold = await _hold(kube, path)
        if not hold:
            print(f"{namespace}/{job} goes on")  # noqa: T201
            return
        if hold.get("id") != asked:
            raise Failure(
                "more was found meanwhile: " + plain(str(hold.get("message"))),
                remedy=f"look at `trainseal drift {job}` and ask again",
                code=REFUTED,
            )
        waiting = hold.get("waiting")
        if waiting and waiting != before:
            raise Failure(f"the hold was not lifted: {plain(str(waiting))}", code=REFUTED)
        await asyncio.sleep(PAUSE)
    if before:
        raise Failure(f"the hold was not lifted: {plain(str(before))}", code=REFUTED)
    raise Failure(
        f"the release was made, and the run is held still after {wait:.0f} s",
        remedy="look whether TrainSeal's controller runs: `trainseal doctor`",
        code=UNDETERMINED,
    )


async def _hold(kube: Kube, path: str) -> JsonObject:
    return json_object(json_object((await kube.get(path)).get("status")).get("hold"))
