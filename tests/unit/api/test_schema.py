"""What the generator makes of a model, and what it refuses to make."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import Field, StringConstraints

from trainseal.api.model import OPAQUE, JsonObject, Model
from trainseal.api.schema import Rule, SchemaError, structural_schema


class Inner(Model):
    """An inner part."""

    word: Annotated[str, StringConstraints(max_length=5)]
    """A word."""


class Outer(Model):
    """The outer part."""

    inner: Inner
    maybe_inner: Inner | None = None
    """Words of its own."""
    whatever: JsonObject = Field(max_length=3, description="Anything.", json_schema_extra=OPAQUE)


def test_an_optional_field_is_its_type_without_null_and_not_required() -> None:
    schema = structural_schema(Outer, rules={}, closed=False)
    assert schema["required"] == ["inner", "whatever"]
    assert schema["properties"]["maybeInner"]["type"] == "object"


def test_a_field_is_described_by_its_own_words_before_its_types() -> None:
    properties = structural_schema(Outer, rules={}, closed=False)["properties"]
    assert properties["inner"]["description"] == "An inner part."
    assert properties["maybeInner"]["description"] == "Words of its own."


def test_only_closed_schemas_keep_unknown_fields_for_the_rule_to_count() -> None:
    assert "x-kubernetes-validations" not in structural_schema(Outer, rules={}, closed=False)
    rules = structural_schema(Outer, rules={}, closed=True)["x-kubernetes-validations"]
    assert rules == [
        {
            "rule": "size(dyn(self)) == 2 + (has(dyn(self).maybeInner) ? 1 : 0)",
            "message": "holds a field that does not exist; the fields here are "
            "inner, maybeInner, whatever",
            "reason": "FieldValueInvalid",
        }
    ]


def test_an_opaque_object_is_a_map_of_values_that_may_be_null() -> None:
    properties = structural_schema(Outer, rules={}, closed=True)["properties"]
    assert properties["whatever"] == {
        "description": "Anything.",
        "type": "object",
        "maxProperties": 3,
        "additionalProperties": {"x-kubernetes-preserve-unknown-fields": True, "nullable": True},
    }


def test_the_names_in_a_map_are_bounded_by_a_rule() -> None:
    class Named(Model):
        """Values by name."""

        values: dict[Annotated[str, StringConstraints(max_length=7)], bool] = Field(
            max_length=3, description="By name."
        )

    schema = structural_schema(Named, rules={}, closed=False)["properties"]["values"]
    assert schema["x-kubernetes-validations"] == [
        {
            "rule": "self.all(name, size(name) <= 7)",
            "message": "holds a name of more than 7 characters",
            "reason": "FieldValueInvalid",
        }
    ]


def test_rules_are_found_by_the_models_name() -> None:
    rule = Rule("self.word != ''", "is empty", "word")
    schema = structural_schema(Outer, rules={"Inner": [rule]}, closed=False)
    inner = schema["properties"]["inner"]
    assert inner["x-kubernetes-validations"] == [
        {
            "rule": "self.word != ''",
            "message": "is empty",
            "reason": "FieldValueInvalid",
            "fieldPath": ".word",
        }
    ]


class EndlessText(Model):
    """Broken."""

    text: str
    """Endless."""


class EndlessList(Model):
    """Broken."""

    items: list[bool]
    """Endless."""


class EndlessMap(Model):
    """Broken."""

    items: dict[str, bool]
    """Endless."""


class EndlessNames(Model):
    """Broken."""

    items: dict[str, bool] = Field(max_length=3)
    """Few, under names of any length."""


class EndlessInteger(Model):
    """Broken."""

    number: int = Field(ge=0)
    """Endless."""


class TwoTypes(Model):
    """Broken."""

    value: int | bool
    """One or the other."""


class EndlessOpaque(Model):
    """Broken."""

    value: JsonObject = Field(description="Anything.", json_schema_extra=OPAQUE)


class NoWords(Model):
    """Broken."""

    value: bool


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (EndlessText, "EndlessText.text: a string without maxLength"),
        (EndlessList, "EndlessList.items: a list without max_length"),
        (EndlessMap, "EndlessMap.items: a map without max_length"),
        (EndlessNames, "EndlessNames.items: a map whose keys have no max_length"),
        (EndlessInteger, "EndlessInteger.number: an integer without le"),
        (TwoTypes, "TwoTypes.value: a union of types; mark the field OPAQUE"),
        (EndlessOpaque, "EndlessOpaque.value: OPAQUE is for objects with max_length"),
        (NoWords, "NoWords.value: a field without documentation"),
    ],
)
def test_what_would_be_unbounded_or_unsaid_is_not_generated(model: type[Model], words: str) -> None:
    with pytest.raises(SchemaError, match=words.replace(".", r"\.")):
        structural_schema(model, rules={}, closed=True)
