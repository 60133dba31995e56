"""What webhook and controller hold in memory: with no run, and with many that go on.

The jobs pass admission and are sealed, bound and resumed by the real processes. No kubelet and no
Job controller are there: what those would write is written here, so that each run has a pod that
runs on a node, admitted by the webhook, and the report of its agent (see `runningpods`). All runs
are live: those that have ended leave the webhook's index.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from bench.figures import spread
from bench.jobs import RULES
from bench.processes import Measured
from bench.rig import Rig, on_api_server, rig
from bench.runningpods import run_pod
from bench.sealed import NAMESPACE, Object, encode
from bench.section import Section, paragraphs, table
from bench.signedjobs import COLLECTION, Artifacts, Workshop, until_asked, workshop
from tests.cluster import Cluster
from trainseal.api import driftreport
from trainseal.api.model import API_VERSION
from trainseal.cluster.api import Kube, path_of
from trainseal.controller.comparing import FULL_PASS_SECONDS

_AT_ONCE = 8
#: Memory is read each second for so long: a comparison of all runs falls into it.
SETTLED = FULL_PASS_SECONDS + 10.0
_SEALS = path_of(API_VERSION, "sealedruns", NAMESPACE)


@dataclass(frozen=True, slots=True)
class Level:
    """Resident MiB, read each second, and shares of a core, by process, with so many runs."""

    runs: int
    memory: Mapping[str, list[float]]
    share: Mapping[str, float]


def measure(count: int) -> Section:
    """With no run, with a quarter of ``count``, and with ``count``."""
    return on_api_server(lambda cluster: _measure(cluster, count))


async def _measure(cluster: Cluster, count: int) -> Section:
    async with rig(cluster) as ground, workshop(ground) as shop:
        webhook = ground.webhook(shop.registry.address)
        processes = {
            "webhook": webhook.process,
            "controller": ground.controller(shop.registry.address),
        }
        await ground.ask(webhook, *RULES, "pods.trainseal.dev")
        artifacts = await shop.artifacts("all")
        await until_asked(ground, shop, artifacts)
        levels: list[Level] = []
        there, seconds = 0, 0.0
        for wanted in (0, count // 4, count):
            began = time.perf_counter()
            await _bring(ground, shop, artifacts, there, wanted, processes)
            seconds += time.perf_counter() - began
            there = wanted
            print(f"{there} runs", file=sys.stderr, flush=True)
            levels.append(await settled(there, processes))
            await refuse_findings(ground.kube)
        return section(levels, count / seconds)


async def _bring(
    ground: Rig,
    shop: Workshop,
    artifacts: Artifacts,
    there: int,
    wanted: int,
    processes: Mapping[str, Measured],
) -> None:
    """Submits runs until there are so many, and has a pod of each run."""
    if wanted == there:
        return

    async def until(holds: Callable[[], Awaitable[int]], what: str) -> None:
        await until_so_many(holds, wanted, what, processes)

    await ground.client.load(
        COLLECTION,
        lambda number: encode(shop.job(f"run-{there + number}", artifacts)),
        {},
        count=wanted - there,
        concurrency=_AT_ONCE,
    )
    await until(lambda: _bound(ground.kube, wanted), "seals are bound")
    numbers = iter(range(there, wanted))

    async def worker() -> None:
        for number in numbers:
            await run_pod(ground, f"run-{number}-worker", f"node-{number // 8}")

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(worker())
    await until(lambda: running(ground.kube), "jobs are Running")


async def until_so_many(
    found: Callable[[], Awaitable[int]],
    wanted: int,
    what: str,
    processes: Mapping[str, Measured],
) -> None:
    """Two seconds for each run, and a minute."""
    seconds = 60.0 + 2.0 * wanted
    deadline = time.monotonic() + seconds
    while (number := await found()) < wanted:
        for process in processes.values():
            process.alive()
        if time.monotonic() > deadline:
            raise RuntimeError(f"{number} in {seconds:.0f} s, expected {wanted}: {what}")
        await asyncio.sleep(1.0)


async def _bound(kube: Kube, wanted: int) -> int:
    # Counted first, which costs the API server next to nothing: it is measured here too.
    first: Object = await kube.request("GET", _SEALS, query={"limit": "1"})
    found = len(first["items"]) + first["metadata"].get("remainingItemCount", 0)
    if found < wanted:
        return int(found)
    page: Object = await kube.request("GET", _SEALS, seconds=60)
    return sum("binding" in item.get("status", {}) for item in page["items"])


async def running(kube: Kube) -> int:
    """How many TrainingJobs say that they run."""
    page: Object = await kube.request("GET", COLLECTION, seconds=60)
    return sum(item.get("status", {}).get("phase") == "Running" for item in page["items"])


async def settled(runs: int, processes: Mapping[str, Measured]) -> Level:
    """Reads while a comparison of all runs goes on."""
    began, before = time.monotonic(), {name: one.cpu() for name, one in processes.items()}
    memory: dict[str, list[float]] = {name: [] for name in processes}
    while time.monotonic() - began < SETTLED:
        await asyncio.sleep(1.0)
        for name, process in processes.items():
            memory[name].append(process.memory())
    seconds = time.monotonic() - began
    share = {name: (one.cpu() - before[name]) / seconds for name, one in processes.items()}
    return Level(runs, memory, share)


async def refuse_findings(kube: Kube) -> None:
    """The pods are made here: one that is not what its seal says would be another measurement."""
    page: Object = await kube.request(
        "GET", path_of(API_VERSION, driftreport.PLURAL, NAMESPACE), seconds=60
    )
    for report in page["items"]:
        for finding in report.get("status", {}).get("findings") or ():
            raise RuntimeError(f"found {finding['id']}: {finding['message']}, expected no finding")


def section(levels: list[Level], rate: float) -> Section:
    """What is told of the levels; ``rate`` in runs a second."""
    rows = [
        [
            f"{level.runs:,}",
            spread(level.memory["webhook"], 0),
            spread(level.memory["controller"], 0),
            f"{100 * level.share['controller']:.0f} %",
        ]
        for level in levels
    ]
    header = ["runs that go on", "webhook, MiB", "controller, MiB", "controller, of a core"]
    first, last = levels[0], levels[-1]
    each = {
        name: (max(last.memory[name]) - max(first.memory[name])) * 1024 / last.runs
        for name in first.memory
    }
    markdown = paragraphs(
        f"One worker a run. Read each second over {SETTLED:.0f} s once all of them run.",
        table(header, rows),
        f"From the highest readings, a run takes {each['webhook']:.0f} KiB in the webhook and "
        f"{each['controller']:.0f} KiB in the controller. Signed, sealed and running: "
        f"{rate:.1f} runs a second.",
    )
    return Section(markdown, [dataclasses.asdict(level) for level in levels])
