"""Runs by engines of others: how they are made, followed, ended; and what their editor may do."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable
from typing import Any

from tests.cluster import CommandError
from tests.e2e.lab import EDITOR, TEAM, Lab
from tests.stage.jobs import FINISH, SHORT_CODE, trainer
from tests.stage.waiting import eventually

Object = dict[str, Any]
Apply = Callable[[Object], Object]
_RBAC = "rbac.authorization.k8s.io"


def let_editor_edit(lab: Lab, name: str, *groups: str) -> None:
    """Who edits may make and change all of these API groups as well: the role edit knows none."""
    named = {"name": name, "namespace": TEAM}
    rules = [{"apiGroups": [*groups], "resources": ["*"], "verbs": ["*"]}]
    role = {"apiVersion": f"{_RBAC}/v1", "kind": "Role", "metadata": named, "rules": rules}
    binding = {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": named,
        "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": name},
        "subjects": [{"apiGroup": _RBAC, "kind": "User", "name": EDITOR}],
    }
    for obj in (role, binding):
        lab.admin("apply", "-f", "-", stdin=obj)


def with_server(job: Object) -> Object:
    """The same with two workers, and a server beside them."""
    (worker,) = job["spec"]["roles"]
    worker["replicas"] = 2
    server = copy.deepcopy(worker) | {"name": "server", "replicas": 1}
    job["spec"]["roles"].append(server)
    return job


def with_failing_server(lab: Lab, job: Object) -> Object:
    """The same whose second role's worker fails each time."""
    files = {**SHORT_CODE, "fail.py": "raise SystemExit(3)\n"}
    reference = lab.push_tree(job["metadata"]["name"], files, lab.alice)
    job["spec"]["code"][0]["oci"]["reference"] = reference
    server = job["spec"]["roles"][1]["template"]["spec"]["containers"][0]
    server["command"] = ["python3", "/workspace/fail.py"]
    return job


def own_pod(lab: Lab, gpus: int, container: str = "main") -> Object:
    """The spec of a pod of the editor's own."""
    limits = {"nvidia.com/gpu": gpus} if gpus else {}
    one = {"name": container, "image": lab.image, "resources": {"limits": limits}}
    return {"restartPolicy": "Never", "containers": [one]}


def tried(lab: Lab) -> set[str]:
    """Kind and name of what people tried past the gate."""
    specs = [r["spec"] for r in lab.listed("accessrecords")]
    objects = [spec["object"] for spec in specs if "object" in spec]
    return {f"{o['kind']} {o['name']}" for o in objects}


def running(lab: Lab, job: Object) -> list[Object]:
    """Pods that have not ended."""
    return [p for p in lab.pods(job) if p["status"]["phase"] in ("Pending", "Running")]


def suspend(lab: Lab, job: Object, value: bool) -> None:
    """As its user."""
    patch = f'{{"spec":{{"suspend":{str(value).lower()}}}}}'
    name = job["metadata"]["name"]
    lab.kubectl("patch", "trainingjob", name, "--type=merge", "-p", patch)


def finish(lab: Lab, job: Object) -> None:
    """Lets each worker end well, once it waits for that."""
    container = trainer(job)["name"]
    for worker in running(lab, job):
        name = worker["metadata"]["name"]
        eventually(functools.partial(_trains, lab, name, container), f"{name} trains")
        with contextlib.suppress(CommandError):  # it may end before the session does
            lab.admin("exec", "-n", TEAM, name, "-c", container, "--", *FINISH)


def _trains(lab: Lab, name: str, container: str) -> bool:
    try:
        return "training" in lab.admin("logs", "-n", TEAM, name, "-c", container)
    except CommandError:  # it is still being made
        return False


def found_on(lab: Lab, job: Object) -> list[str]:
    """Ids of findings on what the run is made of: its objects, and its pods as such."""
    return found_of(lab, str(lab.status(job).get("sealedRun")))


def found_of(lab: Lab, seal: str) -> list[str]:
    """The same, of a seal whose run may be gone."""
    return [
        finding["id"]
        for report in lab.listed("driftreports", labels=f"trainseal.dev/seal={seal}")
        for finding in report.get("status", {}).get("findings", [])
        if finding["id"].startswith(("object.", "pod."))
    ]
