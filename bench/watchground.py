"""What the bench of the watch stands on: a full cluster, a node with eight sealed pods, its agent.

The pods are told what to do over sockets that the node reaches through ``/proc/PID/root``, the
findings are seen by a watch of the API, and the agent's process is the node's own.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import watchedworker as worker
from bench.barejob import Object
from bench.processes import cpu_of, memory_of
from tests.cluster import Cluster, CommandError
from tests.images import build_operator_image, build_training_image
from tests.stage.jobs import short_job
from tests.stage.people import with_cosign_key, with_openssl_key
from tests.stage.policies import policy
from tests.stage.release import install
from tests.stage.signing import push_tree, sign_image, signed, write_tree
from trainseal.agent.cgroups import containers_in, hierarchy, pod_parents, pod_uid_of, processes_in
from trainseal.agent.freezer import Freezer
from trainseal.api.model import API_VERSION
from trainseal.cluster.api import Kube, KubeError, connect, path_of

CLUSTER, TEAM, JOB = "benchwatch", "research", "watched"
AGENTS = "trainseal-agent"
PODS = 8
#: Where what is written is excepted, as a compiler's cache would be.
CACHE = "/var/cache/bench"
_SECONDS = 180.0
_NUMBER = struct.Struct("<q")


@dataclass(slots=True)
class Pod:
    """A sealed pod that obeys; ``group`` is its container's control group."""

    name: str
    pid: int
    group: Path
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def tell(self, do: str, **order: Any) -> Any:  # the orders' answers differ
        """Gives an order and returns the answer."""
        await self.send(do, **order)
        return await self.answer()

    async def send(self, do: str, **order: Any) -> None:
        """Gives an order."""
        self.writer.write(json.dumps({"do": do, **order}).encode() + b"\n")
        await self.writer.drain()

    async def answer(self) -> Any:
        """The answer to the last order."""
        line = await self.reader.readline()
        if not line:
            raise RuntimeError(f"the program in pod {self.name} has ended: look at its log")
        return json.loads(line)

    def slate(self, place: int) -> int:
        """A number of the slate: it can be read while the pod stands still."""
        with self._slate.open("rb") as file:
            file.seek(place)
            return int(_NUMBER.unpack(file.read(8))[0])

    def enough(self) -> None:
        """Lets the counting end."""
        with self._slate.open("r+b") as file:
            file.seek(worker.ENOUGH)
            file.write(_NUMBER.pack(1))

    @property
    def frozen(self) -> bool:
        """What the kernel says of its control group."""
        return Freezer().state(self.group) == "frozen"

    def thaw(self) -> None:
        """By the control group itself: the agent and the operator are not asked."""
        Freezer().thaw(self.group)

    @property
    def _slate(self) -> Path:
        return _folder(self.pid) / worker.SLATE


