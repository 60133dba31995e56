"""What a bench gives back: its part of docs/reference/figures.md, and every value behind it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Section:
    """``markdown`` is what the page says; ``values`` is JSON, in the order of measuring."""

    markdown: str
    values: Any


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a cell that was not measured is empty."""
    lines = [_row(header), "|" + "---|" * len(header), *map(_row, rows)]
    return "\n".join(lines) + "\n"


def paragraphs(*parts: str) -> str:
    """One below the other, with an empty line between."""
    return "\n\n".join(part.strip() for part in parts)


def _row(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)
