"""The watch: from an act to its finding and to the frozen process, and what the agent costs.

On a full cluster of its own, whose one node has eight sealed pods with PyTorch loaded. The acts
are those of a process that is in the pod already, which takes the time before it opens the file;
all times are CLOCK_MONOTONIC of the one machine. API server, etcd, kubelet and the bench itself
share its cores.

Training with and without the agent: a trainer on every core but one, which it has to itself, as
the kubelet's static CPU manager gives it; all else shares the one. A node with GPUs has processors
to spare for what is not training; where trainers share them, what is measured is their quarrel with
the API server. The agent's process is stopped (SIGSTOP) for one of each two stretches of a quarter
of a second, drawn by lot: a virtual machine's speed drifts within seconds, and neighbours in time
are alike. To take the agent off the node and to put it back takes far longer, and a new agent reads
everything anew. Its marks stay meanwhile, so what the kernel does for them is in both; that is
measured at the end with the agent taken off. A sweep that fell due while the agent was stopped is
made up for in the stretch after it: all of what it does is done in half of the time, and the
difference is over- and not understated. The same is done with the agent left alone, which must give
no difference.
"""

from __future__ import annotations

import asyncio
import bisect
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.figures import percentile, ratio_interval, spread
from bench.processes import cores_of_their_own
from bench.section import Section, paragraphs, table
from bench.watchedworker import ACTED, COUNTED, FOLDER
from bench.watchground import CACHE, CLUSTER, PODS, Ground, Pod, ground
from tests.cluster import Cluster

_ACT_SECONDS = 15.0
_POLL = 0.0005
_STILL = 0.02
#: Seconds from checkpoint to checkpoint while steps are compared.
_PAUSE = 10.0
_OPTIMIZER = "/torch/optim/sgd.py"
#: The page's order: key, what it is, goal for p99, in milliseconds.
_ROWS = (
    ("finding", "to the finding in the API", "1000"),
    ("frozen", "to the frozen process, by its last count", "200"),
    ("frozen_read", "to the freezer's word FROZEN", ""),
)


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured; times in seconds."""

    acts: int = 100
    settle: float = 15.0
    windows: int = 3
    window: float = 10.0
    warm: float = 12.0
    pairs: int = 600
    stretch: float = 0.25
    writes: int = 100_000
    flood: float = 60.0


#: Enough to see that it works; the figures are worth nothing.
QUICK = Extent(8, 2.0, 2, 3.0, 3.0, 8, 0.25, 5_000, 3.0)


def measure(extent: Extent) -> Section:
    """All of it, on one cluster."""
    cluster = Cluster.up(CLUSTER)
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = asyncio.run(_measure(cluster, Path(folder), extent))
        return Section(markdown(found), found)
    finally:
        cluster.down()


async def _measure(cluster: Cluster, folder: Path, extent: Extent) -> dict[str, Any]:
    found: dict[str, Any] = {"cores": os.cpu_count(), "pods": PODS, "acts": extent.acts}
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:4.0f} s  {what}", file=sys.stderr, flush=True)

    say("TrainSeal is installed, the pods start")
    async with ground(cluster, folder) as there:
        try:
            say("the node is idle")
            found["idle"] = await _idle(there, extent)
            say("training, the agent on and off")
            found["training"] = await _training(there, extent)
            files = await there.pods[0].tell("installed")
            (optimizer,) = (f for f in files if f.endswith(_OPTIMIZER))
            files.remove(optimizer)
            random.Random(1906).shuffle(files)
            say("acts, until they are found")
            found["finding"] = await _findings(there, files[: extent.acts])
            say("flood")
            found["flood"] = await _flood(there, extent, optimizer)
            say("acts, until the pod is frozen")
            await asyncio.to_thread(there.respond, "Freeze")
            found |= await _freezes(there, files[extent.acts : 2 * extent.acts + 1])
            say("the kernel's part")
            found["kernel"] = await _kernel(there)
        finally:
            there.agent.go_on()
    say("done")
    return found


async def _idle(there: Ground, extent: Extent) -> dict[str, Any]:
    """The agent's share of a core in each of some windows, and its memory."""
    await asyncio.sleep(extent.settle)
    shares, memory = [], []
    for _ in range(extent.windows):
        shares.append(await _share(there, extent.window))
        memory.append(there.agent.memory())
    return {"share": shares, "seconds": extent.window, "memory": memory}


