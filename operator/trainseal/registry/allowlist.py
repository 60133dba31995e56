"""Which references a policy's ``registries.allow`` lets be fetched at all.

Asked before any request is made: a registry that a user may choose freely is a way to make the
webhook call inner addresses. A pattern is ``host[:port]/path``:

* the host, and the port where one is written, must be the reference's exactly; a pattern without
  a port does not match a reference with one. There are no wildcards in hosts;
* in the path, ``*`` stands for any run of characters within one part, the empty one included;
* ``**`` as the last part stands for one or more parts;
* everything else stands for itself. There are no regular expressions, no ``?`` and no ``[…]``.

``registry.example/research/*`` allows ``registry.example/research/pytorch`` but not
``registry.example/research/a/b``; ``registry.example/**`` allows the whole registry. Docker Hub
is ``docker.io``, its official images ``docker.io/library/*``. An empty list allows nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from .references import InvalidReference, Reference, check_host

LONGEST_PATTERN = 255

_LITERAL = re.compile(r"[a-z0-9._*-]+")


class InvalidPattern(ValueError):
    """A text that is no allow-list pattern; the message says why."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One compiled pattern: ``str(Pattern.parse(text))`` means the same as ``text``."""

    registry: str
    parts: tuple[str, ...]
    deep: bool

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """The pattern that ``text`` means. Raises InvalidPattern."""
        if len(text) > LONGEST_PATTERN:
            raise InvalidPattern(f"a pattern has at most {LONGEST_PATTERN} characters")
        host, slash, path = text.partition("/")
        if not slash or not path:
            raise InvalidPattern(
                f"{text!r} names no repositories: write {host}/** for all of a registry"
            )
        try:
            registry = check_host(host)
        except InvalidReference as error:
            raise InvalidPattern(f"{text!r}: {error}; hosts take no wildcard") from None
        parts = path.split("/")
        deep = parts[-1] == "**"
        if deep:
            parts.pop()
        for part in parts:
            if "**" in part or not _LITERAL.fullmatch(part):
                raise InvalidPattern(
                    f"{text!r}: part {part!r} is not valid: lower-case letters, digits,"
                    " '.', '_', '-' and '*'; '**' only as the last part"
                )
        return cls(registry, tuple(parts), deep)

    def matches(self, reference: Reference) -> bool:
        """Whether the reference's registry and repository fit; tag and digest do not count."""
        if reference.registry != self.registry:
            return False
        parts = reference.repository.split("/")
        if self.deep:
            if len(parts) <= len(self.parts):
                return False
            parts = parts[: len(self.parts)]
        if len(parts) != len(self.parts):
            return False
        return all(_part_matches(p, part) for p, part in zip(self.parts, parts, strict=True))

    def __str__(self) -> str:
        parts = [*self.parts, "**"] if self.deep else list(self.parts)
        return "/".join([self.registry, *parts])


def allowed(reference: Reference, patterns: Iterable[str | Pattern]) -> bool:
    """Whether any pattern matches. Raises InvalidPattern for a text that is none."""
    compiled = (Pattern.parse(p) if isinstance(p, str) else p for p in patterns)
    return any(pattern.matches(reference) for pattern in compiled)


def _part_matches(pattern: str, part: str) -> bool:
    pieces = pattern.split("*")
    if len(pieces) == 1:
        return pattern == part
    first, *middle, last = pieces
    if len(part) < len(first) + len(last):
        return False
    if not part.startswith(first) or not part.endswith(last):
        return False
    inner = part[len(first) : len(part) - len(last)]
    for piece in middle:  # leftmost is enough: what comes after only needs room
        at = inner.find(piece)
        if at < 0:
            return False
        inner = inner[at + len(piece) :]
    return True
