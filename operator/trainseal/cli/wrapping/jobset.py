"""A JobSet (jobset.x-k8s.io/v1alpha2): a role for each of its replicated Jobs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from pydantic import JsonValue

from trainseal.cli.wrapping.batchjob import INDEX_KEY, job_fields, pods_of
from trainseal.cli.wrapping.fields import Field
from trainseal.cli.wrapping.words import ORDINAL, Rename, whole_word
from trainseal.cli.wrapping.workload import INDEX, SourceRole, Subject, Workload

_KEYS = "jobset.sigs.k8s.io/"
_LEFT = {
    "successPolicy": (
        "a run has succeeded when all its workers have",
        "let the other workers end when the trainer is done",
    ),
    "startupPolicy": (
        "all workers of a run start at a time",
        "let those wait that need others: by name they are found from the start",
    ),
    "ttlSecondsAfterFinished": (
        "a TrainingJob that has ended stays",
        "delete it when it is no longer wanted: its seal stays",
    ),
    "volumeClaimPolicies": (
        "TrainSeal makes no claims",
        "make the claim, and mount it as data or checkpoints",
    ),
    "managedBy": ("TrainSeal makes the Jobs itself", "for a queue, use spec.scheduling.queueName"),
}
_RETRIES = (
    "TrainSeal starts a worker that failed anew, by itself, three times; the others are not"
    " restarted"
)


def convert(subject: Subject) -> Workload:
    """The roles of a JobSet."""
    return roles_of(subject, subject.spec, {})


def roles_of(subject: Subject, spec: Field, sizes: Mapping[str, JsonValue]) -> Workload:
    """The roles of a JobSet's spec; ``sizes`` are those that are told otherwise, by name."""
    ledger = subject.ledger
    for name, field in spec.entries():
        if name in _LEFT:
            ledger.left(field, *_LEFT[name])
        elif name == "failurePolicy":
            ledger.changed(field, _RETRIES)
        elif name == "network":
            ledger.changed(field, "TrainSeal makes a Service of the job's name, for all its pods")
        elif name == "coordinator":
            ledger.changed(
                field, "the coordinator is the first worker of the first role: MASTER_ADDR"
            )
    subdomain = spec.text("network", "subdomain") or subject.name
    listed = spec.get("replicatedJobs")
    roles, hosts = [], []
    items = [*listed.items()] if listed else []
    subject = replace(subject, roles=tuple(job.text("name") for job in items))
    for job in items:
        role, rename = _role(subject, job, subdomain, sizes)
        roles.append(role)
        hosts.append(rename)
    return Workload(tuple(roles), tuple(hosts), spec.get("suspend"))


def _role(
    subject: Subject, job: Field, subdomain: str, sizes: Mapping[str, JsonValue]
) -> tuple[SourceRole, Rename]:
    ledger, name = subject.ledger, job.text("name")
    spec = job.at("template", "spec") or job
    job_fields(spec, ledger, indexed=True)
    replicas = job.get("replicas")
    times = job.number("replicas") if replicas else 1
    each = pods_of(spec, ledger)
    if replicas is not None and times != 1:
        ledger.guessed(
            replicas, f"{times} Jobs of {each} pods are one role now, with indexes from 0 to"
            f" {(times or 0) * each - 1}", "see whether the trainer counts on the Job's own index",
        )  # fmt: skip
    ledger.settle(job.get("name"), replicas)
    for after in (job.get("dependsOn"),):
        if after is not None:
            ledger.left(
                after, "all workers of a run start at a time",
                "let it wait for the others; what comes before the training is a job of its own",
            )  # fmt: skip
    facts = {
        f"{_KEYS}jobset-name": subject.name,
        f"{_KEYS}replicatedjob-name": name,
        f"{_KEYS}replicatedjob-replicas": str(times),
        f"{_KEYS}global-replicas": str(times),
        INDEX_KEY: INDEX,
    }
    if times == 1:
        facts |= {f"{_KEYS}job-index": "0", f"{_KEYS}job-global-index": "0"}
    size = sizes.get(name, max(1, each * (times if times is not None else 1)))
    return SourceRole(name, size, spec.get("template") or spec, facts=facts), _rename(
        subject, name, each, subdomain
    )


def _rename(subject: Subject, role: str, each: int, subdomain: str) -> Rename:
    """``JOBSET-ROLE-JOB-POD.SUBDOMAIN`` is the pod's name in a JobSet's Service."""
    pods = f"{re.escape(subject.root.text('metadata', 'name'))}-{re.escape(role)}"
    pattern = whole_word(
        rf"{pods}-{ORDINAL}-{ORDINAL}\.{re.escape(subdomain)}{subject.in_namespace()}"
    )

    def new(match: re.Match[str]) -> str | None:
        return subject.host(role, int(match[1]) * each + int(match[2]))

    return Rename(pattern, new)
