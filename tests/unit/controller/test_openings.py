"""NetworkPolicies of others that open a run are found, and by whom where that is known."""

from __future__ import annotations

from typing import Any, cast

from tests.unit import world
from trainseal.api.findings import FindingId
from trainseal.controller.openings import Network, Openings
from trainseal.controller.ownreport import Seen

Object = dict[str, Any]
SEALED = world.sealed_world()
SEAL = SEALED.seal["metadata"]["name"]
KEY = ("research", SEAL)
RECORDS = "/apis/trainseal.dev/v1alpha1/namespaces/research/accessrecords"


def policy(name: str = "theirs", selector: Object | None = None, **said: Any) -> Object:
    spec = {"podSelector": selector or {}, "policyTypes": ["Ingress"], "ingress": [{}]} | said
    metadata: Object = {"name": name, "namespace": "research", "uid": f"uid-of-{name}"}
    metadata |= {"generation": 1, "creationTimestamp": "2026-11-23T11:00:00Z"}
    return {"metadata": metadata, "spec": spec}


def record(name: str, user: str, time: str, *, action: str = "Create", allowed: bool = True) -> Any:
    spec: Object = {"action": action, "username": user, "time": time, "allowed": allowed}
    spec["object"] = {"kind": "NetworkPolicy", "name": "theirs", "uid": "uid-of-theirs"}
    return {"metadata": {"name": name}, "spec": spec}


def pod(number: int = 0, **labels: str) -> Object:
    found = SEALED.pod()
    found["metadata"] |= {"name": f"worker-{number}"}
    found["metadata"]["labels"] |= labels
    return found


class Controller:
    """The controller's part, and what an API server has on record."""

    def __init__(self, *records: Any) -> None:
        self.records = records
        self.asked: list[str] = []
        self.told: list[str] = []
        self.openings = Openings(cast("Any", self), self._changed)

    async def request(self, _method: str, path: str, *, query: Object) -> Object:
        assert path == RECORDS
        self.asked.append(query["labelSelector"])
        return {"items": list(self.records)}

    def _changed(self, namespace: str, network: Network) -> None:
        assert namespace == "research"
        self.told.append(network.name)

    def has(self, obj: Object, event: Any = "ADDED") -> None:
        self.openings.listen(event, ("research", obj["metadata"]["name"]), obj)

    def finds(self, *pods: Object, isolated: bool = False) -> list[Seen]:
        return world.run(self.openings.on(KEY, pods or (pod(),), isolated=isolated))


def test_one_that_lets_something_in_is_found_with_its_rules_and_pods() -> None:
    controller = Controller()
    controller.has(policy())
    (seen,) = controller.finds(*(pod(n) for n in range(5)))
    assert (seen.id, seen.user) == (FindingId.NETWORK_OPENED, "")
    assert "worker-0, worker-1, worker-2 and 2 more: found ingress [{}]" in seen.message
    assert seen.evidence["made"] == "2026-11-23T11:00:00Z"


def test_who_last_made_or_changed_it_is_named() -> None:
    controller = Controller(
        record("one", "ann", "2026-11-23T11:00:00Z"),
        record("three", "mallory", "2026-11-23T11:30:00Z", action="Change"),
        record("two", "bob", "2026-11-23T11:10:00Z", action="Change"),
        record("four", "eve", "2026-11-23T11:40:00Z", action="Change", allowed=False),
    )
    controller.has(policy())
    (seen,) = controller.finds()
    assert (seen.user, seen.access_record) == ("mallory", "three")
    assert seen.message.endswith("; mallory changed it")
    assert controller.asked == ["trainseal.dev/object-uid=uid-of-theirs"]
    controller.finds()
    assert len(controller.asked) == 1, "read once for each change of it"
    changed = policy(ingress=[{"ports": [{"port": 1}]}])
    changed["metadata"]["generation"] = 2
    controller.has(changed, "MODIFIED")
    controller.finds()
    assert len(controller.asked) == 2


def test_what_closes_is_for_others_or_is_a_runs_own_is_none() -> None:
    controller = Controller()
    controller.has(policy("closes", ingress=[]))
    controller.has(policy("for-others", {"matchLabels": {"app": "web"}}))
    controller.has(policy(SEAL, {"matchLabels": {"trainseal.dev/seal": SEAL}}))
    controller.has(policy("other-1", {"matchLabels": {"trainseal.dev/seal": "other-1"}}))
    no_sealed = [{"key": "trainseal.dev/seal", "operator": "DoesNotExist"}]
    controller.has(policy("no-sealed", {"matchExpressions": no_sealed}))
    assert controller.finds() == []


def test_one_under_another_name_that_says_it_is_for_the_run_is_found() -> None:
    controller = Controller()
    controller.has(policy("theirs", {"matchLabels": {"trainseal.dev/seal": SEAL}}))
    assert [s.evidence["object"] for s in controller.finds()] == ["NetworkPolicy theirs"]


def test_a_label_that_a_pod_got_past_the_webhook_counts() -> None:
    controller = Controller()
    controller.has(policy("theirs", {"matchLabels": {"app": "mallory"}}))
    assert controller.finds(pod()) == []
    (seen,) = controller.finds(pod(), pod(1, app="mallory"))
    assert seen.evidence["pods"] == "worker-1"


def test_a_way_out_is_found_in_quarantine_alone() -> None:
    controller = Controller()
    controller.has(policy(policyTypes=["Egress"], ingress=[], egress=[{}]))
    assert controller.finds() == []
    (seen,) = controller.finds(isolated=True)
    assert "found egress [{}]" in seen.message


def test_one_that_is_gone_or_closed_again_is_found_no_more() -> None:
    controller = Controller()
    controller.has(policy())
    controller.has(policy(ingress=[]), "MODIFIED")
    assert controller.finds() == []
    controller.has(policy(), "MODIFIED")
    assert controller.finds()
    controller.has(policy(), "DELETED")
    assert controller.finds() == []


def test_runs_are_looked_at_when_what_is_open_changes_and_not_else() -> None:
    controller = Controller()
    controller.has(policy(ingress=[]))
    controller.has(policy(), "MODIFIED")
    noted = policy()
    noted["metadata"]["labels"] = {"note": "x"}
    controller.has(noted, "MODIFIED")
    controller.has(policy("closes", ingress=[]))
    assert controller.told == ["theirs"]
