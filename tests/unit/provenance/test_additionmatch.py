"""What platforms add to sealed pods: what policies name, whole, and nothing besides."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit import world
from tests.unit.leaves import leaves, place
from tests.unit.platforms import (
    PLATFORMS,
    PROXY,
    REFUSED,
    istio,
    istio_addition,
    mount,
    token_source,
    vault,
    vault_addition,
    volume,
)
from trainseal.provenance.additions import Additions
from trainseal.provenance.podmatch import ExpectedPod, compare_pod, prepare
from trainseal.provenance.policies import PolicyError

Object = dict[str, Any]
EDITORS = "registry.example/team/proxyv2@sha256:" + "e" * 64


@pytest.fixture(scope="module")
def sealed() -> world.World:
    return world.sealed_world()


def expected_of(found: world.World) -> ExpectedPod:
    return prepare("char-lm-worker", world.OBJECT_UID, 2, found.template)


def allowing(*additions: Object) -> Additions:
    return world.policy(pods={"additions": list(additions)}).additions


def found(sealed: world.World, pod: Object, additions: Additions) -> list[str]:
    return [d.path for d in compare_pod(expected_of(sealed), pod, additions)]


def container(pod: Object, name: str) -> Object:
    spec = pod["spec"]
    return next(c for c in (*spec["initContainers"], *spec["containers"]) if c["name"] == name)


# What a platform does -----------------------------------------------------------------------------


@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_a_platform_does_passes_where_the_policy_names_it_and_only_there(
    sealed: world.World, platform: str
) -> None:
    change, addition = PLATFORMS[platform]
    pod = sealed.pod()
    change(pod)
    assert found(sealed, pod, allowing(addition())) == []
    assert found(sealed, pod, Additions())


@pytest.mark.parametrize("platform", REFUSED)
def test_what_no_policy_can_name_is_refused_beside_all_that_they_name(
    sealed: world.World, platform: str
) -> None:
    change, _ = REFUSED[platform]
    pod = sealed.pod()
    change(pod)
    every = [addition() for _, addition in PLATFORMS.values()]
    assert found(sealed, pod, allowing(*every))


def test_the_page_of_figures_counts_them() -> None:
    page = (Path(__file__).parents[3] / "docs/reference/figures.md").read_text()
    assert f"{len(PLATFORMS)} of {len(PLATFORMS) + len(REFUSED)} pass" in page
    for name in (*PLATFORMS, *REFUSED):
        assert f"| {name} |" in page


def test_a_variable_of_the_pods_own_is_added_by_name_and_never_one_that_loads_code(
    sealed: world.World,
) -> None:
    pod = sealed.pod()
    source = {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.annotations['x']"}}
    container(pod, "trainer")["env"].append({"name": "WHOSE", "valueFrom": source})
    addition: Object = {"name": "x", "reason": "x", "fields": ["WHOSE"]}
    assert found(sealed, pod, allowing(addition)) == []
    assert found(sealed, pod, allowing({**addition, "fields": None, "env": [{"name": "WHOSE"}]}))
    secret = {"secretKeyRef": {"name": "s", "key": "k"}}
    container(pod, "trainer")["env"][-1]["valueFrom"] = secret
    assert found(sealed, pod, allowing(addition))
    with pytest.raises(PolicyError, match="PYTHONPATH decides which code"):
        allowing({**addition, "fields": ["PYTHONPATH"]})


def test_several_platforms_change_one_pod(sealed: world.World) -> None:
    pod = sealed.pod()
    for name in ("pod identity", "Istio", "Vault"):
        PLATFORMS[name][0](pod)
    for name in PLATFORMS.keys() - {"pod identity", "Istio", "Vault"}:
        PLATFORMS[name][0](pod)
    every = [addition() for _, addition in PLATFORMS.values()]
    assert found(sealed, pod, allowing(*every)) == []
    for missing in every:
        assert found(sealed, pod, allowing(*(a for a in every if a != missing)))


def test_an_added_container_may_stand_anywhere_and_the_gate_stays_before_what_was_signed(
    sealed: world.World,
) -> None:
    pod = sealed.pod()
    istio(pod)
    signed = pod["spec"]["initContainers"].pop()
    pod["spec"]["initContainers"].insert(1, signed)
    assert found(sealed, pod, allowing(istio_addition())) == []

    def with_helper(job: Object) -> None:
        spec = job["spec"]["roles"][0]["template"]["spec"]
        helper = copy.deepcopy(spec["containers"][0])
        helper["resources"] = {}
        spec["initContainers"] = [helper | {"name": "helper"}]

    two = world.sealed_world(with_helper)
    pod = two.pod()
    assert [c["name"] for c in pod["spec"]["initContainers"]] == ["trainseal-gate", "helper"]
    istio(pod)
    assert found(two, pod, allowing(istio_addition())) == []
    pod["spec"]["initContainers"].reverse()
    assert found(two, pod, allowing(istio_addition())) == ["spec.initContainers"]


def test_the_token_of_a_service_account_may_be_in_an_added_container() -> None:
    def mounted(job: Object) -> None:
        job["spec"]["roles"][0]["template"]["spec"]["automountServiceAccountToken"] = True

    with_token = world.sealed_world(mounted)
    pod = with_token.pod()
    istio(pod)
    (token,) = (v["name"] for v in pod["spec"]["volumes"] if v["name"].startswith("kube-api"))
    proxy = container(pod, "istio-proxy")
    place = "/var/run/secrets/kubernetes.io/serviceaccount"
    proxy["volumeMounts"].append(mount(token, place, readOnly=True))
    assert found(with_token, pod, allowing(istio_addition())) == []
    proxy["volumeMounts"][-1]["mountPath"] = "/elsewhere"
    assert found(with_token, pod, allowing(istio_addition()))


# What is not that ---------------------------------------------------------------------------------


def proxy_with(**changed: Any) -> Callable[[Object], object]:
    return lambda pod: container(pod, "istio-proxy").update(changed)


def proxy_security(**changed: Any) -> Callable[[Object], object]:
    return lambda pod: container(pod, "istio-proxy")["securityContext"].update(changed)


def proxy_mounts(*args: Any, **more: Any) -> Callable[[Object], object]:
    return lambda pod: container(pod, "istio-proxy")["volumeMounts"].append(mount(*args, **more))


def proxy_variable(**entry: Any) -> Callable[[Object], object]:
    return lambda pod: container(pod, "istio-proxy")["env"].append(entry)


def volume_with(name: str, **changed: Any) -> Callable[[Object], object]:
    def change(pod: Object) -> None:
        found = next(v for v in pod["spec"]["volumes"] if v["name"] == name)
        del found[next(k for k in found if k != "name")]
        found.update(changed)

    return change


def moved_out(pod: Object) -> None:
    spec = pod["spec"]
    proxy = container(pod, "istio-proxy")
    spec["initContainers"].remove(proxy)
    del proxy["restartPolicy"]
    spec["containers"].append(proxy)


IN_THE_PROXY = "spec.initContainers[istio-proxy]"
ATTACKS: dict[str, tuple[Callable[[Object], object], str, str]] = {
    "another image": (proxy_with(image=EDITORS), IN_THE_PROXY, "none of those listed"),
    "its image by tag": (
        proxy_with(image="registry.example/istio/proxyv2:1"),
        IN_THE_PROXY,
        "has no digest",
    ),
    "another name": (
        proxy_with(name="proxy"),
        "spec.initContainers[proxy]",
        "no policy's addition",
    ),
    "among the other containers": (
        moved_out,
        "spec.containers[istio-proxy]",
        "no policy's addition",
    ),
    "a command": (proxy_with(command=["bash"]), IN_THE_PROXY, "its command"),
    "other arguments": (proxy_with(args=["proxy", "sidecar"]), IN_THE_PROXY, "its args"),
    "the code, writable": (
        proxy_mounts("code-trainer", "/etc/istio/code"),
        IN_THE_PROXY,
        "could write to it",
    ),
    "the code, read-only and not listed": (
        proxy_mounts("code-trainer", "/etc/istio/code", readOnly=True),
        IN_THE_PROXY,
        "is not listed",
    ),
    "the checkpoints": (
        proxy_mounts("checkpoints", "/etc/istio/x"),
        IN_THE_PROXY,
        "could write to it",
    ),
    "the config as the gate has it": (
        proxy_mounts("config-source", "/etc/istio/x", readOnly=True),
        IN_THE_PROXY,
        "is the gate's",
    ),
    "a mount elsewhere": (
        proxy_mounts("istio-envoy", "/usr/local"),
        IN_THE_PROXY,
        "is not listed",
    ),
    "a mount that leaves its place": (
        proxy_mounts("istio-envoy", "/etc/istio/../x"),
        IN_THE_PROXY,
        "is not plain",
    ),
    "a mount that spreads": (
        proxy_mounts("istio-envoy", "/etc/istio/x", mountPropagation="Bidirectional"),
        IN_THE_PROXY,
        "mountPropagation",
    ),
    "privileged": (proxy_security(privileged=True), IN_THE_PROXY, "is privileged"),
    "a capability": (
        proxy_security(capabilities={"add": ["SYS_PTRACE"]}),
        IN_THE_PROXY,
        "capability SYS_PTRACE",
    ),
    "the init container's capability": (
        proxy_security(capabilities={"add": ["CAP_NET_ADMIN"]}),
        IN_THE_PROXY,
        "capability NET_ADMIN",
    ),
    "all of /proc": (proxy_security(procMount="Unmasked"), IN_THE_PROXY, "procMount"),
    "no seccomp": (
        proxy_security(seccompProfile={"type": "Unconfined"}),
        IN_THE_PROXY,
        "seccompProfile",
    ),
    "SELinux options": (
        proxy_security(seLinuxOptions={"type": "spc_t"}),
        IN_THE_PROXY,
        "seLinuxOptions",
    ),
    "a GPU": (
        proxy_with(resources={"limits": {"nvidia.com/gpu": "1"}}),
        IN_THE_PROXY,
        "asks for nvidia.com/gpu",
    ),
    "a device claim": (
        proxy_with(resources={"claims": [{"name": "x"}]}),
        IN_THE_PROXY,
        "asks for claims",
    ),
    "a raw device": (
        proxy_with(volumeDevices=[{"name": "x", "devicePath": "/dev/x"}]),
        IN_THE_PROXY,
        "volumeDevices",
    ),
    "variables of a ConfigMap": (
        proxy_with(envFrom=[{"configMapRef": {"name": "x"}}]),
        IN_THE_PROXY,
        "envFrom",
    ),
    "input by hand": (proxy_with(stdin=True), IN_THE_PROXY, "stdin"),
    "a port of the node": (
        proxy_with(ports=[{"containerPort": 80, "hostPort": 80}]),
        IN_THE_PROXY,
        "port 80 of the node",
    ),
    "a variable that is not listed": (
        proxy_variable(name="X", value="1"),
        IN_THE_PROXY,
        "variable X",
    ),
    "another value": (
        proxy_variable(name="PILOT_CERT_PROVIDER", value="mine"),
        IN_THE_PROXY,
        "variable PILOT_CERT_PROVIDER",
    ),
    "a field for a value": (
        proxy_variable(name="POD_NAMESPACE", value="kube-system"),
        IN_THE_PROXY,
        "variable POD_NAMESPACE",
    ),
    "a variable from a Secret": (
        proxy_variable(name="POD_NAMESPACE", valueFrom={"secretKeyRef": {"name": "x", "key": "y"}}),
        IN_THE_PROXY,
        "variable POD_NAMESPACE",
    ),
    "a hook": (
        proxy_with(lifecycle={"postStart": {"exec": {"command": ["sh", "-c", "x"]}}}),
        IN_THE_PROXY,
        "hook of it runs",
    ),
    "a probe of another host": (
        proxy_with(readinessProbe={"httpGet": {"host": "169.254.169.254", "port": 80}}),
        IN_THE_PROXY,
        "another host",
    ),
    "a restart policy of Kubernetes to come": (
        proxy_with(restartPolicy="OnFailure"),
        IN_THE_PROXY,
        "restartPolicy",
    ),
    "a second one": (
        lambda pod: pod["spec"]["initContainers"].append(
            copy.deepcopy(container(pod, "istio-proxy")) | {"name": "second"}
        ),
        "spec.initContainers[second]",
        "no policy's addition",
    ),
    "the node's files": (
        volume_with("istio-envoy", hostPath={"path": "/"}),
        "spec.volumes[istio-envoy]",
        "hostPath",
    ),
    "a claim": (
        volume_with("istio-envoy", persistentVolumeClaim={"claimName": "x"}),
        "spec.volumes[istio-envoy]",
        "persistentVolumeClaim",
    ),
    "a Secret": (
        volume_with("istio-envoy", secret={"secretName": "x"}),
        "spec.volumes[istio-envoy]",
        "secret",
    ),
    "another kind": (
        volume_with("istio-envoy", configMap={"name": "istio-ca-root-cert"}),
        "spec.volumes[istio-envoy]",
        "no policy's addition",
    ),
    "another ConfigMap": (
        volume_with("istiod-ca-cert", configMap={"name": "mine"}),
        "spec.volumes[istiod-ca-cert]",
        "ConfigMap mine",
    ),
    "a token for the API server": (
        volume_with("istio-token", projected={"sources": [token_source("")]}),
        "spec.volumes[istio-token]",
        "a token for the API server",
    ),
    "a Secret in a projection": (
        volume_with("istio-token", projected={"sources": [{"secret": {"name": "x"}}]}),
        "spec.volumes[istio-token]",
        "it holds secret",
    ),
    "two kinds in one": (
        lambda pod: next(v for v in pod["spec"]["volumes"] if v["name"] == "istio-envoy").update(
            hostPath={"path": "/"}
        ),
        "spec.volumes[istio-envoy]",
        "emptyDir, hostPath",
    ),
    "a field of a Kubernetes to come": (proxy_with(shares=["x"]), IN_THE_PROXY, "its shares"),
    "a mount by a variable": (
        proxy_mounts("istio-envoy", "/etc/istio/x", subPathExpr="$(X)"),
        IN_THE_PROXY,
        "subPathExpr",
    ),
    "one process namespace": (
        lambda pod: pod["spec"].update(shareProcessNamespace=True),
        "spec.shareProcessNamespace",
        "True",
    ),
}


@pytest.mark.parametrize("what", ATTACKS)
def test_an_added_container_that_is_anything_else_is_a_difference_told_by_its_place(
    sealed: world.World, what: str
) -> None:
    change, place, words = ATTACKS[what]
    pod = sealed.pod()
    istio(pod)
    change(pod)
    told = compare_pod(expected_of(sealed), pod, allowing(istio_addition()))
    assert any(d.path == place and words in d.found for d in told), told


def test_the_run_s_volumes_are_read_by_a_container_that_may_and_written_by_none(
    sealed: world.World,
) -> None:
    addition = istio_addition()
    addition["containers"][1]["mounts"].append({"volume": "*", "path": "/run-of"})
    for name in ("code-trainer", "config", "checkpoints", "scratch-0"):
        pod = sealed.pod()
        istio(pod)
        reading = mount(name, "/run-of/x", readOnly=True)
        container(pod, "istio-proxy")["volumeMounts"].append(reading)
        assert found(sealed, pod, allowing(addition)) == [], name
        del reading["readOnly"]
        assert found(sealed, pod, allowing(addition)) == [IN_THE_PROXY], name


@pytest.mark.parametrize(
    "path",
    [
        "/workspace",
        "/workspace/more",
        "/",
        "/etc",
        "/usr/lib/python3",
        "/checkpoints/x",
        "/var/run/secrets/kubernetes.io/serviceaccount",
        "/elsewhere",
    ],
)
def test_nothing_is_mounted_over_what_was_signed_or_where_nobody_said(
    sealed: world.World, path: str
) -> None:
    pod = sealed.pod()
    vault(pod)
    trainer = container(pod, "trainer")
    trainer["volumeMounts"][-1]["mountPath"] = path
    wide = vault_addition()
    wide["mounts"] = [{"volume": "vault-secrets", "path": p} for p in ("/vault", "/workspace")]
    assert found(sealed, pod, allowing(wide)) == ["spec.containers[0].volumeMounts[vault-secrets]"]


def test_a_mount_that_must_be_read_only_is(sealed: world.World) -> None:
    pod = sealed.pod()
    change, addition = PLATFORMS["pod identity"]
    change(pod)
    del container(pod, "trainer")["volumeMounts"][-1]["readOnly"]
    assert found(sealed, pod, allowing(addition())) == [
        "spec.containers[0].volumeMounts[aws-iam-token]"
    ]


# What a policy may say ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"mounts": [{"volume": "x", "path": "/usr/lib/python3"}]}, "mount path /usr/lib/python3"),
        ({"mounts": [{"volume": "x", "path": "/etc"}]}, "mount path /etc"),
        (
            {"mounts": [{"volume": "x", "path": "/var/run/secrets/kubernetes.io/x"}]},
            "mount path /var/run/secrets",
        ),
        ({"volumes": [{"name": "x", "kind": "configMap"}]}, "names none"),
        ({"volumes": [{"name": "x", "kind": "csi"}]}, "names none"),
        (
            {"containers": [{"name": "trainseal-gate", "images": [PROXY]}]},
            "container trainseal-gate has a name of TrainSeal's",
        ),
        (
            {
                "containers": [
                    {"name": "x", "images": [PROXY], "env": [{"name": "LD_PRELOAD"}]},
                ]
            },
            "variable LD_PRELOAD decides which code",
        ),
        (
            {"containers": [{"name": "x", "images": [PROXY], "fields": ["PATH"]}]},
            "variable PATH decides which code",
        ),
    ],
)
def test_a_policy_cannot_name_what_none_may_allow(part: Object, words: str) -> None:
    with pytest.raises(PolicyError, match=re.escape(words)):
        allowing({"name": "mesh", "reason": "x", **part})


# Laws ---------------------------------------------------------------------------------------------

PARTS = ("env", "labels", "annotations", "containers", "volumes", "mounts")


def taken_apart(addition: Object) -> Iterator[Object]:
    """The addition in its smallest pieces."""
    for part in PARTS:
        for item in addition.get(part, []):
            yield {"name": "x", "reason": "x", part: [item]}


PIECES = [p for _, addition in PLATFORMS.values() for p in taken_apart(addition())]
SOME = st.lists(st.sampled_from(PIECES), max_size=len(PIECES), unique_by=repr)


@given(SOME, SOME, st.sampled_from(sorted(PLATFORMS)))
@settings(max_examples=150, deadline=None)
def test_two_policies_allow_what_each_of_them_allows(
    sealed: world.World, one: list[Object], other: list[Object], platform: str
) -> None:
    pod = sealed.pod()
    PLATFORMS[platform][0](pod)
    first, second = allowing(*one), allowing(*other)
    both = set(found(sealed, pod, first.both(second)))
    assert both == set(found(sealed, pod, first)) | set(found(sealed, pod, second))
    assert both == set(found(sealed, pod, second.both(first)))


EVERYTHING = [addition() for _, addition in PLATFORMS.values()]
SIGNED = ("trainer", "trainseal-gate")


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_no_addition_excuses_another_value_of_anything_signed(
    sealed: world.World, data: st.DataObject
) -> None:
    pod = sealed.pod()
    for platform in data.draw(st.lists(st.sampled_from(["Istio", "Vault"]), unique=True)):
        PLATFORMS[platform][0](pod)
    assert found(sealed, pod, allowing(*EVERYTHING)) == []
    signed = sealed.pod()["spec"]
    name = data.draw(st.sampled_from(SIGNED))
    original = next(
        c for c in (*signed["initContainers"], *signed["containers"]) if c["name"] == name
    )
    path = data.draw(st.sampled_from(sorted(leaves(original), key=str)))
    at = place(container(pod, name), path)
    if data.draw(st.booleans()) and "requests" not in path:
        del at[path[-1]]
    else:
        other = st.sampled_from(["x", "0", 17, ["x"], {"x": "y"}])
        at[path[-1]] = data.draw(other.filter(lambda v: v != at[path[-1]]))
    assert found(sealed, pod, allowing(*EVERYTHING))


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_other_value_in_an_added_container_that_says_what_it_does_is_a_difference(
    sealed: world.World, data: st.DataObject
) -> None:
    pod = sealed.pod()
    istio(pod)
    vault(pod)
    name = data.draw(st.sampled_from(["istio-init", "istio-proxy", "vault-agent"]))
    added = container(pod, name)
    field = data.draw(st.sampled_from(["name", "image", "command", "args", "volumeMounts"]))
    other = st.sampled_from(["x", ["x"], [{"name": "code-trainer", "mountPath": "/x"}]])
    kind = list if field in ("command", "args", "volumeMounts") else str
    added[field] = data.draw(other.filter(lambda v: isinstance(v, kind) and v != added.get(field)))
    if field == "volumeMounts" and added[field] == ["x"]:
        return  # no mount at all
    assert found(sealed, pod, allowing(*EVERYTHING))


def test_the_images_of_a_repository_are_not_those_listed_by_digest(sealed: world.World) -> None:
    """Who may push to the platform's repository adds nothing to anybody's pods."""
    pod = sealed.pod()
    istio(pod)
    container(pod, "istio-proxy")["image"] = PROXY.replace("1" * 64, "f" * 64)
    assert found(sealed, pod, allowing(istio_addition())) == [IN_THE_PROXY]


def test_a_volume_of_the_template_s_name_is_the_template_s(sealed: world.World) -> None:
    pod = sealed.pod()
    pod["spec"]["volumes"].append(volume("scratch-0", "emptyDir", {}))
    addition = {"name": "x", "reason": "x", "volumes": [{"name": "*", "kind": "emptyDir"}]}
    assert found(sealed, pod, allowing(addition)) == ["spec.volumes"]
