"""``python -m bench [NAME …] [--rounds N] [--count N]``: all benches by default."""

from __future__ import annotations

import argparse

from bench import jobs, memory, pods, submit, training

_BENCHES = {
    "pods": pods.run,
    "jobs": jobs.run,
    "memory": memory.run,
    "submit": submit.run,
    "training": training.run,
}


def main() -> None:
    """Runs the named benches."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="bench", help=", ".join(_BENCHES))
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (default 5)")
    parser.add_argument(
        "--count", type=int, default=1000, help="requests a step, or seals (default 1000)"
    )
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(_BENCHES))
    if unknown:
        parser.error(f"found {', '.join(unknown)}, expected {', '.join(_BENCHES)}")
    for name in options.names or _BENCHES:
        _BENCHES[name](options.rounds, options.count)


if __name__ == "__main__":
    main()
