"""What a sealed pod's template may hold, whoever signed it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from trainseal.provenance.podrules import check_template
from trainseal.provenance.refusals import TemplateContext

IMAGE = "registry.example/research/pytorch@sha256:" + "a" * 64
CONTEXT = TemplateContext(writable=("/checkpoints", "/tmp"), allowed_secrets=frozenset({"wandb"}))


@pytest.fixture
def template() -> dict[str, Any]:
    """A template that keeps every rule."""
    return {
        "metadata": {"labels": {"app": "char-lm"}},
        "spec": {
            "containers": [
                {
                    "name": "trainer",
                    "image": IMAGE,
                    "command": ["python", "/workspace/train.py", "--out", "/checkpoints/run"],
                    "env": [
                        {"name": "LR", "value": "1"},
                        {"name": "PYTHONPATH", "value": "/workspace"},
                        {"name": "HOME", "value": "/tmp"},
                        {
                            "name": "WANDB_API_KEY",
                            "valueFrom": {"secretKeyRef": {"name": "wandb", "key": "key"}},
                        },
                        {
                            "name": "POD",
                            "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}},
                        },
                    ],
                    "resources": {"limits": {"nvidia.com/gpu": 1}},
                    "securityContext": {"capabilities": {"add": ["IPC_LOCK"], "drop": ["ALL"]}},
                }
            ]
        },
    }


def reasons(template: dict[str, Any]) -> list[str]:
    return [r.reason for r in check_template(template, CONTEXT, "template")]


def test_a_template_that_keeps_every_rule_has_no_refusal(template: dict[str, Any]) -> None:
    assert reasons(template) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hostNetwork", True),
        ("hostPID", True),
        ("hostIPC", True),
        ("shareProcessNamespace", True),
        ("volumes", [{"name": "x", "hostPath": {"path": "/"}}]),
        ("nodeName", "node-1"),
        ("schedulingGates", [{"name": "x"}]),
        ("ephemeralContainers", [{"name": "x"}]),
        ("aFieldOfALaterKubernetes", {"x": 1}),
    ],
)
def test_a_pod_field_outside_the_known_ones_is_refused(
    template: dict[str, Any], field: str, value: object
) -> None:
    template["spec"][field] = value
    assert reasons(template) == ["ForbiddenField"]


@pytest.mark.parametrize("field", ["hostNetwork", "hostPID", "shareProcessNamespace"])
def test_a_host_field_that_is_switched_off_is_no_refusal(
    template: dict[str, Any], field: str
) -> None:
    template["spec"][field] = False
    assert reasons(template) == []


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("envFrom", [{"secretRef": {"name": "x"}}], "ForbiddenField"),
        ("volumeMounts", [{"name": "x", "mountPath": "/x"}], "ForbiddenField"),
        ("image", "registry.example/research/pytorch:2.1", "ImageNotByDigest"),
        ("image", "", "Malformed"),
        ("name", "trainseal-gate", "ReservedName"),
        ("restartPolicy", "Always", "RestartPolicy"),
        ("securityContext", {"privileged": True}, "Privileged"),
        ("securityContext", {"procMount": "Unmasked"}, "ProcMount"),
        ("securityContext", {"capabilities": {"add": ["SYS_PTRACE"]}}, "Capability"),
        ("securityContext", {"capabilities": {"add": ["CAP_SYS_ADMIN"]}}, "Capability"),
        ("securityContext", {"capabilities": {"add": ["all"]}}, "Capability"),
        ("workingDir", "/checkpoints/code", "WritableCode"),
        ("stdin", True, "ForbiddenField"),
    ],
)
def test_a_container_that_breaks_one_rule_is_refused_for_it(
    template: dict[str, Any], field: str, value: object, reason: str
) -> None:
    template["spec"]["containers"][0][field] = value
    assert reasons(template) == [reason]


def test_pull_secrets_need_not_be_among_those_the_trainer_may_read(
    template: dict[str, Any],
) -> None:
    template["spec"]["imagePullSecrets"] = [{"name": f"s{i}.x"} for i in range(16)]
    assert reasons(template) == []


@pytest.mark.parametrize(
    "value",
    [
        "team",
        {"name": "team"},
        ["team"],
        [{}],
        [{"name": ""}],
        [{"name": "../team"}],
        [{"name": "a..b"}],
        [{"name": "team\n"}],
        [{"name": "a" * 254}],
        [{"name": f"s{i}"} for i in range(17)],
    ],
)
def test_pull_secrets_that_are_no_names_or_too_many_are_refused(
    template: dict[str, Any], value: object
) -> None:
    template["spec"]["imagePullSecrets"] = value
    assert reasons(template) == ["PullSecret"]


@pytest.mark.parametrize("kind", ["initContainers", "containers"])
def test_every_container_is_judged(template: dict[str, Any], kind: str) -> None:
    second = copy.deepcopy(template["spec"]["containers"][0]) | {"name": "second"}
    second["securityContext"] = {"privileged": True}
    template["spec"].setdefault(kind, []).append(second)
    assert reasons(template) == ["Privileged"]


@pytest.mark.parametrize(
    "command",
    [
        ["bash", "/checkpoints/run.sh"],
        ["/checkpoints/run"],
        ["/tmp/../checkpoints/run"],
        ["//checkpoints/run"],
        ["sh", "-c", "/checkpoints/run.sh"],
        ["bash", "-lc", "set -e; source /checkpoints/env; python /workspace/train.py"],
        ["bash", "-c", "cd /checkpoints && ./run.sh"],
        ["bash", "-c", "PYTHONPATH=/tmp/lib python -m train"],
        ["bash", "-c", "bash -c 'sh /tmp/x'"],
        ["python3.11", "-u", "/tmp/train.py"],
        ["python", "-c", "import runpy; runpy.run_path('/checkpoints/x.py')"],
        ["torchrun", "--standalone", "/tmp/train.py"],
        ["torchrun", "--nproc-per-node", "2", "/tmp/train.py"],
        ["env", "PYTHONPATH=/tmp", "python", "/workspace/train.py"],
        ["env", "LR=1", "bash", "/tmp/run"],
        ["nice", "-n", "5", "/tmp/run"],
        ["tini", "--", "/tmp/run"],
    ],
    ids=" ".join,
)
def test_a_command_that_runs_from_a_writable_mount_is_refused(
    template: dict[str, Any], command: list[str]
) -> None:
    template["spec"]["containers"][0]["command"] = command
    assert reasons(template) == ["WritableCode"]


@pytest.mark.parametrize(
    "command",
    [
        ["python", "/workspace/train.py", "--checkpoints", "/checkpoints"],
        ["bash", "-c", "cd /workspace && python train.py --out /tmp/x > /tmp/log 2>&1"],
        ["bash", "/workspace/run.sh", "/checkpoints"],
        ["torchrun", "--standalone", "--log-dir", "/tmp/logs", "/workspace/train.py", "/tmp/x"],
        ["python", "-m", "train", "/checkpoints"],
        ["python", "-c", "print(open('/checkpoints/step').read())"],
        ["env", "LR=1", "OUT=/checkpoints", "python", "/workspace/train.py"],
        ["/checkpointsmith/bin/run"],
    ],
    ids=" ".join,
)
def test_a_command_that_only_writes_to_a_writable_mount_is_no_refusal(
    template: dict[str, Any], command: list[str]
) -> None:
    template["spec"]["containers"][0]["command"] = command
    assert reasons(template) == []


def test_a_relative_command_is_resolved_against_the_working_directory(
    template: dict[str, Any],
) -> None:
    template["spec"]["containers"][0] |= {"workingDir": "/", "command": ["bash", "tmp/run.sh"]}
    assert reasons(template) == ["WritableCode"]


@pytest.mark.parametrize("hook", ["postStart", "preStop"])
def test_a_lifecycle_hook_is_a_command_too(template: dict[str, Any], hook: str) -> None:
    template["spec"]["containers"][0]["lifecycle"] = {hook: {"exec": {"command": ["/tmp/x"]}}}
    assert reasons(template) == ["WritableCode"]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"name": "PYTHONPATH", "value": "/workspace:/tmp"}, "WritableCode"),
        ({"name": "LD_PRELOAD", "value": "/checkpoints/x.so"}, "WritableCode"),
        ({"name": "NCCL_NET_PLUGIN", "value": "/tmp/libnccl.so"}, "WritableCode"),
        (
            {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "x"}}},
            "UnsignedEnvironment",
        ),
        (
            {"name": "X", "valueFrom": {"secretKeyRef": {"name": "other", "key": "x"}}},
            "SecretNotListed",
        ),
        ({"name": "X", "valueFrom": {"secretKeyRef": {"name": ["wandb"]}}}, "SecretNotListed"),
        (
            {"name": "LD_PRELOAD", "valueFrom": {"secretKeyRef": {"name": "wandb", "key": "x"}}},
            "SecretNotListed",
        ),
    ],
)
def test_a_variable_from_outside_the_signed_job_or_into_a_writable_mount_is_refused(
    template: dict[str, Any], entry: dict[str, Any], reason: str
) -> None:
    template["spec"]["containers"][0]["env"].append(entry)
    assert reasons(template) == [reason]


def test_a_containers_name_that_is_no_text_is_the_api_servers_to_refuse(
    template: dict[str, Any],
) -> None:
    template["spec"]["containers"][0]["name"] = {"x": "y"}
    assert reasons(template) == []


def test_a_reserved_label_is_refused(template: dict[str, Any]) -> None:
    template["metadata"]["labels"]["trainseal.dev/seal"] = "x"
    assert reasons(template) == ["ReservedName"]


def test_a_refusal_names_its_place(template: dict[str, Any]) -> None:
    template["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    (refusal,) = check_template(template, CONTEXT, "spec.roles[0].template")
    assert refusal.path == "spec.roles[0].template.spec.containers[0].securityContext.privileged"
