"""A platform that injects a sidecar into pods, and two that only look like it.

They are MutatingAdmissionPolicies: what they do to a pod is what a webhook of a mesh's would do.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any

from tests.e2e.lab import Lab, Object, make_namespace
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
    """A mutating policy: pods of this mesh get the proxy, and a volume of its own. The proxy is the
    first of the init containers, before the gate.
    """
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


@dataclass(frozen=True, slots=True)
class Mesh:
    """A namespace of its own under Audit, and platforms: `good`, `reads` (the code),
    `other` (another image) and `writes` (mounts the code). A pod's label says of which it is.
    """

    lab: Lab
    proxy: str
    made: tuple[Object, ...]

    @property
    def addition(self) -> Object:
        """What a policy says of the platform `good`."""
        return {
            "name": "mesh",
            "reason": "the mesh of these tests",
            "containers": [
                {
                    "name": PROXY,
                    "init": True,
                    "images": [self.proxy],
                    "command": ["python3", "-c", SCRIPT],
                    "env": [{"name": "MESH_ID", "valuePrefix": "mesh-1"}],
                    "mounts": [{"volume": "mesh-state", "path": "/etc/mesh"}],
                }
            ],
            "volumes": [{"name": "mesh-state", "kind": "emptyDir"}],
        }

    @property
    def reading(self) -> Object:
        """The same of the platform `reads`."""
        made = copy.deepcopy(self.addition)
        made["name"] = "mesh-reads"
        made["containers"][0]["mounts"].append(
            {"volume": "code-trainer", "path": "/etc/mesh/c", "readOnly": True}
        )
        return made

    def policy(self, mode: str, additions: list[Any]) -> None:
        """Applies the namespace's policy, and waits until the webhook knows it."""
        lab = self.lab
        lab.admin("apply", "-f", "-", stdin=_policy(lab, mode, additions))
        unsigned = lab.job("unsigned", namespace=MESH)
        eventually(
            lambda: bool(lab.answer(unsigned)) == (mode == "Enforce"),
            f"the webhook knows the policy, {mode}",
        )

    def job(self, name: str, kind: str) -> Object:
        """A signed job whose pods are of a mesh of this kind."""
        job = self.lab.job(name, namespace=MESH)
        job["spec"]["roles"][0]["template"]["metadata"] = {"labels": {"mesh": kind}}
        return signed(job, self.lab.alice)

    def findings(self, pod: Object) -> list[Object]:
        """All that was found on the pod, by its agent and by the controller."""
        return [
            finding
            for report in self.lab.listed("driftreports", MESH)
            for finding in report.get("status", {}).get("findings", [])
            if pod["metadata"]["name"] in json.dumps(report)
        ]

    def wait_for_refusal(self, job: Object, words: str) -> None:
        """Waits until the Job controller was refused the job's pods with these words."""
        lab, name = self.lab, f"{job['metadata']['name']}-worker"

        def told() -> bool:
            return any(
                e["involvedObject"]["name"] == name and words in e.get("message", "")
                for e in lab.listed("events", MESH, fields="involvedObject.kind=Job")
            )

        eventually(told, f"the pods of {name} are refused: {words}")
        assert lab.pods(job) == []

    def close(self) -> None:
        """Takes all of it away; waits for nothing."""
        for obj in reversed(self.made):
            self.lab.delete(obj)
        self.lab.admin("delete", "namespace", MESH, "--ignore-not-found", "--wait=false")


def open_mesh(lab: Lab) -> Mesh:
    """Makes it, and waits until each of the platforms changes pods."""
    make_namespace(lab, MESH)
    proxy, other = lab.variant_of_image("proxy"), lab.variant_of_image("another-proxy")
    mount = 'Object.spec.initContainers.volumeMounts{name: "code-trainer", mountPath: "/etc/mesh/c"'
    platforms = {
        "good": injecting("good", proxy),
        "reads": injecting("reads", proxy, f", {mount}, readOnly: true}}"),
        "other": injecting("other", other),
        "writes": injecting("writes", proxy, f", {mount}}}"),
    }
    made = [_policy(lab, "Audit", [])]
    for kind, platform in platforms.items():
        made += [platform, binding(kind)]
    for obj in made:
        lab.admin("apply", "-f", "-", stdin=obj)
    eventually(
        lambda: all(_changes_pods(lab, kind) for kind in platforms), "the platforms are at work"
    )
    return Mesh(lab, proxy, tuple(made))


def _changes_pods(lab: Lab, kind: str) -> bool:
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
    found = json.loads(lab.admin("create", "--dry-run=server", "-f", "-", "-o", "json", stdin=pod))
    return PROXY in [container["name"] for container in found["spec"]["initContainers"]]


def _policy(lab: Lab, mode: str, additions: list[Any]) -> Object:
    made = policy(
        MESH, MESH, signers=[lab.alice], image_signers=[lab.platform], registries=lab.registries
    )
    made["spec"] |= {"mode": mode} | ({"pods": {"additions": additions}} if additions else {})
    return made
