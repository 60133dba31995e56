"""What a run's own checkpoints are known to be, for the gate of a worker that is tried again. Pure.

The controller signs one list for a run: of each file the last that a verified manifest says. It
stands in a ConfigMap that gates mount; the key by which it is verified stands in their own sealed
arguments. A list binds to its run by the name of the seal, so another run's does not do; an older
one of the same run knows less, and so lets less through.

Law: ``read(ring, sign(key, namespace, run, files, …)) == files``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object, json_objects, metadata_name
from trainseal.provenance.checkpointmanifests import barring
from trainseal.provenance.keyrings import (
    Keyring,
    UntrustedError,
    read_signed_text,
    rfc3339,
    signed_text,
)
from trainseal.provenance.keys import PrivateKey

PAYLOAD_TYPE = "application/vnd.trainseal.signed-files+json"
#: The ConfigMap's key.
KEY = "signed"
#: A ConfigMap holds 1 MiB; base64 takes a third more than what it says.
MAX_TEXT = 1_000_000
_MOST_BYTES = 700_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Who wrote a file that no trainer wrote.
_NO_TRAINER = frozenset({"Session", "Outside"})


@dataclass(frozen=True, slots=True)
class SignedFile:
    """A file as a manifest says: ``changed`` is its ctime in microseconds since 1970. Without a
    ``digest`` it was not read in time. ``barred``: it is known that no trainer wrote it.
    """

    path: str
    size: int
    changed: int
    digest: str | None
    barred: bool = False


def list_name(run: str) -> str:
    """Name of the ConfigMap."""
    return f"{run}-checkpoints"


@dataclass(frozen=True, slots=True)
class Said:
    """What one manifest says: far less than the object that it stands in."""

    completed: tuple[str, str]
    files: tuple[SignedFile, ...]
    removed: tuple[str, ...]


def said_by(obj: JsonObject) -> Said:
    """Of a Checkpoint object that was verified."""
    spec = json_object(obj.get("spec"))
    tainted = bool(barring(json_object(obj.get("status"))))
    removed = spec.get("removed")
    return Said(
        (str(spec.get("completed")), metadata_name(obj)),
        tuple(_file(file, tainted=tainted) for file in json_objects(spec.get("files"))),
        tuple(map(str, removed)) if isinstance(removed, list) else (),
    )


def files_of(manifests: Iterable[Said]) -> tuple[SignedFile, ...]:
    """The last of each name, less what was removed since; those first that were completed last."""
    found: dict[str, SignedFile] = {}
    for said in sorted(manifests, key=lambda said: said.completed):
        for path in said.removed:
            found.pop(path, None)
        for file in said.files:
            found.pop(file.path, None)
            found[file.path] = file
    return tuple(reversed(found.values()))


def sign(
    key: PrivateKey, namespace: str, run: str, files: Sequence[SignedFile], now: datetime
) -> str:
    """The list as text; of the files as many as find room, from the first."""
    entries: list[JsonValue] = [
        [file.path, file.size, file.changed, file.digest or "", file.barred]
        for file in _fitting(files)
    ]
    said: JsonObject = {
        "namespace": namespace,
        "run": run,
        "signedAt": rfc3339(now),
        "files": entries,
    }
    return signed_text(key, PAYLOAD_TYPE, said)


def _fitting(files: Sequence[SignedFile]) -> Iterator[SignedFile]:
    left = _MOST_BYTES
    for file in files:
        left -= 6 * len(file.path) + 140
        if left < 0:
            return
        yield file


def read(keyring: Keyring, namespace: str, run: str, text: str) -> dict[str, SignedFile]:
    """The files by path. Raises UntrustedError where the list is not the operator's on this run."""
    try:
        said = read_signed_text(
            keyring, text, PAYLOAD_TYPE, time_field="signedAt", max_bytes=MAX_TEXT
        )
    except ValueError as error:
        raise UntrustedError(str(error)) from None
    if (said.get("namespace"), said.get("run")) != (namespace, run):
        raise UntrustedError(f"it is of run {str(said.get('run'))[:80]}")
    entries = said.get("files")
    found = [_entry(entry) for entry in (entries if isinstance(entries, list) else ())]
    return {file.path: file for file in found}


def says(
    keyring: Keyring, namespace: str, run: str, text: str, files: Sequence[SignedFile]
) -> bool:
    """Whether a list is the operator's, and what ``sign`` would make of these files, whenever it
    was signed.
    """
    try:
        return read(keyring, namespace, run, text) == {file.path: file for file in _fitting(files)}
    except UntrustedError:
        return False


def _entry(entry: object) -> SignedFile:
    match entry:
        case [str(path), int(size), int(changed), str(digest), bool(barred)]:
            return SignedFile(path, size, changed, digest or None, barred)
    raise UntrustedError("it has an entry of another form")


def _file(file: Mapping[str, JsonValue], *, tainted: bool) -> SignedFile:
    size, digest = file.get("size"), file.get("digest")
    changed = datetime.fromisoformat(str(file.get("changed")))
    return SignedFile(
        path=str(file.get("path")),
        size=size if isinstance(size, int) else -1,
        changed=(changed - _EPOCH) // timedelta(microseconds=1),
        digest=digest if isinstance(digest, str) else None,
        barred=tainted and file.get("writer") in _NO_TRAINER,
    )
