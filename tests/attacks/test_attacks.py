"""Every attack is seen as it must be, and every twin of one stays silent.

`make attacks` runs all and writes docs/reference/detection.md. For one case:
`pytest tests/attacks -k "optimizer" --cluster NAME`, with a cluster that `python -m tests.cluster
up --name NAME` brought up and that stays up.
"""

from __future__ import annotations

import contextlib
import json
import time

import pytest

from tests.attacks import (
    cases_admission,
    cases_api,
    cases_behaviour,
    cases_checkpoints,
    cases_code,
    cases_config,
    cases_enforcement,
    cases_gate,
    cases_lanes,
    cases_networks,
    cases_platform,
    cases_processes,
    cases_ranks,
    cases_reads,
    cases_watch,
)
from tests.attacks.case import Case, Finding, Missed, NotTried, Refused, Told
from tests.attacks.ledger import Ledger
from tests.attacks.scene import Scene
from tests.attacks.sightings import Sighting
from tests.cluster import CommandError
from tests.e2e.lab import EDITOR
from trainseal.agent.observed import FOUND_BY

CASES = (
    *cases_code.CASES,
    *cases_checkpoints.CASES,
    *cases_processes.CASES,
    *cases_admission.CASES,
    *cases_config.CASES,
    *cases_gate.CASES,
    *cases_networks.CASES,
    *cases_enforcement.CASES,
    *cases_reads.CASES,
    *cases_platform.CASES,
    *cases_lanes.CASES,
    *cases_api.CASES,
    *cases_ranks.CASES,
    *cases_behaviour.CASES,
    *cases_watch.CASES,
)
#: Where the twins of what is done to others are done.
_QUIET = {"killed": "quiet-killed", "ranks": "quiet-ranks", "excepted": "quiet-excepted"}
#: Seconds in which who did it must stand in the finding, once it is there.
_NAMED = 20.0


def _last(case: Case) -> bool:
    """What disturbs all trainings comes when the rest is done."""
    return case.group == cases_watch.GROUP


_TRIED = sorted((c for c in CASES if not isinstance(c.expected, NotTried)), key=_last)
_TWINS = [c for c in _TRIED if c.twin]


@pytest.fixture(autouse=True)
def _all_cases(ledger: Ledger) -> None:
    ledger.cases = CASES


@pytest.mark.parametrize("case", _TWINS, ids=lambda c: c.key)
def test_a_twin_is_done(case: Case, scenes: dict[str, Scene], ledger: Ledger) -> None:
    """The alarms are counted once a sweep has been over all of them."""
    scene = scenes[_QUIET.get(case.on, "quiet")]
    assert case.twin is not None
    if case.on == "killed":
        scene.renew()
    _TWINS_BEGAN[case.key] = time.time()
    held = case.twin(scene)
    if isinstance(held, contextlib.AbstractContextManager):
        with held:
            pass
    ledger.twins.add(case.key)


_TWINS_BEGAN: dict[str, float] = {}


def test_no_twin_gave_an_alarm(scenes: dict[str, Scene], ledger: Ledger) -> None:
    scenes["quiet"].swept()
    _no_alarm(scenes, ledger)


_COUNTED: set[str] = set()


def _no_alarm(scenes: dict[str, Scene], ledger: Ledger, *, but: str = "") -> None:
    """None of Warning or above on a run that nobody attacks, ``but`` of this id."""
    alarms = []
    for name in ("quiet", *_QUIET.values()):
        for seen in scenes[name].sightings.of_run(scenes[name].seal):
            text, key = json.dumps(seen.finding), f"{name} {seen.finding['key']}"
            if seen.finding["severity"] == "Info" or "/tmp/sweep-" in text or key in _COUNTED:
                continue
            if seen.finding["id"] == but:
                continue
            _COUNTED.add(key)
            began = [k for k, at in _TWINS_BEGAN.items() if at <= seen.at]
            cause = began[-1] if began else "before all twins"
            ledger.alarms.setdefault(cause, []).append(seen.finding["id"])
            alarms.append(f"{cause}: {text}")
    assert not alarms, "\n".join(alarms)


@pytest.mark.parametrize("case", _TRIED, ids=lambda c: c.key)
def test_an_attack_is_seen(case: Case, scenes: dict[str, Scene], ledger: Ledger) -> None:
    scene = scenes[case.on]
    if case.on == "killed":
        scene.renew()
    try:
        ledger.after[case.key] = _carry_out(case, scene, ledger)
    except BaseException:
        ledger.instead[case.key] = "see the run's log"
        raise


