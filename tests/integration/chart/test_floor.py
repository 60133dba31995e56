"""What the API server refuses by itself while nobody answers for TrainSeal's webhook.

The webhook's configuration is taken away, as somebody with the right to do so might: what is
refused here is refused by the floor alone. Real admission, real users; nothing runs the pods.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import CommandError
from tests.integration.chart.conftest import CONTROLLER, NAMESPACE, ApiServer, Helm, Object
from tests.integration.chart.floored import CONFIGURATIONS, DEV, floored
from tests.stage.waiting import eventually
from trainseal.controller.floor import entries

TEAM = "floor-team"
AUDITED = "floor-audited"
#: Who makes pods of Jobs, with the rights that a cluster gives it and no more.
JOB_CONTROLLER = "--as=system:serviceaccount:kube-system:job-controller"
REPLICA_SETS = "--as=system:serviceaccount:kube-system:replicaset-controller"
COLLECTOR = "--as=system:serviceaccount:kube-system:generic-garbage-collector"
QUEUE = "system:serviceaccount:kueue-system:kueue-controller-manager"
GPU = {"limits": {"nvidia.com/gpu": "1"}}
SEAL = {"trainseal.dev/seal": "char-lm-1", "trainseal.dev/job": "char-lm"}
OWNER = {"apiVersion": "batch/v1", "kind": "Job", "name": "char-lm", "uid": "1", "controller": True}


@pytest.fixture(scope="module")
def world(server: ApiServer, helm: Path) -> Iterator[ApiServer]:
    """The chart without its webhooks; a team, and another whose policy only audits."""
    told = {
        "team": "Enforce\n^(floor-t.*)$\n^()$",
        "all": "Audit\n^(.*)$\n^(floor-none)$",
        **entries((), (), ["accel.example/card"]),
    }
    makers = [who.removeprefix("--as=") for who in (JOB_CONTROLLER, REPLICA_SETS, COLLECTOR)]
    parents = f"floor.jobParents={{{QUEUE}}}"
    with floored(server, helm, (TEAM, AUDITED), [*makers, QUEUE], told, parents):
        server.until_refused(pod("probe", **gpu()), "trainseal", DEV)
        server.until_accepted(pod("probe", AUDITED, **gpu()), DEV)
        yield server


def answer(server: ApiServer, obj: Object, *flags: str) -> str:
    """The refusal, or nothing; the developer asks unless the flags say who."""
    return server.refusal(obj, *(flags or (DEV,)))


def gpu() -> Object:
    """What makes a container ask for a GPU."""
    return {"resources": GPU}


def pod(name: str, namespace: str = TEAM, **container: Any) -> Object:
    """A pod; the keywords go into its container."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "trainer"}},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "main", "image": "registry.example/x", **container}],
        },
    }


