"""Notebooks at the door of a lane: made fit, verified, counted."""

from __future__ import annotations

import copy
import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
import pytest

from tests.unit import world
from tests.unit.provenance.test_lanes import LABEL, lane, notebook
from trainseal.admission.lanebook import LaneBook
from trainseal.admission.lanepods import Images, LanePods
from trainseal.admission.pods import PodRulesContext, decide
from trainseal.admission.reviews import Request, Response, render
from trainseal.cluster.api import ConflictError, KubeError
from trainseal.provenance.verdicts import Outcome
from trainseal.registry.errors import RegistryUnavailable
from trainseal.registry.references import Reference
from trainseal.verifier.policystore import BrokenPolicy

Object = dict[str, Any]
BOOK = "/api/v1/namespaces/trainseal-system/configmaps/trainseal-lanes"
TAGGED = "registry.example/research/notebook:latest"
DIGEST = "sha256:" + "7" * 64


@dataclass
class ApiServer:
    """Pods of the namespace and the ConfigMap; ``before_write`` happens between read and write."""

    pods: list[Object] = field(default_factory=list)
    book: Object = field(default_factory=lambda: {"metadata": {"resourceVersion": "1"}})
    fails: Exception | None = None
    before_write: list[Any] = field(default_factory=list)

    async def get(self, path: str, *, seconds: float) -> Object:
        assert seconds <= 2
        assert path == BOOK
        if self.fails:
            raise self.fails
        return copy.deepcopy(self.book)

    async def request(self, method: str, path: str, *, query: Any, seconds: float) -> Object:
        assert seconds <= 2
        assert (method, path) == ("GET", "/api/v1/namespaces/research/pods")
        assert query["labelSelector"] == "trainseal.dev/lane=notebooks"
        assert query["fieldSelector"] == "status.phase!=Succeeded,status.phase!=Failed"
        return {"items": copy.deepcopy(self.pods)}

    async def replace(self, path: str, obj: Object) -> Object:
        assert path == BOOK
        if self.before_write:
            self.before_write.pop()()
        if obj["metadata"] != self.book["metadata"]:
            raise ConflictError(409, "Conflict", "changed meanwhile")
        version = int(obj["metadata"]["resourceVersion"]) + 1
        self.book = {**obj, "metadata": {"resourceVersion": str(version)}}
        return self.book


@dataclass
class Registry:
    """Digests by tag."""

    asked: list[str] = field(default_factory=list)
    fails: Exception | None = None

    async def manifest(self, reference: Reference) -> Any:
        self.asked.append(str(reference))
        if self.fails:
            raise self.fails
        return type("Manifest", (), {"digest": DIGEST})


@dataclass
class Door:
    """A namespace with a lane of two pods and four GPUs."""

    api: ApiServer
    registry: Registry
    verifier: Any
    rules: PodRulesContext
    now: float = 1000.0
    missing: str = ""

    def lanes(self) -> LanePods:
        kube, images = cast("Any", self.api), Images(cast("Any", self.registry), self.verifier)
        book = LaneBook(kube, "trainseal-system", self.rules.gpus.is_gpu, lambda: self.now)
        return LanePods(self.rules, images, book, lambda: self.missing)

    def mutate(self, pod: Object) -> Response:
        return world.run(self.lanes().mutate(asking(pod)))

    def validate(self, pod: Object, **changes: Any) -> Response:
        request = dataclasses.replace(asking(pod), **changes)
        return world.run(self.lanes().validate(request))


def asking(pod: Object, old: Object | None = None) -> Request:
    return world.request(pod, old, user=world.EDITOR)


@pytest.fixture
def door() -> Door:
    sealed = world.sealed_world(None, world.policy(lanes=[lane()]))
    return Door(ApiServer(), Registry(), world.Evidence(), sealed.context())


