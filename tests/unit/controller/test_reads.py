"""What a run's pods name and others keep: another one is found, and how; the same one is not."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.unit import world
from trainseal.api.findings import FINDINGS, FindingId
from trainseal.api.sealedrun import SealedRun
from trainseal.cluster.api import KubeError, NotFoundError
from trainseal.cluster.settings import FollowedSecrets, Settings
from trainseal.controller.ownreport import Seen
from trainseal.controller.runreads import read_findings, references_of
from trainseal.controller.taints import TAINT_NOTHING
from trainseal.controller.world import World
from trainseal.provenance.livepods import account_of, claim_templates_of, secrets_of
from trainseal.provenance.policies import CompiledPolicy

Object = dict[str, Any]
CORE = "/api/v1/namespaces/research"
ACCOUNT = f"{CORE}/serviceaccounts/trainer"
SECRET = f"{CORE}/secrets/wandb"
CLAIM = "/apis/resource.k8s.io/v1/namespaces/research/resourceclaimtemplates/gpu"
TEMPLATE: Object = {
    "spec": {
        "serviceAccountName": "trainer",
        "imagePullSecrets": [{"name": "pull"}],
        "resourceClaims": [
            {"name": "a", "resourceClaimTemplateName": "gpu"},
            {"name": "b", "resourceClaimName": "shared"},
        ],
        "containers": [
            {
                "name": "trainer",
                "env": [
                    {"name": "PLAIN", "value": "x"},
                    {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "wandb", "key": "k"}}},
                ],
            }
        ],
    }
}
ROTATORS = {"allowedSecrets": ["wandb"], "secretRotators": ["ann", "bob"]}


class Server:
    """Objects by path; content of Secrets is nobody's."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {
            ACCOUNT: made("trainer", "uid-account"),
            SECRET: made("wandb", "uid-secret", "7"),
            CLAIM: made("gpu", "uid-claim", spec={"spec": {"devices": {"requests": [1, 2**63]}}}),
        }
        self.asked: list[str] = []

    async def get(self, path: str) -> Object:
        assert "/secrets/" not in path, "its content was asked for"
        return self._found(path)

    async def get_metadata(self, path: str) -> Object:
        return {"kind": "PartialObjectMetadata", "metadata": self._found(path)["metadata"]}

    def _found(self, path: str) -> Object:
        self.asked.append(path)
        if path not in self.objects:
            raise NotFoundError(404, "NotFound", path)
        if isinstance(self.objects[path], KubeError):
            raise self.objects[path]
        return cast("Object", self.objects[path])


def made(name: str, uid: str, version: str = "1", **rest: Any) -> Object:
    return {"metadata": {"name": name, "uid": uid, "resourceVersion": version}, **rest}


def world_of(server: Server, *policies: CompiledPolicy, **settings: Any) -> World:
    followed = [FollowedSecrets(namespace="research", names=["wandb"])]
    given = SimpleNamespace(
        kube=server,
        settings=Settings(**{"floor": True, "followed_secrets": followed, **settings}),
        policies=lambda namespace: policies if namespace == "research" else (),
    )
    return cast("World", given)


def sealed(server: Server, *policies: CompiledPolicy, **settings: Any) -> SealedRun:
    """A seal of a run whose pods are made of the template."""
    references = world.run(
        references_of(world_of(server, *policies, **settings), "research", [TEMPLATE, TEMPLATE])
    )
    run = SealedRun.parse(world.sealed_world().seal)
    then = [{"name": p.name, "digest": p.digest, "mode": p.mode} for p in policies]
    spec = run.spec.wire() | {"policies": then}
    if references is not None:
        spec |= {"references": references.wire()}
    return SealedRun.parse({**copy.deepcopy(world.sealed_world().seal), "spec": spec})


def found(server: Server, run: SealedRun, *policies: CompiledPolicy, **settings: Any) -> list[Seen]:
    async def all_of() -> list[Seen]:
        return [s async for s in read_findings(world_of(server, *policies, **settings), run)]

    return world.run(all_of())


def test_what_a_template_names_is_read_off_it() -> None:
    assert secrets_of(TEMPLATE) == ("pull", "wandb")
    assert account_of(TEMPLATE) == "trainer"
    assert account_of({"spec": {}}) == "default"
    assert claim_templates_of(TEMPLATE) == ("gpu",)
    volumes = [
        {"secret": {"secretName": "a"}},
        {"projected": {"sources": [{"secret": {"name": "b"}}]}},
    ]
    assert secrets_of({"spec": {"volumes": volumes}}) == ("a", "b")


def test_what_is_as_it_was_is_no_finding() -> None:
    server = Server()
    run = sealed(server)
    assert run.spec.references is not None
    assert run.spec.references.wire() == {
        "serviceAccounts": [{"name": "trainer", "uid": "uid-account"}],
        "claimTemplates": [
            {"name": "gpu", "digest": run.spec.references.wire()["claimTemplates"][0]["digest"]}
        ],
        "secrets": [{"name": "wandb", "uid": "uid-secret", "resourceVersion": "7"}],
    }
    assert found(server, run) == []


def test_a_seal_of_a_release_that_did_not_look_is_compared_with_nothing() -> None:
    server = Server()
    run = SealedRun.parse(world.sealed_world().seal)
    assert run.spec.references is None
    assert found(server, run) == []
    assert server.asked == []


def test_what_is_not_there_when_a_run_is_sealed_is_not_missed_later() -> None:
    server = Server()
    server.objects = {}
    assert sealed(server).spec.references is None


