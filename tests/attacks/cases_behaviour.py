"""Group *Behaviour*: what signed code is made to do by what it reads while it runs.

Nothing from outside the process shows that a method was replaced in its memory. What brings such
code in is found: edited files, loaded libraries, hooks, programs, sessions (*Code*, *Processes*).
"""

from __future__ import annotations

from tests.attacks.case import Case, NotTried

_WITHIN = NotTried("a library within the trainer; the ways in which such code comes are cases")

CASES = tuple(
    Case("Behaviour", name, field, _WITHIN)
    for name, field in (
        ("optimizer step wrapped in memory, sign flipped or slept in at random", "AML.T0018"),
        ("learning rate changed at run time", "AML.T0018"),
        ("only above a world size", "T1480"),
    )
)
