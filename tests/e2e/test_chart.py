"""The chart's life on a real cluster: install, test, upgrade, outage, uninstall, reinstall.

It has a cluster of its own, since it takes TrainSeal away; on a cluster of the user's it puts
back the release that it found.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster, CommandError, Target, connect
from tests.images import build_operator_image
from tests.sample_objects import training_job
from tests.stage.people import with_openssl_key
from tests.stage.policies import policy

CHART = Path(__file__).parents[2] / "charts" / "trainseal"
NAMESPACE = "trainseal-system"
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


#: One for each checkout, as in conftest.py.
_NAME = "chart-" + hashlib.sha256(str(Path(__file__).resolve()).encode()).hexdigest()[:4]


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    if os.environ.get("TRAINSEAL_KUBECONFIG"):
        foreign = connect()
        with _put_back(foreign):
            yield foreign
        return
    cluster = Cluster.up(_NAME)
    try:
        yield cluster
    finally:
        cluster.down()


@contextlib.contextmanager
def _put_back(target: Target) -> Iterator[None]:
    """Takes a release off that is there, and puts it back with the values it had."""
    place = ("--namespace", NAMESPACE)
    try:
        values = target.helm("get", "values", "trainseal", "-o", "json", *place)
    except CommandError:
        yield
        return
    target.helm("uninstall", "trainseal", "--wait", *place)
    try:
        yield
    finally:
        helm = str(target.tools.helm)
        flags = ("--values=-", "--wait", *place)
        target.run([helm, "install", "trainseal", str(CHART), *flags], input=values, timeout=400)


@pytest.fixture(scope="module")
def release(target: Target) -> Iterator[Release]:
    """Installed in a namespace where only restricted pods may run; a team's namespace."""
    image = target.push_image(build_operator_image(), "trainseal")
    found = Release(target, image)
    for name in (NAMESPACE, TEAM):
        with contextlib.suppress(CommandError):  # there from an earlier run
            found.kubectl("create", "namespace", name)
    found.kubectl(
        "label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted",
        "--overwrite",
    )  # fmt: skip
    found.put("install")
    yield found
    with contextlib.suppress(CommandError):
        found.helm("uninstall", "trainseal", "--wait")
    found.kubectl("delete", "namespace", TEAM, "--wait=false")


def test_an_installed_webhook_passes_helms_own_test(release: Release) -> None:
    assert "Succeeded" in release.helm("test", "trainseal")


def test_a_gpu_pod_of_no_run_is_refused_by_the_webhook_itself(release: Release) -> None:
    answer = release.judgement()
    assert JUDGED in answer
    assert NOT_ASKED not in answer


def test_a_bare_gpu_pod_is_refused_by_the_floor_before_the_webhook_is_asked(
    release: Release,
) -> None:
    assert FLOOR in release.refusal(pod(gpus=1))


def test_a_pod_without_a_gpu_is_not(release: Release) -> None:
    assert release.refusal(pod()) == ""


def test_a_job_without_a_policy_is_refused_by_the_webhook_itself(release: Release) -> None:
    job = training_job()
    job["metadata"]["namespace"] = TEAM
    answer = release.refusal(job)
    assert JUDGED in answer
    assert NOT_ASKED not in answer


def test_gpu_pods_of_the_clusters_own_namespaces_are_accepted(release: Release) -> None:
    assert release.refusal(pod(namespace="kube-system", gpus=1)) == ""


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


def test_an_upgrade_leaves_no_request_without_an_answer(release: Release) -> None:
    with Asking(release) as asking:
        release.put("upgrade", "--set", "webhook.podAnnotations.rolled=once")
        # Not `kubectl wait pod`: it fails over an old pod that goes away meanwhile.
        release.kubectl(
            "rollout", "status", "deployment/trainseal-webhook", "-n", NAMESPACE, "--timeout=60s"
        )
    assert len(asking.answers) > 10
    unanswered = [answer for answer in asking.answers if JUDGED not in answer]
    assert unanswered == []


def test_trust_that_somebody_emptied_comes_back(release: Release) -> None:
    configuration = ("validatingwebhookconfiguration", "trainseal")
    found = json.loads(release.kubectl("get", *configuration, "-o", "json"))
    emptied = copy.deepcopy(found)
    for webhook in emptied["webhooks"]:
        del webhook["clientConfig"]["caBundle"]
    release.kubectl("replace", "-f", "-", stdin=json.dumps(emptied))

    def back() -> bool:
        now = json.loads(release.kubectl("get", *configuration, "-o", "json"))
        return bool(now["webhooks"] == found["webhooks"])

    eventually(back, "the controller fills caBundle in", seconds=90)
    eventually(lambda: JUDGED in release.judgement(), "the webhook is asked again")