def job(name: str, namespace: str = TEAM, **container: Any) -> Object:
    """A suspended Job of such pods."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace, "labels": {}},
        "spec": {
            "suspend": True,
            "template": {"spec": pod("x", **container)["spec"], "metadata": {"labels": {}}},
        },
    }


def sealed_pod(name: str) -> Object:
    """A pod as the Job controller makes it for a run."""
    made = pod(name, **gpu())
    made["metadata"]["labels"] |= SEAL
    made["metadata"]["ownerReferences"] = [copy.deepcopy(OWNER)]
    return made


def sealed_job(name: str) -> Object:
    """A Job as our controller makes it."""
    made = job(name, **gpu())
    made["metadata"]["labels"] |= SEAL
    made["spec"]["template"]["metadata"]["labels"] |= SEAL
    return made


# Pods ---------------------------------------------------------------------------------------------


def test_a_bare_gpu_pod_is_refused_and_the_answer_says_what_to_do(world: ApiServer) -> None:
    said = answer(world, pod("bare", **gpu()))
    assert "ValidatingAdmissionPolicy 'trainseal-pods'" in said
    assert f"pod {TEAM}/bare asks for nvidia.com/gpu and is not part of a sealed run" in said
    assert "found creator dev@example.org, owner none" in said
    assert "expected the Job controller (system:serviceaccount:kube-system:job-controller" in said
    assert "run it as a TrainingJob: `trainseal sign job`" in said


def _in_an_init_container(p: Object) -> None:
    p["spec"]["initContainers"] = [{"name": "init", "image": "x", **gpu()}]


def _in_the_second_container(p: Object) -> None:
    p["spec"]["containers"].append({"name": "second", "image": "x", **gpu()})


def _by_a_request_and_a_limit(p: Object) -> None:
    p["spec"]["containers"][0]["resources"] = GPU | {"requests": GPU["limits"]}


def _by_a_device_class(p: Object) -> None:
    name = "deviceclass.resource.kubernetes.io/gpu"
    p["spec"]["containers"][0]["resources"] = {"limits": {name: "1"}}


def _by_a_claim(p: Object) -> None:
    p["spec"]["resourceClaims"] = [{"name": "gpu", "resourceClaimName": "shared"}]


def _by_a_label(p: Object) -> None:
    p["metadata"]["labels"] |= SEAL


def _by_an_annotation_for_the_runtime(p: Object) -> None:
    p["metadata"]["annotations"] = {"cdi.k8s.io/mine": "nvidia.com/gpu=all"}


ASKING = [value for name, value in sorted(globals().items()) if name.startswith(("_in_", "_by_"))]


@pytest.mark.parametrize("asks", ASKING, ids=lambda function: function.__name__.strip("_"))
def test_every_way_to_ask_for_a_gpu_is_seen(world: ApiServer, asks: Any) -> None:
    asking = pod("asking")
    assert not answer(world, asking)
    asks(asking)
    assert "is not part of a sealed run" in answer(world, asking)


@pytest.fixture
def living(world: ApiServer) -> Iterator[Object]:
    """Somebody's pod, without a GPU."""
    made = pod("living")
    world.create(made, DEV)
    yield made
    world.delete(made)


ACCEL: dict[str, Any] = {"resources": {"limits": {"accel.example/card": "1"}}}


def test_a_device_that_is_asked_for_by_the_name_of_its_class_is_seen(world: ApiServer) -> None:
    world.until_refused(pod("probe", **ACCEL), "a device by its DeviceClass", DEV)
    in_init = pod("init")
    in_init["spec"]["initContainers"] = [{"name": "i", "image": "registry.example/x", **ACCEL}]
    for asks in (pod("bare", **ACCEL), in_init):
        said = answer(world, asks)
        assert "ValidatingAdmissionPolicy 'trainseal-devices'" in said
        assert "asks for accel.example/card, a device by its DeviceClass" in said
    assert "a device by its DeviceClass" in answer(world, pod("rs", **ACCEL), REPLICA_SETS)
    # Twins: another extended resource; a sealed run's pod; where all policies audit.
    assert not answer(world, pod("disk", resources={"limits": {"disk.example/ssd": "1"}}))
    sealed = sealed_pod("sealed")
    sealed["spec"]["containers"][0] |= ACCEL
    assert not answer(world, sealed, JOB_CONTROLLER)
    assert not answer(world, pod("audited", AUDITED, **ACCEL))


def _may_patch(world: ApiServer, who: str) -> bool:
    try:
        return "yes" in world.kubectl("auth", "can-i", "patch", "pods", "-n", TEAM, who)
    except CommandError:  # kubectl's way to say no
        return False


@pytest.mark.parametrize("who", [DEV, JOB_CONTROLLER, f"--as={CONTROLLER}"])
def test_no_pod_gets_a_label_of_ours_later(world: ApiServer, living: Object, who: str) -> None:
    world.kubectl(
        "create", "rolebinding", "ours", "-n", TEAM, "--clusterrole=admin",
        f"--serviceaccount={NAMESPACE}:trainseal-controller",
    )  # fmt: skip
    try:
        eventually(lambda: _may_patch(world, who), "the authorizer knows of the role")
        said = patch(world, living, {"metadata": {"labels": SEAL}}, who)
        assert "found a change of its labels trainseal.dev/* by" in said
        assert not patch(world, living, {"metadata": {"labels": {"team": "a"}}}, who)
    finally:
        world.kubectl("delete", "rolebinding", "ours", "-n", TEAM)


def test_no_pod_gets_devices_by_an_annotation_later(world: ApiServer, living: Object) -> None:
    for value in ("nvidia.com/gpu=all", ""):
        devices = {"metadata": {"annotations": {"cdi.k8s.io/mine": value}}}
        assert "an annotation cdi.k8s.io/* set by dev@" in patch(world, living, devices, DEV)
    note = {"metadata": {"annotations": {"example.org/note": "mine"}}}
    assert not patch(world, living, note, DEV)