class Agent:
    """The agent's process on the node; it is looked up anew where it was replaced."""

    def __init__(self, node: str) -> None:
        self._words = (b"agent", f"--node={node}".encode())

    @property
    def pid(self) -> int:
        """Raises RuntimeError where there is none."""
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with suppress(OSError):
                    words = (folder / "cmdline").read_bytes().split(b"\0")
                    if all(word in words for word in self._words):
                        return int(folder.name)
        raise RuntimeError("found no process of the agent, expected one on the node")

    def cpu(self) -> float:
        """CPU seconds so far."""
        return cpu_of(self.pid)

    def memory(self) -> float:
        """Resident MiB."""
        return memory_of(self.pid)

    def stop(self) -> None:
        """It stands still; its marks stay."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """It runs again, where it is there."""
        with suppress(RuntimeError):
            os.kill(self.pid, signal.SIGCONT)


class Findings:
    """When each finding was first seen in the API, by pod and path, as a watch tells it."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], int] = {}
        self._named: set[tuple[str, str]] = set()
        self.ids: set[str] = set()
        self._news = asyncio.Event()

    async def follow(self, kube: Kube) -> None:
        """Until cancelled."""
        path = path_of(API_VERSION, "driftreports", TEAM)
        while True:
            listed: Any = await kube.get(path)
            for report in listed["items"]:
                self._take(report, time.monotonic_ns())
            with suppress(KubeError):
                version = listed["metadata"]["resourceVersion"]
                async for _, report in kube.watch(path, version, {}):
                    self._take(report, time.monotonic_ns())

    def _take(self, report: Any, now: int) -> None:
        pod = (report.get("spec", {}).get("pod") or {}).get("name", "")
        for finding in report.get("status", {}).get("findings") or ():
            self.ids.add(finding["id"])
            what = pod, finding.get("path", "")
            self._seen.setdefault(what, now)
            if finding.get("processes"):
                self._named.add(what)
        self._news.set()

    def names_a_process(self, pod: Pod, path: str) -> bool:
        """Whether it was seen as it happened, and not by a later walk."""
        return (pod.name, path) in self._named

    async def when(self, pod: Pod, path: str, seconds: float) -> int | None:
        """When it was seen, in nanoseconds of CLOCK_MONOTONIC; None where it was not in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (pod.name, path) not in self._seen:
                    self._news.clear()
                    await self._news.wait()
        return self._seen.get((pod.name, path))


@dataclass(frozen=True, slots=True)
class Ground:
    """Everything that is measured on."""

    cluster: Cluster
    kube: Kube
    pods: tuple[Pod, ...]
    agent: Agent
    findings: Findings

    def respond(self, response: str) -> None:
        """What the policy answers critical findings with, from now on."""
        drift = {"responses": {"critical": response}, "freeze": {"maxDurationSeconds": 3600}}
        patch = json.dumps({"spec": {"drift": drift}})
        self.cluster.kubectl("patch", "provenancepolicy", TEAM, "--type=merge", "-p", patch)

    async def without_agent(self) -> None:
        """Takes the agent and all its marks off the node."""
        patch = {"spec": {"template": {"spec": {"nodeSelector": {"bench": "none"}}}}}
        await asyncio.to_thread(
            self.cluster.kubectl,
            *("patch", "daemonset", AGENTS, "-n", AGENTS, "--type=merge", "-p", json.dumps(patch)),
        )
        await _until(lambda: not _there(self.agent), "the agent has left the node")


@asynccontextmanager
async def ground(cluster: Cluster, folder: Path) -> AsyncIterator[Ground]:
    """Installs TrainSeal and starts the pods; they are watched and idle from then on."""
    await asyncio.to_thread(_prepare, cluster, folder)
    async with connect(str(cluster.kubeconfig)) as kube:
        findings = Findings()
        following = asyncio.ensure_future(findings.follow(kube))
        pods = await _pods(kube)
        try:
            await _until_watched(kube)
            yield Ground(cluster, kube, tuple(pods), Agent(await _node(kube)), findings)
        finally:
            following.cancel()
            for pod in pods:
                pod.writer.close()


def _prepare(cluster: Cluster, folder: Path) -> None:
    operator = cluster.push_image(build_operator_image(), "trainseal")
    image = cluster.push_image(build_training_image(), f"{TEAM}/pytorch")
    install(cluster, operator, [cluster.registry])
    cluster.kubectl("create", "namespace", TEAM)
    alice = with_openssl_key(folder, "alice")
    platform = with_cosign_key(cluster, folder, "platform")
    rules = policy(
        TEAM, TEAM, signers=[alice], image_signers=[platform], registries=[cluster.registry]
    )
    rules["spec"]["drift"] = {
        "exceptions": [
            {
                "name": "cache",
                "reason": "stands for a compiler's cache",
                "findings": ["file.created", "file.changed"],
                "paths": [f"{CACHE}/**"],
            }
        ]
    }
    cluster.kubectl("apply", "-f", "-", input=json.dumps(rules))
    sign_image(cluster, image, platform)
    tree = write_tree(folder / "tree", {"worker.py": Path(worker.__file__).read_text()})
    code = push_tree(cluster.registry, tree, f"{TEAM}/watched", alice)
    _create(cluster, signed(_job(image, code), alice))


def _job(image: str, code: str) -> Object:
    job = short_job(JOB, TEAM, image, code, "worker.py")
    (role,) = job["spec"]["roles"]
    role["replicas"] = PODS
    (container,) = role["template"]["spec"]["containers"]
    container["env"].append({"name": "PYTHONDONTWRITEBYTECODE", "value": "1"})
    return job


def _create(cluster: Cluster, job: Object) -> None:
    """The webhook has the policy by watch, a moment later."""
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            cluster.kubectl("create", "-f", "-", input=json.dumps(job))
            return
        except CommandError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


async def _pods(kube: Kube) -> list[Pod]:
    """All pods, connected."""
    deadline = time.monotonic() + _SECONDS
    found: dict[str, Pod] = {}
    while len(found) < PODS:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{len(found)} of {PODS} pods came up within {_SECONDS:.0f} s")
        listed: Any = await kube.get(path_of("v1", "pods", TEAM))
        groups = _groups()
        for item in listed["items"]:
            name, group = item["metadata"]["name"], groups.get(item["metadata"]["uid"])
            if name not in found and group is not None:
                with suppress(OSError):
                    if (pod := await _connected(name, group)) is not None:
                        found[name] = pod
        await asyncio.sleep(0.5)
    return [found[name] for name in sorted(found)]


def _groups() -> dict[str, Path]:
    """Pods' control groups by UID."""
    return {
        uid: folder
        for parent in pod_parents(hierarchy(Path("/sys/fs/cgroup")))
        for folder in parent.iterdir()
        if (uid := pod_uid_of(folder.name)) is not None
    }


async def _connected(name: str, pod: Path) -> Pod | None:
    """None while it has not started; OSError while it does not listen."""
    for pid, group in _first_processes(pod):
        path = _folder(pid) / worker.SOCKET
        reader, writer = await asyncio.open_unix_connection(path, limit=2**26)
        return Pod(name, pid, group, reader, writer)
    return None


def _first_processes(pod: Path) -> Iterator[tuple[int, Path]]:
    """Those that obey, with their control groups."""
    for group in containers_in(pod).values():
        for pid in processes_in(group)[:1]:
            if b"/workspace/worker.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                yield pid, group


def _folder(pid: int) -> Path:
    return Path(f"/proc/{pid}/root{worker.FOLDER}")


async def _until_watched(kube: Kube) -> None:
    """Until the agent's Lease says that it watches all of them."""
    path = path_of("coordination.k8s.io/v1", "leases", "trainseal-system")

    async def watched() -> int:
        listed: Any = await kube.get(path)
        notes = [lease["metadata"].get("annotations") or {} for lease in listed["items"]]
        sees = [json.loads(n["trainseal.dev/sees"]) for n in notes if "trainseal.dev/sees" in n]
        return sum(int(s.get("containers", 0)) for s in sees)

    deadline = time.monotonic() + _SECONDS
    while (number := await watched()) < PODS:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the agent watches {number} containers, expected {PODS}")
        await asyncio.sleep(0.5)


async def _node(kube: Kube) -> str:
    listed: Any = await kube.get(path_of("v1", "nodes"))
    name: str = listed["items"][0]["metadata"]["name"]
    return name


def _there(agent: Agent) -> bool:
    try:
        return agent.pid > 0
    except RuntimeError:
        return False


async def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {_SECONDS:.0f} s: {what}")
        await asyncio.sleep(0.1)
