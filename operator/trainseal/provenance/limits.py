"""What a manifest may cost to read, and which numbers it may hold."""

from __future__ import annotations

import math

from trainseal.provenance.document import MAX_SAFE_INTEGER, ManifestError, Position

#: Bytes of a manifest: what the API server accepts as one request.
MAX_BYTES = 3 * 1024 * 1024
#: Lists and mappings within one another.
MAX_DEPTH = 100
#: Values in a manifest, aliases expanded.
MAX_NODES = 100_000
#: Documents in a manifest.
MAX_DOCUMENTS = 1000


class Budget:
    """Counts what is read of one manifest; raises ManifestError once it is too much."""

    __slots__ = ("nodes",)

    def __init__(self) -> None:
        self.nodes = 0

    def node(self, depth: int, position: Position, source: str) -> None:
        """One more value, ``depth`` levels down."""
        self.nodes += 1
        if depth > MAX_DEPTH:
            raise ManifestError(
                position.place(source),
                f"more than {MAX_DEPTH} levels of nesting",
                f"at most {MAX_DEPTH}",
                "flatten the manifest",
            )
        if self.nodes > MAX_NODES:
            raise ManifestError(
                position.place(source),
                f"more than {MAX_NODES} values, aliases expanded",
                f"at most {MAX_NODES}",
                "split the manifest, or write fewer aliases",
            )


def safe_number(number: int | float, spelling: str, position: Position, source: str) -> int | float:
    """The number as the API server stores it: whole ones as int. Raises ManifestError.

    Refuses NaN and infinities, as kubectl does, and what lies beyond ±(2^53-1), which kubectl
    would pass on: not every reader of JSON keeps its last digits (RFC 8785 section 3.2.2.3).
    """
    short = spelling if len(spelling) <= 40 else spelling[:37] + "…"
    if isinstance(number, float) and not math.isfinite(number):
        raise ManifestError(
            position.place(source),
            short,
            "a finite number",
            "JSON has no such value: write a string, quoted",
        )
    if abs(number) > MAX_SAFE_INTEGER:
        raise ManifestError(
            position.place(source),
            f"the number {short}",
            f"a number within ±(2^53-1) = ±{MAX_SAFE_INTEGER}",
            "quote it as a string: beyond that not every reader keeps its digits, so it has no"
            " canonical form to sign",
        )
    return int(number) if isinstance(number, float) and number.is_integer() else number
