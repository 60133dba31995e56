"""What an engine's controllers write on pods beyond the sealed template: by name and content. Pure.

What an engine adds cannot be signed, since it holds UIDs. It needs no trust either: each value
follows from the objects that a seal is bound to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Marks:
    """Labels and annotations with the values that they have where they are there.

    ``priority_label``: a label whose value is the pod's own priority.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    priority_label: str = ""


NO_MARKS = Marks()
