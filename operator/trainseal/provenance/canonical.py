"""The canonical form of a job or a template, and its digest: what the approvers sign.

RFC 8785 (JSON Canonicalization Scheme) of::

    {"apiVersion": …, "kind": "TrainingJob",
     "metadata": {"name": …, "namespace": …},
     "spec": {… less signatures, suspend, scheduling}}

and of a TrainingTemplate likewise, less ``signatures`` and ``revoked``. A job that names a template
is signed by nobody, and may have its name from the API server: ``generateName`` then stands in the
name's place, so that the digest is known before the name is.

Laws, each tested:

* the order of keys, the spelling of numbers (``1.0``, ``1``, ``1e0``) and YAML or JSON change
  nothing; neither do ``signatures``, ``suspend``, ``scheduling`` or other metadata;
* any other change changes the digest;
* what the API server stores and gives back has the digest that was signed. What it could store
  otherwise than written is refused instead: null (kubectl apply drops it), numbers beyond
  ±(2^53-1), half surrogate pairs.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Literal

import rfc8785
from pydantic import JsonValue

from trainseal.api.model import API_VERSION, JsonObject
from trainseal.provenance.document import MAX_SAFE_INTEGER, FieldPath, format_path

SignedKind = Literal["TrainingJob", "TrainingTemplate"]
KIND: SignedKind = "TrainingJob"
TEMPLATE_KIND: SignedKind = "TrainingTemplate"
#: Fields of a spec that may change while the object lives, and are not signed.
UNSIGNED_SPEC_FIELDS: Mapping[SignedKind, frozenset[str]] = {
    "TrainingJob": frozenset({"signatures", "suspend", "scheduling"}),
    "TrainingTemplate": frozenset({"signatures", "revoked"}),
}
#: Lists and mappings within one another.
MAX_DEPTH = 64
#: Bytes of a canonical job.
MAX_JOB_BYTES = 1024 * 1024
#: From here on, and below 1e16, Python and ECMAScript write a fraction without an exponent.
_SPELT_ALIKE = 1e-4
#: Values in a canonical job, keys not counted: what anybody may make the webhook walk through.
MAX_JOB_VALUES = 20_000
#: Bytes of any other canonical value: what the API server accepts as one request.
MAX_BYTES = 3 * 1024 * 1024

_SURROGATE = re.compile("[\ud800-\udfff]")


class CanonicalError(ValueError):
    """A value that has no canonical form, or a job that cannot be signed as it stands.

    ``path`` leads to the field (``Document.where(error.path)`` gives its place in the file);
    ``found``, ``expected`` and ``remedy`` are for people.
    """

    def __init__(self, path: FieldPath, found: str, expected: str, remedy: str) -> None:
        self.path = path
        self.found = found
        self.expected = expected
        self.remedy = remedy
        super().__init__(f"{format_path(path)}: found {found}; expected {expected}; {remedy}")


def canonical_job(manifest: Mapping[str, object], namespace: str | None = None) -> bytes:
    """The bytes that the approvers of a TrainingJob sign.

    ``manifest`` is the object as read from a file or from the API server. ``namespace`` stands in
    where the manifest names none, as ``kubectl -n`` does; another than the manifest's is an error.
    Raises CanonicalError.
    """
    return canonical_form(manifest, KIND, namespace)


def canonical_form(
    manifest: Mapping[str, object], kind: SignedKind, namespace: str | None = None
) -> bytes:
    """The bytes that the approvers of an object of this kind sign. Raises CanonicalError."""
    for field, expected in (("apiVersion", API_VERSION), ("kind", kind)):
        if manifest.get(field) != expected:
            raise CanonicalError(
                (field,),
                _show(manifest.get(field)),
                expected,
                f"only a {kind} of this version has a digest of this form",
            )
    spec = manifest.get("spec")
    if not isinstance(spec, Mapping):
        raise CanonicalError(("spec",), _show(spec), "a mapping", "write what to run")
    unsigned = UNSIGNED_SPEC_FIELDS[kind]
    signed = {key: value for key, value in spec.items() if key not in unsigned}
    walk = _Walk(MAX_JOB_BYTES, nulls=False, max_values=MAX_JOB_VALUES)
    # One level less below spec, which itself stands one level down.
    form: JsonObject = {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": _identity(manifest.get("metadata"), namespace, named="templateRef" not in spec),
        "spec": walk.value(signed, ("spec",), 1),
    }
    return _encode(form, MAX_JOB_BYTES, plain=walk.plain)


def job_digest(manifest: Mapping[str, object], namespace: str | None = None) -> str:
    """``sha256:`` and the hexadecimal SHA-256 of ``canonical_job``; raises CanonicalError."""
    return digest_of_bytes(canonical_job(manifest, namespace))


def template_digest(manifest: Mapping[str, object], namespace: str | None = None) -> str:
    """The same of a TrainingTemplate; raises CanonicalError."""
    return digest_of_bytes(canonical_form(manifest, TEMPLATE_KIND, namespace))


def canonical_bytes(value: object) -> bytes:
    """RFC 8785 of any JSON value: mappings, lists, tuples, str, int, float, bool, None.

    Raises CanonicalError for what is not JSON, for numbers beyond ±(2^53-1), half surrogate
    pairs, nesting beyond ``MAX_DEPTH`` and more than ``MAX_BYTES``.
    """
    walk = _Walk(MAX_BYTES, nulls=True)
    checked = walk.value(value, (), 0)
    return _encode(checked, MAX_BYTES, plain=walk.plain)


def digest(value: object) -> str:
    """``sha256:`` and the hexadecimal SHA-256 of ``canonical_bytes``; raises CanonicalError."""
    return digest_of_bytes(canonical_bytes(value))


def digest_of_bytes(data: bytes) -> str:
    """``sha256:`` and the hexadecimal SHA-256 of bytes that are canonical already."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _identity(metadata: object, namespace: str | None, *, named: bool) -> JsonObject:
    """Namespace and name. ``named``: it must have a name of its own."""
    if not isinstance(metadata, Mapping):
        raise CanonicalError(
            ("metadata",), _show(metadata), "a mapping", "give the job a name and a namespace"
        )
    generated = metadata.get("generateName")
    if generated and named:
        raise CanonicalError(
            ("metadata", "generateName"),
            _show(generated),
            "a name",
            "a signed job has one fixed name: write metadata.name instead, or start it from a"
            " template (spec.templateRef)",
        )
    stated = metadata.get("namespace") or None
    if stated is not None and namespace is not None and stated != namespace:
        raise CanonicalError(
            ("metadata", "namespace"),
            _show(stated),
            _show(namespace),
            "the manifest and the command name two namespaces: correct one of them",
        )
    identity: JsonObject = {}
    name = ("generateName", generated) if generated else ("name", metadata.get("name"))
    for field, found in (name, ("namespace", stated or namespace)):
        if not isinstance(found, str) or not found:
            raise CanonicalError(
                ("metadata", field),
                _show(found),
                "a name, as text",
                f"write metadata.{field}: what is signed is one job in one namespace",
            )
        identity[field] = _text(found, ("metadata", field))
    return identity


