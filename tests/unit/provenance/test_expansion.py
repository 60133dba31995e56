"""Kubernetes' ``$(NAME)``: as third_party/forked/golang/expansion of Kubernetes does it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainseal.provenance.expansion import MAX_EXPANDED, ExpandsTooFarError, expand

VARIABLES = {"A": "a", "B": "$(A)", "EMPTY": "", "a b": "blank"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        # From Kubernetes' own expand_test.go, with its variables.
        ("$(A)", "a"),
        ("$(A)$(A)", "aa"),
        ("___$(A)___", "___a___"),
        ("$(B)", "$(A)"),
        ("$(EMPTY)", ""),
        ("$(NOT_DEFINED)", "$(NOT_DEFINED)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$a"),
        ("$$$$(A)", "$$(A)"),
        ("$", "$"),
        ("$$", "$"),
        ("$A", "$A"),
        ("${A}", "${A}"),
        ("$(A", "$(A"),
        ("$(A$(A)", "$(A$(A)"),
        ("$()", "$()"),
        ("$(a b)", "blank"),
        ("foo $$ (A)", "foo $ (A)"),
        ("$\u00e9(A)", "$\u00e9(A)"),
        ("$(A)$", "a$"),
    ],
)
def test_a_reference_is_replaced_as_the_kubelet_replaces_it(text: str, expanded: str) -> None:
    assert expand(text, VARIABLES) == expanded


@given(st.text(), st.dictionaries(st.text(), st.text()))
def test_a_text_whose_dollars_are_doubled_stays_what_it_was(
    text: str, variables: dict[str, str]
) -> None:
    assert expand(text.replace("$", "$$"), variables) == text


@given(
    st.text(alphabet=st.characters(exclude_characters="$")), st.dictionaries(st.text(), st.text())
)
def test_a_text_without_a_dollar_stays_as_it_is(text: str, variables: dict[str, str]) -> None:
    assert expand(text, variables) == text


@given(st.lists(st.text(alphabet="$()AB "), max_size=12).map("".join))
def test_nothing_is_replaced_where_nothing_is_known(text: str) -> None:
    assert expand(text, {}).replace("$", "") == text.replace("$", "")


def test_what_refers_to_itself_over_and_over_comes_to_an_end() -> None:
    value = "x" * 1024
    with pytest.raises(ExpandsTooFarError, match=str(MAX_EXPANDED)):
        expand("$(V)" * 1024, {"V": value})
