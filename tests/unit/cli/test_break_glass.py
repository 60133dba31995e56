"""`trainseal break-glass`: somebody let in, listed, reviewed."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from tests.sample_objects import break_glass
from tests.unit import world
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_kube import FakeKube, connecting_to
from trainseal.cluster import api
from trainseal.cluster.api import KubeError

NAMESPACE = "/apis/trainseal.dev/v1alpha1/namespaces/research"
REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
ARGUMENTS = ("-n", "research", "--kubeconfig", "unused")
CAROL, ANN = "carol@example.org", "ann@example.org"
USED = "2026-11-23T12:00:00Z"


def text(offset: timedelta) -> str:
    return (world.NOW + offset).isoformat().replace("+00:00", "Z")


class Stage:
    """A sealed run; Carol asks."""

    def __init__(self) -> None:
        self.seal = world.sealed_world().seal
        self.name = self.seal["metadata"]["name"]
        self.glasses: list[dict[str, Any]] = []
        self.kube = FakeKube(
            {
                f"{NAMESPACE}/trainingjobs/char-lm": {"status": {"sealedRun": self.name}},
                f"{NAMESPACE}/sealedruns": {"items": [self.seal]},
                f"{NAMESPACE}/breakglasses": {"items": self.glasses},
                REVIEWS: {
                    "metadata": {"creationTimestamp": text(timedelta())},
                    "status": {"userInfo": {"username": CAROL}},
                },
            }
        )

    def opened(self, name: str = "g-1", ends: timedelta = timedelta(minutes=5)) -> None:
        """Carol has let Ann in."""
        obj = break_glass(name)
        obj["metadata"] |= {"namespace": "research", "creationTimestamp": text(timedelta())}
        obj["spec"] |= {"sealedRun": self.name, "user": ANN, "notAfter": text(ends)}
        self.glasses.append(obj)

    def used(self, name: str = "g-1", user: str = ANN) -> None:
        """And somebody got in by it."""
        waits = {"name": name, "user": user, "since": USED, "lastUse": USED}
        self.seal.setdefault("status", {}).setdefault("brokenGlass", []).append(waits)

    def made(self, plural: str) -> list[dict[str, Any]]:
        """What was created of a kind."""
        place = f"{NAMESPACE}/{plural}/"
        return [o for path, o in self.kube.objects.items() if path.startswith(place)]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    found = Stage()
    monkeypatch.setattr(api, "connect", connecting_to(found.kube))
    monkeypatch.setattr("trainseal.cli.glass.PAUSE", 0.1)
    return found


# Open -------------------------------------------------------------------------------------------


def test_somebody_is_let_in_by_name_for_a_while_in_the_callers_name(
    trainseal: Run, stage: Stage
) -> None:
    words = ("--user", ANN, "--for", "10m", "--way", "exec", "--reason", "it hangs")
    answer = trainseal("break-glass", "char-lm", *words, *ARGUMENTS)
    assert (answer.code, answer.err) == (0, "")
    (made,) = stage.made("breakglasses")
    assert made["spec"] == {
        "sealedRun": stage.name,
        "user": ANN,
        "ways": ["Exec"],
        "reason": "it hangs",
        "notAfter": text(timedelta(minutes=10)),
        "approvedBy": CAROL,
    }
    assert made["metadata"]["name"] in answer.out
    assert f"{ANN} may get into the pods of research/char-lm, by Exec" in answer.out
    assert "trainseal break-glass review char-lm" in answer.out
    assert "for yourself" not in answer.out


def test_without_a_user_it_is_for_oneself_and_says_what_that_takes(
    trainseal: Run, stage: Stage
) -> None:
    answer = trainseal("break-glass", "char-lm", "--reason", "on call", *ARGUMENTS)
    (made,) = stage.made("breakglasses")
    assert made["spec"]["user"] == CAROL
    assert made["spec"]["notAfter"] == text(timedelta(minutes=30))
    assert "ways" not in made["spec"]
    assert "access.breakGlass.selfApproval names you" in answer.out


def test_programs_get_the_object(trainseal: Run, stage: Stage) -> None:
    answer = trainseal("break-glass", "char-lm", "--reason", "x", "-o", "json", *ARGUMENTS)
    assert json.loads(answer.out)["kind"] == "BreakGlass"


@pytest.mark.parametrize("span", ["0m", "10", "25h", "1d", "-5m", "m"])
def test_a_time_that_is_none_or_more_than_a_day_is_refused(
    trainseal: Run, stage: Stage, span: str
) -> None:
    answer = trainseal("break-glass", "char-lm", "--reason", "x", f"--for={span}", *ARGUMENTS)
    assert answer.code == 64
    assert "expected a time like 90s, 30m or 2h" in answer.err
    assert not stage.made("breakglasses")


def test_a_reason_is_needed(trainseal: Run, stage: Stage) -> None:
    answer = trainseal("break-glass", "char-lm", "--reason", " ", *ARGUMENTS)
    assert answer.code == 64
    assert "say why somebody is let in" in answer.err


def test_a_job_that_does_not_run_has_nothing_to_get_into(trainseal: Run, stage: Stage) -> None:
    stage.kube.objects[f"{NAMESPACE}/trainingjobs/char-lm"] = {"status": {}}
    answer = trainseal("break-glass", "char-lm", "--reason", "x", *ARGUMENTS)
    assert answer.code == 1
    assert "has no sealed run" in answer.err


def test_who_may_not_is_told_which_role_gives_the_right(trainseal: Run, stage: Stage) -> None:
    stage.kube.refusal = KubeError(403, "Forbidden", "cannot create resource breakglasses")
    answer = trainseal("break-glass", "char-lm", "--reason", "x", *ARGUMENTS)
    assert answer.code == 1
    assert "trainseal-approver" in answer.err


# List -------------------------------------------------------------------------------------------


def test_those_of_a_jobs_runs_are_listed_with_what_waits_for_review(
    trainseal: Run, stage: Stage
) -> None:
    stage.opened("g-1")
    stage.opened("g-2", timedelta(minutes=-5))
    assert trainseal("break-glass", "list", "char-lm", *ARGUMENTS).code == 0
    stage.used("g-2")
    answer = trainseal("break-glass", "list", "char-lm", *ARGUMENTS)
    assert answer.code == 1
    assert f"g-1: {ANN}, valid until" in answer.out
    assert f"g-2: {ANN}, over since" in answer.out
    assert "waits: used from 2026-11-23 12:00:00" in answer.out
    found = json.loads(trainseal("break-glass", "list", "char-lm", "-o", "json", *ARGUMENTS).out)
    assert {g["name"]: (g["valid"], bool(g["waits"])) for g in found["breakGlasses"]} == {
        "g-1": (True, False),
        "g-2": (False, True),
    }


def test_one_that_is_gone_still_waits(trainseal: Run, stage: Stage) -> None:
    stage.used("g-9")
    answer = trainseal("break-glass", "list", "char-lm", *ARGUMENTS)
    assert answer.code == 1
    assert f"g-9: {ANN}; it is gone" in answer.out


def test_those_that_cannot_be_listed_are_undetermined(trainseal: Run, stage: Stage) -> None:
    stage.kube.failures[f"{NAMESPACE}/breakglasses"] = KubeError(403, "Forbidden", "no")
    answer = trainseal("break-glass", "list", "char-lm", *ARGUMENTS)
    assert answer.code == 2
    assert "which `view` has" in answer.err


# Review -----------------------------------------------------------------------------------------


def test_what_waits_is_reviewed_by_its_name_in_the_callers_name(
    trainseal: Run, stage: Stage
) -> None:
    stage.opened()
    stage.used()
    create = stage.kube.create

    async def reviewed(path: str, obj: Any, **flags: Any) -> Any:
        stage.seal["status"]["brokenGlass"] = []
        return await create(path, obj, **flags)

    stage.kube.create = reviewed  # type: ignore[method-assign]
    answer = trainseal("break-glass", "review", "char-lm", "--reason", "looked", *ARGUMENTS)
    assert (answer.code, answer.err) == (0, "")
    assert "reviewed" in answer.out
    (made,) = stage.made("holdreleases")
    assert made["spec"] == {
        "sealedRun": stage.name,
        "breakGlass": "g-1",
        "user": CAROL,
        "reason": "looked",
    }


def test_nobody_reviews_what_they_did(trainseal: Run, stage: Stage) -> None:
    stage.used(user=CAROL)
    answer = trainseal("break-glass", "review", "char-lm", "--reason", "fine", *ARGUMENTS)
    assert answer.code == 1
    assert f"{CAROL} got in by g-1" in answer.err
    assert "a review by somebody else" in answer.err
    assert not stage.made("holdreleases")


def test_a_use_that_came_meanwhile_is_said(trainseal: Run, stage: Stage) -> None:
    stage.opened()
    stage.used()
    create = stage.kube.create

    async def used_again(path: str, obj: Any, **flags: Any) -> Any:
        stage.seal["status"]["brokenGlass"][0]["lastUse"] = "2026-11-23T12:00:09Z"
        return await create(path, obj, **flags)

    stage.kube.create = used_again  # type: ignore[method-assign]
    answer = trainseal("break-glass", "review", "char-lm", "--reason", "looked", *ARGUMENTS)
    assert answer.code == 1
    assert "was used again meanwhile" in answer.err


def test_a_controller_that_does_not_answer_is_undetermined(trainseal: Run, stage: Stage) -> None:
    stage.used()
    words = ("--reason", "looked", "--wait", "0")
    answer = trainseal("break-glass", "review", "char-lm", *words, *ARGUMENTS)
    assert answer.code == 2
    assert "trainseal doctor" in answer.err


def test_nothing_to_review_is_said_and_a_name_that_waits_not_is_refused(
    trainseal: Run, stage: Stage
) -> None:
    stage.opened()
    answer = trainseal("break-glass", "review", "char-lm", "--reason", "x", *ARGUMENTS)
    assert (answer.code, "nothing waits for review" in answer.out) == (0, True)
    words = ("--name", "g-1", "--reason", "x")
    answer = trainseal("break-glass", "review", "char-lm", *words, *ARGUMENTS)
    assert answer.code == 1
    assert "nothing done by it waits for review" in answer.err
