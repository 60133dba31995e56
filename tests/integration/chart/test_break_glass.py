"""Who may let whom into a run, and what comes of it, on a real API server with the chart's rights.

The chart's rules, RBAC and the controller's parts; what the webhook makes of a BreakGlass is tried
with the webhook (test_access_records). Tests write the records that it would.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.cluster import CommandError
from tests.integration.chart.conftest import CONTROLLER, ApiServer, Object
from tests.integration.chart.test_checkpoints import becomes, claim, played, unbound, wrote
from tests.integration.chart.test_comparing import compared, finds, pods, recorded, text
from tests.integration.chart.test_drift import NODE, TEAM, Stage, has, stage, team, until
from tests.unit import world
from trainseal.api.model import API_VERSION
from trainseal.cluster.api import path_of
from trainseal.provenance.checkpointmanifests import verify

__all__ = ["played", "stage", "team", "unbound"]  # fixtures
CAROL, ROOT = "carol@example.org", "--as-group=system:masters"
ANN = "ann@example.org"


def glass(**spec: Any) -> Object:
    """Carol lets Ann in for half an hour."""
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=30)
    return {
        "apiVersion": API_VERSION,
        "kind": "BreakGlass",
        "metadata": {"generateName": "glass-", "namespace": TEAM},
        "spec": {
            "sealedRun": "char-lm-1",
            "user": ANN,
            "reason": "it hangs",
            "notAfter": text(until),
            "approvedBy": CAROL,
        }
        | spec,
    }


@pytest.fixture(scope="module")
def approver(team: ApiServer) -> str:
    """Carol, who may let people in."""
    team.kubectl(
        "create", "rolebinding", "carol", "-n", TEAM, "--clusterrole=trainseal-approver",
        f"--user={CAROL}",
    )  # fmt: skip
    team.until_accepted(glass(), f"--as={CAROL}")
    # The policy reaches the API server by watch.
    team.until_refused(glass(approvedBy="boss"), "found spec.approvedBy", f"--as={CAROL}")
    return f"--as={CAROL}"


# Who may make one -------------------------------------------------------------------------------


def test_who_has_the_role_lets_somebody_in_and_an_editor_does_not(
    team: ApiServer, approver: str
) -> None:
    made = team.create(glass(), approver)
    assert made["spec"]["approvedBy"] == CAROL
    said = team.refusal(glass(approvedBy="dev@example.org"), "--as=dev@example.org")
    assert "cannot create resource" in said


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"approvedBy": "boss@example.org"}, "found spec.approvedBy boss@example.org, expected"),
        ({"notAfter": "2020-01-01T00:00:00Z"}, "expected a time within 24 hours from now"),
        (
            {"notAfter": text(datetime.now(UTC).replace(microsecond=0) + timedelta(hours=30))},
            "expected a time within 24 hours from now",
        ),
    ],
)
def test_one_in_anothers_name_or_over_or_too_long_is_refused(
    team: ApiServer, approver: str, spec: Object, words: str
) -> None:
    assert words in team.refusal(glass(**spec), approver)
    assert not team.refusal(glass(), approver)


def test_a_service_account_approves_nothing(team: ApiServer) -> None:
    """An editor of the namespace could act as it."""
    robot = f"system:serviceaccount:{TEAM}:default"
    said = team.refusal(glass(approvedBy=robot), f"--as={robot}", ROOT)
    assert "expected a person" in said


@pytest.mark.parametrize(
    "metadata",
    [
        {"finalizers": ["example.org/mine"]},
        {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "x"}]},
    ],
)
def test_nobody_ties_its_life_to_something_else(
    team: ApiServer, approver: str, metadata: Object
) -> None:
    obj = glass()
    obj["metadata"] |= metadata
    assert "expected none; it ends by itself" in team.refusal(obj, approver)


@pytest.mark.parametrize("who", [CAROL, CONTROLLER, "root@example.org"])
def test_nobody_takes_one_back(team: ApiServer, approver: str, who: str) -> None:
    name = team.create(glass(), approver)["metadata"]["name"]
    with pytest.raises(CommandError, match="who let whom in stays on record"):
        team.kubectl("delete", "breakglass", name, "-n", TEAM, f"--as={who}", ROOT)
    assert name in team.kubectl("get", "glass", "-n", TEAM, "-o", "name")
    # Twin: with its namespace it goes.
    team.kubectl(
        *("delete", "breakglass", name, "-n", TEAM, ROOT),
        "--as=system:serviceaccount:kube-system:namespace-controller",
    )


# What comes of it -------------------------------------------------------------------------------


async def _placed(s: Stage, pod: Object) -> Object:
    """The pod, where a scheduler put it."""
    path = path_of("v1", "pods", TEAM, pod["metadata"]["name"])
    target: Object = {"apiVersion": "v1", "kind": "Node", "name": NODE}
    metadata: Object = {"name": pod["metadata"]["name"], "namespace": TEAM}
    binding: Object = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": metadata,
        "target": target,
    }
    await s.kube.create(f"{path}/binding", binding)
    return await s.kube.get(path)


def _review(s: Stage, seal: str, name: str, user: str) -> None:
    s.server.create(
        {
            "apiVersion": API_VERSION,
            "kind": "HoldRelease",
            "metadata": {"generateName": "review-", "namespace": TEAM},
            "spec": {"sealedRun": seal, "breakGlass": name, "user": user, "reason": "looked"},
        },
        f"--as={user}",
        ROOT,
    )


def test_who_got_in_taints_the_run_until_somebody_else_has_reviewed_it(
    played: Callable[..., None], approver: str
) -> None:
    async def play(s: Stage) -> None:
        await claim(s)
        async with s.controlled(), compared(s):
            await s.runs()
            (pod, *_) = await pods(s)
            seal = (await s.status())["sealedRun"]
            name = s.server.create(glass(sealedRun=seal), approver)["metadata"]["name"]
            assert "brokenGlass" not in (await s.seal())["status"]

            await recorded(s, pod, "Exec", ANN, glass=name)
            after = await wrote(s, await _placed(s, pod), 1)
            found = await finds(s, "access.broke-glass")
            assert (found["user"], found["severity"]) == (ANN, "Warning")
            assert found["evidence"]["approvedBy"] == CAROL
            waits = await has(s, lambda seal: seal["status"]["brokenGlass"])
            assert [(g["name"], g["user"]) for g in waits] == [(name, ANN)]
            bad = await becomes(s, after, lambda status: status["tainted"])
            assert bad["status"]["tainted"]["finding"] == "access.broke-glass"

            # Her own word is none; somebody else's is.
            _review(s, seal, name, ANN)
            assert await has(s, lambda seal: seal["status"]["brokenGlass"])
            _review(s, seal, name, CAROL)

            async def reviewed() -> bool:
                with contextlib.suppress(KeyError):
                    return not (await s.seal())["status"]["brokenGlass"]
                return True

            await until(reviewed)
            clean = await becomes(s, after, lambda status: "tainted" not in status)
            assert verify(world.keyring(world.SEAL_KEY), clean)
            # What was found stays on the run.
            assert (await s.seal())["status"]["drift"]["warning"] == 1

            # Used again, it waits again. Objects are made in whole seconds.
            await recorded(s, pod, "Attach", ANN, glass=name, later=timedelta(seconds=1))
            again = await has(s, lambda seal: seal["status"]["brokenGlass"])
            assert again[0]["name"] == name

    played(play)