async def _share(there: Ground, seconds: float) -> float:
    """The share of one core that the agent takes over that time."""
    pid = there.agent.pid
    began, before = time.monotonic(), there.agent.cpu()
    await asyncio.sleep(seconds)
    share = (there.agent.cpu() - before) / (time.monotonic() - began)
    if there.agent.pid != pid:
        raise RuntimeError("the agent was replaced while it was measured: look at its log")
    return share


async def _training(there: Ground, extent: Extent) -> dict[str, Any]:
    """One trainer with the agent on, for its share; then one a core but one, on and off."""
    alone = asyncio.ensure_future(there.pods[0].tell("train", seconds=extent.warm + 1.0))
    await asyncio.sleep(1.0)
    share = await _share(there, extent.warm - 1.0)
    await alone
    left_alone = await _compared(there, extent, lambda _: None)
    compared = await _compared(
        there, extent, lambda on: (there.agent.go_on if on else there.agent.stop)()
    )
    there.agent.go_on()
    return {"share": share, "alone": left_alone, **compared}


async def _compared(
    there: Ground, extent: Extent, change: Callable[[bool], None]
) -> dict[str, Any]:
    """Steps after ``change`` to on and to off, in pairs of stretches, each in an order by lot."""
    trainers = there.pods[: max((os.cpu_count() or 1) - 1, 1)]
    seconds = 2.0 + 2 * extent.pairs * (extent.stretch + 0.005)
    stretches: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    lot = random.Random(1906)
    with cores_of_their_own([pod.pid for pod in trainers]):
        working = [
            asyncio.ensure_future(pod.tell("train", seconds=seconds, every=1, pause=_PAUSE))
            for pod in trainers
        ]
        await asyncio.sleep(1.0)
        for _ in range(extent.pairs):
            for on in lot.choice(((True, False), (False, True))):
                change(on)
                began = time.monotonic_ns()
                await asyncio.sleep(extent.stretch)
                stretches[on].append((began, time.monotonic_ns()))
        steps = sorted(step for done in await asyncio.gather(*working) for step in map(tuple, done))
    with_it, without = (
        [_mean_step(steps, begin, end) for begin, end in stretches[on]] for on in (True, False)
    )
    interval = ratio_interval(with_it, without)
    return {
        "trainers": len(trainers),
        "steps": len(steps),
        "with": with_it,
        "without": without,
        "ratio": [interval.mean, interval.low, interval.high],
        "more": interval.percent(),
    }


def _mean_step(steps: Sequence[tuple[int, int]], begin: int, end: int) -> float:
    """Milliseconds, of the steps that lie within; ``steps`` are in order of time."""
    first = bisect.bisect_left(steps, (begin, 0))
    last = bisect.bisect_left(steps, (end, 0))
    return statistics.mean(took / 1e6 for at, took in steps[first:last] if at + took <= end)


async def _findings(there: Ground, files: Sequence[str]) -> list[float | None]:
    """Milliseconds from each act to its finding; acts go over the pods in turn."""
    found: list[float | None] = []
    chance = random.Random(1906)
    for number, path in enumerate(files):
        pod = there.pods[number % PODS]
        at = await pod.tell("append", path=path)
        seen = await there.findings.when(pod, path, _ACT_SECONDS)
        found.append(None if seen is None else (seen - at) / 1e6)
        await asyncio.sleep(chance.uniform(0.05, 0.25))
    return found


async def _freezes(there: Ground, files: Sequence[str]) -> dict[str, list[float | None]]:
    """Milliseconds from each act to the process's last count, and to the freezer's word.

    The first freeze makes the operator freeze the job's other pods, too: it does not count, and
    all are let go on by their control groups, so that neither agent nor operator is asked.
    """
    first, *rest = files
    await asyncio.sleep(2.0)  # the policy reaches the agent by watch
    await _freeze(there.pods[0], first)
    await asyncio.sleep(4.0)
    for pod in there.pods:
        pod.thaw()
    found: dict[str, list[float | None]] = {"frozen": [], "frozen_read": []}
    chance = random.Random(1906)
    for number, path in enumerate(rest):
        pod = there.pods[number % PODS]
        pod.thaw()
        counted, read = await _freeze(pod, path)
        found["frozen"].append(counted)
        found["frozen_read"].append(read)
        await asyncio.sleep(chance.uniform(0.05, 0.2))
    return found


