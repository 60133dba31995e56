"""What a job must not go on from: tainted checkpoints on the volumes it mounts; and what it could.

In memory, fed by the watch of Checkpoints; asked before a job is sealed and before a suspended run
goes on. Three rules, all pure:

1. Two mounts are of one volume where they lead to one PersistentVolume, whatever the claim is
   called and in whatever namespace; where that is not known, where the claim's UID is one; where
   neither is known, where a namespace's claim has one name.
2. Paths within a volume overlap where they are equal or one lies in the other: who mounted a
   directory could have renamed anything in it.
3. A run whose checkpoints nobody judged since this process began bars as well, for the moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.api.sealedrun import MAX_EARLIER, EarlierRun
from trainseal.api.trainingjob import TrainingJob
from trainseal.cluster.informer import Event
from trainseal.provenance.checkpointmanifests import barring

Key = tuple[str, str]
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Place:
    """A directory of a claim's volume; empty ``uid`` and ``volume`` are not known."""

    namespace: str
    claim: str
    path: str
    uid: str = ""
    volume: str = ""

    def meets(self, other: Place) -> bool:
        """Whether what lies in one may lie in the other."""
        return self._of_one_volume(other) and overlap(self.path, other.path)

    def _of_one_volume(self, other: Place) -> bool:
        if self.volume and other.volume:
            return self.volume == other.volume
        if self.uid and other.uid:
            return self.uid == other.uid
        return (self.namespace, self.claim) == (other.namespace, other.claim)


@dataclass(frozen=True, slots=True)
class Entry:
    """A Checkpoint as far as it can bar a job. ``taint`` is empty where nothing is to be said."""

    name: str
    seal: Key
    job: str
    place: Place
    taint: str
    files: tuple[str, ...]
    more: int
    completed: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """Why a job does not start; ``waiting``: it may yet."""

    words: str
    waiting: bool = False


class TaintedVolumes:
    """All Checkpoints that there are, by what bars a job."""

    def __init__(self) -> None:
        self._entries: dict[Key, Entry] = {}
        self._judged: set[Key] = set()
        self._listed = True

    def expect(self) -> None:
        """Somebody will tell what there is, and call ``listed`` once that is all."""
        self._listed = False

    def listed(self) -> None:
        """All there was has been told."""
        self._listed = True

    def listen(self, event: Event, key: Key, obj: JsonObject) -> None:
        """The informer's listener."""
        entry = None if event == "DELETED" else entry_of(key, obj)
        if entry is None:
            self._entries.pop(key, None)
        else:
            self._entries[key] = entry

    def judged(self, seal: Key) -> None:
        """The taint of a run's checkpoints is as it should be."""
        self._judged.add(seal)

    def matter(self) -> bool:
        """Whether there is anything that could bar a job."""
        return not self._listed or any(
            e.taint or e.seal not in self._judged for e in self._entries.values()
        )

    @property
    def known(self) -> bool:
        """Whether all there was has been told."""
        return self._listed

    def earlier(self, places: Sequence[Place]) -> list[EarlierRun]:
        """The runs with checkpoints that a job could go on from which mounts these; the newest
        first, as many as a seal names.
        """
        by_seal: dict[Key, list[Entry]] = {}
        for entry in self._entries.values():
            if any(entry.place.meets(p) for p in places):
                by_seal.setdefault(entry.seal, []).append(entry)
        newest = {k: max(met, key=lambda e: (e.completed, e.name)) for k, met in by_seal.items()}
        order = sorted(newest, key=lambda k: (newest[k].completed, k), reverse=True)
        return [
            EarlierRun(
                in_namespace=key[0],
                sealed_run=key[1],
                checkpoints=len(by_seal[key]),
                newest=newest[key].name,
            )
            for key in order[:MAX_EARLIER]
        ]

    def bar(self, places: Sequence[Place]) -> Bar | None:
        """What keeps a job that mounts these from starting."""
        if places and not self._listed:
            return Bar("the checkpoints on its volume are being listed", waiting=True)
        met = [e for e in self._entries.values() if any(e.place.meets(p) for p in places)]
        if tainted := [e for e in met if e.taint]:
            return Bar(words(tainted))
        if waiting := sorted({"/".join(e.seal) for e in met if e.seal not in self._judged}):
            return Bar(
                f"its volume holds checkpoints of {waiting[0]}, which are looked at in a moment",
                waiting=True,
            )
        return None


