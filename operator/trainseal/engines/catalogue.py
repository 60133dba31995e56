"""The engines that there are, by the name that ``spec.engine`` of a TrainingJob gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from trainseal.api.trainingjob import TrainingJob
from trainseal.engines import job, jobset, pytorchjob, trainjob
from trainseal.engines.engine import Engine, ObjectKind, Owners
from trainseal.provenance.boundseals import BoundRole
from trainseal.provenance.keyrings import UntrustedError
from trainseal.provenance.podmatch import ExpectedPod, prepare

ENGINES: Mapping[str, Engine] = {
    "Job": job,
    "JobSet": jobset,
    "PyTorchJob": pytorchjob,
    "TrainJob": trainjob,
}


def kinds_above(engine: Engine) -> tuple[ObjectKind, ...]:
    """Kinds of what its pods' owners are made from: roots, and what is beside and between."""
    return (engine.ROOT, *engine.BESIDE, *(made.ROOT for made in engine.BETWEEN))


def names_above(
    engine: Engine, job: str, owners: Sequence[tuple[str, str]]
) -> Iterator[tuple[ObjectKind, str]]:
    """The same of one run, with their names: see ``root_names``."""
    for root in engine.root_names(job, owners):
        yield engine.ROOT, root
        for kind, prefix in engine.BESIDE.items():
            yield kind, f"{prefix}{root}"
        for made in engine.BETWEEN:
            yield made.ROOT, root


#: Every kind of what runs are made of, by its name.
KINDS: Mapping[str, ObjectKind] = {
    kind.kind: kind for engine in ENGINES.values() for kind in (engine.OWNER, *kinds_above(engine))
}

#: Kinds of owners.
OWNERS: Mapping[str, Owners] = {"Job": job, "PyTorchJob": pytorchjob}
_UNFIT: Mapping[str, Callable[[TrainingJob], str]] = {"PyTorchJob": pytorchjob.unfit}


def unfit(job: TrainingJob) -> str:
    """Why the job's engine cannot run it as it was signed; empty where it can."""
    says = _UNFIT.get(job.spec.engine)
    return says(job) if says else ""


def expected_pod(role: BoundRole) -> ExpectedPod:
    """What each pod of a bound role must be. Raises UntrustedError where this release does not
    know the engine: then nothing says what the pods may be.
    """
    engine = ENGINES.get(role.engine)
    if engine is None:
        raise UntrustedError(
            f"sealed for the engine {role.engine!r}, expected one of {', '.join(ENGINES)}"
        )
    return prepare(
        role.object_name,
        role.object_uid,
        role.replicas,
        role.template,
        engine.added(role),
    )


def owner_kind(role: BoundRole) -> str:
    """The kind of what owns a bound role's pods, by an engine that ``expected_pod`` knows."""
    return ENGINES[role.engine].OWNER.kind


def no_engine(name: str, enabled: Sequence[str]) -> str:
    """Why a run by this engine is not made."""
    return (
        f"spec.engine is {name}: found the engines {', '.join(enabled)} enabled in this cluster, "
        f"expected {name} among them; have the platform team enable it (value engines of the "
        "chart), or choose another engine and sign again"
    )
