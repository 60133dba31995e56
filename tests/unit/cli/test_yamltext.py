"""YAML as we write it: every reader takes it for what was meant."""

from __future__ import annotations

import yaml
from hypothesis import given
from hypothesis import strategies as st

from trainseal.api.model import JsonObject
from trainseal.cli.yamltext import written
from trainseal.provenance.yamlreader import read_mapping
from trainseal.provenance.yamlscalars import resolve

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(
    ["", "yes", "on", "n", "null", "~", "3e-4", "1e5", "017", "0o17", "1:30", "1_000", "<<", "=",
     "-", "---", "--- x", "a: b", "a #b", "- x", "[a]", "{a}", "*a", "&a", "!a", "%a", "@a", "`a",
     "a:", "2026-11-27", ".inf", "a\nb", " a\n b\n", "\n", "a\r\nb", "a\u2028b",
     "\ufeff", "a\tb\n", "x: |\n  y"]
)  # fmt: skip
NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(
    -(2**53) + 1, 2**53 - 1, allow_nan=False
).filter(lambda n: not n.is_integer())
VALUES = st.recursive(
    TEXTS | NUMBERS | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=5))
def test_what_is_written_reads_back_as_it_was(value: JsonObject) -> None:
    text = written(value)
    assert read_mapping(text, "x").value == value
    assert yaml.safe_load(text) == value


def test_words_stay_readable_and_what_could_be_something_else_is_quoted() -> None:
    value: JsonObject = {
        "engine": "Job",
        "image": "registry.example/x@sha256:aa",
        "switch": "on",
        "rate": "3e-4",
        "count": 17,
        "lr": 0.00001,
    }
    assert written(value).splitlines() == [
        "engine: Job",
        "image: registry.example/x@sha256:aa",
        'switch: "on"',
        'rate: "3e-4"',
        "count: 17",
        "lr: 1.0e-05",
    ]
    assert resolve("1.0e-05") == 0.00001


def test_a_script_stands_in_lines() -> None:
    value: JsonObject = {"args": ["-c", "set -e\npython train.py\n"]}
    assert written(value) == 'args:\n- "-c"\n- |\n  set -e\n  python train.py\n'
