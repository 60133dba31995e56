"""A work tree as the layers of an artifact, so that a small change moves few bytes.

Files are sorted into layers by the leading bits of the SHA-256 of their path, and a layer is split
by the next bit where it would hold more than 4 MiB, up to 64 layers. So a layer depends on nothing
but the files whose paths share its prefix:

* a changed file changes one layer; where the tree grows or shrinks a layer may be split, or joined
  with the few beside it, and all others stay;
* a small tree is one layer.

Each layer is an uncompressed tar (POSIX pax) with its files alone: sorted by path, owner 0, time
0, mode 0644 or 0755. The same files give the same bytes. Uncompressed, since a gate unpacks them
on every node and compressors differ between releases. Links, devices and names that no signed tree
may have do not come this far: ``tree_files`` refuses them.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .descriptors import Descriptor
from .tree_files import TreeFile, TreeFilesError, open_file

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
LAYER_BYTES = 4 * 1024 * 1024
DEEPEST_SPLIT = 6  # 2**6 layers

_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1024 * 1024
_END = bytes(2 * _BLOCK)


@dataclass(frozen=True, slots=True)
class Layer:
    """Some files of a tree as one tar; a ``BlobContent`` that is packed anew on each reading."""

    directory: Path
    files: tuple[TreeFile, ...]
    digest: str
    size: int

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(LAYER_TYPE, self.digest, self.size)

    def chunks(self) -> Iterator[bytes]:
        """The tar. Raises TreeFilesError where a file is no longer what was listed."""
        return tar_chunks(self.directory, self.files)


def partition(files: Sequence[TreeFile]) -> list[tuple[TreeFile, ...]]:
    """The files of each layer, in a stable order; every file in exactly one."""
    keyed = [(hashlib.sha256(os.fsencode(file.path)).digest(), file) for file in files]
    return [
        tuple(sorted((file for _, file in group), key=lambda file: os.fsencode(file.path)))
        for group in _split(keyed, 0)
    ]


def pack(
    directory: Path,
    files: Sequence[TreeFile],
    progress: Callable[[int], None] = lambda _bytes: None,
) -> list[Layer]:
    """The tree's layers; blocks while every file is read once.

    ``progress`` gets the number of bytes just packed (headers included). Raises TreeFilesError.
    """
    layers = []
    for group in partition(files):
        hasher, size = hashlib.sha256(), 0
        for chunk in tar_chunks(directory, group):
            hasher.update(chunk)
            size += len(chunk)
            progress(len(chunk))
        layers.append(Layer(directory, group, f"sha256:{hasher.hexdigest()}", size))
    return layers


def tar_chunks(directory: Path, files: Sequence[TreeFile]) -> Iterator[bytes]:
    """The tar of these files in pieces of about 1 MiB. Raises TreeFilesError, OSError."""
    buffer = bytearray()
    for file in files:
        for piece in _entry(directory, file):
            buffer += piece
            if len(buffer) >= _CHUNK:
                yield bytes(buffer)
                buffer.clear()
    yield bytes(buffer + _END)


def _entry(directory: Path, file: TreeFile) -> Iterator[bytes]:
    info = tarfile.TarInfo(file.path)
    info.size = file.size
    info.mode = 0o755 if file.executable else 0o644
    yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
    left = file.size
    with open_file(directory, file.path) as (descriptor, _):
        while left and (chunk := os.read(descriptor, min(left, _CHUNK))):
            left -= len(chunk)
            yield chunk
        if left or os.read(descriptor, 1):
            raise TreeFilesError(
                f"{file.path!r}: found another size than the {file.size} bytes listed a moment"
                " ago; the file changed while it was packed; run again when nothing writes to"
                " the tree"
            )
    yield bytes(-file.size % _BLOCK)


def _split(
    keyed: Sequence[tuple[bytes, TreeFile]], depth: int
) -> Iterator[list[tuple[bytes, TreeFile]]]:
    if not keyed:
        return
    if depth == DEEPEST_SPLIT or len(keyed) == 1 or _bytes(keyed) <= LAYER_BYTES:
        yield list(keyed)
        return
    for bit in (0, 1):
        yield from _split([k for k in keyed if _bit(k[0], depth) == bit], depth + 1)


def _bytes(keyed: Sequence[tuple[bytes, TreeFile]]) -> int:
    return sum(file.size + _BLOCK for _, file in keyed)


def _bit(key: bytes, index: int) -> int:
    return key[index // 8] >> (7 - index % 8) & 1