def entry_of(key: Key, obj: JsonObject) -> Entry | None:
    """What a Checkpoint object amounts to; None where it is on no volume that a job could mount."""
    spec, status = json_object(obj.get("spec")), json_object(obj.get("status"))
    volume, attested = json_object(spec.get("volume")), json_object(status.get("attested"))
    claim = volume.get("claim")
    if not claim or status.get("standing") == "Dropped":
        return None
    taint = ""
    if tainted := barring(status):
        taint = f"{tainted.get('finding')}: {tainted.get('message')}"
        if refused := status.get("refused"):
            taint += f"; not signed off: {refused}"
    files = [str(f.get("path")) for f in json_objects(spec.get("files"))]
    unlisted = spec.get("unlisted")
    return Entry(
        name=key[1],
        seal=(key[0], str(spec.get("sealedRun"))),
        job=str(attested.get("job") or ""),
        place=Place(
            namespace=key[0],
            claim=str(claim),
            path=str(volume.get("path") or ""),
            uid=str(attested.get("claimUID") or ""),
            volume=str(attested.get("persistentVolume") or ""),
        ),
        taint=taint,
        files=tuple(files[:_NAMED]),
        more=max(0, len(files) - _NAMED) + (unlisted if isinstance(unlisted, int) else 0),
        completed=str(spec.get("completed") or ""),
    )


def overlap(one: str, other: str) -> bool:
    """Whether two directories of a volume are one, or one lies in the other; empty: its top."""
    parts, others = _parts(one), _parts(other)
    shorter = min(len(parts), len(others))
    return parts[:shorter] == others[:shorter]


def mounted(job: TrainingJob, run: str) -> tuple[tuple[str, str], ...]:
    """Claims and paths that the pods of a run, by its seal, read data or checkpoints from."""
    mounts = [(data.volume, data.path or "") for data in job.spec.data or ()]
    if job.spec.checkpoints is not None:
        mounts.insert(0, (job.spec.checkpoints.volume, job.spec.checkpoints.path_of(run)))
    found = [
        (volume.persistent_volume_claim.claim_name, path)
        for volume, path in mounts
        if volume.persistent_volume_claim is not None
    ]
    return tuple(dict.fromkeys(found))


def place_of(namespace: str, claim: str, path: str, found: Mapping[str, object] | None) -> Place:
    """A mount with what the API server says of its claim; None where there is no such claim."""
    metadata = json_object((found or {}).get("metadata"))  # type: ignore[arg-type]
    spec = json_object((found or {}).get("spec"))  # type: ignore[arg-type]
    return Place(
        namespace, claim, path, str(metadata.get("uid") or ""), str(spec.get("volumeName") or "")
    )


def words(tainted: Iterable[Entry]) -> str:
    """Which files, by which finding, and what to do."""
    by_seal: dict[Key, list[Entry]] = {}
    for entry in sorted(tainted, key=lambda e: (e.seal, e.name)):
        by_seal.setdefault(entry.seal, []).append(entry)
    said = "; ".join(_of_run(seal, entries) for seal, entries in list(by_seal.items())[:_NAMED])
    if len(by_seal) > _NAMED:
        said += f"; and of {len(by_seal) - _NAMED} more runs"
    (namespace, seal), entries = next(iter(by_seal.items()))
    job = entries[0].job or f"JOB --seal {seal}"
    return (
        f"its volume holds checkpoints that were written after a finding: {said}. Look at "
        f"`trainseal checkpoints {job} -n {namespace}`; then start from another volume or path, or "
        "have somebody with the role trainseal-responder sign them off: "
        f"`trainseal checkpoints accept {job} -n {namespace} --reason …`"
    )


def _of_run(seal: Key, entries: Sequence[Entry]) -> str:
    names = list(dict.fromkeys(_names(entries)))
    more = sum(e.more for e in entries) + max(0, len(names) - _NAMED)
    files = ", ".join(names[:_NAMED]) + (f" and {more} more" if more else "")
    return f"{files or 'files that are not listed'} of run {seal[1]} ({entries[0].taint})"


def _names(entries: Iterable[Entry]) -> Iterator[str]:
    for entry in entries:
        for file in entry.files:
            yield f"{entry.place.path}/{file}".lstrip("/")


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]
