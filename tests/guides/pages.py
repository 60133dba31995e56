"""What a page has its reader type, and what it shows of the answer.

Commands stand in fenced or indented blocks: behind a prompt, `$` or `ada$`, with the answer below;
or, where a block has no prompt, one a line and without an answer. All else in a block is a text
that the page prints: a manifest, a message, a log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
#: The pages to be followed, by their names below ``docs``.
GUIDES = ("tutorial.md", *sorted(f"how-to/{p.name}" for p in (DOCS / "how-to").glob("*.md")))

_SHELL = ("sh", "shell", "bash", "console")
#: A block without a language or a prompt is one of commands if its first word is among these.
_PROGRAMS = ("archive", "cosign", "crane", "helm", "kubectl", "make", "model_signing", "trainseal")
_PROMPT = re.compile(r"(?P<person>[a-z]*)\$ +(?P<typed>.*)")
_FENCE = re.compile(r"^```(\w*)$")


@dataclass(frozen=True, slots=True)
class Typed:
    """A command as it is printed, over several lines maybe.

    ``shown`` is the answer that the page shows, empty where it shows none; ``person`` is who types
    it, where the prompt says so.
    """

    command: str
    shown: str = ""
    person: str = ""


@dataclass(frozen=True, slots=True)
class Printed:
    """A block that is no command; ``language`` as its fence says."""

    language: str
    text: str


Step = Typed | Printed


def read(name: str) -> list[Step]:
    """A guide's steps, in the order of the page."""
    return list(steps((DOCS / name).read_text()))


def commands(page: str) -> Iterator[Typed]:
    """Those of a page's text."""
    return (step for step in steps(page) if isinstance(step, Typed))


def steps(page: str) -> Iterator[Step]:
    """Commands and printed texts of a page's text, in its order."""
    for language, lines in _blocks(page.splitlines()):
        if any(_PROMPT.fullmatch(line) for line in lines) and language in (*_SHELL, ""):
            yield from _with_prompts(lines)
        elif language in _SHELL or (not language and _first_word(lines) in _PROGRAMS):
            yield from (Typed(command) for command in _logical(lines) if command.strip())
        else:
            yield Printed(language, "".join(f"{line}\n" for line in lines))


def _blocks(lines: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Language and lines of each block, without fence or margin."""
    at, before = 0, ""
    while at < len(lines):
        line = lines[at]
        if fence := _FENCE.match(line):
            end = lines.index("```", at + 1)
            yield fence[1], list(lines[at + 1 : end])
            at, before = end + 1, "```"
        elif line.startswith("    ") and line.strip() and not before.strip():
            end = at
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            block = lines[at:end]
            margin = min(len(x) - len(x.lstrip()) for x in block if x.strip())
            yield "", [x[margin:] for x in _trimmed(block)]
            at, before = end, ""
        else:
            at, before = at + 1, line


def _trimmed(block: Sequence[str]) -> Sequence[str]:
    """Without the empty lines at its end."""
    last = max(i for i, line in enumerate(block) if line.strip())
    return block[: last + 1]


def _with_prompts(lines: Sequence[str]) -> Iterator[Typed]:
    logical = list(_logical(lines))
    at = 0
    while at < len(logical):
        found = _PROMPT.fullmatch(logical[at].partition("\n")[0])
        if found is None:  # a text above the first command
            at += 1
            continue
        typed = logical[at][found.start("typed") :]
        end = at + 1
        while end < len(logical) and not _PROMPT.fullmatch(logical[end].partition("\n")[0]):
            end += 1
        yield Typed(typed, "\n".join(logical[at + 1 : end]).strip(), found["person"])
        at = end


def _logical(lines: Sequence[str]) -> Iterator[str]:
    """Lines, each with those that it goes on in: they end in a backslash."""
    pending = ""
    for line in lines:
        pending += line
        if line.endswith("\\"):
            pending += "\n"
        else:
            yield pending
            pending = ""
    if pending:
        yield pending


def _first_word(lines: Sequence[str]) -> str:
    return re.split(r"[\s(]", lines[0], maxsplit=1)[0] if lines else ""
