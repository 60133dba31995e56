"""What benches tell of their values: a figure that cannot be told would lose a long run."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from bench import atsize, jobs, memory, pods, submit, training, tutorial, watch
from bench.load import Measured
from bench.rig import Rig
from bench.runningpods import run_pod
from bench.section import Section
from bench.watchedworker import FOLDER
from tests.unit import world
from trainseal.provenance.additions import Additions
from trainseal.provenance.podmatch import compare_pod


def rows(section: Section) -> list[list[str]]:
    """Cells of all tables, which must be of one width each."""
    json.dumps(section.values)
    lines = section.markdown.splitlines()
    tables = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in cells] for cells in tables]


def test_pods_are_told_beside_the_yes_only_webhook_with_all_spreads() -> None:
    found = {
        (which, c): [pods.Round(rate, 1000 / rate, cpu) for rate in (90.0 * c, 100.0 * c)]
        for which, cpu in (("none", 0.0), ("yes", 0.5), ("trainseal", 0.6))
        for c in pods.CONCURRENCIES
    }
    told = pods.section(found, [121.0, 122.0], 1000, 4321)
    twenty = rows(told)[3]
    assert twenty[:3] == ["20", "1.00 (1.00 to 1.00)", "0.00 (0.00 to 0.00)"]
    assert twenty[3:] == ["0.60 (0.60 to 0.60)", "0.50 (0.50 to 0.50)"]
    assert ["100", "no webhook", "9500 (9000 to 10000)", "0.11 (0.10 to 0.11)"] in rows(told)
    assert "250 at concurrency 1, 1,000 at concurrency 20" in told.markdown
    assert "122 (121 to 122) MiB" in told.markdown


def test_admissions_at_size_are_told_with_their_99th_percentile_and_the_goals() -> None:
    quick = tuple(n / 1000 for n in range(1, 101))  # 1 to 100 ms
    found = {
        (which, c): [Measured(rate, quick) for rate in (90.0 * c, 100.0 * c)]
        for which in ("none", "yes", "trainseal")
        for c in pods.CONCURRENCIES
    }
    memory_held = {"webhook": [140.0, 141.0], "controller": [230.0, 240.0]}
    first, level = (
        memory.Level(1000, memory_held, {"webhook": 0.0, "controller": share})
        for share in (0.7, 0.2)
    )
    held = atsize.Held(first, level, {"webhook": 150.0, "controller": 260.0})
    told = atsize.section(atsize.Size(1000, 8000), found, [2.0, 3.0, 2.5], held)
    assert "8,000 sealed pods" in told.markdown
    row = ["20", "TrainSeal", "1900 (1800 to 2000)", "1.00 (1.00 to 1.00)"]
    assert [*row, "50.0 (50.0 to 50.0)", "99.0 (99.0 to 99.0)"] in rows(told)
    assert ["controller", "235 (230 to 240)", "260", "300"] in rows(told)
    assert "takes 70 % of a core, and 20 % from then on" in told.markdown
    assert "ready 2.50 (2.00 to 3.00) s after its start (goal: 5)" in told.markdown
    assert told.values["rounds"]["trainseal 1"][0]["seconds"] == list(quick)  # none is left out


def test_jobs_are_told_with_how_many_there_were() -> None:
    found = {
        (which, c): [jobs.Round(jobs.cold_count(1000, c), 100.0, 10.0, 3.0)]
        for which in ("none", "cold", "warm")
        for c in jobs.CONCURRENCIES
    }
    told = rows(jobs.section(found, [100.0], 4000))
    assert told[6][:4] == ["20", "cold: artifacts never seen", "100", "100 (100 to 100)"]
    assert told[2][-1] == ""  # nobody asked the webhook


def test_memory_is_told_at_each_level_and_for_a_run() -> None:
    levels = [
        memory.Level(runs, {"webhook": [100.0 + each], "controller": [100.0, 110.0 + each]}, share)
        for runs, each, share in (
            (0, 0.0, {"webhook": 0.0, "controller": 0.01}),
            (1000, 25.0, {"webhook": 0.0, "controller": 0.4}),
        )
    ]
    told = memory.section(levels, 5.25)
    assert rows(told)[-1] == ["1,000", "125 (125 to 125)", "118 (100 to 135)", "40 %"]
    assert "26 KiB in the webhook" in told.markdown


def test_submits_and_trainings_are_told_beside_what_they_are_compared_with() -> None:
    seconds = {"`kubectl apply` of the signed job": [0.2, 0.3]}
    seconds |= {name: [1.5, 1.7] for name in submit._SUBMITS.values()}
    told = rows(submit.section(seconds, 51_000_000))
    assert told[-1][1:] == ["1.60 (1.50 to 1.70)", "1.35 (1.30 to 1.40)", "5"]

    starts = {name: [training.Start(0.3, 3.0, step)] for name, step in _STEPS.items()}
    assert "1.5 (1.5 to 1.5) s after the bare Job's" in training.section(starts).markdown


_STEPS = {"bare Job": 6.0, "TrainingJob": 7.5}


def test_the_tutorial_is_told_in_seconds() -> None:
    told = rows(tutorial.section([22.0, 19.0, 20.2]))
    assert told[-1][1] == "20.2 (19.0 to 22.0)"


def test_the_watch_is_told_with_what_was_not_found() -> None:
    found: dict[str, Any] = {
        "pods": 8,
        "finding": [100.0, 200.0, None],
        "frozen": [None],
        "frozen_read": [5.0],
        "idle": {"share": [0.005, 0.006], "seconds": 10.0, "memory": [60.0, 61.0]},
        "training": {
            "share": 0.02,
            "trainers": 2,
            "with": [1.0],
            "more": "+0.12 % (-0.3 to +0.5)",
            "alone": {"more": "+0.01 % (-0.4 to +0.4)"},
        },
        "kernel": {w: {str(FOLDER): 2.0, "/tmp": 2.5} for w in ("marks", "none")},
        "flood": {
            "writes": 100_000, "seconds": 60.0, "found": False, "process named": False,
            "milliseconds": None, "share": 0.3, "overflow": False, "memory": 70.0,
        },
    }  # fmt: skip
    told = rows(Section(watch.markdown(found), found))
    assert told[2][1:] == ["100.0", "200.0", "100.0", "200.0", "1000", "2 of 3"]
    assert told[3][1:] == ["", "", "", "", "200", "0 of 1"]
    assert "**not found**, process not named, no event lost" in told[-1][1]


class ApiServer:
    """Stores nothing; what it was sent, it was sent in order."""

    def __init__(self, job: Any) -> None:
        self.job = job
        self.sent: list[tuple[str, Any]] = []

    async def get(self, _: str) -> Any:
        return self.job

    async def create(self, path: str, obj: Any) -> None:
        self.sent.append((path, obj))

    async def patch(self, path: str, obj: Any) -> None:
        self.sent.append((path, obj))

    async def post(self, path: str, body: bytes, _: object) -> tuple[int, bytes]:
        pod = json.loads(body)
        pod["metadata"] |= {"name": "run-0-worker-0-x", "uid": "0123456789"}
        self.sent.append((path, pod))
        return 201, json.dumps(pod).encode()


def run_on(kube: object, client: object) -> None:
    """Has the pod of a sealed Job run."""
    ground = Rig.__new__(Rig)
    object.__setattr__(ground, "kube", kube)
    object.__setattr__(ground, "client", client)
    asyncio.run(run_pod(ground, "run-0-worker", "node-7"))


def test_a_running_pod_shows_as_its_kubelet_and_its_agent_would_show_it() -> None:
    sealed = world.sealed_world()
    server = ApiServer(sealed.live)
    run_on(server, server)
    assert [path.partition("/research/")[2] for path, _ in server.sent] == [
        "pods",
        "pods/run-0-worker-0-x/binding",
        "pods/run-0-worker-0-x/status",
        "driftreports",
        "driftreports/run-0-worker-0-x-01234567/status",
        "jobs/run-0-worker/status",
    ]
    (_, pod), (_, bound), (_, status) = server.sent[:3]
    assert bound["target"]["name"] == "node-7"
    started = [s["name"] for s in status["status"]["containerStatuses"]]
    assert started == [c["name"] for c in pod["spec"]["containers"]]
    found = sealed.index().find(sealed.live["metadata"]["uid"])
    assert found is not None
    assert compare_pod(found.expected, pod, Additions()) == ()


def test_a_pod_that_the_webhook_refuses_ends_the_bench_with_its_words() -> None:
    class Refusing:
        async def post(self, *_: object) -> tuple[int, bytes]:
            return 403, b"is not what SealedRun says"

    server = ApiServer(world.sealed_world().live)
    with pytest.raises(RuntimeError, match="is not what SealedRun says"):
        run_on(server, Refusing())
    assert server.sent == []
