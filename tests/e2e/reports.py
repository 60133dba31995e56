"""What the agents' DriftReports say, and what a policy makes of it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from tests.e2e.lab import TEAM, Lab, Object


def report(lab: Lab, pod: Object) -> Object:
    """The pod's DriftReport; empty while there is none."""
    name = f"{pod['metadata']['name']}-{pod['metadata']['uid'][:8]}"
    reports = lab.listed("driftreports")
    return next((r for r in reports if r["metadata"]["name"] == name), {})


def condition(lab: Lab, pod: Object, type_: str) -> str:
    """What the report's condition says, such as `Watching`; empty where there is none."""
    conditions = report(lab, pod).get("status", {}).get("conditions", [])
    return next((str(c["status"]) for c in conditions if c["type"] == type_), "")


@contextlib.contextmanager
def answered_by(lab: Lab, response: str) -> Iterator[None]:
    """The team's policy answers critical findings so, until the end of the block."""
    drift: Object = {"spec": {"drift": {"responses": {"critical": response}}}}
    lab.admin("patch", "provenancepolicy", TEAM, "--type=merge", "-p", json.dumps(drift))
    try:
        yield
    finally:
        drift = {"spec": {"drift": None}}
        lab.admin("patch", "provenancepolicy", TEAM, "--type=merge", "-p", json.dumps(drift))
