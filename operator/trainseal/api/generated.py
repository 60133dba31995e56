"""Generated files that are checked in: written by ``make``, compared by ``make lint``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path


def differences(folder: Path, wanted: Mapping[str, str], pattern: str) -> list[str]:
    """One line for each file of ``folder`` that is missing, stale, or of no use any more."""
    found = []
    for name, text in wanted.items():
        path = folder / name
        if not path.is_file():
            found.append(f"{path}: missing")
        elif path.read_text(encoding="utf-8") != text:
            found.append(f"{path}: stale")
    found += [
        f"{path}: nothing generates it" for path in folder.glob(pattern) if path.name not in wanted
    ]
    return sorted(found)


def write(folder: Path, wanted: Mapping[str, str], pattern: str) -> None:
    """Makes the folder's files of ``pattern`` exactly the wanted ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(pattern):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text, encoding="utf-8")


def main(
    wanted: Mapping[str, str], pattern: str, command: str, default: str, arguments: list[str]
) -> int:
    """``[--check] [DIR]``: 0 written or fresh, 1 stale, 64 usage."""
    check = "--check" in arguments
    rest = [a for a in arguments if a != "--check"]
    if len(rest) > 1 or (rest and rest[0].startswith("-")):
        sys.stderr.write(f"usage: python -m {command} [--check] [DIR], by default {default}\n")
        return 64
    folder = Path(rest[0] if rest else default)
    if not check:
        write(folder, wanted, pattern)
        return 0
    stale = differences(folder, wanted, pattern)
    for line in stale:
        sys.stderr.write(line + "\n")
    if stale:
        sys.stderr.write(f"run: python -m {command} {folder}\n")
    return 1 if stale else 0
