"""A PyTorchJob (kubeflow.org/v1): its master and its workers, and what its controller told them.

Where master and workers are the same pods, they are one role, the master its first: ranks are
what they were. The controller's variables are written out, as seen in training-operator v1.8.1
(pkg/controller.v1/pytorch/envvar.go, elastic.go).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from pydantic import JsonValue

from trainseal.cli.wrapping.fields import Field
from trainseal.cli.wrapping.words import ORDINAL, Rename, whole_word
from trainseal.cli.wrapping.workload import INDEX, SourceRole, Subject, Workload, added
from trainseal.engines.podtemplate import MASTER_PORT

_RETRIES = "TrainSeal lets each worker fail three times, and one that fails more ends the run"
_NO_RETRIES = "a worker that failed ends the run: the operator would start it past its gate"
_CLEANED = "the pods of a run that ended stay until its TrainingJob is deleted"
_POLICY_LEFT = {
    "activeDeadlineSeconds": (
        "a run has no time limit of its own",
        "let the trainer end itself; validity.notAfter bounds when a run may start",
    ),
    "ttlSecondsAfterFinished": (
        "a TrainingJob that has ended stays",
        "delete it when it is no longer wanted: its seal stays",
    ),
    "managedBy": ("TrainSeal makes the pods' Jobs", "use spec.scheduling.queueName"),
}
_LABELS = "training.kubeflow.org/"


def convert(subject: Subject) -> Workload:
    """The roles of a PyTorchJob."""
    spec = subject.spec
    policy = spec.get("runPolicy")
    _run_policy(subject, policy)
    specs = {name: _size(field) for name, field in _replicas(subject)}
    fields = dict(_replicas(subject))
    for name, size in [*specs.items()]:
        if size == 0:
            subject.ledger.changed(fields[name], "no pods of this kind: there is no such role")
            del specs[name]
    elastic = spec.get("elasticPolicy")
    roles = _roles(subject, {n: fields[n] for n in specs}, specs)
    if elastic is not None:
        roles = _elastic(subject, elastic, roles)
    roles = _told(subject, roles, specs, elastic)
    return Workload(
        roles,
        _hosts(subject, roles, specs),
        policy.get("suspend") if policy else None,
        policy.at("schedulingPolicy", "priorityClass") if policy else None,
    )


def _replicas(subject: Subject) -> list[tuple[str, Field]]:
    """Master before the workers."""
    found = subject.spec.get("pytorchReplicaSpecs")
    return sorted(found.entries() if found else (), key=lambda entry: entry[0] != "Master")


def _size(field: Field) -> int:
    size = field.number("replicas")
    return 1 if size is None else size


def _run_policy(subject: Subject, policy: Field | None) -> None:
    retries = _NO_RETRIES if subject.by_the_operator else _RETRIES
    for name, field in policy.entries() if policy else ():
        if name in ("cleanPodPolicy", "backoffLimit"):
            subject.ledger.changed(field, _CLEANED if name == "cleanPodPolicy" else retries)
        elif name in _POLICY_LEFT:
            subject.ledger.left(field, *_POLICY_LEFT[name])
    gang = policy.get("schedulingPolicy") if policy else None
    for name, field in gang.entries() if gang else ():
        if name != "priorityClass":
            subject.ledger.left(
                field, "gang scheduling is a queue's",
                "with Kueue, name the queue in spec.scheduling.queueName",
            )  # fmt: skip


def _roles(
    subject: Subject, fields: Mapping[str, Field], sizes: Mapping[str, int]
) -> tuple[SourceRole, ...]:
    ledger = subject.ledger
    for field in fields.values():
        ledger.settle(field.get("replicas"))
        policy = field.get("restartPolicy")
        if policy is not None and policy.content != "Never" and subject.by_the_operator:
            ledger.changed(policy, f"{policy.content}: {_NO_RETRIES}")
        elif policy is not None and policy.content != "Never":
            ledger.changed(
                policy, f"{policy.content}: TrainSeal starts a worker that failed anew, three"
                " times, in a new pod",
            )  # fmt: skip
        ledger.settle(policy)
    master, worker = fields.get("Master"), fields.get("Worker")
    first, second = (f and f.get("template") for f in (master, worker))
    if master and first and second and worker and first.value == second.value:
        ledger.settle(second)
        ledger.changed(
            worker, "the workers are the same pods as the master: one role, the master its first",
            ("spec", "roles", 0), settles=False,
        )  # fmt: skip
        return (SourceRole("worker", sizes["Master"] + sizes["Worker"], first),)
    return tuple(
        SourceRole(name.lower(), sizes[name], field.get("template") or field)
        for name, field in fields.items()
    )


def _elastic(
    subject: Subject, elastic: Field, roles: tuple[SourceRole, ...]
) -> tuple[SourceRole, ...]:
    """The range of sizes; what else it says is told to the pods by ``_told``."""
    ledger = subject.ledger
    least, most = elastic.number("minReplicas"), elastic.number("maxReplicas")
    ledger.settle(elastic.get("minReplicas"), elastic.get("maxReplicas"))
    metrics = elastic.get("metrics")
    if metrics is not None:
        ledger.left(metrics, "nothing scales a run by metrics", "choose its size when it starts")
    if least is None or most is None or len(roles) != 1:
        return roles
    if least == most:
        return (replace(roles[0], replicas=most),)
    ledger.changed(
        elastic,
        f"from {least} to {most} workers: {most} unless spec.scheduling.replicas says fewer",
        ("spec", "roles", 0, "replicas"), settles=False,
    )  # fmt: skip
    return (replace(roles[0], replicas={"min": least, "max": most}),)


def _told(
    subject: Subject,
    roles: tuple[SourceRole, ...],
    sizes: Mapping[str, int],
    elastic: Field | None,
) -> tuple[SourceRole, ...]:
    """The variables and labels that the controller gives the pods."""
    if not roles:
        return roles
    total = sum(sizes.values())
    processes = subject.spec.get("nprocPerNode")
    env: dict[str, str] = {"PYTHONUNBUFFERED": "1", "PET_NNODES": str(total)}
    if subject.by_the_operator:
        # These the operator tells them, or the engine.
        env = {}
        if len(roles) > 1:
            subject.ledger.left(
                roles[0].template, "PET_NNODES is how many pods the pod's own role has",
                f"tell torchrun --nnodes={total}; or make master and workers the same pods",
                ("spec", "roles"), settles=False,
            )  # fmt: skip
    elif "Master" in sizes:
        env |= {
            "PET_MASTER_ADDR": subject.first_host(roles[0].name),
            "PET_MASTER_PORT": str(MASTER_PORT),
        }
    if processes is not None:
        env["PET_NPROC_PER_NODE"] = str(processes.content)
        if re.fullmatch(r"\d{1,4}", env["PET_NPROC_PER_NODE"]) and "Master" in sizes:
            env["WORLD_SIZE"] = str(total * int(str(processes.content)))
    if elastic is not None:
        env |= _rendezvous(subject, elastic, roles[0].name)
    listed = subject.spec.get("pytorchReplicaSpecs") or subject.spec
    if env:
        subject.ledger.changed(
            processes or elastic or listed,
            f"what the controller tells the pods stands under env now: {', '.join(env)}",
            settles=False,
        )
    subject.ledger.settle(processes)
    told, rank = [], 0
    for role in roles:
        mine: dict[str, JsonValue] = dict(env)
        alone = len(roles) == 1
        if "Master" in sizes and not (alone and subject.by_the_operator):
            mine |= _ranks(subject, role, rank, alone=alone)
        rank += role.replicas if isinstance(role.replicas, int) else 0
        facts = {
            f"{_LABELS}job-name": subject.name,
            f"{_LABELS}replica-type": role.name,
            f"{_LABELS}replica-index": INDEX,
        }
        told.append(replace(role, added=added(mine, subject.index_path), facts=facts))
    return tuple(told)


def _ranks(
    subject: Subject, role: SourceRole, rank: int, *, alone: bool
) -> Mapping[str, JsonValue]:
    if alone:
        return {"PET_NODE_RANK": INDEX}
    if role.replicas == 1:
        return {"RANK": str(rank), "PET_NODE_RANK": str(rank)}
    subject.ledger.left(
        role.template, f"the workers' RANK is their index and {rank} more, which no field can add",
        "make master and workers the same pods; or let the trainer add it to JOB_COMPLETION_INDEX",
        ("spec", "roles"), settles=False,
    )  # fmt: skip
    return {}


def _rendezvous(subject: Subject, elastic: Field, role: str) -> dict[str, str]:
    ledger = subject.ledger
    port = elastic.number("rdzvPort") or MASTER_PORT
    host = elastic.text("rdzvHost")
    if host:
        ledger.guessed(
            elastic.get("rdzvHost") or elastic, f"the rendezvous stays at {host}",
            f"the run's own first worker is {subject.first_host(role)}",
        )  # fmt: skip
    env = {
        "PET_RDZV_ENDPOINT": f"{host or subject.first_host(role)}:{port}",
        "PET_RDZV_BACKEND": elastic.text("rdzvBackend") or "c10d",
    }
    least, most = elastic.number("minReplicas"), elastic.number("maxReplicas")
    if least is not None and most is not None:
        env["PET_NNODES"] = f"{least}:{most}"
    for name, variable in (
        ("maxRestarts", "PET_MAX_RESTARTS"), ("nProcPerNode", "PET_NPROC_PER_NODE"),
        ("rdzvId", "PET_RDZV_ID"),
    ):  # fmt: skip
        field = elastic.get(name)
        if field is not None:
            env[variable] = str(field.content)
    conf = elastic.get("rdzvConf")
    if conf is not None:
        env["PET_RDZV_CONF"] = ",".join(f"{c.text('key')}={c.text('value')}" for c in conf.items())
    if elastic.true("standalone"):
        env["PET_STANDALONE"] = ""
    for name in (
        "rdzvPort", "rdzvBackend", "maxRestarts", "nProcPerNode", "rdzvId", "rdzvConf", "standalone"
    ):  # fmt: skip
        ledger.settle(elastic.get(name))
    return env


def _hosts(
    subject: Subject, roles: tuple[SourceRole, ...], sizes: Mapping[str, int]
) -> tuple[Rename, ...]:
    """``JOB-master-0`` and ``JOB-worker-N`` are Services of the controller's."""
    old = re.escape(subject.root.text("metadata", "name"))
    merged = len(roles) == 1 and "Master" in sizes and "Worker" in sizes

    def new(match: re.Match[str]) -> str | None:
        kind, index = match[1], int(match[2])
        if index == 0 and kind == ("master" if "Master" in sizes else "worker"):
            return subject.first_host(roles[0].name)
        if not merged:
            return subject.host(kind, index)
        return subject.host("worker", index if kind == "master" else index + sizes["Master"])

    pattern = rf"{old}-(master|worker)-{ORDINAL}{subject.in_namespace()}"
    return (Rename(whole_word(pattern), new),)