def test_every_attack_is_one_finding_in_the_end(scenes: dict[str, Scene], ledger: Ledger) -> None:
    """Also after all sweeps and restarts that came later."""
    several = {}
    for case in _TRIED:
        if isinstance(case.expected, Finding) and ledger.after.get(case.key) is not None:
            place = scenes[case.on]
            found = [
                s.finding
                for s in place.sightings.of_run(place.seal)
                if case.expected.is_in(s.finding)
            ]
            programs = {
                json.dumps((f.get("processes") or [{}])[0].get("executable")) for f in found
            }
            if len(found) != len(programs) and case.expected.path:
                several[case.key] = found
    assert not several, json.dumps(several, indent=1)


def test_no_walk_tells_again_what_an_event_told_of(
    scenes: dict[str, Scene], ledger: Ledger
) -> None:
    """The agents that came later have looked at everything anew."""
    again = {}
    for case in _TRIED:
        if not isinstance(case.expected, Finding) or ledger.after.get(case.key) is None:
            continue
        told = case.expected.id.startswith(("file.", "import.", "bytecode."))
        if told and case.key not in ledger.looked:
            place = scenes[case.on]
            found = [s.finding for s in place.sightings.of_run(place.seal)]
            if walked := [
                f
                for f in found
                if f.get("path") == case.expected.path and FOUND_BY in f.get("evidence", {})
            ]:
                again[case.key] = walked
    assert not again, json.dumps(again, indent=1)


def test_no_rank_of_a_quiet_run_differs(scenes: dict[str, Scene], ledger: Ledger) -> None:
    """Their twin was done before the attack on the other run, which took minutes to be found."""
    if any(case.on == "ranks" and case.key in ledger.after for case in _TRIED):
        # By now agents were silent, and all nodes' pods unwatched.
        _no_alarm(scenes, ledger, but="watch.silent")


def _carry_out(case: Case, scene: Scene, ledger: Ledger) -> float | None:
    """Seconds until the finding was in the API, where one must come of it."""
    assert case.attack is not None
    if isinstance(case.expected, Refused):
        with pytest.raises(CommandError) as refused:
            case.attack(scene)
        assert case.expected.says in refused.value.stderr, refused.value.stderr
        return None
    before = {s.finding["key"]: s.finding["count"] for s in scene.findings()}
    with contextlib.ExitStack() as stack:
        began = case.attack(scene)
        if isinstance(began, contextlib.AbstractContextManager):
            began = stack.enter_context(began)
        assert isinstance(began, float)
        if isinstance(case.expected, Finding):
            seen = _found(case.expected, scene, before)
            ledger.found(case, seen.finding)
            return seen.at - began
    if isinstance(case.expected, Missed):
        _still_missed(case, scene, before)
        return None
    assert isinstance(case.expected, Told)
    return None


def _found(expected: Finding, scene: Scene, before: dict[str, int]) -> Sighting:
    """It, and when; fails with what there is instead. The same thing again counts up."""

    def matching() -> list[Sighting]:
        return [
            s
            for s in scene.findings()
            if s.finding["count"] > before.get(s.finding["key"], 0) and expected.is_in(s.finding)
        ]

    def named() -> bool:
        return any(expected.by in (None, s.finding.get("user", "")) for s in matching())

    if not scene.sightings.wait(lambda: bool(matching()), expected.seconds):
        others = [s.finding for s in scene.findings() if s.finding["key"] not in before]
        raise AssertionError(f"no {expected}; instead {json.dumps(others, indent=1)}")
    now = time.time()
    scene.sightings.wait(named, _NAMED)
    # Several programs may have had a hand in it, a finding each.
    one = min(matching(), key=lambda s: (s.finding.get("user", "") != expected.by, s.at))
    user = one.finding.get("user", "")
    by_time = "time: " in one.finding.get("evidence", {}).get("named by", "")
    fits = user == expected.by or (expected.by is None and (by_time or not user))
    assert fits, json.dumps(one.finding, indent=1)
    if expected.by:
        assert one.finding["accessRecord"], one.finding
    return Sighting(now if one.finding["key"] in before else one.at, one.finding)


def _still_missed(case: Case, scene: Scene, before: dict[str, int]) -> None:
    """What is seen by now must not stand among what is missed."""
    if isinstance(case.expected, Missed) and "on record" in case.expected.why:
        assert any(r["username"] == EDITOR for r in scene.records())
    if case.on in ("killed", "probed"):
        scene.renew(another=True)
    else:
        scene.swept(1)
    new = [s.finding for s in scene.serious() if s.finding["key"] not in before]
    mine = [f for f in new if "/tmp/sweep-" not in json.dumps(f)]
    assert not mine, f"it is seen now, and is no miss: {json.dumps(mine, indent=1)}"
