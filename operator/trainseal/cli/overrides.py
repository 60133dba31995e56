"""Hydra's overrides, as far as they are plain values: ``optim.lr=3e-4``. Pure; Hydra is not asked.

https://hydra.cc/docs/advanced/override_grammar/basic/, of which less is taken than there is: what
is taken means the same to Hydra. What adds or removes keys, chooses config groups, asks for several
runs, refers to other values or names code is refused with the reason, for none of it is a value
that a signed template could bound.

Laws, each tested: whatever the text, there is a value or an OverrideError; no value holds ``${``; a
value that is written out reads back as itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from trainseal.provenance.document import MAX_SAFE_INTEGER

Value = bool | int | float | str

#: A run may set so many parameters.
MAX_OVERRIDES = 64
MAX_PATH = 128
#: Characters of a value: those of a template's strings.
MAX_VALUE = 256

_PATH = re.compile(r"[A-Za-z][A-Za-z0-9_-]*(\.[A-Za-z][A-Za-z0-9_-]*)*")
_STEERS = frozenset({"hydra", "defaults"})
# OverrideLexer.g4: what an unquoted value may consist of, and what of it is more than a text.
_BARE = re.compile(r"[A-Za-z0-9_/.+%*@?|:$ -]*")
_DIGITS = r"(?:0|[1-9](?:_?[0-9])*)"
_FRACTION = r"[0-9](?:_?[0-9])*"
_POINT = rf"(?:{_DIGITS}?\.{_FRACTION}|{_DIGITS}\.)"
_INTEGER = re.compile(rf"[+-]?{_DIGITS}")
_FLOAT = re.compile(rf"[+-]?(?:(?:{_DIGITS}|{_POINT})[eE][+-]?{_FRACTION}|{_POINT})")
_NOT_FINITE = re.compile(r"[+-]?(?:inf|nan)", re.IGNORECASE)
_CALL = re.compile(r"([A-Za-z_][A-Za-z0-9_]*) *\(")
_SWEEPS = frozenset({"choice", "range", "interval", "glob", "sort", "shuffle", "tag"})
_ONE_EACH = "one job each: run it in a loop, a value at a time"
_BY_HAND = "leave it out, or have a template signed with it"


@dataclass(frozen=True, slots=True)
class Override:
    """One value, and the path in the config at which it stands."""

    path: str
    value: Value


class OverrideError(ValueError):
    """No plain value. ``text`` is the override; the rest is for people."""

    def __init__(self, text: str, found: str, expected: str, remedy: str) -> None:
        self.text = text
        self.found = found
        self.expected = expected
        self.remedy = remedy
        super().__init__(f"{text[:80]!r}: found {found}; expected {expected}; {remedy}")


def read_overrides(texts: Sequence[str]) -> tuple[Override, ...]:
    """The overrides of a command line. Raises OverrideError."""
    if len(texts) > MAX_OVERRIDES:
        raise OverrideError(
            texts[MAX_OVERRIDES], f"{len(texts)} overrides", f"at most {MAX_OVERRIDES}",
            "have a template signed that has the others already",
        )  # fmt: skip
    found: dict[str, Override] = {}
    for text in texts:
        override = read_override(text)
        if override.path in found:
            # Hydra takes the last.
            raise OverrideError(text, f"{override.path} a second time", "each once", "remove one")
        found[override.path] = override
    return tuple(found.values())


def read_override(text: str) -> Override:
    """The value that one override sets. Raises OverrideError."""
    if not text.isprintable():
        raise OverrideError(
            text, "a character that is not printable", "printable text", "write it without"
        )
    key, equals, rest = text.partition("=")
    _check_key(text, key)
    if not equals:
        raise OverrideError(text, "no =", "key=value", f"write {key}=…")
    if not _PATH.fullmatch(key) or len(key) > MAX_PATH:
        raise OverrideError(
            text, f"the key {key[:80]!r}",
            f"names with dots between them, each beginning with a letter, at most {MAX_PATH} "
            "characters",
            "write it as it stands in the config: optim.lr=3e-4",
        )  # fmt: skip
    return Override(key, _value(text, rest.strip(" ")))


def _check_key(text: str, key: str) -> None:
    """What Hydra would take for something else than a value."""
    if key.startswith("-"):
        raise OverrideError(
            text, "an option of Hydra's", "key=value", "leave it out: Hydra is not run here"
        )
    for sign, what in (("~", "a key taken away"), ("+", "a key added to the config")):
        if key.startswith(sign):
            raise OverrideError(
                text, f"{what} ({sign})", "a value for a key that is there", _BY_HAND
            )
    if "@" in key or "/" in key:
        raise OverrideError(
            text, "a config group", "key=value",
            "choose it in the template: what a group brings may be code",
        )  # fmt: skip
    parts = key.split(".")
    if parts[0] in _STEERS:
        raise OverrideError(text, f"the key {parts[0]}", "no key that steers Hydra", _BY_HAND)
    for part in parts:
        if part.startswith("_"):
            raise OverrideError(
                text, f"the key {part[:80]}", "no key by which configuration becomes code", _BY_HAND
            )
        if part.isdecimal():
            raise OverrideError(
                text, f"a place in a list, {part[:80]}", "names with dots between them", _BY_HAND
            )


def _value(text: str, value: str) -> Value:
    if "${" in value:
        raise OverrideError(
            text,
            "an interpolation (${…})",
            "a value",
            "write the value itself: it is code to a loader",
        )
    if value[:1] in ("'", '"'):
        return _bounded(text, _quoted(text, value))
    if value[:1] in ("[", "{"):
        what = "a list" if value[0] == "[" else "a mapping"
        raise OverrideError(text, what, "one value", _BY_HAND)
    if call := _CALL.match(value):
        if call[1] in _SWEEPS:
            raise OverrideError(text, f"a sweep ({call[1]}(…))", "one value", _ONE_EACH)
        raise OverrideError(text, f"a function ({call[1]}(…))", "a value", "write the value itself")
    if "," in value:
        raise OverrideError(
            text, "a sweep (values with commas between them)", "one value",
            f"{_ONE_EACH}; a text with commas: in quotes",
        )  # fmt: skip
    if not _BARE.fullmatch(value):
        odd = next(c for c in value if not _BARE.fullmatch(c))
        raise OverrideError(
            text, f"{odd!r} in a text without quotes", "letters, digits, spaces and /.+-_%*@?|:$",
            "quote the whole value, for Hydra and for the shell: 'key=\"…\"'",
        )  # fmt: skip
    return _bare(text, _bounded(text, value))


def _bare(text: str, value: str) -> Value:
    word = value.lower()
    if word in ("true", "false"):
        return word == "true"
    if word == "null" or value == "???":
        raise OverrideError(
            text, f"{value}, which is no value", "a value", "leave it out: the template has its own"
        )
    if _NOT_FINITE.fullmatch(value):
        raise OverrideError(text, value, "a finite number", 'JSON has no such value; a text: "…"')
    number: int | float
    if _INTEGER.fullmatch(value):
        number = int(value)
    elif _FLOAT.fullmatch(value):
        number = float(value)
    else:
        return value
    if math.isinf(number) or abs(number) > MAX_SAFE_INTEGER:
        raise OverrideError(
            text, f"the number {value[:40]}", f"one within ±(2^53-1) = ±{MAX_SAFE_INTEGER}",
            "not every reader keeps the digits of others",
        )  # fmt: skip
    # As the API server stores it.
    return int(number) if number == int(number) else number


def _quoted(text: str, value: str) -> str:
    """The text in quotes. Of backslashes only those are taken that all Hydras read alike."""
    quote = value[0]
    inner = re.compile(rf"{quote}((?:[^\\{quote}]|\\{quote})*){quote}").fullmatch(value)
    if inner is None:
        end = re.compile(rf"{quote}(?:[^\\{quote}]|\\{quote})*{quote} *,").match(value)
        if end is not None:
            raise OverrideError(
                text, "a sweep (values with commas between them)", "one value", _ONE_EACH
            )
        raise OverrideError(
            text, "a text whose quotes do not enclose it, or with a backslash in it",
            f"one in quotes; \\{quote} for a quote in it",
            "write it so, or without",
        )  # fmt: skip
    return inner[1].replace(f"\\{quote}", quote)


def _bounded(text: str, value: str) -> str:
    if len(value) > MAX_VALUE:
        raise OverrideError(
            text, f"a value of {len(value)} characters", f"at most {MAX_VALUE}", "make it shorter"
        )
    return value
