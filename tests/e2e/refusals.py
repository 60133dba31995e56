"""What the API server refused to TrainSeal's own processes, as their logs tell it."""

from __future__ import annotations

import contextlib
import json
import re

from tests.cluster import CommandError
from tests.e2e.lab import Lab
from tests.stage.release import NAMESPACE

AGENTS = "trainseal-agent"
COMPONENTS = frozenset({"webhook", "controller", "archive", "agent"})
#: Kubernetes' words where a role lacks a right. What an admission rule denies is another matter.
_REFUSED = re.compile(r"system:serviceaccount:trainseal\S* cannot \w+ resource")


def refused_in(log: str) -> list[str]:
    """The lines that tell of a right that was lacking."""
    return [line for line in log.splitlines() if _REFUSED.search(line)]


def refused_to_us(lab: Lab) -> list[str]:
    """Such lines of all processes, also of those that were killed; of pods that are gone, none."""
    found, seen = [], set()
    for namespace in (NAMESPACE, AGENTS):
        listed = lab.admin("get", "pods", "-n", namespace, "-o", "json")
        for pod in json.loads(listed)["items"]:
            labels = pod["metadata"].get("labels") or {}
            seen.add(labels.get("app.kubernetes.io/component"))
            for flags in ((), ("--previous",)):
                with contextlib.suppress(CommandError):  # there is none before, or it is gone
                    words = ("logs", pod["metadata"]["name"], "-n", namespace, *flags)
                    found += refused_in(lab.admin(*words))
    assert seen >= COMPONENTS, f"found processes of {seen}, expected {COMPONENTS}"
    return found
