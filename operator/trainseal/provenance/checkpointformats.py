"""Of which format a file of a checkpoint is, and whether a job may go on from it. Pure.

A format is judged when the file is complete, by its bytes (``fileforms``), and stands in the signed
manifest. Here it is held to what may be gone on from: what each enforcing policy of the namespace
accepts, and of that what the job says that it loads. Text counts as none: nothing is loaded of it.
Whoever accepts pickles accepts everything, since any file may be a program to who loads it as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from trainseal.api.checkpoint import FileFormat
from trainseal.api.model import JsonObject
from trainseal.provenance.fileforms import Form
from trainseal.provenance.tree_paths import shown

#: What a policy accepts that says nothing of it.
ACCEPTED: Final = frozenset({"safetensors", "dcp"})
_ALL: Final = frozenset({"safetensors", "dcp", "pickle"})
#: How PyTorch names the two kinds of file of a distributed checkpoint.
_INDEX: Final = ".metadata"
_SHARD: Final = ".distcp"


def format_of(form: Form, path: str) -> FileFormat:
    """The format of a file of this form under this path: a pickle counts as part of a distributed
    checkpoint where it is tame *and* has the name of one.
    """
    name = path.rpartition("/")[2]
    if form == "metadata":
        return "dcp" if name == _INDEX else "pickle"
    if form == "shard":
        return "dcp" if name.endswith(_SHARD) else "pickle"
    return form


def accepted(policies: Iterable[frozenset[str]], declared: Sequence[str] | None) -> frozenset[str]:
    """What a job may go on from: ``policies`` are what each enforcing policy accepts, ``declared``
    what the job says that it loads.
    """
    found = _ALL.intersection(*(_ALL if "pickle" in policy else policy for policy in policies))
    return found if declared is None else found.intersection(declared)


def not_accepted(file: JsonObject, formats: frozenset[str]) -> str:
    """What is wrong with one entry of a signed manifest, in words; empty where it may be loaded."""
    kind = file.get("format")
    if "pickle" in formats or kind == "text" or kind in formats:
        return ""
    name, doubt = shown(str(file.get("path"))), file.get("doubt")
    if kind is None:
        return f"{name}: nobody judged its format when it was written"
    if kind == "unknown":
        return f"{name}: of a format that is not known{f' ({doubt})' if doubt else ''}"
    said = f"{name}: found {kind}"
    imports = file.get("imports")
    if isinstance(imports, list) and imports:
        more = file.get("moreImports")
        listed = ", ".join(str(i) for i in imports[:4])
        beyond = len(imports[4:]) + (more if isinstance(more, int) else 0)
        said += f" that would import {listed}{f' and {beyond} more' if beyond else ''}"
    return f"{said}{f' ({doubt})' if doubt else ''}"
