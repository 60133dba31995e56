"""``python -m bench [NAME …] [--rounds N] [--count N] [--acts N]``: all benches by default."""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from bench import jobs, memory, pods, submit, training, watch


def _watch(options: Namespace) -> None:
    extent = watch.QUICK if options.quick else watch.Extent()
    watch.run(replace(extent, acts=options.acts or extent.acts), options.json)


_BENCHES: Mapping[str, Callable[[Namespace], None]] = {
    "pods": lambda o: pods.run(o.rounds, o.count),
    "jobs": lambda o: jobs.run(o.rounds, o.count),
    "memory": lambda o: memory.run(o.rounds, o.count),
    "submit": lambda o: submit.run(o.rounds, o.count),
    "training": lambda o: training.run(o.rounds, o.count),
    "watch": _watch,
}


def main() -> None:
    """Runs the named benches."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="bench", help=", ".join(_BENCHES))
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (default 5)")
    parser.add_argument(
        "--count", type=int, default=1000, help="requests a step, or seals (default 1000)"
    )
    parser.add_argument("--acts", type=int, help="of watch: acts (default 100, quick 8)")
    parser.add_argument("--quick", action="store_true", help="of watch: only to see that it works")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="of watch: write its figures there, too"
    )
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(_BENCHES))
    if unknown:
        parser.error(f"found {', '.join(unknown)}, expected {', '.join(_BENCHES)}")
    for name in options.names or _BENCHES:
        _BENCHES[name](options)


if __name__ == "__main__":
    main()
