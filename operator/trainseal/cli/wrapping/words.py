"""The words of commands and variables: names that mean something else now; what fetches code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

#: What gets code or packages when the container starts.
_FETCHES = re.compile(
    r"(?<![\w-])(git\s+(?:\S+\s+){0,8}?(?:clone|pull|fetch|submodule)(?![\w-])"
    r"|(?:pip[0-9.]*|uv\s+pip|conda|mamba|apt|apt-get|apk|yum|dnf|npm)\s+(?:-\S+\s+){0,8}(?:install|add)\b"
    r"|uv\s+(?:sync|run)\b|poetry\s+install\b"
    r"|(?:curl|wget)\b[^|;&\n]{0,200}\|\s*(?:ba|z|da)?sh\b"
    r"|(?:curl|wget)\b[^|;&\n]{0,200}\.(?:py|sh|tar\.gz|tgz|zip|whl)\b"
    r"|(?:aws\s+s3|gsutil|gcloud\s+storage|azcopy|rclone|s5cmd|mc)\s+(?:-\S+\s+){0,8}(?:cp|sync|copy|rsync)\b"
    r"|huggingface-cli\s+download\b|hf\s+download\b|kubectl\s+cp\b)"
)
#: A pod's place among its like, in a host name.
ORDINAL = r"(\d{1,6})"
_APART = re.compile(r"[\s'\"`;&|()<>=,:$\[\]{}]+")
_PROGRAMS = (".py", ".pyz", ".sh", ".bash")


@dataclass(frozen=True, slots=True)
class Rename:
    """A name by its pattern, and the new one; None where the match is no name after all."""

    pattern: re.Pattern[str]
    new: Callable[[re.Match[str]], str | None]

    def names(self, text: str) -> str | None:
        """The new name of a text that is such a name and nothing else."""
        match = self.pattern.fullmatch(text)
        return self.new(match) if match else None


def whole_word(pattern: str) -> re.Pattern[str]:
    """A pattern for a host name or a path within a command."""
    return re.compile(rf"(?<![\w.-])(?:{pattern})(?![\w-]|\.\w)")


def renamed(text: str, renames: Iterable[Rename]) -> tuple[str, tuple[str, ...]]:
    """The text with the new names, and words on each change."""
    changes: dict[str, None] = {}
    for rename in renames:

        def new(match: re.Match[str], rename: Rename = rename) -> str:
            found = rename.new(match)
            if found is None or found == match[0]:
                return match[0]
            changes[f"{match[0]} is {found} now"] = None
            return found

        text = rename.pattern.sub(new, text)
    return text, tuple(changes)


def fetched(words: Sequence[str]) -> tuple[str, ...]:
    """What the words of a command line fetch when they run, each once."""
    text = " ".join(words)
    return tuple(
        dict.fromkeys(" ".join(match[0].split())[:60] for match in _FETCHES.finditer(text))
    )


def programs(words: Sequence[str]) -> Iterator[str]:
    """The scripts that the words name."""
    for word in words:
        for part in _APART.split(word):
            # Two slashes: what is left of an address.
            if part.endswith(_PROGRAMS) and not part.startswith(("//", "-", "@")):
                yield part
