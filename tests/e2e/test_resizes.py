"""A worker that is resized in place: its cgroup and its status change, the run goes on, and what is
on record is no finding.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator

import pytest

from tests.cluster import CommandError
from tests.e2e.lab import EDITOR, TEAM, Lab, Object
from tests.e2e.test_access import records
from tests.e2e.test_disturbances import found, ids, name_of, runs_again, start, terminate, worker
from tests.stage.jobs import trainer
from tests.stage.signing import signed
from tests.stage.waiting import eventually

__all__ = ["start"]  # a fixture
_CGROUPS = (
    "cat /sys/fs/cgroup/cpu.max 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us",
    "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes",
)


@pytest.fixture
def resizable(lab: Lab) -> Iterator[None]:
    """The team's policy lets resizes through; the editor has the right, which no role gives."""
    _say(lab, {"resize": "Record"})
    right: tuple[Object, ...] = (
        {
            "kind": "Role",
            "rules": [{"apiGroups": [""], "resources": ["pods/resize"], "verbs": ["get", "patch"]}],
        },
        {
            "kind": "RoleBinding",
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "Role",
                "name": "resize",
            },
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": EDITOR}],
        },
    )
    made = [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "metadata": {"name": "resize", "namespace": TEAM},
            **obj,
        }
        for obj in right
    ]
    for obj in made:
        lab.admin("apply", "-f", "-", stdin=obj)
    yield
    for obj in made:
        lab.delete(obj)
    _say(lab, None)


def _say(lab: Lab, access: Object | None) -> None:
    words = json.dumps({"spec": {"access": access}})
    lab.admin("patch", "provenancepolicy", TEAM, "--type=merge", "-p", words)


def _resize(lab: Lab, pod: Object, **limits: str) -> str:
    """The refusal, or nothing."""
    resources = {"requests": limits, "limits": limits}
    patch = json.dumps({"spec": {"containers": [{"name": "trainer", "resources": resources}]}})
    try:
        lab.kubectl("patch", "pod", name_of(pod), "--subresource=resize", "-p", patch)
    except CommandError as error:
        return error.stderr
    return ""


def _cgroups(lab: Lab, pod: Object) -> list[int]:
    """Microseconds of a tenth of a second, and bytes, that the trainer's cgroup gives it."""
    said = [
        lab.kubectl("exec", name_of(pod), "-c", "trainer", "--", "sh", "-c", words)
        for words in _CGROUPS
    ]
    return [int(words.split()[0]) for words in said]


def test_a_worker_that_is_resized_as_the_policy_lets_goes_on_larger_and_is_no_finding(
    lab: Lab, resizable: None, start: Callable[..., Object]
) -> None:
    job = lab.job("resized")
    small = {"cpu": "200m", "memory": "256Mi"}
    trainer(job)["resources"]["limits"] |= small
    job = start(signed(job, lab.alice))
    pod = worker(lab, job)
    assert _cgroups(lab, pod) == [20_000, 256 * 2**20]
    (before,) = pod["status"]["containerStatuses"]

    eventually(lambda: not _resize(lab, pod, cpu="400m", memory="384Mi"), "the policy counts")

    def status() -> Object:
        (now,) = lab.get("pod", name_of(pod))["status"]["containerStatuses"]
        found: Object = now
        return found

    eventually(lambda: status()["resources"]["limits"]["cpu"] == "400m", "the kubelet did it")
    assert status()["resources"]["limits"]["memory"] == "384Mi"
    assert _cgroups(lab, pod) == [40_000, 384 * 2**20]
    same = ("containerID", "restartCount")
    assert {k: status()[k] for k in same} == {k: before[k] for k in same}
    conditions = lab.get("pod", name_of(pod))["status"]["conditions"]
    assert not [c for c in conditions if c["type"].startswith("PodResize")]
    last = [r for r in records(lab, pod) if r["action"] == "Resize"][-1]
    assert (last["username"], last["allowed"]) == (EDITOR, True)
    assert last["resized"][0]["limits"] == {"cpu": "400m", "memory": "384Mi"}

    # Also after the policy has been tightened: the controller has looked once it finds the kill.
    _say(lab, None)
    denied = "access.resize is Deny"
    eventually(lambda: denied in _resize(lab, pod, cpu="300m", memory="384Mi"), "it counts")
    with contextlib.suppress(CommandError):
        terminate(lab, job)
    found(lab, job, "pod.killed")
    assert ids(lab, job) == {"pod.killed"}
    # Its successor is what was signed.
    runs_again(lab, job, pod)
    (limits,) = [
        p["spec"]["containers"][0]["resources"]["limits"]
        for p in lab.pods(job)
        if p["metadata"]["uid"] != pod["metadata"]["uid"]
    ]
    assert {k: limits[k] for k in small} == small
