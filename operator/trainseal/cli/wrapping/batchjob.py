"""A Job of Kubernetes itself: one role, of which all pods run at a time."""

from __future__ import annotations

import re

from trainseal.cli.wrapping.fields import Field
from trainseal.cli.wrapping.ledger import Ledger
from trainseal.cli.wrapping.words import ORDINAL, Rename, whole_word
from trainseal.cli.wrapping.workload import INDEX, SourceRole, Subject, Workload

ROLE = "worker"
INDEX_KEY = "batch.kubernetes.io/job-completion-index"
_RETRIES = "TrainSeal lets each worker fail three times, and one that fails more ends the run"
#: What says how a Job retries, which TrainSeal decides itself.
_RETRYING = frozenset(
    {
        "backoffLimit", "backoffLimitPerIndex", "maxFailedIndexes", "podFailurePolicy",
        "podReplacementPolicy",
    }
)  # fmt: skip
#: What the cluster writes itself.
_CLUSTERS = frozenset({"selector", "manualSelector"})
_LEFT = {
    "activeDeadlineSeconds": (
        "a run has no time limit of its own",
        "let the trainer end itself; validity.notAfter bounds when a run may start",
    ),
    "ttlSecondsAfterFinished": (
        "a TrainingJob that has ended stays",
        "delete it when it is no longer wanted: its seal stays",
    ),
    "successPolicy": (
        "a run has succeeded when all its workers have",
        "let the other workers end when the trainer is done",
    ),
    "managedBy": ("TrainSeal makes the Job itself", "for a queue, use spec.scheduling.queueName"),
}


def convert(subject: Subject) -> Workload:
    """The one role of a Job."""
    spec, ledger = subject.spec, subject.ledger
    job_fields(spec, ledger, indexed=False)
    size = pods_of(spec, ledger)
    template = spec.get("template") or spec
    subdomain = template.text("spec", "subdomain")
    hosts: tuple[Rename, ...] = ()
    if subdomain:
        pods = rf"{re.escape(subject.root.text('metadata', 'name'))}-{ORDINAL}"
        pattern = whole_word(rf"{pods}\.{re.escape(subdomain)}{subject.in_namespace()}")

        def new(match: re.Match[str]) -> str | None:
            return subject.host(ROLE, int(match[1])) if int(match[1]) < size else None

        hosts = (Rename(pattern, new),)
    facts = {INDEX_KEY: INDEX}
    return Workload((SourceRole(ROLE, size, template, facts=facts),), hosts, spec.get("suspend"))


def job_fields(spec: Field, ledger: Ledger, *, indexed: bool) -> None:
    """What a Job's spec says beside its pods and their number."""
    for name, field in spec.entries():
        if name in _RETRYING:
            ledger.changed(field, _RETRIES)
        elif name in _CLUSTERS:
            ledger.settle(field)
        elif name == "completionMode":
            if field.content == "Indexed" or indexed:
                ledger.settle(field)
            else:
                ledger.changed(field, "the pods have an index now, which they need not read")
        elif name in _LEFT:
            ledger.left(field, *_LEFT[name])


def pods_of(spec: Field, ledger: Ledger) -> int:
    """How many pods run at a time."""
    parallelism, completions = spec.get("parallelism"), spec.get("completions")
    ledger.settle(parallelism, completions)
    at_a_time = spec.number("parallelism") if parallelism else 1
    wanted = spec.number("completions") if completions else at_a_time
    if completions is not None and wanted != at_a_time:
        ledger.guessed(
            completions, f"{wanted} pods in all, {at_a_time} at a time: all run at a time now",
            "correct replicas; a run is one training, not a queue of tasks", None,
        )  # fmt: skip
    if wanted is not None and wanted < 1:
        ledger.guessed(
            completions or parallelism or spec, f"{wanted} pods: it is one now",
            "a job that is to wait has spec.suspend: true",
        )  # fmt: skip
    return max(1, wanted or 1)
