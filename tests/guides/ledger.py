"""The commands of the pages that no walk carries out: which test does, or why none can.

A command that is not in elsewhere.yaml is run by the walk of its page, as it is printed. Entries
are whole commands: one that the page changes is one that nobody has looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

_FILE = Path(__file__).with_name("elsewhere.yaml")


@dataclass(frozen=True, slots=True)
class Entry:
    """A page's command, on one line: ``test`` carries it out, or none does for this ``reason``."""

    page: str
    command: str
    test: str = ""
    reason: str = ""


@cache
def entries() -> tuple[Entry, ...]:
    """All, in the order of the file."""
    return tuple(
        Entry(page, command, group.get("by", ""), group.get("not", ""))
        for page, groups in yaml.safe_load(_FILE.read_text()).items()
        for group in groups
        for command in group["commands"]
    )


def one_line(command: str) -> str:
    """A command over several lines as one."""
    return re.sub(r"\s+", " ", command.replace("\\\n", " ")).strip()


def elsewhere(page: str, command: str) -> bool:
    """Whether the page's walk leaves the command out."""
    return (page, one_line(command)) in {(entry.page, entry.command) for entry in entries()}
