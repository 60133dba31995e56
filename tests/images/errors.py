"""The one error of this package."""

from __future__ import annotations


class ImageError(Exception):
    """An image cannot be built: what was found, what was expected, what to do.

    `detail` (the end of a log, say) follows on lines of its own.
    """

    def __init__(self, found: str, *, expected: str = "", action: str = "", detail: str = ""):
        self.found = found
        self.expected = expected
        self.action = action
        lines = [found]
        if expected:
            lines.append(f"  expected: {expected}")
        if action:
            lines.append(f"  to do:    {action}")
        if detail:
            lines += ["  ---", *(f"  {line}" for line in detail.rstrip().splitlines())]
        super().__init__("\n".join(lines))