def patched(pod: Object, answer: Response) -> Object:
    """The pod with the JSON patch on it, as far as ours goes."""
    made = copy.deepcopy(pod)
    for op in cast("list[Any]", orjson.loads(orjson.dumps(list(answer.patch)))):
        *way, last = [p.replace("~1", "/") for p in op["path"].split("/")[1:]]
        at: Any = made
        for part in way:
            at = at[int(part)] if isinstance(at, list) else at[part]
        at[last] = op["value"]
    return made


def plain(image: str = TAGGED, name: str = "bare", gpus: int = 1) -> Object:
    """A notebook as its owner writes it."""
    return {
        "metadata": {"name": name, "namespace": "research"},
        "spec": {
            "containers": [
                {"name": "x", "image": image, "resources": {"limits": {"nvidia.com/gpu": gpus}}}
            ]
        },
    }


# Made fit ---------------------------------------------------------------------------------------


def test_a_pod_that_says_nothing_of_lanes_is_made_one_of_the_only_lane(door: Door) -> None:
    made = patched(plain(), door.mutate(plain()))
    assert made["metadata"]["labels"] == {LABEL: "notebooks"}
    assert made["spec"]["activeDeadlineSeconds"] == 3600
    reference = f"registry.example/research/notebook@{DIGEST}"
    assert made["spec"]["containers"][0]["image"] == reference
    assert door.validate(made).allowed
    assert decide(asking(made), door.rules, final=True).allowed


def test_a_registry_that_no_policy_allows_is_not_asked_and_its_image_is_refused(door: Door) -> None:
    made = patched(plain("evil.example/x"), door.mutate(plain("evil.example/x")))
    assert door.registry.asked == []
    said = door.validate(made)
    assert not said.allowed
    assert "outside the repositories that every policy allows" in said.message


def test_a_tag_that_cannot_be_resolved_is_undetermined(door: Door) -> None:
    door.registry.fails = RegistryUnavailable(TAGGED, "no answer")
    said = door.mutate(plain())
    assert (said.allowed, said.code) == (False, 503)
    assert "undetermined" in said.message


def test_pods_that_no_lane_takes_are_left_as_they_are(door: Door) -> None:
    of_a_job = plain()
    of_a_job["metadata"]["ownerReferences"] = [{"apiVersion": "batch/v1", "kind": "Job"}]
    assert door.mutate(of_a_job) == Response(True)
    elsewhere = dataclasses.replace(asking(plain()), namespace="other")
    assert world.run(door.lanes().mutate(elsewhere)) == Response(True)


def test_an_image_by_digest_is_written_in_its_one_spelling_and_nobody_is_asked(door: Door) -> None:
    both = f"{TAGGED}@{DIGEST}"
    made = patched(plain(both), door.mutate(plain(both)))
    reference = f"registry.example/research/notebook@{DIGEST}"
    assert made["spec"]["containers"][0]["image"] == reference
    assert door.registry.asked == []


def test_excluded_namespaces_are_left_alone(door: Door) -> None:
    door.rules = dataclasses.replace(door.rules, excluded_namespaces=frozenset({"research"}))
    assert door.mutate(plain()) == Response(True)
    pod = notebook()
    pod["spec"]["hostPID"] = True
    assert door.validate(pod) == Response(True)


def test_while_policies_are_not_known_nothing_is_decided(door: Door) -> None:
    door.missing = "policies"
    assert door.mutate(plain()).code == 503
    assert door.validate(notebook()).code == 503


# Judged -----------------------------------------------------------------------------------------


def refusal(door: Door, pod: Object) -> str:
    """What the pods' own webhook says, which anybody's label leads to."""
    said = decide(asking(pod), door.rules, final=True)
    assert isinstance(said, Response)
    assert not said.allowed
    return said.message


def test_the_label_alone_opens_nothing(door: Door) -> None:
    pod = notebook()
    pod["spec"]["hostPID"] = True
    assert "spec.hostPID: found true" in refusal(door, pod)
    assert door.validate(pod).message == refusal(door, pod)
    pod = notebook()
    pod["metadata"]["labels"][LABEL] = "other"
    assert "found the open lanes notebooks" in refusal(door, pod)
    assert not door.validate(pod).allowed


