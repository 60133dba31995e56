"""How long the admission of a TrainingJob takes: its artifacts never seen before, and seen.

Cold: image and code stand in repositories that the webhook has not read yet, so that it fetches
manifests, referrers and bundles and verifies all signatures. Warm: the same jobs again; their own
bundles are verified anew, their artifacts' verdicts are remembered. None: no webhook. Created as
server-side dry runs. The registry is on loopback: a real one adds its own round trips to cold.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bench.figures import Figure
from bench.rig import Rig, Served, rig, until
from bench.sealed import encode
from bench.signedjobs import COLLECTION, Workshop, workshop
from tests.cluster import Cluster

PATH = f"{COLLECTION}?dryRun=All"
RULES = ("ticket.trainseal.dev", "trainingjobs.trainseal.dev")
CONCURRENCIES = (1, 20)


@dataclass(frozen=True, slots=True)
class Round:
    """One configuration, measured once."""

    rate: float
    median_ms: float
    cpu_ms: float


def run(rounds: int, count: int) -> None:
    """Measures and prints. ``count`` requests a step, a twentieth of them cold."""
    cluster = Cluster.up("bench-api", api_only=True)
    try:
        asyncio.run(_run(cluster, rounds, count))
    finally:
        cluster.down()


async def _run(cluster: Cluster, rounds: int, count: int) -> None:
    async with rig(cluster) as ground, workshop(ground) as shop:
        served = ground.webhook(shop.registry.address)
        unsigned = await _unsigned(shop)
        found: dict[tuple[str, int], list[Round]] = defaultdict(list)
        size = 0
        for number in range(rounds + 1):
            fresh = {
                c: await _jobs(shop, f"round-{number}-{c}", count // 20) for c in CONCURRENCIES
            }
            size = len(fresh[1][0])
            for which in ("none", "cold", "warm"):
                await _switch(ground, None if which == "none" else served, unsigned)
                for concurrency, jobs in fresh.items():
                    requests = len(jobs) if which == "cold" else max(count // 4, len(jobs))
                    measured = await _load(ground, served, jobs, requests, concurrency)
                    if number:  # the first round warms up
                        found[which, concurrency].append(measured)
            print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
        _report(found, size)
        print(f"\nresident memory of the webhook: {served.process.memory():.0f} MiB")


async def _jobs(shop: Workshop, prefix: str, count: int) -> list[bytes]:
    """Jobs that share nothing."""
    names = [f"{prefix}-{number}" for number in range(max(count, 1))]
    return [encode(shop.job(name, await shop.artifacts(name))) for name in names]


async def _load(
    ground: Rig, served: Served, jobs: Sequence[bytes], requests: int, concurrency: int
) -> Round:
    before = served.process.cpu()
    measured = await ground.client.load(
        PATH, lambda n: jobs[n % len(jobs)], {}, count=requests, concurrency=concurrency
    )
    spent = served.process.cpu() - before
    return Round(measured.rate, measured.median * 1000, spent * 1000 / requests)


def _report(found: dict[tuple[str, int], list[Round]], size: int) -> None:
    print(f"Admission of a signed TrainingJob ({size} bytes), on {os.cpu_count()} processors")
    print("medians (minimum to maximum) over rounds\n")
    for concurrency in CONCURRENCIES:
        print(f"concurrency {concurrency}")
        for which in ("none", "cold", "warm"):
            rows = found[which, concurrency]
            rate = Figure(tuple(r.rate for r in rows)).text(0)
            median = Figure(tuple(r.median_ms for r in rows)).text()
            cpu = Figure(tuple(r.cpu_ms for r in rows)).text()
            tail = "" if which == "none" else f"  CPU ms a request: {cpu}"
            print(f"  {which:6} {rate:>24} /s  {median:>26} ms{tail}")


async def _unsigned(shop: Workshop) -> bytes:
    return encode(shop.unsigned("probe", await shop.artifacts("probe")))


async def _switch(ground: Rig, served: Served | None, unsigned: bytes) -> None:
    """Makes the API server ask the webhook or nobody, and waits until it does."""
    await ground.ask(served, *RULES)

    async def is_asked() -> bool:
        status, answer = await ground.client.post(PATH, unsigned, {})
        return status == 201 if served is None else b"no signature" in answer

    await until(is_asked, "the webhook is asked" if served else "nobody is asked")
