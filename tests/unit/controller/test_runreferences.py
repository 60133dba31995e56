"""What a run leans on, read from an API server while people delete things."""

from __future__ import annotations

import copy
import dataclasses
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.unit import world
from tests.unit.controller.test_references import RENDERED, SEALED, stored
from trainseal.api.findings import FindingId
from trainseal.api.sealedrun import SealedRun
from trainseal.cluster.api import NotFoundError
from trainseal.cluster.settings import Settings
from trainseal.controller.runreferences import reference_findings
from trainseal.controller.runstate import LiveRun, read_run
from trainseal.controller.world import World
from trainseal.engines.surroundings import isolated
from trainseal.provenance.additions import Additions
from trainseal.provenance.boundseals import bound_roles

Object = dict[str, Any]
NAME = SEALED.seal["metadata"]["name"]
KEY = ("research", NAME)
BASE = "/api/v1/namespaces/research"
JOB = "/apis/trainseal.dev/v1alpha1/namespaces/research/trainingjobs/char-lm"
ENGINE = "/apis/batch/v1/namespaces/research/jobs/char-lm-worker"
SERVICE = f"{BASE}/services/char-lm"


class Server:
    """Objects by path."""

    def __init__(self) -> None:
        policy = f"/apis/networking.k8s.io/v1/namespaces/research/networkpolicies/{NAME}"
        assert RENDERED.config_map is not None
        assert RENDERED.service is not None
        self.objects: dict[str, Object] = {
            JOB: copy.deepcopy(SEALED.job),
            ENGINE: copy.deepcopy(SEALED.live),
            SERVICE: stored(RENDERED.service),
            policy: stored(RENDERED.network_policy),
            f"{BASE}/configmaps/{NAME}-config": stored(RENDERED.config_map),
        }

    async def get(self, path: str) -> Object:
        if path not in self.objects:
            raise NotFoundError(404, "NotFound", path)
        return self.objects[path]


def found(server: Server, run: LiveRun) -> list[FindingId]:
    return compared(server, run)[0]


def compared(server: Server, run: LiveRun) -> tuple[list[FindingId], bool]:
    given = SimpleNamespace(
        kube=server, settings=Settings(gate_image=world.GATE_IMAGE), registry_ca=""
    )
    seen, whole = world.run(reference_findings(cast("World", given), run, Additions()))
    return [s.id for s in seen], whole


def live(server: Server) -> LiveRun:
    roles = bound_roles(
        world.keyring(), cluster=world.CLUSTER, namespace="research", name=NAME, seal=SEALED.seal
    )
    sealed = SealedRun.parse(SEALED.seal)
    return world.run(read_run(cast("Any", server), KEY, SEALED.seal, sealed, roles))


def test_a_run_whose_objects_are_all_there_has_no_finding() -> None:
    server = Server()
    assert compared(server, live(server)) == ([], True)


def test_a_pass_that_has_nothing_to_compare_with_is_no_whole_one() -> None:
    server = Server()
    server.objects[JOB]["spec"]["config"]["parameters"]["learning_rate"] = 9
    server.objects[SERVICE]["spec"]["selector"] = {"app": "evil"}
    assert compared(server, live(server)) == ([], False)
    del server.objects[JOB]
    assert compared(server, live(server)) == ([], False)


def test_an_object_that_is_gone_is_found() -> None:
    server = Server()
    del server.objects[SERVICE]
    assert found(server, live(server)) == [FindingId.OBJECT_DELETED]


POLICY = f"/apis/networking.k8s.io/v1/namespaces/research/networkpolicies/{NAME}"
SEAL = f"/apis/trainseal.dev/v1alpha1/namespaces/research/sealedruns/{NAME}"
QUARANTINE = {
    "id": "0" * 16,
    "response": "Quarantine",
    "since": "2026-11-23T12:00:00Z",
    "findings": ["0" * 16],
    "reason": "file.changed",
    "severity": "Critical",
    "message": "written",
}
SINCE = {"isolatedSince": "2026-11-23T12:00:01Z"}
ORDINARY, ISOLATED = RENDERED.network_policy, isolated(RENDERED.network_policy)


def stands(server: Server, policy: Object, **status: Any) -> LiveRun:
    """The seal says this, and the run's policy that."""
    server.objects[POLICY] = stored(policy)
    seal = copy.deepcopy(SEALED.seal)
    seal["status"] |= status
    server.objects[SEAL] = seal
    return dataclasses.replace(live(server), seal=seal)


def test_what_we_make_of_the_policy_of_a_quarantined_run_is_no_finding() -> None:
    server = Server()
    for policy, status in (
        (ORDINARY, {}),
        # The hold is there, and the policy is about to be changed, or was.
        (ORDINARY, {"hold": QUARANTINE}),
        (ISOLATED, {"hold": QUARANTINE}),
        (ISOLATED, {"hold": QUARANTINE, **SINCE}),
        (ISOLATED, SINCE),
        (ORDINARY, SINCE),
    ):
        assert found(server, stands(server, policy, **status)) == [], status