def test_without_the_label_a_gpu_pod_is_refused_and_told_of_the_lane(door: Door) -> None:
    said = refusal(door, plain())
    assert "is not part of a sealed run" in said
    assert "may name a lane: notebooks" in said


def test_a_broken_policy_closes_every_lane(door: Door) -> None:
    broken = (BrokenPolicy("broken", "no such key"),)
    door.rules = dataclasses.replace(door.rules, broken=lambda: broken)
    assert "found the open lanes none" in refusal(door, notebook())
    assert door.mutate(plain()) == Response(True)


def test_no_run_that_lives_mounts_what_a_lane_writes(door: Door) -> None:
    door.rules = dataclasses.replace(door.rules, mounting=lambda *_: ["char-lm-1"])
    assert "claim scratch-nb, which run char-lm-1 mounts" in refusal(door, notebook())


def test_a_runtime_that_gives_gpus_by_itself_gives_none_in_a_lane(door: Door) -> None:
    pod = notebook()
    pod["spec"]["runtimeClassName"] = "nvidia"
    assert decide(asking(pod), door.rules, final=True) == Response(True)
    rules = dataclasses.replace(door.rules.gpus, runtime_classes=frozenset({"nvidia"}))
    door.rules = dataclasses.replace(door.rules, gpus=rules)
    assert "spec.runtimeClassName: found nvidia" in refusal(door, pod)


@pytest.mark.parametrize(("outcome", "code"), [(Outcome.REFUTED, 403), (Outcome.UNDETERMINED, 503)])
def test_an_image_that_is_not_verified_is_refused_with_the_verdict(
    door: Door, outcome: Outcome, code: int
) -> None:
    door.verifier.outcomes = {world.IMAGE: outcome}
    said = door.validate(notebook())
    assert (said.allowed, said.code) == (False, code)
    assert str(outcome) in said.message


def test_an_image_by_tag_is_refused_whoever_put_it_there(door: Door) -> None:
    pod = notebook()
    pod["spec"]["containers"][0]["image"] = TAGGED
    assert "found a tag, expected a digest" in door.validate(pod).message
    assert door.verifier.asked == []


def test_a_flood_of_images_is_refused_unread(door: Door) -> None:
    pod = notebook()
    container = pod["spec"]["containers"][0]
    made = [container | {"image": f"registry.example/x{n}", "resources": {}} for n in range(33)]
    pod["spec"]["containers"] = made
    assert "expected at most 32" in door.mutate(pod).message
    assert "expected at most 32" in door.validate(pod).message
    assert door.registry.asked == door.verifier.asked == []


# Changed later ----------------------------------------------------------------------------------


def updated(door: Door, change: Any, subresource: str = "") -> Response:
    old, new = notebook(), notebook()
    change(new)
    request = dataclasses.replace(asking(new, old), subresource=subresource)
    found = decide(request, door.rules, final=True)
    assert isinstance(found, Response)
    return found


@pytest.mark.parametrize(
    "change",
    [
        lambda pod: pod["spec"]["containers"][0].update(image="registry.example/other"),
        lambda pod: pod["spec"].update(activeDeadlineSeconds=60),
        lambda pod: pod["metadata"]["labels"].pop(LABEL),
        lambda pod: pod["metadata"]["labels"].update({"trainseal.dev/seal": "x"}),
        lambda pod: pod["metadata"]["labels"].update({"batch.kubernetes.io/controller-uid": "x"}),
        lambda pod: pod["metadata"]["annotations"].update({"cdi.k8s.io/gpu": "nvidia.com/gpu=all"}),
        lambda pod: pod["metadata"].update(ownerReferences=[{"kind": "Job", "uid": "x"}]),
    ],
)
def test_what_was_judged_stays(door: Door, change: Any) -> None:
    assert not updated(door, change).allowed


@pytest.mark.parametrize("subresource", ["ephemeralcontainers", "resize"])
def test_nothing_is_added_to_a_running_notebook(door: Door, subresource: str) -> None:
    assert subresource in updated(door, lambda _: None, subresource).message


