"""Nobody opens the network of a run that lives; what closes, and what is for others, passes."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest

from tests.unit import world
from tests.unit.admission.test_access import ApiServer
from trainseal.admission.networks import NetworkContext, Networks
from trainseal.admission.reviews import ALLOWED, Request, Response
from trainseal.api.accessrecord import AccessRecord
from trainseal.cluster.api import KubeError
from trainseal.provenance.policies import CompiledPolicy
from trainseal.verifier.policystore import BrokenPolicy

Object = dict[str, Any]
SEALED = world.sealed_world()
SEAL = SEALED.seal["metadata"]["name"]
RULE: Object = {"from": [{"namespaceSelector": {}}]}
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"


def policy(selector: Object | None = None, **spec: Any) -> Object:
    """A NetworkPolicy of the editor's that lets in whoever comes, unless it is told otherwise."""
    spec = {"policyTypes": ["Ingress"], "ingress": [RULE]} | spec
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "theirs", "namespace": "research", "uid": "uid-of-theirs"},
        "spec": {"podSelector": selector or {}, **spec},
    }


def service(selector: Object, **spec: Any) -> Object:
    metadata = {"name": "theirs", "namespace": "research", "uid": "uid-of-theirs"}
    spec = {"selector": selector, "ports": [{"port": 80}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


class Guard:
    """The webhook's part, before an API server in memory."""

    def __init__(self, *policies: CompiledPolicy, broken: tuple[BrokenPolicy, ...] = ()) -> None:
        self.api = ApiServer({})
        self.seals = SEALED.index()
        context = NetworkContext(
            policies=lambda _: policies,
            broken=lambda: broken,
            reached_by=lambda where, selector: self.seals.reached_by(
                where, selector, frozenset().union(*(p.additions.labels for p in policies))
            ),
            live=self.seals.live,
            excluded_namespaces=frozenset({"kube-system"}),
            now=lambda: world.NOW,
        )
        self.networks = Networks(self.api, context, lambda: 0.0)  # type: ignore[arg-type]

    def ask(self, obj: Object, old: Object | None = None, **said: Any) -> Response:
        return world.run(self.networks.answer(asked(obj, old, **said)))

    def records(self) -> list[Object]:
        for made in self.api.created:
            AccessRecord.parse(made)
        return [made["spec"] for made in self.api.created]

    def isolate(self) -> None:
        """The run is put into quarantine."""
        seal = copy.deepcopy(SEALED.seal)
        seal["status"]["isolatedSince"] = "2026-11-23T12:00:00Z"
        self.seals.on_seal("MODIFIED", ("research", SEAL), seal)

    def end(self) -> None:
        """The run ends."""
        seal = copy.deepcopy(SEALED.seal)
        seal["status"]["phase"] = "Succeeded"
        self.seals.on_seal("MODIFIED", ("research", SEAL), seal)


def asked(obj: Object, old: Object | None = None, **said: Any) -> Request:
    plural = "services" if obj["kind"] == "Service" else "networkpolicies"
    request = world.request(obj, old, user=world.EDITOR, resource=plural)
    return dataclasses.replace(request, **said)


@pytest.fixture
def guard() -> Guard:
    return Guard(world.policy())


OPENS: dict[str, Object] = {
    "every pod": {},
    "a label of the signed template": {"matchLabels": {"team": "research"}},
    "a label of ours": {"matchLabels": {"trainseal.dev/job": "char-lm"}},
    "any seal": {"matchExpressions": [{"key": "trainseal.dev/seal", "operator": "Exists"}]},
    "the seal": {
        "matchExpressions": [{"key": "trainseal.dev/seal", "operator": "In", "values": [SEAL]}]
    },
    "whatever is not another's": {
        "matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["web"]}]
    },
    "whatever bears no label of theirs": {
        "matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]
    },
    "one rank": {"matchLabels": {INDEX_LABEL: "0"}},
    "the Job's pods": {"matchLabels": {"job-name": "char-lm-worker"}},
    "where it runs": {"matchLabels": {"topology.kubernetes.io/zone": "a"}},
}


@pytest.mark.parametrize("what", OPENS)
def test_what_opens_a_run_is_refused_and_on_record(guard: Guard, what: str) -> None:
    answer = guard.ask(policy(OPENS[what]))
    assert not answer.allowed
    assert f"sealed by SealedRun research/{SEAL}: found ingress [" in answer.message
    assert "{key: trainseal.dev/seal, operator: DoesNotExist}" in answer.message
    (found,) = guard.records()
    assert (found["username"], found["action"]) == (world.EDITOR, "Create")
    assert (found["allowed"], found["sealedRun"]) == (False, SEAL)
    assert (found["object"]["kind"], found["object"]["uid"]) == ("NetworkPolicy", "uid-of-theirs")


FOR_OTHERS: dict[str, Object] = {
    "another label": {"matchLabels": {"app": "web"}},
    "another value": {"matchLabels": {"team": "web"}},
    "another seal": {"matchLabels": {"trainseal.dev/seal": "other-1"}},
    "another Job's pods": {"matchLabels": {"job-name": "web"}},
    "no sealed pod": {
        "matchExpressions": [{"key": "trainseal.dev/seal", "operator": "DoesNotExist"}]
    },
}


@pytest.mark.parametrize("what", FOR_OTHERS)
def test_what_is_for_other_pods_passes_and_is_on_record_for_runs_to_come(
    guard: Guard, what: str
) -> None:
    answer = guard.ask(policy(FOR_OTHERS[what]))
    assert (answer.allowed, answer.warnings) == (True, ())
    (found,) = guard.records()
    assert found["allowed"]
    assert "sealedRun" not in found
    assert guard.api.created[0]["metadata"]["labels"]["trainseal.dev/object-uid"] == "uid-of-theirs"


def test_what_closes_passes_and_is_on_no_record(guard: Guard) -> None:
    assert guard.ask(policy(ingress=[])) == ALLOWED
    assert guard.ask(policy(policyTypes=["Ingress", "Egress"], ingress=[])) == ALLOWED
    assert guard.ask(policy(policyTypes=["Egress"], ingress=[], egress=[{}])) == ALLOWED
    # One that stood open is closed.
    assert guard.ask(policy(ingress=[]), policy()) == ALLOWED
    assert guard.records() == []


def test_a_change_that_opens_is_refused_and_one_of_a_label_is_none(guard: Guard) -> None:
    assert not guard.ask(policy(), policy(ingress=[])).allowed
    assert [r["action"] for r in guard.records()] == ["Change"]
    noted = policy()
    noted["metadata"]["labels"] = {"note": "x"}
    assert guard.ask(noted, policy()) == ALLOWED


def test_where_nothing_runs_and_no_policy_is_nobody_is_asked_more() -> None:
    guard = Guard()
    guard.end()
    assert guard.ask(policy()) == ALLOWED
    assert guard.records() == []


def test_once_the_run_is_over_it_passes(guard: Guard) -> None:
    assert not guard.ask(policy()).allowed
    guard.end()
    assert guard.ask(policy()).allowed


def test_in_another_namespace_it_passes(guard: Guard) -> None:
    assert guard.ask(policy(), namespace="other").allowed
    assert guard.ask(policy(), namespace="kube-system") == ALLOWED


def test_a_way_out_of_quarantine_is_refused(guard: Guard) -> None:
    out = policy(policyTypes=["Egress"], ingress=[], egress=[{}])
    assert guard.ask(out).allowed
    guard.isolate()
    answer = guard.ask(out)
    assert not answer.allowed
    assert "found egress [{}]" in answer.message


def test_a_label_that_a_platform_adds_may_be_on_any_sealed_pod() -> None:
    mesh = {"name": "mesh", "reason": "the mesh", "labels": ["mesh.example/rev"]}
    chosen = policy({"matchLabels": {"mesh.example/rev": "1"}})
    assert Guard(world.policy()).ask(chosen).allowed
    assert not Guard(world.policy(pods={"additions": [mesh]})).ask(chosen).allowed


def test_where_every_policy_audits_it_passes_with_a_warning_and_is_on_record() -> None:
    guard = Guard(world.policy(mode="Audit"))
    answer = guard.ask(policy())
    assert answer.allowed
    assert "would be denied under Enforce" in answer.warnings[0]
    (found,) = guard.records()
    assert (found["allowed"], found["sealedRun"]) == (True, SEAL)


@pytest.mark.parametrize(
    "guard",
    [
        Guard(),
        Guard(world.policy(mode="Audit"), world.policy("other")),
        Guard(world.policy(mode="Audit"), broken=(BrokenPolicy("odd", "why"),)),
    ],
    ids=["no policy", "another enforces", "one cannot be used"],
)
def test_else_it_is_refused(guard: Guard) -> None:
    assert not guard.ask(policy()).allowed


def test_a_refusal_stands_where_it_cannot_be_recorded_and_so_does_a_yes(guard: Guard) -> None:
    guard.api.write_fails = KubeError(500, "InternalError", "etcd")
    assert not guard.ask(policy()).allowed
    assert guard.ask(policy({"matchLabels": {"app": "web"}})).allowed


def test_a_dry_run_is_judged_and_not_recorded(guard: Guard) -> None:
    assert not guard.ask(policy(), dry_run=True).allowed
    assert guard.records() == []


def test_records_of_one_user_are_bounded_and_refusals_are_not(guard: Guard) -> None:
    for number in range(40):
        obj = policy(ingress=[{"ports": [{"port": 1000 + number}]}])
        assert not guard.ask(obj).allowed
    assert len(guard.records()) == 30


# Services ---------------------------------------------------------------------------------------


def test_a_service_that_chooses_the_runs_pods_passes_and_is_on_record(guard: Guard) -> None:
    assert guard.ask(service({"team": "research"})).allowed
    (found,) = guard.records()
    assert (found["object"]["kind"], found["sealedRun"]) == ("Service", SEAL)
    assert "access.proxy" in found["message"]


@pytest.mark.parametrize(
    "obj",
    [
        service({"app": "web"}),
        service({}),
        service({"team": "research"}, type="ExternalName", externalName="example.org"),
    ],
    ids=["other pods", "no pods", "a name elsewhere"],
)
def test_any_other_service_is_not(guard: Guard, obj: Object) -> None:
    assert guard.ask(obj) == ALLOWED
    assert guard.records() == []