def test_what_somebody_else_makes_of_it_is_one() -> None:
    server = Server()
    settled: Object = {"hold": QUARANTINE, **SINCE}
    for policy, status in ((ISOLATED, {}), (ORDINARY, settled)):
        run = stands(server, policy, **status)
        assert found(server, run) == [FindingId.OBJECT_CHANGED], status
    open_ = copy.deepcopy(ISOLATED)
    open_["spec"]["egress"] = [{}]
    for status in ({}, {"hold": QUARANTINE}, settled, SINCE):
        run = stands(server, open_, **status)
        assert found(server, run) == [FindingId.OBJECT_CHANGED], status


def test_a_policy_that_we_changed_since_the_seal_was_read_is_no_finding() -> None:
    server = Server()
    run = stands(server, ISOLATED)
    server.objects[SEAL]["status"] = {**run.seal["status"], "hold": QUARANTINE, **SINCE}
    run = dataclasses.replace(run, seal=SEALED.seal)
    assert found(server, run) == []


def test_a_job_that_is_gone_beneath_its_run_is_found() -> None:
    server = Server()
    del server.objects[ENGINE]
    assert FindingId.OBJECT_DELETED in found(server, live(server))


def test_a_training_job_that_is_deleted_meanwhile_takes_its_objects_along() -> None:
    server = Server()
    run = live(server)
    server.objects.clear()
    assert found(server, run) == []


def test_one_that_is_applied_anew_under_its_name_is_another_run() -> None:
    server = Server()
    run = live(server)
    server.objects[JOB]["metadata"]["uid"] = "another"
    server.objects[SERVICE]["metadata"]["ownerReferences"][0]["uid"] = "another"
    assert found(server, run) == []


# Elastic roles ----------------------------------------------------------------------------------

ELASTIC = world.sealed_world(world.elastic)


def elastic(*workers: int) -> Object:
    """The seal of a run that had so many workers, one epoch after the other."""
    seal = copy.deepcopy(ELASTIC.seal)
    told = [world.membership(count, number) for number, count in enumerate(workers, 1)]
    seal["status"] |= {
        "binding": world.binding(seal, members=told[-1]),
        "epochs": [membership.told(None) for membership in told],
    }
    return seal


def sized(server: Server, completions: int, parallelism: int) -> None:
    server.objects[ENGINE]["spec"] |= {"completions": completions, "parallelism": parallelism}


def of_elastic(seal: Object, now: Object | None = None) -> tuple[Server, LiveRun]:
    """The run as it was read, and an API server that by now has ``now`` for its seal."""
    name = seal["metadata"]["name"]
    rendered = world.render_job(ELASTIC.job)
    server = Server()
    assert rendered.config_map is not None
    assert rendered.service is not None
    policy = f"/apis/networking.k8s.io/v1/namespaces/research/networkpolicies/{name}"
    server.objects |= {
        JOB: copy.deepcopy(ELASTIC.job),
        ENGINE: copy.deepcopy(ELASTIC.live),
        SERVICE: stored(rendered.service),
        policy: stored(rendered.network_policy),
        f"{BASE}/configmaps/{name}-config": stored(rendered.config_map),
        f"/apis/trainseal.dev/v1alpha1/namespaces/research/sealedruns/{name}": now or seal,
    }
    roles = bound_roles(
        world.keyring(), cluster=world.CLUSTER, namespace="research", name=name, seal=seal
    )
    sealed = SealedRun.parse(seal)
    run = read_run(cast("Any", server), ("research", name), seal, sealed, roles)
    return server, world.run(run)


@pytest.mark.parametrize("count", [3, 4, 5])
def test_a_job_of_any_epochs_size_or_as_it_was_made_is_in_order(count: int) -> None:
    """It is being brought to the last one's, before or after the seal says so."""
    server, run = of_elastic(elastic(4, 3))
    sized(server, count, count)
    run = dataclasses.replace(run, engines={world.OBJECT_UID: server.objects[ENGINE]})
    assert compared(server, run) == ([], True)


@pytest.mark.parametrize("size", [(2, 2), (7, 7), (4, 3), (3, 4)])
def test_a_job_that_somebody_else_made_larger_or_smaller_is_found(size: tuple[int, int]) -> None:
    server, run = of_elastic(elastic(4, 3))
    sized(server, *size)
    run = dataclasses.replace(run, engines={world.OBJECT_UID: server.objects[ENGINE]})
    assert compared(server, run)[0] == [FindingId.OBJECT_CHANGED]


def test_a_job_that_was_scaled_while_it_was_looked_at_is_in_order() -> None:
    server, run = of_elastic(elastic(4), now=elastic(4, 2))
    sized(server, 2, 2)
    run = dataclasses.replace(run, engines={world.OBJECT_UID: server.objects[ENGINE]})
    assert compared(server, run) == ([], True)