@pytest.mark.parametrize(
    "change",
    [
        lambda pod: pod["metadata"].update(ownerReferences=[]),
        lambda pod: pod["metadata"]["labels"].update(app="other"),
        lambda pod: pod["metadata"]["annotations"].update({"k8s.v1.cni.cncf.io": "x"}),
        lambda pod: pod["metadata"].update(finalizers=[]),
    ],
)
def test_sets_let_their_pods_go_and_people_label_them(door: Door, change: Any) -> None:
    assert updated(door, change).allowed


def test_a_notebook_is_never_made_the_pod_of_a_run(door: Door) -> None:
    sealed = world.sealed_world(None, world.policy(lanes=[lane()]))
    uid = sealed.live["metadata"]["uid"]
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "uid": uid, "controller": True}
    assert not updated(door, lambda p: p["metadata"].update(ownerReferences=[owner])).allowed
    pod = notebook()
    pod["metadata"]["ownerReferences"] = [owner]
    assert "claims to belong to SealedRun" in refusal(door, pod)


# Counted ----------------------------------------------------------------------------------------


def running(name: str, gpus: int = 1) -> Object:
    return plain(name=name, gpus=gpus)


def test_the_pod_beyond_the_limit_is_refused(door: Door) -> None:
    door.api.pods = [running("a"), running("b")]
    assert "found 2 pods in it (a, b), expected at most 2" in door.validate(notebook()).message


def test_the_gpu_beyond_the_limit_is_refused(door: Door) -> None:
    door.api.pods = [running("a", 4)]
    said = door.validate(notebook()).message
    assert "found 4 GPUs held in it (a) and 1 asked for, expected at most 4" in said


def test_what_was_let_in_counts_before_it_is_there_and_no_longer_than_it_may_take(
    door: Door,
) -> None:
    for name in ("one", "two"):
        pod = notebook()
        pod["metadata"]["name"] = name
        assert door.validate(pod).allowed
    assert "found 2 pods" in door.validate(notebook()).message
    door.now += 36
    assert door.validate(notebook()).allowed
    (key,) = door.api.book["data"]
    assert key == "research.notebooks"
    assert list(json.loads(door.api.book["data"][key])) == ["nb-0"]


def test_who_tries_again_takes_no_second_place(door: Door) -> None:
    door.api.pods = [running("a")]
    assert door.validate(notebook()).allowed
    assert door.validate(notebook()).allowed


def test_a_dry_run_takes_no_place(door: Door) -> None:
    assert door.validate(notebook(), dry_run=True).allowed
    assert "data" not in door.api.book


def test_of_two_replicas_one_gives_the_last_place_away(door: Door) -> None:
    door.api.pods = [running("a")]

    def other_replica() -> None:
        taken = {"research.notebooks": json.dumps({"theirs": [1, door.now + 30]})}
        door.api.book = {"metadata": {"resourceVersion": "9"}, "data": taken}

    door.api.before_write = [other_replica]
    assert "found 2 pods in it (a, theirs)" in door.validate(notebook()).message


@pytest.mark.parametrize(
    "failure", [KubeError(403, "Forbidden", "cannot get configmaps"), KubeError(0, "x", "gone")]
)
def test_what_cannot_be_counted_is_refused(door: Door, failure: Exception) -> None:
    door.api.fails = failure
    said = door.validate(notebook())
    assert (said.allowed, said.code) == (False, 503)
    assert "could not be counted" in said.message


def test_a_book_that_somebody_wrote_into_refuses(door: Door) -> None:
    door.api.book["data"] = {"research.notebooks": "nonsense"}
    assert "could not be counted" in door.validate(notebook()).message


def test_the_patch_is_one_that_an_api_server_takes(door: Door) -> None:
    answer = door.mutate(plain())
    body = orjson.loads(render("review-1", answer))["response"]
    assert body["patchType"] == "JSONPatch"
