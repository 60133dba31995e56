"""The one error of this package: it says what was found, what was expected, what to do."""

from __future__ import annotations


class ClusterError(Exception):
    """Something a person has to know about, in three parts.

    `found` is what is the case, `expected` what should be, `action` what to do next. Text in
    `detail` (the end of a log, say) follows on lines of its own.
    """

    def __init__(self, found: str, *, expected: str = "", action: str = "", detail: str = ""):
        self.found = found
        self.expected = expected
        self.action = action
        self.detail = detail
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """The whole text, as the command line prints it."""
        lines = [self.found]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.action:
            lines.append(f"  to do:    {self.action}")
        if self.detail:
            lines += ["  ---", *(f"  {line}" for line in self.detail.rstrip().splitlines())]
        return "\n".join(lines)
