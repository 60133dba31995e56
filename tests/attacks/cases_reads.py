"""Group *Around the gate*: what makes GPU pods, GPUs that a runtime gives, Secrets of runs."""

from __future__ import annotations

import json
from typing import Any

from tests.attacks.case import Attack, Case, Refused
from tests.attacks.cases_api import GATE, pod
from tests.attacks.scene import Scene
from tests.attacks.submitting import refused, submits
from tests.cluster import CommandError
from tests.e2e.lab import EDITOR, Lab, Object, make_namespace
from tests.stage.policies import policy
from tests.stage.waiting import eventually

NAMESPACE = "research-secrets"
_ROTATOR = "system:serviceaccount:external-secrets:external-secrets"
_SECRET = "wandb"


# What makes pods ----------------------------------------------------------------------------------


def _workload(lab: Lab, kind: str, gpus: int) -> Object:
    """With pods that ask for so many GPUs."""
    labels = {"app": f"mallory-{kind}".lower()}
    made = pod(lab, gpus)
    template = {"metadata": {"labels": labels}, "spec": made["spec"]}
    spec: dict[str, Any] = {"selector": {"matchLabels": labels}, "template": template}
    if kind == "StatefulSet":
        spec["serviceName"] = "mallory"
    if kind == "CronJob":
        made["spec"]["restartPolicy"] = "Never"
        spec = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": template}}}
    return {
        "apiVersion": "batch/v1" if kind == "CronJob" else "apps/v1",
        "kind": kind,
        "metadata": {"name": labels["app"], "namespace": made["metadata"]["namespace"]},
        "spec": spec,
    }


def _makes(kind: str) -> Attack:
    """It is refused to whoever makes it, who is on record."""

    def do(scene: Scene) -> None:
        made = _workload(scene.lab, kind, 1)
        try:
            scene.lab.apply(made)
        except CommandError:
            name = made["metadata"]["name"]
            eventually(lambda: _attempted(scene.lab, kind, name), "the attempt is on record")
            raise
        scene.lab.delete(made)

    return do


def _attempted(lab: Lab, kind: str, name: str) -> bool:
    items = json.loads(lab.kubectl("get", "accessrecords", "-o", "json"))["items"]
    return any(
        (r["username"], r["action"], r["allowed"], r["object"]["kind"], r["object"]["name"])
        == (EDITOR, "Create", False, kind, name)
        for r in (i["spec"] for i in items)
        if "object" in r
    )


# By the runtime -----------------------------------------------------------------------------------


def _visible(lab: Lab, value: str) -> Object:
    made = pod(lab, 0)
    made["spec"]["containers"][0]["env"] = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": value}]
    return made


def _visible_from_elsewhere(lab: Lab) -> Object:
    made = _visible(lab, "")
    reference = {"configMapKeyRef": {"name": "mine", "key": "devices"}}
    made["spec"]["containers"][0]["env"][0] = {
        "name": "NVIDIA_VISIBLE_DEVICES",
        "valueFrom": reference,
    }
    return made


# Secrets ------------------------------------------------------------------------------------------


def _guarded(lab: Lab) -> None:
    """A namespace whose policy names who rotates a Secret, and the Secret."""
    make_namespace(lab, NAMESPACE)
    made = policy(
        NAMESPACE, NAMESPACE, signers=[lab.alice], image_signers=[lab.platform],
        registries=list(lab.registries),
    )  # fmt: skip
    made["spec"]["pods"] = {"allowedSecrets": [_SECRET], "secretRotators": [_ROTATOR]}
    lab.admin("apply", "-f", "-", stdin=made)
    _rotates(lab, "first")

    def refused() -> bool:
        try:
            _deletes(lab, "--dry-run=server")
        except CommandError as error:
            return "is read by sealed runs" in error.stderr
        return False

    eventually(refused, "the floor knows of the policy", 180)


def _secret(value: str) -> Object:
    metadata = {"name": _SECRET, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"k": value}}


def _rotates(lab: Lab, value: str) -> None:
    as_rotator = (f"--as={_ROTATOR}", "--as-group=system:masters")
    lab.admin("apply", "-f", "-", *as_rotator, stdin=_secret(value))


def _deletes(lab: Lab, *flags: str) -> None:
    lab.kubectl("delete", "secret", _SECRET, *flags, namespace=NAMESPACE)


def _edits(scene: Scene) -> None:
    _guarded(scene.lab)
    scene.lab.kubectl("apply", "-f", "-", stdin=_secret("mallory's"), namespace=NAMESPACE)


def _makes_anew(scene: Scene) -> None:
    _guarded(scene.lab)
    _deletes(scene.lab)


def _rotated(scene: Scene) -> None:
    _guarded(scene.lab)
    _rotates(scene.lab, "second")


def _of_its_own(scene: Scene) -> None:
    _guarded(scene.lab)
    own = _secret("mine")
    own["metadata"]["name"] = "of-the-team"
    for verb in ("apply", "delete"):
        scene.lab.kubectl(verb, "-f", "-", stdin=own, namespace=NAMESPACE)


CASES = (
    *(
        Case(
            GATE, f"GPU {kind}", "T1610", Refused("has pods that ask for GPUs"), _makes(kind),
            submits(lambda lab, kind=kind: _workload(lab, kind, 0)),  # type: ignore[misc]
            f"a {kind} without a GPU",
        )
        for kind in ("Deployment", "StatefulSet", "DaemonSet", "CronJob")
    ),
    refused(
        GATE, "NVIDIA_VISIBLE_DEVICES in a pod's variables", "T1610",
        "a variable NVIDIA_VISIBLE_DEVICES", lambda lab: _visible(lab, "all"),
        lambda lab: _visible(lab, "void"), "the same variable that gives none",
    ),
    refused(
        GATE, "NVIDIA_VISIBLE_DEVICES from a ConfigMap", "T1610",
        "a variable NVIDIA_VISIBLE_DEVICES", _visible_from_elsewhere,
        lambda lab: _visible(lab, "none"), "the same variable that gives no device",
    ),
    Case(
        GATE, "Secret that runs read edited", "T1565", Refused("found a change by mallory"),
        _edits, _rotated, "rotated by whom the policy names",
    ),
    Case(
        GATE, "Secret that runs read deleted, to be made anew", "T1485",
        Refused("found its deletion by mallory"), _makes_anew, _of_its_own, "one of the team's own",
    ),
)  # fmt: skip