def test_a_pod_with_a_copied_owner_and_copied_labels_is_refused(world: ApiServer) -> None:
    said = answer(world, sealed_pod("copied"))
    assert "bears a label of TrainSeal's" in said
    assert "found creator dev@example.org, owner Job char-lm" in said


def test_the_pod_of_a_deployment_is_refused(world: ApiServer) -> None:
    made = pod("of-a-deployment", **gpu())
    made["metadata"]["ownerReferences"] = [OWNER | {"apiVersion": "apps/v1", "kind": "ReplicaSet"}]
    assert "owner ReplicaSet char-lm" in answer(world, made, REPLICA_SETS)
    # The Job controller itself is not obeyed either where it makes pods for somebody else.
    made["metadata"]["labels"] |= SEAL
    assert "owner ReplicaSet char-lm" in answer(world, made, JOB_CONTROLLER)


def test_the_pod_of_a_job_that_is_not_ours_is_refused(world: ApiServer) -> None:
    """A Job from before the install, say."""
    made = sealed_pod("of-another-job")
    made["metadata"]["labels"] = {"app": "trainer"}
    assert "owner Job char-lm, without a label" in answer(world, made, JOB_CONTROLLER)


def test_the_job_controllers_pod_for_a_job_of_ours_is_admitted(world: ApiServer) -> None:
    assert not answer(world, sealed_pod("worker-0"), JOB_CONTROLLER)


@pytest.mark.parametrize(
    "container",
    [{}, {"resources": {"limits": {"cpu": "1", "example.com/fpga": "1"}}}],
    ids=["nothing", "cpu"],
)
def test_a_pod_without_a_gpu_is_nobodys_business(
    world: ApiServer, container: dict[str, Any]
) -> None:
    assert not answer(world, pod("cpu", **container))


@pytest.mark.parametrize("namespace", [NAMESPACE, "kube-system"])
def test_an_excluded_namespace_has_gpu_pods_of_its_own(world: ApiServer, namespace: str) -> None:
    admin = "--as-group=system:masters"
    assert not answer(world, pod("device-plugin", namespace, **gpu()), "--as=admin", admin)


def test_the_largest_pod_stays_within_the_cost_of_an_expression(world: ApiServer) -> None:
    large = pod("large")
    amounts = {f"vendor-{n}.example/device-{n}": "1" for n in range(20)} | {"cpu": "1"}
    large["spec"]["containers"] = [
        {"name": f"c{n}", "image": "x", "resources": {"limits": amounts, "requests": amounts}}
        for n in range(100)
    ]
    large["metadata"]["annotations"] = {f"team.example/note-{n}": "x" for n in range(1000)}
    assert not answer(world, large)
    large["spec"]["containers"][-1] |= gpu()
    assert "asks for nvidia.com/gpu" in answer(world, large)


# Audit --------------------------------------------------------------------------------------------


def test_where_every_policy_audits_gpu_pods_and_jobs_pass(world: ApiServer) -> None:
    assert not answer(world, pod("bare", AUDITED, **gpu()))
    assert not answer(world, job("bare", AUDITED, **gpu()))


def test_what_claims_to_be_ours_is_refused_there_too(world: ApiServer) -> None:
    forged_pod, forged_job = sealed_pod("forged"), sealed_job("forged")
    for forged in (forged_pod, forged_job):
        forged["metadata"]["namespace"] = AUDITED
        assert "bears a label of TrainSeal's" in answer(world, forged)


# Jobs ---------------------------------------------------------------------------------------------


def test_a_job_that_asks_for_gpus_is_refused(world: ApiServer) -> None:
    said = answer(world, job("bare", **gpu()))
    assert f"Job {TEAM}/bare asks for GPUs and is not part of a sealed run" in said
    assert f"found creator dev@example.org, expected {CONTROLLER}; make it a TrainingJob" in said


def test_a_job_with_a_label_of_ours_is_refused_on_itself_or_on_its_pods(world: ApiServer) -> None:
    on_itself, on_its_pods = job("forged"), job("forged")
    on_itself["metadata"]["labels"] |= SEAL
    on_its_pods["spec"]["template"]["metadata"]["labels"] |= SEAL
    for forged in (on_itself, on_its_pods):
        assert "bears a label of TrainSeal's" in answer(world, forged)


