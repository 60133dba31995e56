"""The rules by which accesses to sealed pods are asked about, as the chart makes them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.integration.chart.conftest import NAMESPACE, one, render


def test_accesses_have_rules_of_their_own_in_the_namespaces_of_the_team(helm: Path) -> None:
    objects = render(helm, "--set", "access.namespaces={research}")
    found = one(objects, "ValidatingWebhookConfiguration", "trainseal-access")["webhooks"]
    selected = {w["name"]: w.get("namespaceSelector", {}).get("matchExpressions") for w in found}
    rules = one(objects, "ValidatingWebhookConfiguration", "trainseal")["webhooks"]
    (pods,) = [w for w in rules if w["name"] == "pods.trainseal.dev"]
    (excluded,) = pods["namespaceSelector"]["matchExpressions"]
    assert (excluded["operator"], NAMESPACE in excluded["values"]) == ("NotIn", True)
    named = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["research"]}
    # Deletions are narrowed by the pod's own labels.
    assert selected == {
        "connect.access.trainseal.dev": [excluded, named],
        "pods.access.trainseal.dev": [excluded],
        "evictions.access.trainseal.dev": [excluded, named],
        "objects.access.trainseal.dev": [excluded],
        "policies.networks.trainseal.dev": [excluded, named],
        "services.networks.trainseal.dev": [excluded, named],
        # A node is in no namespace.
        "nodes.access.trainseal.dev": None,
    }


def test_of_all_rules_those_of_evictions_and_ends_and_who_looks_on_fail_open(helm: Path) -> None:
    """A node must be drained, and a claim deleted, also while no webhook answers."""
    found = [
        webhook["name"]
        for obj in render(helm)
        if obj["kind"].endswith("WebhookConfiguration")
        for webhook in obj["webhooks"]
        if webhook["failurePolicy"] != "Fail"
    ]
    assert sorted(found) == [
        "evictions.access.trainseal.dev",
        "nodes.access.trainseal.dev",
        "notebooks.trainseal.dev",
        "objects.access.trainseal.dev",
        "removals.trainseal.dev",
        "services.networks.trainseal.dev",
        "witness.trainseal.dev",
    ]


def test_the_webhook_writes_records_and_the_lanes_count_and_nothing_else(helm: Path) -> None:
    objects = render(helm)
    writes = [
        (
            rule.get("resourceNames", rule["resources"]),
            sorted(set(rule["verbs"]) - {"get", "list", "watch"}),
        )
        for kind in ("Role", "ClusterRole")
        for rule in one(objects, kind, "trainseal-webhook")["rules"]
    ]
    assert [w for w in writes if w[1]] == [
        (["trainseal-lanes"], ["update"]),
        (["accessrecords"], ["create"]),
    ]


@pytest.mark.parametrize(
    "value", ["access.namespaces={team-*}", "access.disruptors={x' || true || 'x}"]
)
def test_a_value_that_means_nothing_or_too_much_is_refused(helm: Path, value: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        render(helm, "--set", value)
    assert "values don't meet the specifications of the schema" in refused.value.stderr
