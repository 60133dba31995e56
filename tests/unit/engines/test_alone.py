"""A single pod of a template's run has no other to find: it has no Service, by any engine."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit import world
from trainseal.engines.catalogue import ENGINES
from trainseal.engines.engine import Rendered

Object = dict[str, Any]
ENGINE = pytest.mark.parametrize("engine", ENGINES)


def rendered(engine: str, replicas: Any, *, of_template: bool) -> Rendered:
    job = world.job_object()
    job["spec"]["engine"] = engine
    job["spec"]["roles"][0]["replicas"] = replicas
    return world.render_job(job, of_template=of_template)


def pod_of(found: Rendered) -> Object:
    owner: Any = found.roles[0].tried
    spec: Object = owner["spec"]["template"]["spec"]
    return spec


def hosts(found: Rendered) -> dict[str, str]:
    """What its trainer is told of where the first pod is."""
    env = pod_of(found)["containers"][0]["env"]
    return {e["name"]: e["value"] for e in env if e["name"].endswith("MASTER_ADDR")}


@ENGINE
def test_it_has_no_service_and_meets_at_itself(engine: str) -> None:
    found = rendered(engine, 1, of_template=True)
    assert found.service is None
    assert "subdomain" not in pod_of(found)
    assert set(hosts(found).values()) == {"localhost"}


@ENGINE
@pytest.mark.parametrize(
    ("replicas", "of_template"),
    [
        pytest.param(1, False, id="a job whose signer knew its name"),
        pytest.param(2, True, id="two workers"),
        pytest.param({"min": 1, "max": 2}, True, id="one worker now, and another later"),
    ],
)
def test_its_twins_have_one(engine: str, replicas: Any, of_template: bool) -> None:
    found = rendered(engine, replicas, of_template=of_template)
    assert found.service is not None
    assert pod_of(found)["subdomain"] == found.service["metadata"]["name"]
    for host in hosts(found).values():
        assert host.endswith("char-lm.research.svc")
