"""A Hydra config, read and never run: whether a key is there, and what is written there.

A file is taken as it is. Of a directory it is ``config.yaml``, and of each config group that its
defaults list names, the chosen file, for the keys of that group; nothing else is composed. A config
that is composed otherwise can be printed whole (``python train.py --cfg job``) and given as a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from trainseal.api.model import JsonObject
from trainseal.cli.failures import Failure
from trainseal.cli.jobfiles import read_text
from trainseal.cli.overrides import Override, Value
from trainseal.provenance.document import Document, value_at
from trainseal.provenance.yamlreader import read_mapping

FILE = "config.yaml"
#: Not of the trainer's config, but how it comes about.
_STEERS = ("defaults", "hydra")
_GROUP = re.compile(r"[A-Za-z][A-Za-z0-9_-]*(/[A-Za-z][A-Za-z0-9_-]*)*")
_CHOICE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(/[A-Za-z0-9_][A-Za-z0-9_-]*)*(\.yaml)?")
#: A group's file that says itself where its keys go.
_PACKAGE = re.compile(rb"^#\s*@package\b", re.MULTILINE)
_WHOLE = (
    "correct the key; or, where Hydra composes it, print the whole config with"
    " `python train.py --cfg job > whole.yaml` and give that file"
)


@dataclass(frozen=True, slots=True)
class HydraConfig:
    """The files of a config. ``groups`` are the chosen ones, by the path of their keys.

    ``directory`` is where the groups lie; None for a file.
    """

    main: Document
    groups: dict[str, Document] = field(default_factory=dict)
    directory: Path | None = None

    def check(self, override: Override) -> None:
        """Raises Failure unless the override sets a value that is there, to one of its type."""
        path = override.path
        if self._is_group(path):
            raise Failure(
                f"{path}={override.value}: {path} is a config group of {self.directory}",
                expected="the path of one value",
                remedy="choose it in the template: what a group brings may be code",
            )
        place, there, value = self._find(path)
        if not there:
            raise Failure(
                f"{place}: there is no {path}",
                expected="the path of a value of the config",
                remedy=_WHOLE,
            )
        if isinstance(value, dict | list):
            what = "a list" if isinstance(value, list) else "a mapping"
            raise Failure(
                f"{place}: {path} is {what}",
                expected="one value",
                remedy="name a value within it" if isinstance(value, dict) else "leave it out",
            )
        wanted = _kind(value)
        if wanted and _kind(override.value) != wanted:
            raise Failure(
                f"{path}: found {override.value!r}, {_WORDS[_kind(override.value)]}",
                expected=f"{_WORDS[wanted]}, as {value!r} in {place}",
                remedy="a text that looks like something else is quoted twice: 'key=\"17\"'"
                if wanted == "text"
                else "correct the value",
            )

    def _is_group(self, path: str) -> bool:
        return self.directory is not None and "." not in path and (self.directory / path).is_dir()

    def _find(self, path: str) -> tuple[str, bool, JsonValue]:
        """Its place, or that of what is nearest; whether it is there; and what is there."""
        place, there, value = _at(self.main, path.split("."))
        if there:
            return place, there, value
        for prefix, document in self.groups.items():
            if path.startswith(f"{prefix}."):
                return _at(document, path.removeprefix(f"{prefix}.").split("."))
        return place, there, value


def read_config(where: Path) -> HydraConfig:
    """The config in a file or a directory. Raises Failure, ManifestError."""
    if not where.is_dir():
        return HydraConfig(_read(where))
    file = where / FILE
    if not file.is_file():
        raise Failure(
            f"{where}: there is no {FILE} in it",
            expected="the directory of a Hydra config, or one file",
            remedy=f"give the file: --hydra {where}/NAME.yaml",
        )
    main = _read(file)
    groups = {}
    for group, choice in _defaults(main.value):
        chosen = where / group / choice
        if chosen.is_file() and not _PACKAGE.search(read_text(str(chosen))):
            groups[group.replace("/", ".")] = _read(chosen)
    return HydraConfig(main, groups, where)


def _read(file: Path) -> Document:
    return read_mapping(read_text(str(file)), str(file))


def _defaults(config: JsonObject) -> Iterator[tuple[str, str]]:
    """The groups of a defaults list, and the files chosen; what is said in other ways is left."""
    listed = config.get("defaults")
    for entry in listed if isinstance(listed, list) else ():
        for group, choice in entry.items() if isinstance(entry, dict) else ():
            plain = isinstance(choice, str) and _CHOICE.fullmatch(choice)
            if plain and _GROUP.fullmatch(group):
                yield group, f"{str(choice).removesuffix('.yaml')}.yaml"


def _at(document: Document, path: list[str]) -> tuple[str, bool, JsonValue]:
    config: JsonObject = {k: v for k, v in document.value.items() if k not in _STEERS}
    return document.where(path), *value_at(config, path)


_WORDS = {"boolean": "true or false", "number": "a number", "text": "a text"}


def _kind(value: JsonValue | Value) -> str:
    """The type that a value must keep; none where the config does not say one."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str) and value != "???" and "${" not in value:
        return "text"
    return ""
