"""A schedule carried out: each target is disturbed in its own thread, beside the submissions.

Whoever submits tries again what nobody judged, and counts it; nothing else is tried again.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import aiohttp

from bench.load import ApiClient
from tests.chaos.answers import NO_ANSWER, Answer, meaning, reason
from tests.chaos.schedule import TARGETS, Disturbance, Schedule, Submission, Target
from tests.cluster import Cluster, CommandError
from tests.cluster.processes import Process
from tests.e2e.lab import Lab, Object
from tests.stage.ending import Stops, interrupt_api_server, processes_of, send
from tests.stage.reading import collection_path
from tests.stage.release import NAMESPACE

#: Seconds between two tries; until an answer is given up, as kubectl's users do; until what was
#: disturbed must be back.
_AGAIN, _NO_ANSWER, _PATIENCE = 1.0, 30.0, 240.0


@dataclass(slots=True)
class Done:
    """What was carried out, in words with their times; what came of what was submitted."""

    told: list[tuple[float, str]] = field(default_factory=list)
    admitted: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    retried: Counter[str] = field(default_factory=Counter)
    disturbed: Counter[str] = field(default_factory=Counter)

    def lines(self, began: float) -> list[str]:
        """In the order of time, seconds after the beginning first."""
        return [f"{at - began:7.1f} s  {words}" for at, words in sorted(self.told)]


class Storm:
    """Made while nothing is disturbed. ``objects`` are what is submitted, by name."""

    def __init__(self, cluster: Cluster, lab: Lab, schedule: Schedule, objects: dict[str, Object]):
        self._cluster = cluster
        self._lab = lab
        self._schedule = schedule
        self._objects = objects
        self._over = threading.Event()
        self._stops = Stops(self._over.wait)
        self.began = 0.0
        self.done = Done()

    def run(self) -> None:
        """Carries it all out; raises what went wrong. Nothing is stopped or away after it."""
        self.began = time.monotonic()
        with ExitStack() as stack:
            stack.callback(self._all_back)
            threads = stack.enter_context(ThreadPoolExecutor(len(TARGETS), "chaos"))
            # Whatever ends the storm, nobody waits for the rest of the schedule.
            stack.callback(self._over.set)
            parts = [threads.submit(self._disturb_all, target) for target in TARGETS]
            asyncio.run(self._submit_all())
            for part in parts:
                part.result()

    def _all_back(self) -> None:
        self._stops.end()
        self._cluster.start_api_server()
        self._cluster.start_registry()

    def _say(self, words: str) -> None:
        self.done.told.append((time.monotonic(), words))

    # Submitting ---------------------------------------------------------------------------------

    async def _submit_all(self) -> None:
        async with ApiClient(self._lab.editor) as client, asyncio.TaskGroup() as group:
            for submission in self._schedule.submissions:
                group.create_task(self._submit(client, submission))

    async def _submit(self, client: ApiClient, submission: Submission) -> None:
        await asyncio.sleep(max(0.0, self.began + submission.at - time.monotonic()))
        obj = self._objects[submission.name]
        path, body = collection_path(obj), json.dumps(obj).encode()
        end = time.monotonic() + _PATIENCE
        while True:
            status, text = await _asked(client, path, body)
            match meaning(status, text):
                case Answer.MADE:
                    self.done.admitted.append(submission.name)
                    self._say(f"{submission.name} was admitted")
                    return
                case Answer.REFUSED:
                    self.done.refused[submission.name] = text
                    self._say(f"{submission.name} was refused")
                    return
                case Answer.AGAIN:
                    assert time.monotonic() < end, f"{submission.name}: still {status} {text}"
                    self.done.retried[reason(status, text)] += 1
                    await asyncio.sleep(_AGAIN)

    # Disturbing ---------------------------------------------------------------------------------

    def _disturb_all(self, target: Target) -> None:
        for disturbance in self._schedule.of(target):
            if self._over.wait(max(0.0, self.began + disturbance.at - time.monotonic())):
                return
            self._disturb(disturbance)

    def _disturb(self, disturbance: Disturbance) -> None:
        self._say(str(disturbance))
        target, how = disturbance.target, disturbance.how
        self.done.disturbed[f"{target} {how}"] += 1
        match target:
            case "registry":
                self._cluster.stop_registry()
                self._over.wait(disturbance.seconds)
                self._cluster.start_registry()
            case "API server" if how != "stopped":
                interrupt_api_server(
                    self._cluster,
                    self._over.wait,
                    politely=how == "restarted",
                    away=disturbance.seconds,
                )
            case "API server":
                self._stops.stop([self._cluster.api_server()], disturbance.seconds)
            case _:
                self._disturb_ours(target, disturbance)
        if disturbance.seconds:
            self._say(f"{target} goes on")

    def _disturb_ours(self, target: Target, disturbance: Disturbance) -> None:
        if disturbance.how == "restarted":
            selector = f"app.kubernetes.io/component={target}"
            words = ("delete", "pods", "-n", NAMESPACE, "-l", selector, "--wait=false")
            self._answered(lambda: self._lab.admin(*words, seconds=30))
            return
        found = self._present(target)
        if disturbance.how == "stopped":
            self._stops.stop(found, disturbance.seconds)
            return
        for process in found[:1] if disturbance.how == "one killed" else found:
            send(process, signal.SIGKILL)

    def _present(self, target: Target) -> Sequence[Process]:
        """Waited for where it is on its way back. Nothing there to disturb is said, and no error:
        a kubelet waits before it starts again what was killed a moment ago.
        """
        end = time.monotonic() + _PATIENCE / 8
        while not self._over.is_set() and time.monotonic() < end:
            if found := processes_of(self._cluster, target):
                return found
            self._over.wait(_AGAIN)
        self._say(f"no {target} was there")
        return ()

    def _answered(self, ask: Callable[[], str]) -> None:
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                ask()
            except (CommandError, subprocess.TimeoutExpired):
                if time.monotonic() > end or self._over.wait(_AGAIN):
                    raise
            else:
                return


async def _asked(client: ApiClient, path: str, body: bytes) -> tuple[int, str]:
    """Status and text of one creation; NO_ANSWER and why where none came."""
    try:
        async with asyncio.timeout(_NO_ANSWER):
            status, answer = await client.post(path, body, {})
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return NO_ANSWER, repr(error)
    return status, answer.decode(errors="replace")
