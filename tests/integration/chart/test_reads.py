"""What a run's pods name and others keep, sealed and compared on a real API server.

The controller's parts run with the rights that the chart gives them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.chart.conftest import CONTROLLER, Object, one, render
from tests.integration.chart.test_comparing import compared, finds
from tests.integration.chart.test_drift import TEAM, Stage, settings, stage, team, until
from tests.unit import world
from trainseal.cluster.api import KubeError, path_of

__all__ = ["stage", "team"]  # fixtures
Go = Callable[..., None]
ACCOUNT = path_of("v1", "serviceaccounts", TEAM, "trainer")
SECRET = path_of("v1", "secrets", TEAM, "wandb")
FOLLOWED: Any = [{"namespace": TEAM, "names": ["wandb"]}]
FOLLOW = ("followedSecrets[0].namespace=" + TEAM, "followedSecrets[0].names[0]=wandb")


def _reads_a_secret(job: Any) -> None:
    spec = job["spec"]["roles"][0]["template"]["spec"]
    spec["serviceAccountName"] = "trainer"
    reference = {"secretKeyRef": {"name": "wandb", "key": "key"}}
    spec["containers"][0].setdefault("env", []).append({"name": "KEY", "valueFrom": reference})


async def _made(s: Stage, kind: str, name: str, **body: Any) -> None:
    plural = f"{kind.lower()}s"
    obj = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **body}
    await s.kube.create(path_of("v1", plural, TEAM), obj)


def test_a_secret_and_an_account_that_were_changed_are_found_without_what_is_in_them(
    stage: Go, helm: Path
) -> None:
    objects = render(helm, *(part for value in FOLLOW for part in ("--set", value)))

    async def play(s: Stage) -> None:
        for kind, plural in (("Role", "roles"), ("RoleBinding", "rolebindings")):
            made = one(objects, kind, "trainseal-followed-secrets")
            path = path_of("rbac.authorization.k8s.io/v1", plural, TEAM)
            await s.kube.delete(f"{path}/trainseal-followed-secrets")
            await s.kube.create(path, made)
        await s.kube.delete(ACCOUNT)
        await s.kube.delete(SECRET)
        await _made(s, "ServiceAccount", "trainer")
        await _made(s, "Secret", "wandb", stringData={"key": "first"})
        await until(lambda: _may_read(s))
        s.settings = settings(followedSecrets=FOLLOWED)
        s.policies[:] = [world.policy(pods={"allowedSecrets": ["wandb"]})]
        s.name += "-reads"
        await s.submit(_reads_a_secret)
        async with s.controlled():
            await s.runs()
        spec: Any = (await s.seal())["spec"]
        live: Any = await s.kube.get(SECRET)
        assert spec["references"]["secrets"] == [
            {"name": "wandb"} | {k: live["metadata"][k] for k in ("uid", "resourceVersion")}
        ]
        account: Any = await s.kube.get(ACCOUNT)
        sealed = {"name": "trainer", "uid": account["metadata"]["uid"]}
        assert spec["references"]["serviceAccounts"] == [sealed]

        patch: Any = {"stringData": {"key": "another-value"}}
        await s.kube.patch(SECRET, patch)
        await s.kube.delete(ACCOUNT)
        await _made(s, "ServiceAccount", "trainer")
        async with compared(s):
            changed = await finds(s, "secret.changed")
            gone = await finds(s, "object.deleted")
        assert (changed["severity"], changed["evidence"]["object"]) == ("Warning", "Secret wandb")
        assert "another-value" not in str(changed)
        assert "somebody made another of its name" in gone["message"]
        assert gone["evidence"]["object"] == "ServiceAccount trainer"

    stage(play)


async def _may_read(s: Stage) -> bool:
    """RBAC reaches the API server by watch. What is sent is metadata alone."""
    try:
        found = await s.controller.get_metadata(SECRET)
    except KubeError as error:
        if error.status != 403:
            raise
        return False
    assert found["kind"] == "PartialObjectMetadata"
    assert "data" not in found
    return True


def test_a_run_that_nobody_lets_us_follow_the_secrets_of_starts_all_the_same(stage: Go) -> None:
    async def play(s: Stage) -> None:
        hidden_: Any = [{"namespace": TEAM, "names": ["hidden"]}]
        s.settings = settings(followedSecrets=hidden_)
        s.policies[:] = [world.policy(pods={"allowedSecrets": ["hidden"]})]

        def hidden(job: Any) -> None:
            _reads_a_secret(job)
            container = job["spec"]["roles"][0]["template"]["spec"]["containers"][0]
            container["env"][-1]["valueFrom"]["secretKeyRef"]["name"] = "hidden"

        s.name += "-hidden"
        await s.submit(hidden)
        async with s.controlled():
            await s.runs()
        spec: Any = (await s.seal())["spec"]
        assert "secrets" not in spec.get("references", {})

    stage(play)


@pytest.mark.parametrize("followed", [True, False])
def test_the_controller_reads_secrets_by_name_where_the_chart_says_so_and_nowhere_else(
    helm: Path, followed: bool
) -> None:
    values = FOLLOW if followed else ()
    objects = render(helm, *(part for value in values for part in ("--set", value)))
    roles = [o for o in objects if o["metadata"]["name"] == "trainseal-followed-secrets"]
    assert len(roles) == (2 if followed else 0)
    for obj in roles:
        assert obj["metadata"]["namespace"] == TEAM
    if followed:
        (secrets, _) = one(objects, "Role", "trainseal-followed-secrets")["rules"]
        assert (secrets["resourceNames"], secrets["verbs"]) == (["wandb"], ["get"])
        (subject,) = one(objects, "RoleBinding", "trainseal-followed-secrets")["subjects"]
        who = f"system:serviceaccount:{subject['namespace']}:{subject['name']}"
        assert who == CONTROLLER
    everywhere: list[Object] = one(objects, "ClusterRole", "trainseal-controller")["rules"]
    assert not any("secrets" in rule["resources"] for rule in everywhere)
