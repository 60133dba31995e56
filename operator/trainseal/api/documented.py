"""The models as one JSON Schema document, with the words that stand below their fields.

A field is described by ``Field(description=…)``, by the docstring below it, or by its type's own
docstring, in this order. Docstrings are read from the source, so only generators do this.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from trainseal.api.model import JsonObject, Model


@dataclass(frozen=True, slots=True)
class Document:
    """A model's schema and those of the models it refers to, by name."""

    root: JsonObject
    definitions: Mapping[str, JsonObject]

    def resolved(self, node: JsonObject) -> JsonObject:
        """The node with references followed and ``anyOf [X, null]`` read as X; its words win."""
        while True:
            if "$ref" in node:
                target = self.definitions[name_of(node)]
                node = target | {k: v for k, v in node.items() if k not in ("$ref", "title")}
                continue
            branches = [b for b in cast("list[JsonObject]", node.get("anyOf", [])) if not _null(b)]
            if len(branches) != 1:
                return node
            rest = {k: v for k, v in node.items() if k not in ("anyOf", "title", "default")}
            node = branches[0] | rest

    def reference(self, node: JsonObject) -> str | None:
        """The name of the model that the node is or may be, or None."""
        for candidate in (node, *cast("list[JsonObject]", node.get("anyOf", []))):
            if "$ref" in candidate and name_of(candidate) in self.definitions:
                return name_of(candidate)
        return None


def name_of(node: JsonObject) -> str:
    """The name behind a ``$ref``."""
    return str(node["$ref"]).removeprefix("#/$defs/")


def _null(node: JsonObject) -> bool:
    return node.get("type") == "null"


def words(node: JsonObject) -> str:
    """The node's description on one line, in the Markdown that kubectl and pages share."""
    return " ".join(str(node.get("description", "")).replace("``", "`").split())


def field_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The docstrings below a model's fields, inherited ones too, by the field's Python name."""
    bases = [c for c in reversed(model.__mro__) if issubclass(c, Model) and c is not Model]
    return {name: text for base in bases for name, text in _own_docstrings(base).items()}


def _own_docstrings(model: type[BaseModel]) -> dict[str, str]:
    body = _classes(model.__module__)[model.__qualname__].body
    found = {}
    for field, below in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            found[field.target.id] = inspect.cleandoc(below.value.value)
    return found


@functools.cache
def _classes(module: str) -> Mapping[str, ast.ClassDef]:
    """A module's classes by qualified name; `inspect.getsource` would parse it anew for each."""
    return dict(_named(ast.parse(inspect.getsource(sys.modules[module])), ""))


def _named(node: ast.AST, within: str) -> Iterator[tuple[str, ast.ClassDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield within + child.name, child
            yield from _named(child, f"{within}{child.name}.")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _named(child, f"{within}{child.name}.<locals>.")
        elif isinstance(child, ast.stmt):
            yield from _named(child, within)


class _Documented(GenerateJsonSchema):
    def model_schema(self, schema: Any) -> JsonSchemaValue:
        result = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        for name, text in field_docstrings(model).items():
            alias = model.model_fields[name].alias or name
            result["properties"][alias].setdefault("description", text)
        return result


def document(model: type[BaseModel]) -> Document:
    """The model as a document, in the form the API server is sent."""
    root = model.model_json_schema(by_alias=True, mode="validation", schema_generator=_Documented)
    definitions = cast("dict[str, JsonObject]", root.pop("$defs", {}))
    return Document(root, definitions)
