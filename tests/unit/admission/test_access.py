"""Who gets into a sealed pod is on record first; nobody else is held up."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from tests.unit import world
from trainseal.admission.access import AccessContext, AccessRecorder
from trainseal.admission.pods import decide
from trainseal.admission.reviews import Request, Response, render
from trainseal.admission.sealindex import SealIndex
from trainseal.api.accessrecord import Way
from trainseal.cluster.api import ConflictError, KubeError, NotFoundError
from trainseal.provenance.accessrules import Permit

Object = dict[str, Any]
POD = "char-lm-worker-0-x7f2p"
ANN = "ann@example.org"


@dataclass
class ApiServer:
    """Stands in for Kube: pods by path, and what is created; ``before`` is awaited by each call."""

    pods: dict[str, Object]
    created: list[Object] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    read_fails: Exception | None = None
    write_fails: Exception | None = None
    write_fails_in: dict[str, Exception] = field(default_factory=dict)
    before: Callable[[], Awaitable[object]] | None = None

    async def get(self, path: str, *, seconds: float) -> Object:
        assert seconds <= 2
        self.calls.append(path)
        if self.before:
            await self.before()
        if self.read_fails:
            raise self.read_fails
        if path not in self.pods:
            raise NotFoundError(404, "NotFound", path)
        return self.pods[path]

    async def create(self, path: str, obj: Object) -> Object:
        self.calls.append(path)
        if self.before:
            await self.before()
        if self.write_fails:
            raise self.write_fails
        if error := self.write_fails_in.get(obj["metadata"]["namespace"]):
            raise error
        name = obj["metadata"]["name"]
        if any(o["metadata"]["name"] == name for o in self.created):
            raise ConflictError(409, "AlreadyExists", name)
        self.created.append(obj)
        return obj


@dataclass
class Door:
    """A sealed pod and one of nobody's, an API server, and the recorder before both."""

    sealed: world.World
    api: ApiServer
    rules: AccessContext
    looked: list[tuple[str, str]]
    permits: tuple[Permit, ...] = ()

    def __post_init__(self) -> None:
        self.recorder = AccessRecorder(self.api, self.rules, lambda: 0.0)  # type: ignore[arg-type]

    def ask(self, request: Request) -> Response:
        return world.run(self.recorder.answer(request))

    @property
    def pod(self) -> Object:
        """The sealed one, as it lives."""
        return self.api.pods[f"/api/v1/namespaces/research/pods/{POD}"]


@pytest.fixture(scope="module")
def sealed() -> world.World:
    return world.sealed_world()


@pytest.fixture
def door(sealed: world.World) -> Door:
    live = sealed.pod()
    live["metadata"] |= {"name": POD, "uid": "pod-uid"}
    live["spec"]["nodeName"] = "node-7"
    other = {"metadata": {"name": "web", "uid": "other-uid"}, "spec": {}}
    place = "/api/v1/namespaces/research/pods"
    index, context, looked = sealed.index(), sealed.context(), []

    async def look(namespace: str, name: str) -> bool:
        looked.append((namespace, name))
        return True

    def final(request: Request) -> Response:
        answer = decide(request, context, final=True)
        assert isinstance(answer, Response)
        return answer

    rules = AccessContext(
        find=index.find,
        look=look,
        may_hold=index.may_hold,
        live=index.live,
        mounting=index.mounting,
        reached_by=index.reached_by,
        final=final,
        home="trainseal-system",
        ways_in=context.ways_in,
        now=lambda: world.NOW,
    )
    return Door(sealed, ApiServer({f"{place}/{POD}": live, f"{place}/web": other}), rules, looked)


def exec_(name: str = POD, namespace: str = "research", uid: str = "review-1") -> Request:
    asked = world.request(
        {"command": ["cat", "password=hunter2"]},
        operation="CONNECT", subresource="exec", user=ANN, namespace=namespace,
    )  # fmt: skip
    return dataclasses.replace(asked, name=name, uid=uid)


def delete(pod: Object) -> Request:
    return world.request(None, pod, operation="DELETE", user=ANN)


def test_an_exec_into_a_sealed_pod_is_on_record_before_it_is_let_through(door: Door) -> None:
    found = door.ask(exec_())
    assert found.allowed
    (made,) = door.api.created
    assert made["spec"]["username"] == ANN
    assert made["spec"]["pod"] == {"name": POD, "uid": "pod-uid"}
    assert made["spec"]["sealedRun"] == door.sealed.seal["metadata"]["name"]
    assert made["spec"]["node"] == "node-7"
    assert found.audit == {"access-record": f"research/{made['metadata']['name']}"}
    assert len(door.api.calls) == 2


