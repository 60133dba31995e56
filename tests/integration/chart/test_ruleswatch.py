"""The controller finds what was changed of what guards the cluster, with the chart's own rights."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.integration.chart.conftest import CONTROLLER, NAMESPACE, ApiServer, Helm
from trainseal.cluster.api import connect
from trainseal.controller.alerts import Alert
from trainseal.controller.ruleswatch import RulesWatch


@pytest.fixture
def told() -> list[Alert]:
    """What the Alertmanager would be told."""
    return []


@pytest.fixture
def rules(chart: Helm, server: ApiServer, told: list[Alert]) -> Callable[[], dict[Any, Any]]:
    """Looks as the controller would, with its rights."""
    chart.install()

    async def look() -> dict[Any, Any]:
        account = server.cluster.user_kubeconfig(CONTROLLER)
        async with connect(str(account)) as kube:
            watch = RulesWatch(kube, NAMESPACE, lambda: datetime.now(UTC), told.append)
            return {k: v for k, v in (await watch.look()).items() if v}

    return lambda: asyncio.run(look())


def test_a_weakened_rule_is_found_and_told_once(
    rules: Callable[[], dict[Any, Any]], chart: Helm, server: ApiServer, told: list[Alert]
) -> None:
    assert (rules(), told) == ({}, [])
    kind = "validatingwebhookconfiguration"
    weak = [{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]
    server.kubectl("patch", kind, "trainseal", "--type=json", "-p", json.dumps(weak))
    server.kubectl("delete", "validatingadmissionpolicybinding", "trainseal-pods")
    more = [
        {
            "op": "add",
            "path": "/subjects/-",
            "value": {"kind": "ServiceAccount", "name": "a", "namespace": "b"},
        }
    ]
    server.kubectl(
        "patch", "clusterrolebinding", "trainseal-webhook", "--type=json", "-p", json.dumps(more)
    )
    where = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-validations"
    loose = [{"op": "remove", "path": where}]
    server.kubectl(
        "patch", "crd", "driftreports.trainseal.dev", "--type=json", "-p", json.dumps(loose)
    )
    for _ in range(2):
        assert set(rules()) == {
            ("ValidatingWebhookConfiguration", "trainseal"),
            ("ValidatingAdmissionPolicyBinding", "trainseal-pods"),
            ("ClusterRoleBinding", "trainseal-webhook"),
            ("CustomResourceDefinition", "driftreports.trainseal.dev"),
        }
    events = server.kubectl(
        "get", "events", "-n", NAMESPACE, "--field-selector", "reason=RuleChanged",
        "-o", "name",
    )  # fmt: skip
    assert len(events.split()) == 4
    # What was told of in the first minute is the same alert in the second.
    assert len({alert.id for alert in told}) == 4
    assert len(told) == 8
    # What doctor and the alert say is to be done helps.
    chart.upgrade("--force-conflicts")
    assert rules() == {}
