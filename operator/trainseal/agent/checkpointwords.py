"""What was found a file of a checkpoint to be, as its manifest says it."""

from __future__ import annotations

from trainseal.api.checkpoint import MAX_IMPORT, MAX_IMPORTS
from trainseal.api.model import JsonObject
from trainseal.provenance.checkpointformats import format_of
from trainseal.provenance.fileforms import Judged
from trainseal.provenance.pickleimports import Import

_MAX_DOUBT = 256


def words(judged: Judged, path: str) -> JsonObject:
    """Fields of the file's entry. A part of a distributed checkpoint imports what these need, and
    so it lists nothing: there are hundreds of them.
    """
    kind = format_of(judged.form, path)
    found: JsonObject = {"format": kind}
    if kind == "pickle" and judged.imports:
        found["imports"] = [_shown(i) for i in judged.imports[:MAX_IMPORTS]]
        if len(judged.imports) > MAX_IMPORTS:
            found["moreImports"] = len(judged.imports) - MAX_IMPORTS
    if judged.doubts:
        found["doubt"] = "; ".join(judged.doubts)[:_MAX_DOUBT]
    return found


def most_bytes(judged: Judged) -> int:
    """Of these fields, as JSON, in which a character that means something to HTML is longer."""
    shown = [_shown(i) for i in judged.imports[:MAX_IMPORTS]]
    listed = sum(len(name) + 4 + 5 * sum(map(name.count, "&<>")) for name in shown)
    return 80 + listed + (6 * _MAX_DOUBT if judged.doubts else 0)


def _shown(found: Import) -> str:
    """Names that somebody chose: nothing but ASCII, and not long."""
    text = ascii(str(found))[1:-1]
    return text if len(text) <= MAX_IMPORT else f"{text[: MAX_IMPORT - 3]}..."
