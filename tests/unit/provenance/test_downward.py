"""What a template may take from the pod itself, and which keys of a pod are guarded for it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainseal.provenance.downward import FIELDS, Key, key_of, referred_keys, signed_value

METADATA: dict[str, Any] = {
    "labels": {"team": "research"},
    "annotations": {"example.org/flavor": "small"},
}
INDEX = "batch.kubernetes.io/job-completion-index"


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_what_nobody_but_the_cluster_writes_may_be_referred_to(field: str) -> None:
    value = signed_value(field, {})
    assert value
    assert "/" not in value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (f"metadata.annotations['{INDEX}']", "0"),
        (f"metadata.labels['{INDEX}']", "0"),
        ("metadata.labels['team']", "research"),
        ("metadata.annotations['example.org/flavor']", "small"),
    ],
)
def test_so_may_the_index_and_what_the_template_itself_says(field: str, value: str) -> None:
    assert signed_value(field, METADATA) == value


@pytest.mark.parametrize(
    "field",
    [
        "metadata.annotations['x']",
        "metadata.labels['example.org/flavor']",
        "metadata.annotations['team']",
        "metadata.annotations",
        "metadata.labels",
        "metadata.annotations['']",
        "metadata.annotations['example.org/flavor'",
        "metadata.generateName",
        "spec.hostname",
        "status.phase",
        "",
    ],
)
def test_nothing_else_may(field: str) -> None:
    assert signed_value(field, METADATA) is None


@given(st.text(min_size=1).filter(lambda key: not key.endswith("']")))
def test_a_key_is_read_as_the_kubelet_reads_it(key: str) -> None:
    assert key_of(f"metadata.annotations['{key}']") == Key("annotations", key)


def test_the_keys_of_a_pods_variables_and_volumes_are_all_found() -> None:
    def by(kind: str, key: str) -> dict[str, Any]:
        return {"fieldRef": {"fieldPath": f"metadata.{kind}['{key}']"}}

    item: dict[str, Any] = {"path": "x", **by("annotations", "c")}
    spec: dict[str, Any] = {
        "initContainers": [{"env": [{"name": "A", "valueFrom": by("annotations", "a")}]}],
        "containers": [
            {"env": [{"name": "B", "valueFrom": by("labels", "b")}, {"name": "N", "value": "1"}]}
        ],
        "volumes": [
            {"name": "x", "downwardAPI": {"items": [item]}},
            {
                "name": "y",
                "projected": {"sources": [{"downwardAPI": {"items": [by("labels", "d")]}}]},
            },
            {"name": "z", "emptyDir": {}},
        ],
    }
    assert referred_keys(spec) == {
        Key("annotations", "a"),
        Key("labels", "b"),
        Key("annotations", "c"),
        Key("labels", "d"),
    }
