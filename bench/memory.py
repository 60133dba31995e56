"""What webhook and controller hold in memory, before and after a number of sealed runs.

The jobs pass admission and are sealed, bound and resumed by the real processes; no pods run. All
of them are live: runs that have ended leave the webhook's index.
"""

from __future__ import annotations

import asyncio
import time

from bench.jobs import RULES
from bench.processes import Measured
from bench.rig import rig
from bench.sealed import NAMESPACE, Object, encode
from bench.signedjobs import COLLECTION, accept_first, workshop
from tests.cluster import Cluster
from trainseal.api.model import API_VERSION
from trainseal.cluster.api import Kube, path_of

_AT_ONCE = 8


def run(_rounds: int, count: int) -> None:
    """Measures and prints; ``count`` is the number of seals."""
    cluster = Cluster.up("bench-api", api_only=True)
    try:
        asyncio.run(_run(cluster, count))
    finally:
        cluster.down()


async def _run(cluster: Cluster, count: int) -> None:
    async with rig(cluster) as ground, workshop(ground) as shop:
        webhook = ground.webhook(shop.registry.address)
        processes = {
            "webhook": webhook.process,
            "controller": ground.controller(shop.registry.address),
        }
        await ground.ask(webhook, *RULES)
        artifacts = await shop.artifacts("all")
        await accept_first(ground, shop, artifacts)
        await _bound(ground.kube, 1, 60.0)
        before = {name: process.memory() for name, process in processes.items()}
        start = time.perf_counter()
        await ground.client.load(
            COLLECTION,
            lambda number: encode(shop.job(f"run-{number}", artifacts)),
            {},
            count=count,
            concurrency=_AT_ONCE,
        )
        await _bound(ground.kube, count + 1, 60.0 + count)
        seconds = time.perf_counter() - start
        _report(processes, before, count, seconds)


async def _bound(kube: Kube, wanted: int, seconds: float) -> None:
    """Waits until so many seals are bound."""
    path = path_of(API_VERSION, "sealedruns", NAMESPACE)
    deadline = time.monotonic() + seconds
    while True:
        # Counted first, which costs the API server next to nothing: it is measured here too.
        first: Object = await kube.request("GET", path, query={"limit": "1"})
        found = len(first["items"]) + first["metadata"].get("remainingItemCount", 0)
        if found >= wanted:
            page: Object = await kube.request("GET", path, seconds=60)
            found = sum("binding" in item.get("status", {}) for item in page["items"])
        if found >= wanted:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"found {found} bound seals in {seconds:.0f} s, expected {wanted}")
        await asyncio.sleep(0.5)


def _report(
    processes: dict[str, Measured], before: dict[str, float], count: int, seconds: float
) -> None:
    print(f"Resident memory, before and after {count} sealed runs ({count / seconds:.1f} runs/s)\n")
    for name, process in processes.items():
        after = process.memory()
        each = (after - before[name]) * 1024 / count
        print(f"  {name:10} {before[name]:6.0f} MiB  {after:6.0f} MiB  {each:6.1f} KiB a run")
