"""When a finding holds a run, and what lifts it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.world import NOW
from trainseal.api.driftreport import Finding
from trainseal.api.holdrelease import HoldRelease
from trainseal.controller.holds import hold_id, lift_of, next_hold
from trainseal.controller.sightings import Sighting
from trainseal.provenance.drift import STRENGTH, CompiledDrift

SEAL = "char-lm-1"


def finding(**changed: Any) -> Finding:
    fields = {
        "id": "file.changed",
        "key": "0123456789abcdef",
        "severity": "Critical",
        "first_time": NOW,
        "last_time": NOW,
        "count": 1,
        "path": "/opt/adam.py",
        "message": "written",
        "user": "mallory",
    }
    return Finding(**fields | changed)


def seen(report: str = "trainer-0-aaaa", *, proved: bool = True, **changed: Any) -> Sighting:
    return Sighting(report, "trainer-0", finding(**changed), proved)


def answering(response: str, **changed: Any) -> CompiledDrift:
    return CompiledDrift(
        responses=(("Critical", response), ("Warning", "Alert"), ("Info", "Record")),  # type: ignore[arg-type]
        **changed,
    )


def release(hold: str, user: str = "oncall", name: str = "r-1", seal: str = SEAL) -> HoldRelease:
    spec = {"sealedRun": seal, "hold": hold, "user": user, "reason": "seen"}
    return HoldRelease.parse({"metadata": {"name": name}, "spec": spec})


SUSPEND = [answering("Suspend")]


@pytest.mark.parametrize("response", ["Record", "Alert"])
def test_a_finding_that_is_only_told_holds_nothing(response: str) -> None:
    assert next_hold(None, [seen()], (), [answering(response)], NOW) is None


def test_without_a_policy_nothing_is_held() -> None:
    assert next_hold(None, [seen()], (), [], NOW) is None


def test_a_finding_holds_the_run_and_says_which_it_is() -> None:
    hold = next_hold(None, [seen()], (), SUSPEND, NOW)
    assert hold is not None
    assert (hold.response, hold.reason, hold.since) == ("Suspend", "file.changed", NOW)
    assert "trainer-0" in hold.message
    assert "mallory" in hold.message


def test_the_strictest_policy_counts() -> None:
    policies = [answering("Record"), answering("Terminate"), answering("Freeze")]
    hold = next_hold(None, [seen()], (), policies, NOW)
    assert hold is not None
    assert hold.response == "Terminate"


def test_a_finding_about_a_pod_that_was_gone_holds_nothing() -> None:
    assert next_hold(None, [seen(proved=False)], (), SUSPEND, NOW) is None


def test_a_dropped_report_holds_nothing_whatever_its_severity() -> None:
    astray = seen(SEAL, id="watch.misreported")
    assert next_hold(None, [astray], (), SUSPEND, NOW) is None


def test_what_a_person_let_pass_holds_nothing_again_but_on_a_new_pod() -> None:
    one = seen()
    assert next_hold(None, [one], [one.mark], SUSPEND, NOW) is None
    assert next_hold(None, [one, seen("trainer-0-bbbb")], [one.mark], SUSPEND, NOW) is not None


def test_a_hold_stays_though_the_policy_is_weakened_and_the_report_is_gone() -> None:
    hold = next_hold(None, [seen()], (), SUSPEND, NOW)
    later = next_hold(hold, [], (), [answering("Record")], NOW + timedelta(days=1))
    assert later == hold


def test_a_freeze_ends_in_the_next_response_after_its_time() -> None:
    policies = [answering("Freeze", freeze_seconds=60, then="Terminate"), answering("Freeze")]
    hold = next_hold(None, [seen()], (), policies, NOW)
    assert hold is not None
    assert hold.response == "Freeze"
    before = next_hold(hold, [seen()], (), policies, NOW + timedelta(seconds=59))
    assert before is not None
    assert before.response == "Freeze"
    after = next_hold(hold, [seen()], (), policies, NOW + timedelta(seconds=60))
    assert after is not None
    assert after.response == "Terminate"


def test_a_quarantine_has_no_end_and_is_only_ended_by_a_release_or_a_termination() -> None:
    policies = [answering("Quarantine", freeze_seconds=60, then="Terminate")]
    hold = next_hold(None, [seen()], (), policies, NOW)
    assert hold is not None
    assert hold.response == "Quarantine"
    assert next_hold(hold, [seen()], (), policies, NOW + timedelta(days=365)) == hold
    weaker = next_hold(hold, [seen(), seen("trainer-1-cccc")], (), SUSPEND, NOW)
    assert weaker is not None
    assert weaker.response == "Quarantine", "its pods are not taken away by a weaker response"
    end = next_hold(hold, [seen("trainer-1-cccc")], (), [answering("Terminate")], NOW)
    assert end is not None
    assert end.response == "Terminate"
    lifted = lift_of(hold, SEAL, [release(hold.id)], [seen()])
    assert lifted is not None
    assert not lifted.refusal


def test_a_freeze_may_end_in_a_quarantine() -> None:
    policies = [answering("Freeze", freeze_seconds=60, then="Quarantine"), answering("Freeze")]
    hold = next_hold(None, [seen()], (), policies, NOW)
    after = next_hold(hold, [seen()], (), policies, NOW + timedelta(seconds=60))
    assert after is not None
    assert after.response == "Quarantine"


def test_a_run_that_lost_its_pods_to_a_suspension_is_not_quarantined() -> None:
    hold = next_hold(None, [seen()], (), SUSPEND, NOW)
    later = [seen(), seen("trainer-1-cccc")]
    then = next_hold(hold, later, (), [answering("Quarantine")], NOW)
    assert then is not None
    assert then.response == "Suspend"
    assert len(then.findings) == 2
    at_once = next_hold(None, later, (), [answering("Quarantine"), *SUSPEND], NOW)
    assert at_once is not None
    assert at_once.response == "Quarantine", "its pods are there still"


@given(
    first=st.sampled_from(STRENGTH),
    second=st.sampled_from(STRENGTH),
    reports=st.lists(st.sampled_from("abc"), max_size=4),
)
def test_a_hold_never_weakens_by_itself(first: str, second: str, reports: list[str]) -> None:
    hold = next_hold(None, [seen()], (), [answering(first)], NOW)
    then = next_hold(hold, [seen(r) for r in reports], (), [answering(second)], NOW)
    if hold is not None:
        assert then is not None
        assert STRENGTH.index(then.response) >= STRENGTH.index(hold.response)
        assert set(hold.findings) <= set(then.findings)
        assert then.id == hold_id(then.findings)


# Lifting ------------------------------------------------------------------------------------------


def test_a_release_lifts_the_hold_that_it_names() -> None:
    hold = next_hold(None, [seen()], (), SUSPEND, NOW)
    assert hold is not None
    found = lift_of(hold, SEAL, [release(hold.id)], [seen()])
    assert found is not None
    assert not found.refusal


def test_a_release_lifts_no_hold_that_grew_since_its_author_looked() -> None:
    hold = next_hold(None, [seen()], (), SUSPEND, NOW)
    assert hold is not None
    asked = release(hold.id)
    grown = next_hold(hold, [seen(), seen("trainer-1-cccc")], (), SUSPEND, NOW)
    assert grown is not None
    assert lift_of(grown, SEAL, [asked], []) is None


def test_a_release_of_another_seal_is_none() -> None:
    hold = next_hold(None, [seen()], (), SUSPEND, NOW)
    assert hold is not None
    assert lift_of(hold, SEAL, [release(hold.id, seal="other")], []) is None


def test_whom_a_finding_names_does_not_lift_its_hold_and_a_colleague_does() -> None:
    hold = next_hold(None, [seen()], (), SUSPEND, NOW)
    assert hold is not None
    own = release(hold.id, user="mallory")
    refused = lift_of(hold, SEAL, [own], [seen()])
    assert refused is not None
    assert "mallory is named by a finding" in refused.refusal
    both = lift_of(hold, SEAL, [own, release(hold.id, name="r-2")], [seen()])
    assert both is not None
    assert not both.refusal


def test_nothing_lifts_the_end_of_a_run() -> None:
    hold = next_hold(None, [seen()], (), [answering("Terminate")], NOW)
    assert hold is not None
    found = lift_of(hold, SEAL, [release(hold.id)], [seen()])
    assert found is not None
    assert "terminated" in found.refusal