def _show(value: object) -> str:
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


class _Walk:
    """Checks a value and copies it as plain JSON, whole numbers as int; bounded as it goes."""

    def __init__(self, max_bytes: int, *, nulls: bool, max_values: int | None = None) -> None:
        self._max_bytes = max_bytes
        self._nulls = nulls
        self._max_values = max_values
        self._bytes = 0
        self._values = 0
        #: Whether no number is a small fraction, and all keys are ASCII: see `_encode`.
        self.plain = True

    def value(self, value: object, path: FieldPath, depth: int) -> JsonValue:
        # A lower bound of what is to be written, so that the copy is bounded too.
        self._bytes += 1 + (len(value) if isinstance(value, str) else 0)
        if self._bytes > self._max_bytes:
            raise _too_long(self._max_bytes)
        self._values += 1
        if self._max_values is not None and self._values > self._max_values:
            raise CanonicalError(
                path,
                f"more than {self._max_values} values",
                f"at most {self._max_values}",
                "move large data into a signed artifact",
            )
        if depth > MAX_DEPTH:
            raise CanonicalError(
                path,
                f"more than {MAX_DEPTH} levels of nesting",
                f"at most {MAX_DEPTH}",
                "flatten it",
            )
        if isinstance(value, str):
            return _text(value, path)
        if isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            number = _number(value, path)
            small = isinstance(number, float) and abs(number) < _SPELT_ALIKE
            self.plain = self.plain and not small
            return number
        if isinstance(value, Mapping):
            return self._mapping(value, path, depth)
        if isinstance(value, list | tuple):
            return [self.value(item, (*path, at), depth + 1) for at, item in enumerate(value)]
        if value is None and self._nulls:
            return None
        if value is None:
            raise CanonicalError(
                path,
                "null",
                "a value",
                "leave the key out: kubectl apply drops nulls, so that the stored job would not"
                " be the signed one",
            )
        raise CanonicalError(
            path, f"a {type(value).__name__}", "a JSON value", "convert it before signing"
        )

    def _mapping(
        self, mapping: Mapping[object, object], path: FieldPath, depth: int
    ) -> dict[str, JsonValue]:
        result: dict[str, JsonValue] = {}
        for key, item in mapping.items():
            if not isinstance(key, str):
                raise CanonicalError(path, f"the key {_show(key)}", "keys as text", "quote the key")
            self._bytes += len(key)
            self.plain = self.plain and key.isascii()
            result[_text(key, path)] = self.value(item, (*path, key), depth + 1)
        return result


def _text(text: str, path: FieldPath) -> str:
    if not text.isascii() and _SURROGATE.search(text):
        raise CanonicalError(
            path,
            "half of a surrogate pair in a string",
            "whole Unicode characters",
            "correct the \\u escape",
        )
    return text


def _number(number: int | float, path: FieldPath) -> int | float:
    if isinstance(number, float) and not math.isfinite(number):
        raise CanonicalError(
            path, str(number), "a finite number", "JSON has no such value: write a string"
        )
    if abs(number) > MAX_SAFE_INTEGER:
        found = repr(number) if isinstance(number, float) else _long(number)
        raise CanonicalError(
            path,
            f"the number {found}",
            f"a number within ±(2^53-1) = ±{MAX_SAFE_INTEGER}",
            "write it as a string: beyond that not every reader keeps its digits",
        )
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _long(number: int) -> str:
    # Python refuses to print integers of thousands of digits.
    return str(number) if number.bit_length() <= 128 else f"of {number.bit_length()} bits"


def _encode(value: JsonValue, max_bytes: int, *, plain: bool = False) -> bytes:
    """The bytes. A ``plain`` value the standard library's encoder, written in C, spells the same.

    RFC 8785 differs from it in how small fractions are written and in the order of keys beyond
    ASCII, and in nothing else: escapes are ECMAScript's in both, and so are a fraction's digits
    (the shortest that are read back as it). A webhook reads a thousand seals at its start.
    """
    if plain:
        data = json.dumps(
            value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
        ).encode()
    else:
        data = rfc8785.dumps(value)
    if len(data) > max_bytes:
        raise _too_long(max_bytes)
    return data


def _too_long(max_bytes: int) -> CanonicalError:
    return CanonicalError(
        (),
        f"more than {max_bytes} bytes in canonical form",
        f"at most {max_bytes}",
        "move large data into a signed artifact",
    )
