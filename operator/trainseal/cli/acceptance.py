"""Signing tainted checkpoints off, and following what becomes of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Sequence

from trainseal.api.holdrelease import MAX_CHECKPOINTS
from trainseal.api.model import JsonObject
from trainseal.cli.caller import caller
from trainseal.cli.checkpointview import Item, RunCheckpoints, look
from trainseal.cli.failures import REFUTED, UNDETERMINED, Failure
from trainseal.cli.releases import PAUSE, ask
from trainseal.cli.terminaltext import plain
from trainseal.cluster.api import Kube


async def accept(
    kube: Kube, namespace: str, job: str, seal: str | None, reason: str, wait: float
) -> None:
    """Signs off what is tainted now. Raises Failure where it does not go."""
    asked = _barring(await look(kube, namespace, job, seal))
    if not asked:
        print(f"{namespace}/{job}: no checkpoint is tainted that nobody signed off")  # noqa: T201
        return
    user = (await caller(kube)).user
    for run, names in asked.items():
        print(f"{len(names)} of run {run}: {', '.join(names[:3])}{' …' if names[3:] else ''}")  # noqa: T201
        for start in range(0, len(names), MAX_CHECKPOINTS):
            part = names[start : start + MAX_CHECKPOINTS]
            release: JsonObject = {"sealedRun": run, "checkpoints": list(part)}
            await ask(kube, namespace, user, f"{run}-checkpoints-{_mark(part)}", release, reason)
    wanted = {name for names in asked.values() for name in names}
    for _ in range(max(1, round(wait / PAUSE))):
        items = [i for i in (await look(kube, namespace, job, seal)).items if i.name in wanted]
        left = [item for item in items if item.barring]
        if not left:
            print(f"{namespace}/{job}: signed off; a job may go on from them")  # noqa: T201
            return
        if refused := next((i.status.refused for i in left if i.status.refused), None):
            raise Failure(f"they were not signed off: {plain(refused)}", code=REFUTED)
        await asyncio.sleep(PAUSE)
    raise Failure(
        f"the release was made, and they are not signed off after {wait:.0f} s",
        remedy="look whether TrainSeal's controller runs: `trainseal doctor`",
        code=UNDETERMINED,
    )


def _barring(found: RunCheckpoints) -> dict[str, list[str]]:
    by_run: dict[str, list[str]] = defaultdict(list)
    items: Sequence[Item] = [item for item in found.items if item.barring]
    for item in items:
        by_run[item.checkpoint.spec.sealed_run].append(item.name)
    return by_run


def _mark(names: Sequence[str]) -> str:
    return hashlib.sha256("/".join(sorted(names)).encode()).hexdigest()[:16]
