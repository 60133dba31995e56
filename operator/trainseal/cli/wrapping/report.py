"""A wrapped job as text: the manifest with what is to be looked at beside it, and the list."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import yaml

from trainseal.api.model import JsonObject
from trainseal.cli.terminaltext import plain
from trainseal.cli.wrapping.ledger import Note, Outcome
from trainseal.cli.wrapping.wrap import Wrapped
from trainseal.cli.yamltext import written
from trainseal.provenance.document import FieldPath, ManifestError
from trainseal.provenance.yamlreader import read_documents

#: Longer than this a comment is broken.
_WIDTH = 100


def manifest_yaml(jobs: Sequence[Wrapped]) -> str:
    """All jobs, as YAML with comments."""
    return "---\n".join(_commented(job) for job in jobs)


def manifest_json(jobs: Sequence[Wrapped]) -> str:
    """One job as it is, several as a List."""
    items = [job.job for job in jobs]
    value: JsonObject = (
        items[0] if len(items) == 1 else {"apiVersion": "v1", "kind": "List", "items": [*items]}
    )
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def lines(notes: Sequence[Note]) -> Iterator[str]:
    """One note after the other, as a compiler writes its errors."""
    for note in notes:
        yield plain(f"{note.place}: {note.path}: {note.outcome}: {note.why}")
        if note.remedy:
            yield plain(f"    to do: {note.remedy}")


def summary(job: Wrapped) -> str:
    """The notes on a job, counted."""
    metadata = job.job["metadata"]
    name = str(metadata.get("name")) if isinstance(metadata, dict) else ""
    counts = [f"{sum(n.outcome is o for n in job.notes)} {o}" for o in Outcome]
    end = (
        "`trainseal sign job` signs it" if job.whole else "look at what is not `changed`, then sign"
    )
    return plain(f"{job.kind} {job.source} is TrainingJob {name}: {', '.join(counts)}; {end}")


def _commented(job: Wrapped) -> str:
    """The job with a comment above what a person should look at; it reads as it did without."""
    text = written(job.job)
    starts = _starts(text)
    above: dict[int, list[str]] = {}
    head = [f"Made of {job.kind} {job.source} by `trainseal wrap`."]
    for note in job.notes:
        if note.outcome is Outcome.CHANGED:
            continue
        words = f"{note.outcome}: {note.why}" + (f"; {note.remedy}" if note.remedy else "")
        line = _line(note.at, starts)
        if line is None:
            head.append(f"{note.path}: {words}")
        else:
            above.setdefault(line, []).append(words)
    made = [f"# {part}" for words in head for part in _broken(words, _WIDTH)]
    for number, line_text in enumerate(text.splitlines()):
        indent = " " * (len(line_text) - len(line_text.lstrip(" ")))
        made += [
            f"{indent}# {part}"
            for words in above.get(number, ())
            for part in _broken(words, _WIDTH - len(indent))
        ]
        made.append(line_text)
    result = "\n".join(made) + "\n"
    try:
        same = [d.value for d in read_documents(result, "")] == [job.job]
    except ManifestError:
        same = False
    return result if same else text


def _broken(words: str, width: int) -> Iterator[str]:
    """Text of others within a comment: nothing in it ends the line."""
    line = ""
    for word in plain(words).split():
        if line and len(line) + 1 + len(word) > width:
            yield line
            line = f"  {word}"
        else:
            line = f"{line} {word}" if line else word
    yield line


def _line(at: FieldPath | None, starts: dict[FieldPath, int]) -> int | None:
    """The line of a place in the job, or of the innermost around it below the spec."""
    for length in range(len(at or ()), 1, -1):
        if (found := starts.get((at or ())[:length])) is not None:
            return found
    return None


def _starts(text: str) -> dict[FieldPath, int]:
    """The line that each field begins."""
    root = yaml.compose(text, Loader=yaml.CSafeLoader)
    found: dict[FieldPath, int] = {}

    def walk(node: yaml.Node | None, path: FieldPath) -> None:
        if isinstance(node, yaml.MappingNode) and not node.flow_style:
            for key, value in node.value:
                found[(*path, str(key.value))] = key.start_mark.line
                walk(value, (*path, str(key.value)))
        elif isinstance(node, yaml.SequenceNode) and not node.flow_style:
            for index, value in enumerate(node.value):
                found[(*path, index)] = value.start_mark.line
                walk(value, (*path, index))

    walk(root, ())
    return found
