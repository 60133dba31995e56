"""Admission, memory and a replica's start with thousands of sealed pods in the cluster.

The runs are made first (`manyruns`): their objects and pods stand in the API as they would with
kubelets and agents, and no node is there. Then, on that cluster:

* a replica of the webhook is started and ended again: seconds until it says that it is ready;
* sealed pods are created as in `pods`, a pod of another run each time, with no webhook, with one
  that only says yes and with TrainSeal's in turn; all seconds are kept, for their 99th percentile;
* the controller takes the runs over, and memory is read over a comparison of them all.

The controller runs for the last of these only: elsewhere it has a node of its own to run on, and
here it would take a core from what is measured.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import aiohttp

from bench.figures import ratio, spread
from bench.load import Measured
from bench.manyruns import PODS_A_NODE, make_runs
from bench.memory import SETTLED, Level, refuse_findings, running, settled, until_so_many
from bench.pods import CONCURRENCIES, CREATOR, PATH, WORDS, a_policy, requests_at, switch
from bench.rig import Rig, Served, on_api_server, rig
from bench.sealed import Object, encode
from bench.section import Section, paragraphs, table
from tests.cluster import Cluster

WORKERS = 8
#: Megabytes of webhook and controller each, and seconds until a replica is ready.
GOAL_MIB, GOAL_SECONDS = 300, 5
_READY_WITHIN = 120.0


@dataclass(frozen=True, slots=True)
class Size:
    """How many runs there are, and pods of them."""

    runs: int
    pods: int


@dataclass(frozen=True, slots=True)
class Held:
    """Memory in MiB with all runs: as read each second, and the most that it ever was.

    ``first`` reads over the controller's first looks at all runs, ``level`` over the next.
    """

    first: Level
    level: Level
    peak: Mapping[str, float]


def measure(rounds: int, count: int) -> Section:
    """``count`` runs, and requests a step (a quarter of them at concurrency 1)."""
    return on_api_server(lambda cluster: _measure(cluster, rounds, count))


async def _measure(cluster: Cluster, rounds: int, count: int) -> Section:
    async with rig(cluster) as ground:
        began = time.monotonic()
        pods = await make_runs(ground, await a_policy(ground), count, WORKERS)
        size = Size(count, count * WORKERS)
        _say(f"{size.pods} pods of {size.runs} runs in {time.monotonic() - began:.0f} s")
        ready = await _starts(ground, rounds)
        _say(f"ready after {spread(ready)} s")
        webhook = ground.webhook()
        await _ready(webhook)
        found = await _admissions(ground, webhook, pods, rounds, count)
        return section(size, found, ready, await _memory(ground, webhook, count))


async def _starts(ground: Rig, rounds: int) -> list[float]:
    """Seconds from a replica's start until it is ready."""
    seconds = []
    for number in range(rounds + 1):
        with ExitStack() as alone:
            began = time.monotonic()
            await _ready(replace(ground, stack=alone).webhook())
            if number:  # the first one reads its program from the disk
                seconds.append(time.monotonic() - began)
    return seconds


async def _ready(served: Served) -> None:
    deadline = time.monotonic() + _READY_WITHIN
    url = f"http://127.0.0.1:{served.health}/readyz"
    async with aiohttp.ClientSession() as session:
        while True:
            served.process.alive()
            try:
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass  # it does not listen yet
            if time.monotonic() > deadline:
                raise RuntimeError(f"the webhook was not ready within {_READY_WITHIN:.0f} s")
            await asyncio.sleep(0.01)


async def _admissions(
    ground: Rig, webhook: Served, pods: Sequence[Object], rounds: int, count: int
) -> Mapping[tuple[str, int], list[Measured]]:
    bodies = [encode(pod) for pod in pods]
    served: dict[str, Served | None] = {
        "none": None,
        "yes": ground.yes_only(),
        "trainseal": webhook,
    }
    found: dict[tuple[str, int], list[Measured]] = defaultdict(list)
    for number in range(rounds + 1):
        for which, one in served.items():
            await switch(ground, one, which)
            for concurrency in CONCURRENCIES:
                measured = await ground.client.load(
                    PATH,
                    lambda at: bodies[at % len(bodies)],
                    CREATOR,
                    count=requests_at(count, concurrency),
                    concurrency=concurrency,
                )
                if number:  # the first round warms up
                    found[which, concurrency].append(measured)
        _say(f"round {number} of {rounds}")
    return found


async def _memory(ground: Rig, webhook: Served, runs: int) -> Held:
    processes = {"webhook": webhook.process, "controller": ground.controller()}
    await until_so_many(lambda: running(ground.kube), runs, "jobs are Running", processes)
    _say("the controller has taken all runs over")
    first, level = await settled(runs, processes), await settled(runs, processes)
    await refuse_findings(ground.kube)
    return Held(first, level, {name: one.peak() for name, one in processes.items()})


def section(
    size: Size,
    found: Mapping[tuple[str, int], Sequence[Measured]],
    ready: Sequence[float],
    held: Held,
) -> Section:
    """What is told of the rounds and of ``ready``, in seconds."""
    rows = []
    for concurrency in CONCURRENCIES:
        yes = found["yes", concurrency]
        for which, words in WORDS.items():
            rounds = found[which, concurrency]
            rates = ratio([r.rate for r in rounds], [r.rate for r in yes]).text()
            rows.append(
                [
                    str(concurrency),
                    words,
                    spread((r.rate for r in rounds), 0),
                    "" if which == "yes" else rates,
                    spread((r.median * 1000 for r in rounds), 1),
                    spread((r.p99 * 1000 for r in rounds), 1),
                ]
            )
    requests = ", ".join(
        f"{len(found['none', c][0].seconds):,} at concurrency {c}" for c in CONCURRENCIES
    )
    memory = [
        [name, spread(held.level.memory[name], 0), f"{held.peak[name]:.0f}", f"{GOAL_MIB}"]
        for name in ("webhook", "controller")
    ]
    markdown = paragraphs(
        f"{size.pods:,} sealed pods, {WORKERS} workers a run, {PODS_A_NODE} pods a node. "
        f"{len(ready)} rounds; requests to each in a round: {requests}.",
        table(
            [
                *("concurrency", "", "admissions a second", "rate / yes-only"),
                *("median, ms", "p99, ms"),
            ],
            rows,
        ),
        table(["", "MiB", "MiB at the most, ever", "goal"], memory),
        f"Memory is read each second over {SETTLED:.0f} s, from {SETTLED:.0f} s after the "
        f"controller has taken all runs over. Until then, while it looks at all of them for the "
        f"first time, it takes {_percent(held.first)} of a core, and {_percent(held.level)} from "
        f"then on. A replica of the webhook is ready {spread(ready)} s after its start (goal: "
        f"{GOAL_SECONDS}).",
    )
    seconds = {
        f"{which} {concurrency}": [
            {"rate": r.rate, "seconds": [round(s, 6) for s in r.seconds]} for r in rounds
        ]
        for (which, concurrency), rounds in found.items()
    }
    values = {
        "runs": size.runs,
        "pods": size.pods,
        "ready": list(ready),
        "memory": {name: list(each) for name, each in held.level.memory.items()},
        "peak": dict(held.peak),
        "share": [dict(held.first.share), dict(held.level.share)],
        "rounds": seconds,
    }
    return Section(markdown, values)


def _percent(level: Level) -> str:
    return f"{100 * level.share['controller']:.0f} %"


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