def test_a_job_whose_pods_would_get_devices_by_an_annotation_is_refused(world: ApiServer) -> None:
    asking = job("by-annotation")
    annotations = {"cdi.k8s.io/mine": "nvidia.com/gpu=all"}
    asking["spec"]["template"]["metadata"]["annotations"] = annotations
    assert "asks for GPUs" in answer(world, asking)


def test_a_job_without_gpus_is_nobodys_business(world: ApiServer) -> None:
    assert not answer(world, job("cpu"))


@pytest.fixture
def run(world: ApiServer) -> Iterator[Object]:
    """A Job of ours, as our controller made it."""
    made = sealed_job("run")
    world.create(made, f"--as={CONTROLLER}")
    yield made
    world.delete(made)


def patch(server: ApiServer, obj: Object, change: Object, who: str, *flags: str) -> str:
    """The refusal of a merge patch, or nothing."""
    try:
        server.patch(obj, change, who, *flags)
    except CommandError as error:
        return error.stderr
    return ""


@pytest.mark.parametrize(
    "change",
    [{"suspend": False}, {"parallelism": 4}, {"backoffLimit": 99}, {"activeDeadlineSeconds": 5}],
    ids=lambda change: next(iter(change)),
)
def test_the_spec_of_a_job_of_ours_changes_by_our_controller_alone(
    world: ApiServer, run: Object, change: Object
) -> None:
    said = patch(world, run, {"spec": change}, DEV)
    assert f"Job {TEAM}/run belongs to TrainSeal: found a change of its spec by dev@" in said
    assert "set spec.suspend of its TrainingJob" in said
    assert not patch(world, run, {"spec": change}, f"--as={CONTROLLER}")


def test_a_listed_parent_suspends_and_places_a_job_but_does_not_relabel_it(
    world: ApiServer, run: Object
) -> None:
    placed = {"template": {"spec": {"nodeSelector": {"pool": "a"}}}}
    assert "a change of its spec" in patch(world, run, {"spec": placed}, DEV)
    assert not patch(world, run, {"spec": placed}, f"--as={QUEUE}")
    relabelled = {"metadata": {"labels": {"trainseal.dev/seal": "other"}}}
    assert "a change of its labels" in patch(world, run, relabelled, f"--as={QUEUE}")


@pytest.mark.parametrize("value", [None, "other"], ids=["off", "changed"])
def test_a_label_of_ours_stays(world: ApiServer, run: Object, value: str | None) -> None:
    relabelled = {"metadata": {"labels": {"trainseal.dev/seal": value}}}
    assert "a change of its labels trainseal.dev/*" in patch(world, run, relabelled, DEV)
    assert not patch(world, run, {"metadata": {"labels": {"team": "a"}}}, DEV)


@pytest.mark.parametrize("what", ["labels", "annotations"])
def test_what_tells_a_queue_what_to_do_is_the_queues_and_ours(
    world: ApiServer, run: Object, what: str
) -> None:
    # By such Kueue ends a run after a time, or starts it with fewer pods than were sealed.
    marked = {"metadata": {what: {"kueue.x-k8s.io/max-exec-time-seconds": "1"}}}
    assert "kueue.x-k8s.io/*" in patch(world, run, marked, DEV)
    assert not patch(world, run, marked, f"--as={QUEUE}")
    assert not patch(world, run, {"metadata": {what: {"team": "a"}}}, DEV)


FINALIZER = {"metadata": {"finalizers": ["example.org/wait"]}}


@pytest.mark.parametrize(
    "change",
    [FINALIZER, {"metadata": {"finalizers": ["orphan"]}}, {"metadata": {"ownerReferences": None}}],
    ids=["a finalizer", "orphan", "no owner"],
)
def test_nobody_keeps_a_job_of_ours_from_going_or_takes_it_from_its_run(
    world: ApiServer, change: Object
) -> None:
    # Else its pods run on, and suspending it stops nothing.
    made = sealed_job("tied")
    made["metadata"]["ownerReferences"] = [{**OWNER, "kind": "TrainingJob", "name": "run"}]
    world.create(made, f"--as={CONTROLLER}")
    try:
        assert "its owner, or another finalizer, by dev@" in patch(world, made, change, DEV)
        assert not patch(world, made, {"metadata": {"annotations": {"a": "b"}}}, DEV)
        assert not patch(world, made, {"metadata": {"ownerReferences": None}}, COLLECTOR)
    finally:
        world.delete(made)


