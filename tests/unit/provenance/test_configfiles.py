"""The config files: every reader takes them alike, and as the parameters that were signed."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trainseal.provenance.canonical import CanonicalError, canonical_bytes
from trainseal.provenance.configfiles import (
    config_bytes,
    config_digest,
    config_files,
    file_digests,
)

SCALARS = (
    st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
PARAMETERS = st.dictionaries(
    st.text(),
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    ),
    max_size=5,
)


def strictly_equal(one: Any, other: Any) -> bool:
    """Equal, and of equal types: 1 is neither 1.0 nor true."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(strictly_equal(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(strictly_equal, one, other))
    return type(one) is type(other) and one == other


def canonical(value: Any) -> bool:
    try:
        canonical_bytes(value)
    except CanonicalError:
        return False
    return True


@given(PARAMETERS.filter(canonical))
def test_both_files_are_read_back_as_the_parameters(parameters: dict[str, Any]) -> None:
    files = config_files(parameters)
    assert strictly_equal(json.loads(files["config.json"]), parameters)
    assert strictly_equal(yaml.safe_load(files["config.yaml"]), parameters)


@pytest.mark.parametrize(
    "text",
    [
        *("yes", "NO", "on", "~", "null", "1e-5", "1_000", "0o17", "017", "12:30:45", "2026-11-23"),
        *("=", "<<", "- x", "#x", "a: b", " x ", "\\", '"'),
        *("\u2028", "\x85", "\x7f", "\ufeff", "\t"),
    ],
)
def test_a_text_stays_a_text_also_as_a_key(text: str) -> None:
    documents: tuple[Any, ...] = ({"x": text}, {text: 1}, {"x": [text, {"y": text}]})
    for parameters in documents:
        assert yaml.safe_load(config_files(parameters)["config.yaml"]) == parameters


@pytest.mark.parametrize("number", [1e-05, 3e-4, 1e15, 1.5e300, -0.0, 5e-324])
def test_a_float_is_a_float_to_readers_of_yaml_1_1_and_1_2(number: float) -> None:
    line = config_files({"x": number})["config.yaml"].strip()
    text = line.partition(": ")[2]
    # 1.1 wants a point, and a sign in the exponent; 1.2 takes those too.
    assert "." in text
    assert "e" not in text or "e+" in text or "e-" in text
    assert float(text) == number


def test_the_order_of_keys_changes_nothing() -> None:
    assert config_files({"a": 1, "b": {"c": 1, "d": 2}}) == config_files(
        {"b": {"d": 2, "c": 1}, "a": 1}
    )


def test_every_byte_counts_for_the_digest() -> None:
    files = config_files({"learning_rate": 0.0003})
    assert config_digest(files) == config_digest(dict(reversed(files.items())))
    for name in files:
        other = files | {name: files[name] + " "}
        assert config_digest(other) != config_digest(files)
        assert file_digests(other)[name] != file_digests(files)[name]


@given(PARAMETERS.filter(canonical))
def test_the_size_is_that_of_the_json(parameters: dict[str, Any]) -> None:
    assert config_bytes(parameters) == len(config_files(parameters)["config.json"].encode())
