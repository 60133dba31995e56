"""The chart's release on a cluster, for tests that install it themselves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.cluster import CommandError, Target
from tests.stage.release import CHART, NAMESPACE

TEAM = "chart-team"
#: What the webhook says of a pod, what the API server says where it cannot ask, and what the floor.
JUDGED = "denied the request"
NOT_ASKED = "failed calling webhook"
FLOOR = "ValidatingAdmissionPolicy 'trainseal-pods'"
JOB_CONTROLLER = "--as=system:serviceaccount:kube-system:job-controller"

Object = dict[str, Any]


@dataclass(frozen=True)
class Release:
    """The chart's release on a cluster."""

    target: Target
    image: str

    def helm(self, *args: str) -> str:
        """Helm's standard output."""
        return self.target.helm(*args, "--namespace", NAMESPACE, timeout=400)

    def put(self, verb: str, *flags: str) -> None:
        """`helm install` or `helm upgrade`, until everything is ready."""
        registries = f"registries.plainHTTP={{{self.target.registry}}}"
        values = ("--set", f"image.reference={self.image}", "--set", registries)
        self.helm(verb, "trainseal", str(CHART), "--wait", "--timeout=5m", *values, *flags)

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        """kubectl's standard output."""
        return self.target.kubectl(*args, input=stdin, timeout=200)

    def refusal(self, obj: Object, *flags: str) -> str:
        """Why the object is not accepted (on trial); empty where it is."""
        try:
            self.kubectl("create", "--dry-run=server", "-f", "-", *flags, stdin=json.dumps(obj))
        except CommandError as error:
            return error.stderr
        return ""

    def get(self, resource: str, name: str, namespace: str = TEAM) -> Object:
        """A live object."""
        found: Object = json.loads(
            self.kubectl("get", resource, name, "-n", namespace, "-o", "json")
        )
        return found

    def pods_of(self, job: Object) -> list[Object]:
        """The pods that bear a TrainingJob's label."""
        label = f"trainseal.dev/job={job['metadata']['name']}"
        found = self.kubectl("get", "pods", "-n", TEAM, "-l", label, "-o", "json")
        items: list[Object] = json.loads(found)["items"]
        return items

    def wait_for_phase(self, job: Object, phase: str) -> None:
        """Waits until a TrainingJob's status says so."""
        self.kubectl(
            "wait", f"trainingjob/{job['metadata']['name']}", "-n", TEAM,
            f"--for=jsonpath={{.status.phase}}={phase}", "--timeout=90s",
        )  # fmt: skip

    def judgement(self) -> str:
        """What is said of a worker of no run: the floor lets it pass, only the webhook can tell."""
        forged = pod("worker", gpus=1)
        forged["metadata"]["labels"] = {"trainseal.dev/seal": "none"}
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "none", "uid": "none"}
        forged["metadata"]["ownerReferences"] = [owner | {"controller": True}]
        return self.refusal(forged, JOB_CONTROLLER)


def pod(name: str = "trainer", namespace: str = TEAM, gpus: int = 0) -> Object:
    """A pod as anybody may write it."""
    resources = {"limits": {"nvidia.com/gpu": str(gpus)}} if gpus else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [{"name": "main", "image": "x", "resources": resources}]},
    }


def eventually(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Returns as soon as the condition holds; fails with ``what`` was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.2)
