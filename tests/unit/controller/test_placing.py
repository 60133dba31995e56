"""What of a Job's placement is changed: what was asked for anew, and nothing that others added."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainseal.controller.placing import placing

Object = dict[str, Any]
A100: Any = {"pool": "a100"}
EXISTS: Any = {"operator": "Exists"}
SPOT: Any = {"key": "spot", "operator": "Exists"}
NODES: Any = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}]}}
PODS: Any = {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]}


@pytest.mark.parametrize(
    ("before", "wanted", "live", "movable"),
    [
        ({}, {"nodeSelector": A100}, {}, {"nodeSelector": A100}),
        ({"nodeSelector": A100}, {}, {"nodeSelector": A100}, {"nodeSelector": None}),
        ({}, {"nodeSelector": A100}, {"nodeSelector": {"pool": "h100"}}, {"nodeSelector": A100}),
        ({}, {"tolerations": [SPOT]}, {}, {"tolerations": [SPOT]}),
        ({"tolerations": [SPOT]}, {}, {"tolerations": [SPOT]}, {"tolerations": None}),
        ({}, {"schedulingGates": [{"name": "a"}]}, {}, {"schedulingGates": [{"name": "a"}]}),
        ({}, {"affinity": {"nodeAffinity": NODES}}, {}, {"affinity": {"nodeAffinity": NODES}}),
        (
            {"affinity": {"nodeAffinity": NODES}},
            {},
            {"affinity": {"nodeAffinity": NODES}},
            {"affinity": None},
        ),
    ],
)
def test_what_was_changed_is_brought_to_what_is_wanted(
    before: Object, wanted: Object, live: Object, movable: Object
) -> None:
    assert placing(before, wanted, live).movable == movable


@pytest.mark.parametrize("field", ["nodeSelector", "tolerations", "affinity"])
def test_what_nobody_changed_is_left_alone_whatever_others_made_of_it(field: str) -> None:
    values: Object = {
        "nodeSelector": {"zone": "b"},
        "tolerations": [EXISTS],
        "affinity": {"nodeAffinity": NODES},
    }
    assert placing({}, {}, {field: values[field]}).movable == {}


def test_what_others_added_to_a_changed_field_stays() -> None:
    live: Object = {"nodeSelector": {"pool": "old", "zone": "b"}, "tolerations": [SPOT, EXISTS]}
    before: Object = {"nodeSelector": {"pool": "old"}, "tolerations": [SPOT]}
    found = placing(before, {"nodeSelector": A100}, live)
    assert found.movable == {
        "nodeSelector": {"zone": "b", **A100},
        "tolerations": [EXISTS],
    }


def test_what_is_there_already_is_not_written_again() -> None:
    wanted: Object = {"nodeSelector": A100, "tolerations": [SPOT]}
    live: Object = {"nodeSelector": {"zone": "b", **A100}, "tolerations": [EXISTS, SPOT]}
    assert placing({}, wanted, live).movable == {}


@pytest.mark.parametrize(
    ("wanted", "fixed"),
    [
        ({"priorityClassName": "urgent"}, "priorityClassName"),
        ({"topologySpreadConstraints": [{"maxSkew": 1}]}, "topologySpreadConstraints"),
        ({"affinity": {"podAffinity": PODS}}, "affinity.podAffinity"),
        ({"affinity": {"podAntiAffinity": PODS}}, "affinity.podAntiAffinity"),
    ],
)
def test_what_no_job_lets_change_is_named_and_not_tried(wanted: Object, fixed: str) -> None:
    found = placing({}, wanted, {})
    assert (found.movable, found.fixed) == ({}, (fixed,))
    assert placing({}, wanted, wanted).fixed == ()


def test_affinity_to_pods_stays_when_that_to_nodes_is_changed() -> None:
    live: Object = {"affinity": {"podAffinity": PODS}}
    wanted: Object = {"affinity": {"podAffinity": PODS, "nodeAffinity": NODES}}
    assert placing(live, wanted, live).movable == wanted


SELECTORS = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"))


@given(before=SELECTORS, wanted=SELECTORS, added=SELECTORS)
def test_once_it_is_done_nothing_is_left_to_do(before: Any, wanted: Any, added: Any) -> None:
    one, other = {"nodeSelector": before}, {"nodeSelector": wanted}
    live: Object = {"nodeSelector": {**added, **before}}
    placed = live | placing(one, other, live).movable
    assert placing(one, other, placed).movable == {}
    if before != wanted:
        assert (placed["nodeSelector"] or {}).items() >= wanted.items()


def test_the_patch_takes_away_only_what_is_there() -> None:
    found = placing({"tolerations": [SPOT]}, {"nodeSelector": A100}, {"tolerations": [SPOT]})
    assert found.operations("/spec/template/spec", {"tolerations": [SPOT]}) == [
        {"op": "add", "path": "/spec/template/spec/nodeSelector", "value": A100},
        {"op": "remove", "path": "/spec/template/spec/tolerations"},
    ]
