"""How long the admission of a TrainingJob takes: its artifacts never seen before, and seen.

Cold: image and code stand in repositories that the webhook has not read yet, so that it fetches
manifests, referrers and bundles and verifies all signatures. Warm: the same jobs again; their own
bundles are verified anew, their artifacts' verdicts are remembered. None: no webhook. Created as
server-side dry runs. The registry is on loopback: a real one adds its own round trips to cold.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bench.figures import spread
from bench.rig import Rig, Served, on_api_server, rig, until
from bench.sealed import encode
from bench.section import Section, paragraphs, table
from bench.signedjobs import COLLECTION, Workshop, workshop
from tests.cluster import Cluster

PATH = f"{COLLECTION}?dryRun=All"
RULES = ("ticket.trainseal.dev", "trainingjobs.trainseal.dev")
CONCURRENCIES = (1, 20)
_WORDS = {"none": "no webhook", "cold": "cold: artifacts never seen", "warm": "warm"}


@dataclass(frozen=True, slots=True)
class Round:
    """One configuration, measured once."""

    requests: int
    rate: float
    median_ms: float
    cpu_ms: float


def measure(rounds: int, count: int) -> Section:
    """``count`` requests a step, a quarter of them warm; how many are cold, `cold_count` says."""
    return on_api_server(lambda cluster: _measure(cluster, rounds, count))


def cold_count(count: int, concurrency: int) -> int:
    """Each is a job with artifacts of its own, and at any time so many must be under way."""
    return max(count // 20, 5 * concurrency)


async def _measure(cluster: Cluster, rounds: int, count: int) -> Section:
    async with rig(cluster) as ground, workshop(ground) as shop:
        served = ground.webhook(shop.registry.address)
        unsigned = await _unsigned(shop)
        found: dict[tuple[str, int], list[Round]] = defaultdict(list)
        memory: list[float] = []
        size = 0
        for number in range(rounds + 1):
            fresh = {
                c: await _jobs(shop, f"round-{number}-{c}", cold_count(count, c))
                for c in CONCURRENCIES
            }
            size = len(fresh[1][0])
            for which in _WORDS:
                await _switch(ground, None if which == "none" else served, unsigned)
                for concurrency, jobs in fresh.items():
                    requests = len(jobs) if which == "cold" else max(count // 4, len(jobs))
                    measured = await _load(ground, served, jobs, requests, concurrency)
                    if number:  # the first round warms up
                        found[which, concurrency].append(measured)
            if number:
                memory.append(served.process.memory())
            print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
        return section(found, memory, size)


async def _jobs(shop: Workshop, prefix: str, count: int) -> list[bytes]:
    """Jobs that share nothing."""
    names = [f"{prefix}-{number}" for number in range(count)]
    return [encode(shop.job(name, await shop.artifacts(name))) for name in names]


async def _load(
    ground: Rig, served: Served, jobs: Sequence[bytes], requests: int, concurrency: int
) -> Round:
    before = served.process.cpu()
    measured = await ground.client.load(
        PATH, lambda n: jobs[n % len(jobs)], {}, count=requests, concurrency=concurrency
    )
    spent = served.process.cpu() - before
    return Round(requests, measured.rate, measured.median * 1000, spent * 1000 / requests)


def section(found: dict[tuple[str, int], list[Round]], memory: list[float], size: int) -> Section:
    """What is told of the rounds; ``memory`` in MiB after each, ``size`` in bytes."""
    rows = [
        [
            str(concurrency),
            words,
            f"{found[which, concurrency][0].requests:,}",
            spread((r.rate for r in found[which, concurrency]), 0),
            spread(r.median_ms for r in found[which, concurrency]),
            # Nobody asks it: what it does meanwhile is no part of an admission.
            "" if which == "none" else spread(r.cpu_ms for r in found[which, concurrency]),
        ]
        for concurrency in CONCURRENCIES
        for which, words in _WORDS.items()
    ]
    header = ["concurrency", "", "requests a round", "a second", "median, ms", "CPU ms a request"]
    markdown = paragraphs(
        f"{len(memory)} rounds; the job has {size:,} bytes.",
        table(header, rows),
        f"Resident memory of the webhook after each round: {spread(memory, 0)} MiB.",
    )
    rounds = {f"{w} {c}": [dataclasses.asdict(r) for r in rs] for (w, c), rs in found.items()}
    return Section(markdown, {"rounds": rounds, "memory": memory})


async def _unsigned(shop: Workshop) -> bytes:
    return encode(shop.unsigned("probe", await shop.artifacts("probe")))


async def _switch(ground: Rig, served: Served | None, unsigned: bytes) -> None:
    """Makes the API server ask the webhook or nobody, and waits until it does."""
    await ground.ask(served, *RULES)

    async def is_asked() -> bool:
        status, answer = await ground.client.post(PATH, unsigned, {})
        return status == 201 if served is None else b"no signature" in answer

    await until(is_asked, "the webhook is asked" if served else "nobody is asked")
