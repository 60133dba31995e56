"""Group *Around the gate*: ways to a run's pods by the network, and past the pods' own doors.

What is tried is who may open it; what then passes, where policies are enforced, is tried in
tests/e2e/test_network.py.
"""

from __future__ import annotations

import contextlib
import json

from tests.attacks.case import Case, Refused, Told
from tests.attacks.cases_api import GATE, kubectl
from tests.attacks.scene import Scene
from tests.attacks.submitting import refused
from tests.cluster import CommandError
from tests.e2e.lab import EDITOR, TEAM, Lab, Object
from tests.stage.jobs import trainer
from tests.stage.signing import signed
from tests.stage.waiting import eventually

_OPERATOR = "operator@example.org"
_AS_OPERATOR = (f"--as={_OPERATOR}", "--as-group=system:masters")


def _policy(selector: Object, name: str = "mallory", **spec: object) -> Object:
    """A NetworkPolicy that lets everybody in, unless it is told otherwise."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": TEAM},
        "spec": {"podSelector": selector, "policyTypes": ["Ingress"], "ingress": [{}], **spec},
    }


def _opens_all(_: Lab) -> Object:
    return _policy({})


def _opens_by_a_label_of_ours(_: Lab) -> Object:
    return _policy({"matchLabels": {"trainseal.dev/job": "attacked"}})


def _closes_all(_: Lab) -> Object:
    return _policy({}, ingress=[])


def _for_others(_: Lab) -> Object:
    return _policy({"matchLabels": {"app": "notebook"}})


def _run_to_come(scene: Scene, name: str, selector: Object) -> list[Object]:
    """A NetworkPolicy of the editor's, and then a run: what is found on it once it has been looked
    at, which is told by what is found of the worker that the editor deletes then."""
    lab = scene.lab
    job = lab.job(name, "wait.py")
    del trainer(job)["resources"]
    job, network = signed(job, lab.alice), _policy(selector, name)
    lab.apply(network)
    try:
        lab.admin("apply", "-f", "-", stdin=job)
        seal = lab.wait_for_phase(job, "Running")["sealedRun"]
        (pod,) = lab.pods(job)
        lab.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")

        def found() -> list[Object]:
            return [s.finding for s in scene.sightings.of(TEAM, seal)]

        eventually(lambda: any(f["id"] == "pod.deleted" for f in found()), "it was looked at")
        return [f for f in found() if f["id"] == "network.opened"]
    finally:
        lab.delete(job)
        lab.delete(network)


def _opens_a_run_to_come(scene: Scene) -> float:
    (seen,) = _run_to_come(scene, "opened", {"matchLabels": {"trainseal.dev/job": "opened"}})
    assert (seen["user"], seen["severity"]) == (EDITOR, "Critical"), seen
    return 0.0


def _opens_others_before_a_run(scene: Scene) -> float:
    no_sealed = [{"key": "trainseal.dev/seal", "operator": "DoesNotExist"}]
    assert not _run_to_come(scene, "not-opened", {"matchExpressions": no_sealed})
    return 0.0


def _service(scene: Scene) -> float:
    """Made, and on record; what it leads to is asked about when somebody goes there."""
    lab, labels = scene.lab, {"trainseal.dev/job": scene.job["metadata"]["name"]}
    made: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "mallory", "namespace": scene.namespace},
        "spec": {"selector": labels, "ports": [{"port": 29500}]},
    }
    lab.apply(made)
    try:
        assert _recorded(lab, scene.namespace, EDITOR, "Create", "Service", "mallory")
    finally:
        lab.delete(made)
    return 0.0


def _other_service(scene: Scene) -> float:
    lab = scene.lab
    made: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "notebook", "namespace": scene.namespace},
        "spec": {"selector": {"app": "notebook"}, "ports": [{"port": 80}]},
    }
    lab.apply(made)
    try:
        assert not _recorded(lab, scene.namespace, EDITOR, "Create", "Service", "notebook")
    finally:
        lab.delete(made)
    return 0.0


def _recorded(lab: Lab, namespace: str, user: str, action: str, kind: str, name: str) -> bool:
    items = json.loads(lab.admin("get", "accessrecords", "-n", namespace, "-o", "json"))["items"]
    return any(
        (r["username"], r["action"], r["object"]["kind"], r["object"]["name"])
        == (user, action, kind, name)
        for r in (i["spec"] for i in items)
        if "object" in r
    )


def _by_node(scene: Scene, verb: str, path: str) -> None:
    """Through the node's proxy, by one of the cluster's operators: no editor has the right."""
    raw = f"/api/v1/nodes/{scene.pod['spec']['nodeName']}/proxy{path}"
    body: tuple[str, ...] = ("-f", "-") if verb == "create" else ()
    scene.lab.admin(*_AS_OPERATOR, verb, "--raw", raw, *body, stdin={} if body else None)


def _runs_by_node(scene: Scene) -> float:
    # What the kubelet makes of it does not matter: it is on record before.
    with contextlib.suppress(CommandError):
        _by_node(scene, "create", f"/run/{scene.namespace}/{scene.name}/trainer?cmd=true")
    node = scene.pod["spec"]["nodeName"]
    assert _recorded(scene.lab, "trainseal-system", _OPERATOR, "NodeProxy", "Node", node)
    return 0.0


def _reads_metrics_by_node(scene: Scene) -> float:
    def records() -> int:
        words = ("get", "accessrecords", "-n", "trainseal-system", "-o", "name")
        return len(scene.lab.admin(*words).splitlines())

    before = records()
    _by_node(scene, "get", "/metrics")
    assert records() == before
    return 0.0


CASES = (
    refused(
        GATE, "NetworkPolicy of one's own that opens every pod", "T1562.007", "opens the network",
        _opens_all, _closes_all, "a NetworkPolicy that closes every pod",
    ),
    refused(
        GATE, "NetworkPolicy of one's own for a run's pods", "T1557", "opens the network",
        _opens_by_a_label_of_ours, _for_others, "one for other pods",
    ),
    Case(
        GATE, "NetworkPolicy of one's own for a run to come", "T1562.007",
        Told("finding network.opened on that run, by name"),
        _opens_a_run_to_come, _opens_others_before_a_run, "one for all pods but sealed ones",
    ),
    Case(
        GATE, "label on a worker by which others would choose it", "T1557",
        Refused("found label app given by"),
        kubectl("label", "pod", "@POD", "app=mallory"),
        kubectl("annotate", "pod", "@POD", "example.org/owner=blue"), "a note on it",
    ),
    Case(
        GATE, "Service of one's own that leads to a run's pods", "T1557",
        Told("access record: Create of the Service, by name"),
        _service, _other_service, "one that leads to other pods",
    ),
    Case(
        GATE, "command in a container by the node's proxy, by an operator", "T1609",
        Told("access record: NodeProxy, by name"),
        _runs_by_node, _reads_metrics_by_node, "the node's metrics read by it",
    ),
)  # fmt: skip
