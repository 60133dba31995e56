"""A job's bounds beyond its schema: at the bound it passes, one beyond it the field is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit import world
from trainseal.api.model import InvalidObjectError
from trainseal.api.sealedrun import MAX_IMAGES
from trainseal.api.trainingjob import MAX_SIGNATURES, TrainingJob
from trainseal.provenance.jobbounds import (
    MAX_SCHEDULING_BYTES,
    MAX_SCHEDULING_DEPTH,
    MAX_SIGNATURES_BYTES,
    changes_beyond_bounds,
    check_bounds,
)

Object = dict[str, Any]
Change = Callable[[Object], object]


def text(value: Object) -> str:
    return json.dumps(value, separators=(",", ":"))


def scheduling(size: int) -> Object:
    """An affinity with that many bytes of JSON."""
    found: Object = {"affinity": {"nodeAffinity": {"note": ""}}}
    found["affinity"]["nodeAffinity"]["note"] = "x" * (size - len(text(found)))
    return found


def nested(depth: int) -> Object:
    """That many objects within one another, ``scheduling`` itself counted, and a value."""
    value: Any = "x"
    for _ in range(depth - 3):
        value = [value]
    return {"affinity": {"x": value}}


def bundles(size: int, count: int = 2) -> list[Object]:
    """Bundles of nobody's, with that many bytes of JSON in all."""
    each, rest = divmod(size, count)
    made = []
    for n in range(count):
        bundle = {"note": ""}
        bundle["note"] = "x" * (each + (rest if n == 0 else 0) - len(text(bundle)))
        made.append({"bundle": bundle})
    return made


def images(count: int) -> list[Object]:
    return [{"name": f"c{n}", "image": f"{world.IMAGE[:-4]}{n:04}"} for n in range(count)]


def job(change: Change) -> Object:
    found = world.signed_job()
    change(found["spec"])
    return found


def check(obj: Object) -> None:
    check_bounds(TrainingJob.parse(obj), obj["spec"])


def use_images(count: int) -> Change:
    return lambda s: s["roles"][0]["template"]["spec"].update(containers=images(count))


@pytest.mark.parametrize(
    "change",
    [
        lambda _: None,
        lambda s: s.pop("signatures"),
        lambda s: s.update(scheduling={}),
        lambda s: s.update(scheduling=scheduling(MAX_SCHEDULING_BYTES)),
        lambda s: s.update(scheduling=nested(MAX_SCHEDULING_DEPTH)),
        lambda s: s.update(signatures=bundles(MAX_SIGNATURES_BYTES)),
        lambda s: s.update(signatures=bundles(MAX_SIGNATURES_BYTES, MAX_SIGNATURES)),
        use_images(MAX_IMAGES),
    ],
)
def test_a_job_at_its_bounds_is_within_them(change: Change) -> None:
    check(job(change))


BEYOND: list[tuple[Change, str]] = [
    (
        lambda s: s.update(scheduling=scheduling(MAX_SCHEDULING_BYTES + 1)),
        "spec.scheduling: found 32769 bytes, expected at most 32768 bytes",
    ),
    (
        lambda s: s.update(scheduling=nested(MAX_SCHEDULING_DEPTH + 1)),
        "spec.scheduling: found nested deeper than 16, expected at most 32768 bytes of JSON in 16",
    ),
    (
        lambda s: s.update(signatures=bundles(MAX_SIGNATURES_BYTES + 1)),
        "spec.signatures: found 524289 bytes, expected at most 524288 bytes in all",
    ),
    (
        lambda s: s.update(signatures=bundles(MAX_SIGNATURES_BYTES + 1, 1)),
        "spec.signatures[0].bundle: found 524289 bytes, expected at most 262144 bytes",
    ),
]


@pytest.mark.parametrize(
    ("change", "words"),
    [*BEYOND, (use_images(MAX_IMAGES + 1), "spec.roles: found 65 different images, expected at m")],
)
def test_beyond_a_bound_it_is_refused_by_the_field(change: Change, words: str) -> None:
    with pytest.raises(InvalidObjectError) as refused:
        check(job(change))
    assert words in str(refused.value)


# Updates ----------------------------------------------------------------------------------------


def changed(change: Change, before: Object | None = None) -> list[str]:
    old = before or world.signed_job()
    new = json.loads(json.dumps(old))
    change(new["spec"])
    return [str(p) for p in changes_beyond_bounds(new["spec"], old["spec"])]


def add(bundle: Object) -> Change:
    return lambda s: s["signatures"].append({"bundle": bundle})


def bobs() -> Object:
    found: Object = world.sign_job(world.job_object(), world.BOB)["spec"]["signatures"][0]["bundle"]
    return found


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.update(suspend=True),
        lambda s: s.update(scheduling={"queueName": "other"}),
        lambda s: s.update(scheduling=None),
        lambda s: s.update(signatures=[]),
        lambda s: s.pop("signatures"),
        add(bobs()),
    ],
)
def test_a_second_approvers_bundle_and_another_place_to_run_may_come(change: Change) -> None:
    assert changed(change) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        *BEYOND,
        (
            lambda s: s.update(signatures=bundles(17 * 100, MAX_SIGNATURES + 1)),
            "spec.signatures: found 17 signatures, expected at most 16",
        ),
        (add({}), "spec.signatures[1].bundle: found what cannot be read (mediaType: "),
        (add({"mediaType": "text/plain"}), "spec.signatures[1].bundle: found what cannot be read"),
        (
            lambda s: s.update(signatures=bundles(300 * 1024, 1)),
            "spec.signatures[0].bundle: found what cannot be read (bundle: found 307200 bytes",
        ),
    ],
)
def test_what_no_new_job_may_have_no_update_may_bring(change: Change, words: str) -> None:
    found = changed(change)
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize("change", [change for change, _ in BEYOND])
def test_what_was_stored_before_there_was_a_bound_stands_in_no_other_updates_way(
    change: Change,
) -> None:
    before = job(change)
    assert changed(lambda s: s.update(suspend=True), before) == []


def test_a_bad_bundle_that_is_there_does_not_keep_a_good_one_out() -> None:
    before = job(lambda s: s.update(signatures=[{"bundle": {}}]))
    assert changed(add(bobs()), before) == []
