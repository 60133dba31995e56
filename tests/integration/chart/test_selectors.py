"""Selectors choose what kubectl, by the API server, chooses."""

from __future__ import annotations

import itertools
import json
import random

from tests.integration.chart.conftest import ApiServer, Object
from trainseal.provenance.selectors import Requirement, Selector

NAMESPACE = "selectors"
_KEYS, _VALUES = ("app", "team"), ("", "a", "b")
#: Every way to have these labels, or not.
LABELS = [
    {k: v for k, v in zip(_KEYS, values, strict=True) if v is not None}
    for values in itertools.product((None, *_VALUES), repeat=len(_KEYS))
]
_TEXT = {
    "In": "{key} in ({values})",
    "NotIn": "{key} notin ({values})",
    "Exists": "{key}",
    "DoesNotExist": "!{key}",
}


def _requirements() -> list[Requirement]:
    sets = [frozenset(s) for n in (1, 2) for s in itertools.combinations(_VALUES, n)]
    return [
        *(Requirement(k, o, s) for k in _KEYS for o in ("In", "NotIn") for s in sets),
        *(Requirement(k, o) for k in _KEYS for o in ("Exists", "DoesNotExist")),
    ]


def _text(selector: Selector) -> str:
    """As `kubectl get -l` takes it."""
    return ",".join(
        _TEXT[r.operator].format(key=r.key, values=",".join(sorted(r.values)))
        for r in selector.requirements
    )


def test_a_selector_chooses_what_kubectl_shows(server: ApiServer) -> None:
    server.kubectl("create", "namespace", NAMESPACE)
    try:
        for number, labels in enumerate(LABELS):
            metadata: Object = {"name": f"n{number}", "namespace": NAMESPACE, "labels": labels}
            server.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
        every = _requirements()
        pairs = random.Random(7).sample(list(itertools.combinations(every, 2)), 12)
        for chosen in [*((r,) for r in every), *pairs]:
            selector = Selector(tuple(chosen))
            said = server.kubectl(
                *("get", "configmaps", "-n", NAMESPACE, "-o", "json", "-l", _text(selector))
            )
            # Of Kubernetes' own: the API server's certificate authority stands in each namespace.
            found = {i["metadata"]["name"] for i in json.loads(said)["items"]} - {
                "kube-root-ca.crt"
            }
            ours = {f"n{n}" for n, labels in enumerate(LABELS) if selector.chooses(labels)}
            assert found == ours, _text(selector)
    finally:
        server.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
