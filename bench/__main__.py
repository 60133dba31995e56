"""Measures what docs/reference/figures.md says: all benches, or those that are named."""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from bench.machine import Machine, this_machine
from bench.page import replaced
from bench.part import BENCHES, Extent
from bench.parts import Outcome, run_part
from bench.pods import CONCURRENCIES
from bench.section import table
from tests.cluster.cluster import remove
from tests.cluster.progress import minutes, say

#: With fewer, the highest concurrency would not be reached.
_LEAST = max(CONCURRENCIES)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if all benches came to their end; 1 with which did not; 130 if interrupted."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.names) - set(BENCHES)):
        parser.error(f"found {', '.join(unknown)}, expected {', '.join(BENCHES)}")
    if given.quick and given.page:
        parser.error("found --quick with --page: what it measures is no figure")
    names = given.names or list(BENCHES)
    try:
        for name in names if given.page else ():
            replaced(given.page.read_text(), name, "")
    except (OSError, ValueError) as error:
        parser.error(f"{given.page}: {error}")
    extent = Extent(given.rounds, given.count, given.acts, given.quick)
    signal.signal(signal.SIGTERM, _interrupt)
    machine, began = this_machine(), time.monotonic()
    print(f"Figures of {machine.text()}\n", flush=True)
    outcomes: list[Outcome] = []
    try:
        for name in names:
            say(f"bench {name}")
            outcomes.append(_measured(name, extent))
            _keep(outcomes, machine, given.json, given.page)
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    finally:
        print(_summary(outcomes, time.monotonic() - began), flush=True)
    return 1 if any(o.section is None for o in outcomes) else 0


def _measured(name: str, extent: Extent) -> Outcome:
    bench = BENCHES[name]
    words = json.dumps(dataclasses.asdict(extent))
    argv = [sys.executable, "-m", "bench.part", name, words]
    return run_part(name, argv, bench.limit, lambda: remove(bench.cluster))


def _keep(
    outcomes: Sequence[Outcome], machine: Machine, values: Path | None, page: Path | None
) -> None:
    """Prints and writes what the last one found, before the next begins."""
    last = outcomes[-1]
    if last.section is None:
        say(f"bench {last.name} failed: {last.failure}")
    else:
        body = f"{_measured_on(machine, last.seconds)}\n\n{last.section.markdown}"
        print(f"## {last.name}\n\n{body}", flush=True)
        if page is not None:
            page.write_text(replaced(page.read_text(), last.name, body))
    if values is not None:
        values.write_text(json.dumps(_values(outcomes, machine), indent=2) + "\n")


def _measured_on(machine: Machine, seconds: float) -> str:
    today = datetime.now(UTC).date()
    return f"Measured {today} in {minutes(seconds)}: {machine.text()}."


def _values(outcomes: Sequence[Outcome], machine: Machine) -> Mapping[str, object]:
    return {
        "machine": dataclasses.asdict(machine),
        "benches": {
            o.name: {"failure": o.failure} if o.section is None else o.section.values
            for o in outcomes
        },
    }


def _summary(outcomes: Sequence[Outcome], seconds: float) -> str:
    rows = [[o.name, f"{o.seconds:.0f} s", o.failure or "measured"] for o in outcomes]
    return table(["bench", "took", ""], [*rows, ["in all", f"{seconds:.0f} s", ""]])


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="bench", help=", ".join(BENCHES))
    parser.add_argument("--rounds", type=_at_least(1), default=5, help="measured rounds (5)")
    parser.add_argument(
        "--count",
        type=_at_least(_LEAST),
        default=1000,
        help=f"requests a step, or sealed runs (1000, at least {_LEAST})",
    )
    parser.add_argument(
        "--acts", type=_at_least(1), help="of the watch: acts (100, with --quick 8)"
    )
    parser.add_argument("--quick", action="store_true", help="of the watch: only to see it work")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value there, too")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the tables into this page")
    return parser


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        found = int(text)
        if found < least:
            raise argparse.ArgumentTypeError(f"found {found}, expected at least {least}")
        return found

    return number


if __name__ == "__main__":
    sys.exit(main())
