"""Every good job runs exactly once and no bad one starts, whoever is killed meanwhile.

Webhook, controller, API server and registry are killed, stopped and restarted by dice while good
and bad jobs are submitted. `--seed NUMBER` disturbs and submits again what a run did that printed
it; `--seconds` says how long.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Sequence

import pytest

from tests.chaos.answers import told
from tests.chaos.containers import Watching
from tests.chaos.judging import Seen, failures
from tests.chaos.schedule import Bad, Schedule, Submission, make
from tests.chaos.storm import Storm
from tests.cluster import Cluster
from tests.e2e.lab import TEAM, Lab, Object
from tests.stage.lifecycle import pod
from tests.stage.signing import signed

#: With what comes before and after, a storm of this length ends within 20 minutes.
_LONGEST = 600.0
#: Seconds after the storm in which all must have ended: a kubelet waits up to five minutes before
#: it starts again what was killed several times.
_IN_THE_END = 330.0


@pytest.fixture(scope="module")
def schedule(request: pytest.FixtureRequest) -> Schedule:
    seed: int | None = request.config.getoption("--seed")
    seconds: float = request.config.getoption("--seconds")
    assert seconds <= _LONGEST, f"found --seconds {seconds:g}, expected at most {_LONGEST:g}"
    return make(secrets.randbelow(2**32) if seed is None else seed, seconds=seconds)


def test_every_good_job_runs_exactly_once_and_no_bad_one_starts_a_container(
    cluster: Cluster, lab: Lab, schedule: Schedule, capsys: pytest.CaptureFixture[str]
) -> None:
    objects = _objects(lab, schedule)
    storm = Storm(cluster, lab, schedule, objects)
    with capsys.disabled():
        print(f"\n--seed {schedule.seed}", flush=True)
    with Watching(cluster) as watching:
        try:
            storm.run()
            _all_ended(lab, storm.done.admitted)
        finally:
            seen = _seen(lab, watching)
            with capsys.disabled():
                print(*_summary(schedule, storm, seen), sep="\n", flush=True)
    wrong = failures(schedule.submissions, storm.done.admitted, seen)
    story = [*storm.done.lines(storm.began), *map(str, storm.done.refused.items())]
    assert not wrong, "\n".join([f"--seed {schedule.seed}", *wrong, *story])


def _objects(lab: Lab, schedule: Schedule) -> dict[str, Object]:
    """All that is submitted, signed before anything is disturbed."""
    unsigned_image = lab.variant_of_image("chaos")
    return {s.name: _object(lab, s, unsigned_image) for s in schedule.submissions}


def _object(lab: Lab, submission: Submission, unsigned_image: str) -> Object:
    job = lab.job(submission.name, "finish.py")
    role = job["spec"]["roles"][0]
    role["replicas"] = submission.workers
    bad: Bad | str = submission.bad
    match bad:
        case "unsigned":
            return job
        case "stranger":
            return signed(job, lab.mallory)
        case "changed":
            found = signed(job, lab.alice)
            found["spec"]["config"]["parameters"]["learning_rate"] = 0.5
            return found
        case "image":
            role["template"]["spec"]["containers"][0]["image"] = unsigned_image
        case "pod" | "forged" | "job":
            return _of_the_editors_own(submission, lab.image)
    return signed(job, lab.alice)


def _of_the_editors_own(submission: Submission, image: str) -> Object:
    """What needs no TrainingJob, if it is let in: it would run at once."""
    made = pod(TEAM, submission.name, gpus=1)
    made["spec"] |= {"restartPolicy": "Never"}
    made["spec"]["containers"][0] |= {"image": image, "command": ["true"]}
    if submission.bad == "forged":
        made["metadata"]["labels"] = {"trainseal.dev/seal": "none"}
    if submission.bad != "job":
        return made
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": made["metadata"],
        "spec": {"template": {"spec": made["spec"]}},
    }


def _jobs(lab: Lab) -> dict[str, Object]:
    return {job["metadata"]["name"]: job for job in lab.listed("trainingjobs")}


def _all_ended(lab: Lab, admitted: Sequence[str]) -> None:
    """Waits until all jobs have; what has not by the end is judged as it is."""
    end = time.monotonic() + _IN_THE_END
    while time.monotonic() < end:
        jobs = _jobs(lab)
        phases = [jobs.get(n, {}).get("status", {}).get("phase") for n in admitted]
        if all(phase in ("Succeeded", "Failed") for phase in phases):
            return
        time.sleep(1)


def _seen(lab: Lab, watching: Watching) -> Seen:
    return Seen(_jobs(lab), lab.listed("sealedruns"), lab.listed("pods"), watching.found())


def _summary(schedule: Schedule, storm: Storm, seen: Seen) -> list[str]:
    """In words; the figures of docs/reference/figures.md are taken from it."""
    done = storm.done
    bad = [s for s in schedule.submissions if s.bad]
    good = [s for s in schedule.submissions if not s.bad]
    phases = Counter(str(job.get("status", {}).get("phase")) for job in seen.jobs.values())
    refused = sum(s.name in done.refused for s in bad)
    started = sum(s.namespace == TEAM and not s.sandbox for s in seen.started)
    ended = time.monotonic() - storm.began
    return [
        f"storm of {schedule.seconds:g} s; all ended {ended:.0f} s after it began",
        f"disturbed: {told(done.disturbed)}",
        f"good jobs: {len(good)}, of {sum(s.workers for s in good)} workers; {told(phases)}",
        f"bad ones: {len(bad)}, refused {refused}; {told(Counter(s.bad for s in bad))}",
        f"tried again: {told(done.retried)}",
        f"containers that started in {TEAM}: {started}",
    ]
