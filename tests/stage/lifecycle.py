"""A release of the chart through its life: put on, asked, taken off."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster import CommandError, Target
from tests.stage.jobs import SHORT_CODE, short_job
from tests.stage.people import with_cosign_key, with_openssl_key
from tests.stage.policies import policy
from tests.stage.release import CHART, NAMESPACE
from tests.stage.signing import push_tree, sign_image, signed, write_tree

#: What the webhook says of a pod, what the API server says where it cannot ask, and what the floor.
JUDGED = "denied the request"
NOT_ASKED = "failed calling webhook"
FLOOR = "ValidatingAdmissionPolicy 'trainseal-pods'"
JOB_CONTROLLER = "--as=system:serviceaccount:kube-system:job-controller"

Object = dict[str, Any]


@dataclass(frozen=True)
class Release:
    """The chart's release on a cluster, and the namespace of a team that trains there."""

    target: Target
    image: str
    team: str

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

    def get(self, resource: str, name: str, namespace: str = "") -> Object:
        """A live object, the team's if no namespace is given."""
        place = namespace or self.team
        found: Object = json.loads(self.kubectl("get", resource, name, "-n", place, "-o", "json"))
        return found

    def pods_of(self, job: Object) -> list[Object]:
        """The pods that bear a TrainingJob's label."""
        label = f"trainseal.dev/job={job['metadata']['name']}"
        found = self.kubectl("get", "pods", "-n", self.team, "-l", label, "-o", "json")
        items: list[Object] = json.loads(found)["items"]
        return items

    def wait_for_phase(self, job: Object, phase: str) -> None:
        """Waits until a TrainingJob's status says so."""
        self.kubectl(
            "wait", f"trainingjob/{job['metadata']['name']}", "-n", self.team,
            f"--for=jsonpath={{.status.phase}}={phase}", "--timeout=90s",
        )  # fmt: skip

    def judgement(self) -> str:
        """What is said of a worker of no run: the floor lets it pass, only the webhook can tell."""
        forged = pod(self.team, "worker", gpus=1)
        forged["metadata"]["labels"] = {"trainseal.dev/seal": "none"}
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "none", "uid": "none"}
        forged["metadata"]["ownerReferences"] = [owner | {"controller": True}]
        return self.refusal(forged, JOB_CONTROLLER)


def pod(namespace: str, name: str = "trainer", *, gpus: int = 0) -> Object:
    """A pod as anybody may write it."""
    resources = {"limits": {"nvidia.com/gpu": str(gpus)}} if gpus else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [{"name": "main", "image": "x", "resources": resources}]},
    }


@dataclass
class Asking:
    """Asks about a GPU pod again and again, as long as it is open."""

    release: Release
    answers: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Asking:
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._stop.is_set():
            self.answers.append(self.release.judgement())


def signed_job(release: Release, folder: Path, name: str, script: str = "wait.py") -> Object:
    """A job of the team's that its policy, applied here, lets pass.

    Its trainer's image is TrainSeal's own: it has Python, and is on the node already.
    """
    target, team = release.target, release.team
    alice = with_openssl_key(folder, "alice")
    platform = with_cosign_key(target, folder, "platform")
    rules = policy(
        team, team, signers=[alice], image_signers=[platform], registries=[target.registry]
    )
    release.kubectl("apply", "-f", "-", stdin=json.dumps(rules))
    host = target.registry_from_host
    sign_image(target, release.image.replace(target.registry, host, 1), platform)
    code = push_tree(host, write_tree(folder / "tree", SHORT_CODE), f"{team}/code", alice)
    reference = code.replace(host, target.registry, 1)
    return signed(short_job(name, team, release.image, reference, script), alice)
