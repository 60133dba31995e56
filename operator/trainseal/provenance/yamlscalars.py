"""What an unquoted YAML scalar means to kubectl.

kubectl reads YAML with sigs.k8s.io/yaml, whose engine is goyaml v2: neither YAML 1.1 nor 1.2.
This is its ``resolve.go`` (go.yaml.in/yaml/v2 2.4.3, unchanged since sigs.k8s.io/yaml 1.4.0) with
the rules of Go's strconv that it leans on:

* ``y``, ``yes``, ``on`` and their kin are booleans, as ``3e-4`` and ``08`` are numbers;
* ``017`` is fifteen, so is ``0o17``; ``1_000`` is a thousand; ``1:30`` is a string;
* dates are strings; so is a number too large for a double (``1e400``).
"""

from __future__ import annotations

import math
import re

Scalar = str | int | float | bool | None

_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE"], True),
    **dict.fromkeys(["on", "On", "ON"], True),
    **dict.fromkeys(["n", "N", "no", "No", "NO", "false", "False", "FALSE"], False),
    **dict.fromkeys(["off", "Off", "OFF"], False),
    **dict.fromkeys(["", "~", "null", "Null", "NULL"], None),
    **dict.fromkeys([".nan", ".NaN", ".NAN"], math.nan),
    **dict.fromkeys([".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"], math.inf),
    **dict.fromkeys(["-.inf", "-.Inf", "-.INF"], -math.inf),
}

# strconv.ParseInt(s, 0, 64) and ParseUint, once the underscores are gone.
_PREFIXED = re.compile(r"([-+]?)0(?:[xX]([0-9a-fA-F]+)|[bB]([01]+)|[oO]?([0-7]+))", re.ASCII)
# resolve.go tries what follows 0b once more by itself, and so lets a sign stand there.
_SIGN_AFTER_PREFIX = re.compile(r"0b([-+])([01]+)", re.ASCII)
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9]*)", re.ASCII)
# resolve.go, yamlStyleFloat: decides after the integers, so 08 comes here.
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
# strconv.ParseFloat on what begins with a point; underscores stand between digits only.
_POINT_FLOAT = re.compile(r"\.[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+(?:_[0-9]+)*)?", re.ASCII)

_INT64 = range(-(2**63), 2**63)
_UINT64 = range(2**64)
# A decimal of more digits is far beyond a double; Python would refuse to convert some of them.
_MAX_DIGITS = 4000


def resolve(text: str) -> Scalar:
    """The value of an unquoted, untagged scalar.

    Integers beyond 64 bits become floats as they do in Go; the caller bounds them. NaN and
    infinities are returned as such: kubectl fails on them later, when it writes JSON.
    """
    if text in _WORDS:
        return _WORDS[text]
    first = text[0]
    if first == ".":
        return _float(text.replace("_", ""), text) if _POINT_FLOAT.fullmatch(text) else text
    if first in "+-" or "0" <= first <= "9":
        return _number(text)
    return text


def _number(text: str) -> Scalar:
    plain = text.replace("_", "")
    integer = _integer(plain)
    if integer is not None:
        return integer
    return _float(plain, text) if _FLOAT.fullmatch(plain) else text


def _integer(plain: str) -> int | None:
    if len(plain) > _MAX_DIGITS:
        return None
    prefixed = _PREFIXED.fullmatch(plain)
    if prefixed:
        sign, hexadecimal, binary, octal = prefixed.groups()
        if hexadecimal:
            value = int(hexadecimal, 16)
        elif binary:
            value = int(binary, 2)
        else:
            value = int(octal, 8)
        signed = sign != ""
        value = -value if sign == "-" else value
    elif _DECIMAL.fullmatch(plain):
        value = int(plain)
        signed = plain[0] in "+-"
    elif odd := _SIGN_AFTER_PREFIX.fullmatch(plain):
        value = int(odd[2], 2) * (-1 if odd[1] == "-" else 1)
        signed = True
    else:
        return None
    # ParseUint takes no sign, so the upper half of uint64 exists without one only.
    return value if value in _INT64 or (not signed and value in _UINT64) else None


def _float(plain: str, text: str) -> float | str:
    value = float(plain)
    # strconv.ParseFloat reports a range error, and the scalar stays what it was: a string.
    return text if math.isinf(value) else value
