"""What policies say about findings: exceptions never cover more than they name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit import world
from trainseal.api.findings import FINDINGS, SEVERITIES, FindingId, Severity
from trainseal.api.policy import DriftException, DriftRules
from trainseal.provenance.drift import (
    STRENGTH,
    CompiledDrift,
    PatternError,
    Seen,
    compile_drift,
    excepted_by,
    path_pattern,
    response_to,
)
from trainseal.provenance.policies import PolicyError, compile_policy

TRITON = DriftException(
    name="triton",
    reason="the compiler's cache",
    findings=[FindingId.FILE_CREATED],
    paths=["/root/.triton/**"],
    executables=["/usr/bin/python3*"],
)
CACHE = Seen(FindingId.FILE_CREATED, "/root/.triton/cache/a/b.so", "/usr/bin/python3.11")


def policy(*exceptions: DriftException) -> CompiledDrift:
    return compile_drift(DriftRules(exceptions=list(exceptions)))


def test_an_exception_names_finding_path_and_process() -> None:
    assert excepted_by(CACHE, [policy(TRITON)]) == ("triton",)


@pytest.mark.parametrize(
    "seen",
    [
        Seen(FindingId.IMPORT_CHANGED, CACHE.path, CACHE.executable),
        Seen(CACHE.finding, "/root/.triton", CACHE.executable),
        Seen(CACHE.finding, "/root/.tritonx/cache", CACHE.executable),
        Seen(CACHE.finding, "/mnt/root/.triton/cache", CACHE.executable),
        Seen(CACHE.finding, None, CACHE.executable),
        Seen(CACHE.finding, CACHE.path, "/tmp/python3"),
        Seen(CACHE.finding, CACHE.path, "/usr/bin/python3/../sh"),
        Seen(CACHE.finding, CACHE.path, None),
    ],
)
def test_an_exception_covers_nothing_that_differs_in_one_part(seen: Seen) -> None:
    assert excepted_by(seen, [policy(TRITON)]) == ()


def test_an_exception_of_one_policy_is_none_where_another_has_none() -> None:
    assert excepted_by(CACHE, [policy(TRITON), policy()]) == ()
    assert excepted_by(CACHE, [policy(TRITON), policy(TRITON)]) == ("triton", "triton")
    assert excepted_by(CACHE, []) == ()


def test_a_pattern_without_stars_is_one_path() -> None:
    pattern = path_pattern("/a.b/[c]")
    assert pattern.fullmatch("/a.b/[c]")
    assert not any(pattern.fullmatch(t) for t in ("/aXb/[c]", "/a.b/c", "/a.b/[c]/d", "/a.b/[c]\n"))


@pytest.mark.parametrize("text", ["a/b", "/a/../b", "/a//b", "/a/./b", "/a/", "/a/x**", "", "/"])
def test_a_pattern_that_could_mean_two_things_is_refused(text: str) -> None:
    with pytest.raises(PatternError):
        path_pattern(text)


_part = st.text("abc.", min_size=1, max_size=4).filter(lambda p: p not in (".", ".."))


@given(st.lists(_part, min_size=1, max_size=5), st.lists(_part, min_size=1, max_size=5))
def test_two_stars_are_what_lies_below_a_directory_and_nothing_else(
    folder: list[str], path: list[str]
) -> None:
    text = "/" + "/".join(path)
    below = path[: len(folder)] == folder and len(path) > len(folder)
    assert bool(path_pattern("/" + "/".join(folder) + "/**").fullmatch(text)) == below


@given(st.lists(st.sampled_from(STRENGTH), max_size=4), st.sampled_from(SEVERITIES))
def test_another_policy_never_weakens_a_response(wanted: list[str], severity: Severity) -> None:
    policies = [
        compile_drift(DriftRules.model_validate({"responses": {severity.lower(): r}}))
        for r in wanted
    ]
    for count in range(1, len(policies)):
        fewer, more = response_to(severity, policies[:count]), response_to(severity, policies)
        assert STRENGTH.index(fewer) <= STRENGTH.index(more)


def test_findings_are_recorded_and_alerted_where_no_policy_says_more() -> None:
    found = [response_to(severity, [compile_drift(None)]) for severity in SEVERITIES]
    assert found == ["Record", "Alert", "Alert"] == [response_to(s, []) for s in SEVERITIES]


def test_a_policy_with_a_pattern_that_is_none_is_refused_by_name() -> None:
    exception = TRITON.wire() | {"paths": ["cache/**"]}
    with pytest.raises(PolicyError, match="drift exception triton: 'cache/\\*\\*'"):
        compile_policy(world.policy_object(drift={"exceptions": [exception]}), {})


def test_every_finding_says_what_it_means_and_what_to_do() -> None:
    assert set(FINDINGS) == set(FindingId)
    assert all(k.title and k.meaning and k.evidence and k.remedy for k in FINDINGS.values())
