"""One EvidenceItem: its file's bytes, compared with their digest, and all of it for people."""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.text import Text

from trainseal.api.evidenceitem import MAX_KEPT, PLURAL, EvidenceItem, FileEvidence, ProcessEvidence
from trainseal.api.model import API_VERSION, InvalidObjectError, JsonObject
from trainseal.cli.failures import REFUTED, UNDETERMINED, Failure
from trainseal.cli.terminaltext import plain
from trainseal.cluster.api import Kube, KubeError, NotFoundError, path_of


async def fetch(kube: Kube, namespace: str, name: str) -> JsonObject:
    """The live object. Raises Failure."""
    try:
        return await kube.get(path_of(API_VERSION, PLURAL, namespace, name))
    except NotFoundError:
        raise Failure(
            f"no EvidenceItem {name} in namespace {namespace}",
            expected="a name that `trainseal drift JOB` shows",
            remedy="is it deleted? The archive has a copy: `trainseal evidence show FOLDER NAME`",
            code=UNDETERMINED,
        ) from None
    except KubeError as error:
        raise Failure(
            f"EvidenceItem {namespace}/{name} could not be read: {error.message or error.reason}",
            expected="the right to get evidenceitems, which the role `trainseal-responder` has",
            remedy="ask for it, or look whether `kubectl version` gets an answer",
            code=UNDETERMINED,
        ) from None


def read(obj: JsonObject) -> EvidenceItem:
    """The object, whole. Raises Failure."""
    if obj.get("kind") != "EvidenceItem":
        raise Failure(f"it is a {obj.get('kind')}", expected="an EvidenceItem, which has a file")
    try:
        return EvidenceItem.parse(obj)
    except InvalidObjectError as error:
        raise Failure(plain(str(error)), expected="an EvidenceItem", code=UNDETERMINED) from None


def bytes_of(item: EvidenceItem) -> bytes:
    """The file's bytes that were kept. Raises Failure where there are none, or they are not those
    that the digest is of.
    """
    file = item.spec.file
    if file is None or file.content is None:
        why = "is about no file" if file is None else f"has no bytes: the file was {file.state}"
        raise Failure(
            f"EvidenceItem {item.metadata.name} {why}", expected="one with a file's bytes"
        )
    try:
        packed = base64.b64decode(file.content, validate=True)
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as unpacking:
            data = unpacking.read(MAX_KEPT + 1) if packed else b""
    except (binascii.Error, OSError, EOFError, zlib.error) as error:
        raise Failure(
            f"the bytes of {item.metadata.name} cannot be unpacked: {error}",
            expected="gzip in base64",
            code=REFUTED,
        ) from None
    found = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if len(data) != file.content_size or (not file.truncated and file.digest not in (None, found)):
        raise Failure(
            f"the bytes of {item.metadata.name} are {len(data)} with digest {found}",
            expected=f"{file.content_size} with digest {file.digest}, as was recorded",
            remedy="compare with what the archive has of it",
            code=REFUTED,
        )
    return data


def print_text(item: EvidenceItem) -> None:
    """For people, on stdout. Raises Failure as ``bytes_of`` does."""
    Console(highlight=False, soft_wrap=True).print(Group(*_parts(item)))


def _parts(item: EvidenceItem) -> Iterator[RenderableType]:
    spec = item.spec
    yield Text(f"{item.metadata.namespace}/{item.metadata.name}", "bold")
    where = f"{spec.pod.name}/{plain(spec.container)}" if spec.container else spec.pod.name
    yield _fact("finding", f"{spec.finding.id}, key {spec.finding.key}")
    yield _fact("pod", f"{where} on {spec.node}, seal {spec.sealed_run}")
    yield _fact("taken", f"{spec.taken_at.isoformat().replace('+00:00', 'Z')}")
    if spec.file is not None:
        yield from _file(spec.file)
    for process in spec.processes or ():
        yield from _process(process)
    if spec.processes_omitted:
        yield Text(f"  {spec.processes_omitted} more processes had no room", "yellow")
    if spec.file is not None and spec.file.content is not None:
        yield from _content(bytes_of(item), spec.file)


def _file(file: FileEvidence) -> Iterator[Text]:
    yield _fact("file", plain(file.path))
    if file.state != "Kept":
        words = {
            "Gone": "it was gone when it was looked at",
            "NotAFile": "a directory, a link or a device has its name",
            "Unreadable": "it could not be read",
        }
        yield Text(f"    {words[file.state]}", "yellow")
    if file.size is not None:
        yield _fact("size", f"{file.size} bytes, mode {file.mode}")
    for label, digest in (
        ("digest", file.digest),
        ("signed", file.signed_digest),
        ("found", file.found_digest),
    ):
        if digest is not None:
            yield _fact(label, digest)
    if file.digest and file.found_digest:
        yield Text("    it changed between the finding and when it was read", "yellow")
    if file.unsteady:
        yield Text("    it was written to while it was read", "yellow")


def _process(process: ProcessEvidence) -> Iterator[Text]:
    command = " ".join(process.command) if process.command else process.executable
    line = Text(f"  [{process.pid}] ")
    line.append(plain(command), "bold" if process.acting else "")
    about = [f"← {process.parent}", plain(process.executable)]
    about += [f"uid {process.uid}"] if process.uid is not None else []
    about += ["ended"] if process.ended else []
    line.append(f"  {', '.join(about)}", "dim")
    yield line
    for variable in process.environment or ():
        yield Text(f"      {plain(variable.name)}={plain(variable.value)}")
    if process.environment_omitted:
        yield Text(f"      {process.environment_omitted} more variables", "dim")
    for mapped in process.maps or ():
        yield Text(f"      {mapped.rights} {plain(mapped.path)}")
    if process.maps_omitted:
        yield Text(f"      {process.maps_omitted} more mapped files", "dim")


def _content(data: bytes, file: FileEvidence) -> Iterator[Text]:
    if file.truncated:
        words = f"the first {len(data)} of {file.size} bytes were kept"
        yield Text(f"  {words}", "yellow")
    try:
        text = None if b"\0" in data else data.decode()
    except UnicodeDecodeError:
        text = None
    if text is None:
        yield Text("  no text: --extract FILE writes it to a file", "dim")
    else:
        yield Text(plain(text, lines=True).rstrip("\n"))


def _fact(label: str, value: str) -> Text:
    return Text(f"    {label:<8} {value}")