async def _freeze(pod: Pod, path: str) -> tuple[float | None, float | None]:
    """One act; both are None where the pod was not frozen in time. It goes on afterwards."""
    sent = time.monotonic_ns()
    await pod.send("append", path=path, count=True)
    found: tuple[float | None, float | None] = (None, None)
    while time.monotonic_ns() - sent < _ACT_SECONDS * 1e9:
        if pod.frozen:
            read, at = time.monotonic_ns(), pod.slate(ACTED)
            if at < sent:  # by an order that came late: it had not acted
                pod.thaw()
                continue
            last = pod.slate(COUNTED)
            await asyncio.sleep(_STILL)
            if pod.slate(COUNTED) != last:
                raise RuntimeError(f"{pod.name} counts on although its freezer says FROZEN")
            found = (last - at) / 1e6, (read - at) / 1e6
            break
        await asyncio.sleep(_POLL)
    pod.enough()
    pod.thaw()
    await pod.answer()
    return found


async def _flood(there: Ground, extent: Extent, bad: str) -> dict[str, Any]:
    """Excepted writes, each of which makes events, and a bad one among them."""
    pod = there.pods[-1]
    before = there.agent.cpu()
    done = await pod.tell(
        "flood",
        folder=CACHE,
        files=2000,
        writes=extent.writes,
        seconds=extent.flood,
        bad=bad,
    )
    seen = await there.findings.when(pod, bad, 30.0)
    return {
        "writes": extent.writes,
        "seconds": done["seconds"],
        "found": seen is not None,
        "process named": there.findings.names_a_process(pod, bad),
        "milliseconds": None if seen is None else (seen - done["at"]) / 1e6,
        "share": (there.agent.cpu() - before) / done["seconds"],
        "overflow": "watch.overflow" in there.findings.ids,
        "memory": there.agent.memory(),
    }


async def _kernel(there: Ground) -> dict[str, dict[str, float]]:
    """What a small write takes with the marks set, and with the agent off the node."""
    pod = there.pods[0]
    pod.thaw()
    there.agent.stop()
    found = {"marks": await pod.tell("writes", rounds=10, count=200)}
    there.agent.go_on()
    await there.without_agent()
    pod.thaw()
    found["none"] = await pod.tell("writes", rounds=10, count=200)
    return found


def markdown(found: dict[str, Any]) -> str:
    """What is told of the values."""
    acts = []
    for key, what, goal in _ROWS:
        values = [v for v in found[key] if v is not None]
        shares = (0.5, 0.99, 0.0, 1.0) if values else ()
        cells = [f"{percentile(values, share):.1f}" for share in shares] or [""] * 4
        acts.append([what, *cells, goal, f"{len(values)} of {len(found[key])}"])
    return paragraphs(
        f"{found['pods']} sealed pods on the one node.",
        table(["ms from the act", "p50", "p99", "least", "most", "goal, p99", "acts"], acts),
        table(["the agent", "", "goal"], _agent_rows(found)),
    )


def _agent_rows(found: dict[str, Any]) -> list[list[str]]:
    idle, training, flood = found["idle"], found["training"], found["flood"]
    marks, none = found["kernel"]["marks"], found["kernel"]["none"]
    writes = ", ".join(f"{f} {none[f]:.1f} to {marks[f]:.1f}" for f in (str(FOLDER), "/tmp"))
    when = f"found after {flood['milliseconds']:.0f} ms" if flood["found"] else "**not found**"
    named = "process named" if flood["process named"] else "process not named"
    lost = "events lost" if flood["overflow"] else "no event lost"
    windows = f"{len(idle['share'])} windows of {idle['seconds']:.0f} s"
    trainers = (
        f"trainers, each on a core of its own: {training['trainers']}; "
        f"{len(training['with'])} pairs of stretches"
    )
    writing = (
        f"{flood['writes']:,} excepted writes in {flood['seconds']:.0f} s, a bad one among them"
    )
    return [
        [
            f"idle, of one core ({windows})",
            f"{spread(100 * share for share in idle['share'])} %",
            "below 1 %",
        ],
        ["resident memory, idle", f"{spread(idle['memory'], 0)} MiB", "below 80 MiB"],
        ["resident memory, after the flood", f"{flood['memory']:.0f} MiB", "below 80 MiB"],
        [
            "one trainer with logs and checkpoints, of one core (one window)",
            f"{100 * training['share']:.2f} %",
            "below 3 %",
        ],
        [
            f"step time with it against without ({trainers})",
            f"{training['more']}, 95 % confidence",
            "below 1 % more",
        ],
        ["the same, with the agent left alone", training["alone"]["more"], "none"],
        ["a small write, without marks and with them, µs", writes, ""],
        [
            writing,
            f"{when}, {named}, {lost}; agent {100 * flood['share']:.0f} % of a core",
            "found",
        ],
    ]
