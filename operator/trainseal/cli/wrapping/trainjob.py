"""A TrainJob (trainer.kubeflow.org/v1alpha1): the JobSet that it makes of its runtime.

The runtime is another object, and what it says is run like what the TrainJob says: it is taken as
it is at hand, and signed. Put together as seen in trainer v2.0.0 (pkg/runtime/framework/plugins).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from pydantic import JsonValue

from trainseal.cli.wrapping import jobset
from trainseal.cli.wrapping.fields import Field
from trainseal.cli.wrapping.workload import INDEX, SourceRole, Subject, Workload, added
from trainseal.engines.podtemplate import MASTER_PORT

ANCESTOR = "trainer.kubeflow.org/trainjob-ancestor-step"
_NODE = "node"
_INITIALIZERS = frozenset({"dataset-initializer", "model-initializer"})
_OVER_THE_POD = ("serviceAccountName", "nodeSelector", "tolerations", "schedulingGates")


def runtime_of(job: Field) -> tuple[str, str]:
    """Kind and name of the runtime that a TrainJob names."""
    kind = job.text("spec", "runtimeRef", "kind") or "ClusterTrainingRuntime"
    return kind, job.text("spec", "runtimeRef", "name")


def convert(subject: Subject, runtime: Field) -> Workload:
    """The roles of a TrainJob, with its runtime."""
    ledger, job = subject.ledger, subject.spec
    ledger.answers_for(runtime)
    ledger.settle(*(runtime.get(n) for n in ("apiVersion", "kind", "metadata", "status")))
    ledger.changed(
        job.get("runtimeRef") or job,
        f"what runs is that of {runtime.text('kind')} {runtime.text('metadata', 'name')} as it is"
        f" at {runtime.place}; later changes of it are not taken over",
    )
    trainer = job.get("trainer")
    spec = runtime.at("spec", "template", "spec") or runtime
    listed = spec.get("replicatedJobs")
    jobs = [j for j in (listed.items() if listed else ()) if not _initializes(j, subject)]
    jobs = [_overridden(j, job, subject) for j in jobs]
    jobs = [_trained(j, trainer, subject) if _step(j) == "trainer" else j for j in jobs]
    names = [j.text("name") for j in jobs if _step(j) == "trainer"]
    subject = replace(subject, roles=tuple(j.text("name") for j in jobs))
    nodes = _nodes(subject, runtime, trainer)
    whole = spec.having("replicatedJobs", listed.listing(jobs)) if listed else spec
    made = jobset.roles_of(subject, whole, dict.fromkeys(names, nodes) if nodes else {})
    initializer = job.get("initializer")
    if initializer is not None:
        ledger.left(
            initializer, "what an initializer fetches nobody signed",
            "fetch it once, to a claim, in a job of its own; mount the claim as data",
        )  # fmt: skip
    told = _torch(subject, runtime, trainer, made.roles, names)
    labels = (job.get("labels"), runtime.at("spec", "template", "metadata", "labels"))
    return replace(
        made,
        roles=told,
        suspend=job.get("suspend"),
        labels=tuple(field for field in labels if field is not None),
    )


def _step(job: Field) -> str:
    """Which part of a TrainJob a replicated Job is."""
    return job.text("template", "metadata", "labels", ANCESTOR)


def _initializes(job: Field, subject: Subject) -> bool:
    step = _step(job)
    if step in _INITIALIZERS:
        subject.ledger.left(
            job, f"the {step} fetches when the run starts what nobody signed",
            "fetch it once, to a claim, in a job of its own; mount the claim as data",
        )  # fmt: skip
        return True
    subject.ledger.settle(job.at("template", "metadata", "labels", ANCESTOR))
    return False


def _trained(job: Field, trainer: Field | None, subject: Subject) -> Field:
    """The container ``node`` with what the TrainJob says of its trainer."""

    def change(container: Field) -> Field:
        if container.text("name") != _NODE or trainer is None:
            return container
        for name in ("image", "command", "args", "resources"):
            theirs = trainer.get("resourcesPerNode" if name == "resources" else name)
            container = _over(container, name, theirs, subject)
        return _with(container, "env", trainer.get("env"), subject)

    return _in_pod(job, lambda pod: _each(pod, "containers", change))


def _overridden(job: Field, spec: Field, subject: Subject) -> Field:
    """A replicated Job with the TrainJob's overrides of its pods."""
    listed = spec.get("podSpecOverrides")
    for override in listed.items() if listed else ():
        targets = override.get("targetJobs")
        subject.ledger.settle(targets)
        if job.text("name") not in [t.text("name") for t in (targets.items() if targets else ())]:
            continue

        def change(pod: Field, override: Field = override) -> Field:
            for name in _OVER_THE_POD:
                pod = _over(pod, name, override.get(name), subject)
            pod = _with(pod, "volumes", override.get("volumes"), subject)
            for kind in ("initContainers", "containers"):
                pod = _merged_containers(pod, kind, override.get(kind), subject)
            return pod

        job = _in_pod(job, change)
    return job