def test_an_exec_into_a_pod_of_a_lane_is_on_record_before_it_is_let_through(door: Door) -> None:
    web = door.api.pods["/api/v1/namespaces/research/pods/web"]
    web["metadata"]["labels"] = {"trainseal.dev/lane": "notebooks"}
    assert door.ask(exec_("web")).allowed
    (made,) = door.api.created
    assert (made["spec"]["lane"], made["spec"]["allowed"]) == ("notebooks", True)
    assert "sealedRun" not in made["spec"]
    assert made["metadata"]["labels"]["trainseal.dev/lane"] == "notebooks"
    assert "trainseal.dev/seal" not in made["metadata"]["labels"]
    door.api.write_fails = KubeError(0, "Unreachable", "gone")
    found = door.ask(exec_("web", uid="review-2"))
    assert (found.allowed, found.code) == (False, 503)
    assert "the pod runs in lane notebooks" in found.message


def test_a_pod_of_a_lane_that_is_deleted_is_nobodys_business(door: Door) -> None:
    web = door.api.pods["/api/v1/namespaces/research/pods/web"]
    web["metadata"]["labels"] = {"trainseal.dev/lane": "notebooks"}
    assert door.ask(delete(web)).allowed
    assert door.api.created == []


def test_where_a_lane_is_open_a_pod_that_cannot_be_read_may_be_in_it(door: Door) -> None:
    door.api.read_fails = KubeError(0, "Unreachable", "gone")
    assert door.ask(exec_("web")).allowed
    door.rules = dataclasses.replace(door.rules, has_lanes=lambda n: n == "research")
    door.__post_init__()
    found = door.ask(exec_("web"))
    assert (found.allowed, found.code) == (False, 503)
    assert "may run in a lane" in found.message


def test_an_exec_into_any_other_pod_is_let_through_without_a_record(door: Door) -> None:
    assert door.ask(exec_("web")) == Response(True)
    assert not door.api.created


def test_a_pod_that_only_bears_our_labels_is_not_sealed(door: Door) -> None:
    del door.pod["metadata"]["ownerReferences"]
    assert door.ask(exec_()) == Response(True)
    assert door.looked == [("research", door.sealed.seal["metadata"]["name"])]


def test_a_pod_without_our_labels_is_sealed_by_its_owner(door: Door) -> None:
    door.pod["metadata"]["labels"] = {}
    assert door.ask(exec_()).allowed
    assert len(door.api.created) == 1
    assert not door.looked


def test_a_seal_that_the_watch_has_not_brought_yet_is_looked_for(door: Door) -> None:
    empty = SealIndex(world.CLUSTER)
    empty.use_keyring(world.keyring())

    async def look(namespace: str, name: str) -> bool:
        empty.on_seal("ADDED", (namespace, name), door.sealed.seal)
        return True

    late = dataclasses.replace(door.rules, find=empty.find, look=look)
    assert Door(door.sealed, door.api, late, []).ask(exec_()).allowed
    assert len(door.api.created) == 1


def test_a_pod_whose_seal_cannot_be_looked_up_is_denied_and_says_why(door: Door) -> None:
    async def look(namespace: str, name: str) -> bool:
        return False

    deaf = dataclasses.replace(door.rules, find=lambda _: None, look=look)
    found = Door(door.sealed, door.api, deaf, []).ask(exec_())
    assert (found.allowed, found.code) == (False, 503)
    assert "which could not be looked up" in found.message
    # A pod without our labels is left alone.
    assert Door(door.sealed, door.api, deaf, []).ask(exec_("web")).allowed


def test_a_pod_that_is_not_there_is_the_api_servers_to_miss(door: Door) -> None:
    assert door.ask(exec_("char-lm-worker-0-gone")).allowed


def test_an_excluded_namespace_costs_nothing(door: Door) -> None:
    assert door.ask(exec_(namespace="kube-system")) == Response(True)
    assert not door.api.calls


def test_a_name_that_no_pod_has_is_denied_without_a_call(door: Door) -> None:
    assert not door.ask(exec_("../../secrets/x")).allowed
    assert not door.api.calls


