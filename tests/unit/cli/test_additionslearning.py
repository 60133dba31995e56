"""`trainseal policy learn-additions`: what is proposed is what was seen; the rest is told."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit import world
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_kube import FakeKube, connecting_to
from tests.unit.cli.test_checkpoints import CONFIG_MAP, KEYRING
from tests.unit.platforms import BY_HAND, PLATFORMS, identity, istio, mount, vault, volume
from trainseal.api.model import JsonObject
from trainseal.cli.additionslearning import Proposal, RolePods, propose
from trainseal.cli.additionsview import as_yaml
from trainseal.cluster import api
from trainseal.provenance.additions import Additions, compile_additions
from trainseal.provenance.podmatch import ExpectedPod, compare_pod, prepare

Object = dict[str, Any]
Change = Callable[[Object], object]


@pytest.fixture(scope="module")
def sealed() -> world.World:
    return world.sealed_world()


def expected_of(sealed: world.World) -> ExpectedPod:
    return prepare("char-lm-worker", world.OBJECT_UID, 2, sealed.template)


def running(sealed: world.World, index: int, *changes: Change) -> Object:
    pod: Object = sealed.pod(index)
    for change in changes:
        change(pod)
    pod["spec"]["nodeName"] = f"node-{index}"
    return pod


def learnt(sealed: world.World, *pods: JsonObject) -> Proposal:
    return propose([RolePods("research", "char-lm-1", "worker", expected_of(sealed), pods)])


def allowed(proposal: Proposal) -> Additions:
    return compile_additions(proposal.additions)


def differences(sealed: world.World, pod: Object, additions: Additions) -> list[str]:
    pod = copy.deepcopy(pod)
    pod["spec"].pop("nodeName", None)
    return [d.path for d in compare_pod(expected_of(sealed), pod, additions)]


def left(proposal: Proposal) -> dict[str, str]:
    return {item.place: item.why for item in proposal.left}


# What is proposed ---------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", sorted(PLATFORMS.keys() - BY_HAND))
def test_what_a_platform_did_to_all_pods_is_proposed_and_then_passes(
    sealed: world.World, platform: str
) -> None:
    pods = [running(sealed, index, PLATFORMS[platform][0]) for index in (0, 1)]
    proposal = learnt(sealed, *pods)
    assert proposal.left == ()
    assert proposal.pods == 2
    assert all(differences(sealed, pod, allowed(proposal)) == [] for pod in pods)


def test_the_proposal_is_the_istio_addition_that_one_would_write(sealed: world.World) -> None:
    pods = [running(sealed, index, istio) for index in (0, 1)]
    addition: Any
    (addition,) = (a.wire() for a in learnt(sealed, *pods).additions)
    written = PLATFORMS["Istio"][1]()
    assert [c["name"] for c in addition["containers"]] == ["istio-init", "istio-proxy"]
    for part in ("labels", "annotations", "volumes"):
        assert sorted(addition[part], key=repr) == sorted(written[part], key=repr)
    for found, wanted in zip(addition["containers"], written["containers"], strict=True):
        assert {k: v for k, v in found.items() if k != "mounts"} == {
            k: v for k, v in wanted.items() if k != "mounts"
        }


def test_a_value_that_differs_is_proposed_by_how_all_of_them_begin(sealed: world.World) -> None:
    def endpoint(value: str) -> Change:
        return lambda pod: pod["spec"]["containers"][0]["env"].append(
            {"name": "OTEL", "value": value}
        )

    one = running(sealed, 0, endpoint("http://otel.a:4317"))
    two = running(sealed, 1, endpoint("http://otel.b:4317"))
    proposal = learnt(sealed, one, two)
    (addition,) = (a.wire() for a in proposal.additions)
    assert addition["env"] == [{"name": "OTEL", "valuePrefix": "http://otel."}]
    assert proposal.left == ()


def test_no_pods_beside_the_template_no_proposal(sealed: world.World) -> None:
    proposal = learnt(sealed, running(sealed, 0), running(sealed, 1))
    assert (proposal.additions, proposal.left) == ((), ())


# What is not --------------------------------------------------------------------------------------


def variable(name: str, value: str) -> Change:
    return lambda pod: pod["spec"]["containers"][0]["env"].append({"name": name, "value": value})


def volumes(*items: Object) -> Change:
    return lambda pod: pod["spec"]["volumes"].extend(items)


def a_mount(name: str, path: str) -> Change:
    return lambda pod: pod["spec"]["containers"][0]["volumeMounts"].append(mount(name, path))


def annotated(name: str) -> Change:
    return lambda pod: pod["metadata"]["annotations"].update({name: "x"})


def proxy(**changed: Any) -> Change:
    def change(pod: Object) -> None:
        pod["spec"]["initContainers"][1].update(changed)

    return change


ALL: dict[str, tuple[list[Change], str, str]] = {
    "a variable that loads code": (
        [variable("LD_PRELOAD", "/x.so")],
        "spec.containers[0].env[LD_PRELOAD]",
        "decides which code",
    ),
    "a variable that finds code": (
        [variable("HOME", "/home/vault")],
        "spec.containers[0].env[HOME]",
        "look for code below",
    ),
    "a variable whose value says nothing": (
        [variable("X", "")],
        "spec.containers[0].env[X]",
        "any value would be allowed",
    ),
    "the node's files": (
        [volumes(volume("logs", "hostPath", {"path": "/var/log"}))],
        "spec.volumes[logs]",
        "hostPath, which no platform may add",
    ),
    "a token for the API server": (
        [volumes(volume("t", "projected", {"sources": [{"serviceAccountToken": {"path": "t"}}]}))],
        "spec.volumes[t]",
        "a token for the API server",
    ),
    "a mount over programs": (
        [volumes(volume("lib", "emptyDir", {})), a_mount("lib", "/usr/lib/python3")],
        "spec.containers[0].volumeMounts[lib]",
        "the system's",
    ),
    "a mount over code": (
        [volumes(volume("lib", "emptyDir", {})), a_mount("lib", "/workspace/x")],
        "spec.containers[0].volumeMounts[lib]",
        "overlaps /workspace",
    ),
    "an annotation of the runtime": (
        [annotated("cdi.k8s.io/x")],
        "metadata.annotations[cdi.k8s.io/x]",
        "container runtimes",
    ),
    "an image by tag": (
        [istio, proxy(image="registry.example/istio/proxyv2:1")],
        "spec.initContainers[istio-proxy]",
        "a tag can be moved",
    ),
    "a privileged container": (
        [istio, proxy(securityContext={"privileged": True})],
        "spec.initContainers[istio-proxy]",
        "is privileged",
    ),
    "a container that could write the code": (
        [istio, lambda p: p["spec"]["initContainers"][1]["volumeMounts"].append(
            mount("code-trainer", "/code")
        )],
        "spec.initContainers[istio-proxy]",
        "could write to it",
    ),
    "another account": (
        [lambda p: p["spec"].update(serviceAccountName="admin")],
        "spec.serviceAccountName",
        "admin",
    ),
    "another image of the trainer": (
        [lambda p: p["spec"]["containers"][0].update(image="x")],
        "spec.containers[0].image",
        "'x'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", ALL)
def test_what_no_policy_should_allow_is_left_with_the_reason(
    sealed: world.World, what: str
) -> None:
    changes, place, words = ALL[what]
    proposal = learnt(sealed, *(running(sealed, index, *changes) for index in (0, 1)))
    assert words in left(proposal)[place]
    assert all(item.count == 2 for item in proposal.left)


def test_what_some_pods_of_a_role_have_and_others_have_not_is_left(sealed: world.World) -> None:
    proposal = learnt(sealed, running(sealed, 0, istio), running(sealed, 1, identity))
    assert proposal.additions == ()
    why = left(proposal)
    for place in (
        "metadata.labels[security.istio.io/tlsMode]",
        "spec.initContainers[istio-proxy]",
        "spec.volumes[istio-envoy]",
        "spec.volumes[aws-iam-token]",
        "spec.containers[0].volumeMounts[aws-iam-token]",
        "spec.containers[0].env[AWS_WEB_IDENTITY_TOKEN_FILE]",
    ):
        assert why[place].startswith("1 of 2 pods of research/char-lm-1 worker"), place


def test_of_two_roles_each_may_have_its_own(sealed: world.World) -> None:
    expected = expected_of(sealed)
    pods = {"a": (running(sealed, 0, istio),), "b": (running(sealed, 1, vault),)}
    proposal = propose(
        [RolePods("research", "char-lm-1", role, expected, found) for role, found in pods.items()]
    )
    assert proposal.left == ()
    names = {c.name for a in proposal.additions for c in a.containers or ()}
    assert names == {"istio-init", "istio-proxy", "vault-agent"}


def test_a_container_that_is_not_the_same_in_all_pods_is_left(sealed: world.World) -> None:
    other = running(sealed, 1, istio, proxy(args=["proxy", "other"]))
    proposal = learnt(sealed, running(sealed, 0, istio), other)
    assert left(proposal) == {
        "spec.initContainers[istio-proxy]": "its args is not alike in all pods"
    }


# Laws ---------------------------------------------------------------------------------------------

CHANGES: list[Change] = [
    *(change for change, _ in PLATFORMS.values()),
    *(change for changes, _, _ in ALL.values() for change in changes[:1]),
]


@given(
    st.lists(st.lists(st.sampled_from(CHANGES), max_size=4, unique=True), min_size=2, max_size=2)
)
@settings(max_examples=80, deadline=None)
def test_with_the_proposal_what_is_left_is_just_what_is_told(
    sealed: world.World, changes: list[list[Change]]
) -> None:
    pods = [running(sealed, index, *found) for index, found in enumerate(changes)]
    proposal = learnt(sealed, *pods)
    additions = allowed(proposal)
    still = {path for pod in pods for path in differences(sealed, pod, additions)}
    assert still == {item.place for item in proposal.left}


@given(*2 * [st.sampled_from(sorted(PLATFORMS.keys() - BY_HAND))])
@settings(max_examples=20, deadline=None)
def test_nothing_that_no_pod_had_is_proposed(sealed: world.World, one: str, other: str) -> None:
    proposal = learnt(sealed, *(running(sealed, index, PLATFORMS[one][0]) for index in (0, 1)))
    passes = differences(sealed, running(sealed, 0, PLATFORMS[other][0]), allowed(proposal)) == []
    assert passes == (one == other)


@pytest.mark.parametrize("platform", sorted(BY_HAND))
def test_what_runtimes_act_on_is_left_to_a_person(sealed: world.World, platform: str) -> None:
    pods = [running(sealed, index, PLATFORMS[platform][0]) for index in (0, 1)]
    (item,) = learnt(sealed, *pods).left
    assert item.why.startswith("container runtimes and their hooks act on it")


# The command --------------------------------------------------------------------------------------


def dumped(sealed: world.World, *pods: Object) -> Object:
    items = [{"kind": "SealedRun", **sealed.seal}, *({**p, "kind": "Pod"} for p in pods)]
    return {"kind": "List", "items": items}


def test_a_dump_is_learnt_from_and_says_that_nobody_looked_at_its_signatures(
    sealed: world.World, tmp_path: Path, trainseal: Run
) -> None:
    file = tmp_path / "dump.json"
    file.write_text(json.dumps(dumped(sealed, running(sealed, 0, istio))))
    answer = trainseal("policy", "learn-additions", "-f", str(file))
    assert answer.code == 0, answer
    assert "nobody looked at their signatures" in answer.out
    (addition,) = yaml.safe_load(answer.out)
    assert {c["name"] for c in addition["containers"]} == {"istio-init", "istio-proxy"}


def test_what_is_left_is_the_exit_code_and_in_the_json(
    sealed: world.World, tmp_path: Path, trainseal: Run
) -> None:
    file = tmp_path / "dump.json"
    pod = running(sealed, 0, variable("LD_PRELOAD", "/x.so"))
    file.write_text(json.dumps(dumped(sealed, pod)))
    answer = trainseal("policy", "learn-additions", "-f", str(file), "-o", "json")
    said = json.loads(answer.out)
    assert (answer.code, said["additions"]) == (1, [])
    assert [item["place"] for item in said["left"]] == ["spec.containers[0].env[LD_PRELOAD]"]


def test_a_dump_without_pods_says_how_to_make_one(
    sealed: world.World, tmp_path: Path, trainseal: Run
) -> None:
    file = tmp_path / "dump.json"
    file.write_text(json.dumps(dumped(sealed)))
    answer = trainseal("policy", "learn-additions", "-f", str(file))
    assert answer.code == 2
    assert "kubectl get sealedruns,pods" in answer.err


def a_cluster(sealed: world.World, *pods: Object) -> FakeKube:
    return FakeKube(
        {
            KEYRING: copy.deepcopy(CONFIG_MAP),
            "/api/v1/namespaces/kube-system": {"metadata": {"uid": world.CLUSTER}},
            "/apis/trainseal.dev/v1alpha1/namespaces/research/sealedruns": {"items": [sealed.seal]},
            "/api/v1/namespaces/research/pods": {"items": [*pods]},
        }
    )


def test_a_cluster_is_learnt_from_by_seals_that_verify_and_by_no_others(
    sealed: world.World, trainseal: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = running(sealed, 1, vault)
    stranger["metadata"]["ownerReferences"][0]["uid"] = "another"
    kube = a_cluster(sealed, running(sealed, 0, istio), stranger)
    monkeypatch.setattr(api, "connect", connecting_to(kube))
    words = ("policy", "learn-additions", "char-lm", "-n", "research", "-o", "json")
    said = json.loads(trainseal(*words).out)
    assert (said["pods"], said["left"], said["sealsVerified"]) == (1, [], True)
    assert [c["name"] for c in said["additions"][0]["containers"]] == ["istio-init", "istio-proxy"]

    forged = copy.deepcopy(sealed.seal)
    forged["spec"]["roles"][0]["template"]["spec"]["containers"][0]["image"] = "x"
    path = "/apis/trainseal.dev/v1alpha1/namespaces/research/sealedruns"
    kube.objects[path] = {"items": [forged]}
    answer = trainseal(*words)
    assert (answer.code, answer.out) == (1, "")
    assert "seals that TrainSeal made" in answer.err


def test_text_from_a_cluster_cannot_leave_its_comment(sealed: world.World) -> None:
    pod = running(sealed, 0, annotated("cdi.k8s.io/x\n- name: evil"))
    text = "\n".join(as_yaml(learnt(sealed, pod), verified=True))
    assert not yaml.safe_load(text)
