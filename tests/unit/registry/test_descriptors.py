from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from trainseal.provenance.verdicts import Outcome
from trainseal.registry.descriptors import (
    DOCKER_MANIFEST,
    EMPTY_TYPE,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    ImageIndex,
    ImageManifest,
    Manifest,
    empty_descriptor,
    parse_descriptor,
    parse_manifest,
    sha256_digest,
)
from trainseal.registry.errors import MalformedContent, quoted

Document = dict[str, object]


@pytest.fixture
def document() -> Document:
    """A manifest that is right in every way."""
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.example.v1",
        "config": empty_descriptor().document(),
        "layers": [Descriptor.of("application/x", b"layer").document()],
        "subject": Descriptor.of(OCI_MANIFEST, b"subject").document(),
        "annotations": {"by": "ada"},
    }


def served(document: object, media_type: str = OCI_MANIFEST) -> Manifest:
    raw = json.dumps(document).encode()
    return Manifest(raw, media_type, sha256_digest(raw))


def test_a_manifest_says_what_was_written_in_it(document: Document) -> None:
    parsed = parse_manifest(served(document), "it")
    assert isinstance(parsed, ImageManifest)
    assert parsed.kind == "application/vnd.example.v1"
    assert parsed.config == empty_descriptor()
    assert parsed.layers == (Descriptor.of("application/x", b"layer"),)
    assert parsed.subject == Descriptor.of(OCI_MANIFEST, b"subject")
    assert parsed.annotations == {"by": "ada"}


def test_without_an_artifact_type_the_kind_is_the_configs(document: Document) -> None:
    del document["artifactType"]
    parsed = parse_manifest(served(document), "it")
    assert isinstance(parsed, ImageManifest)
    assert parsed.kind == EMPTY_TYPE


def test_an_index_lists_manifests_with_their_platforms() -> None:
    entry = Descriptor.of(OCI_MANIFEST, b"one").document()
    entry["platform"] = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    index = {"schemaVersion": 2, "manifests": [entry]}
    parsed = parse_manifest(served(index, OCI_INDEX), "it")
    assert isinstance(parsed, ImageIndex)
    assert parsed.manifests[0].platform == "linux/arm64/v8"


def no_config(document: Document) -> None:
    del document["config"]


def both_kinds(document: Document) -> None:
    document["manifests"] = []


def other_media_type(document: Document) -> None:
    document["mediaType"] = DOCKER_MANIFEST


def old_schema(document: Document) -> None:
    document["schemaVersion"] = 1


def no_layers(document: Document) -> None:
    document["layers"] = None


def too_many_layers(document: Document) -> None:
    document["layers"] = [empty_descriptor().document()] * 1025


def negative_size(document: Document) -> None:
    document["layers"] = [{**empty_descriptor().document(), "size": -1}]


def size_true(document: Document) -> None:
    document["layers"] = [{**empty_descriptor().document(), "size": True}]


def short_digest(document: Document) -> None:
    document["layers"] = [{**empty_descriptor().document(), "digest": "sha256:00"}]


def number_annotation(document: Document) -> None:
    document["annotations"] = {"by": 1}


def subject_text(document: Document) -> None:
    document["subject"] = "sha256:00"


@pytest.mark.parametrize(
    "break_it",
    [
        no_config,
        both_kinds,
        other_media_type,
        old_schema,
        no_layers,
        too_many_layers,
        negative_size,
        size_true,
        short_digest,
        number_annotation,
        subject_text,
    ],
)
def test_a_manifest_with_one_thing_wrong_is_malformed(
    document: Document, break_it: Callable[[Document], None]
) -> None:
    break_it(document)
    with pytest.raises(MalformedContent) as error:
        parse_manifest(served(document), "registry.example/x")
    assert error.value.outcome is Outcome.REFUTED
    assert error.value.subject == "registry.example/x"


def test_a_manifest_served_as_an_index_and_the_reverse_are_malformed(document: Document) -> None:
    index = {"schemaVersion": 2, "manifests": []}
    with pytest.raises(MalformedContent, match="served as"):
        parse_manifest(served(index, OCI_MANIFEST), "it")
    del document["mediaType"]
    with pytest.raises(MalformedContent, match="served as"):
        parse_manifest(served(document, OCI_INDEX), "it")


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"\xff", b'{"a":1,"a":2}', b"[" * 100_000, b'{"schemaVersion":NaN}']
)
def test_what_two_readers_may_read_differently_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedContent):
        parse_manifest(Manifest(raw, OCI_MANIFEST, sha256_digest(raw)), "it")


def test_a_descriptor_survives_being_written_and_read() -> None:
    descriptor = Descriptor(
        "application/x", sha256_digest(b""), 0, "application/y", None, {"a": "b"}
    )
    assert parse_descriptor(descriptor.document(), "it") == descriptor


def test_untrusted_text_is_one_printable_line_of_bounded_length() -> None:
    assert quoted("a\r\nb\x1b[31m\u202ec") == "a b [31m c"
    assert len(quoted("x" * 10_000)) == 200
