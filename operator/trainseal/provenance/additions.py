"""What a platform may add to sealed pods, as policies name it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Additions:
    """What named platform additions allow: variables by the start of their value, labels,
    annotations. A variable fits if its value starts with any of its prefixes."""

    env: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    labels: frozenset[str] = frozenset()
    annotations: frozenset[str] = frozenset()

    def both(self, other: Additions) -> Additions:
        """What both allow."""
        return Additions(
            {
                name: tuple(
                    dict.fromkeys(
                        max(a, b, key=len)
                        for a in prefixes
                        for b in other.env[name]
                        if a.startswith(b) or b.startswith(a)
                    )
                )
                for name, prefixes in self.env.items()
                if name in other.env
            },
            self.labels & other.labels,
            self.annotations & other.annotations,
        )
