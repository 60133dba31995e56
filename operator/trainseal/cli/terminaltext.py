"""Text that others chose, made fit for a terminal.

A path, a command line or a difference may hold control sequences that recolour, hide or rewrite
what a terminal shows. They are shown as escapes.
"""

from __future__ import annotations


def plain(text: str, *, lines: bool = False) -> str:
    """The text with what is not printable escaped; ``lines`` keeps line ends and tabs."""
    kept = "\n\t" if lines else ""
    return "".join(
        c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text
    )
