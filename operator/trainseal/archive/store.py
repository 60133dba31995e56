"""The archive on disk: a chained log, and each object's bytes beside it under their digest.

::

    log/000000000001.jsonl       lines 1 to 100,000; each file is named by its first line
    objects/ab/abcdef….json.gz   the canonical object with that SHA-256

Objects are written and synced before the line that names them; so after a crash a line never
lacks its object, and at most the last line is torn. Nothing is ever rewritten but a torn last line.
One process writes, held by a lock on the folder.
"""

from __future__ import annotations

import fcntl
import gzip
import os
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import TracebackType

from trainseal.api.model import JsonObject, json_object
from trainseal.provenance.evidence import (
    MAX_LINE_BYTES,
    BrokenChainError,
    Entry,
    Head,
    digest_of,
    record,
    walk,
)
from trainseal.provenance.keyrings import rfc3339

LINES_A_FILE = 100_000
#: Bytes of one object, unpacked: what the API server stores at most.
MAX_OBJECT_BYTES = 3 * 1024 * 1024


class StoreError(OSError):
    """The folder cannot be used; the words say why and what to do."""


class Store:
    """An open archive. ``known`` has the last entry of what is alive, by UID: about 1 KiB each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.head = Head()
        self.known: dict[str, Entry] = {}
        self._lock = -1

    def __enter__(self) -> Store:
        (self.folder / "log").mkdir(parents=True, exist_ok=True)
        (self.folder / "objects").mkdir(exist_ok=True)
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._mend()
            for entry, head in walk(lines(self.folder)):
                self.head = head
                self._note(entry)
        except BlockingIOError:
            os.close(self._lock)
            raise StoreError(
                f"{self.folder}: found another archive that writes here, expected none; "
                "give each release a volume of its own"
            ) from None
        except BrokenChainError as error:
            os.close(self._lock)
            raise StoreError(
                f"{self.folder}: {error}; keep this folder as it is, it is evidence of tampering "
                "or of a broken disk, and give the archive a new volume"
            ) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._lock)

    def append(self, obj: JsonObject, now: datetime, *, deleted: bool = False) -> bool:
        """Records an object as it is, and with ``deleted`` that it is gone; False where it is
        recorded already.

        Raises OSError where the disk does not take it; then it can be tried again.
        """
        metadata = json_object(obj.get("metadata"))
        body = record(obj)
        entry = Entry(
            number=0,
            previous="",
            time="",
            kind=str(obj.get("kind")),
            namespace=str(metadata.get("namespace", "")),
            name=str(metadata.get("name")),
            uid=str(metadata.get("uid")),
            digest=digest_of(body),
        )
        before = self.known.get(entry.uid)
        new = before is None or before.digest != entry.digest
        if new:
            # Also of what is deleted: it was perhaps never seen as it was last.
            self._keep(digest_of(body), body)
            self._write(entry, now)
        if deleted:
            self._write(replace(entry, digest=None), now)
        return new or deleted

    def note_absent(self, kind: str, present: AbstractSet[str], now: datetime) -> int:
        """Records as gone what is known of a kind and not among the UIDs ``present``; how many."""
        gone = [e for e in self.known.values() if e.kind == kind and e.uid not in present]
        for entry in gone:
            self._write(replace(entry, digest=None), now)
        return len(gone)

    def _write(self, entry: Entry, now: datetime) -> None:
        entry = replace(
            entry,
            number=self.head.number + 1,
            previous=self.head.digest,
            time=rfc3339(now),
        )
        line = entry.line()
        path = _file_of(self.folder, entry.number)
        new = not path.exists()
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, line + b"\n")
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
        if new:
            _sync_folder(path.parent)
        self.head = self.head.after(line)
        self._note(entry)

    def _note(self, entry: Entry) -> None:
        if entry.digest is None:
            self.known.pop(entry.uid, None)
        else:
            self.known[entry.uid] = entry

    def _keep(self, digest: str, body: bytes) -> None:
        path = object_path(self.folder, digest)
        if path.exists():
            return
        path.parent.mkdir(exist_ok=True)
        fresh = path.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(descriptor, gzip.compress(body, mtime=0))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fresh.rename(path)
        _sync_folder(path.parent)

    def _mend(self) -> None:
        """Takes off a last line that a crash left without its end."""
        files = _files(self.folder)
        if not files:
            return
        with files[-1].open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MAX_LINE_BYTES - 1))
            torn = len(file.read().rpartition(b"\n")[2])
            # More than a line was no torn line: then reading says what is wrong.
            if 0 < torn <= MAX_LINE_BYTES:
                file.truncate(size - torn)
                os.fsync(file.fileno())


def lines(folder: Path) -> Iterator[bytes]:
    """The log's lines in their order. Raises BrokenChainError where a file is missing."""
    number = 0
    for path in _files(folder):
        if path != _file_of(folder, number + 1):
            raise BrokenChainError(
                f"line {number + 1}: found the file {path.name}, expected "
                f"{_file_of(folder, number + 1).name}: a part of the log was removed"
            )
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 2):
                if not line.endswith(b"\n"):
                    raise BrokenChainError(f"line {number + 1}: found no end of the line")
                number += 1
                yield line[:-1]


def object_path(folder: Path, digest: str) -> Path:
    """Where the object of this digest lies."""
    name = digest.removeprefix("sha256:")
    return folder / "objects" / name[:2] / f"{name}.json.gz"


def read_object(folder: Path, digest: str) -> bytes:
    """The object's canonical bytes. Raises BrokenChainError where they are not those."""
    path = object_path(folder, digest)
    try:
        with gzip.open(path) as file:
            body = file.read(MAX_OBJECT_BYTES + 1)
    except FileNotFoundError:
        raise BrokenChainError(f"object {digest} was removed: {path} does not exist") from None
    except (OSError, EOFError) as error:
        raise BrokenChainError(f"object {digest} cannot be read: {path}: {error}") from None
    if (found := digest_of(body)) != digest:
        raise BrokenChainError(f"object {digest} was changed: {path} holds {found}")
    return body


def _files(folder: Path) -> list[Path]:
    return sorted((folder / "log").glob("*.jsonl"))


def _file_of(folder: Path, number: int) -> Path:
    first = (number - 1) // LINES_A_FILE * LINES_A_FILE + 1
    return folder / "log" / f"{first:012}.jsonl"


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
