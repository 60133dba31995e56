"""Descriptors, manifests and indexes as the OCI image specification 1.1 has them.

Parsing is strict where two readers might differ: a document with a duplicate key, or with both
``manifests`` and ``layers`` (CVE-2021-41190), or whose ``mediaType`` is not the one it was served
as, is malformed. Everything is bounded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from trainseal.provenance import strictjson

from .errors import MalformedContent
from .references import is_digest

MANIFEST_LIMIT = 4 * 1024 * 1024
MOST_LAYERS = 1024
MOST_MANIFESTS = 4096
MOST_ANNOTATIONS = 256
LONGEST_MEDIA_TYPE = 255
LONGEST_ANNOTATION = 64 * 1024
LARGEST_SIZE = 2**53 - 1

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY_JSON = b"{}"

MANIFEST_TYPES = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)

_NO_ANNOTATIONS: Mapping[str, str] = MappingProxyType({})


def _no_annotations() -> Mapping[str, str]:
    return _NO_ANNOTATIONS


def sha256_digest(content: bytes) -> str:
    """``sha256:…`` of the content."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a registry's document says about one piece of content; ``size`` in bytes.

    Annotations, artifact type and platform are the registry's or the pusher's word, no more.
    ``platform`` is ``os/architecture[/variant]`` where one is given.
    """

    media_type: str
    digest: str
    size: int
    artifact_type: str | None = None
    platform: str | None = None
    annotations: Mapping[str, str] = field(default_factory=_no_annotations, hash=False)

    @classmethod
    def of(cls, media_type: str, content: bytes) -> Descriptor:
        """The descriptor of content at hand."""
        return cls(media_type, sha256_digest(content), len(content))

    def document(self) -> dict[str, object]:
        """Its JSON form (without the platform)."""
        document: dict[str, object] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        }
        if self.artifact_type is not None:
            document["artifactType"] = self.artifact_type
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        return document


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or index as it was served; ``digest`` is that of ``raw``, computed here."""

    raw: bytes
    media_type: str
    digest: str

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.media_type, self.digest, len(self.raw))


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """A parsed image manifest; every artifact is one."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str | None
    subject: Descriptor | None
    annotations: Mapping[str, str] = field(default_factory=_no_annotations, hash=False)

    @property
    def kind(self) -> str:
        """The artifact type: the field, else the config's media type (image-spec 1.1)."""
        return self.artifact_type or self.config.media_type


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """A parsed index (multi-platform image, or list of referrers)."""

    manifests: tuple[Descriptor, ...]


def empty_descriptor() -> Descriptor:
    """The empty JSON object, for artifacts without a config (image-spec 1.1, "Guidance")."""
    return Descriptor.of(EMPTY_TYPE, EMPTY_JSON)


def parse_manifest(manifest: Manifest, subject: str) -> ImageManifest | ImageIndex:
    """What a manifest says. Raises MalformedContent, naming ``subject``."""
    document = parse_object(manifest.raw, subject)
    if document.get("schemaVersion") != 2:
        raise _malformed(subject, "a manifest whose schemaVersion is not 2")
    declared = document.get("mediaType")
    if declared is not None and declared != manifest.media_type:
        raise _malformed(subject, "a manifest with another mediaType than it was served as")
    if "manifests" in document:
        if "layers" in document or "config" in document:
            raise _malformed(subject, "a document that is both an index and a manifest")
        if manifest.media_type not in (OCI_INDEX, DOCKER_LIST):
            raise _malformed(subject, "an index that was served as a manifest")
        return ImageIndex(_descriptors(document, "manifests", MOST_MANIFESTS, subject))
    if manifest.media_type not in (OCI_MANIFEST, DOCKER_MANIFEST):
        raise _malformed(subject, "a manifest that was served as an index")
    own_subject = document.get("subject")
    return ImageManifest(
        config=parse_descriptor(document.get("config"), subject),
        layers=_descriptors(document, "layers", MOST_LAYERS, subject),
        artifact_type=_media_type(document.get("artifactType"), subject),
        subject=None if own_subject is None else parse_descriptor(own_subject, subject),
        annotations=_annotations(document.get("annotations"), subject),
    )


def parse_object(raw: bytes, subject: str) -> Mapping[str, object]:
    """The JSON object in ``raw``, as every reader reads it. Raises MalformedContent."""
    try:
        document = strictjson.parse(raw, max_bytes=MANIFEST_LIMIT)
    except strictjson.JSONError as error:
        raise _malformed(subject, f"content that cannot be read: {error}") from None
    if not isinstance(document, dict):
        raise _malformed(subject, "JSON that is not an object")
    return document


def parse_descriptor(value: object, subject: str) -> Descriptor:
    """One descriptor. Raises MalformedContent."""
    if not isinstance(value, dict):
        raise _malformed(subject, "a descriptor that is not an object")
    media_type = _media_type(value.get("mediaType"), subject)
    digest, size = value.get("digest"), value.get("size")
    if media_type is None:
        raise _malformed(subject, "a descriptor without a mediaType")
    if not isinstance(digest, str) or not is_digest(digest):
        raise _malformed(subject, "a descriptor without a sha256 digest")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= LARGEST_SIZE:
        raise _malformed(subject, "a descriptor without a valid size")
    return Descriptor(
        media_type=media_type,
        digest=digest,
        size=size,
        artifact_type=_media_type(value.get("artifactType"), subject),
        platform=_platform(value.get("platform"), subject),
        annotations=_annotations(value.get("annotations"), subject),
    )


def _descriptors(
    document: Mapping[str, object], key: str, most: int, subject: str
) -> tuple[Descriptor, ...]:
    entries = document.get(key)
    if entries is None and key == "manifests":
        entries = []
    if not isinstance(entries, list):
        raise _malformed(subject, f"a manifest whose {key} are no list")
    if len(entries) > most:
        raise _malformed(subject, f"a manifest with {len(entries)} {key} (at most {most})")
    return tuple(parse_descriptor(entry, subject) for entry in entries)


def _platform(value: object, subject: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _malformed(subject, "a platform that is not an object")
    return platform_name(value, subject)


def platform_name(value: Mapping[str, object], subject: str) -> str:
    """``os/architecture[/variant]`` of a platform object or an image config."""
    parts = [value.get("os"), value.get("architecture"), value.get("variant")]
    named = [part for part in parts if isinstance(part, str) and part]
    if len(named) < 2 or any(len(part) > 64 or not part.isprintable() for part in named):
        raise _malformed(subject, "a platform without os and architecture")
    return "/".join(named)


def _media_type(value: object, subject: str) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > LONGEST_MEDIA_TYPE or not value.isprintable():
        raise _malformed(subject, "a media type that is not a short text")
    return value


def _annotations(value: object, subject: str) -> Mapping[str, str]:
    if value is None:
        return _NO_ANNOTATIONS
    if not isinstance(value, dict) or len(value) > MOST_ANNOTATIONS:
        raise _malformed(subject, "annotations that are no object, or too many")
    for text in value.values():
        if not isinstance(text, str) or len(text) > LONGEST_ANNOTATION:
            raise _malformed(subject, "an annotation that is not a text of bounded length")
    return MappingProxyType(dict(value))


def _malformed(subject: str, found: str) -> MalformedContent:
    return MalformedContent(
        subject,
        found,
        expected="an OCI image manifest or index",
        remedy="push the artifact again with a current tool",
    )
