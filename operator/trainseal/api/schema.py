"""Structural schemas (apiextensions.k8s.io/v1, "Specifying a structural schema") from the models.

Three things a plain translation of the models' JSON Schema would get wrong, and what stands here
instead (measured against a real API server, docs/decisions/0002-unknown-fields.md):

- A structural schema cannot say ``additionalProperties: false`` and the API server drops what a
  schema does not name, silently for clients that do not ask for strict validation. So each closed
  object keeps unknown fields and has a CEL rule that counts them: nothing is dropped, and an object
  with a field too many is refused by the API server itself.
- An opaque object is a map of values without a type, not an object that preserves unknown fields:
  CEL's ``==`` then compares it in depth, and a renamed key cannot slip past a transition rule.
  Its values are nullable, or the API server would drop ``null`` members, and with them the digest.
- No field has a default: a default that changes would change what was signed.
- A structural schema cannot say ``propertyNames``: the length of a typed map's keys is a CEL rule.
  CEL sees no map of opaque values, whose keys are bounded with their bytes by the webhook.

Status schemas are plain: only our controllers write there, and what they wrote too much is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from pydantic import BaseModel

from trainseal.api.documented import Document, document, words
from trainseal.api.model import JsonObject

PRESERVE = "x-kubernetes-preserve-unknown-fields"

#: RFC 3339 with nanoseconds and an offset has 35 characters.
MAX_TIME_LENGTH = 40

_COPIED = (
    "format",
    "pattern",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
)


class SchemaError(ValueError):
    """A model says something that a structural schema cannot hold; names the place."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One ``x-kubernetes-validations`` entry. ``field``: the child of self it is reported at."""

    rule: str
    message: str
    field: str | None = None
    reason: Literal["FieldValueInvalid", "FieldValueForbidden"] = "FieldValueInvalid"

    def wire(self) -> JsonObject:
        """The entry as JSON."""
        entry: JsonObject = {"rule": self.rule, "message": self.message, "reason": self.reason}
        if self.field is not None:
            entry["fieldPath"] = f".{self.field}"
        return entry


#: CEL rules by the name of the model they belong to.
Rules = Mapping[str, Sequence[Rule]]


@dataclass(frozen=True, slots=True)
class _Builder:
    document: Document
    rules: Rules
    closed: bool

    def build(self, node: JsonObject, path: str) -> JsonObject:
        node = self.document.resolved(node)
        if node.get(PRESERVE) is True:
            return self._opaque(node, path)
        if "anyOf" in node:
            raise SchemaError(f"{path}: a union of types; mark the field OPAQUE")
        kind = node.get("type")
        schema: JsonObject = {"description": words(node)} if words(node) else {}
        if kind is None:
            raise SchemaError(f"{path}: no type; mark the field OPAQUE")
        schema["type"] = kind
        schema |= {key: node[key] for key in _COPIED if key in node}
        if "const" in node:
            schema["enum"] = [node["const"]]
        if node.get("format") == "date-time":
            schema["maxLength"] = MAX_TIME_LENGTH
        if kind == "object":
            self._object(node, schema, path)
        elif kind == "array":
            self._array(node, schema, path)
        elif kind == "integer" and "enum" not in schema and "maximum" not in schema:
            raise SchemaError(f"{path}: an integer without le")
        elif kind == "string" and "enum" not in schema and "maxLength" not in schema:
            raise SchemaError(f"{path}: a string without maxLength")
        return schema

    def _object(self, node: JsonObject, schema: JsonObject, path: str) -> None:
        values = node.get("additionalProperties")
        if isinstance(values, dict):
            if "maxProperties" not in schema:
                raise SchemaError(f"{path}: a map without max_length")
            longest = cast("JsonObject", node.get("propertyNames", {})).get("maxLength")
            if not isinstance(longest, int):
                raise SchemaError(f"{path}: a map whose keys have no max_length")
            schema["additionalProperties"] = self.build(values, f"{path}{{}}")
            schema["x-kubernetes-validations"] = [keys_no_longer_than(longest).wire()]
            return
        properties = cast("dict[str, JsonObject]", node.get("properties", {}))
        required = cast("list[str]", node.get("required", []))
        if required:
            schema["required"] = list(required)
        rules = list(self.rules.get(str(node.get("title")), ()))
        if self.closed:
            schema[PRESERVE] = True
            rules.insert(0, known_fields_only(list(properties), required))
        if properties:
            schema["properties"] = {
                name: self.build(child, f"{path}.{name}") for name, child in properties.items()
            }
            for name, child in cast("dict[str, JsonObject]", schema["properties"]).items():
                if "description" not in child:
                    raise SchemaError(f"{path}.{name}: a field without documentation")
        if rules:
            schema["x-kubernetes-validations"] = [rule.wire() for rule in rules]

    def _array(self, node: JsonObject, schema: JsonObject, path: str) -> None:
        if "maxItems" not in schema:
            raise SchemaError(f"{path}: a list without max_length")
        items = cast("JsonObject", node["items"])
        schema["items"] = self.build(items, f"{path}[]")
        if str(items.get("$ref", "")).endswith("/Condition"):
            schema["x-kubernetes-list-type"] = "map"
            schema["x-kubernetes-list-map-keys"] = ["type"]
        else:
            schema["x-kubernetes-list-type"] = "atomic"

    def _opaque(self, node: JsonObject, path: str) -> JsonObject:
        schema: JsonObject = {"description": words(node)} if words(node) else {}
        if "anyOf" not in node:
            if node.get("type") != "object" or "maxProperties" not in node:
                raise SchemaError(f"{path}: OPAQUE is for objects with max_length, and unions")
            schema |= {
                "type": "object",
                "maxProperties": node["maxProperties"],
                "additionalProperties": {PRESERVE: True, "nullable": True},
            }
            return schema
        # A union: without a type, each keyword binds only the values of its own type.
        schema[PRESERVE] = True
        for branch in cast("list[JsonObject]", node["anyOf"]):
            branch = self.document.resolved(branch)
            schema |= {k: branch[k] for k in ("minimum", "maximum", "required") if k in branch}
            if "properties" in branch:
                schema["maxProperties"] = len(cast("JsonObject", branch["properties"]))
        return schema


def known_fields_only(names: Sequence[str], required: Sequence[str], implied: int = 0) -> Rule:
    """Refuses an object with more fields than the known ones it has.

    ``size`` of an object counts every field it holds, known or not; ``dyn`` is what lets CEL ask
    for it. ``implied`` counts fields that are always there without being named.
    """
    count = [str(len(required) + implied)]
    count += [f"(has(dyn(self).{name}) ? 1 : 0)" for name in names if name not in required]
    known = f"the fields here are {', '.join(names)}" if names else "there are none here"
    return Rule(
        f"size(dyn(self)) == {' + '.join(count)}", f"holds a field that does not exist; {known}"
    )


def keys_no_longer_than(longest: int) -> Rule:
    """Refuses a map with a key of more characters than that."""
    return Rule(
        f"self.all(name, size(name) <= {longest})",
        f"holds a name of more than {longest} characters",
    )


def structural_schema(model: type[BaseModel], *, rules: Rules, closed: bool) -> JsonObject:
    """The structural schema of a model; ``closed`` refuses unknown fields in it and below.

    Raises SchemaError where the model is unbounded, undocumented or of no structural form.
    """
    documented = document(model)
    return _Builder(documented, rules, closed).build(documented.root, model.__name__)
