"""Makes an EvidenceItem of what was taken, within its bounds. Pure.

Processes get a third of the room, those that acted first: what each is, then their environments,
then the files they have mapped. The file gets what is left, from its beginning.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeVar

from trainseal.agent.files import Content
from trainseal.agent.ledger import cut
from trainseal.agent.masking import shown_command, shown_variable
from trainseal.agent.observed import Observation, Process
from trainseal.api.accessrecord import LABEL_NODE, LABEL_SEAL, first_words, node_label
from trainseal.api.driftreport import Finding, PodIdentity
from trainseal.api.evidenceitem import (
    MAX_BYTES,
    MAX_CONTENT,
    MAX_MAPS,
    MAX_PROCESSES,
    MAX_VARIABLES,
    MAX_WORDS,
    EvidenceItemSpec,
    FileEvidence,
    FindingReference,
    MappedFile,
    ProcessEvidence,
    Variable,
    name_of,
)
from trainseal.api.findings import FINDINGS, FindingId
from trainseal.api.model import API_VERSION, JsonObject, Model, json_object
from trainseal.provenance.commandlines import loads_code

#: Findings with a file whose bytes tell what was done.
WITH_FILE = frozenset(
    {
        FindingId.FILE_CHANGED,
        FindingId.FILE_CREATED,
        FindingId.FILE_RENAMED,
        FindingId.IMPORT_CHANGED,
        FindingId.BYTECODE_MISMATCH,
        FindingId.TREE_CHANGED,
        FindingId.EXEC_FOREIGN,
        FindingId.EXEC_MEMORY,
        FindingId.EXEC_DELETED,
        FindingId.MAP_FOREIGN,
        FindingId.MAP_MEMORY,
        FindingId.MAP_DELETED,
        FindingId.MAP_WRITABLE,
    }
)
_WITH_PROCESSES = frozenset(
    {
        FindingId.FILE_REMOVED,
        FindingId.FILE_ATTRIBUTES,
        FindingId.ENV_LOADER,
        FindingId.PROCESS_UNRECORDED,
        FindingId.PROCESS_TRACED,
        FindingId.PROCESS_STOPPED,
        FindingId.PROCESS_MEMORY_OPENED,
    }
)
#: Bytes as JSON: names, references and what the API server adds; then the share of processes.
_METADATA = 4 * 1024
_PROCESSES_SHARE = 3
#: Bytes of a command line that are looked at; of processes that did not act, ``_TEXT``.
_COMMAND = 4096
_TEXT = 1024
_SHORT = 256
_RUNS = (b"\x7fELF", b"#!")
_ANY_X = 0o111

_Record = TypeVar("_Record", bound=Model)
FileState = Literal["Kept", "Gone", "Unreadable", "NotAFile"]


@dataclass(frozen=True, slots=True)
class TakenProcess:
    """A process that was looked at. ``environment`` and ``files`` (rights by path) are None where
    they were not read; ``ended`` says that it was gone by then.
    """

    process: Process
    acting: bool = False
    ended: bool = False
    environment: Sequence[tuple[str, str]] | None = None
    files: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """All that was taken for one finding. ``processes``: who acted, upwards; then the others."""

    time: datetime
    file: FileState | None
    content: Content | None
    processes: Sequence[TakenProcess]


@dataclass(frozen=True, slots=True)
class About:
    """What the item is about. ``finding`` is as the report has it, ``seen`` what it was made of."""

    node: str
    namespace: str
    pod: str
    uid: str
    seal: str
    finding: Finding
    seen: Observation

    @property
    def name(self) -> str:
        """The item's."""
        return name_of(self.pod, self.uid, self.finding.key)


def wanted(seen: Observation) -> bool:
    """Whether an observation deserves evidence of its own.

    A new file does where it can run: others are as a rule a job's own, and somebody's data.
    """
    if FINDINGS[seen.finding].severity == "Info":
        return False
    if seen.finding is FindingId.FILE_CREATED:
        found = seen.content
        return found is not None and (bool(found.mode & _ANY_X) or found.head.startswith(_RUNS))
    return seen.finding in WITH_FILE or seen.finding in _WITH_PROCESSES


