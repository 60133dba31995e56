"""``python -m bench.part NAME EXTENT FILE``: one bench, in this process; see `bench.parts`."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bench import atsize, jobs, launches, memory, pods, submit, training, tutorial, watch
from bench.parts import write
from bench.section import Section
from bench.watchground import CLUSTER as WATCHED


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured; ``acts`` and ``quick`` are the watch's."""

    rounds: int = 5
    count: int = 1000
    acts: int | None = None
    quick: bool = False


@dataclass(frozen=True, slots=True)
class Bench:
    """``cluster`` is the name of the one it brings up, ``limit`` the seconds that it may take.

    Limits are several times of what two cores take, and what images take to be built.
    """

    measure: Callable[[Extent], Section]
    cluster: str
    limit: float


def _watch(extent: Extent) -> Section:
    found = watch.QUICK if extent.quick else watch.Extent()
    return watch.measure(replace(found, acts=extent.acts or found.acts))


BENCHES: Mapping[str, Bench] = {
    "pods": Bench(lambda e: pods.measure(e.rounds, e.count), "bench-api", 900),
    "jobs": Bench(lambda e: jobs.measure(e.rounds, e.count), "bench-api", 1500),
    "memory": Bench(lambda e: memory.measure(e.count), "bench-api", 2400),
    "atsize": Bench(lambda e: atsize.measure(e.rounds, e.count), "bench-api", 1800),
    "submit": Bench(lambda e: submit.measure(e.rounds), "bench-api", 900),
    "launches": Bench(lambda e: launches.measure(min(e.rounds, 3), 200), "bench", 3600),
    "training": Bench(lambda e: training.measure(e.rounds), "bench", 2400),
    "tutorial": Bench(lambda e: tutorial.measure(min(e.rounds, 3)), "bench", 2400),
    "watch": Bench(_watch, WATCHED, 1800),
}


def main() -> None:
    """Measures, and writes the section into the file."""
    # Whoever starts us in the background ignores it, and we would, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    name, extent, to = sys.argv[1:]
    write(BENCHES[name].measure(Extent(**json.loads(extent))), Path(to))


if __name__ == "__main__":
    main()
