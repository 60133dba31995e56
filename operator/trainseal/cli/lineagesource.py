"""Where lineage finds its objects: the cluster, and for what is gone a copy of the archive."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from trainseal.api import checkpoint, runstatement, sealedrun
from trainseal.api.model import API_VERSION, JsonObject, json_object
from trainseal.archive.store import lines, read_object
from trainseal.cli.failures import REFUTED, Failure
from trainseal.cluster.api import Kube, KubeError, NotFoundError, path_of
from trainseal.provenance.evidence import BrokenChainError, walk

Kind = Literal["Checkpoint", "SealedRun", "RunStatement"]
PLURALS: Mapping[Kind, str] = {
    "Checkpoint": checkpoint.PLURAL,
    "SealedRun": sealedrun.PLURAL,
    "RunStatement": runstatement.PLURAL,
}


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look gave: an object and where it is from, or why there is none."""

    obj: JsonObject | None = None
    origin: Literal["cluster", "archive", ""] = ""
    why: str = ""


class Source(Protocol):
    """Finds one object."""

    async def find(self, kind: Kind, namespace: str, name: str) -> Looked:
        """By name; never raises: what cannot be read is said."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster, as the reader may see it."""

    kube: Kube

    async def find(self, kind: Kind, namespace: str, name: str) -> Looked:
        """The live object."""
        try:
            return Looked(
                await self.kube.get(path_of(API_VERSION, PLURALS[kind], namespace, name)), "cluster"
            )
        except NotFoundError:
            return Looked(why="it is not in the cluster")
        except KubeError as error:
            return Looked(why=f"it could not be read: {error.message or error.reason}")


@dataclass(frozen=True, slots=True)
class Archive:
    """A copy of the archive's volume: the last version of each object, by name."""

    folder: Path
    digests: Mapping[tuple[str, str, str], str] = field(repr=False)

    @classmethod
    def open(cls, folder: Path) -> Archive:
        """Reads the log, whole. Raises Failure where it is not what was written."""
        if not (folder / "log").is_dir():
            raise Failure(
                f"{folder} holds no folder log",
                expected="the archive's volume or a copy of it, with the folders log and objects",
                remedy="name the folder that the volume is mounted at",
            )
        found: dict[tuple[str, str, str], str] = {}
        try:
            for entry, _ in walk(lines(folder)):
                if entry.kind in PLURALS and entry.digest:
                    found[entry.kind, entry.namespace, entry.name] = entry.digest
        except BrokenChainError as error:
            raise Failure(
                f"{folder}: {error}",
                expected="the log as it was written",
                remedy="keep this copy as it is; trainseal evidence verify says more",
                code=REFUTED,
            ) from None
        return cls(folder, found)

    async def find(self, kind: Kind, namespace: str, name: str) -> Looked:
        """As it was recorded last."""
        digest = self.digests.get((kind, namespace, name))
        if digest is None:
            return Looked(why="the archive has not recorded it")
        try:
            obj: JsonObject = json_object(json.loads(read_object(self.folder, digest)))
        except BrokenChainError as error:
            return Looked(why=f"the archive's copy cannot be used: {error}")
        return Looked(obj, "archive")


@dataclass(frozen=True, slots=True)
class First:
    """The first source that has it."""

    sources: tuple[Source, ...]

    async def find(self, kind: Kind, namespace: str, name: str) -> Looked:
        """Asks one after the other; says why none has it."""
        reasons = []
        for source in self.sources:
            looked = await source.find(kind, namespace, name)
            if looked.obj is not None:
                return looked
            reasons.append(looked.why)
        if len(self.sources) == 1 and isinstance(self.sources[0], Cluster):
            reasons.append("a copy of the archive may have it (--archive FOLDER)")
        return Looked(why="; ".join(reasons))
