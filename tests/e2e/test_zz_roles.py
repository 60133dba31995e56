"""The last of all files by its name: by now every process has done all that it does.

Run alone, it only tells of their start. Asked of each of the clusters that tests/conftest.py
divides the files among; where there is but one, twice of that.
"""

from __future__ import annotations

import pytest

from tests.cluster import CommandError
from tests.e2e.lab import Lab
from tests.e2e.refusals import refused_in, refused_to_us


@pytest.fixture(params=["first", "second"])
def each_lab(lab: Lab) -> Lab:
    """The parameter says which process asks."""
    return lab


def test_the_roles_allowed_all_that_the_processes_tried(each_lab: Lab) -> None:
    assert refused_to_us(each_lab) == []


def test_a_right_that_is_lacking_would_show(each_lab: Lab) -> None:
    """The words are this cluster's own."""
    account = "--as=system:serviceaccount:trainseal-system:trainseal-webhook"
    with pytest.raises(CommandError) as refused:
        each_lab.admin("get", "nodes", account)
    assert refused_in(refused.value.stderr)
