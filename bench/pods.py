"""How much a sealed GPU pod's admission costs, beside a webhook that only says yes.

API server, etcd, webhook and load share the machine. Each round measures no webhook, the yes-only
webhook and TrainSeal's in turn, so that their ratios are of one run. Pods are created as the Job
controller would, as server-side dry runs: nothing is stored, and admission runs in full.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import defaultdict
from dataclasses import dataclass

from bench.figures import ratio, spread
from bench.rig import Rig, Served, on_api_server, rig, until
from bench.sealed import NAMESPACE, bare_pod, encode, seal
from bench.section import Section, paragraphs, table
from tests.cluster import Cluster
from tests.stage.people import with_openssl_key
from tests.stage.policies import policy
from trainseal.api.model import API_VERSION
from trainseal.cluster.api import path_of
from trainseal.provenance.policies import CompiledPolicy, compile_policy

CREATOR = {
    "Impersonate-User": "system:serviceaccount:kube-system:job-controller",
    "Impersonate-Group": "system:masters",
}
PATH = f"/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All"
CONCURRENCIES = (1, 20, 100)
WORDS = {"none": "no webhook", "yes": "yes-only", "trainseal": "TrainSeal"}


@dataclass(frozen=True, slots=True)
class Round:
    """One configuration, measured once."""

    rate: float
    median_ms: float
    cpu_per_1000: float


def measure(rounds: int, count: int) -> Section:
    """``count`` requests a step, a quarter of them at concurrency 1."""
    return on_api_server(lambda cluster: _measure(cluster, rounds, count))


async def _measure(cluster: Cluster, rounds: int, count: int) -> Section:
    async with rig(cluster) as ground:
        rules = await a_policy(ground)
        body = encode(await seal(ground.kube, ground.seal_key, ground.cluster_uid, rules))
        trainseal = ground.webhook()
        served: dict[str, Served | None] = {
            "none": None,
            "yes": ground.yes_only(),
            "trainseal": trainseal,
        }
        found: dict[tuple[str, int], list[Round]] = defaultdict(list)
        memory: list[float] = []
        for number in range(rounds + 1):
            for which, one in served.items():
                await switch(ground, one, which)
                for concurrency in CONCURRENCIES:
                    requests = requests_at(count, concurrency)
                    measured = await _load(ground, one, body, requests, concurrency)
                    if number:  # the first round warms up
                        found[which, concurrency].append(measured)
            if number:
                memory.append(trainseal.process.memory())
            print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
        return section(found, memory, count, len(body))


def requests_at(count: int, concurrency: int) -> int:
    """Requests of a step."""
    return count // 4 if concurrency == 1 else count


async def a_policy(ground: Rig) -> CompiledPolicy:
    """The team's, which enforces."""
    alice = with_openssl_key(ground.folder, "alice")
    made = policy(
        "bench", NAMESPACE, signers=[alice], image_signers=[alice], registries=["registry.example"]
    )
    await ground.kube.create(path_of(API_VERSION, "provenancepolicies"), made)
    return compile_policy(made, {})


async def _load(
    ground: Rig, served: Served | None, body: bytes, requests: int, concurrency: int
) -> Round:
    before = served.process.cpu() if served else 0.0
    measured = await ground.client.load(
        PATH, lambda _: body, CREATOR, count=requests, concurrency=concurrency
    )
    spent = (served.process.cpu() if served else 0.0) - before
    return Round(measured.rate, measured.median * 1000, spent * 1000 / requests)


def section(
    found: dict[tuple[str, int], list[Round]], memory: list[float], count: int, size: int
) -> Section:
    """What is told of the rounds; ``memory`` in MiB after each, ``size`` in bytes."""
    ratios, absolute = [], []
    for concurrency in CONCURRENCIES:
        ours, yes = found["trainseal", concurrency], found["yes", concurrency]
        ratios.append(
            [
                str(concurrency),
                ratio([r.rate for r in ours], [r.rate for r in yes]).text(),
                spread(a.median_ms - b.median_ms for a, b in zip(ours, yes, strict=True)),
                spread(r.cpu_per_1000 for r in ours),
                spread(r.cpu_per_1000 for r in yes),
            ]
        )
        for which, words in WORDS.items():
            rows = found[which, concurrency]
            absolute.append(
                [
                    str(concurrency),
                    words,
                    spread((r.rate for r in rows), 0),
                    spread(r.median_ms for r in rows),
                ]
            )
    requests = ", ".join(f"{requests_at(count, c):,} at concurrency {c}" for c in CONCURRENCIES)
    goals = ["goal", "0.8 at 20 and 100", "1 at 1", "1.5", ""]
    markdown = paragraphs(
        f"{len(memory)} rounds; requests to each webhook in a round: {requests}. The pod has "
        f"{size:,} bytes.",
        table(
            [
                *("concurrency", "rate / yes-only", "ms more at the median"),
                *("CPU s per 1,000", "yes-only: CPU s per 1,000"),
            ],
            [*ratios, goals],
        ),
        table(["concurrency", "", "admissions a second", "median, ms"], absolute),
        f"Resident memory of the webhook, which knows one seal, after each round: "
        f"{spread(memory, 0)} MiB.",
    )
    rounds = {f"{w} {c}": [dataclasses.asdict(r) for r in rs] for (w, c), rs in found.items()}
    return Section(markdown, {"rounds": rounds, "memory": memory})


async def switch(ground: Rig, served: Served | None, which: str) -> None:
    """Makes the API server ask one webhook, or none, and waits until it does."""
    await ground.ask(served, "pods.trainseal.dev")
    words = {"none": b'"kind":"Pod"', "yes": b"yes-only", "trainseal": b"sealed run"}[which]
    probe = encode(bare_pod())

    async def is_asked() -> bool:
        return words in (await ground.client.post(PATH, probe, CREATOR))[1]

    await until(is_asked, f"{which} is asked")
