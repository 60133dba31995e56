"""Workloads of a manifest become TrainingJobs. Pure: what is read is given, nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from trainseal.api.model import JsonObject
from trainseal.api.trainingjob import EngineName
from trainseal.cli.failures import Failure
from trainseal.cli.wrapping import batchjob, jobset, pytorchjob, trainjob
from trainseal.cli.wrapping.assembly import assembled, job_name
from trainseal.cli.wrapping.fields import Field, field_of
from trainseal.cli.wrapping.judging import judge
from trainseal.cli.wrapping.ledger import Ledger, Note, Outcome
from trainseal.cli.wrapping.surroundings import Surroundings
from trainseal.cli.wrapping.workload import Subject, Workload
from trainseal.provenance.document import Document
from trainseal.provenance.policies import CompiledPolicy

TRAIN_JOB = "TrainJob"
RUNTIMES = ("ClusterTrainingRuntime", "TrainingRuntime")
RUNTIME_VERSION = "trainer.kubeflow.org/v1alpha1"
#: The kinds that are taken, each in the one version whose fields are known here.
VERSIONS: Mapping[str, str] = {
    "Job": "batch/v1",
    "JobSet": "jobset.x-k8s.io/v1alpha2",
    "PyTorchJob": "kubeflow.org/v1",
    TRAIN_JOB: RUNTIME_VERSION,
}
_CONVERTERS: Mapping[str, Callable[[Subject], Workload]] = {
    "Job": batchjob.convert,
    "JobSet": jobset.convert,
    "PyTorchJob": pytorchjob.convert,
}
#: Engines that make of a run what it was.
_ENGINES: Mapping[str, EngineName] = {
    "JobSet": "JobSet",
    "PyTorchJob": "PyTorchJob",
    TRAIN_JOB: "TrainJob",
}
#: Workloads of other kinds: they would go on running unsigned beside the jobs.
_OTHERS = frozenset(
    {
        "CronJob", "DaemonSet", "Deployment", "JAXJob", "MPIJob", "Pod", "RayCluster", "RayJob",
        "ReplicaSet", "StatefulSet", "TFJob", "XGBoostJob",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A TrainingJob, what it was made of, and what a person should know of it."""

    job: JsonObject
    kind: str
    source: str
    place: str
    notes: tuple[Note, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing of it needs a person to look."""
        return whole(self.notes)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The objects of a file; those of a List are its items."""

    objects: tuple[Field, ...]

    @property
    def workloads(self) -> tuple[Field, ...]:
        """The objects to wrap, in their order."""
        return tuple(o for o in self.objects if _is_workload(o))

    def runtime(self, kind: str, name: str, namespace: str) -> Field | None:
        """A runtime in the file."""
        found = Surroundings(self.objects, namespace).find(kind, name)
        return found if found and found.text("apiVersion") == RUNTIME_VERSION else None


def objects_of(documents: Sequence[Document]) -> Manifest:
    """The objects of these documents, and the items of those that are lists."""
    found: list[Field] = []
    for document in documents:
        items = document.value.get("items") if document.value.get("kind") == "List" else None
        if not isinstance(items, list):
            found.append(field_of(document))
            continue
        listed = document.position.child("items")
        for index, item in enumerate(items):
            position = (listed.child(index) if listed else None) or document.position
            if isinstance(item, dict):
                found.append(field_of(Document(item, document.source, position)))
    return Manifest(tuple(found))


def check(manifest: Manifest, file: str) -> None:
    """Raises Failure where there is no workload in a file, or one of another version."""
    if not manifest.workloads:
        kinds = ", ".join(o.text("kind") for o in manifest.objects[:8]) or "nothing"
        raise Failure(
            f"{file}: no workload to wrap ({kinds})",
            expected=f"one of {', '.join(f'{k} ({v})' for k, v in VERSIONS.items())}",
            remedy="give the manifest that you hand to kubectl",
        )


def _is_workload(found: Field) -> bool:
    kind, version = found.text("kind"), found.text("apiVersion")
    wanted = VERSIONS.get(kind)
    if wanted is None or wanted.partition("/")[0] != version.partition("/")[0]:
        return False
    if version != wanted:
        raise Failure(
            f"{found.place}: {kind} of {version}",
            expected=wanted,
            remedy=f"write it as {wanted}: what other versions mean is not known here",
        )
    return True


def wrap(
    manifest: Manifest,
    workload: Field,
    namespace: str | None,
    runtime: Field | None,
    policies: Sequence[CompiledPolicy],
    now: datetime,
    *,
    keep_engine: bool = False,
) -> Wrapped:
    """The TrainingJob of one workload, by the engine ``Job``; with ``keep_engine`` by that of its
    own kind, where there is one. ``runtime`` is a TrainJob's. Raises Failure.
    """
    ledger = Ledger(workload)
    kind = workload.text("kind")
    where = workload.text("metadata", "namespace") or namespace or ""
    engine = _ENGINES.get(kind, "Job") if keep_engine else "Job"
    subject = Subject(workload, job_name(workload, ledger), where, ledger, engine)
    if kind == TRAIN_JOB:
        if runtime is None:
            raise missing_runtime(workload)
        found = trainjob.convert(subject, runtime)
    else:
        found = _CONVERTERS[kind](subject)
    if not found.roles:
        raise Failure(
            f"{workload.place}: {kind} {subject.name} has no pods",
            expected="at least one kind of pods",
            remedy="correct the manifest",
        )
    job = assembled(subject, found, Surroundings(manifest.objects, where))
    ledger.rest()
    judge(job, [p for p in policies if p.applies_to(where)], ledger, workload, now)
    name = workload.text("metadata", "name") or workload.text("metadata", "generateName")
    return Wrapped(job, kind, name, workload.place, ledger.notes())


def whole(notes: Sequence[Note]) -> bool:
    """Whether nothing among them needs a person to look."""
    return all(note.outcome is Outcome.CHANGED for note in notes)


def beside(manifest: Manifest, jobs: Sequence[Wrapped]) -> tuple[Note, ...]:
    """What is said of the objects of a file that are no workloads."""
    names = {str(w.job["metadata"]["name"]) for w in jobs}  # type: ignore[index, call-overload]
    return tuple(
        note for o in manifest.objects if not _is_workload(o) for note in _beside(o, names)
    )


def _beside(found: Field, names: set[str]) -> tuple[Note, ...]:
    kind, name = found.text("kind"), found.text("metadata", "name")
    note = Note(Outcome.CHANGED, found.place, f"{kind} {name}", "")
    if kind in RUNTIMES:
        return ()
    if kind in _OTHERS or kind in VERSIONS:
        return (
            replace(
                note, outcome=Outcome.LEFT, why="a workload of a kind that is not wrapped",
                remedy="see which of its pods ask for a GPU: those need a TrainingJob, or a lane",
            ),
        )  # fmt: skip
    if kind == "Service" and name in names:
        return (
            replace(
                note, outcome=Outcome.LEFT, why="TrainSeal makes one of this name for the job",
                remedy="delete this one; or give the job another name",
            ),
        )  # fmt: skip
    return (replace(note, why="it is no part of the job: apply it with kubectl, if it is needed"),)


def missing_runtime(workload: Field, why: str = "", code: int | None = None) -> Failure:
    """Without its runtime nothing is known of a TrainJob's pods."""
    kind, name = trainjob.runtime_of(workload)
    failure = Failure(
        f"{workload.place}: {kind} {name} is not in the file" + (f"; {why}" if why else ""),
        expected="the runtime that the TrainJob names: its pods are written there",
        remedy=f"give --runtime FILE; `kubectl get {kind.lower()} {name} -o yaml` prints it",
    )
    if code is not None:
        failure.code = code
    return failure
