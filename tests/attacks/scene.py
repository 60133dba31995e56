"""A sealed pod under watch, and the ways in which people get at it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.attacks.sightings import Sighting, Sightings
from tests.attacks.training import training
from tests.cluster import CommandError
from tests.e2e.lab import Lab, Object
from tests.stage.jobs import trainer
from tests.stage.signing import signed
from tests.stage.waiting import eventually

TORCH = "/usr/lib/python3/dist-packages/torch"
AGENTS = "trainseal-agent"
_MOUNT = """
import ctypes, os, sys
pid, source, target, act = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
if libc.setns(os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY), 0) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
source, target = source.encode(), target.encode()
mount = act == "mount"
if (libc.mount(source, target, None, 4096, None) if mount else libc.umount2(target, 2)) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
"""
_SERIOUS = ("Warning", "Critical")


@dataclass(slots=True)
class Scene:
    """One training and its one worker. ``code`` is the signed code of all trainings here.

    The job's requester is the administrator, so that the editor is somebody else.
    """

    lab: Lab
    sightings: Sightings
    code: str
    job: Object
    pod: Object

    @property
    def namespace(self) -> str:
        found: str = self.job["metadata"]["namespace"]
        return found

    @property
    def name(self) -> str:
        """The pod's."""
        found: str = self.pod["metadata"]["name"]
        return found

    @property
    def uid(self) -> str:
        """The pod's."""
        found: str = self.pod["metadata"]["uid"]
        return found

    @property
    def seal(self) -> str:
        """Its name."""
        found: str = self.pod["metadata"]["labels"]["trainseal.dev/seal"]
        return found

    # As somebody with the edit role -------------------------------------------------------------

    def sh(self, script: str, seconds: float = 180) -> float:
        """`kubectl exec … sh -c`: when the script began."""
        return float(self.says(f"date +%s.%N; {script}", seconds).split("\n", 1)[0])

    def says(self, script: str, seconds: float = 180) -> str:
        """`kubectl exec … sh -c`: what it printed."""
        target = self.lab.target
        return target.kubectl(
            *self._exec("sh", "-c", script), kubeconfig=self.lab.editor, timeout=seconds
        )

    def py(self, script: str) -> float:
        """`kubectl exec … python3 -c`: when the script began."""
        words = ("python3", "-c", f"import time; print(time.time(), flush=True)\n{script}")
        target = self.lab.target
        said = target.kubectl(*self._exec(*words), kubeconfig=self.lab.editor, timeout=180)
        return float(said.split("\n", 1)[0])

    @contextlib.contextmanager
    def held(self, script: str) -> Iterator[float]:
        """An exec that goes on meanwhile; its first line is when it began."""
        words = self._exec("sh", "-c", f"echo $$; date +%s.%N; {script}")
        with subprocess.Popen(
            [str(self.lab.target.tools.kubectl), *words],
            env=self.lab.target.environment(self.lab.editor),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            try:
                inner, line = process.stdout.readline(), process.stdout.readline()
                if not line:
                    assert process.stderr is not None
                    raise AssertionError(process.stderr.read())
                try:
                    yield float(line)
                finally:
                    with contextlib.suppress(CommandError):
                        self.says(f"kill -KILL {inner}")
            finally:
                process.kill()

    def held_py(self, script: str) -> contextlib.AbstractContextManager[float]:
        """A Python program that goes on meanwhile; it has no single quotes."""
        assert "'" not in script
        return self.held(f"exec python3 -c '{script}'")

    def copy_in(self, text: str, path: str) -> float:
        """`kubectl cp` into the container; when it began."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "file")
            file.write_text(text)
            began = time.time()
            self.lab.kubectl("cp", str(file), f"{self.name}:{path}", "-c", "trainer")
        return began

    def copy_out(self, path: str) -> None:
        """`kubectl cp` out of the container."""
        with tempfile.TemporaryDirectory() as folder:
            self.lab.kubectl("cp", f"{self.name}:{path}", f"{folder}/file", "-c", "trainer")

    def _exec(self, *words: str) -> list[str]:
        return ["-n", self.namespace, "exec", self.name, "-c", "trainer", "--", *words]

    # As root on the node ------------------------------------------------------------------------

    def first_process(self) -> int:
        """The trainer's, by the node's count."""
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            with contextlib.suppress(OSError, StopIteration):
                if self.uid not in (folder / "cgroup").read_text().replace("_", "-"):
                    continue
                status = (folder / "status").read_text()
                inner = next(line for line in status.splitlines() if line.startswith("NSpid"))
                words = (folder / "cmdline").read_bytes()
                if inner.split()[-1] == "1" and b"train.py" in words:
                    return int(folder.name)
        raise AssertionError(f"no trainer of pod {self.name} on this machine")

    def upper(self) -> Path:
        """The upper directory of the overlay that is the container's root."""
        for line in Path(f"/proc/{self.first_process()}/mountinfo").read_text().splitlines():
            words = line.split()
            if words[4] == "/":
                options = dict(o.partition("=")[::2] for o in words[-1].split(","))
                return Path(options["upperdir"])
        raise AssertionError("the trainer's root is no overlay")

    def volume(self, name: str) -> Path:
        """Where the node has a volume of the pod's that lies in memory."""
        ending = f"/pods/{self.uid}/volumes/kubernetes.io~empty-dir/{name}"
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if (folder / "comm").read_text() != "kubelet\n":
                    continue
                for line in (folder / "mountinfo").read_text().splitlines():
                    if (path := line.split()[4]).endswith(ending):
                        return Path(f"{folder}/root{path}")
        raise AssertionError(f"no kubelet on this machine has {ending}")

    def nsenter(self, *words: str) -> float:
        """`nsenter` into the trainer's namespaces; when it began."""
        command = self._nsenter(*words)
        began = time.time()
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        return began

    @contextlib.contextmanager
    def nsenter_held(self, *words: str) -> Iterator[float]:
        """The same, with a program that goes on meanwhile."""
        with subprocess.Popen(self._nsenter(*words), stdout=subprocess.DEVNULL) as process:
            try:
                yield time.time()
            finally:
                # nsenter waits for the program, which is a child of its own.
                for child in (
                    Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                ):
                    os.kill(int(child), signal.SIGKILL)
                process.kill()

    def _nsenter(self, *words: str) -> list[str]:
        process = str(self.first_process())
        return ["nsenter", "-t", process, "-m", "-u", "-i", "-n", "-p", "--", *words]

    @contextlib.contextmanager
    def mounted(self, target: str) -> Iterator[float]:
        """A file of scratch, mounted over another meanwhile; when it was."""
        pid, source = self.first_process(), "/tmp/of-the-node"
        Path(f"/proc/{pid}/root{source}").write_text("# mallory\n")
        act = [sys.executable, "-c", _MOUNT, str(pid), source, target]
        began = time.time()
        subprocess.run([*act, "mount"], check=True, capture_output=True, timeout=60)
        try:
            yield began
        finally:
            subprocess.run([*act, "umount"], check=True, capture_output=True, timeout=60)

    # What is seen -------------------------------------------------------------------------------

    def agent_findings(self) -> list[Sighting]:
        """Of the pod."""
        return self.sightings.of(self.namespace, f"{self.name}-{self.uid[:8]}")

    def findings(self) -> list[Sighting]:
        """Of the pod, and what the controller found on the run."""
        return [*self.agent_findings(), *self.sightings.of(self.namespace, self.seal)]

    def serious(self) -> list[Sighting]:
        """Of Warning or above."""
        return [s for s in self.findings() if s.finding["severity"] in _SERIOUS]

    def records(self) -> list[Object]:
        """The access records on the pod."""
        items = json.loads(self.lab.kubectl("get", "accessrecords", "-o", "json"))["items"]
        return [i["spec"] for i in items if i["spec"].get("pod", {}).get("uid") == self.uid]

    def watched(self) -> bool:
        """Whether the agent says so."""
        report = self.sightings.report(self.namespace, f"{self.name}-{self.uid[:8]}")
        conditions = report.get("status", {}).get("conditions", [])
        return any(c["type"] == "Watching" and c["status"] == "True" for c in conditions)

    def swept(self, times: int = 2) -> None:
        """Returns once a whole sweep, begun after this call, has been over the pod; with one time,
        one that may have begun before.

        An attack that nothing but a sweep sees tells so: a variable of a process, with a value
        of its own each time.
        """
        for _ in range(times):
            mark = f"/tmp/sweep-{time.time_ns()}"
            with self.held(f"PYTHONPATH={mark} exec sleep 120"):
                found = self.sightings.wait(
                    lambda mark=mark: any(  # type: ignore[misc]
                        mark in json.dumps(s.finding) for s in self.agent_findings()
                    ),
                    120,
                )
            assert found, "no sweep within 120 s"

    # The pod ------------------------------------------------------------------------------------

    def renew(self, *, another: bool = False) -> None:
        """Waits for a worker that trains and is watched, and takes it for the pod; ``another``:
        one that has taken the place of the one before.
        """
        before = self.uid if another else ""

        def trains() -> bool:
            for pod in self.lab.pods(self.job):
                statuses = pod["status"].get("containerStatuses", [])
                if "deletionTimestamp" in pod["metadata"] or not statuses:
                    continue
                if pod["metadata"]["uid"] == before:
                    continue
                with contextlib.suppress(CommandError):
                    if statuses[0].get("ready") and "training" in self.lab.admin(
                        "logs", "-n", self.namespace, pod["metadata"]["name"], "-c", "trainer"
                    ):
                        self.pod = pod
                        return True
            return False

        eventually(trains, f"{self.job['metadata']['name']} trains", 300)
        assert self.sightings.wait(self.watched, 60), f"{self.name} is not watched"


def open_scene(
    lab: Lab, sightings: Sightings, code: str, name: str, namespace: str, *, probed: bool = True
) -> Scene:
    """Starts a training as the administrator; `renew` waits for its worker."""
    job = training(lab, name, code, namespace, probed=probed)
    lab.admin("apply", "-f", "-", stdin=job)
    return Scene(lab, sightings, code, job, {})


def open_ranks(lab: Lab, sightings: Sightings, name: str, namespace: str, *, ranks: int) -> Scene:
    """Starts a run of several ranks that wait, without a GPU, as the administrator."""
    job = lab.job(name, "wait.py", namespace)
    job["spec"]["roles"][0]["replicas"] = ranks
    del trainer(job)["resources"]
    signed_job = signed(job, lab.alice)
    lab.admin("apply", "-f", "-", stdin=signed_job)
    return Scene(lab, sightings, lab.code, signed_job, {})


def agent_process(node: str) -> int:
    """The agent's, on this machine."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if b"agent" in words and f"--node={node}".encode() in words:
                    return int(folder.name)
    raise AssertionError(f"no agent of {node} on this machine")


def signal_agent(scene: Scene, number: int) -> None:
    """As root on the node."""
    os.kill(agent_process(scene.pod["spec"]["nodeName"]), number)
