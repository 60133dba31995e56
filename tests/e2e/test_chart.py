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
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
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
from trainseal.controller.certificate_rotation import (
    WebhookTLS,
    issue,
    serving_names,
    to_secret,
)
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
            "rollout", "status", "deployment/trainseal-webhook", "-n", NAMESPACE, "--timeout=240s"
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

    eventually(back, "the controller fills caBundle in")
    eventually(lambda: JUDGED in release.judgement(), "the webhook is asked again")


def test_evicted_replicas_of_the_webhook_leave_one_by_one(release: Release) -> None:
    """A drain may take one at a time: the budget holds the other until the first is back."""
    selector = ("-n", NAMESPACE, "-l", "app.kubernetes.io/component=webhook")
    pods = json.loads(release.kubectl("get", "pods", *selector, "-o", "json"))["items"]
    names = [p["metadata"]["name"] for p in pods if "deletionTimestamp" not in p["metadata"]]
    assert len(names) == 2
    with Asking(release) as asking:
        assert _evicted(release, names[0])
        assert not _evicted(release, names[1])
        eventually(lambda: _evicted(release, names[1]), "the other may go, too")
        release.kubectl(
            "rollout", "status", "deployment/trainseal-webhook", "-n", NAMESPACE, "--timeout=240s"
        )
    assert [answer for answer in asking.answers if JUDGED not in answer] == []


def _evicted(release: Release, name: str) -> bool:
    """Whether the eviction was let happen; CommandError where it failed otherwise."""
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": NAMESPACE},
    }
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction"
    try:
        release.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))
    except CommandError as error:
        if "disruption budget" not in error.stderr:
            raise
        return False
    return True


def test_after_all_nodes_were_without_power_everything_of_ours_comes_back(
    release: Release,
) -> None:
    """No start of ours waits for ourselves, so the cluster cannot lock itself out."""
    if not isinstance(release.target, Cluster):
        pytest.skip("the cluster is not ours to cut off")
    release.target.cut_node_off()
    try:
        assert NOT_ASKED in release.judgement()
        assert FLOOR in release.refusal(pod(TEAM, gpus=1))
        assert release.refusal(pod(TEAM)) == ""
    finally:
        release.target.start_node()
    for component in ("webhook", "controller"):
        release.kubectl(
            "rollout", "status", f"deployment/trainseal-{component}", "-n", NAMESPACE,
            "--timeout=240s",
        )  # fmt: skip
    release.kubectl(
        "rollout", "status", "daemonset/trainseal-agent", "-n", "trainseal-agent", "--timeout=240s"
    )
    eventually(lambda: JUDGED in release.judgement(), "the webhook is asked again")


def test_an_expired_certificate_is_replaced_when_a_controller_runs_again(
    release: Release,
) -> None:
    """As after a month in which none ran: closed meanwhile for what is guarded, and no longer."""
    scale = ("scale", "deployment/trainseal-controller", "-n", NAMESPACE)
    release.kubectl(*scale, "--replicas=0")
    controllers = ("-n", NAMESPACE, "-l", "app.kubernetes.io/component=controller")
    gone = ("get", "pods", *controllers, "-o", "name")
    eventually(lambda: not release.kubectl(*gone), "no controller runs")
    try:
        _let_it_expire(release)
        release.kubectl("delete", "pod", "-n", NAMESPACE, "-l",
                        "app.kubernetes.io/component=webhook", "--wait=false")  # fmt: skip
        eventually(
            lambda: "certificate has expired" in release.judgement(), "it is served", seconds=90
        )
        assert FLOOR in release.refusal(pod(TEAM, gpus=1))
        assert release.refusal(pod(TEAM)) == ""
    finally:
        release.kubectl(*scale, "--replicas=2")
    eventually(lambda: JUDGED in release.judgement(), "the webhook is asked again")


def _let_it_expire(release: Release) -> None:
    """Puts a certificate in place that was made four months ago, and trusted."""
    old = datetime.now(UTC) - timedelta(days=120)
    data, _ = to_secret(WebhookTLS(issue(serving_names(NAMESPACE, "trainseal-webhook"), old)))
    secret = release.get("secret", "trainseal-webhook-tls", NAMESPACE)
    secret["data"] = data
    secret["metadata"]["annotations"] = {}
    release.kubectl("replace", "-f", "-", stdin=json.dumps(secret))
    for kind, name in (("mutating", "trainseal"), ("validating", "trainseal"),
                       ("validating", "trainseal-access")):  # fmt: skip
        words = (f"{kind}webhookconfiguration", name)
        found = json.loads(release.kubectl("get", *words, "-o", "json"))
        for webhook in found["webhooks"]:
            webhook["clientConfig"]["caBundle"] = data["ca.crt"]
        release.kubectl("replace", "-f", "-", stdin=json.dumps(found))


