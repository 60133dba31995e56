"""Checkpoint objects: made of what a pod completed, and read for what has a manifest already."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import get_args

from trainseal.agent.checkpointvalues import Batch, Completed, Known
from trainseal.agent.checkpointwords import words
from trainseal.agent.reports import Subject
from trainseal.api.accessrecord import LABEL_NODE, LABEL_SEAL, node_label
from trainseal.api.checkpoint import LABEL_CLAIM, PLURAL, Writer, claim_label
from trainseal.api.model import API_VERSION, JsonObject, json_object, json_objects, metadata_name
from trainseal.cluster.api import Kube, path_of

_PAGE = 500
#: Manifests of one volume that are read, the newest of those that there are.
_MOST_READ = 20_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Volume:
    """Where a pod's checkpoints lie: claim (empty: a directory of the pod) and directory in it."""

    claim: str
    path: str

    def wire(self) -> JsonObject:
        """As ``spec.volume``."""
        return {k: v for k, v in (("claim", self.claim), ("path", self.path)) if v}


def report_name(subject: Subject, batch: Batch) -> str:
    """Pod, UID and content: the same manifest made again has the same name."""
    said = [[f.path, f.digest, f.stamp.size, f.stamp.changed] for f in batch.files]
    mark = hashlib.sha256(repr((said, batch.removed, batch.unlisted)).encode()).hexdigest()
    return f"{subject.pod[:230].rstrip('-.')}-{subject.uid[:8]}-{mark[:12]}"


def object_of(
    subject: Subject,
    node: str,
    volume: Volume,
    batch: Batch,
    user_of: Callable[[Completed], str | None],
    now: datetime,
) -> JsonObject:
    """The object to create; ``user_of`` says who opened the session that wrote a file."""
    labels: JsonObject = {LABEL_NODE: node_label(node), LABEL_SEAL: subject.seal[:63]}
    if volume.claim:
        labels[LABEL_CLAIM] = claim_label(volume.claim)
    last = max((f.stamp.changed for f in batch.files), default=None)
    spec: JsonObject = {
        "sealedRun": subject.seal,
        "node": node,
        "pod": {"name": subject.pod, "uid": subject.uid},
        "volume": volume.wire(),
        "completed": _time(last // 1000) if last is not None else _utc(now),
        "files": [_file(file, user_of(file)) for file in batch.files],
    }
    if batch.removed:
        spec["removed"] = list(batch.removed)
    if batch.unlisted:
        spec["unlisted"] = batch.unlisted
    return {
        "apiVersion": API_VERSION,
        "kind": "Checkpoint",
        "metadata": {
            "name": report_name(subject, batch),
            "namespace": subject.namespace,
            "labels": labels,
        },
        "spec": spec,
    }


def _file(file: Completed, user: str | None) -> JsonObject:
    found: JsonObject = {
        "path": file.path,
        "size": file.stamp.size,
        "changed": _time(file.stamp.changed // 1000),
        "writer": file.writer,
    }
    if file.digest is not None:
        found["digest"] = file.digest
    if file.judged is not None:
        found |= words(file.judged, file.path)
    if user is not None:
        found["user"] = user[:256]
    return found


async def read_known(kube: Kube, subject: Subject, volume: Volume) -> dict[str, Known]:
    """The last manifest of each file below our directory of the volume. Raises KubeError.

    Of a directory that goes with the pod, only this run's can be about it.
    """
    label = (
        f"{LABEL_CLAIM}={claim_label(volume.claim)}"
        if volume.claim
        else f"{LABEL_SEAL}={subject.seal[:63]}"
    )
    # From the server's memory: as new as a watch would be, and no load on its store.
    query = {"labelSelector": label, "limit": str(_PAGE), "resourceVersion": "0"}
    path = path_of(API_VERSION, PLURAL, subject.namespace)
    objects: list[JsonObject] = []
    while True:
        page = await kube.request("GET", path, query=query, seconds=30)
        objects += json_objects(page.get("items"))
        objects = sorted(objects, key=_made)[-_MOST_READ:]
        token = json_object(page.get("metadata")).get("continue")
        if not token:
            break
        query = {"labelSelector": label, "limit": str(_PAGE), "continue": str(token)}
    return known_files(objects, subject, volume)


def known_files(
    objects: Iterable[JsonObject], subject: Subject, volume: Volume
) -> dict[str, Known]:
    """As ``read_known``, of these objects. What the controller dropped says nothing."""
    found: dict[str, Known] = {}
    for obj in sorted(objects, key=_made):
        spec = json_object(obj.get("spec"))
        there = json_object(spec.get("volume"))
        uid = json_object(spec.get("pod")).get("uid")
        ours = uid == subject.uid
        dropped = json_object(obj.get("status")).get("standing") == "Dropped"
        if str(there.get("claim") or "") != volume.claim or (not volume.claim and not ours):
            continue
        name = metadata_name(obj)
        for file in () if dropped else json_objects(spec.get("files")):
            path = _below(f"{there.get('path') or ''}/{file.get('path')}", volume.path)
            known = _known(file, name, ours=ours)
            if path is not None and known is not None:
                found[path] = known
    return found


def _known(file: Mapping[str, object], name: str, *, ours: bool) -> Known | None:
    size, digest = file.get("size"), file.get("digest")
    try:
        changed = datetime.fromisoformat(str(file.get("changed")))
    except ValueError:
        return None
    if not isinstance(size, int) or changed.tzinfo is None:
        return None
    return Known(
        digest=digest if isinstance(digest, str) else None,
        size=size,
        changed=(changed - _EPOCH) // timedelta(microseconds=1),
        manifest=name,
        ours=ours,
        writer=next((w for w in get_args(Writer) if w == file.get("writer")), "Unwatched"),
    )


def _below(path: str, top: str) -> str | None:
    """A path of the volume as it is below ``top``; None where it lies elsewhere."""
    path = path.strip("/")
    if not top:
        return path
    return path[len(top) + 1 :] if path.startswith(f"{top}/") else None


def _made(obj: JsonObject) -> tuple[str, str]:
    created = json_object(obj.get("metadata")).get("creationTimestamp")
    return str(created or ""), str(json_object(obj.get("spec")).get("completed") or "")


def _time(microseconds: int) -> str:
    return _utc(_EPOCH + timedelta(microseconds=microseconds))


def _utc(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
