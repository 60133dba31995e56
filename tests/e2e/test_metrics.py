"""What the processes export on a cluster is what the page of metrics says: no more, no less."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.e2e.lab import Lab
from tests.stage.release import NAMESPACE

PAGE = (Path(__file__).parents[2] / "docs/reference/metrics.md").read_text()
_PLACES = {
    "webhook": NAMESPACE,
    "controller": NAMESPACE,
    "agent": "trainseal-agent",
    "archive": NAMESPACE,
}


def documented(process: str) -> set[str]:
    """Names of the families on the page."""
    section = PAGE.partition(f"## {process.capitalize()}\n")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `(trainseal_\w+)`", section, flags=re.MULTILINE))


def exported(lab: Lab, process: str) -> set[str]:
    """Names of the families that a pod of the process tells Prometheus of."""
    namespace = _PLACES[process]
    selector = f"app.kubernetes.io/component={process}"
    listed = json.loads(lab.admin("get", "pods", "-n", namespace, "-l", selector, "-o", "json"))
    name = listed["items"][0]["metadata"]["name"]
    path = f"/api/v1/namespaces/{namespace}/pods/{name}:8080/proxy/metrics"
    return set(
        re.findall(r"^# TYPE (trainseal_\S+)", lab.admin("get", "--raw", path), re.MULTILINE)
    )


@pytest.mark.parametrize("process", _PLACES)
def test_every_metric_of_the_page_is_exported_and_no_other(lab: Lab, process: str) -> None:
    found = {name for name in exported(lab, process) if not name.endswith("_created")}
    assert found == documented(process)