def test_a_listed_parent_may_have_its_finalizer_and_whoever_may_edit_take_it_off(
    world: ApiServer, run: Object
) -> None:
    assert not patch(world, run, FINALIZER, f"--as={QUEUE}")
    assert not patch(world, run, {"metadata": {"finalizers": None}}, DEV)


@pytest.mark.parametrize("flag", ["orphan", "background"])
def test_the_pods_of_a_job_of_ours_are_not_left_behind(
    world: ApiServer, run: Object, flag: str
) -> None:
    ask = ("delete", "job", "run", "-n", TEAM, f"--cascade={flag}", "--dry-run=server", DEV)
    if flag == "orphan":
        with pytest.raises(CommandError, match="leaves its pods behind"):
            world.kubectl(*ask)
    else:
        world.kubectl(*ask)


def test_a_job_that_is_not_ours_is_deleted_and_kept_as_its_owner_likes(world: ApiServer) -> None:
    ordinary = job("ordinary")
    world.create(ordinary, DEV)
    assert not patch(world, ordinary, FINALIZER, DEV)
    assert not patch(world, ordinary, {"metadata": {"finalizers": None}}, DEV)
    world.kubectl("delete", "job", "ordinary", "-n", TEAM, "--cascade=orphan", "--wait=false", DEV)
    # What the garbage collector does then; nobody runs it here.
    patch(world, ordinary, {"metadata": {"finalizers": None}}, DEV)


def test_an_ordinary_job_does_not_become_one_of_ours(world: ApiServer) -> None:
    ordinary = job("ordinary")
    world.create(ordinary, DEV)
    assert "its labels trainseal.dev/*" in patch(
        world, ordinary, {"metadata": {"labels": SEAL}}, DEV
    )
    assert not patch(world, ordinary, {"spec": {"parallelism": 2}}, DEV)
    world.delete(ordinary)


def test_the_clusters_controllers_do_their_work_on_a_job_of_ours(
    world: ApiServer, run: Object
) -> None:
    status = {"status": {"active": 1, "startTime": "2027-01-01T00:00:00Z"}}
    admin = "--as-group=system:masters"
    running = {"spec": {"suspend": False}}
    assert not patch(world, run, running, f"--as={CONTROLLER}")
    assert not patch(world, run, status, JOB_CONTROLLER, admin, "--subresource=status")
    # An editor may delete a Job: in the foreground, the collector then takes a finalizer off.
    world.kubectl("delete", "job", "run", "-n", TEAM, "--cascade=foreground", "--timeout=60s", DEV)


def test_a_gpu_job_from_before_the_install_can_still_be_held_and_deleted(
    world: ApiServer,
) -> None:
    old = job("old", AUDITED, **gpu())
    world.create(old, DEV)
    enforced = {"data": {"now": "Enforce\n^(floor-audited)$\n^()$"}}
    map_: Object = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "trainseal-floor", "namespace": NAMESPACE},
    }
    world.patch(map_, enforced)
    try:
        world.until_refused(pod("probe", AUDITED, **gpu()), "trainseal", DEV)
        assert not patch(world, old, {"spec": {"parallelism": 2}}, DEV)
        world.kubectl("delete", "job", "old", "-n", AUDITED, DEV)
    finally:
        world.patch(map_, {"data": {"now": None}})
        world.until_accepted(pod("probe", AUDITED, **gpu()), DEV)


# What a run leans on ------------------------------------------------------------------------------


def leaned_on(kind: str, **labels: str) -> Object:
    """An object of a run; ours, unless other labels are given."""
    content: dict[str, Object] = {
        "ConfigMap": {"data": {"config.json": "{}"}},
        "Service": {"spec": {"clusterIP": "None", "selector": dict(SEAL)}},
        "NetworkPolicy": {"spec": {"podSelector": {"matchLabels": SEAL}, "ingress": []}},
    }
    group = {"NetworkPolicy": "networking.k8s.io/v1"}.get(kind, "v1")
    metadata = {"name": "leaned-on", "namespace": TEAM, "labels": labels or dict(SEAL)}
    return {"apiVersion": group, "kind": kind, "metadata": metadata, **content[kind]}


