"""The chart's values: described in its README, bounded by its schema, all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

CHART = Path(__file__).parents[3] / "charts" / "trainseal"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())


def _leaves(values: dict[str, Any], path: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value and key != "resources":
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield path + key


def test_every_value_is_described_in_the_readme_and_no_other() -> None:
    table = (CHART / "README.md").read_text().partition("## Values")[2].partition("## What is")[0]
    described = set(re.findall(r"`([a-z][A-Za-z.]+)`", table.partition("A value that")[0]))
    leaves = set(_leaves(VALUES))
    # "and the controller's" stands for these three.
    for name in ("nodeSelector", "tolerations", "podAnnotations"):
        leaves.discard(f"controller.{name}")
    assert leaves - described == set()
    assert {name for name in described - leaves if name.split(".")[0] in VALUES} == set()


def test_the_schema_knows_every_value_and_takes_the_defaults() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.Draft7Validator(schema).validate(VALUES)
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == {*VALUES, "global"}


@pytest.mark.parametrize(
    "reference", ["registry.example/trainseal:0.1.0", "trainseal", "x@sha256:0"]
)
def test_the_schema_wants_the_image_by_digest(reference: str) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = {**VALUES, "image": {**VALUES["image"], "reference": reference}}
    with pytest.raises(jsonschema.ValidationError, match="does not match"):
        jsonschema.validate(values, schema)
    values["image"]["reference"] = f"registry.example:5000/trainseal@sha256:{'0' * 64}"
    jsonschema.validate(values, schema)


def test_the_versions_are_the_packages() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    package = (CHART.parents[1] / "pyproject.toml").read_text()
    (version,) = re.findall(r'(?m)^version = "(.*)"$', package)
    assert chart["version"] == chart["appVersion"] == version
