"""Who may write a Checkpoint: the agent of its node makes it, the controller signs it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.cluster import CommandError
from tests.integration.chart.conftest import CONTROLLER, ApiServer, Object
from tests.integration.chart.test_agent import (
    AGENTS,
    NODE,
    OTHER,
    POD,
    TEAM,
    Agents,
    agents,
    installed,
)
from trainseal.agent.checkpointobjects import Volume, object_of, read_known
from trainseal.agent.checkpointvalues import Batch, Completed, Stamp
from trainseal.agent.reports import Subject
from trainseal.api.model import API_VERSION
from trainseal.cluster.api import Kube, KubeError, path_of

__all__ = ["agents", "installed"]  # fixtures

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
VOLUME = Volume("ckpt", "runs/char-lm")
CHANGED = int(NOW.timestamp()) * 10**9 + 1000
MODEL = Completed("step-1/model", Stamp(1, 2, 7, CHANGED), "sha256:" + "a" * 64, "Trainer")
PATH = path_of(API_VERSION, "checkpoints", TEAM)
AS_CONTROLLER = ("--as", CONTROLLER, "--as-group=system:masters")


def made(node: str = NODE, subject: Subject = POD, digest: str = "a") -> Object:
    """A Checkpoint as the agent makes it."""
    model = Completed(MODEL.path, MODEL.stamp, "sha256:" + digest * 64, "Trainer")
    return object_of(subject, node, VOLUME, Batch((model,)), lambda _: None, NOW)


@pytest.fixture(autouse=True)
def in_force(agents: Agents) -> Iterator[None]:
    """Once nobody else may write one; none is left after the test."""
    agents.server.until_refused(made(), "found writer")
    yield
    agents.server.kubectl("delete", "checkpoints", "--all", "-n", TEAM, *AS_CONTROLLER)


def as_agent(agents: Agents, node: str, *objects: Object) -> None:
    """Creates them by the token of a node's agent. Raises KubeError."""

    async def create() -> None:
        async with agents.of(node) as kube:
            for obj in objects:
                await kube.create(PATH, obj)

    asyncio.run(create())


def test_an_agent_makes_manifests_of_its_node_and_reads_them_again(agents: Agents) -> None:
    async def live() -> None:
        async with agents.of(NODE) as kube:
            stored = await kube.create(PATH, made())
            assert stored["spec"] == made()["spec"]
            # The server's memory may be a moment behind.
            for _ in range(100):
                known = await read_known(kube, POD, VOLUME)
                if known:
                    break
            assert known[MODEL.path].digest == MODEL.digest
            assert known[MODEL.path].changed == CHANGED // 1000

    asyncio.run(live())


def test_an_agent_makes_none_of_another_node(agents: Agents) -> None:
    with pytest.raises(KubeError, match=f"expected .*{AGENTS} on that node"):
        as_agent(agents, NODE, made(OTHER))


@pytest.mark.parametrize("user", [(), ("--as", f"system:serviceaccount:{AGENTS}:{AGENTS}")])
def test_nobody_else_makes_one_not_even_an_administrator(
    agents: Agents, user: tuple[str, ...]
) -> None:
    with pytest.raises(CommandError) as refused:
        agents.server.create(made(), *user)
    assert "found writer" in refused.value.stderr


def test_not_even_the_controller_makes_one(agents: Agents) -> None:
    with pytest.raises(CommandError) as refused:
        agents.server.create(made(), *AS_CONTROLLER)
    assert "found writer" in refused.value.stderr


@pytest.mark.parametrize("pod", [POD.pod, "a" * 253, f"{'a' * 229}.{'b' * 9}", "x"])
def test_a_manifest_bears_its_pods_name_however_long(agents: Agents, pod: str) -> None:
    as_agent(agents, NODE, made(subject=Subject(TEAM, pod, POD.uid, POD.seal)))


@pytest.mark.parametrize(
    "name",
    [
        "another-pod-0aa3b1c2-0123456789ab",
        f"{POD.pod}-11111111-0123456789ab",
        f"{POD.pod}-0aa3b1c2",
        f"{POD.pod}-0aa3b1c2-01234567",
    ],
)
def test_a_manifest_takes_no_other_name(agents: Agents, name: str) -> None:
    forged = made()
    forged["metadata"]["name"] = name
    with pytest.raises(KubeError, match="expected the name POD-UID8-DIGEST12"):
        as_agent(agents, NODE, forged)


def test_what_is_made_never_changes_and_its_status_is_the_controllers(agents: Agents) -> None:
    as_agent(agents, NODE, made())
    obj = made()
    changed: Object = {"spec": {"completed": "2026-11-23T11:00:00Z"}}
    for user in ((), AS_CONTROLLER):
        with pytest.raises(CommandError):
            agents.server.kubectl(
                "patch", "checkpoint", obj["metadata"]["name"], "-n", TEAM,
                "--type=merge", "-p", '{"spec":{"completed":"2026-11-23T11:00:00Z"}}', *user,
            )  # fmt: skip
    status = '{"status":{"standing":"Unread","message":"x"}}'
    patch = (
        "patch", "checkpoint", obj["metadata"]["name"], "-n", TEAM,
        "--subresource=status", "--type=merge", "-p", status,
    )  # fmt: skip
    with pytest.raises(CommandError) as refused:
        agents.server.kubectl(*patch)
    assert "is the controller's to sign" in refused.value.stderr
    agents.server.kubectl(*patch, *AS_CONTROLLER)

    async def forge() -> None:
        async with agents.of(NODE) as kube:
            path = f"{PATH}/{obj['metadata']['name']}"
            for attempt in (_patch(kube, f"{path}/status"), kube.patch(path, changed)):
                with pytest.raises(KubeError, match="forbidden"):
                    await attempt
            with pytest.raises(KubeError, match="forbidden"):
                await kube.request("DELETE", path)

    asyncio.run(forge())


async def _patch(kube: Kube, path: str) -> None:
    await kube.patch(path, {"status": {"standing": "Signed"}})


def test_a_responder_signs_off_and_an_editor_does_not(installed: ApiServer, agents: Agents) -> None:
    release: Object = {
        "apiVersion": API_VERSION,
        "kind": "HoldRelease",
        "metadata": {"name": "off", "namespace": TEAM},
        "spec": {"sealedRun": POD.seal, "checkpoints": ["a"], "user": "x", "reason": "seen"},
    }
    for name, role in (("dev", "edit"), ("oncall", "trainseal-responder")):
        installed.kubectl(
            "create", "rolebinding", name, "-n", TEAM, f"--clusterrole={role}", f"--user={name}"
        )
    release["spec"]["user"] = "dev"
    with pytest.raises(CommandError, match="forbidden"):
        installed.create(release, "--as=dev")
    with pytest.raises(CommandError, match="expected oncall, who creates it"):
        installed.create(release, "--as=oncall")
    release["spec"]["user"] = "oncall"
    both = {**release, "spec": {**release["spec"], "hold": "0" * 16}}
    with pytest.raises(CommandError, match="exactly one of hold, checkpoints"):
        installed.create(both, "--as=oncall")
    installed.create(release, "--as=oncall")
    installed.kubectl("get", "checkpoints", "-n", TEAM, "--as=oncall")
    installed.kubectl("get", "ckpt", "-n", TEAM, "--as=dev")
    installed.kubectl("delete", "holdrelease", "off", "-n", TEAM)