CHANGES: dict[str, Object] = {
    "ConfigMap": {"data": {"config.json": '{"lr": 30}'}},
    "Service": {"spec": {"selector": {"app": "mallory"}}},
    "NetworkPolicy": {"spec": {"ingress": [{}]}},
}
LEANED_ON = list(CHANGES)


@pytest.fixture
def leaning(world: ApiServer, request: pytest.FixtureRequest) -> Iterator[Object]:
    """One of each kind, made by our controller."""
    made = leaned_on(request.param)
    made["metadata"]["ownerReferences"] = [{**OWNER, "kind": "TrainingJob", "name": "run"}]
    world.create(made, f"--as={CONTROLLER}")
    yield made
    world.delete(made)


@pytest.mark.parametrize("kind", LEANED_ON)
def test_what_bears_our_labels_is_made_by_our_controller_alone(world: ApiServer, kind: str) -> None:
    said = answer(world, leaned_on(kind))
    assert "ValidatingAdmissionPolicy 'trainseal-run-objects'" in said
    assert f"{kind} {TEAM}/leaned-on bears a label of TrainSeal's: found creator dev@" in said
    assert "take the labels trainseal.dev/* off it" in said
    assert not answer(world, leaned_on(kind), f"--as={CONTROLLER}")
    assert not answer(world, leaned_on(kind, app="notebook"))


@pytest.mark.parametrize("leaning", LEANED_ON, indirect=True)
def test_what_a_run_leans_on_says_what_it_said(world: ApiServer, leaning: Object) -> None:
    change = CHANGES[leaning["kind"]]
    said = patch(world, leaning, change, DEV)
    assert "a change of what it says by dev@example.org" in said
    assert "it is part of a sealed run, and goes with its TrainingJob" in said
    assert "what it says" in patch(world, leaning, change, "--as=root", "--as-group=system:masters")
    # It has no right to change most of them, which is no matter of the floor.
    assert not patch(world, leaning, change, f"--as={CONTROLLER}", "--as-group=system:masters")


@pytest.mark.parametrize("leaning", LEANED_ON, indirect=True)
@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"metadata": {"labels": {"trainseal.dev/job": None}}}, "its labels trainseal.dev/*"),
        ({"metadata": {"labels": {"trainseal.dev/role": "x"}}}, "its labels trainseal.dev/*"),
        ({"metadata": {"ownerReferences": None}}, "its owner, or another finalizer,"),
        (FINALIZER, "its owner, or another finalizer,"),
    ],
    ids=["label off", "another label", "no owner", "a finalizer"],
)
def test_nor_is_it_taken_out_of_sight_or_from_its_run(
    world: ApiServer, leaning: Object, change: Object, what: str
) -> None:
    assert f"a change of {what} by dev@example.org" in patch(world, leaning, change, DEV)


@pytest.mark.parametrize("leaning", LEANED_ON, indirect=True)
def test_notes_on_it_and_its_end_are_whose_may_edit(world: ApiServer, leaning: Object) -> None:
    notes = {"metadata": {"annotations": {"a": "b"}, "labels": {"team": "a"}}}
    assert not patch(world, leaning, notes, DEV)
    assert not patch(world, leaning, {"metadata": {"ownerReferences": None}}, COLLECTOR)
    kind = leaning["kind"].lower()
    world.kubectl("delete", kind, "leaned-on", "-n", TEAM, "--dry-run=server", DEV)


@pytest.mark.parametrize("kind", LEANED_ON)
def test_an_object_of_somebody_elses_does_not_become_one_of_a_run(
    world: ApiServer, kind: str
) -> None:
    theirs = leaned_on(kind, app="notebook")
    world.create(theirs, DEV)
    try:
        assert "a change of its labels" in patch(world, theirs, {"metadata": {"labels": SEAL}}, DEV)
        assert not patch(world, theirs, CHANGES[kind], DEV)
    finally:
        world.delete(theirs)


# Configurations -----------------------------------------------------------------------------------

INJECTOR = "--as=system:serviceaccount:cert-manager:cert-manager-cainjector"


