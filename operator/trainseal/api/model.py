"""What every kind is made of: strict, immutable models with Kubernetes' camelCase on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

GROUP = "trainseal.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

#: A JSON object as the API server hands it over.
JsonObject = dict[str, JsonValue]

#: Marks a field whose content the CRD schema leaves opaque (bounded by the webhook instead).
OPAQUE: dict[str, JsonValue] = {"x-kubernetes-preserve-unknown-fields": True}

DnsLabel = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63)
]
DnsSubdomain = Annotated[
    str,
    StringConstraints(
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        min_length=1,
        max_length=253,
    ),
]
#: ``sha256:`` and 64 lower-case hexadecimal digits.
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]
#: An absolute POSIX path without ``.``, ``..`` or empty parts and without a trailing slash.
MountPath = Annotated[
    str,
    StringConstraints(
        pattern=r"^(/(\.[^./][^/:]*|\.\.[^/:]+|[^./:][^/:]*))+$", min_length=2, max_length=512
    ),
]
#: A relative path below a volume, under the same rules.
SubPath = Annotated[
    str,
    StringConstraints(
        pattern=r"^(\.[^./][^/:]*|[^./:][^/:]*)(/(\.[^./][^/:]*|[^./:][^/:]*))*$",
        min_length=1,
        max_length=512,
    ),
]
#: A Kubernetes quantity such as ``512Mi``, compared as written.
Quantity = Annotated[
    str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?([KMGTPE]i?|m|k)?$", max_length=32)
]
Text = Annotated[str, StringConstraints(max_length=1024)]
ShortText = Annotated[str, StringConstraints(max_length=256)]
#: A UUID, which is what the API server gives every object.
Uid = Annotated[str, StringConstraints(pattern=r"^[-0-9A-Za-z]+$", max_length=36)]
#: A namespace by name or glob (``team-*``).
NamespacePattern = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9*]([-a-z0-9*]*[a-z0-9*])?$", max_length=63)
]
#: A name with or without a DNS prefix, as keys of labels are (``k8s.io/apimachinery`` validation,
#: IsQualifiedName). As a key of a map its length is bounded, and its form is Kubernetes' to judge.
LabelKey = Annotated[str, StringConstraints(max_length=317)]
QualifiedName = Annotated[
    str,
    StringConstraints(
        pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
        min_length=1,
        max_length=317,
    ),
]
#: Of what goes on being counted: the largest integer that every reader of JSON keeps.
MAX_COUNT = 2**53 - 1
#: Of what Kubernetes itself counts in 32 bits, such as pods.
MAX_COUNT_32 = 2**31 - 1
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Count32 = Annotated[int, Field(ge=0, le=MAX_COUNT_32)]


def json_object(value: JsonValue) -> JsonObject:
    """The object that ``value`` is, or an empty one: absent and malformed parts hold nothing."""
    return value if isinstance(value, dict) else {}


def json_objects(value: JsonValue) -> list[JsonObject]:
    """The objects in the list that ``value`` is; of anything else, none."""
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def metadata_name(obj: Mapping[str, JsonValue]) -> str:
    """The name of a Kubernetes object, as the API server gave it."""
    return str(json_object(obj.get("metadata")).get("name"))


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One thing wrong with one field: its path (``spec.roles[0].name``), found and expected."""

    path: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}, expected {self.expected}"


class InvalidObjectError(ValueError):
    """An object is not of its kind's form; carries every problem, each with its place."""

    def __init__(self, kind: str, problems: Sequence[FieldProblem]) -> None:
        self.kind = kind
        self.problems = tuple(problems)
        super().__init__(f"{kind} is invalid: " + "; ".join(str(p) for p in self.problems))


class Model(BaseModel):
    """Base of all parts: frozen, camelCase on the wire, unknown fields refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        ser_json_timedelta="iso8601",
    )

    def wire(self) -> JsonObject:
        """The object as JSON for the API server: camelCase, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=False)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _problem(location: Sequence[int | str], message: str, value: object, root: str) -> FieldProblem:
    path = root
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return FieldProblem(path.lstrip(".") or "object", _short(value), message)


def problems_of(error: ValidationError, root: str = "") -> tuple[FieldProblem, ...]:
    """Pydantic's errors as field problems in Kubernetes' words."""
    return tuple(
        _problem(
            item["loc"],
            "no such field" if item["type"] == "extra_forbidden" else item["msg"],
            item["input"],
            root,
        )
        for item in error.errors(include_url=False, include_context=False)
    )


class Condition(Model):
    """A status condition as Kubernetes does them (API conventions, Typical status properties)."""

    type: ShortText
    """What the condition is about, such as `Verified`."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=128)]
    """One word for why, for programs."""
    message: Annotated[str, StringConstraints(max_length=4096)] = ""
    """Why, for people."""
    last_transition_time: datetime
    """When `status` last changed."""
    observed_generation: Count | None = None
    """The `metadata.generation` that it was found for."""


class Metadata(BaseModel):
    """What TrainSeal reads of an object's metadata; everything else is passed over."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True
    )

    name: str = ""
    namespace: str = ""
    generate_name: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class Resource(BaseModel):
    """A whole object of one of our kinds."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True
    )

    #: The kind, where the class has another name.
    kind_name: ClassVar[str] = ""

    metadata: Metadata

    @classmethod
    def kind(cls) -> str:
        """The kind, as in ``kind:``."""
        return cls.kind_name or cls.__name__

    @classmethod
    def parse(cls, obj: Mapping[str, Any]) -> Self:
        """Reads an object of this kind; raises InvalidObjectError naming every problem."""
        try:
            return cls.model_validate(obj)
        except ValidationError as error:
            raise InvalidObjectError(cls.kind(), problems_of(error)) from None