def test_a_service_account_that_was_made_anew_or_is_gone_is_found() -> None:
    server = Server()
    run = sealed(server)
    server.objects[ACCOUNT] = made("trainer", "uid-of-another", "99")
    (anew,) = found(server, run)
    assert (anew.id, anew.subject) == (FindingId.OBJECT_DELETED, "ServiceAccount trainer")
    assert "somebody made another of its name" in anew.message
    del server.objects[ACCOUNT]
    (gone,) = found(server, run)
    assert "it is gone" in gone.message
    assert gone.occasion != anew.occasion
    # Twin: a note on the same one.
    server.objects[ACCOUNT] = made("trainer", "uid-account", "100")
    assert found(server, run) == []


def test_a_claim_template_that_says_something_else_is_found() -> None:
    server = Server()
    run = sealed(server)
    # Twin: made anew, and it says the same.
    same = copy.deepcopy(server.objects[CLAIM]) | {"metadata": {"name": "gpu", "uid": "another"}}
    server.objects[CLAIM] = same
    assert found(server, run) == []
    server.objects[CLAIM]["spec"]["spec"]["devices"]["requests"] = [1]
    (seen,) = found(server, run)
    assert (seen.id, seen.subject) == (FindingId.OBJECT_CHANGED, "ResourceClaimTemplate gpu")
    del server.objects[CLAIM]
    assert [s.id for s in found(server, run)] == [FindingId.OBJECT_DELETED]


def test_each_change_of_a_secret_is_found_without_what_is_in_it() -> None:
    server = Server()
    run = sealed(server)
    server.objects[SECRET] = made("wandb", "uid-secret", "8", data={"k": "c2VjcmV0"})
    (first,) = found(server, run)
    assert first.id is FindingId.SECRET_CHANGED
    assert "found resource version 8, sealed 7" in first.message
    assert "c2VjcmV0" not in str(first)
    server.objects[SECRET] = made("wandb", "uid-secret", "9")
    (second,) = found(server, run)
    assert second.key == first.key
    assert second.occasion != first.occasion, "each change counts"
    server.objects[SECRET] = made("wandb", "uid-of-another", "10")
    assert "made another of its name" in found(server, run)[0].message
    del server.objects[SECRET]
    assert "it is gone" in found(server, run)[0].message


def policy(**pods: Any) -> CompiledPolicy:
    return world.policy("research", pods=pods)


def test_a_change_that_only_rotators_can_have_made_is_a_rotation() -> None:
    guards = policy(**ROTATORS)
    server = Server()
    run = sealed(server, guards)
    server.objects[SECRET] = made("wandb", "uid-secret", "8")
    (seen,) = found(server, run, guards)
    assert seen.id is FindingId.SECRET_ROTATED
    assert FINDINGS[seen.id].severity == "Info"
    assert "policies let nobody change what it says but ann, bob" in seen.message
    assert seen.user == "", "which of them it was nobody saw"
    both = (guards, world.policy("strict", pods=ROTATORS | {"secretRotators": ["ann"]}))
    (seen,) = found(server, sealed_again(run, both), *both)
    assert seen.evidence["rotators"] == "ann"


def sealed_again(run: SealedRun, policies: tuple[CompiledPolicy, ...]) -> SealedRun:
    then = [{"name": p.name, "digest": p.digest, "mode": p.mode} for p in policies]
    return SealedRun.parse(
        {**world.sealed_world().seal, "spec": run.spec.wire() | {"policies": then}}
    )


GUARDS = policy(**ROTATORS)
#: The policy as it was when the run was sealed, as it is now, and what else the chart says.
OPEN: dict[str, tuple[CompiledPolicy, CompiledPolicy, Object]] = {
    "no floor": (GUARDS, GUARDS, {"floor": False}),
    "the policy was changed since": (policy(allowedSecrets=["wandb"]), GUARDS, {}),
    "no rotators": (policy(allowedSecrets=["wandb"]),) * 2 + ({},),
    "another Secret": (policy(**ROTATORS | {"allowedSecrets": ["other"]}),) * 2 + ({},),
    "it audits": (world.policy("research", mode="Audit", pods=ROTATORS),) * 2 + ({},),
}


@pytest.mark.parametrize("why", OPEN)
def test_where_others_may_have_changed_it_it_is_no_rotation(why: str) -> None:
    then, now, settings = OPEN[why]
    server = Server()
    run = sealed(server, then)
    server.objects[SECRET] = made("wandb", "uid-secret", "8")
    assert [s.id for s in found(server, run, now, **settings)] == [FindingId.SECRET_CHANGED]


def test_one_that_is_gone_is_nobodys_rotation() -> None:
    """A garbage collector deletes it with its owner."""
    guards = policy(**ROTATORS)
    server = Server()
    run = sealed(server, guards)
    del server.objects[SECRET]
    assert [s.id for s in found(server, run, guards)] == [FindingId.SECRET_CHANGED]


def test_a_secret_that_nobody_lets_us_follow_is_not_asked_about() -> None:
    server = Server()
    references = sealed(server, followed_secrets=[]).spec.references
    assert references is not None
    assert references.secrets is None
    assert SECRET not in server.asked


def test_one_that_may_not_be_read_hides_nothing_else_and_keeps_no_run_from_starting() -> None:
    server = Server()
    run = sealed(server)
    server.objects[SECRET] = KubeError(403, "Forbidden", "no")
    server.objects[ACCOUNT] = made("trainer", "uid-of-another")
    assert [s.id for s in found(server, run)] == [FindingId.OBJECT_DELETED]
    references = sealed(server).spec.references
    assert references is not None
    assert references.secrets is None
    server.objects[SECRET] = KubeError(500, "InternalError", "no")
    with pytest.raises(KubeError):
        found(server, run)


def test_another_content_of_a_secret_taints_no_checkpoint() -> None:
    """What is in it was never signed: the run is no less known than before."""
    assert FindingId.SECRET_CHANGED.value in TAINT_NOTHING
