"""The kinds as models: what is read is what is written, and what is wrong is named."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.sample_objects import SAMPLES, STATUS_FAULTS, put, status_of, training_job
from trainseal.api.crd import KINDS
from trainseal.api.model import InvalidObjectError
from trainseal.api.trainingjob import TrainingJob

BY_NAME = {kind.name: kind for kind in KINDS}


@pytest.mark.parametrize("sample", SAMPLES)
def test_reading_and_writing_a_spec_changes_nothing(sample: Callable[[], Any]) -> None:
    obj = sample()
    kind = BY_NAME[obj["kind"]]
    read: Any = kind.resource.parse(obj)
    assert read.spec.wire() == obj["spec"]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.status is not None])
def test_reading_and_writing_a_status_changes_nothing(kind: Any) -> None:
    status = status_of(kind.name)
    assert kind.status.model_validate(status).wire() == status


@pytest.mark.parametrize("sample", SAMPLES)
def test_an_unknown_field_in_a_spec_is_refused_by_name(sample: Callable[[], Any]) -> None:
    obj = sample()
    obj["spec"]["unheardOf"] = 1
    with pytest.raises(InvalidObjectError, match=r"spec\.unheardOf: .*no such field"):
        BY_NAME[obj["kind"]].resource.parse(obj)


# What the CRD cannot say ------------------------------------------------------------------------


@pytest.mark.parametrize(("least", "most"), [(5, 2), (2, 1)])
def test_a_range_of_replicas_with_its_ends_the_wrong_way_round_is_refused(
    least: int, most: int
) -> None:
    obj = training_job()
    obj["spec"]["roles"][1]["replicas"] = {"min": least, "max": most}
    with pytest.raises(InvalidObjectError, match=r"spec\.roles\[1\]\.replicas.*min not above max"):
        TrainingJob.parse(obj)


@pytest.mark.parametrize("both", [1, 3])
def test_a_range_of_one_size_is_a_size(both: int) -> None:
    obj = training_job()
    obj["spec"]["roles"][1]["replicas"] = {"min": both, "max": both}
    assert TrainingJob.parse(obj).spec.roles[1].size == both


# Statuses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "path", "value"), STATUS_FAULTS)
def test_a_status_that_says_what_no_status_says_is_refused(
    kind: str, path: str, value: object
) -> None:
    status = status_of(kind)
    put(status, path, value)
    model: Any = BY_NAME[kind].status
    with pytest.raises(ValidationError):
        model.model_validate(status)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=8), _VALUES, max_size=4))
def test_opaque_values_pass_through_the_model_untouched(parameters: dict[str, Any]) -> None:
    obj = training_job()
    obj["spec"]["config"]["parameters"] = parameters
    before = copy.deepcopy(obj["spec"])
    assert TrainingJob.parse(obj).spec.wire() == before
