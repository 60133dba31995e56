"""Pods at the door: sealed ones as their seal says, others only without a GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit import world
from tests.unit.platforms import istio, istio_addition
from trainseal.admission.pods import PodRulesContext, Unknown, decide
from trainseal.admission.reviews import Response
from trainseal.verifier.policystore import BrokenPolicy

Object = dict[str, Any]
SEAL_LABEL = "trainseal.dev/seal"
JOB_LABEL = "batch.kubernetes.io/controller-uid"


@pytest.fixture(scope="module")
def sealed() -> world.World:
    return world.sealed_world()


@pytest.fixture
def context(sealed: world.World) -> PodRulesContext:
    return sealed.context()


def answer(context: PodRulesContext, *args: Any, **kwargs: Any) -> Response:
    found = decide(world.request(*args, **kwargs), context, final=True)
    assert isinstance(found, Response)
    return found


def plain(namespace: str = "research", **resources: str) -> Object:
    """A pod of nobody's, with limits."""
    container: Object = {"name": "main", "image": "x", "resources": {"limits": resources}}
    return {
        "metadata": {"name": "bare", "namespace": namespace},
        "spec": {"containers": [container]},
    }


GPU = {"nvidia.com/gpu": "1"}


# Sealed pods ------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, 1])
def test_a_pod_that_the_job_controller_makes_for_a_sealed_run_is_admitted(
    sealed: world.World, context: PodRulesContext, index: int
) -> None:
    assert answer(context, sealed.pod(index)) == Response(True)


@pytest.mark.parametrize(
    "user",
    [world.EDITOR, "system:serviceaccount:research:job-controller", "", world.CONTROLLER],
)
def test_the_same_pod_by_anybody_else_is_denied(
    sealed: world.World, context: PodRulesContext, user: str
) -> None:
    found = answer(context, sealed.pod(), user=user)
    assert not found.allowed
    assert f"found creator {user!r}, expected the Job controller" in found.message


def test_a_pod_that_differs_is_denied_with_what_differs(
    sealed: world.World, context: PodRulesContext
) -> None:
    pod = sealed.pod()
    pod["spec"]["containers"][0]["command"] = ["bash"]
    found = answer(context, pod)
    assert not found.allowed
    assert "spec.containers[0].command: found ['bash']" in found.message


def test_a_denial_lists_five_differences_and_counts_the_rest(
    sealed: world.World, context: PodRulesContext
) -> None:
    pod = sealed.pod()
    pod["spec"] |= {f"field{i}": "x" for i in range(7)}
    assert "and 2 more" in answer(context, pod).message


def test_a_sealed_pod_in_another_namespace_is_no_sealed_pod(
    sealed: world.World, context: PodRulesContext
) -> None:
    assert not answer(context, sealed.pod(), namespace="other").allowed


def test_an_audited_run_is_admitted_with_a_warning() -> None:
    audited = world.sealed_world(None, world.policy(mode="Audit"))
    pod = audited.pod()
    pod["spec"]["containers"][0]["command"] = ["bash"]
    found = answer(audited.context(), pod)
    assert found.allowed
    assert "would be denied under Enforce" in found.warnings[0]


def test_additions_count_only_where_every_enforcing_policy_has_them() -> None:
    def adding(name: str, mode: str, *labels: str) -> Any:
        addition = {"name": "mesh", "reason": "the mesh", "labels": list(labels)}
        return world.policy(name, mode=mode, pods={"additions": [addition]})

    one = adding("one", "Enforce", "mesh.example/rev", "mesh.example/x")
    other = adding("other", "Enforce", "mesh.example/rev")
    audit = world.policy("third", mode="Audit")
    found = world.sealed_world(None, one, other, audit)
    pod = found.pod()
    pod["metadata"]["labels"]["mesh.example/rev"] = "1"
    assert answer(found.context(), pod).allowed
    pod["metadata"]["labels"]["mesh.example/x"] = "1"
    assert "mesh.example/x" in answer(found.context(), pod).message


def test_a_sidecar_is_admitted_only_where_every_enforcing_policy_names_it() -> None:
    one, other = (
        world.policy(name, pods={"additions": [istio_addition()]}) for name in ("one", "other")
    )
    found = world.sealed_world(None, one, other)
    pod = found.pod()
    istio(pod)
    assert answer(found.context(), pod).allowed

    addition = istio_addition()
    del addition["containers"]
    without = world.policy("other", pods={"additions": [addition]})
    found = world.sealed_world(None, one, without)
    pod = found.pod()
    istio(pod)
    said = answer(found.context(), pod).message
    assert "spec.initContainers[istio-init]" in said
    assert "no policy's addition has one of this name" in said


