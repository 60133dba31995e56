"""How long `trainseal submit` of a 50 MB tree takes, beside `kubectl apply` of the signed job.

First: all of the tree is hashed, packed, pushed and signed, the job signed and created. Again: one
file changed, so that one layer is sent. The job passes the real webhook, which fetches and verifies
what was just pushed. The registry is on loopback. Each program starts anew, as for people.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from bench.figures import spread
from bench.jobs import RULES
from bench.rig import Rig, on_api_server, rig
from bench.sealed import Object
from bench.section import Section, paragraphs, table
from bench.signedjobs import Workshop, until_asked, workshop
from tests.cluster import Cluster

_MIB = 2**20
#: What has no end within this time has none.
_SECONDS = 120.0
_APPLY = "`kubectl apply` of the signed job"
_SUBMITS = {"first": "`trainseal submit`, first", "again": "`trainseal submit`, one file changed"}
#: Files and bytes each: source and small data, and a few large ones.
_FILES = ((1200, 20 * 1024), (5, 5 * _MIB))


def measure(rounds: int) -> Section:
    """A tree of its own each round."""
    return on_api_server(lambda cluster: _measure(cluster, rounds))


async def _measure(cluster: Cluster, rounds: int) -> Section:
    async with rig(cluster) as ground, workshop(ground) as shop:
        webhook = ground.webhook(shop.registry.address)
        await ground.ask(webhook, *RULES)
        artifacts = await shop.artifacts("all")
        await until_asked(ground, shop, artifacts)
        found: dict[str, list[float]] = defaultdict(list)
        size = 0
        for number in range(rounds + 1):
            tree = ground.folder / f"tree-{number}"
            size = _write(tree, number)
            job = shop.job(f"apply-{number}", artifacts)
            times = {_APPLY: await asyncio.to_thread(_apply, ground, job)}
            for which, words in _SUBMITS.items():
                if which == "again":
                    (tree / "0-0.bin").write_bytes(b"one file changed")
                job = shop.unsigned(f"{which}-{number}", artifacts)
                seconds = await asyncio.to_thread(_submit, ground, shop, job, tree)
                times[words] = seconds
            if number:  # the first round warms up
                for name, seconds in times.items():
                    found[name].append(seconds)
            print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
        return section(found, size)


def _write(tree: Path, seed: int) -> int:
    """A tree that no registry has seen; its bytes."""
    tree.mkdir()
    chance = random.Random(seed)
    for kind, (count, size) in enumerate(_FILES):
        for number in range(count):
            (tree / f"{kind}-{number}.bin").write_bytes(chance.randbytes(size))
    return sum(count * size for count, size in _FILES)


def _apply(ground: Rig, job: Object) -> float:
    path = _file(ground, job)
    return _timed(ground, [str(ground.cluster.tools.kubectl), "apply", "-f", str(path)])


def _submit(ground: Rig, shop: Workshop, job: Object, tree: Path) -> float:
    path = _file(ground, job)
    flags = ["--wait", "none", "--plain-http", shop.registry.address]
    code = ["--code", str(tree), "--push", f"{shop.registry.address}/research/{tree.name}"]
    command = ["submit", "-f", str(path), "--key", str(shop.alice.key_file), *code, *flags]
    return _timed(ground, [sys.executable, "-m", "trainseal.cli.main", *command])


def _file(ground: Rig, job: Object) -> Path:
    path = ground.folder / f"{job['metadata']['name']}.json"
    path.write_text(json.dumps(job))
    return path


def _timed(ground: Rig, argv: Sequence[str]) -> float:
    environment = ground.cluster.environment()
    start = time.perf_counter()
    done = subprocess.run(
        argv, env=environment, capture_output=True, text=True, check=False, timeout=_SECONDS
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return time.perf_counter() - start


def section(found: dict[str, list[float]], size: int) -> Section:
    """What is told of the seconds; ``size`` of the tree in bytes."""
    apply = found[_APPLY]
    rows = [[_APPLY, spread(apply), "", ""]]
    for words in _SUBMITS.values():
        more = (a - b for a, b in zip(found[words], apply, strict=True))
        rows.append([words, spread(found[words]), spread(more), "5"])
    files = sum(number for number, _ in _FILES)
    markdown = paragraphs(
        f"{len(apply)} rounds; a tree of {size / 1e6:.0f} MB in {files:,} files.",
        table(["", "seconds", "more than `kubectl apply`", "goal"], rows),
    )
    return Section(markdown, {"bytes": size, "seconds": dict(found)})
