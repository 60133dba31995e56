"""The dashboard and the alerts of the chart ask for metrics that exist, in words people understand.

What exists is what the processes' own registries say, never a list kept by hand.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

ROOT = Path(__file__).parents[3]
FILES = ROOT / "charts" / "trainseal" / "files" / "monitoring"
RULES: Any = yaml.safe_load((FILES / "rules.yaml").read_text())
DASHBOARD: Any = json.loads((FILES / "dashboard.json").read_text())
#: What Prometheus puts on every series itself.
TARGET_LABELS = frozenset({"pod", "instance", "job", "container", "endpoint"})
#: What Grafana puts in their place.
_VARIABLES = re.compile(r"\$__(rate_interval|range|interval)\b")
#: What an annotation may hand through: labels of the alert's own expression.
_TEMPLATED = re.compile(r"\$labels\.(\w+)")


#: Series, their labels, and of each label the values that are there from the start.
Exported = dict[str, dict[str, list[str]]]


@dataclass(frozen=True)
class Asked:
    """One series in one expression, with every label that is spoken of."""

    place: str
    series: str
    labels: frozenset[str]
    values: tuple[tuple[str, str], ...]


def alerts() -> list[Any]:
    return [rule for group in RULES["groups"] for rule in group["rules"]]


def panels() -> list[Any]:
    return [p for p in DASHBOARD["panels"] if p["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], _VARIABLES.sub("5m", target["expr"])


def asked_in(place: str, expression: str) -> Iterator[Asked]:
    """Raises ValueError where it is no PromQL. Labels of a grouping are asked of all in it."""
    yield from _asked(place, promql_parser.parse(expression), frozenset())


def _asked(place: str, node: Any, grouped: frozenset[str]) -> Iterator[Asked]:
    if isinstance(node, promql_parser.VectorSelector):
        matchers = node.matchers.matchers
        labels = frozenset(m.name for m in matchers) | grouped
        values = tuple((m.name, m.value) for m in matchers if m.op == promql_parser.MatchOp.Equal)
        yield Asked(place, str(node.name), labels, values)
    elif isinstance(node, promql_parser.MatrixSelector):
        yield from _asked(place, node.vector_selector, grouped)
    elif isinstance(node, promql_parser.AggregateExpr):
        by = node.modifier
        more = frozenset(by.labels) if by is not None else frozenset()
        yield from _asked(place, node.expr, grouped | more)
    elif isinstance(node, promql_parser.BinaryExpr):
        for side in (node.lhs, node.rhs):
            yield from _asked(place, side, grouped)
    elif isinstance(node, promql_parser.Call):
        for argument in node.args:
            yield from _asked(place, argument, grouped)
    elif isinstance(
        node, promql_parser.ParenExpr | promql_parser.UnaryExpr | promql_parser.SubqueryExpr
    ):
        yield from _asked(place, node.expr, grouped)
    else:
        assert isinstance(node, promql_parser.NumberLiteral | promql_parser.StringLiteral), node


@pytest.fixture(scope="module")
def exported() -> Exported:
    """Every series of every process; asked of the processes' code itself."""
    command = [sys.executable, "-m", "trainseal.cli.metrics", "--json"]
    found = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / "operator")},
    ).stdout
    series: Exported = {}
    for metric in json.loads(found):
        for name in metric["series"]:
            extra = ["le"] if name.endswith("_bucket") else []
            series[name] = {
                label: metric["values"].get(label, []) for label in metric["labels"] + extra
            }
    assert len(series) > 40
    return series


def problems(asked: Asked, exported: Exported) -> Iterator[str]:
    labels = exported.get(asked.series)
    if labels is None:
        yield f"{asked.place}: no process exports {asked.series}"
        return
    for label in sorted(asked.labels - labels.keys() - TARGET_LABELS):
        yield f"{asked.place}: {asked.series} has no label {label}"
    for label, value in asked.values:
        if (known := labels.get(label)) and value not in known:
            yield f"{asked.place}: {asked.series} never has {label}={value}"


def test_every_expression_asks_for_series_and_labels_that_a_process_exports(
    exported: Exported,
) -> None:
    found = [asked for place, text in expressions() for asked in asked_in(place, text)]
    assert len(found) > 30
    assert [p for asked in found for p in problems(asked, exported)] == []


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("sum(rate(trainseal_verdict_total[5m]))", "no process exports trainseal_verdict_total"),
        ("max(trainseal_held_runs offset 5m) > 0 or up", "no process exports up"),
        ('trainseal_held_runs{namespace="a"}', "trainseal_held_runs has no label namespace"),
        ("sum by (reason) (trainseal_verdicts_total)", "has no label reason"),
        ('trainseal_verdicts_total{outcome="unknown"}', "never has outcome=unknown"),
        ("sum by (reason) (-(trainseal_verdicts_total))", "has no label reason"),
    ],
)
def test_a_name_or_label_that_does_not_exist_is_found(
    exported: Exported, expression: str, problem: str
) -> None:
    found = [p for asked in asked_in("here", expression) for p in problems(asked, exported)]
    assert any(problem in p for p in found), found


def test_what_is_no_promql_is_found() -> None:
    with pytest.raises(ValueError, match="parenthesis"):
        list(asked_in("here", "sum by (namespace (trainseal_held_gpus)"))


def test_what_a_legend_or_a_text_hands_through_is_a_label_that_is_left_of_its_expression() -> None:
    for panel in panels():
        for target in panel["targets"]:
            wanted = set(re.findall(r"{{(\w+)}}", target["legendFormat"])) - TARGET_LABELS
            _left_of(panel["title"], _VARIABLES.sub("5m", target["expr"]), wanted)
    for rule in alerts():
        wanted = set(_TEMPLATED.findall(" ".join(rule["annotations"].values())))
        _left_of(rule["alert"], rule["expr"], wanted)


def _left_of(place: str, expression: str, wanted: set[str]) -> None:
    (labels, *rest) = [a.labels for a in asked_in(place, expression)]
    assert wanted <= labels.intersection(*rest), (place, wanted)


# In words ---------------------------------------------------------------------------------------


def test_every_panel_has_a_title_in_words_a_description_and_a_unit() -> None:
    titles = [panel["title"] for panel in panels()]
    assert len(set(titles)) == len(titles) > 20
    for panel in panels():
        assert re.fullmatch(r"[A-Z][^_{}$]{5,70}", panel["title"]), panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_panels_lie_beside_one_another_and_never_on_one_another() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, (panel["title"], taken[x, y])
                taken[x, y] = panel["title"]
    identities = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identities)) == len(identities)


def test_the_dashboard_brings_no_data_source_of_its_own() -> None:
    assert {p["datasource"]["uid"] for p in panels()} == {"${datasource}"}
    assert [v["name"] for v in DASHBOARD["templating"]["list"]] == ["datasource"]


def test_every_alert_has_a_severity_words_and_a_section_of_the_how_to() -> None:
    page = (ROOT / "docs" / "how-to" / "metrics.md").read_text()
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    for rule in alerts():
        assert rule["labels"]["severity"] in ("critical", "warning"), rule["alert"]
        assert {"summary", "description"} == set(rule["annotations"]), rule["alert"]
        assert rule["annotations"]["description"].endswith("."), rule["alert"]
        assert f"### {rule['alert']}\n" in page, rule["alert"]
    assert set(re.findall(r"^### (TrainSeal\w+)$", page, flags=re.MULTILINE)) == set(names)
