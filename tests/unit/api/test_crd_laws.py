"""Laws that every generated CRD keeps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainseal.api import generated
from trainseal.api.crd import KINDS, UNSIGNED, all_crds, crd_files
from trainseal.api.policy import Requirements
from trainseal.api.reference import reference_page
from trainseal.api.schema import PRESERVE
from trainseal.provenance.canonical import UNSIGNED_SPEC_FIELDS

ROOT = Path(__file__).parents[3]

Node = dict[str, Any]


def _schema(crd: Node) -> Node:
    schema: Node = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def _nodes(node: Node, path: str) -> Iterator[tuple[str, Node]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from _nodes(child, f"{path}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if key in node:
            yield from _nodes(node[key], path + mark)


CRDS = all_crds()
ALL_NODES = [
    (f"{name}:{path}", node)
    for name, crd in CRDS.items()
    for path, node in _nodes(_schema(crd), "")
]
SPEC_NODES = [(path, node) for path, node in ALL_NODES if re.search(r":\.spec\b", path)]


def _opaque(node: Node) -> bool:
    return node.get(PRESERVE) is True and "properties" not in node and "type" not in node


def test_no_field_has_a_default() -> None:
    assert [path for path, node in ALL_NODES if "default" in node] == []


def test_every_string_is_bounded() -> None:
    strings = [(path, node) for path, node in ALL_NODES if node.get("type") == "string"]
    assert [p for p, node in strings if "enum" not in node and "maxLength" not in node] == []


def test_every_list_is_bounded_and_says_how_it_merges() -> None:
    lists = [(path, node) for path, node in ALL_NODES if node.get("type") == "array"]
    assert [p for p, n in lists if "maxItems" not in n or "x-kubernetes-list-type" not in n] == []


def test_every_map_is_bounded() -> None:
    maps = [(path, node) for path, node in ALL_NODES if "additionalProperties" in node]
    assert [path for path, node in maps if "maxProperties" not in node] == []


def test_the_names_in_every_map_are_bounded_where_cel_can_see_them() -> None:
    """It sees no map of opaque values: the webhook bounds those by their bytes."""
    maps = [(path, node) for path, node in ALL_NODES if "additionalProperties" in node]
    seen = [(path, node) for path, node in maps if not _opaque(node["additionalProperties"])]
    assert len(seen) >= 3
    for path, node in seen:
        rules = [rule["rule"] for rule in node["x-kubernetes-validations"]]
        assert any(re.fullmatch(r"self\.all\(name, size\(name\) <= \d+\)", r) for r in rules), path


def test_every_integer_has_a_least_and_a_most() -> None:
    integers = [(path, node) for path, node in ALL_NODES if node.get("type") == "integer"]
    assert len(integers) >= 20
    assert [p for p, n in integers if "minimum" not in n or "maximum" not in n] == []
    assert max(node["maximum"] for _, node in integers) < 2**53


def test_every_node_has_a_type_or_is_opaque() -> None:
    assert [path for path, node in ALL_NODES if "type" not in node and not _opaque(node)] == []


def test_every_field_is_documented() -> None:
    undocumented = [
        path for path, node in ALL_NODES if "description" not in node and path[-1] not in "]}"
    ]
    assert undocumented == []


def test_every_closed_object_counts_its_fields() -> None:
    closed = [
        (path, node)
        for path, node in SPEC_NODES
        if node.get("type") == "object" and "additionalProperties" not in node
    ]
    assert len(closed) > 30
    for path, node in closed:
        rule = node["x-kubernetes-validations"][0]["rule"]
        assert node[PRESERVE] is True, path
        assert rule.startswith("size(dyn(self)) == "), path
        optional = set(node.get("properties", {})) - set(node.get("required", []))
        assert set(re.findall(r"has\(dyn\(self\)\.(\w+)\)", rule)) == optional, path


def test_opaque_values_keep_their_nulls() -> None:
    values = [
        node["additionalProperties"]
        for _, node in ALL_NODES
        if _opaque(node.get("additionalProperties", {}))
    ]
    assert len(values) >= 5
    assert all(value["nullable"] is True for value in values)


def test_no_half_typed_object_hides_below_a_transition_rule() -> None:
    """CEL's == passes over keys of such an object that only one side has: a renamed one."""
    half_typed = [
        path
        for path, node in ALL_NODES
        if node.get("type") == "object" and PRESERVE in node and "properties" not in node
    ]
    assert [path for path in half_typed if not path.endswith(".publicGood")] == []


