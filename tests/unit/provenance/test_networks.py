"""What a NetworkPolicy opens: whatever it allows, and in quarantine also outwards."""

from __future__ import annotations

from typing import Any

import pytest

from trainseal.provenance.networks import opening

FROM: Any = {"from": [{"podSelector": {}}]}

CLOSED: dict[str, Any] = {
    "it denies all": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    "it says nothing": {"podSelector": {}},
    "it denies all in words": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": []},
    "rules of a kind that it does not mean": {"policyTypes": ["Egress"], "ingress": [{}]},
}


@pytest.mark.parametrize("what", CLOSED)
def test_a_policy_that_allows_nothing_opens_nothing(what: str) -> None:
    assert opening(CLOSED[what]) is None


@pytest.mark.parametrize("spec", [{"policyTypes": ["Ingress"]}, {}])
@pytest.mark.parametrize("rule", [{}, FROM, {"ports": [{"port": 9090}]}])
def test_any_rule_of_ingress_opens(spec: Any, rule: Any) -> None:
    found = opening(spec | {"podSelector": {}, "ingress": [rule]})
    assert found
    assert found.opens(isolated=False).startswith("ingress [")


def test_a_way_out_counts_in_quarantine_alone() -> None:
    found = opening({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]})
    assert found
    assert found.opens(isolated=False) == ""
    assert found.opens(isolated=True) == "egress [{}]"


def test_whom_it_is_for_is_its_selector() -> None:
    spec: Any = {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{}]}
    found = opening(spec)
    assert found
    assert found.selector.chooses({"app": "web", "x": "y"})
    assert not found.selector.chooses({})
    everybody = opening({"ingress": [{}]})
    assert everybody
    assert everybody.selector.chooses({})
