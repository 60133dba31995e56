"""The engines that there are, by the name that ``spec.engine`` of a TrainingJob gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from trainseal.api.trainingjob import TrainingJob
from trainseal.engines import job, jobset, pytorchjob
from trainseal.engines.engine import Engine, ObjectKind, Owners
from trainseal.provenance.boundseals import BoundRole
from trainseal.provenance.keyrings import UntrustedError
from trainseal.provenance.podmatch import ExpectedPod, prepare

ENGINES: Mapping[str, Engine] = {"Job": job, "JobSet": jobset, "PyTorchJob": pytorchjob}
#: Every kind of roots and owners, by its name.
KINDS: Mapping[str, ObjectKind] = {
    kind.kind: kind for engine in ENGINES.values() for kind in (engine.ROOT, engine.OWNER)
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
