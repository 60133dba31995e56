"""Hydra's overrides: plain values are taken for what Hydra takes them for, and nothing else is."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trainseal.api.model import JsonObject
from trainseal.cli.overrides import (
    MAX_OVERRIDES,
    Override,
    OverrideError,
    Value,
    read_override,
    read_overrides,
)
from trainseal.cli.yamltext import written
from trainseal.provenance.yamlreader import read_mapping

TEXTS = st.text(max_size=30) | st.text(alphabet="${}a.b=,'\"\\[](): +~@-_019eE", max_size=12)
KEYS = st.sampled_from(["a", "a.b", "optim.lr", "a_b.c-d"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 0.0003),
        ("1e-05", 0.00001),
        ("1e3", 1000),
        ("17", 17),
        ("-17", -17),
        ("+5", 5),
        ("0", 0),
        ("1_000", 1000),
        ("0.5", 0.5),
        (".5", 0.5),
        ("5.", 5),
        ("true", True),
        ("FALSE", False),
        ("TrUe", True),
        ("yes", "yes"),
        ("on", "on"),
        ("", ""),
        ("adam", "adam"),
        ("  adam ", "adam"),
        ("a b", "a b"),
        ("007", "007"),
        ("1.2.3", "1.2.3"),
        ("1e", "1e"),
        ("0x1f", "0x1f"),
        ("1-2", "1-2"),
        ("infinite", "infinite"),
        ("s3://bucket/x.y", "s3://bucket/x.y"),
        ("'17'", "17"),
        ('"true"', "true"),
        ("'a,b'", "a,b"),
        ('"a=b [c] {d} (e)"', "a=b [c] {d} (e)"),
        (r"'it\'s'", "it's"),
        ('"näme"', "näme"),
        ("''", ""),
    ],
)
def test_a_value_is_what_hydra_takes_it_for(text: str, value: Value) -> None:
    found = read_override(f"optim.lr={text}")
    assert found == Override("optim.lr", value)
    assert type(found.value) is type(value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("+optim.lr=1", "a key added"),
        ("++optim.lr=1", "a key added"),
        ("~optim.lr", "a key taken away"),
        ("~optim.lr=1", "a key taken away"),
        ("db@backup=mysql", "a config group"),
        ("db/engine=mysql", "a config group"),
        ("hydra.run.dir=x", "the key hydra"),
        ("hydra/launcher=slurm", "a config group"),
        ("defaults=x", "the key defaults"),
        ("optim._target_=os.system", "the key _target_"),
        ("_target_=os.system", "the key _target_"),
        ("optim._partial_=true", "the key _partial_"),
        ("layers.0.size=1", "a place in a list"),
        ("--multirun", "an option of Hydra's"),
        ("-m", "an option of Hydra's"),
        ("optim.lr", "no ="),
        ("=1", "the key ''"),
        ("a..b=1", "the key 'a..b'"),
        ("ä=1", "the key 'ä'"),
        (f"{'a' * 129}=1", "the key"),
        ("a=${b}", "an interpolation"),
        ("a='${b}'", "an interpolation"),
        ("a=x${oc.env:HOME}y", "an interpolation"),
        ("a=[1,2]", "a list"),
        ("a={b:1}", "a mapping"),
        ("a=1,2", "a sweep"),
        ("a='x','y'", "a sweep"),
        ("a=range(1,5)", "a sweep (range"),
        ("a=choice(x,y)", "a sweep (choice"),
        ("a=interval(0, 1)", "a sweep (interval"),
        ("a=shuffle (range(1,5))", "a sweep (shuffle"),
        ("a=glob(*)", "a sweep (glob"),
        ("a=int('3')", "a function (int"),
        ("a=null", "null, which is no value"),
        ("a=???", "???, which is no value"),
        ("a=inf", "inf"),
        ("a=-NaN", "-NaN"),
        ("a=1e400", "the number 1e400"),
        ("a=9007199254740992", "the number 9007199254740992"),
        ("a=b=c", "'=' in a text"),
        ("a=b\\,c", "a sweep"),
        ("a=b\\c", "'\\\\' in a text"),
        ("a=näme", "'ä' in a text"),
        ("a='b", "a text whose quotes"),
        ("a='b'c", "a text whose quotes"),
        (r"a='b\\'", "a text whose quotes"),
        (r"a='b\c'", "a text whose quotes"),
        ("a=b\nc", "not printable"),
        ("a='b\x1bc'", "not printable"),
        ("a='\udcff'", "not printable"),
        (f"a={'x' * 257}", "a value of 257 characters"),
        (f"a='{'x' * 257}'", "a value of 257 characters"),
    ],
)
def test_what_is_no_plain_value_is_refused_with_the_reason(text: str, found: str) -> None:
    with pytest.raises(OverrideError) as caught:
        read_override(text)
    assert caught.value.found.startswith(found) or found in caught.value.found
    assert caught.value.remedy


def test_a_sweep_is_told_to_be_one_job_each() -> None:
    with pytest.raises(OverrideError, match="one job each: run it in a loop"):
        read_override("seed=range(1,5)")


def test_a_key_is_given_once_and_not_too_many_are() -> None:
    assert read_overrides(["a=1", "b=2"]) == (Override("a", 1), Override("b", 2))
    with pytest.raises(OverrideError, match="a second time"):
        read_overrides(["a=1", "a=2"])
    with pytest.raises(OverrideError, match=f"at most {MAX_OVERRIDES}"):
        read_overrides([f"a{n}=1" for n in range(MAX_OVERRIDES + 1)])


def read(text: str) -> Override | None:
    try:
        return read_override(text)
    except OverrideError:
        return None


@given(TEXTS | st.builds("{}={}".format, KEYS, TEXTS))
@example("a=$\\{b}")
@example("a='$\\'{b}'")
@example("a=$ {b}")
def test_whatever_the_text_no_interpolation_comes_out(text: str) -> None:
    found = read(text)
    if found is not None:
        assert "${" not in json.dumps([found.path, found.value], ensure_ascii=False)


@given(KEYS, TEXTS)
def test_what_is_printed_reads_back_as_the_value(key: str, text: str) -> None:
    found = read(f"{key}={text}")
    if found is not None:
        value: JsonObject = {found.path: found.value}
        for printed in (written(value), json.dumps(value)):
            again = read_mapping(printed, "").value[found.path]
            assert (again, type(again)) == (found.value, type(found.value))


@given(st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e15, 1e15))
def test_a_number_as_python_writes_it_is_that_number(number: float) -> None:
    found = read_override(f"a={number!r}").value
    assert found == number
    assert not isinstance(found, bool)


@given(
    st.text(st.characters(categories=["L", "N", "P", "S"], exclude_characters="\\"), max_size=99)
)
def test_any_printable_text_can_be_given_in_quotes(text: str) -> None:
    if "${" in text or not text.isprintable():
        return
    quoted = text.replace("'", "\\'")
    assert read_override(f"a='{quoted}'").value == text