# What cannot be recorded ------------------------------------------------------------------------

FAILURES = [
    KubeError(403, "Forbidden", "trainseal-webhook cannot create accessrecords"),
    KubeError(0, "Unreachable", "connection refused"),
    KubeError(403, "Forbidden", "namespace research is being terminated"),
    KubeError(500, "InternalError", "etcd"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=str)
def test_an_exec_that_cannot_be_recorded_is_denied_and_says_why(
    door: Door, failure: KubeError
) -> None:
    door.api.write_fails = failure
    found = door.ask(exec_())
    assert not found.allowed
    assert found.code == 503
    assert failure.message in found.message
    assert f"Exec on pod research/{POD}" in found.message
    assert "try again" in found.message
    assert door.ask(exec_("web")).allowed


def test_what_was_typed_is_in_the_record_alone(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    found = [door.ask(exec_())]
    assert "hunter2" in json.dumps(door.api.created)
    door.api.write_fails = FAILURES[0]
    found.append(door.ask(exec_()))
    assert "hunter2" not in "".join(str(render("uid", f)) for f in found)
    assert "accessrecords" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("failure", [*FAILURES, TimeoutError()], ids=str)
def test_a_pod_that_cannot_be_read_is_denied_only_if_it_may_be_sealed(
    door: Door, failure: Exception
) -> None:
    door.api.read_fails = failure
    found = door.ask(exec_())
    assert (found.allowed, found.code) == (False, 503)
    assert "it may be sealed, by its name" in found.message
    assert door.ask(exec_("web")).allowed
    assert door.ask(exec_(POD, namespace="elsewhere")).allowed


def test_no_call_takes_longer_than_its_two_seconds(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainseal.admission.access._CALL_SECONDS", 0.01)
    door.api.before = asyncio.Event().wait
    found = door.ask(exec_())
    assert not found.allowed
    assert "no answer within 2 seconds" in found.message


def test_an_answer_that_came_twice_is_on_record_once(door: Door) -> None:
    first, second = door.ask(exec_()), door.ask(exec_())
    assert first == second
    assert first.allowed
    assert len(door.api.created) == 1


def test_many_at_one_door_cost_one_read(door: Door) -> None:
    door.api.before = lambda: asyncio.sleep(0)

    async def crowd() -> list[Response]:
        return await asyncio.gather(
            *(door.recorder.answer(exec_(uid=f"review-{n}")) for n in range(100))
        )

    assert all(answer.allowed for answer in world.run(crowd()))
    assert len(door.api.created) == 100
    assert sum(not call.startswith("/apis/trainseal.dev") for call in door.api.calls) == 1


def test_the_next_one_is_read_again(door: Door) -> None:
    path = f"/api/v1/namespaces/research/pods/{POD}"
    anew = {**door.pod, "metadata": {**door.pod["metadata"], "uid": "anew"}}

    async def one_after_the_other() -> None:
        assert (await door.recorder.answer(exec_(uid="review-1"))).allowed
        door.api.pods[path] = anew
        assert (await door.recorder.answer(exec_(uid="review-2"))).allowed

    world.run(one_after_the_other())
    assert [o["spec"]["pod"]["uid"] for o in door.api.created] == ["pod-uid", "anew"]


# Ends and debug containers ----------------------------------------------------------------------


def test_a_deletion_is_recorded_from_what_the_request_brings(door: Door) -> None:
    assert door.ask(delete(door.pod)).allowed
    (made,) = door.api.created
    assert (made["spec"]["action"], made["spec"]["pod"]["name"]) == ("Delete", POD)
    assert len(door.api.calls) == 1


def test_a_deletion_that_is_asked_twice_is_one_record(door: Door) -> None:
    for uid in ("review-1", "review-2"):
        assert door.ask(dataclasses.replace(delete(door.pod), uid=uid)).allowed
    assert len(door.api.created) == 1


def test_a_dry_run_leaves_no_record(door: Door) -> None:
    assert door.ask(dataclasses.replace(delete(door.pod), dry_run=True)).allowed
    assert not door.api.calls


def test_an_eviction_is_recorded(door: Door) -> None:
    asked = world.request({"metadata": {"name": POD}}, subresource="eviction", user=ANN)
    assert door.ask(asked).allowed
    assert door.api.created[0]["spec"]["action"] == "Evict"


def debug(door: Door) -> Request:
    new = {**door.pod, "spec": {**door.pod["spec"]}}
    new["spec"]["ephemeralContainers"] = [{"name": "debugger", "image": "busybox"}]
    return world.request(new, door.pod, user=ANN, subresource="ephemeralcontainers")


def test_a_debug_container_is_refused_and_the_attempt_is_on_record(door: Door) -> None:
    found = door.ask(debug(door))
    assert not found.allowed
    assert "access.ephemeralContainers is Deny" in found.message
    (made,) = door.api.created
    assert made["spec"]["allowed"] is False
    assert made["spec"]["image"] == "busybox"
    assert found.audit == {"access-record": f"research/{made['metadata']['name']}"}


def test_it_stays_refused_for_the_same_reason_where_it_cannot_be_recorded(door: Door) -> None:
    door.api.write_fails = FAILURES[0]
    assert "access.ephemeralContainers is Deny" in door.ask(debug(door)).message


def resize(door: Door, cpu: str = "4") -> Request:
    new = copy.deepcopy(door.pod)
    new["spec"]["containers"][0]["resources"]["requests"]["cpu"] = cpu
    return world.request(new, door.pod, user=ANN, subresource="resize")


def test_a_resize_is_refused_and_the_attempt_is_on_record(door: Door) -> None:
    found = door.ask(resize(door))
    assert not found.allowed
    assert "access.resize is Deny" in found.message
    (made,) = door.api.created
    assert (made["spec"]["action"], made["spec"]["allowed"]) == ("Resize", False)
    assert made["spec"]["resized"][0]["requests"] == {"cpu": "4", "memory": "4Gi"}
    assert "trainseal.dev/resized" not in made["metadata"]["labels"]


# What policies say ------------------------------------------------------------------------------


def under(door: Door, **access: Any) -> Door:
    """The same door, where the namespace's one policy says this."""
    policies = (world.policy(access=access),)
    context = dataclasses.replace(
        door.sealed.context(),
        policies=lambda _: policies,
        ways_in=world.ways_in(lambda _: policies, door.permits),
    )

    def final(request: Request) -> Response:
        answer = decide(request, context, final=True)
        assert isinstance(answer, Response)
        return answer

    rules = dataclasses.replace(door.rules, final=final, ways_in=context.ways_in)
    return Door(door.sealed, door.api, rules, [])


def test_an_exec_that_a_policy_denies_is_refused_and_the_attempt_is_on_record(door: Door) -> None:
    found = under(door, exec="Deny").ask(exec_())
    assert not found.allowed
    assert "access.exec is Deny" in found.message
    (made,) = door.api.created
    assert (made["spec"]["action"], made["spec"]["allowed"]) == ("Exec", False)
    assert found.audit == {"access-record": f"research/{made['metadata']['name']}"}


def test_it_stays_denied_where_the_attempt_cannot_be_recorded(door: Door) -> None:
    door.api.write_fails = FAILURES[0]
    assert "access.exec is Deny" in under(door, exec="Deny").ask(exec_()).message


def test_who_gets_in_is_no_matter_of_who_may_end_a_pod(door: Door) -> None:
    assert under(door, exec="Deny", attach="Deny").ask(delete(door.pod)).allowed


# Through a Service ------------------------------------------------------------------------------


def through(name: str = "http:char-lm:8080") -> Request:
    """The API server's proxy to a Service."""
    asked = world.request(
        {"path": "/metrics?token=hunter2"}, operation="CONNECT", resource="services",
        subresource="proxy", user=ANN,
    )  # fmt: skip
    return dataclasses.replace(asked, name=name)


def service(door: Door, name: str = "char-lm", **selector: str) -> None:
    """A Service of the namespace."""
    obj = {"metadata": {"name": name, "uid": "service-uid"}, "spec": {"selector": selector}}
    door.api.pods[f"/api/v1/namespaces/research/services/{name}"] = obj


def test_a_service_that_leads_to_a_sealed_pod_is_as_the_proxy_to_it(door: Door) -> None:
    service(door, **{"trainseal.dev/job": "char-lm"})
    assert door.ask(through()).allowed
    (made,) = door.api.created
    assert made["spec"]["action"] == "ServiceProxy"
    assert made["spec"]["object"] == {"kind": "Service", "name": "char-lm", "uid": "service-uid"}
    assert made["spec"]["path"] == "/metrics"
    assert "hunter2" not in json.dumps(made)
    found = under(door, proxy="Deny").ask(through())
    assert "access.proxy is Deny" in found.message


@pytest.mark.parametrize(
    "selector",
    [
        {"batch.kubernetes.io/controller-uid": world.OBJECT_UID},
        {"trainseal.dev/job": "char-lm", "batch.kubernetes.io/job-completion-index": "1"},
    ],
)
def test_so_is_one_that_chooses_by_what_a_job_controller_writes(
    door: Door, selector: Object
) -> None:
    service(door, **selector)
    assert not under(door, proxy="Deny").ask(through()).allowed


@pytest.mark.parametrize("selector", [{"app": "web"}, {}, {"trainseal.dev/job": "other"}])
def test_one_that_leads_elsewhere_is_nobodys_business(door: Door, selector: Object) -> None:
    service(door, **selector)
    assert under(door, proxy="Deny").ask(through()) == Response(True)
    assert not door.api.created


def test_one_that_is_not_there_is_the_api_servers_to_miss(door: Door) -> None:
    assert under(door, proxy="Deny").ask(through("gone")) == Response(True)


def test_one_that_cannot_be_read_is_denied_only_where_a_sealed_run_lives(door: Door) -> None:
    door.api.read_fails = FAILURES[3]
    found = door.ask(through())
    assert (found.allowed, found.code) == (False, 503)
    assert "it may lead to a sealed pod" in found.message
    elsewhere = dataclasses.replace(through(), namespace="elsewhere")
    assert door.ask(elsewhere) == Response(True)


# Deletions by policy ----------------------------------------------------------------------------


def gone(door: Door, resource: str = "configmaps", user: str = ANN, **metadata: Any) -> Request:
    """An object of the run, or one that looks like it, is deleted."""
    seal = door.sealed.seal["metadata"]["name"]
    labels = {"trainseal.dev/seal": seal}
    old: Object = {
        "metadata": {"name": "x", "uid": "u", "labels": labels} | metadata,
        "status": {"sealedRun": seal},
    }
    return world.request(None, old, operation="DELETE", user=user, resource=resource)


RESOURCES = (
    "trainingjobs", "jobs", "jobsets", "trainjobs", "trainingruntimes", "configmaps", "services",
    "networkpolicies",
)  # fmt: skip


@pytest.mark.parametrize("resource", RESOURCES)
def test_who_deletes_what_a_run_is_made_of_is_on_record(door: Door, resource: str) -> None:
    found = door.ask(gone(door, resource))
    assert found.allowed
    (made,) = door.api.created
    assert (made["spec"]["action"], made["spec"]["username"]) == ("DeleteObject", ANN)
    assert made["spec"]["sealedRun"] == door.sealed.seal["metadata"]["name"]
    assert found.audit == {"access-record": f"research/{made['metadata']['name']}"}
    assert len(door.api.calls) == 1


def test_a_claim_is_on_record_where_pods_of_a_run_mount_it(door: Door) -> None:
    assert door.ask(gone(door, "persistentvolumeclaims", name="ckpt", labels={})).allowed
    assert door.api.created[0]["spec"]["object"]["name"] == "ckpt"
    assert door.ask(gone(door, "persistentvolumeclaims", name="other")).allowed
    assert len(door.api.created) == 1


def test_what_belongs_to_no_run_that_lives_is_not(door: Door) -> None:
    assert door.ask(gone(door, labels={"trainseal.dev/seal": "ended"})) == Response(True)
    assert door.ask(gone(door, labels={})) == Response(True)
    job = gone(door, "trainingjobs")
    del job.old["status"]
    assert door.ask(job) == Response(True)
    assert not door.api.calls


@pytest.mark.parametrize("failure", FAILURES, ids=str)
def test_such_a_deletion_never_waits_for_its_record(door: Door, failure: KubeError) -> None:
    door.api.write_fails = failure
    assert door.ask(gone(door)).allowed


@pytest.mark.parametrize(
    ("deletion", "allowed"),
    [
        ({"users": [ANN]}, True),
        ({"users": ["bob@example.org"]}, False),
        ({"groups": ["team"]}, True),
        ({"groups": ["leads"]}, False),
        ({}, False),
    ],
)
def test_a_policy_names_who_may_delete(door: Door, deletion: Object, allowed: bool) -> None:
    strict = under(door, deletion=deletion)
    for asked in (delete(door.pod), gone(door), gone(door, "jobs")):
        found = strict.ask(dataclasses.replace(asked, user={"groups": ["team"]}))
        assert found.allowed is allowed
        if not allowed:
            assert "access.deletion names neither this user nor a group of theirs" in found.message
    assert {o["spec"]["allowed"] for o in door.api.created} == {allowed}
    assert len(door.api.created) == 3


def test_who_asked_for_the_run_may_delete_its_training_job_and_nothing_else(door: Door) -> None:
    requester = door.sealed.seal["spec"]["requester"]["username"]
    strict = under(door, deletion={})
    assert strict.ask(gone(door, "trainingjobs", user=requester)).allowed
    assert not strict.ask(gone(door, "trainingjobs")).allowed
    assert not strict.ask(gone(door, "jobs", user=requester)).allowed
    assert not strict.ask(dataclasses.replace(delete(door.pod), username=requester)).allowed


def test_a_policy_that_audits_warns_who_deletes(door: Door) -> None:
    audits = (world.policy(mode="Audit", access={"deletion": {}}),)
    ways = world.ways_in(lambda _: audits)
    strict = Door(door.sealed, door.api, dataclasses.replace(door.rules, ways_in=ways), [])
    for asked in (delete(door.pod), gone(door)):
        found = strict.ask(asked)
        assert found.allowed
        assert "would be denied under Enforce" in found.warnings[0]


TERMINATING = KubeError(
    403,
    "Forbidden",
    "unable to create new content in namespace research because it is being terminated",
)


def test_in_a_namespace_that_goes_deletions_are_on_record_in_the_releases_own(door: Door) -> None:
    """Else a pod that is stuck there could not be deleted, and the namespace never went."""
    door.api.write_fails_in = {"research": TERMINATING}
    for asked in (delete(door.pod), gone(door)):
        found = door.ask(asked)
        assert found.allowed
        assert found.audit["access-record"].startswith("trainseal-system/")
    assert {o["metadata"]["namespace"] for o in door.api.created} == {"trainseal-system"}
    assert {o["metadata"]["labels"]["trainseal.dev/namespace"] for o in door.api.created} == {
        "research"
    }
    # Nobody gets in any more.
    assert not door.ask(exec_()).allowed


def test_a_pod_of_nobodys_is_not_denied(door: Door) -> None:
    assert under(door, exec="Deny").ask(exec_("web")) == Response(True)


def test_an_exec_by_a_break_glass_is_on_record_with_its_name(door: Door) -> None:
    assert not under(door, exec="BreakGlass").ask(exec_()).allowed
    valid = Permit("glass-1", ANN, "bob", frozenset(), world.NOW, world.NOW + timedelta(minutes=5))
    door.permits = (valid,)
    found = under(door, exec="BreakGlass").ask(exec_())
    assert found.allowed
    refused, made = door.api.created
    assert "breakGlass" not in refused["spec"]
    assert made["spec"]["breakGlass"] == "glass-1"
    assert made["metadata"]["labels"]["trainseal.dev/break-glass"] == "true"
    assert found.audit == {
        "break-glass": "glass-1",
        "access-record": f"research/{made['metadata']['name']}",
    }


def test_a_debug_container_by_a_break_glass_is_on_record_with_its_name(door: Door) -> None:
    valid = Permit("glass-1", ANN, "bob", frozenset(), world.NOW, world.NOW + timedelta(minutes=5))
    door.permits = (valid,)
    assert under(door, ephemeralContainers="BreakGlass").ask(debug(door)).allowed
    assert door.api.created[0]["spec"]["breakGlass"] == "glass-1"


def test_a_debug_container_that_a_policy_lets_in_is_on_record(door: Door) -> None:
    found = under(door, ephemeralContainers="Record").ask(debug(door))
    assert found.allowed
    assert door.api.created[0]["spec"]["allowed"] is True


def test_a_resize_that_a_policy_lets_through_is_on_record_first(door: Door) -> None:
    found = under(door, resize="Record").ask(resize(door))
    (made,) = door.api.created
    assert (found.allowed, made["spec"]["allowed"]) == (True, True)
    assert made["metadata"]["labels"]["trainseal.dev/resized"] == "true"
    assert found.audit == {"access-record": f"research/{made['metadata']['name']}"}


def test_a_resize_that_cannot_be_recorded_is_denied(door: Door) -> None:
    door.api.write_fails = FAILURES[0]
    found = under(door, resize="Record").ask(resize(door))
    assert not found.allowed
    assert "could not be recorded" in found.message


def test_a_resize_by_a_break_glass_is_on_record_with_its_name(door: Door) -> None:
    assert not under(door, resize="BreakGlass").ask(resize(door)).allowed
    ways = frozenset[Way]({"Resize"})
    valid = Permit("glass-1", ANN, "bob", ways, world.NOW, world.NOW + timedelta(minutes=5))
    door.permits = (valid,)
    assert under(door, resize="BreakGlass").ask(resize(door)).allowed
    refused, made = door.api.created
    assert ("breakGlass" in refused["spec"], made["spec"]["breakGlass"]) == (False, "glass-1")


def test_a_dry_run_of_a_resize_leaves_no_record(door: Door) -> None:
    asked = dataclasses.replace(resize(door), dry_run=True)
    assert under(door, resize="Record").ask(asked).allowed
    assert not door.api.calls


def test_up_and_down_and_up_again_is_three_records(door: Door) -> None:
    asked = [dataclasses.replace(resize(door, n), uid=f"review-{i}") for i, n in enumerate("484")]
    assert all(under(door, resize="Record").ask(request).allowed for request in asked)
    sizes = [o["spec"]["resized"][0]["requests"]["cpu"] for o in door.api.created]
    assert sizes == ["4", "8", "4"]


def test_a_resize_in_a_lane_stays_denied_and_is_on_record(door: Door) -> None:
    pod = door.api.pods["/api/v1/namespaces/research/pods/web"]
    pod["metadata"]["labels"] = {"trainseal.dev/lane": "notebooks"}
    pod["spec"] = {"containers": [{"name": "main", "resources": {}}]}
    new = copy.deepcopy(pod)
    new["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "1"}}
    asked = world.request(new, pod, user=ANN, subresource="resize")
    assert "runs in lane notebooks" in under(door, resize="Record").ask(asked).message
    (made,) = door.api.created
    assert (made["spec"]["lane"], made["spec"]["allowed"]) == ("notebooks", False)


def test_what_else_comes_with_a_debug_container_is_denied(door: Door) -> None:
    asked = debug(door)
    asked.object["spec"]["hostPID"] = True
    found = under(door, ephemeralContainers="Record").ask(asked)
    assert not found.allowed
    assert "spec.hostPID" in found.message


def test_a_page_that_was_let_through_is_on_record_once_more_when_it_is_denied(door: Door) -> None:
    """Requests for one path within ten minutes are one record, but not across a change."""
    asked = dataclasses.replace(
        world.request({"path": "/metrics"}, operation="CONNECT", subresource="proxy", user=ANN),
        name=POD,
    )
    assert door.ask(asked).allowed
    assert not under(door, proxy="Deny").ask(asked).allowed
    assert [o["spec"]["allowed"] for o in door.api.created] == [True, False]


# Names of pods ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("namespace", "pod", "may"),
    [
        ("research", POD, True),
        ("research", "web", False),
        ("research", "char-lm", False),
        ("other", POD, False),
    ],
)
def test_which_names_a_sealed_pod_could_have(
    sealed: world.World, namespace: str, pod: str, may: bool
) -> None:
    assert sealed.index().may_hold(namespace, pod) is may


def test_a_long_jobs_pods_are_known_by_what_is_kept_of_its_name() -> None:
    long = world.sealed_world(lambda job: job["metadata"].update(name="n" * 40))
    assert long.index().may_hold("research", "n" * 40 + "-wor-0-abcde")


def test_a_flood_of_sessions_is_refused_and_others_get_in(door: Door) -> None:
    answers = [door.ask(exec_(uid=f"review-{n}")) for n in range(101)]
    assert [a.allowed for a in answers] == [True] * 100 + [False]
    assert answers[-1].code == 429
    assert "at most 20 a second" in answers[-1].message
    assert len(door.api.created) == 100
    assert door.ask(dataclasses.replace(exec_(uid="x"), username="bob@example.org")).allowed
    assert door.ask(delete(door.pod)).allowed


def test_sessions_in_pods_of_nobodys_are_not_counted(door: Door) -> None:
    assert all(door.ask(exec_("web", uid=f"review-{n}")).allowed for n in range(150))