@pytest.fixture
def configurations(world: ApiServer, helm: Path) -> Iterator[list[Object]]:
    """All of them, and somebody who may change every webhook configuration but no policy."""
    world.kubectl(
        "create", "clusterrole", "webhook-writer", "--verb=*",
        "--resource=mutatingwebhookconfigurations,validatingwebhookconfigurations",
    )  # fmt: skip
    world.kubectl(
        "create", "clusterrolebinding", "webhook-writer", "--clusterrole=webhook-writer",
        "--user=dev@example.org", "--serviceaccount=cert-manager:cert-manager-cainjector",
    )  # fmt: skip
    Helm(world, helm).upgrade("--set", f"floor.jobParents={{{QUEUE}}}")
    found = world.kubectl(
        "get", ",".join(CONFIGURATIONS), "-l", "app.kubernetes.io/part-of=trainseal", "-o", "json"
    )
    yield json.loads(found)["items"]
    for kind in CONFIGURATIONS:
        world.kubectl("delete", kind, "-l", "app.kubernetes.io/part-of=trainseal")
    world.kubectl("delete", "clusterrole,clusterrolebinding", "webhook-writer")


#: The injector takes a source that is named and empty for the one to use, and finds nothing there.
_EMPTY_SOURCE = ("inject-ca-from-secret", "")


def test_somebody_elses_operator_cannot_change_or_delete_our_configurations(
    world: ApiServer, configurations: list[Object]
) -> None:
    for live in configurations:
        kind = live["kind"].lower()
        opened = copy.deepcopy(live["webhooks"])
        opened[0]["failurePolicy"] = "Ignore"
        narrowed = copy.deepcopy(live["webhooks"])
        narrowed[0]["objectSelector"] = {"matchLabels": {"never": "matches"}}
        redirected = copy.deepcopy(live["webhooks"])
        redirected[0]["clientConfig"]["service"]["namespace"] = "elsewhere"
        trusting = copy.deepcopy(live["webhooks"])
        trusting[0]["clientConfig"]["caBundle"] = "QQ=="
        for webhooks in (opened, narrowed, redirected, trusting, live["webhooks"][1:]):
            for who in (DEV, INJECTOR):
                said = patch(world, live, {"webhooks": webhooks}, who)
                assert "expected its owner" in said, webhooks
        for who in (DEV, INJECTOR):
            for source, value in (("inject-ca-from", "elsewhere/theirs"), _EMPTY_SOURCE):
                elsewhere = {f"cert-manager.io/{source}": value}
                said = patch(world, live, {"metadata": {"annotations": elsewhere}}, who)
                assert "found its certificate authority changed" in said
        with pytest.raises(CommandError, match=r"found its deletion by dev@example\.org"):
            world.kubectl("delete", kind, live["metadata"]["name"], DEV)
        # Where its rules are as they were, it is nobody's business.
        assert not patch(world, live, {"metadata": {"labels": {"seen": "yes"}}}, DEV)


def test_all_of_them_at_once_are_not_deleted_either(
    world: ApiServer, configurations: list[Object]
) -> None:
    group = "/apis/admissionregistration.k8s.io/v1"
    for live in configurations:
        path = f"{group}/{live['kind'].lower()}s"
        with pytest.raises(CommandError, match="found its deletion"):
            world.kubectl("delete", "--raw", path, DEV)
        assert world.get(live)["metadata"]["uid"] == live["metadata"]["uid"]


def test_our_controller_changes_the_certificate_authority_and_nothing_else(
    world: ApiServer, configurations: list[Object]
) -> None:
    controller = f"--as={CONTROLLER}"
    for live in configurations:
        webhooks = live["webhooks"]
        for webhook in webhooks:
            webhook["clientConfig"]["caBundle"] = "QQ=="
        # It has the right to patch these by name, and no other.
        assert not patch(world, live, {"webhooks": webhooks}, controller)
        webhooks[0]["failurePolicy"] = "Ignore"
        said = patch(world, live, {"webhooks": webhooks}, controller)
        assert "found its rules changed by system:serviceaccount" in said


def test_whoever_may_take_the_floor_away_owns_the_configurations(
    world: ApiServer, configurations: list[Object]
) -> None:
    """Helm, as an administrator: an upgrade and an uninstall need no more than they did."""
    for live in configurations:
        webhooks = live["webhooks"]
        webhooks[0]["timeoutSeconds"] = 9
        world.patch(live, {"webhooks": webhooks})
        world.delete(live)