def test_a_rule_about_a_requirement_holds_where_there_is_none() -> None:
    """Adding an optional one later must not make CEL fail on the policies that lack it."""
    node = dict(ALL_NODES)["provenancepolicies.trainseal.dev:.spec"]
    rules = [r["rule"] for r in node["x-kubernetes-validations"] if "requirements." in r["rule"]]
    assert len(rules) == len(Requirements.model_fields)
    for rule in rules:
        artifact = rule.rpartition("self.requirements.")[2].partition(".")[0]
        assert rule.startswith(f"!has(self.requirements.{artifact}) || ")


#: What RE2 (Go) lacks or reads otherwise than the models' engine.
_NOT_RE2 = re.compile(r"\(\?(?![:i])|\\[1-9]|[*+?}]\+|\\[zZhHR]|\(\?[=!<>]")


def test_patterns_stay_within_re2_and_are_anchored() -> None:
    patterns = {node["pattern"] for _, node in ALL_NODES if "pattern" in node}
    assert len(patterns) >= 8
    for pattern in patterns:
        re.compile(pattern)
        assert not _NOT_RE2.search(pattern), pattern
        assert pattern.startswith("^"), pattern
        assert pattern.endswith("$"), pattern


@pytest.mark.parametrize("pattern", [r"^(?=a)b$", r"^(a)\1$", r"^a++$", r"^(?<!a)b$"])
def test_the_re2_check_would_see_what_it_is_for(pattern: str) -> None:
    assert _NOT_RE2.search(pattern)


#: CEL's reserved words need escaping, which the generator does not do.
_RESERVED = {"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for"} | {
    *("function", "if", "import", "let", "loop", "package", "namespace", "return", "var", "void"),
    "while",
}


def test_no_field_is_a_reserved_word_of_cel() -> None:
    names = {name for _, node in ALL_NODES for name in node.get("properties", {})}
    assert names & _RESERVED == set()
    assert [name for name in names if not re.fullmatch(r"[a-z][A-Za-z0-9]*", name)] == []


def test_the_mutable_fields_are_the_ones_that_no_signature_covers() -> None:
    assert UNSIGNED_SPEC_FIELDS == UNSIGNED


def test_names_do_not_clash() -> None:
    names = [
        name
        for crd in CRDS.values()
        for key in ("plural", "singular", "shortNames")
        for name in (
            [crd["spec"]["names"][key]] if key != "shortNames" else crd["spec"]["names"][key]
        )
    ]
    assert len(set(names)) == len(names)


def test_only_policies_and_trust_roots_are_cluster_scoped() -> None:
    assert {k.name for k in KINDS if k.scope == "Cluster"} == {"ProvenancePolicy", "TrustRoot"}


def test_printer_columns_point_at_fields_that_exist() -> None:
    for kind in KINDS:
        paths = {path.partition(":.")[2] for path, _ in ALL_NODES if path.startswith(kind.plural)}
        for column in kind.columns:
            wanted = re.sub(r"\[[^]]*\]", "[]", column.path).lstrip(".")
            assert wanted in paths | {"metadata.creationTimestamp"}, f"{kind.name}: {column.path}"


def test_files_are_deterministic_and_read_back_as_the_objects() -> None:
    made = crd_files()
    assert made == crd_files()
    read = [yaml.load(text, Loader=yaml.CSafeLoader) for text in made.values()]
    assert {crd["metadata"]["name"]: crd for crd in read} == all_crds()


def test_checked_in_files_are_fresh() -> None:
    assert generated.differences(ROOT / "crds", crd_files(), "*.yaml") == []
    page = {"kinds.md": reference_page()}
    assert generated.differences(ROOT / "docs/reference", page, "kinds.md") == []


def test_stale_missing_and_left_over_files_are_each_told(tmp_path: Path) -> None:
    generated.write(tmp_path, {"a.yaml": "a", "b.yaml": "b"}, "*.yaml")
    assert generated.differences(tmp_path, {"a.yaml": "a", "b.yaml": "b"}, "*.yaml") == []
    found = generated.differences(tmp_path, {"a.yaml": "x", "c.yaml": "c"}, "*.yaml")
    assert [line.rpartition("/")[2] for line in found] == [
        "a.yaml: stale",
        "b.yaml: nothing generates it",
        "c.yaml: missing",
    ]


def test_writing_removes_what_nothing_generates(tmp_path: Path) -> None:
    generated.write(tmp_path, {"a.yaml": "a"}, "*.yaml")
    (tmp_path / "note.txt").write_text("mine")
    generated.write(tmp_path, {"b.yaml": "b"}, "*.yaml")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.yaml", "note.txt"]
