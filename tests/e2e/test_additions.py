"""A platform that injects a sidecar: learnt under Audit, then let in as it is and not otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.lab import EDITOR, Lab, Object, make_namespace
from tests.e2e.test_training import trainseal
from tests.stage.jobs import FINISH
from tests.stage.policies import policy
from tests.stage.signing import signed
from tests.stage.waiting import eventually

MESH = "research-mesh"
PROXY = "mesh-proxy"
#: Does what sidecars do: writes files, makes a program of one and runs it, again and again.
SCRIPT = """
import os, subprocess, time
while True:
    with open("/usr/local/bin/mine", "w") as file:
        file.write("#!/bin/sh\\nexec true\\n")
    os.chmod("/usr/local/bin/mine", 0o755)
    subprocess.run(["/usr/local/bin/mine"])
    open("/etc/mesh/state", "w").close()
    time.sleep(1)
"""


def text(value: str) -> str:
    """As CEL writes it."""
    return json.dumps(value)


def injecting(kind: str, image: str, more_mounts: str = "") -> Object:
    """A mutating policy: pods of this mesh get the proxy, and a volume of its own."""
    proxy = f"""Object.spec.initContainers{{
        name: {text(PROXY)}, image: {text(image)}, restartPolicy: "Always",
        command: ["python3", "-c", {text(SCRIPT)}],
        env: [Object.spec.initContainers.env{{name: "MESH_ID", value: "mesh-1"}}],
        volumeMounts: [
          Object.spec.initContainers.volumeMounts{{name: "mesh-state", mountPath: "/etc/mesh"}}
          {more_mounts}
        ]
      }}"""
    state = """Object.spec.volumes{
        name: "mesh-state", emptyDir: Object.spec.volumes.emptyDir{medium: "Memory"}
      }"""
    expression = f"""[
      JSONPatch{{op: "add", path: "/spec/volumes/-", value: {state}}},
      JSONPatch{{op: "add", path: "/spec/initContainers/0", value: {proxy}}}
    ]"""
    rule = {
        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]
    }  # fmt: skip
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": f"mesh-{kind}"},
        "spec": {
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": MESH}},
                "objectSelector": {"matchLabels": {"mesh": kind}},
                "resourceRules": [rule],
            },
            "mutations": [
                {"patchType": "JSONPatch", "jsonPatch": {"expression": expression}},
            ],
        },
    }


def binding(kind: str) -> Object:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": f"mesh-{kind}"},
        "spec": {"policyName": f"mesh-{kind}"},
    }


def the_policy(lab: Lab, mode: str, additions: list[Any]) -> Object:
    made = policy(
        MESH, MESH, signers=[lab.alice], image_signers=[lab.platform], registries=lab.registries
    )
    made["spec"] |= {"mode": mode} | ({"pods": {"additions": additions}} if additions else {})
    return made


def meshed(lab: Lab, name: str, kind: str) -> Object:
    """A job whose pods are of a mesh of this kind."""
    job = lab.job(name, namespace=MESH)
    job["spec"]["roles"][0]["template"]["metadata"] = {"labels": {"mesh": kind}}
    return signed(job, lab.alice)


@pytest.fixture(scope="module")
def mesh(lab: Lab) -> Iterator[None]:
    """A namespace under Audit, and three platforms: one honest, two that are not what it is."""
    make_namespace(lab, MESH)
    proxy, other = lab.variant_of_image("proxy"), lab.variant_of_image("another-proxy")
    code = (
        ', Object.spec.initContainers.volumeMounts{name: "code-trainer", mountPath: "/etc/mesh/c"}'
    )
    platforms = {
        "good": injecting("good", proxy),
        "other": injecting("other", other),
        "writes": injecting("writes", proxy, code),
    }
    made = [the_policy(lab, "Audit", [])]
    for kind, platform in platforms.items():
        made += [platform, binding(kind)]
    for obj in made:
        lab.admin("apply", "-f", "-", stdin=obj)

    def at_work() -> bool:
        """Whether each of them changes pods."""
        for kind in platforms:
            pod: Object = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "probe", "namespace": MESH, "labels": {"mesh": kind}},
                "spec": {
                    "containers": [{"name": "main", "image": lab.image}],
                    "initContainers": [{"name": "init", "image": lab.image}],
                    "volumes": [{"name": "code-trainer", "emptyDir": {}}],
                },
            }
            words = ("create", "--dry-run=server", "-f", "-", "-o", "json")
            found = json.loads(lab.admin(*words, stdin=pod))
            if found["spec"]["initContainers"][0]["name"] != PROXY:
                return False
        return True

    eventually(at_work, "the platforms are at work")
    yield
    for obj in reversed(made):
        lab.delete(obj)
    lab.admin("delete", "namespace", MESH, "--wait=false")


@pytest.fixture
def enforced(lab: Lab, mesh: None, apply: Callable[[Object], Object]) -> list[Any]:
    """What was learnt under Audit, and is enforced now."""
    job = apply(meshed(lab, "learnt", "good"))
    lab.wait_for_phase(job, "Running")
    said = trainseal(
        lab, "policy", "learn-additions", "learnt", "-n", MESH, "-o", "json",
        kubeconfig=lab.target.kubeconfig,
    )  # fmt: skip
    proposal = json.loads(said)
    assert (proposal["left"], proposal["pods"], proposal["sealsVerified"]) == ([], 1, True)
    lab.delete(job)
    lab.admin("apply", "-f", "-", stdin=the_policy(lab, "Enforce", proposal["additions"]))
    additions: list[Any] = proposal["additions"]
    return additions


def findings(lab: Lab, pod: Object) -> list[Object]:
    """All that was found on the pod, by its agent and by the controller."""
    return [
        finding
        for report in lab.listed("driftreports", MESH)
        for finding in report.get("status", {}).get("findings", [])
        if pod["metadata"]["name"] in json.dumps(report)
    ]


def test_a_platforms_sidecar_is_let_in_as_it_was_learnt_and_not_otherwise(
    lab: Lab, enforced: list[Any], apply: Callable[[Object], Object]
) -> None:
    (addition,) = enforced
    (container,) = addition["containers"]
    assert (container["name"], container["init"]) == (PROXY, True)
    assert container["mounts"] == [{"volume": "mesh-state", "path": "/etc/mesh"}]

    def knows() -> bool:
        """Whether the policy has reached the webhook: nothing else is let in by it."""
        return not lab.answer(meshed(lab, "meshed", "good"))

    eventually(knows, "the webhook knows the policy")
    job = apply(meshed(lab, "meshed", "good"))
    lab.wait_for_phase(job, "Running")
    (pod,) = lab.pods(job)
    assert [c["name"] for c in pod["spec"]["initContainers"]] == [PROXY, "trainseal-gate"]

    # Who enters it is told, and it is watched; what it does itself is nobody's difference.
    name = pod["metadata"]["name"]
    lab.kubectl("exec", name, "-c", PROXY, "--", "sh", "-c", "sleep 12; true", namespace=MESH)

    def entered() -> list[Object]:
        return [f for f in findings(lab, pod) if f["id"] == "process.entered"]

    eventually(lambda: bool(entered()), "who entered the sidecar is told", seconds=30)
    (session,) = entered()
    assert (session["container"], session["user"]) == (PROXY, EDITOR)
    assert [f for f in findings(lab, pod) if f["severity"] != "Info"] == []

    lab.kubectl("exec", name, "-c", "trainer", "--", *FINISH, namespace=MESH)
    lab.wait_for_phase(job, "Succeeded")
    assert [f for f in findings(lab, pod) if f["severity"] != "Info"] == []

    for kind, words in (("other", "none of those listed"), ("writes", "could write to it")):
        refused = apply(meshed(lab, f"mesh-{kind}", kind))

        def told(job: Object = refused, words: str = words) -> bool:
            fields = "involvedObject.kind=Job"
            events = lab.listed("events", MESH, fields=fields)
            name = f"{job['metadata']['name']}-worker"
            return any(
                e["involvedObject"]["name"] == name and words in e.get("message", "")
                for e in events
            )

        eventually(told, f"the pods of the mesh that {kind} are refused")
        assert lab.pods(refused) == []


def test_a_sidecar_that_got_past_the_webhook_is_found(
    lab: Lab, enforced: list[Any], apply: Callable[[Object], Object]
) -> None:
    """As under Audit: it runs, and is told."""
    lab.admin("apply", "-f", "-", stdin=the_policy(lab, "Audit", enforced))

    job = apply(meshed(lab, "audited", "writes"))
    lab.wait_for_phase(job, "Running")
    (pod,) = lab.pods(job)

    def told() -> bool:
        return any(
            f["id"] == "pod.changed" and "could write to it" in f["message"]
            for f in findings(lab, pod)
        )

    eventually(told, "the controller tells of the mount", seconds=40)
    script = "echo 'lr = 0' >> /etc/mesh/c/wait.py"
    lab.admin("exec", "-n", MESH, pod["metadata"]["name"], "-c", PROXY, "--", "sh", "-c", script)

    def changed() -> list[Object]:
        return [f for f in findings(lab, pod) if f["id"] == "file.changed"]

    eventually(lambda: bool(changed()), "the write to signed code is found", seconds=30)
    assert {f["severity"] for f in changed()} == {"Critical"}
