"""What a check-up found, piece by piece, and how it is shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from rich.console import Console
from rich.text import Text

from trainseal.cli.failures import DONE, REFUTED
from trainseal.cluster.api import KubeError

_MOST_NAMED = 5


class Health(StrEnum):
    """What was found of one piece."""

    GOOD = "good"
    #: As somebody may mean it; worth knowing.
    NOTED = "noted"
    WRONG = "wrong"
    UNSEEN = "unseen"


@dataclass(frozen=True, slots=True)
class Finding:
    """One piece: what was found of it and, where it is wrong, what to do."""

    what: str
    health: Health
    found: str
    remedy: str = ""


def exit_code(findings: list[Finding]) -> int:
    """1 where something is wrong."""
    return REFUTED if any(f.health is Health.WRONG for f in findings) else DONE


def show(findings: list[Finding], *, as_json: bool) -> None:
    """The findings, on stdout."""
    if as_json:
        print(json.dumps([asdict(f) for f in findings], indent=2))  # noqa: T201
        return
    marks = {
        Health.GOOD: ("✓", "green"),
        Health.NOTED: ("!", "yellow"),
        Health.WRONG: ("✗", "red"),
        Health.UNSEEN: ("?", "yellow"),
    }
    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        mark, color = marks[finding.health]
        text = Text(f"{mark} ", color)
        text.append(finding.what, "bold")
        text.append(f" {finding.found}", "")
        if finding.remedy:
            text.append(f"\n    to do: {finding.remedy}")
        console.print(text)


def some(names: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def unseen(what: str, error: KubeError) -> Finding:
    """What may not be looked at. Raises the error where the API server did not answer at all."""
    if error.status == 0:
        raise error
    return Finding(what, Health.UNSEEN, f"cannot be looked at: {error.message}")
