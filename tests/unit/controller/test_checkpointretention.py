"""Which manifests go."""

from __future__ import annotations

from datetime import timedelta

from tests.unit.world import NOW
from trainseal.controller.checkpointretention import YOUNG, Manifest, surplus

LATER = NOW + timedelta(days=1)


def made(
    number: int,
    *files: str,
    removed: tuple[str, ...] = (),
    tainted: bool = False,
    pod: str = "p",
    shared: bool = True,
) -> Manifest:
    created = NOW + timedelta(minutes=number)
    return Manifest(
        f"m-{number}", "u", pod, created, frozenset(files), frozenset(removed), tainted, shared
    )


def gone(*manifests: Manifest, keep: int = 0) -> list[str]:
    return [m.name for m in surplus(manifests, LATER, keep)]


def test_a_few_stay_in_any_case() -> None:
    many = [made(n, "latest.pt") for n in range(5)]
    assert gone(*many, keep=5) == []
    assert gone(*many, keep=3) == ["m-0", "m-1"]


def test_what_was_overwritten_goes_and_what_is_last_stays() -> None:
    assert gone(*(made(n, "latest.pt") for n in range(3))) == ["m-0", "m-1"]


def test_what_was_removed_goes_once_a_later_manifest_says_so() -> None:
    first, second = made(0, "step-0.pt"), made(1, "step-1.pt")
    assert gone(first, second) == []
    assert gone(first, made(1, "step-1.pt", removed=("step-0.pt",))) == ["m-0"]


def test_what_is_partly_there_stays() -> None:
    assert gone(made(0, "a", "b"), made(1, "a")) == []


def test_what_is_tainted_stays() -> None:
    assert gone(made(0, "latest.pt", tainted=True), made(1, "latest.pt")) == []


def test_what_is_young_stays() -> None:
    soon = NOW + YOUNG - timedelta(seconds=1)
    assert surplus([made(0, "x"), made(1, "x")], soon, 0) == []


def test_one_pods_agent_removes_no_other_pods_files() -> None:
    assert gone(made(0, "a"), made(1, "b", removed=("a",), pod="q")) == []


def test_two_pods_with_directories_of_their_own_overwrite_nothing_of_each_other() -> None:
    own = made(0, "a", shared=False)
    assert gone(own, made(1, "a", pod="q", shared=False)) == []
    assert gone(own, made(1, "a", shared=False)) == ["m-0"]
