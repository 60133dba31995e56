"""What refers to a manifest: the referrers API, and the tag that stands in for it.

Source: OCI distribution specification 1.1, "Listing Referrers" and "Referrers Tag Schema". Either
list is the registry's (or the last pusher's) word: entries are places to look for evidence, no
more. An entry that cannot be read is left out, so that one odd push does not hide the others; too
many entries are an error and not cut off, or a flood would hide a signature and look like its
absence.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

from yarl import URL

from .authentication import Scope
from .descriptors import (
    EMPTY_TYPE,
    MANIFEST_LIMIT,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    empty_descriptor,
    parse_descriptor,
    parse_object,
)
from .errors import MalformedContent, NotFound, RegistryMisbehaved, TooLarge
from .references import Reference
from .transport import Answer, Call, Transport

MOST_REFERRERS = 256
MOST_ENTRIES = 2048
MOST_PAGES = 16
FALLBACK_ATTEMPTS = 5

# What registries without the API answer; 200 with another type than an index counts as well.
_UNSUPPORTED = frozenset({400, 404, 405, 406, 501})

# Some registries give the config's media type as the artifact type, which says nothing here.
_UNSTATED = frozenset({None, EMPTY_TYPE, "application/vnd.oci.image.config.v1+json"})


class ManifestStore(Protocol):
    """What the fallback index is kept in."""

    async def manifest(self, reference: Reference) -> Manifest: ...
    async def push_manifest(
        self, reference: Reference, raw: bytes, media_type: str
    ) -> Descriptor: ...


class FallbackLocks:
    """One update of a fallback index at a time within this process."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def held(self, name: str) -> AsyncIterator[None]:
        lock, waiting = self._locks.get(name, (asyncio.Lock(), 0))
        self._locks[name] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._locks[name]
            if waiting == 1:
                del self._locks[name]
            else:
                self._locks[name] = (lock, waiting - 1)


def fallback_tag(digest: str) -> str:
    """``sha256-<hex>``."""
    return digest.replace(":", "-", 1)


def attachment(
    subject: Descriptor,
    artifact_type: str,
    layer: Descriptor,
    annotations: Mapping[str, str],
) -> bytes:
    """The image manifest of an artifact with one layer that refers to ``subject``."""
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": empty_descriptor().document(),
        "layers": [layer.document()],
        "subject": Descriptor(subject.media_type, subject.digest, subject.size).document(),
    }
    if annotations:
        document["annotations"] = dict(annotations)
    return json_bytes(document)


