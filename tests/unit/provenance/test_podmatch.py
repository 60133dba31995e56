"""A pod against its seal: what Kubernetes makes of the template passes, no more."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit import world
from tests.unit.leaves import leaves, place
from trainseal.provenance.additions import Additions
from trainseal.provenance.podmatch import (
    PLACEMENT,
    ExpectedPod,
    changed_parts,
    compare_pod,
    prepare,
)

Object = dict[str, Any]
INDEX = "batch.kubernetes.io/job-completion-index"
INDEX_VARIABLE = {
    "name": "JOB_COMPLETION_INDEX",
    "valueFrom": {
        "fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX}']"},
    },
}


@pytest.fixture(scope="module")
def sealed() -> world.World:
    return world.sealed_world()


def expected_of(found: world.World) -> ExpectedPod:
    return prepare("char-lm-worker", world.OBJECT_UID, 2, found.template)


def paths(expected: ExpectedPod, pod: Object, additions: Additions | None = None) -> list[str]:
    return [d.path for d in compare_pod(expected, pod, additions or Additions())]


def trainer(pod: Object) -> Object:
    found: Object = pod["spec"]["containers"][0]
    return found


def gate(pod: Object) -> Object:
    found: Object = pod["spec"]["initContainers"][0]
    return found


# What passes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, 1])
def test_a_pod_as_kubernetes_makes_it_has_no_difference(sealed: world.World, index: int) -> None:
    assert paths(expected_of(sealed), sealed.pod(index)) == []


def limit_ranger(pod: Object) -> None:
    pod["metadata"]["annotations"]["kubernetes.io/limit-ranger"] = "LimitRanger plugin set: cpu"
    gate(pod)["resources"].setdefault("limits", {})["cpu"] = "500m"
    trainer(pod)["resources"]["limits"]["cpu"] = "4"
    trainer(pod)["resources"]["requests"]["ephemeral-storage"] = "1Gi"


def always_pull(pod: Object) -> None:
    for container in (gate(pod), trainer(pod)):
        container["imagePullPolicy"] = "Always"


def older_index_variable(pod: Object) -> None:
    path = f"metadata.annotations['{INDEX}']"
    trainer(pod)["env"][-1]["valueFrom"]["fieldRef"]["fieldPath"] = path


def resize_policy(pod: Object) -> None:
    trainer(pod)["resizePolicy"] = [
        {"resourceName": "cpu", "restartPolicy": "NotRequired"},
        {"resourceName": "memory", "restartPolicy": "NotRequired"},
    ]


BENIGN: dict[str, Callable[[Object], object]] = {
    "LimitRanger": limit_ranger,
    "AlwaysPullImages": always_pull,
    "an older Kubernetes' index variable": older_index_variable,
    "the resize policy that Kubernetes 1.27 to 1.32 defaults": resize_policy,
    "PodNodeSelector": lambda p: p["spec"].update(nodeSelector={"zone": "a"}),
    "Priority": lambda p: p["spec"].update(priority=1000, priorityClassName="high"),
    "RuntimeClass": lambda p: p["spec"].update(overhead={"cpu": "100m"}),
    "the account's pull secrets": lambda p: p["spec"].update(imagePullSecrets=[{"name": "x"}]),
    "no label of the index": lambda p: p["metadata"]["labels"].pop(INDEX),
    "the labels of a Job that names no selector": lambda p: p["metadata"]["labels"].update(
        {"batch.kubernetes.io/controller-uid": world.OBJECT_UID, "job-name": "char-lm-worker"}
    ),
    "a further annotation of the Job controller": lambda p: p["metadata"]["annotations"].update(
        {"batch.kubernetes.io/job-index-failure-count": "1"}
    ),
}


@pytest.mark.parametrize("what", BENIGN)
def test_what_kubernetes_itself_adds_is_no_difference(sealed: world.World, what: str) -> None:
    pod = sealed.pod()
    BENIGN[what](pod)
    assert paths(expected_of(sealed), pod) == []


def test_the_token_of_a_service_account_passes_where_the_template_mounts_it() -> None:
    def mounted(job: Object) -> None:
        job["spec"]["roles"][0]["template"]["spec"]["automountServiceAccountToken"] = True

    found = world.sealed_world(mounted)
    pod = found.pod()
    assert pod["spec"]["volumes"][-1]["name"].startswith("kube-api-access-")
    assert paths(expected_of(found), pod) == []


def with_pull_secret(job: Object) -> None:
    template = job["spec"]["roles"][0]["template"]["spec"]
    template["imagePullSecrets"] = [{"name": "team"}]


def test_the_gates_pull_secrets_pass_as_they_were_sealed() -> None:
    found = world.sealed_world(with_pull_secret)
    assert paths(expected_of(found), found.pod()) == []


def pull_secrets_of(pod: Object) -> Object:
    (found,) = (v for v in pod["spec"]["volumes"] if v["name"] == "pull-secrets")
    sources: Object = found["projected"]["sources"][0]["secret"]
    return sources


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (
            lambda p: trainer(p)["volumeMounts"].append(
                {"name": "pull-secrets", "mountPath": "/x", "readOnly": True}
            ),
            "spec.containers[0].volumeMounts",
        ),
        (lambda p: gate(p)["volumeMounts"].pop(), "spec.initContainers[0].volumeMounts"),
        (lambda p: pull_secrets_of(p).update(name="other"), "spec.volumes"),
        (
            lambda p: pull_secrets_of(p)["items"].append({"key": "token", "path": "token"}),
            "spec.volumes",
        ),
    ],
)
def test_pull_secrets_for_another_container_or_another_secret_are_a_difference(
    change: Callable[[Object], object], place: str
) -> None:
    found = world.sealed_world(with_pull_secret)
    pod = found.pod()
    change(pod)
    different = paths(expected_of(found), pod)
    assert different
    assert all(path.startswith(place) for path in different)


# What does not ----------------------------------------------------------------------------------


def forged_token(pod: Object) -> None:
    """A projected volume that poses as the token and brings another ConfigMap to the mount."""
    world.add_token(pod["spec"])


def rank_of_another(pod: Object) -> None:
    pod["metadata"]["labels"][INDEX] = "1"


def duplicated(pod: Object) -> None:
    trainer(pod)["env"].insert(0, trainer(pod)["env"][0])


def swapped(pod: Object) -> None:
    env = trainer(pod)["env"]
    env[0], env[1] = env[1], env[0]


def sidecar(pod: Object) -> None:
    pod["spec"]["containers"].append(copy.deepcopy(trainer(pod)) | {"name": "sidecar"})


def without_gate(pod: Object) -> None:
    del pod["spec"]["initContainers"]


def owner_without_control(pod: Object) -> None:
    del pod["metadata"]["ownerReferences"][0]["controller"]


def second_owner(pod: Object) -> None:
    pod["metadata"]["ownerReferences"].append({"uid": "x", "kind": "ConfigMap", "name": "x"})


ATTACKS: dict[str, tuple[Callable[[Object], object], str]] = {
    "another owner": (
        lambda p: p["metadata"]["ownerReferences"][0].update(uid="other"),
        "metadata.ownerReferences",
    ),
    "no owner": (lambda p: p["metadata"].pop("ownerReferences"), "metadata.ownerReferences"),
    "an owner that does not control it": (owner_without_control, "metadata.ownerReferences"),
    "a second owner": (second_owner, "metadata.ownerReferences"),
    "its index beyond the replicas": (
        lambda p: p["metadata"]["annotations"].update({INDEX: "2"}),
        f"metadata.annotations[{INDEX}]",
    ),
    "an index written otherwise": (
        lambda p: p["metadata"]["annotations"].update({INDEX: "00"}),
        f"metadata.annotations[{INDEX}]",
    ),
    "an index of thousands of digits": (
        lambda p: p["metadata"]["annotations"].update({INDEX: "1" * 5000}),
        f"metadata.annotations[{INDEX}]",
    ),
    "an index in other digits": (
        lambda p: p["metadata"]["annotations"].update({INDEX: "\u0661"}),
        f"metadata.annotations[{INDEX}]",
    ),
    "another rank in its label": (rank_of_another, f"metadata.labels[{INDEX}]"),
    "another host name": (lambda p: p["spec"].update(hostname="char-lm-worker-1"), "spec.hostname"),
    "no host name": (lambda p: p["spec"].pop("hostname"), "spec.hostname"),
    "another Job's UID": (
        lambda p: p["metadata"]["labels"].update({"batch.kubernetes.io/controller-uid": "x"}),
        "metadata.labels[batch.kubernetes.io/controller-uid]",
    ),
    "another Job's name": (
        lambda p: p["metadata"]["labels"].update({"batch.kubernetes.io/job-name": "x"}),
        "metadata.labels[batch.kubernetes.io/job-name]",
    ),
    "a label of its own": (
        lambda p: p["metadata"]["labels"].update({"job-name-too": "x"}),
        "metadata.labels[job-name-too]",
    ),
    "another seal's label": (
        lambda p: p["metadata"]["labels"].update({"trainseal.dev/seal": "x"}),
        "metadata.labels[trainseal.dev/seal]",
    ),
    "a device by annotation": (
        lambda p: p["metadata"]["annotations"].update({"cdi.k8s.io/x": "vendor.example/dev=all"}),
        "metadata.annotations[cdi.k8s.io/x]",
    ),
    "a node of its own choice": (lambda p: p["spec"].update(nodeName="node-1"), "spec.nodeName"),
    "an ephemeral container": (
        lambda p: p["spec"].update(ephemeralContainers=[{"name": "x"}]),
        "spec.ephemeralContainers",
    ),
    "the host's processes": (lambda p: p["spec"].update(hostPID=True), "spec.hostPID"),
    "user namespaces": (lambda p: p["spec"].update(hostUsers=True), "spec.hostUsers"),
    "service links": (
        lambda p: p["spec"].update(enableServiceLinks=True),
        "spec.enableServiceLinks",
    ),
    "another account": (
        lambda p: p["spec"].update(serviceAccountName="admin"),
        "spec.serviceAccountName",
    ),
    "a pod-wide user": (
        lambda p: p["spec"].update(securityContext={"runAsUser": 0}),
        "spec.securityContext",
    ),
    "a sidecar": (sidecar, "spec.containers[sidecar]"),
    "no gate": (without_gate, "spec.initContainers"),
    "another image": (
        lambda p: trainer(p).update(image=world.IMAGE.replace("a" * 64, "b" * 64)),
        "spec.containers[0].image",
    ),
    "an image that is never pulled": (
        lambda p: trainer(p).update(imagePullPolicy="Never"),
        "spec.containers[0].imagePullPolicy",
    ),
    "another command": (
        lambda p: trainer(p).update(command=["bash"]),
        "spec.containers[0].command",
    ),
    "a lifecycle hook": (
        lambda p: trainer(p).update(lifecycle={"postStart": {}}),
        "spec.containers[0].lifecycle",
    ),
    "unmasked /proc": (
        lambda p: trainer(p).update(securityContext={"procMount": "Unmasked"}),
        "spec.containers[0].securityContext",
    ),
    "a variable from a Secret": (
        lambda p: trainer(p).update(envFrom=[{"secretRef": {"name": "x"}}]),
        "spec.containers[0].envFrom",
    ),
    "a restart in place": (
        lambda p: trainer(p).update(
            resizePolicy=[{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]
        ),
        "spec.containers[0].resizePolicy",
    ),
    "the gate's arguments": (
        lambda p: gate(p).update(args=["gate", "--plan", "{}"]),
        "spec.initContainers[0].args",
    ),
    "a further variable": (
        lambda p: trainer(p)["env"].append({"name": "X", "value": "1"}),
        "spec.containers[0].env[X]",
    ),
    "a variable twice": (duplicated, "spec.containers[0].env"),
    "variables in another order": (swapped, "spec.containers[0].env"),
    "a variable less": (
        lambda p: trainer(p)["env"].pop(0),
        "spec.containers[0].env[OMP_NUM_THREADS]",
    ),
    "an index variable that is a value": (
        lambda p: trainer(p)["env"][-1].update({"value": "0", "valueFrom": {}}),
        "spec.containers[0].env[JOB_COMPLETION_INDEX]",
    ),
    "an index variable twice": (
        lambda p: trainer(p)["env"].append(INDEX_VARIABLE),
        "spec.containers[0].env[JOB_COMPLETION_INDEX]",
    ),
    "a code mount made writable": (
        lambda p: trainer(p)["volumeMounts"][0].pop("readOnly"),
        "spec.containers[0].volumeMounts[code-trainer]",
    ),
    "a mount elsewhere in its volume": (
        lambda p: trainer(p)["volumeMounts"][2].update(subPath="elsewhere"),
        "spec.containers[0].volumeMounts[checkpoints]",
    ),
    "mounts in another order": (
        lambda p: trainer(p)["volumeMounts"].reverse(),
        "spec.containers[0].volumeMounts",
    ),
    "a mount where tokens are": (
        lambda p: trainer(p)["volumeMounts"].append(
            {"name": "checkpoints", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
        ),
        "spec.containers[0].volumeMounts[checkpoints]",
    ),
    "another claim": (
        lambda p: p["spec"]["volumes"][3].update(persistentVolumeClaim={"claimName": "x"}),
        "spec.volumes[checkpoints]",
    ),
    "a ConfigMap for the code": (
        lambda p: p["spec"]["volumes"].__setitem__(
            0, {"name": "code-trainer", "configMap": {"name": "x"}}
        ),
        "spec.volumes[code-trainer]",
    ),
    "a volume of the same name": (
        lambda p: p["spec"]["volumes"].append(p["spec"]["volumes"][0]),
        "spec.volumes",
    ),
    "a token nobody signed": (forged_token, "spec.volumes[kube-api-access-x7kq2]"),
    "more GPUs": (
        lambda p: trainer(p)["resources"]["limits"].update({"nvidia.com/gpu": "8"}),
        "spec.containers[0].resources.limits[nvidia.com/gpu]",
    ),
    "a GPU for the gate": (
        lambda p: gate(p)["resources"].update(limits={"nvidia.com/gpu": "1"}),
        "spec.initContainers[0].resources.limits[nvidia.com/gpu]",
    ),
    "less memory": (
        lambda p: trainer(p)["resources"]["limits"].update(memory="1Gi"),
        "spec.containers[0].resources.limits[memory]",
    ),
    "a device claim": (
        lambda p: trainer(p)["resources"].update(claims=[{"name": "x"}]),
        "spec.containers[0].resources.claims",
    ),
}


@pytest.mark.parametrize("what", ATTACKS)
def test_a_pod_that_differs_in_one_thing_is_told_apart_by_its_place(
    sealed: world.World, what: str
) -> None:
    change, place = ATTACKS[what]
    pod = sealed.pod()
    change(pod)
    assert place in paths(expected_of(sealed), pod)


def test_an_index_variable_that_was_signed_is_not_overridden() -> None:
    def signed(job: Object) -> None:
        env = job["spec"]["roles"][0]["template"]["spec"]["containers"][0]["env"]
        env.append({"name": "JOB_COMPLETION_INDEX", "value": "5"})

    found = world.sealed_world(signed)
    pod = found.pod()
    # The Job controller adds its own only where there is none of that name.
    trainer(pod)["env"].pop()
    assert paths(expected_of(found), pod) == []
    trainer(pod)["env"].append(INDEX_VARIABLE)
    assert paths(expected_of(found), pod) == ["spec.containers[0].env[JOB_COMPLETION_INDEX]"]


def test_a_variable_signed_twice_keeps_the_value_that_counts() -> None:
    def signed(job: Object) -> None:
        env = job["spec"]["roles"][0]["template"]["spec"]["containers"][0]["env"]
        env += [{"name": "SEED", "value": "18"}]

    found = world.sealed_world(signed)
    pod = found.pod()
    assert paths(expected_of(found), pod) == []
    trainer(pod)["env"].insert(3, {"name": "SEED", "value": "17"})
    assert paths(expected_of(found), pod) == ["spec.containers[0].env"]


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v["projected"]["sources"][1]["configMap"].update(name="mine"),
        lambda v: v["projected"]["sources"][1]["configMap"].update(
            items=[{"key": "evil.py", "path": "ca.crt"}]
        ),
        lambda v: v["projected"]["sources"].append({"secret": {"name": "x"}}),
        lambda v: v["projected"]["sources"][0]["serviceAccountToken"].update(audience="x"),
        lambda v: v["projected"].update(defaultMode=511),
        lambda v: v.update(hostPath={"path": "/"}),
    ],
)
def test_a_volume_that_poses_as_the_token_is_a_difference(
    change: Callable[[Object], object],
) -> None:
    def mounted(job: Object) -> None:
        job["spec"]["roles"][0]["template"]["spec"]["automountServiceAccountToken"] = True

    found = world.sealed_world(mounted)
    pod = found.pod()
    change(pod["spec"]["volumes"][-1])
    assert "spec.volumes[kube-api-access-x7kq2]" in paths(expected_of(found), pod)


# A policy's additions ---------------------------------------------------------------------------

MESH = Additions(
    env={"MESH": ("v1-", "v2-"), "LD_PRELOAD": ("",)},
    labels=frozenset({"mesh.example/rev"}),
    annotations=frozenset({"mesh.example/status"}),
)


def test_what_a_policy_names_may_be_added(sealed: world.World) -> None:
    pod = sealed.pod()
    pod["metadata"]["labels"]["mesh.example/rev"] = "1"
    pod["metadata"]["annotations"]["mesh.example/status"] = "injected"
    trainer(pod)["env"].append({"name": "MESH", "value": "v2-x"})
    trainer(pod)["env"].insert(0, {"name": "MESH", "value": "v1-x"})
    assert paths(expected_of(sealed), pod, MESH) == []
    assert len(paths(expected_of(sealed), pod)) == 4


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "MESH", "value": "v3-x"},
        {"name": "MESH", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}},
        {"name": "MESH", "value": "v1-", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "LD_PRELOAD", "value": "/x.so"},
        {"name": "mesh", "value": "v1-"},
    ],
)
def test_an_addition_holds_for_its_name_and_its_literal_value_alone(
    sealed: world.World, entry: Object
) -> None:
    pod = sealed.pod()
    trainer(pod)["env"].append(entry)
    assert paths(expected_of(sealed), pod, MESH) == [f"spec.containers[0].env[{entry['name']}]"]


def test_an_addition_does_not_change_what_was_signed(sealed: world.World) -> None:
    pod = sealed.pod()
    trainer(pod)["env"].insert(2, {"name": "SEED", "value": "18"})
    found = paths(expected_of(sealed), pod, Additions(env={"SEED": ("",)}))
    assert found == ["spec.containers[0].env[SEED]"]


def test_two_policies_allow_what_both_allow() -> None:
    one = Additions({"A": ("abc", "x"), "B": ("",)}, frozenset("lm"), frozenset("a"))
    other = Additions({"A": ("ab", "y"), "C": ("",)}, frozenset("mn"), frozenset("a"))
    both = Additions({"A": ("abc",)}, frozenset("m"), frozenset("a"))
    assert one.both(other) == other.both(one) == both


# Laws -------------------------------------------------------------------------------------------


#: Where Kubernetes itself may write, as the tests above say; everything else is judged.
FREE = ("serviceAccount", "imagePullSecrets", *PLACEMENT)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_other_value_of_any_field_is_a_difference(
    sealed: world.World, data: st.DataObject
) -> None:
    pod = sealed.pod()
    places = [p for p in leaves(pod["spec"]) if p[0] not in FREE]
    path = data.draw(st.sampled_from(sorted(places, key=str)))
    at = place(pod["spec"], path)
    other = st.sampled_from(["x", "0", 17, ["x"], {"x": "y"}])
    at[path[-1]] = data.draw(other.filter(lambda v: v != at[path[-1]]))
    assert compare_pod(expected_of(sealed), pod, Additions())


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_field_that_is_taken_away_is_a_difference(
    sealed: world.World, data: st.DataObject
) -> None:
    pod = sealed.pod()
    places = [p for p in leaves(pod["spec"]) if p[0] not in (*FREE, "serviceAccountName")]
    places = [p for p in places if "requests" not in p]
    path = data.draw(st.sampled_from(sorted(places, key=str)))
    at = place(pod["spec"], path)
    del at[path[-1]]
    assert compare_pod(expected_of(sealed), pod, Additions())


@given(st.sampled_from(sorted(PLACEMENT - {"nodeName"})), st.dictionaries(st.text(), st.text()))
def test_no_placement_is_a_difference(
    sealed: world.World, field: str, value: dict[str, str]
) -> None:
    pod = sealed.pod()
    pod["spec"][field] = value
    assert paths(expected_of(sealed), pod) == []


# Updates ----------------------------------------------------------------------------------------

UPDATES: dict[str, tuple[Callable[[Object], object], str]] = {
    "another image": (lambda p: trainer(p).update(image="x"), "spec.containers"),
    "another image for the gate": (lambda p: gate(p).update(image="x"), "spec.initContainers"),
    "an ephemeral container": (
        lambda p: p["spec"].update(ephemeralContainers=[{"name": "x"}]),
        "spec.ephemeralContainers",
    ),
    "a deadline": (
        lambda p: p["spec"].update(activeDeadlineSeconds=1),
        "spec.activeDeadlineSeconds",
    ),
    "another rank": (
        lambda p: p["metadata"]["annotations"].update({INDEX: "1"}),
        f"metadata.annotations[{INDEX}]",
    ),
    "another rank for the trainer": (
        lambda p: p["metadata"]["labels"].update({INDEX: "1"}),
        f"metadata.labels[{INDEX}]",
    ),
    "no label of the seal": (
        lambda p: p["metadata"]["labels"].pop("trainseal.dev/seal"),
        "metadata.labels[trainseal.dev/seal]",
    ),
    "another label of the template": (
        lambda p: p["metadata"]["labels"].update(team="x"),
        "metadata.labels[team]",
    ),
    "a label of another Job": (
        lambda p: p["metadata"]["labels"].update({"batch.kubernetes.io/controller-uid": "x"}),
        "metadata.labels[batch.kubernetes.io/controller-uid]",
    ),
    "no label of its role": (
        lambda p: p["metadata"]["labels"].pop("trainseal.dev/role"),
        "metadata.labels[trainseal.dev/role]",
    ),
    "no owner": (lambda p: p["metadata"].pop("ownerReferences"), "metadata.ownerReferences"),
    "an owner that does not control it": (owner_without_control, "metadata.ownerReferences"),
    "what a runtime acts on": (
        lambda p: p["metadata"]["annotations"].update({"cdi.k8s.io/x": "y"}),
        "metadata.annotations[cdi.k8s.io/x]",
    ),
}


@pytest.mark.parametrize("what", UPDATES)
def test_a_sealed_pod_stays_what_it_is(sealed: world.World, what: str) -> None:
    change, place = UPDATES[what]
    pod = sealed.pod()
    change(pod)
    assert changed_parts(sealed.pod(), pod, expected_of(sealed)) == (place,)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p["metadata"].pop("finalizers"),
        lambda p: p["metadata"].update(deletionTimestamp="2026-11-23T12:00:00Z"),
        lambda p: p["metadata"]["annotations"].update({"cni.example/podIP": "10.0.0.1"}),
        lambda p: p["metadata"]["labels"].update({"note": "mine"}),
        lambda p: p["metadata"]["ownerReferences"][0].update(blockOwnerDeletion=False),
        lambda p: p["spec"].update(tolerations=[{"operator": "Exists"}]),
        lambda p: p["spec"].update(nodeSelector={"zone": "a"}),
        lambda p: p.update(status={"phase": "Failed"}),
    ],
)
def test_what_the_cluster_writes_to_a_living_pod_passes(
    sealed: world.World, change: Callable[[Object], object]
) -> None:
    pod = sealed.pod()
    change(pod)
    assert changed_parts(sealed.pod(), pod, expected_of(sealed)) == ()


GATES = [{"name": "platform.example/checked"}, {"name": "kueue.x-k8s.io/topology"}]


@pytest.mark.parametrize("left", [GATES[:1], GATES[1:], None])
def test_gates_may_be_taken_away_while_the_pod_waits_and_nothing_else_with_them(
    left: list[Object] | None,
) -> None:
    """They are removed from pods that were made with the gates of ``spec.scheduling``."""
    sealed = world.sealed_world(lambda j: j["spec"].update(scheduling={"schedulingGates": GATES}))
    assert sealed.template["spec"]["schedulingGates"] == GATES
    waiting, pod = sealed.pod(), sealed.pod()
    assert compare_pod(expected_of(sealed), waiting, Additions()) == ()
    if left is None:
        del pod["spec"]["schedulingGates"]
    else:
        pod["spec"]["schedulingGates"] = left
    assert changed_parts(waiting, pod, expected_of(sealed)) == ()
    assert compare_pod(expected_of(sealed), pod, Additions()) == ()
    trainer(pod)["image"] = "x"
    assert changed_parts(waiting, pod, expected_of(sealed)) == ("spec.containers",)


def test_without_its_seal_a_pod_is_held_to_what_ties_it_to_its_run(sealed: world.World) -> None:
    pod = sealed.pod()
    pod["metadata"]["labels"]["team"] = "x"
    assert changed_parts(sealed.pod(), pod, None) == ()
    trainer(pod)["image"] = "x"
    assert changed_parts(sealed.pod(), pod, None) == ("spec.containers",)


# Values from the pod ----------------------------------------------------------------------------

FLAVOR = "example.org/flavor"


def from_annotation(name: str) -> Object:
    path = f"metadata.annotations['{name}']"
    return {"name": "FLAVOR", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def with_flavor(job: Object) -> None:
    template = job["spec"]["roles"][0]["template"]
    template["metadata"]["annotations"] = {FLAVOR: "small"}
    template["spec"]["containers"][0]["env"].append(from_annotation(FLAVOR))


@pytest.mark.parametrize("value", ["large", None])
@pytest.mark.parametrize("known", [True, False])
def test_an_annotation_that_a_variable_is_read_from_stays(known: bool, value: str | None) -> None:
    found = world.sealed_world(with_flavor)
    expected = expected_of(found) if known else None  # the seal is not known everywhere at once
    pod = found.pod()
    assert paths(expected_of(found), pod) == []
    pod["metadata"]["annotations"][FLAVOR] = value
    assert changed_parts(found.pod(), pod, expected) == (f"metadata.annotations[{FLAVOR}]",)
    assert paths(expected_of(found), pod) == [f"metadata.annotations[{FLAVOR}]"]


def test_one_that_nothing_is_read_from_is_anybodys() -> None:
    found = world.sealed_world(with_flavor)
    pod = found.pod()
    pod["metadata"]["annotations"]["example.org/note"] = "mine"
    assert changed_parts(found.pod(), pod, expected_of(found)) == ()


def test_a_key_that_the_template_does_not_have_is_guarded_where_an_older_seal_refers_to_it(
    sealed: world.World,
) -> None:
    old = sealed.pod()
    trainer(old)["env"].append(from_annotation("x"))
    new = copy.deepcopy(old)
    new["metadata"]["annotations"]["x"] = "/ckpt/evil.so"
    assert changed_parts(old, new, expected_of(sealed)) == ("metadata.annotations[x]",)
