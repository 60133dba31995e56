"""Pods in memory: by the seal they name, whole but for what changes all the time."""

from __future__ import annotations

import copy
from typing import Any

from tests.unit.controller.test_disturbances import deleted, pod
from tests.unit.provenance.test_livepods import EXPECTED, IMAGES, running
from trainseal.api.model import json_object
from trainseal.controller.podbook import GONE_SECONDS, PodBook
from trainseal.provenance.additions import Additions
from trainseal.provenance.livepods import image_differences, live_differences

Object = dict[str, Any]
KEY = ("research", "seal-1")


class Scene:
    """A book, its clock, and the seals it said had changed."""

    def __init__(self) -> None:
        self.now = 0.0
        self.changed: list[tuple[str, str]] = []
        self.book = PodBook(self.changed.append, lambda: self.now)

    def tell(self, event: Any, found: Object, seal: str = "seal-1") -> None:
        shaped = self.book.shape(copy.deepcopy(found))
        labels: Any = shaped["metadata"]
        labels["labels"] = {**labels.get("labels", {}), "trainseal.dev/seal": seal}
        self.book.listen(event, ("research", found["metadata"]["name"]), shaped)


def test_what_is_kept_of_a_pod_is_enough_to_compare_it() -> None:
    shaped = Scene().book.shape(running())
    assert live_differences(EXPECTED, shaped, Additions()) == ()
    assert image_differences(shaped, IMAGES) == ()
    other = running(digest="sha256:" + "e" * 64)
    assert image_differences(Scene().book.shape(other), IMAGES)


def test_what_pods_have_in_common_is_kept_once() -> None:
    book = Scene().book
    one, other = (json_object(book.shape(running(index))["spec"]) for index in (0, 1))
    assert one["containers"] is other["containers"]


def test_what_pods_of_one_run_share_is_not_lost_by_how_many_runs_there_are() -> None:
    book = Scene().book
    first = json_object(book.shape(running())["spec"])["containers"]
    for number in range(3000):
        of_another: Object = running()
        of_another["metadata"]["labels"]["trainseal.dev/seal"] = f"seal-{number}"
        of_another["spec"]["containers"][0]["env"] = [{"name": "RUN", "value": str(number)}]
        book.shape(of_another)
    assert json_object(book.shape(running(1))["spec"])["containers"] is first


def test_what_a_run_shared_goes_with_its_pods() -> None:
    scene = Scene()
    scene.tell("ADDED", pod())
    scene.tell("DELETED", deleted(pod()))
    scene.now = GONE_SECONDS + 1
    scene.book.of(KEY)
    assert not any(run == KEY for run in scene.book._shared)


def test_a_pod_that_went_is_remembered_for_a_while() -> None:
    scene = Scene()
    scene.tell("ADDED", pod())
    scene.tell("DELETED", deleted(pod()))
    (tracked,) = scene.book.of(KEY)
    assert (tracked.gone, tracked.disturbed) == (0.0, 0.0)
    scene.now = GONE_SECONDS + 1
    assert scene.book.of(KEY) == []
    assert scene.book.seals() == []


def test_the_end_of_a_pod_counts_from_when_it_was_first_seen() -> None:
    scene = Scene()
    scene.tell("ADDED", pod())
    assert scene.book.of(KEY)[0].disturbed is None
    scene.now = 3.0
    scene.tell("MODIFIED", deleted(pod()))
    scene.now = 9.0
    scene.tell("MODIFIED", deleted(pod(143)))
    assert scene.book.of(KEY)[0].disturbed == 3.0


def test_a_pod_that_is_given_another_runs_label_moves() -> None:
    scene = Scene()
    scene.tell("ADDED", pod())
    scene.tell("MODIFIED", pod(), seal="seal-2")
    assert scene.book.of(KEY) == []
    assert len(scene.book.of(("research", "seal-2"))) == 1
    assert KEY in scene.changed