# Updates of sealed pods -------------------------------------------------------------------------


def test_the_end_of_a_sealed_pod_is_not_held_up(
    sealed: world.World, context: PodRulesContext
) -> None:
    pod = sealed.pod()
    del pod["metadata"]["finalizers"]
    assert answer(context, pod, sealed.pod()).allowed


def test_a_gate_is_taken_away_by_the_controller_whose_it_is() -> None:
    gates = {"schedulingGates": [{"name": "platform.example/checked"}]}
    sealed = world.sealed_world(lambda j: j["spec"].update(scheduling=gates))
    pod, waiting = sealed.pod(), sealed.pod()
    assert waiting["spec"]["schedulingGates"]
    assert answer(sealed.context(), waiting).allowed
    del pod["spec"]["schedulingGates"]
    user = "system:serviceaccount:platform:checker"
    assert answer(sealed.context(), pod, waiting, user=user).allowed
    pod["spec"]["containers"][0]["command"] = ["bash"]
    assert not answer(sealed.context(), pod, waiting, user=user).allowed


def test_nor_is_it_after_the_policy_and_the_seal_are_gone(sealed: world.World) -> None:
    context = dataclasses.replace(sealed.context(), find=lambda _: None, policies=lambda _: ())
    pod = sealed.pod()
    del pod["metadata"]["finalizers"]
    assert answer(context, pod, sealed.pod()).allowed


CHANGES: dict[str, Callable[[Object], object]] = {
    "its image": lambda p: p["spec"]["containers"][0].update(image="x"),
    "its rank": lambda p: p["metadata"]["annotations"].update(
        {"batch.kubernetes.io/job-completion-index": "1"}
    ),
    "its labels": lambda p: [
        p["metadata"]["labels"].pop(k)
        for k in list(p["metadata"]["labels"])
        if k.startswith("trainseal.dev/")
    ],
    "its owner": lambda p: p["metadata"].pop("ownerReferences"),
    "its GPU": lambda p: p["spec"]["containers"][0]["resources"]["limits"].pop("nvidia.com/gpu"),
    "an ephemeral container": lambda p: p["spec"].update(ephemeralContainers=[{"name": "x"}]),
}


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("user", [world.EDITOR, world.JOB_CONTROLLER])
def test_a_sealed_pod_cannot_be_changed(
    sealed: world.World, what: str, known: bool, user: str
) -> None:
    context = sealed.context()
    if not known:  # the run has ended, or the watch is behind
        context = dataclasses.replace(context, find=lambda _: None)
    pod = sealed.pod()
    CHANGES[what](pod)
    assert not answer(context, pod, sealed.pod(), user=user).allowed


def test_a_sealed_pod_gets_no_label_by_which_others_could_choose_it(
    sealed: world.World, context: PodRulesContext
) -> None:
    for user in (world.EDITOR, world.JOB_CONTROLLER):
        pod = sealed.pod()
        pod["metadata"]["labels"]["app"] = "mallory"
        found = answer(context, pod, sealed.pod(), user=user)
        assert not found.allowed
        assert "found label app given by" in found.message
    pod = sealed.pod()
    pod["metadata"]["annotations"]["app"] = "mallory"
    assert answer(context, pod, sealed.pod()).allowed


def test_it_gets_one_that_a_policy_lets_a_platform_add_and_may_lose_one() -> None:
    mesh = {"name": "mesh", "reason": "the mesh", "labels": ["mesh.example/rev"]}
    sealed = world.sealed_world(None, world.policy(pods={"additions": [mesh]}))
    old, pod = sealed.pod(), sealed.pod()
    old["metadata"]["labels"]["left"] = "over"
    pod["metadata"]["labels"]["mesh.example/rev"] = "1"
    assert answer(sealed.context(), pod, old).allowed
    pod["metadata"]["labels"]["mesh.example/x"] = "1"
    assert not answer(sealed.context(), pod, old).allowed


def test_of_an_audited_run_a_label_is_told_and_let_pass() -> None:
    audited = world.sealed_world(None, world.policy(mode="Audit"))
    pod = audited.pod()
    pod["metadata"]["labels"]["app"] = "mallory"
    found = answer(audited.context(), pod, audited.pod())
    assert found.allowed
    assert "would be denied under Enforce" in found.warnings[0]


