"""A manifest's text is changed where it must be, and nowhere else; never into another meaning."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trainseal.cli.layout import LayoutError, edited, written_anew
from trainseal.provenance.document import FieldPath
from trainseal.provenance.yamlreader import read_documents

JOB = """\
# who reads this reads all of it
apiVersion: trainseal.dev/v1alpha1
kind: TrainingJob
metadata: {name: char-lm, namespace: research}   # two fields
spec:
  engine: Job
  roles:
  - name: worker
    replicas: 1.0
    template:
      spec:
        containers:
        - name: trainer
          image: registry.example/pytorch:2   # the usual one
          command: [python, "train.py"]
  scratch:
  - mountPath: /tmp   # gone afterwards
"""
IMAGE = ("spec", "roles", 0, "template", "spec", "containers", 0, "image")
PINNED = "registry.example/pytorch:2@sha256:" + "a" * 64
ONE: Any = {"bundle": {"mediaType": "application/x", "n": {"list": [], "text": "3e-4"}}}
TWO: Any = {"bundle": {"mediaType": "application/y"}}


def change(text: str, *signatures: Any, index: int = 0, **replaced: str) -> str:
    replacements: dict[FieldPath, str] = {IMAGE: PINNED} if replaced.get("image") else {}
    return edited(text, read_documents(text, "job.yaml"), index, replacements, signatures)


def spec(text: str, index: int = 0) -> Any:
    return read_documents(text, "job.yaml")[index].value["spec"]


def test_a_signature_is_added_below_the_spec_and_every_other_line_stays() -> None:
    text = change(JOB, ONE)
    assert text.startswith(JOB)
    added = text.removeprefix(JOB).splitlines()
    assert added[0] == "  signatures:"
    assert len(added) == 2
    assert spec(text)["signatures"] == [ONE]


def test_a_second_signature_is_one_more_line() -> None:
    first = change(JOB, ONE)
    second = change(first, ONE, TWO)
    assert second.startswith(first)
    assert spec(second)["signatures"] == [ONE, TWO]


def test_signatures_that_no_longer_hold_are_replaced_in_their_place() -> None:
    first = change(JOB.replace("  scratch", "  signatures:\n  - bundle: {a: 1}\n  scratch"), TWO)
    assert spec(first)["signatures"] == [TWO]
    assert first.index("signatures") < first.index("scratch")
    assert "# gone afterwards" in first


def test_a_reference_is_replaced_and_the_comment_beside_it_stays() -> None:
    text = change(JOB, ONE, image=PINNED)
    assert f"          image: {PINNED}   # the usual one\n" in text
    assert len(text.splitlines()) == len(JOB.splitlines()) + 2


@pytest.mark.parametrize("quote", ["'", '"'])
def test_quotes_around_a_reference_stay(quote: str) -> None:
    before = "registry.example/pytorch:2"
    text = change(JOB.replace(before, f"{quote}{before}{quote}"), ONE, image=PINNED)
    assert f"image: {quote}{PINNED}{quote}   #" in text


def test_an_anchor_before_a_reference_stays_and_its_aliases_follow() -> None:
    anchored = JOB.replace("image: registry", "image: &image registry")
    text = change(anchored, ONE, image=PINNED)
    assert f"image: &image {PINNED}" in text


def test_an_alias_that_another_field_uses_too_is_not_changed_behind_its_back() -> None:
    anchored = JOB.replace("image: registry", "image: &image registry")
    anchored = anchored.replace('"train.py"]', '"train.py", *image]')
    with pytest.raises(LayoutError):
        change(anchored, ONE, image=PINNED)


def test_other_documents_of_the_file_stay_to_the_byte() -> None:
    other = "apiVersion: v1\nkind: ConfigMap   # before\ndata: {a: b}\n"
    text = change(f"{other}---\n{JOB}---\n{other}", ONE, index=1)
    before, job, after = text.split("---\n")
    assert (before, after) == (other, other)
    assert job.startswith(JOB)


def test_windows_line_ends_stay() -> None:
    text = change(JOB.replace("\n", "\r\n"), ONE, image=PINNED)
    assert text.count("\n") == text.count("\r\n")
    assert spec(text)["signatures"] == [ONE]


@pytest.mark.parametrize(
    "end",
    [
        "  note: |\n    # no comment\n\n",
        "  note: |+\n    kept\n\n\n",
        "  note: >-\n    folded",
        "  note:\n",
        "  note: {a: [1, 2]}",
        "  note:\n    deep:\n      deeper: 1\n# a comment at the end\n",
    ],
)
def test_whatever_stands_last_in_the_spec_the_signature_goes_behind_it(end: str) -> None:
    signed = change(JOB + end, ONE, image=PINNED)
    assert spec(signed)["signatures"] == [ONE]
    assert {k: v for k, v in spec(signed).items() if k not in ("signatures", "roles")} == {
        k: v for k, v in spec(JOB + end).items() if k != "roles"
    }


def test_a_list_is_indented_as_the_author_indents_lists() -> None:
    indented = JOB.replace("- name: worker", "  - name: worker").replace(
        "    replicas", "      replicas"
    )
    head, template = indented.split("    template:\n")
    body, scratch = template.split("  scratch:\n")
    text = f"{head}      template:\n" + "".join(f"  {line}\n" for line in body.splitlines())
    signed = change(f"{text}  scratch:\n{scratch}", ONE)
    assert "\n    - bundle: {" in signed


def test_a_json_file_stays_json() -> None:
    text = json.dumps(yaml.safe_load(JOB))
    changed = change(text, ONE, image=PINNED)
    assert json.loads(changed)["spec"]["signatures"] == [ONE]


@pytest.mark.parametrize("spec_text", ["{engine: Job}", "!!map {engine: Job}", "&s {engine: Job}"])
def test_a_layout_that_cannot_be_edited_is_said_so(spec_text: str) -> None:
    text = f"apiVersion: a\nkind: TrainingJob\nspec: {spec_text}\n"
    with pytest.raises(LayoutError, match="block style"):
        change(text, ONE)


def test_written_anew_it_means_the_same() -> None:
    text = f"{JOB}---\napiVersion: v1\nkind: Secret\n"
    anew = written_anew(read_documents(text, "job.yaml"), 0, {IMAGE: PINNED}, [ONE])
    documents = [d.value for d in read_documents(anew, "job.yaml")]
    assert [d["kind"] for d in documents] == ["TrainingJob", "Secret"]
    assert spec(anew)["signatures"] == [ONE]


_WORDS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=12)
_VALUES = st.recursive(
    st.booleans() | st.integers(-1000, 1000) | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=3),
    max_leaves=8,
)


@given(
    fields=st.dictionaries(st.sampled_from("abcdef"), _VALUES, max_size=4),
    signed=st.lists(st.sampled_from([ONE, TWO]), max_size=2),
    flow=st.sampled_from([False, None]),
    indent=st.sampled_from([2, 4]),
    width=st.sampled_from([20, 1000]),
)
def test_whatever_the_text_it_means_what_was_wanted_or_is_refused(
    fields: dict[str, Any], signed: list[Any], flow: bool | None, indent: int, width: int
) -> None:
    job: Any = yaml.safe_load(JOB)
    job["spec"] |= fields | ({"signatures": signed} if signed else {})
    text = yaml.safe_dump(
        job, sort_keys=False, default_flow_style=flow, indent=indent, width=width,
        allow_unicode=True,
    )  # fmt: skip
    try:
        before = spec(text)
    except ValueError:
        return  # PyYAML and kubectl do not write and read all the same
    wanted = [*signed, TWO]
    try:
        after = spec(change(text, *wanted, image=PINNED))
    except LayoutError:
        return
    assert after.pop("signatures") == wanted
    assert after["roles"][0]["template"]["spec"]["containers"][0].pop("image") == PINNED
    before.pop("signatures", None)
    before["roles"][0]["template"]["spec"]["containers"][0].pop("image")
    assert after == before
