"""How people are told of numbers."""

from __future__ import annotations


def counted(number: int, what: str) -> str:
    """As in ``1 file``, ``2 files``."""
    return f"{number} {what}{'' if number == 1 else 's'}"
