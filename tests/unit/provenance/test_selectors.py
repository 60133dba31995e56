"""Selectors choose what Kubernetes says they do; what is not known is never told no by a guess.

That kubectl agrees is tried in tests/integration/chart/test_selectors.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainseal.provenance.selectors import EVERYTHING, equal_to, label_selector

KEYS, VALUES = st.sampled_from(["app", "team", "tier"]), st.sampled_from(["", "a", "b"])
LABELS = st.dictionaries(KEYS, VALUES)
EXPRESSIONS = st.one_of(
    st.fixed_dictionaries(
        {
            "key": KEYS,
            "operator": st.sampled_from(["In", "NotIn"]),
            "values": st.lists(VALUES, min_size=1),
        }
    ),
    st.fixed_dictionaries({"key": KEYS, "operator": st.sampled_from(["Exists", "DoesNotExist"])}),
)
SELECTORS = st.fixed_dictionaries(
    {"matchLabels": LABELS, "matchExpressions": st.lists(EXPRESSIONS, max_size=3)}
)

#: Of the labels {app: web, tier: ""}.
CASES: dict[str, tuple[Any, bool]] = {
    "nothing at all": ({}, True),
    "its value": ({"matchLabels": {"app": "web"}}, True),
    "another value": ({"matchLabels": {"app": "api"}}, False),
    "a label that it does not have": ({"matchLabels": {"team": "web"}}, False),
    "one of several": ({"key": "app", "operator": "In", "values": ["api", "web"]}, True),
    "none of several": ({"key": "app", "operator": "In", "values": ["api"]}, False),
    "a missing one among several": ({"key": "team", "operator": "In", "values": [""]}, False),
    "an empty one among several": ({"key": "tier", "operator": "In", "values": [""]}, True),
    "not this": ({"key": "app", "operator": "NotIn", "values": ["web"]}, False),
    "not that": ({"key": "app", "operator": "NotIn", "values": ["api"]}, True),
    "not this, and it has none": ({"key": "team", "operator": "NotIn", "values": ["x"]}, True),
    "there": ({"key": "tier", "operator": "Exists"}, True),
    "not there, and wanted": ({"key": "team", "operator": "Exists"}, False),
    "not there": ({"key": "team", "operator": "DoesNotExist"}, True),
    "there, and unwanted": ({"key": "tier", "operator": "DoesNotExist"}, False),
    "an operator of later days": ({"key": "team", "operator": "Resembles"}, True),
}


@pytest.mark.parametrize("what", CASES)
def test_a_selector_chooses_as_kubernetes_does(what: str) -> None:
    selector, chosen = CASES[what]
    if "key" in selector:
        selector = {"matchExpressions": [selector]}
    assert label_selector(selector).chooses({"app": "web", "tier": ""}) is chosen


@given(LABELS, LABELS)
def test_a_services_selector_chooses_what_has_all_its_labels(wanted: Any, labels: Any) -> None:
    assert equal_to(wanted).chooses(labels) is (wanted.items() <= labels.items())
    assert EVERYTHING.chooses(labels)


@given(SELECTORS, SELECTORS, LABELS)
def test_both_selectors_in_one_choose_what_both_do(one: Any, other: Any, labels: Any) -> None:
    expressions = [*one["matchExpressions"], *other["matchExpressions"]]
    more = [{"key": k, "operator": "In", "values": [v]} for k, v in other["matchLabels"].items()]
    both = {"matchLabels": one["matchLabels"], "matchExpressions": [*expressions, *more]}
    expected = label_selector(one).chooses(labels) and label_selector(other).chooses(labels)
    assert label_selector(both).chooses(labels) is expected


@given(SELECTORS, LABELS, st.sets(KEYS))
def test_a_label_that_is_not_known_never_makes_it_choose_less(
    selector: Any, labels: Any, unknown: set[str]
) -> None:
    read = label_selector(selector)
    assert read.chooses(labels, unknown.__contains__) >= read.chooses(labels)


@given(SELECTORS, LABELS, LABELS)
def test_whatever_value_it_turns_out_to_have_it_was_not_told_no(
    selector: Any, known: Any, later: Any
) -> None:
    read = label_selector(selector)
    if read.chooses({**known, **later}):
        assert read.chooses(known, later.__contains__)
