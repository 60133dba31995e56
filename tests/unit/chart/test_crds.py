"""The chart's copies of the custom resource definitions."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]
GENERATED = ROOT / "crds"
IN_THE_CHART = ROOT / "charts" / "trainseal" / "files" / "crds"


def test_the_chart_holds_exactly_the_generated_crds() -> None:
    generated = {path.name: path.read_text() for path in GENERATED.glob("*.yaml")}
    assert generated
    assert {path.name: path.read_text() for path in IN_THE_CHART.iterdir()} == generated, (
        "run: make crds"
    )


def test_their_metadata_is_a_name_alone_so_that_the_chart_can_put_its_own_beside_it() -> None:
    for path in IN_THE_CHART.glob("*.yaml"):
        assert set(yaml.safe_load(path.read_text())["metadata"]) == {"name"}, path.name
