"""What differs between two states of what people sign, as an approver reads it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence

from pydantic import JsonValue
from rich.console import Group, RenderableType
from rich.text import Text

from trainseal.api.model import JsonObject
from trainseal.cli.terminaltext import plain
from trainseal.provenance.claims import Claim
from trainseal.provenance.templatechanges import WEIGHTS, Change, Effect

_TITLES = {
    "launch": "Who may start runs, and until when",
    "bounds": "What a run may set",
    "references": "Code and images",
    "commands": "Commands",
    "environment": "Environment",
    "rest": "Everything else",
}
_EFFECTS: dict[Effect, tuple[str, str]] = {
    "wider": ("wider", "bold red"),
    "narrower": ("narrower", "green"),
    "same": ("the same, written otherwise", "dim"),
    "different": ("neither wider nor narrower", "bold yellow"),
}
_COLORS = {"+": "green", "-": "red", "@": "cyan"}


def changes_by_weight(changes: Sequence[Change]) -> Iterator[RenderableType]:
    """The weightiest first, under their titles."""
    for weight in WEIGHTS:
        if own := [c for c in changes if c.weight == weight]:
            yield Text()
            yield Text(_TITLES[weight], "bold")
            yield from (Group(*_change(c)) for c in own)


def described(change: Change) -> JsonObject:
    """For programs."""
    return {
        "group": change.weight,
        "path": change.path,
        "before": change.before,
        "after": change.after,
        "effect": change.effect,
    }


def claimed(claims: Sequence[Claim]) -> Iterator[str]:
    """Whose signatures an object carries, by its bundles' own words."""
    if not claims:
        yield "carries no signature"
        return
    yield "says of itself that it was signed by (nothing of it is verified here):"
    over = {"this": "", "another": ", over another state", "unknown": ", it does not say over what"}
    for claim in claims:
        who = plain(claim.who)[:200]
        if claim.kind == "unreadable":
            yield "  a bundle that cannot be read"
        elif claim.kind == "key":
            yield f"  {f'key {who}' if who else 'a key that it does not name'}{over[claim.over]}"
        else:
            issuer = f" ({plain(claim.issuer)[:200]})" if claim.issuer else ""
            yield f"  {who or 'a certificate without identity'}{issuer}{over[claim.over]}"


def _change(change: Change) -> Iterator[RenderableType]:
    head = Text(f"  {plain(change.path)}")
    if change.effect is not None:
        words, color = _EFFECTS[change.effect]
        head.append(f"  {words}", color)
    yield head
    before, after = change.before, change.after
    if before is not None and after is not None and (_is_long(before) or _is_long(after)):
        # The first two lines name files.
        lines = [*difflib.unified_diff(_lines(before), _lines(after), lineterm="")][2:]
        if lines:
            yield from (
                Text(f"      {plain(line)}", _COLORS.get(line[:1], "dim")) for line in lines
            )
            return
    for word, value, color in (("before", before, "red"), ("after", after, "green")):
        if value is None:
            yield Text(f"      {word:<7} absent", "dim")
        else:
            yield Text(f"      {word:<7} {plain(json.dumps(value, ensure_ascii=False))}", color)


def _is_long(value: JsonValue) -> bool:
    """Whether there are several lines in it, such as a script's."""
    texts = value if isinstance(value, list) else [value]
    return any(isinstance(text, str) and "\n" in text for text in texts)


def _lines(value: JsonValue) -> list[str]:
    """A text's lines; of a list each entry, a script's lines below a mark."""
    if isinstance(value, str):
        return value.split("\n")
    found: list[str] = []
    for entry in value if isinstance(value, list) else [value]:
        if isinstance(entry, str) and "\n" in entry:
            found += ["|", *(f"  {line}" for line in entry.split("\n"))]
        else:
            found.append(json.dumps(entry, ensure_ascii=False))
    return found
