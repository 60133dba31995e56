"""A schedule carried out on a cluster: each target is disturbed beside the acts, in its own thread.

Whoever acts, or asks the API server for a disturbance, waits until it answers; so what the schedule
has at one time may be done later. What was done, and when, is kept.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.attacks.scene import AGENTS, TORCH, Scene, agent_process
from tests.attacks.schedule import TARGETS, Act, Disturbance, Schedule, Target
from tests.cluster import Cluster, CommandError
from tests.cluster.processes import Process
from tests.stage.ending import (
    Stops,
    commands,
    interrupt_api_server,
    processes_of,
    send,
)
from tests.stage.release import NAMESPACE

PACKAGES = "/usr/lib/python3/dist-packages"
MARK = "# mallory"
#: Each is made by the controller, and made anew where it is gone.
OBJECTS = ("ConfigMap", "NetworkPolicy", "Service")
_AGAIN = 1.0
#: Until an API server or a process that was disturbed must be back; seconds.
_PATIENCE = 180.0


@dataclass(frozen=True, slots=True)
class Expected:
    """The one finding of an act: on a path, or on an object by its kind and name."""

    id: str
    path: str = ""
    object: str = ""


@dataclass(slots=True)
class Done:
    """What was carried out: acts with their times of the wall clock, and all of it in words."""

    acts: dict[Act, float] = field(default_factory=dict)
    told: list[tuple[float, str]] = field(default_factory=list)

    def lines(self, began: float) -> list[str]:
        """In the order of time, seconds after the beginning first."""
        return [f"{at - began:7.1f} s  {words}" for at, words in sorted(self.told)]


class AtRandom:
    """Acts on one training by a schedule. Made while nothing is disturbed: it looks around."""

    def __init__(self, cluster: Cluster, scene: Scene, schedule: Schedule) -> None:
        self._cluster = cluster
        self._scene = scene
        self.schedule = schedule
        self._node = scene.pod["spec"]["nodeName"]
        self._root = Path(f"/proc/{scene.first_process()}/root")
        found = scene.says(f"find {TORCH} -name '*.py' -size +1")
        self._files = sorted(found.split())
        edits = sum(act.kind == "edit" for act in schedule.acts)
        assert len(self._files) >= edits, f"found {len(self._files)} files, expected {edits}"
        self._objects = {kind: self._named(kind) for kind in OBJECTS}
        self._over = threading.Event()
        self._first: BaseException | None = None
        self._stops = Stops(self._over.wait)
        self.began = 0.0
        self.done = Done()

    def _named(self, kind: str) -> str:
        job = self._scene.job["metadata"]["name"]
        words = ("get", kind.lower(), "-l", f"trainseal.dev/job={job}", "-o", "name")
        (found,) = self._scene.lab.kubectl(*words).split()
        return found.rpartition("/")[2]

    def expected(self, act: Act) -> Expected:
        """What must be found of it."""
        match act.kind:
            case "edit":
                return Expected("file.changed", path=self._files[act.number])
            case "hook":
                return Expected("import.changed", path=f"{PACKAGES}/random{act.number}.pth")
            case "program":
                return Expected("exec.foreign", path=f"/tmp/random-{act.number}")
            case "object":
                kind = OBJECTS[act.number]
                return Expected("object.deleted", object=f"{kind} {self._objects[kind]}")

    def run(self) -> None:
        """Carries it all out; raises what went wrong first. Nothing is stopped or away after it."""
        self.began = time.time()
        try:
            with ThreadPoolExecutor(1 + len(TARGETS), "random") as threads:
                parts = [threads.submit(self._ending_all, self._act_all)]
                parts += [threads.submit(self._ending_all, self._disturb_all, t) for t in TARGETS]
            if self._first is not None:
                raise self._first
            for part in parts:
                part.result()
        finally:
            self._stops.end()
            self._cluster.start_api_server()

    def _ending_all(self, part: Callable[..., None], *args: Target) -> None:
        try:
            part(*args)
        except BaseException as error:
            self._first = self._first or error
            self._over.set()
            raise

    def _until(self, at: float) -> bool:
        """Waits for a time of the schedule; False where it is over before."""
        return not self._over.wait(max(0.0, self.began + at - time.time()))

    def _say(self, words: str) -> None:
        self.done.told.append((time.time(), words))

    # Acts ---------------------------------------------------------------------------------------

    def _act_all(self) -> None:
        for act in self.schedule.acts:
            if not self._until(act.at):
                return
            began = time.time()
            self._do(act)
            self.done.acts[act] = began
            self._say(f"{act}: {self.expected(act).path or self.expected(act).object}")

    def _do(self, act: Act) -> None:
        """What failed on its way may have been done: each act is one however often it is tried."""
        wanted = self.expected(act)
        text = "import os" if act.kind == "hook" else MARK
        if act.by == "node":
            with (self._root / wanted.path.lstrip("/")).open("a") as file:
                file.write(f"{text}\n")
            return
        match act.kind:
            case "program":
                script = (
                    f"grep -qsz '^{wanted.path}$' /proc/[0-9]*/cmdline || {{ "
                    f"cp /bin/sleep {wanted.path}; "
                    f"{wanted.path} 3600 < /dev/null > /dev/null 2>&1 & }}"
                )
            case "object":
                kind, name = wanted.object.split()
                words = ("delete", kind.lower(), name, "--ignore-not-found", "--wait=false")
                uid = self._uid(kind, name)
                while self._uid(kind, name) == uid:
                    self._answered(lambda: self._scene.lab.kubectl(*words))
                return
            case _:
                line = f"echo '{text}' >> {wanted.path}"
                script = f"grep -qs '^{text}$' {wanted.path} || {line}"
        self._answered(lambda: self._scene.says(script, 30))

    def _uid(self, kind: str, name: str) -> str:
        words = ("get", kind.lower(), name, "--ignore-not-found", "-o", "jsonpath={.metadata.uid}")
        return self._answered(lambda: self._scene.lab.kubectl(*words))

    def _answered(self, ask: Callable[[], str]) -> str:
        """The answer, once the API server gives one."""
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                return ask()
            except (CommandError, subprocess.TimeoutExpired):
                if time.monotonic() > end or self._over.wait(_AGAIN):
                    raise

    def without_a_trace(self) -> list[Act]:
        """Acts that left nothing, as root on the node sees it: none, if all were carried out."""
        missing = []
        running = commands()
        for act in self.schedule.acts:
            wanted = self.expected(act)
            match act.kind:
                case "program":
                    there = any(c and c[0] == wanted.path.encode() for _, c in running)
                case "object":
                    there = act in self.done.acts
                case _:
                    file = self._root / wanted.path.lstrip("/")
                    text = "import os" if act.kind == "hook" else MARK
                    there = file.exists() and file.read_text().endswith(f"{text}\n")
            if not there:
                missing.append(act)
        return missing

    # Disturbances -------------------------------------------------------------------------------

    def _disturb_all(self, target: Target) -> None:
        for disturbance in self.schedule.of(target):
            if not self._until(disturbance.at):
                return
            self._disturb(disturbance)

    def _disturb(self, disturbance: Disturbance) -> None:
        self._say(str(disturbance))
        match disturbance.target, disturbance.how:
            case target, "stopped":
                self._stops.stop(self._processes(target), disturbance.seconds)
            case "API server", how:
                interrupt_api_server(
                    self._cluster,
                    self._over.wait,
                    politely=how == "restarted",
                    away=disturbance.seconds,
                )
            case "agent", "restarted":
                self._delete_pods("--all", "-n", AGENTS)
            case "controller", "restarted":
                self._delete_pods("-n", NAMESPACE, "-l", "app.kubernetes.io/component=controller")
            case target, _:
                for process in self._processes(target):
                    send(process, signal.SIGKILL)
        if disturbance.seconds:
            self._say(f"{disturbance.target} goes on")

    def _delete_pods(self, *which: str) -> None:
        words = ("delete", "pods", *which, "--wait=false")
        self._answered(lambda: self._scene.lab.admin(*words))

    def _processes(self, target: Target) -> list[Process]:
        """Those of a target, waited for where it is on its way back; none where it does not come
        within its patience: then there was nothing to disturb, which is said.
        """
        if target == "API server":
            return [self._cluster.api_server()]
        end = time.monotonic() + _PATIENCE / 3
        while not self._over.is_set() and time.monotonic() < end:
            ours = self._agents() if target == "agent" else processes_of(self._cluster, target)
            found = list(ours)
            if found:
                return found
            self._over.wait(_AGAIN)
        self._say(f"no {target} was there")
        return []

    def _agents(self) -> Iterator[Process]:
        with contextlib.suppress(AssertionError):
            if (found := Process.running(agent_process(self._node))) is not None:
                yield found
