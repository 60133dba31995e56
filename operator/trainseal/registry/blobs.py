"""Content to push, and the check of content that arrives.

``BlobContent`` is anything with a known digest and size whose bytes can be read more than once
(an upload may start anew): bytes at hand, or a layer that is packed while it is sent.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from .descriptors import sha256_digest
from .errors import ContentMismatch

Progress = Callable[[int, int], None]
"""(bytes done, bytes in all); called in the event loop, often."""

# Below this, hashing takes less than handing it to a thread.
_INLINE = 128 * 1024


class BlobContent(Protocol):
    """Content with a known digest and size (bytes); ``chunks`` reads anew, and may block."""

    @property
    def digest(self) -> str: ...
    @property
    def size(self) -> int: ...
    def chunks(self) -> Iterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class BytesContent:
    """Bytes at hand."""

    content: bytes
    digest: str
    step: int = 1024 * 1024

    @classmethod
    async def of(cls, content: bytes) -> BytesContent:
        if len(content) <= _INLINE:
            return cls(content, sha256_digest(content))
        return cls(content, await asyncio.to_thread(sha256_digest, content))

    @property
    def size(self) -> int:
        return len(self.content)

    def chunks(self) -> Iterator[bytes]:
        for start in range(0, len(self.content), self.step):
            yield self.content[start : start + self.step]


async def read_chunks(
    content: BlobContent, progress: Progress | None = None
) -> AsyncIterator[bytes]:
    """The content's chunks, read in a thread; progress counts what was handed on."""
    done = 0
    chunks = content.chunks()
    try:
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            yield chunk
            done += len(chunk)
            if progress is not None:
                progress(done, content.size)
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()


class Digester:
    """SHA-256 of a stream, off the event loop for what is large."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.size = 0

    async def update(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if len(chunk) <= _INLINE:
            self._hash.update(chunk)
        else:
            await asyncio.to_thread(self._hash.update, chunk)

    def check(self, subject: str, digest: str, size: int | None) -> None:
        """Raises ContentMismatch where what came is not what was asked for."""
        found = "sha256:" + self._hash.hexdigest()
        if found == digest and (size is None or self.size == size):
            return
        raise mismatch(subject, f"{found} of {self.size} bytes", digest)


def mismatch(subject: str, found: str, digest: str) -> ContentMismatch:
    """The error for bytes that are not those of their digest."""
    return ContentMismatch(
        subject,
        f"the registry serves other bytes: {found}",
        expected=digest,
        remedy="do not use it: the content was changed in the registry, or the registry is broken;"
        " push the artifact again from its source",
    )
