"""How much a sealed GPU pod's admission costs, beside a webhook that only says yes.

API server, etcd, webhook and load share the machine. Each round measures no webhook, the yes-only
webhook and TrainSeal's in turn, so that their ratios are of one run. Pods are created as the Job
controller would, as server-side dry runs: nothing is stored, and admission runs in full.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import defaultdict
from dataclasses import dataclass

from bench.figures import Figure, ratio
from bench.rig import Rig, Served, rig, until
from bench.sealed import NAMESPACE, Object, bare_pod, encode, seal
from tests.cluster import Cluster
from tests.stage.people import with_openssl_key
from tests.stage.policies import policy
from trainseal.api.model import API_VERSION
from trainseal.cluster.api import path_of
from trainseal.provenance.policies import compile_policy

CREATOR = {
    "Impersonate-User": "system:serviceaccount:kube-system:job-controller",
    "Impersonate-Group": "system:masters",
}
PATH = f"/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All"
CONCURRENCIES = (1, 20, 100)


@dataclass(frozen=True, slots=True)
class Round:
    """One configuration, measured once."""

    rate: float
    median_ms: float
    cpu_per_1000: float


def run(rounds: int, count: int) -> None:
    """Measures and prints."""
    cluster = Cluster.up("bench-api", api_only=True)
    try:
        asyncio.run(_run(cluster, rounds, count))
    finally:
        cluster.down()


async def _run(cluster: Cluster, rounds: int, count: int) -> None:
    async with rig(cluster) as ground:
        body = encode(await _sealed_pod(ground))
        trainseal = ground.webhook()
        served: dict[str, Served | None] = {
            "none": None,
            "yes": ground.yes_only(),
            "trainseal": trainseal,
        }
        found: dict[tuple[str, int], list[Round]] = defaultdict(list)
        for number in range(rounds + 1):
            for which, one in served.items():
                await _switch(ground, one, which)
                for concurrency in CONCURRENCIES:
                    requests = count // 4 if concurrency == 1 else count
                    measured = await _load(ground, one, body, requests, concurrency)
                    if number:  # the first round warms up
                        found[which, concurrency].append(measured)
            print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
        _report(found, len(body))
        print(f"\nresident memory of the webhook: {trainseal.process.memory():.0f} MiB")


async def _sealed_pod(ground: Rig) -> Object:
    alice = with_openssl_key(ground.folder, "alice")
    made = policy(
        "bench", NAMESPACE, signers=[alice], image_signers=[alice], registries=["registry.example"]
    )
    await ground.kube.create(path_of(API_VERSION, "provenancepolicies"), made)
    compiled = compile_policy(made, {})
    return await seal(ground.kube, ground.seal_key, ground.cluster_uid, compiled)


async def _load(
    ground: Rig, served: Served | None, body: bytes, requests: int, concurrency: int
) -> Round:
    before = served.process.cpu() if served else 0.0
    measured = await ground.client.load(
        PATH, lambda _: body, CREATOR, count=requests, concurrency=concurrency
    )
    spent = (served.process.cpu() if served else 0.0) - before
    return Round(measured.rate, measured.median * 1000, spent * 1000 / requests)


def _report(found: dict[tuple[str, int], list[Round]], size: int) -> None:
    print(f"Admission of a sealed GPU pod ({size} bytes), on {os.cpu_count()} processors")
    print("medians (minimum to maximum) over rounds\n")
    for concurrency in CONCURRENCIES:
        print(f"concurrency {concurrency}")
        for which in ("none", "yes", "trainseal"):
            rows = found[which, concurrency]
            rate = Figure(tuple(r.rate for r in rows)).text(0)
            median = Figure(tuple(r.median_ms for r in rows)).text(2)
            cpu = Figure(tuple(r.cpu_per_1000 for r in rows)).text(2)
            tail = "" if which == "none" else f"  CPU s per 1,000: {cpu}"
            print(f"  {which:10} {rate:>28} /s  {median:>24} ms{tail}")
        ours, theirs = found["trainseal", concurrency], found["yes", concurrency]
        share = ratio([r.rate for r in ours], [r.rate for r in theirs])
        more = Figure(tuple(a.median_ms - b.median_ms for a, b in zip(ours, theirs, strict=True)))
        print(f"  trainseal / yes: {share.text()} of its rate, {more.text()} ms more at the median")


async def _switch(ground: Rig, served: Served | None, which: str) -> None:
    """Makes the API server ask one webhook, or none, and waits until it does."""
    await ground.ask(served, "pods.trainseal.dev")
    words = {"none": b'"kind":"Pod"', "yes": b"yes-only", "trainseal": b"sealed run"}[which]
    probe = encode(bare_pod())

    async def is_asked() -> bool:
        return words in (await ground.client.post(PATH, probe, CREATOR))[1]

    await until(is_asked, f"{which} is asked")