def test_an_upgrade_mends_a_webhook_that_does_not_answer(release: Release) -> None:
    release.kubectl("scale", "deployment/trainseal-webhook", "-n", NAMESPACE, "--replicas=0")
    eventually(lambda: NOT_ASKED in release.judgement(), "nobody answers")
    # Who scaled it by kubectl owns the number of replicas until somebody takes it back.
    release.put("upgrade", "--force-conflicts")
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
    eventually(lambda: JUDGED in release.judgement(), "the webhook is asked again")


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


def test_a_drained_node_takes_a_run_along_on_record_and_gives_it_back(
    release: Release, run: Object
) -> None:
    """There is no other node: what is taken along waits, and a replica of the webhook stays."""
    (before,) = release.pods_of(run)
    node = before["spec"]["nodeName"]
    flags = ("--ignore-daemonsets", "--delete-emptydir-data", "--timeout=30s", "--force")
    try:
        with pytest.raises(CommandError, match="drain") as held_up:
            release.kubectl("drain", node, *flags)
        assert "disruption budget" in held_up.value.stderr
        eventually(lambda: _others(release, run, before), "the run has another pod")
        assert JUDGED in release.judgement()
        assert FLOOR in release.refusal(pod(TEAM, gpus=1))
    finally:
        release.kubectl("uncordon", node)
    (record,) = [r["spec"] for r in _records(release) if r["spec"]["action"] == "Evict"]
    assert record["pod"]["uid"] == before["metadata"]["uid"]
    assert (record["allowed"], record["username"]) == (True, _who(release))
    release.wait_for_phase(run, "Running")
    eventually(lambda: _runs_again(release, run), "the new pod runs")
    for component in ("webhook", "controller"):
        words = ("rollout", "status", f"deployment/trainseal-{component}", "-n", NAMESPACE)
        release.kubectl(*words, "--timeout=240s")


def _others(release: Release, run: Object, before: Object) -> bool:
    uids = {p["metadata"]["uid"] for p in release.pods_of(run)}
    return bool(uids) and before["metadata"]["uid"] not in uids


def _runs_again(release: Release, run: Object) -> bool:
    return [p["status"]["phase"] for p in release.pods_of(run)] == ["Running"]


def _records(release: Release) -> list[Object]:
    found = json.loads(release.kubectl("get", "accessrecords", "-n", TEAM, "-o", "json"))
    items: list[Object] = found["items"]
    return items


def _who(release: Release) -> str:
    return release.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}").strip()


def test_without_the_kind_of_access_records_nobody_gets_in_and_an_upgrade_brings_it_back(
    release: Release, run: Object
) -> None:
    (worker,) = release.pods_of(run)
    getting_in = ("exec", worker["metadata"]["name"], "-n", TEAM, "-c", "trainer", "--", "true")
    release.kubectl(*getting_in)
    release.kubectl("delete", "crd", "accessrecords.trainseal.dev", "--timeout=240s")
    try:
        with pytest.raises(CommandError, match="exec") as denied:
            release.kubectl(*getting_in)
        assert "denied because it could not be recorded" in denied.value.stderr
        with pytest.raises(CommandError, match="doctor") as wrong:
            _doctor(release)
        assert "missing: accessrecords" in wrong.value.stdout
        assert JUDGED in release.judgement()
    finally:
        release.put("upgrade")
    eventually(lambda: _gets_in(release, getting_in), "people get in again")
    assert [r["spec"]["action"] for r in _records(release)][-1:] == ["Exec"]


def _gets_in(release: Release, words: tuple[str, ...]) -> bool:
    try:
        release.kubectl(*words)
    except CommandError:
        return False
    return True


def _doctor(release: Release) -> str:
    program = "import sys; from trainseal.cli.main import main; sys.exit(main())"
    flags = ("doctor", "--kubeconfig", str(release.target.kubeconfig))
    environment = {"PYTHONPATH": str(CHART.parents[1] / "operator"), "COLUMNS": "200"}
    return release.target.run([sys.executable, "-c", program, *flags], extra=environment)


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
    release.kubectl("wait", "pod", "--all", "-n", NAMESPACE, "--for=delete", "--timeout=240s")
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
    inside = ("exec", pod["metadata"]["name"], "-n", TEAM, "-c", "trainer", "--")
    # Trust in what records people's ways in is filled in after that in what judges objects.
    eventually(lambda: _gets_in(release, (*inside, "true")), "people get in again")
    release.kubectl(*inside, *FINISH)
    release.wait_for_phase(run, "Succeeded")
    seal = release.get("sealedrun", live["status"]["sealedRun"])
    assert seal["status"]["phase"] == "Succeeded"
    keyring = read_keyring(release.get("configmap", "trainseal-keyring", NAMESPACE), "seal")
    cluster = release.get("namespace", "kube-system")["metadata"]["uid"]
    name = seal["metadata"]["name"]
    (role,) = bound_roles(keyring, cluster=cluster, namespace=TEAM, name=name, seal=seal)
    assert role.object_uid == pod["metadata"]["ownerReferences"][0]["uid"]
