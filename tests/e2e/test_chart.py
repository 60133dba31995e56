"""The chart's life on a real cluster: install, test, upgrade, outage, uninstall, reinstall.

It has a cluster of its own, since it takes TrainSeal away; on a cluster of the user's it puts
back the release that it found. The tests are the steps of one life: each begins where the one
before it has left the release, so they are run as a whole and in their order.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster, CommandError, Target, connect
from tests.cluster.places import own_name
from tests.images import build_operator_image
from tests.sample_objects import training_job
from tests.stage.jobs import FINISH
from tests.stage.lifecycle import FLOOR, JUDGED, NOT_ASKED, Asking, Release, pod, signed_job
from tests.stage.people import with_openssl_key
from tests.stage.policies import policy
from tests.stage.release import CHART, NAMESPACE
from tests.stage.waiting import eventually
from trainseal.cluster.keys import read_keyring
from trainseal.provenance.boundseals import bound_roles

TEAM = "chart-team"

Object = dict[str, Any]

_NAME = own_name("chart", Path(__file__).resolve())


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
    found = Release(target, image, TEAM)
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
    assert FLOOR in release.refusal(pod(TEAM, gpus=1))


def test_a_pod_without_a_gpu_is_not(release: Release) -> None:
    assert release.refusal(pod(TEAM)) == ""


def test_a_job_without_a_policy_is_refused_by_the_webhook_itself(release: Release) -> None:
    job = training_job()
    job["metadata"]["namespace"] = TEAM
    answer = release.refusal(job)
    assert JUDGED in answer
    assert NOT_ASKED not in answer


def test_gpu_pods_of_the_clusters_own_namespaces_are_accepted(release: Release) -> None:
    assert release.refusal(pod("kube-system", gpus=1)) == ""


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
    answer = release.refusal(pod(TEAM, gpus=1))
    assert FLOOR in answer
    assert "run it as a TrainingJob" in answer
    assert release.refusal(pod(TEAM)) == ""
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
        eventually(lambda: release.refusal(pod(TEAM, gpus=1)) == "", "the floor knows the policy")
        assert FLOOR in release.refusal(pod("default", gpus=1))
    finally:
        release.kubectl("delete", "provenancepolicy", "looks-on")
    eventually(
        lambda: FLOOR in release.refusal(pod(TEAM, gpus=1)), "the floor knows that it is gone"
    )


@pytest.fixture(scope="module")
def run(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Object]:
    """A sealed job that runs, from before the uninstall until after the reinstall."""
    job = signed_job(release, tmp_path_factory.mktemp("run"), "goes-on")
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
    eventually(lambda: release.refusal(pod(TEAM, gpus=1)) == "", "GPU pods are accepted again")
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
    eventually(lambda: FLOOR in release.refusal(pod(TEAM, gpus=1)), "the floor holds again")


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
