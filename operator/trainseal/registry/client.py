"""The registry client: what can be asked of a registry, with its answers verified.

Source: OCI distribution specification 1.1. Content that is asked for by digest has that digest or
ContentMismatch is raised; each operation ends within ``Options.deadline`` (plus time for large
bodies at ``Options.minimum_rate``); every answer is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from types import TracebackType
from typing import Self

from yarl import URL

from .authentication import PULL, PUSH, Scope
from .blobs import BlobContent, BytesContent, Digester, Progress, mismatch, read_chunks
from .credentials import CredentialLookup, anonymous
from .descriptors import (
    EMPTY_JSON,
    MANIFEST_LIMIT,
    MANIFEST_TYPES,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
)
from .destinations import next_location
from .errors import RegistryMisbehaved, RegistryUnavailable
from .references import Reference, is_digest
from .referrers import FallbackLocks, attachment, fallback_tag, list_referrers, update_fallback
from .transport import Answer, Call, Options, Transport, next_chunk, too_large, within


class RegistryClient:
    """An open client; use as ``async with RegistryClient(...) as client``.

    Safe for use by many tasks of one event loop. ``options`` and ``credentials`` as in
    ``transport`` and ``credentials``. All methods raise RegistryError.
    """

    def __init__(
        self, options: Options | None = None, credentials: CredentialLookup = anonymous
    ) -> None:
        self.options = options or Options()
        self._credentials = credentials
        self._opened: Transport | None = None
        self._fallbacks = FallbackLocks()

    async def __aenter__(self) -> Self:
        self._opened = await Transport.open(self.options, self._credentials)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    # Reading

    async def resolve(self, reference: Reference) -> Descriptor:
        """The descriptor of what a tag or digest stands for now, from its own bytes."""
        return (await self.manifest(reference)).descriptor

    async def manifest(self, reference: Reference) -> Manifest:
        """The manifest or index, at most 4 MiB; its digest is computed from its bytes.

        A reference with a digest gives these bytes and no others.
        """
        call = Call(
            "GET",
            self._url(reference, "manifests", reference.identifier),
            str(reference),
            self._scope(reference, PULL),
            headers={"Accept": ", ".join(MANIFEST_TYPES)},
            limit=MANIFEST_LIMIT,
        )
        async with within(self.options.deadline, str(reference)):
            answer = await self._transport.request(call)
        digest = (await BytesContent.of(answer.body)).digest
        if reference.digest is not None and digest != reference.digest:
            raise mismatch(str(reference), digest, reference.digest)
        media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        return Manifest(answer.body, media_type, digest)

    async def blob(self, reference: Reference, content: Descriptor | str, max_bytes: int) -> bytes:
        """A whole blob of the reference's repository, by descriptor or digest.

        Raises TooLarge where it has, or says it has, more than ``max_bytes``.
        """
        digest, size = _digest_and_size(content)
        subject = f"{reference.repository_name}@{digest}"
        if size is not None and size > max_bytes:
            raise too_large(subject, f"{size} bytes", max_bytes)
        limit = max_bytes if size is None else size
        call = self._blob_call(reference, digest, limit)
        async with within(self._time_for(limit), subject):
            answer = await self._transport.request(call)
        digester = Digester()
        await digester.update(answer.body)
        digester.check(subject, digest, size)
        return answer.body

    async def blob_stream(
        self, reference: Reference, content: Descriptor
    ) -> AsyncGenerator[bytes, None]:
        """A blob in chunks, verified at the end: trust nothing before the iterator is exhausted.

        Ends with ContentMismatch where digest or size differ, at once when too many bytes come.
        A connection lost midway is RegistryUnavailable, and the caller starts anew. Close the
        iterator (``contextlib.aclosing``) where it may be left early.
        """
        subject = f"{reference.repository_name}@{content.digest}"
        digester = Digester()
        # Only time spent on the registry counts, not what the caller does with a chunk.
        clock, left = asyncio.get_running_loop().time, self._time_for(content.size)
        async with within(self.options.deadline, subject):
            response = await self._transport.open_stream(
                self._blob_call(reference, content.digest, content.size)
            )
        try:
            while True:
                started = clock()
                async with within(left, subject):
                    chunk = await next_chunk(response, subject)
                left = max(0.001, left - (clock() - started))
                if not chunk:
                    break
                await digester.update(chunk)
                if digester.size > content.size:
                    raise mismatch(subject, f"more than {content.size} bytes", content.digest)
                yield chunk
        finally:
            response.close()
        digester.check(subject, content.digest, content.size)

    async def blob_exists(
        self, reference: Reference, digest: str, *, pushing: bool = False
    ) -> bool:
        """Whether the repository has the blob, by the registry's word.

        ``pushing`` asks with push rights, so that the sign-in serves the upload that follows.
        """
        call = Call(
            "HEAD",
            self._url(reference, "blobs", digest),
            f"{reference.repository_name}@{digest}",
            self._scope(reference, PUSH if pushing else PULL),
            statuses=frozenset({200, 404}),
        )
        async with within(self.options.deadline, call.subject):
            return (await self._transport.request(call)).status == 200

    async def referrers(
        self, reference: Reference, artifact_type: str | None = None
    ) -> list[Descriptor]:
        """What refers to the manifest that ``reference`` names by digest, at most 256.

        From the referrers API, else from the tag schema's index. With ``artifact_type``, those of
        that type *and those whose type the registry does not say* (some give the config's type
        instead): read the manifest to be sure. Raises TooLarge beyond the bounds.
        """
        async with within(self.options.deadline, str(reference)):
            return await list_referrers(
                self._transport, self._scope(reference, PULL), reference, artifact_type
            )

    # Writing

    async def push_blob(
        self,
        reference: Reference,
        content: bytes | BlobContent,
        *,
        progress: Progress | None = None,
    ) -> bool:
        """Puts a blob into the reference's repository; False where it was there already."""
        known = await BytesContent.of(content) if isinstance(content, bytes) else content
        if await self.blob_exists(reference, known.digest, pushing=True):
            if progress is not None:
                progress(known.size, known.size)
            return False
        attempts = self.options.attempts
        while True:
            attempts -= 1
            try:
                async with within(self._time_for(known.size), reference.repository_name):
                    await self._upload(reference, known, progress)
                return True
            except RegistryUnavailable as error:
                if attempts <= 0 or isinstance(error, RegistryMisbehaved):
                    raise
                await asyncio.sleep(self.options.first_pause)

    async def push_manifest(self, reference: Reference, raw: bytes, media_type: str) -> Descriptor:
        """Puts a manifest under the reference's tag, or its digest (which must be its own)."""
        descriptor = Descriptor.of(media_type, raw)
        await self._put_manifest(reference, raw, descriptor)
        return descriptor

    async def attach(
        self,
        reference: Reference,
        subject: Descriptor,
        artifact_type: str,
        content: bytes,
        media_type: str,
        annotations: Mapping[str, str] | None = None,
    ) -> Descriptor:
        """Attaches content to ``subject`` (in the reference's repository) as an OCI 1.1 referrer.

        Where the registry does not confirm the subject (no ``OCI-Subject`` header), the index
        under the tag ``sha256-<hex>`` is updated as well (distribution-spec 1.1, "Referrers Tag
        Schema"). That has no lock across clients: two that attach at once from two processes may
        lose one entry, which is looked for and written again here, but not for ever.
        """
        known = await BytesContent.of(content)
        layer = Descriptor(media_type, known.digest, known.size)
        raw = attachment(subject, artifact_type, layer, annotations or {})
        await self.push_blob(reference, EMPTY_JSON)
        await self.push_blob(reference, known)
        descriptor = Descriptor.of(OCI_MANIFEST, raw)
        target = reference.at(descriptor.digest)
        answer = await self._put_manifest(target, raw, descriptor)
        if answer.headers.get("OCI-Subject", "").strip() != subject.digest:
            entry = Descriptor(
                OCI_MANIFEST,
                descriptor.digest,
                descriptor.size,
                artifact_type=artifact_type,
                annotations=annotations or {},
            )
            tag = reference.tagged(fallback_tag(subject.digest))
            async with self._fallbacks.held(str(tag)):
                await update_fallback(self, tag, entry)
        return descriptor

    # Below: how

    @property
    def _transport(self) -> Transport:
        if self._opened is None:
            raise RuntimeError("RegistryClient is used outside its 'async with'")
        return self._opened

    async def _upload(
        self, reference: Reference, content: BlobContent, progress: Progress | None
    ) -> None:
        subject, scope = reference.repository_name, self._scope(reference, PUSH)
        start = self._url(reference, "blobs", "uploads/")
        opened = await self._transport.request(
            Call("POST", start, subject, scope, statuses=frozenset({202}))
        )
        location = next_location(opened.url, opened.headers.get("Location"), subject)
        sign = "&" if location.raw_query_string else "?"
        digest = content.digest.replace(":", "%3A")
        await self._transport.request(
            Call(
                "PUT",
                URL(f"{location}{sign}digest={digest}", encoded=True),
                f"{subject}@{content.digest}",
                scope,
                headers={
                    "Content-Type": "application/octet-stream",
                    "Content-Length": str(content.size),
                },
                body=lambda: read_chunks(content, progress),
                statuses=frozenset({201, 204}),
                attempts=1,  # an upload session that failed is not tried again, a new one is
            )
        )

    async def _put_manifest(
        self, reference: Reference, raw: bytes, descriptor: Descriptor
    ) -> Answer:
        if reference.digest is not None and reference.digest != descriptor.digest:
            raise mismatch(str(reference), descriptor.digest, reference.digest)
        call = Call(
            "PUT",
            self._url(reference, "manifests", reference.tag or descriptor.digest),
            str(reference),
            self._scope(reference, PUSH),
            headers={"Content-Type": descriptor.media_type},
            body=lambda: raw,
            statuses=frozenset({200, 201, 202}),
        )
        async with within(self._time_for(len(raw)), str(reference)):
            answer = await self._transport.request(call)
        stored = answer.headers.get("Docker-Content-Digest", descriptor.digest)
        if stored != descriptor.digest:
            raise RegistryMisbehaved(
                str(reference),
                "the registry stored the manifest under another digest",
                expected=descriptor.digest,
                remedy="use a registry that keeps manifests as they are",
            )
        return answer

    def _blob_call(self, reference: Reference, digest: str, limit: int) -> Call:
        return Call(
            "GET",
            self._url(reference, "blobs", digest),
            f"{reference.repository_name}@{digest}",
            self._scope(reference, PULL),
            limit=limit,
        )

    def _url(self, reference: Reference, kind: str, identifier: str) -> URL:
        base = self._transport.base(reference.api_host)
        return URL(f"{base}/v2/{reference.repository}/{kind}/{identifier}", encoded=True)

    def _scope(self, reference: Reference, actions: str) -> Scope:
        return Scope(reference.registry, reference.repository, actions)

    def _time_for(self, size: int) -> float:
        return self.options.deadline + size / self.options.minimum_rate


def _digest_and_size(content: Descriptor | str) -> tuple[str, int | None]:
    if isinstance(content, Descriptor):
        return content.digest, content.size
    if not is_digest(content):
        raise ValueError(f"{content[:140]!r} is no sha256 digest")
    return content, None
