"""The chart's life on a real cluster: install, test, upgrade, outage, uninstall, reinstall.

It has a cluster of its own, since it takes TrainSeal away; on a cluster of the user's it puts
back the release that it found. The tests are the steps of one life: each begins where the one
before it has left the release, so they are run as a whole and in their order.
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
from tests.stage.jobs import FINISH, SHORT_CODE, short_job
from tests.stage.people import with_cosign_key, with_openssl_key
from tests.stage.policies import policy
from tests.stage.signing import push_tree, sign_image, signed, write_tree
from trainseal.cluster.keys import read_keyring
from trainseal.provenance.boundseals import bound_roles

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


@pytest.fixture(scope="module")
def run(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Object]:
    """A sealed job that runs, from before the uninstall until after the reinstall.

    Its trainer's image is TrainSeal's own: it has Python, and is on the node already.
    """
    target, folder = release.target, tmp_path_factory.mktemp("run")
    alice = with_openssl_key(folder, "alice")
    platform = with_cosign_key(target, folder, "platform")
    rules = policy(
        TEAM, TEAM, signers=[alice], image_signers=[platform], registries=[target.registry]
    )
    release.kubectl("apply", "-f", "-", stdin=json.dumps(rules))
    host = target.registry_from_host
    sign_image(target, release.image.replace(target.registry, host, 1), platform)
    code = push_tree(host, write_tree(folder / "tree", SHORT_CODE), f"{TEAM}/code", alice)
    unsigned = short_job("goes-on", TEAM, release.image, code.replace(host, target.registry, 1))
    job = signed(unsigned, alice)
    eventually(lambda: release.refusal(job) == "", "the webhook knows the policy")
    release.kubectl("apply", "-f", "-", stdin=json.dumps(job))
    release.wait_for_phase(job, "Running")
    yield job
    release.kubectl("delete", "trainingjob", "goes-on", "-n", TEAM, "--ignore-not-found")
    release.kubectl("delete", "provenancepolicy", TEAM, "--ignore-not-found")


def test_a_signed_job_runs_before_the_release_goes(release: Release, run: Object) -> None:
    (pod,) = release.pods_of(run)
    assert pod["status"]["phase"] == "Running"


def test_an_uninstall_leaves_nothing_behind_but_evidence_keys_and_what_runs(
    release: Release, run: Object
) -> None:
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
    (worker,) = release.pods_of(run)
    assert worker["status"]["phase"] == "Running"
    assert "deletionTimestamp" not in worker["metadata"]


def test_a_reinstall_keeps_the_seal_key_and_answers_again(release: Release) -> None:
    key = ("get", "secret", "trainseal-seal-key", "-n", NAMESPACE, "-o", "jsonpath={.data}")
    before = release.kubectl(*key)
    release.put("install")
    assert release.kubectl(*key) == before
    eventually(lambda: JUDGED in release.judgement(), "the webhook is asked again")
    eventually(lambda: FLOOR in release.refusal(pod(gpus=1)), "the floor holds again")


def test_a_run_that_went_on_meanwhile_is_followed_to_its_end_under_its_old_seal(
    release: Release, run: Object
) -> None:
    live = release.get("trainingjob", run["metadata"]["name"])
    assert live["status"]["phase"] == "Running"
    (pod,) = release.pods_of(run)
    assert [c["restartCount"] for c in pod["status"]["containerStatuses"]] == [0]
    release.kubectl("exec", pod["metadata"]["name"], "-n", TEAM, "-c", "trainer", "--", *FINISH)
    release.wait_for_phase(run, "Succeeded")
    seal = release.get("sealedrun", live["status"]["sealedRun"])
    assert seal["status"]["phase"] == "Succeeded"
    keyring = read_keyring(release.get("configmap", "trainseal-keyring", NAMESPACE), "seal")
    cluster = release.get("namespace", "kube-system")["metadata"]["uid"]
    name = seal["metadata"]["name"]
    (role,) = bound_roles(keyring, cluster=cluster, namespace=TEAM, name=name, seal=seal)
    assert role.object_uid == pod["metadata"]["ownerReferences"][0]["uid"]