@pytest.mark.parametrize("subresource", ["ephemeralcontainers", "resize"])
def test_by_itself_a_sealed_pod_is_neither_debugged_nor_resized(
    sealed: world.World, context: PodRulesContext, subresource: str
) -> None:
    pod = sealed.pod()
    found = answer(context, pod, sealed.pod(), subresource=subresource)
    assert not found.allowed
    assert subresource in found.message.lower()


def test_a_sealed_pod_is_debugged_where_a_policy_says_so_and_not_resized_by_that(
    sealed: world.World, context: PodRulesContext
) -> None:
    context = under(context, ephemeralContainers="Record")
    pod = sealed.pod()
    pod["spec"]["ephemeralContainers"] = [{"name": "debug"}]
    assert answer(context, pod, sealed.pod(), subresource="ephemeralcontainers").allowed
    assert not answer(context, pod, sealed.pod(), subresource="resize").allowed
    # Whose seal is not known is not known to be open.
    unknown = dataclasses.replace(context, find=lambda _: None)
    assert not answer(unknown, pod, sealed.pod(), subresource="ephemeralcontainers").allowed


# Resizes ----------------------------------------------------------------------------------------


def under(context: PodRulesContext, **access: Any) -> PodRulesContext:
    """The same, where the namespace's one policy of now says this."""
    policies = (world.policy(access=access),)
    return dataclasses.replace(context, ways_in=world.ways_in(lambda _: policies))


def trainer(pod: Object) -> Object:
    found: Object = pod["spec"]["containers"][0]
    return found


def larger(pod: Object) -> Object:
    """More processor and memory for the trainer."""
    trainer(pod)["resources"]["requests"] |= {"cpu": "4", "memory": "8Gi"}
    trainer(pod)["resources"]["limits"]["memory"] = "8Gi"
    return pod


def test_a_sealed_pod_is_resized_where_a_policy_says_so_by_whom_it_lets(
    sealed: world.World, context: PodRulesContext
) -> None:
    context = under(context, resize="Record")
    pod, robot = larger(sealed.pod()), "system:serviceaccount:research:robot"
    assert answer(context, pod, sealed.pod(), subresource="resize") == Response(True)
    found = answer(context, pod, sealed.pod(), subresource="resize", user=robot)
    assert "does not name this service account" in found.message
    named = under(context, resize="Record", serviceAccounts=[robot])
    assert answer(named, pod, sealed.pod(), subresource="resize", user=robot).allowed
    # Whose seal is not known is not known to be open.
    unknown = dataclasses.replace(context, find=lambda _: None)
    assert not answer(unknown, pod, sealed.pod(), subresource="resize").allowed


def test_so_is_the_gate_and_what_asked_for_nothing(
    sealed: world.World, context: PodRulesContext
) -> None:
    pod = sealed.pod()
    pod["spec"]["initContainers"][0]["resources"] = {"requests": {"memory": "1Gi"}}
    context = under(context, resize="Record")
    assert answer(context, pod, sealed.pod(), subresource="resize").allowed


def test_a_resize_that_nobody_lets_is_denied_by_its_rule(
    sealed: world.World, context: PodRulesContext
) -> None:
    found = answer(context, larger(sealed.pod()), sealed.pod(), subresource="resize")
    assert "access.resize is Deny" in found.message


def test_what_else_than_a_resize_changes_the_same_amounts_is_denied(
    sealed: world.World, context: PodRulesContext
) -> None:
    context = under(context, resize="Record", ephemeralContainers="Record")
    for subresource in ("", "ephemeralcontainers"):
        found = answer(context, larger(sealed.pod()), sealed.pod(), subresource=subresource)
        assert not found.allowed
        assert "spec.containers" in found.message


