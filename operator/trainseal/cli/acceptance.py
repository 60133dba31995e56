"""Signing tainted checkpoints off, and following what becomes of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Sequence

from trainseal.api.holdrelease import MAX_CHECKPOINTS, PLURAL
from trainseal.api.model import API_VERSION, JsonObject
from trainseal.cli.checkpointview import Item, RunCheckpoints, look
from trainseal.cli.failures import REFUTED, UNDETERMINED, Failure
from trainseal.cli.terminaltext import plain
from trainseal.cli.thawing import not_allowed, who_am_i
from trainseal.cluster.api import ConflictError, Kube, KubeError, path_of

_PAUSE = 0.5


async def accept(
    kube: Kube, namespace: str, job: str, seal: str | None, reason: str, wait: float
) -> None:
    """Signs off what is tainted now. Raises Failure where it does not go."""
    asked = _barring(await look(kube, namespace, job, seal))
    if not asked:
        print(f"{namespace}/{job}: no checkpoint is tainted that nobody signed off")  # noqa: T201
        return
    user = await who_am_i(kube)
    for run, names in asked.items():
        print(f"{len(names)} of run {run}: {', '.join(names[:3])}{' …' if names[3:] else ''}")  # noqa: T201
        for start in range(0, len(names), MAX_CHECKPOINTS):
            part = names[start : start + MAX_CHECKPOINTS]
            await _ask(kube, namespace, _release(namespace, run, part, user, reason))
    wanted = {name for names in asked.values() for name in names}
    for _ in range(max(1, round(wait / _PAUSE))):
        items = [i for i in (await look(kube, namespace, job, seal)).items if i.name in wanted]
        left = [item for item in items if item.barring]
        if not left:
            print(f"{namespace}/{job}: signed off; a job may go on from them")  # noqa: T201
            return
        if refused := next((i.status.refused for i in left if i.status.refused), None):
            raise Failure(f"they were not signed off: {plain(refused)}", code=REFUTED)
        await asyncio.sleep(_PAUSE)
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


def _release(namespace: str, run: str, names: Sequence[str], user: str, reason: str) -> JsonObject:
    mark = hashlib.sha256(f"{user}/{reason}/{'/'.join(sorted(names))}".encode()).hexdigest()[:16]
    return {
        "apiVersion": API_VERSION,
        "kind": "HoldRelease",
        "metadata": {"name": f"{run}-checkpoints-{mark}", "namespace": namespace},
        "spec": {
            "sealedRun": run,
            "checkpoints": list(names),
            "user": user,
            "reason": reason[:1024],
        },
    }


async def _ask(kube: Kube, namespace: str, release: JsonObject) -> None:
    try:
        await kube.create(path_of(API_VERSION, PLURAL, namespace), release, strict=True)
    except ConflictError:
        return  # asked before, in the same words
    except KubeError as error:
        raise not_allowed(error, namespace) from None
