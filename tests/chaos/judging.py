"""What must hold in the end, of what the API and the node tell. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos.containers import Started
from tests.chaos.schedule import Submission

Object = dict[str, Any]
#: The container that trains, in a job's pods.
TRAINER = "trainer"
_INDEX = "batch.kubernetes.io/job-completion-index"


@dataclass(frozen=True, slots=True)
class Seen:
    """In the end: jobs by name, all seals and pods of the namespace, what started on the node."""

    jobs: Mapping[str, Object]
    seals: Sequence[Object]
    pods: Sequence[Object]
    started: Sequence[Started]


def failures(submissions: Sequence[Submission], admitted: Sequence[str], seen: Seen) -> list[str]:
    """What is not as it must be, in words; ``admitted`` are names of what the API server took."""
    found = [
        f"container {one.id} started and was gone before it could be asked about"
        for one in seen.started
        if not one.namespace
    ]
    for submission in submissions:
        judge = _of_bad if submission.bad else _of_good
        found += judge(submission, admitted, seen)
    return found


def _of_bad(submission: Submission, admitted: Sequence[str], seen: Seen) -> Iterator[str]:
    who = f"{submission.name} ({submission.bad})"
    if submission.name in admitted:
        yield f"{who} was admitted"
    for one in seen.started:
        if one.pod == submission.name or one.pod.startswith(f"{submission.name}-"):
            yield f"{who}: container {one.container or 'sandbox'} of {one.pod} started"


def _of_good(submission: Submission, admitted: Sequence[str], seen: Seen) -> Iterator[str]:
    name = submission.name
    if name not in admitted:
        yield f"{name} was refused"
        return
    job = seen.jobs.get(name)
    if job is None:
        yield f"{name} is lost: it was admitted, and is not there"
        return
    if (phase := job.get("status", {}).get("phase")) != "Succeeded":
        yield f"{name} is {phase or 'without a phase'}, expected Succeeded"
    uid = job["metadata"]["uid"]
    seals = sum(s["spec"]["job"]["uid"] == uid for s in seen.seals)
    if seals != 1:
        yield f"{name} has {seals} seals, expected 1"
    wanted = {str(index): 1 for index in range(submission.workers)}
    succeeded = Counter(
        pod["metadata"]["annotations"].get(_INDEX, "")
        for pod in seen.pods
        if pod["metadata"].get("labels", {}).get("trainseal.dev/job") == name
        and pod["status"].get("phase") == "Succeeded"
    )
    if succeeded != wanted:
        yield f"{name}: pods succeeded by index {dict(succeeded)}, expected {wanted}"
    trained = Counter(
        match[1]
        for one in seen.started
        if one.container == TRAINER and (match := re.match(rf"{name}-worker-(\d+)-", one.pod))
    )
    if trained != wanted:
        yield f"{name}: trainers started on the node by index {dict(trained)}, expected {wanted}"