def test_while_the_webhook_is_down_gpu_pods_are_refused_and_the_rest_goes_on(
    release: Release,
) -> None:
    scale = ("scale", "deployment/trainseal-webhook", "-n", NAMESPACE)
    release.kubectl(*scale, "--replicas=0")
    eventually(lambda: NOT_ASKED in release.judgement(), "the webhook is gone")
    job = training_job()
    job["metadata"]["namespace"] = TEAM
    assert NOT_ASKED in release.refusal(job)
    assert FLOOR in release.refusal(pod(gpus=1))
    assert release.refusal(pod()) == ""
    ordinary = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "ordinary", "namespace": TEAM},
    }
    assert release.refusal(ordinary) == ""
    release.kubectl(*scale, "--replicas=2")
    eventually(lambda: JUDGED in release.judgement(), "the webhook is back", seconds=120)


def test_without_the_webhooks_configuration_gpu_pods_are_refused_all_the_same(
    release: Release,
) -> None:
    for kind in ("mutating", "validating"):
        release.kubectl("delete", f"{kind}webhookconfiguration", "trainseal")
    job = training_job()
    job["metadata"]["namespace"] = TEAM
    eventually(lambda: release.refusal(job) == "", "nobody is asked about anything")
    answer = release.refusal(pod(gpus=1))
    assert FLOOR in answer
    assert "run it as a TrainingJob" in answer
    assert release.refusal(pod()) == ""
    release.put("upgrade")
    eventually(lambda: JUDGED in release.judgement(), "the webhook is asked again", seconds=120)


def test_where_policies_only_audit_a_gpu_pod_passes_the_floor_too(
    release: Release, tmp_path: Path
) -> None:
    alice = with_openssl_key(tmp_path, "alice")
    registries = [release.target.registry]
    audits = policy("looks-on", TEAM, signers=[alice], image_signers=[alice], registries=registries)
    audits["spec"]["mode"] = "Audit"
    release.kubectl("apply", "-f", "-", stdin=json.dumps(audits))
    try:
        eventually(lambda: release.refusal(pod(gpus=1)) == "", "the floor knows the policy")
        assert FLOOR in release.refusal(pod(namespace="default", gpus=1))
    finally:
        release.kubectl("delete", "provenancepolicy", "looks-on")
    eventually(lambda: FLOOR in release.refusal(pod(gpus=1)), "the floor knows that it is gone")


def test_an_uninstall_leaves_nothing_behind_but_evidence_and_keys(release: Release) -> None:
    release.helm("uninstall", "trainseal", "--wait")
    ours = ("-l", "app.kubernetes.io/part-of=trainseal", "-o", "name")
    for resource in (
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "clusterroles",
        "clusterrolebindings",
    ):
        left = release.kubectl("get", resource, *ours).split()
        # What keeps the API server reading parameters matches nothing.
        assert [name for name in left if "/trainseal-parameters" not in name] == [], resource
    assert "trainseal" not in release.kubectl(
        "get", "validatingwebhookconfigurations", "-o", "name"
    )
    assert "trainseal" not in release.kubectl("get", "mutatingwebhookconfigurations", "-o", "name")
    eventually(lambda: release.refusal(pod(gpus=1)) == "", "GPU pods are accepted again")
    assert "sealedruns" in release.kubectl("get", "crd", "-o", "name")
    release.kubectl("get", "secret", "trainseal-seal-key", "-n", NAMESPACE)
    release.kubectl("wait", "pod", "--all", "-n", NAMESPACE, "--for=delete", "--timeout=90s")


def test_a_reinstall_keeps_the_seal_key_and_answers_again(release: Release) -> None:
    key = ("get", "secret", "trainseal-seal-key", "-n", NAMESPACE, "-o", "jsonpath={.data}")
    before = release.kubectl(*key)
    release.put("install")
    assert release.kubectl(*key) == before
    eventually(lambda: JUDGED in release.judgement(), "the webhook is asked again")
    eventually(lambda: FLOOR in release.refusal(pod(gpus=1)), "the floor holds again")


def test_the_roles_allow_all_that_the_processes_try(release: Release) -> None:
    for component in ("webhook", "controller"):
        logs = release.kubectl(
            "logs", "-n", NAMESPACE, "-l", f"app.kubernetes.io/component={component}",
            "--tail=-1", "--prefix",
        )  # fmt: skip
        assert logs
        assert "orbidden" not in logs