BESIDE: dict[str, tuple[Callable[[Object], object], str]] = {
    "another image": (lambda p: trainer(p).update(image="x"), "spec.containers"),
    "a variable": (lambda p: trainer(p)["env"].append({"name": "A"}), "spec.containers"),
    "the order of restarts": (
        lambda p: trainer(p).update(
            resizePolicy=[{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]
        ),
        "spec.containers",
    ),
    "more GPUs": (
        lambda p: trainer(p)["resources"]["limits"].update({"nvidia.com/gpu": "8"}),
        "spec.containers",
    ),
    "fewer GPUs": (
        lambda p: trainer(p)["resources"]["limits"].pop("nvidia.com/gpu"),
        "spec.containers",
    ),
    "storage": (
        lambda p: trainer(p)["resources"]["limits"].update({"ephemeral-storage": "1Gi"}),
        "spec.containers",
    ),
    "a claim of devices": (
        lambda p: trainer(p)["resources"].update(claims=[{"name": "gpu"}]),
        "spec.containers",
    ),
    "another container": (
        lambda p: p["spec"]["containers"].append({"name": "x"}),
        "spec.containers",
    ),
    "amounts of the whole pod": (
        lambda p: p["spec"].update(resources={"limits": {"cpu": "1"}}),
        "spec.resources",
    ),
    "an owner": (lambda p: p["metadata"].pop("ownerReferences"), "metadata.ownerReferences"),
    "its rank": (
        lambda p: p["metadata"]["annotations"].update(
            {"batch.kubernetes.io/job-completion-index": "1"}
        ),
        "metadata.annotations",
    ),
    "a label": (lambda p: p["metadata"]["labels"].update(app="mallory"), "label app"),
}


@pytest.mark.parametrize("what", BESIDE)
def test_a_resize_changes_cpu_and_memory_of_containers_and_nothing_else(
    sealed: world.World, context: PodRulesContext, what: str
) -> None:
    """The API server drops most of it before; that it does is not relied on."""
    change, words = BESIDE[what]
    pod = larger(sealed.pod())
    change(pod)
    context = under(context, resize="Record")
    found = answer(context, pod, sealed.pod(), subresource="resize")
    assert not found.allowed
    assert words in found.message
    assert answer(context, larger(sealed.pod()), sealed.pod(), subresource="resize").allowed


def test_at_creation_the_amounts_are_those_that_were_signed(
    sealed: world.World, context: PodRulesContext
) -> None:
    found = answer(under(context, resize="Record"), larger(sealed.pod()))
    assert not found.allowed
    assert "spec.containers[0].resources.limits[memory]" in found.message


def test_a_pod_that_is_not_sealed_may_be_debugged(context: PodRulesContext) -> None:
    pod = plain(**GPU)
    pod["spec"]["ephemeralContainers"] = [{"name": "debug"}]
    assert answer(context, pod, plain(**GPU), subresource="ephemeralcontainers").allowed


# Becoming a sealed pod --------------------------------------------------------------------------


def adopted(pod: Object) -> None:
    pod["metadata"]["ownerReferences"] = [
        {"kind": "Job", "name": "char-lm-worker", "uid": world.OBJECT_UID, "controller": True}
    ]


@pytest.mark.parametrize(
    "change",
    [
        adopted,
        lambda p: p["metadata"].update(labels={JOB_LABEL: world.OBJECT_UID}),
        lambda p: p["metadata"].update(labels={SEAL_LABEL: "x"}),
        lambda p: p["metadata"].update(labels={"trainseal.dev/anything": "x"}),
    ],
)
@pytest.mark.parametrize("user", [world.EDITOR, world.JOB_CONTROLLER])
def test_no_pod_becomes_part_of_a_sealed_run_afterwards(
    context: PodRulesContext, change: Callable[[Object], object], user: str
) -> None:
    """Nor by the Job controller's hand, which adopts what bears its labels."""
    pod = plain()
    change(pod)
    assert not answer(context, pod, plain(), user=user).allowed


UNKNOWN = "a Job whose seal is not known yet"


def of_another_job(pod: Object) -> None:
    """A pod of a Job of the editor's own, without a GPU."""
    pod["metadata"]["labels"] = {JOB_LABEL: "own"}
    pod["metadata"]["ownerReferences"] = [{"kind": "Job", "uid": "own", "controller": True}]


@pytest.mark.parametrize("make", [lambda _: None, of_another_job], ids=["bare", "of a Job"])
@pytest.mark.parametrize("owned", [False, True])
def test_a_pod_does_not_come_to_bear_the_uid_of_a_job_whose_seal_is_not_known(
    context: PodRulesContext, make: Callable[[Object], object], owned: bool
) -> None:
    old, new = plain(), plain()
    make(old)
    make(new)
    new["metadata"]["labels"] = {JOB_LABEL: UNKNOWN}
    if owned:
        new["metadata"]["ownerReferences"] = [{"kind": "Job", "uid": UNKNOWN, "controller": True}]
    found = answer(context, new, old, user=world.EDITOR)
    assert not found.allowed
    assert JOB_LABEL in found.message


def test_nor_does_one_that_bears_it_already_come_to_belong_to_it(context: PodRulesContext) -> None:
    old, new = plain(), plain()
    of_another_job(old)
    of_another_job(new)
    old["metadata"].pop("ownerReferences")
    assert not answer(context, new, old, user=world.EDITOR).allowed
    # The Job controller takes its own back; it would have been refused the label.
    assert answer(context, new, old).allowed


@pytest.mark.parametrize("user", [world.EDITOR, "system:serviceaccount:kube-system:x"])
def test_a_pod_of_another_job_lives_and_is_orphaned_as_anywhere(
    context: PodRulesContext, user: str
) -> None:
    old, new = plain(), plain()
    of_another_job(old)
    of_another_job(new)
    new["metadata"]["annotations"] = {"example.org/note": "mine"}
    assert answer(context, new, old, user=user) == Response(True)
    new["metadata"].pop("ownerReferences")
    assert answer(context, new, old, user=user) == Response(True)
    bearing = plain()
    bearing["metadata"]["labels"] = {JOB_LABEL: UNKNOWN}
    assert answer(context, bearing, plain(), user=user, namespace="elsewhere").allowed


@pytest.mark.parametrize("operation", ["CREATE", "UPDATE"])
@pytest.mark.parametrize("gpus", [{}, GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize("user", [world.EDITOR, world.JOB_CONTROLLER, world.CONTROLLER])
def test_the_labels_that_a_runs_jobs_select_by_are_nobodys_to_give(
    sealed: world.World, context: PodRulesContext, operation: str, gpus: Object, user: str
) -> None:
    pod = plain(**gpus)
    pod["metadata"]["labels"] = dict(sealed.live["spec"]["selector"]["matchLabels"])
    old = plain(**gpus) if operation == "UPDATE" else None
    assert not answer(context, pod, old, user=user).allowed


@pytest.mark.parametrize(
    "change",
    [
        adopted,
        lambda p: p["metadata"].update(labels={JOB_LABEL: world.OBJECT_UID}),
        lambda p: p["metadata"].update(labels={JOB_LABEL: UNKNOWN}),
        lambda p: p["metadata"].update(labels={SEAL_LABEL: "char-lm"}),
    ],
)
def test_a_pod_that_passes_itself_off_as_a_runs_is_denied(
    context: PodRulesContext, change: Callable[[Object], object]
) -> None:
    pod = plain()
    change(pod)
    assert not answer(context, pod, user=world.EDITOR).allowed


def test_a_copy_of_a_sealed_pod_without_its_owner_is_denied(
    sealed: world.World, context: PodRulesContext
) -> None:
    pod = sealed.pod()
    del pod["metadata"]["ownerReferences"]
    assert not answer(context, pod, user=world.EDITOR).allowed


def test_a_pod_of_any_other_job_is_admitted(context: PodRulesContext) -> None:
    pod = plain()
    adopted(pod)
    pod["metadata"]["ownerReferences"][0]["uid"] = "other"
    pod["metadata"]["labels"] = {JOB_LABEL: "other"}
    assert answer(context, pod).allowed
    # What somebody makes where no policy holds is no business of ours.
    assert answer(context, pod, user=world.EDITOR, namespace="elsewhere").allowed


# Pods without a seal ----------------------------------------------------------------------------


def test_a_pod_without_a_gpu_is_admitted(context: PodRulesContext) -> None:
    assert answer(context, plain(cpu="1"), user=world.EDITOR) == Response(True)


def in_limits(pod: Object) -> None:
    pod["spec"]["containers"][0]["resources"] = {"limits": GPU}


def in_requests(pod: Object) -> None:
    pod["spec"]["containers"][0]["resources"] = {"requests": GPU}


def in_an_init_container(pod: Object) -> None:
    pod["spec"]["initContainers"] = [{"name": "x", "resources": {"limits": GPU}}]


def for_the_pod(pod: Object) -> None:
    pod["spec"]["resources"] = {"limits": GPU}


def by_claim(pod: Object) -> None:
    pod["spec"]["resourceClaims"] = [{"name": "gpu"}]


def by_class(pod: Object) -> None:
    pod["spec"]["containers"][0]["resources"] = {
        "limits": {"deviceclass.resource.kubernetes.io/gpu": "1"}
    }


def by_annotation(pod: Object) -> None:
    pod["metadata"]["annotations"] = {"cdi.k8s.io/mine": "nvidia.com/gpu=all"}


WAYS = [
    in_limits,
    in_requests,
    in_an_init_container,
    for_the_pod,
    by_claim,
    by_class,
    by_annotation,
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("namespace", ["research", "a-namespace-without-policy"])
def test_a_bare_pod_that_asks_for_a_gpu_is_denied(
    context: PodRulesContext, way: Callable[[Object], object], namespace: str
) -> None:
    pod = plain()
    way(pod)
    found = answer(context, pod, user=world.EDITOR, namespace=namespace)
    assert not found.allowed
    assert "run it as a TrainingJob" in found.message


def test_a_gpu_pod_is_admitted_where_every_policy_audits(sealed: world.World) -> None:
    audit = world.policy(mode="Audit")
    context = dataclasses.replace(sealed.context(), policies=lambda _: (audit,))
    found = answer(context, plain(**GPU))
    assert found.allowed
    assert found.warnings
    both = dataclasses.replace(context, policies=lambda _: (audit, world.policy("other")))
    assert not answer(both, plain(**GPU)).allowed
    unclear = dataclasses.replace(context, broken=lambda: (BrokenPolicy("x", "why"),))
    assert not answer(unclear, plain(**GPU)).allowed


@pytest.mark.parametrize("namespace", ["kube-system", "trainseal-system"])
def test_an_excluded_namespace_is_not_judged(context: PodRulesContext, namespace: str) -> None:
    assert answer(context, plain(**GPU), user=world.EDITOR, namespace=namespace).allowed


def test_an_update_that_asks_for_no_more_passes(context: PodRulesContext) -> None:
    """A pod from before TrainSeal must be able to end."""
    assert answer(context, plain(**GPU), plain(**GPU)).allowed
    assert not answer(context, plain(**GPU), plain()).allowed


def test_a_pod_does_not_come_to_devices_by_an_annotation_later(context: PodRulesContext) -> None:
    pod = plain()
    by_annotation(pod)
    assert "cdi.k8s.io/mine" in answer(context, pod, plain(), user=world.EDITOR).message
    before = plain()
    before["metadata"]["annotations"] = {"cdi.k8s.io/mine": "vendor.example/nic=1"}
    assert not answer(context, pod, before, user=world.EDITOR).allowed
    assert answer(context, pod, pod, user=world.EDITOR).allowed  # it was there before us


# Looking again ----------------------------------------------------------------------------------


def test_a_pod_that_is_faster_than_the_watch_is_worth_one_look(sealed: world.World) -> None:
    context = dataclasses.replace(sealed.context(), find=lambda _: None)
    first = decide(world.request(sealed.pod()), context, final=False)
    assert first == Unknown(sealed.seal["metadata"]["name"])
    second = decide(world.request(sealed.pod()), context, final=True)
    assert isinstance(second, Response)
    assert not second.allowed
    assert decide(world.request(sealed.pod()), sealed.context(), final=True) == Response(True)


def elastic(workers: int) -> world.World:
    """A run with so many workers of the two to five that are signed; its Job as it was made."""
    found = world.sealed_world(world.elastic)
    members = world.membership(workers)
    found.seal["status"]["binding"] = world.binding(found.seal, members=members)
    return found


def test_a_pod_whose_index_is_beyond_the_epochs_members_is_denied() -> None:
    run = elastic(3)
    assert answer(run.context(), run.pod(2)).allowed
    found = answer(run.context(), run.pod(3))
    assert not found.allowed
    assert "an index below 3" in found.message


def test_a_pod_that_was_faster_than_the_epoch_it_belongs_to_is_worth_one_look() -> None:
    before, after = elastic(3), elastic(4)
    pod = world.request(after.pod(3))
    assert decide(pod, before.context(), final=False) == Unknown(before.seal["metadata"]["name"])
    assert decide(pod, after.context(), final=False) == Response(True)


def test_a_pod_beyond_the_range_or_of_somebody_elses_making_is_not_looked_for() -> None:
    run = elastic(3)
    for request in (world.request(run.pod(5)), world.request(run.pod(3), user=world.EDITOR)):
        found = decide(request, run.context(), final=False)
        assert isinstance(found, Response)
        assert not found.allowed


def test_nothing_else_is_looked_up(context: PodRulesContext) -> None:
    pod = plain(**GPU)
    adopted(pod)
    pod["metadata"]["ownerReferences"][0]["uid"] = "other"
    assert isinstance(decide(world.request(pod), context, final=False), Response)