def _merged_containers(pod: Field, kind: str, over: Field | None, subject: Subject) -> Field:
    given = {c.text("name"): c for c in (over.items() if over else ())}

    def change(container: Field) -> Field:
        mine = given.get(container.text("name"))
        if mine is None:
            return container
        subject.ledger.settle(mine.get("name"))
        container = _with(container, "env", mine.get("env"), subject)
        return _with(container, "volumeMounts", mine.get("volumeMounts"), subject)

    return _each(pod, kind, change)


def _in_pod(job: Field, change: Callable[[Field], Field]) -> Field:
    """A replicated Job with its pod's spec changed."""
    path = ("template", "spec", "template", "spec")
    fields = [job]
    for name in path:
        inner = fields[-1].get(name)
        if inner is None:
            return job
        fields.append(inner)
    changed = change(fields.pop())
    for name, field in zip(reversed(path), reversed(fields), strict=True):
        changed = field.having(name, changed)
    return changed


def _each(field: Field, name: str, change: Callable[[Field], Field]) -> Field:
    listed = field.get(name)
    return (
        field.having(name, listed.listing([change(i) for i in listed.items()])) if listed else field
    )


def _over(field: Field, name: str, theirs: Field | None, subject: Subject) -> Field:
    """With theirs in place of its own, which says nothing any more."""
    if theirs is None:
        return field
    subject.ledger.settle(field.get(name))
    return field.having(name, theirs)


def _with(field: Field, name: str, more: Field | None, subject: Subject) -> Field:
    """A list with others' items beside its own; of one name, theirs."""
    if more is None:
        return field
    mine = field.get(name)
    key = "mountPath" if name == "volumeMounts" else "name"
    items = {i.text(key): i for i in _items(mine)}
    for item in more.items():
        subject.ledger.settle(items.get(item.text(key)))
        items[item.text(key)] = item
    return field.having(name, (mine or more).listing([*items.values()]))


def _items(field: Field | None) -> Iterable[Field]:
    return field.items() if field else ()


def _nodes(subject: Subject, runtime: Field, trainer: Field | None) -> JsonValue:
    """How many nodes train; None where neither says it."""
    ledger = subject.ledger
    policy = runtime.at("spec", "mlPolicy")
    elastic = policy.at("torch", "elasticPolicy") if policy else None
    told = trainer.get("numNodes") if trainer else None
    ledger.settle(told, policy.get("numNodes") if policy else None)
    least, most = (elastic.number(n) if elastic else None for n in ("minNodes", "maxNodes"))
    if told is not None:
        return told.number()
    if elastic and least is not None and most is not None and least < most:
        ledger.settle(elastic.get("minNodes"), elastic.get("maxNodes"))
        ledger.changed(
            elastic,
            f"from {least} to {most} nodes: {most} unless spec.scheduling.replicas says fewer",
            settles=False,
        )  # fmt: skip
        return {"min": least, "max": most}
    return policy.number("numNodes") if policy else None


def _torch(
    subject: Subject,
    runtime: Field,
    trainer: Field | None,
    roles: tuple[SourceRole, ...],
    names: list[str],
) -> tuple[SourceRole, ...]:
    """What the controller tells the nodes of a PyTorch runtime."""
    torch = runtime.at("spec", "mlPolicy", "torch")
    processes = trainer.get("numProcPerNode") if trainer else None
    default = torch.get("numProcPerNode") if torch else None
    if torch is None:
        return roles
    subject.ledger.settle(processes, default)
    if torch.get("elasticPolicy") is None:
        subject.ledger.settle(torch if not [*torch.entries()] else None)
    value = _processes(processes or default, trainer)
    made = []
    for role in roles:
        if role.name not in names:
            made.append(role)
            continue
        size = role.replicas
        nodes = f"{size['min']}:{size['max']}" if isinstance(size, dict) else str(size)
        env: Mapping[str, JsonValue] = {
            "PET_NNODES": nodes,
            "PET_NPROC_PER_NODE": value,
            "PET_NODE_RANK": INDEX,
            "PET_MASTER_ADDR": subject.first_host(role.name),
            "PET_MASTER_PORT": str(MASTER_PORT),
        }
        made.append(replace(role, added=added(env, subject.index_path)))
        subject.ledger.changed(
            torch, f"what the controller tells the nodes stands under env now: {', '.join(env)}",
            settles=False,
        )  # fmt: skip
    return tuple(made)


def _processes(field: Field | None, trainer: Field | None) -> str:
    """Processes on a node: as told, or its processors where it asks for no GPU."""
    value = str(field.content) if field else "auto"
    limits = trainer.at("resourcesPerNode", "limits") if trainer else None
    if (
        value != "auto"
        or limits is None
        or any("gpu" in name.lower() for name, _ in limits.entries())
    ):
        return value
    cpus = str(limits.at("cpu").content) if limits.get("cpu") else ""  # type: ignore[union-attr]
    return cpus if cpus.isdecimal() and cpus != "0" else value
