"""Who writes the Secrets that sealed runs read, as the API server decides it by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import CommandError
from tests.integration.chart.conftest import CONTROLLER, NAMESPACE, ApiServer, Object
from tests.integration.chart.floored import DEV, floored
from tests.integration.chart.test_floor import answer, patch
from tests.unit import world
from trainseal.controller.floor import entries

TEAM, AUDITED = "secrets-team", "secrets-audited"
_ACCOUNT = "system:serviceaccount"
ROTATOR = f"--as={_ACCOUNT}:external-secrets:external-secrets"
COLLECTOR = f"--as={_ACCOUNT}:kube-system:generic-garbage-collector"
NAMESPACE_CONTROLLER = f"--as={_ACCOUNT}:kube-system:namespace-controller"


@pytest.fixture(scope="module")
def told(server: ApiServer, helm: Path) -> Iterator[ApiServer]:
    """The floor, told of a policy that names who rotates the team's Secrets; another audits."""
    users = [who.removeprefix("--as=") for who in (ROTATOR, COLLECTOR, NAMESPACE_CONTROLLER)]
    pods = {"allowedSecrets": ["hub", "wandb"], "secretRotators": [users[0], "ann and bob"]}
    enforces = world.policy("team", namespaces={"include": ["secrets-t*"]}, pods=pods)
    audits = world.policy("all", namespaces={"include": [AUDITED]}, mode="Audit", pods=pods)
    open_ = world.policy("open", pods={"allowedSecrets": ["open"]}, namespaces={"include": [TEAM]})
    data = entries((enforces, audits, open_), (), ["accel.example/card"])
    with floored(server, helm, (TEAM, AUDITED), users, data):
        server.until_refused(secret("hub"), "is read by sealed runs", DEV)
        yield server


def secret(name: str, namespace: str = TEAM, **data: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": {"key": "value"} | data,
    }


@pytest.fixture
def hub(told: ApiServer) -> Iterator[Object]:
    """As its rotator made it."""
    made = secret("hub")
    told.create(made, ROTATOR)
    yield made
    told.delete(made, ROTATOR)


def change(text: str) -> Object:
    return {"stringData": {"key": text}}


def test_a_secret_that_runs_read_is_changed_by_its_rotators_alone(
    told: ApiServer, hub: Object
) -> None:
    for who in (DEV, "--as=admin", f"--as={CONTROLLER}"):
        group = ("--as-group=system:masters",) if who != DEV else ()
        said = patch(told, hub, change("another"), who, *group)
        assert "ValidatingAdmissionPolicy 'trainseal-secrets'" in said
        assert f"Secret {TEAM}/hub is read by sealed runs: found a change by {who[5:]}" in said
        assert "whom the ProvenancePolicy names in pods.secretRotators" in said
        assert "YW5vdGhlcg" not in said, "what is in it, in base64"
    assert not patch(told, hub, change("rotated"), ROTATOR)
    assert not patch(told, hub, change("again"), "--as=ann and bob", "--as-group=system:masters")


def test_it_is_not_deleted_or_made_by_others(told: ApiServer, hub: Object) -> None:
    with pytest.raises(CommandError, match=r"found its deletion by dev@example\.org"):
        told.kubectl("delete", "secret", "hub", "-n", TEAM, DEV)
    with pytest.raises(CommandError, match="found its deletion"):
        told.kubectl("delete", "secret", "--all", "-n", TEAM, DEV)
    assert "found its creation by dev@" in answer(told, secret("wandb"))
    # What goes along with a namespace, or an owner, does.
    for who in (NAMESPACE_CONTROLLER, COLLECTOR):
        told.kubectl("delete", "secret", "hub", "-n", TEAM, "--dry-run=server", who)
    told.kubectl("delete", "secret", "hub", "-n", TEAM, "--dry-run=server", ROTATOR)


def test_nobody_has_it_deleted_or_kept_by_another_hand(told: ApiServer, hub: Object) -> None:
    gone = {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "1"}
    for metadata in ({"ownerReferences": [gone]}, {"finalizers": ["team.example/mine"]}):
        assert "found a change by dev@" in patch(told, hub, {"metadata": metadata}, DEV)
    assert not patch(told, hub, {"metadata": {"ownerReferences": []}}, COLLECTOR)


def test_a_note_on_it_is_nobodys_business(told: ApiServer, hub: Object) -> None:
    notes = {"metadata": {"labels": {"team": "a"}, "annotations": {"seen": "yes"}}}
    assert not patch(told, hub, notes, DEV)


def test_other_secrets_and_where_nobody_is_named_are_nobodys_business(told: ApiServer) -> None:
    for name in ("hubs", "hub.a", "token", "open"):
        assert not answer(told, secret(name)), name
    assert not answer(told, secret("hub", AUDITED))
    assert not answer(told, secret("hub", NAMESPACE), "--as=admin", "--as-group=system:masters")


def test_the_largest_secret_stays_within_the_cost_of_an_expression(told: ApiServer) -> None:
    large = secret("wandb", **{f"key-{n}": "x" * 1000 for n in range(1000)})
    told.create(large, ROTATOR)
    try:
        assert "found a change" in patch(told, large, change("another"), DEV)
        assert not patch(told, large, {"metadata": {"labels": {"team": "a"}}}, DEV)
        assert not patch(told, large, change("rotated"), ROTATOR)
    finally:
        told.delete(large, ROTATOR)


def test_an_entry_that_is_not_of_its_form_locks_nobody_out(told: ApiServer, hub: Object) -> None:
    """Told of Secrets by an older or a newer controller, say."""
    metadata = {"name": "trainseal-floor", "namespace": NAMESPACE}
    path: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    before = told.get(path)["data"]["_secrets"]
    try:
        told.patch(path, {"data": {"_secrets": f"{before}\n\t\nhub\n^(.*)$\t^()$"}})
        told.until_refused(secret("wandb"), "is read by sealed runs", DEV)
        assert not answer(told, secret("hub.b"))
        assert not patch(told, hub, change("rotated"), ROTATOR)
    finally:
        told.patch(path, {"data": {"_secrets": before}})