def json_bytes(document: object) -> bytes:
    """One form for one document: sorted keys, no spaces."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def entries(raw: bytes, subject: str) -> list[Descriptor]:
    """The readable entries of a list of referrers.

    Raises TooLarge beyond 2048, RegistryMisbehaved where it is no index: nobody signed it, so it
    speaks about the registry only.
    """
    found = []
    for value in _values(raw, subject):
        try:
            found.append(parse_descriptor(value, subject))
        except MalformedContent:
            continue
    return found


def with_entry(raw: bytes | None, entry: Descriptor, subject: str) -> bytes | None:
    """The index with ``entry`` added, others kept as they are; None where it has it already."""
    values = [] if raw is None else _values(raw, subject)
    for value in values:
        if isinstance(value, dict) and value.get("digest") == entry.digest:
            return None
    return json_bytes(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [*values, entry.document()],
        }
    )


def may_be(entry: Descriptor, artifact_type: str | None) -> bool:
    """Whether an entry has the type, or its type is not said."""
    return (
        artifact_type is None
        or entry.artifact_type == artifact_type
        or entry.artifact_type in _UNSTATED
    )


async def list_referrers(
    transport: Transport, scope: Scope, reference: Reference, artifact_type: str | None
) -> list[Descriptor]:
    """See ``RegistryClient.referrers``. Both lists are read: what was copied in by its tag, or
    attached before the API was there, is not hidden by what anybody attaches by the API."""
    if reference.digest is None:
        raise ValueError(f"{reference}: referrers are listed by digest")
    subject = f"{reference.at(reference.digest)} (referrers)"
    lists = await asyncio.gather(
        _from_api(transport, scope, reference, subject),
        _from_tag(transport, scope, reference, subject),
    )
    return _chosen([entry for found in lists for entry in found], artifact_type, subject)


async def update_fallback(store: ManifestStore, tag: Reference, entry: Descriptor) -> None:
    """Adds ``entry`` to the index under ``tag``, and looks whether it stayed there.

    Raises RegistryMisbehaved where it does not.
    """
    for attempt in range(FALLBACK_ATTEMPTS + 1):
        try:
            raw = (await store.manifest(tag)).raw
        except NotFound:
            raw = None
        changed = with_entry(raw, entry, str(tag))
        if changed is None:
            return
        if attempt < FALLBACK_ATTEMPTS:
            await store.push_manifest(tag, changed, OCI_INDEX)
    raise RegistryMisbehaved(
        str(tag),
        "the index of referrers does not keep what is added to it",
        expected=entry.digest,
        remedy="look for another client that writes the same tag",
    )


async def _from_api(
    transport: Transport, scope: Scope, reference: Reference, subject: str
) -> list[Descriptor]:
    path = f"/v2/{reference.repository}/referrers/"
    url: URL | None = URL(
        f"{transport.base(reference.api_host)}{path}{reference.digest}", encoded=True
    )
    found: list[Descriptor] = []
    for _page in range(MOST_PAGES):
        if url is None:
            return found
        answer = await transport.request(
            Call(
                "GET",
                url,
                subject,
                scope,
                headers={"Accept": OCI_INDEX},
                limit=MANIFEST_LIMIT,
                statuses=frozenset({200}) | _UNSUPPORTED,
            )
        )
        media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        if answer.status != 200 or media_type != OCI_INDEX:
            return found
        found += await asyncio.to_thread(entries, answer.body, subject)
        if len(found) > MOST_ENTRIES:
            raise _too_many(subject, MOST_ENTRIES)
        url = _next_page(answer, url, path, subject)
    if url is None:
        return found
    raise _too_many(subject, MOST_ENTRIES)


async def _from_tag(
    transport: Transport, scope: Scope, reference: Reference, subject: str
) -> list[Descriptor]:
    tag = fallback_tag(reference.digest or "")
    base = transport.base(reference.api_host)
    try:
        answer = await transport.request(
            Call(
                "GET",
                URL(f"{base}/v2/{reference.repository}/manifests/{tag}", encoded=True),
                subject,
                scope,
                headers={"Accept": OCI_INDEX},
                limit=MANIFEST_LIMIT,
            )
        )
    except NotFound:
        return []
    return await asyncio.to_thread(entries, answer.body, subject)


def _next_page(answer: Answer, current: URL, path: str, subject: str) -> URL | None:
    """The page that a Link header (RFC 8288) names; only ever on the same list."""
    for link in answer.headers.getall("Link", [])[:4]:
        target, _, parameters = link.partition(">")
        if not target.startswith("<") or 'rel="next"' not in parameters.replace(" ", ""):
            continue
        try:
            url = current.join(URL(target[1:], encoded=True))
        except ValueError:
            url = None
        if url is None or url.origin() != current.origin() or not url.raw_path.startswith(path):
            raise RegistryMisbehaved(subject, "its next page of referrers is somewhere else")
        return url
    return None


def _values(raw: bytes, subject: str) -> list[object]:
    try:
        document = parse_object(raw, subject)
    except MalformedContent as error:
        raise RegistryMisbehaved(subject, error.found, expected="an OCI index") from None
    values = document.get("manifests")
    if values is None:
        return []
    if not isinstance(values, list):
        raise RegistryMisbehaved(subject, "its 'manifests' are no list", expected="an OCI index")
    if len(values) > MOST_ENTRIES:
        raise _too_many(subject, MOST_ENTRIES)
    return values


def _chosen(found: list[Descriptor], artifact_type: str | None, subject: str) -> list[Descriptor]:
    chosen = {entry.digest: entry for entry in found if may_be(entry, artifact_type)}
    if len(chosen) > MOST_REFERRERS:
        raise _too_many(subject, MOST_REFERRERS)
    return list(chosen.values())


def _too_many(subject: str, most: int) -> TooLarge:
    return TooLarge(
        subject,
        f"more than {most} referrers",
        expected=f"at most {most}",
        remedy="remove what is no longer needed (cosign clean, or the registry's own tools)",
    )