def item(about: About, taken: Taken, room: int) -> tuple[JsonObject, int]:
    """The object, and its bytes as JSON: at most ``room``, and at most MAX_BYTES."""
    room = min(room, MAX_BYTES) - _METADATA
    share = _PROCESSES_SHARE if taken.file is not None else 1
    processes, omitted = fitted(taken.processes, room // share)
    spec = EvidenceItemSpec(
        sealed_run=about.seal,
        node=about.node,
        pod=PodIdentity(name=about.pod, uid=about.uid),
        container=about.finding.container,
        finding=FindingReference(id=about.finding.id, key=about.finding.key),
        taken_at=taken.time,
        file=_file(about, taken),
        processes=processes or None,
        processes_omitted=omitted or None,
    )
    if spec.file is not None and taken.content is not None:
        left = min(room - _size(spec), MAX_CONTENT)
        spec = spec.model_copy(update={"file": _with_content(spec.file, taken.content, left)})
    body: JsonObject = {
        "apiVersion": API_VERSION,
        "kind": "EvidenceItem",
        "metadata": {
            "name": about.name,
            "namespace": about.namespace,
            "labels": {LABEL_NODE: node_label(about.node), LABEL_SEAL: about.seal[:63]},
        },
        "spec": spec.wire(),
    }
    return body, len(json.dumps(body, ensure_ascii=False).encode())


def renamed(body: JsonObject, about: About) -> JsonObject:
    """The object for a finding that turned out to be one of before a restart."""
    metadata, spec = json_object(body["metadata"]), json_object(body["spec"])
    reference: JsonObject = {"id": about.finding.id, "key": about.finding.key}
    return {
        **body,
        "metadata": {**metadata, "name": about.name},
        "spec": {**spec, "finding": reference},
    }


def _file(about: About, taken: Taken) -> FileEvidence | None:
    path = about.finding.path
    if taken.file is None or path is None:
        return None
    evidence = about.seen.evidence
    found = evidence.get("digest") or evidence.get("found")
    signed = evidence.get("signed digest") or evidence.get("signed")
    content = taken.content
    digest = _digest(content.digest) if content is not None else None
    return FileEvidence(
        path=path,
        state=taken.file,
        digest=digest,
        found_digest=_digest(found) if found != digest else None,
        signed_digest=_digest(signed),
        size=content.size if content is not None else None,
        mode=f"{content.mode:04o}" if content is not None else None,
        unsteady=True if content is not None and not content.steady else None,
    )


def _with_content(file: FileEvidence, content: Content, room: int) -> FileEvidence:
    text, size = packed(content.head, room)
    truncated = size < content.size
    return file.model_copy(
        update={
            "content": text,
            "content_size": size,
            "truncated": truncated or None,
        }
    )


def packed(data: bytes, room: int) -> tuple[str, int]:
    """The bytes as gzip in base64, at most ``room`` characters of it, and how many bytes they are:
    as many from the beginning as have room.
    """
    size = len(data)
    while True:
        text = base64.b64encode(gzip.compress(data[:size], mtime=0)).decode()
        if len(text) <= room or size == 0:
            return (text, size) if len(text) <= room else ("", 0)
        # What is left packs about as well as the whole; a little less, so that it ends soon.
        size = min(size - 1, int(size * room / len(text) * 0.95))


def fitted(taken: Sequence[TakenProcess], room: int) -> tuple[list[ProcessEvidence], int]:
    """The processes within ``room`` bytes of JSON, and how many had no place."""
    found: list[ProcessEvidence] = []
    left = room
    for one in taken[:MAX_PROCESSES]:
        record = _process(one)
        if (size := _size(record)) > left:
            break
        found.append(record)
        left -= size
    omitted = len(taken) - len(found)
    for number, one in enumerate(taken[: len(found)]):
        if one.environment is not None:
            kept, left = _within(_variables(one.environment), left)
            found[number] = found[number].model_copy(
                update={
                    "environment": kept,
                    "environment_omitted": len(one.environment) - len(kept) or None,
                }
            )
    for number, one in enumerate(taken[: len(found)]):
        if one.files is not None:
            mapped, left = _within(_files(one.files), left)
            found[number] = found[number].model_copy(
                update={"maps": mapped, "maps_omitted": len(one.files) - len(mapped) or None}
            )
    return found, omitted


def _process(one: TakenProcess) -> ProcessEvidence:
    process = one.process
    words = first_words(process.command[:MAX_WORDS], _COMMAND if one.acting else _TEXT)
    command = [cut(word, _TEXT) for word in shown_command(words)]
    return ProcessEvidence(
        pid=process.pid,
        parent=process.parent,
        started_at=process.started,
        executable=cut(process.executable, _TEXT),
        command=command or None,
        uid=process.uid if process.uid >= 0 else None,
        acting=one.acting or None,
        ended=one.ended or None,
    )


def _variables(environment: Sequence[tuple[str, str]]) -> Iterator[Variable]:
    """Those that load code first: there may be thousands in front of them."""
    for pair in sorted(environment, key=lambda v: not loads_code(v[0]))[:MAX_VARIABLES]:
        name, value = shown_variable(*pair)
        yield Variable(name=cut(name, _SHORT), value=cut(value, _TEXT))


def _files(files: Mapping[str, str]) -> Iterator[MappedFile]:
    """Those that code runs from first, among them what is deleted, in memory or has no file."""
    odd = ("/memfd:", "/dev/shm/", "(", "[")  # noqa: S108 names to compare with

    def rank(path: str) -> tuple[bool, bool, str]:
        strange = path.startswith(odd) or path.endswith(" (deleted)")
        return ("x" not in files[path], not strange, path)

    for path in sorted(files, key=rank)[:MAX_MAPS]:
        yield MappedFile(path=cut(path, _TEXT), rights=files[path])


def _within(records: Iterable[_Record], room: int) -> tuple[list[_Record], int]:
    """Those from the beginning that have room, and what is left of it."""
    found: list[_Record] = []
    for record in records:
        if (size := _size(record)) > room:
            break
        found.append(record)
        room -= size
    return found, room


def _size(record: Model) -> int:
    """As JSON in a list."""
    return len(record.model_dump_json(by_alias=True, exclude_none=True).encode()) + 2


def _digest(text: str | None) -> str | None:
    return text if text is not None and text.startswith("sha256:") and len(text) == 71 else None
