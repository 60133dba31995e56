from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainseal.registry.allowlist import InvalidPattern, Pattern, allowed
from trainseal.registry.references import Reference


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("registry.example/research/*", "registry.example/research/pytorch:2@sha256:" + "0" * 64),
        ("registry.example/research/*", "registry.example/research/pytorch:2"),
        ("registry.example/**", "registry.example/a"),
        ("registry.example/**", "registry.example/a/b/c"),
        ("registry.example/research/**", "registry.example/research/a/b"),
        ("registry.example/*/base-*", "registry.example/team/base-cuda"),
        ("registry.example/*/base-*", "registry.example/team/base-"[:-1] + "-x"),
        ("registry.example/a*b*c", "registry.example/abbcc"),
        ("registry.example:5000/x", "registry.example:5000/x"),
        ("Registry.Example/x", "registry.example/x"),
        ("docker.io/library/*", "python"),
        ("index.docker.io/library/*", "python:3.11"),
        ("localhost:5000/**", "localhost:5000/x"),
    ],
)
def test_a_reference_within_a_pattern_is_allowed(pattern: str, text: str) -> None:
    assert allowed(Reference.parse(text), [pattern])


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("registry.example/research/*", "registry.example/research/a/b"),
        ("registry.example/research/*", "registry.example/research"),
        ("registry.example/research/**", "registry.example/research"),
        ("registry.example/research/**", "registry.example/researcher/x"),
        ("registry.example/**", "registry.example.evil.test/x"),
        ("registry.example/**", "evil.test/registry.example/x"),
        ("registry.example/**", "a.registry.example/x"),
        ("registry.example/**", "registry.example:5000/x"),
        ("registry.example:5000/**", "registry.example/x"),
        ("registry.example/a*a", "registry.example/a"),
        ("registry.example/a.b", "registry.example/a-b"),
        ("docker.io/library/*", "ada/python"),
        ("localhost:5000/**", "localhost/x"),
        ("registry.example/a*b*c", "registry.example/acb"),
    ],
)
def test_a_reference_outside_a_pattern_is_not_allowed(pattern: str, text: str) -> None:
    assert not allowed(Reference.parse(text), [pattern])


def test_an_empty_list_allows_nothing_and_one_match_is_enough() -> None:
    reference = Reference.parse("registry.example/x")
    assert not allowed(reference, [])
    assert allowed(reference, ["other.example/**", Pattern.parse("registry.example/x")])


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "*",
        "**",
        "registry.example",
        "registry.example/",
        "*.example/x",
        "*/x",
        "registry.example/**/x",
        "registry.example/a**",
        "registry.example/x?",
        "registry.example/[ab]",
        "registry.example/X",
        "registry.example/a//b",
        "registry.example/x@sha256:*",
        "https://registry.example/**",
        "registry.example/" + "a" * 255,
    ],
)
def test_what_is_no_pattern_is_refused_with_words(pattern: str) -> None:
    with pytest.raises(InvalidPattern) as error:
        allowed(Reference.parse("registry.example/x"), [pattern])
    assert str(error.value)


names = st.text("ab", min_size=1, max_size=6)


@given(st.text("ab*", min_size=1, max_size=6).filter(lambda text: "**" not in text), names)
def test_a_star_stands_for_any_run_of_characters(pattern: str, name: str) -> None:
    def matches(pattern: str, name: str) -> bool:
        if not pattern:
            return not name
        if pattern[0] == "*":
            return any(matches(pattern[1:], name[at:]) for at in range(len(name) + 1))
        return name[:1] == pattern[0] and matches(pattern[1:], name[1:])

    found = allowed(Reference("registry.example", name), [f"registry.example/{pattern}"])
    assert found == matches(pattern, name)


@given(st.text("ab/*", min_size=1, max_size=12))
def test_a_pattern_means_the_same_when_it_is_written_again(text: str) -> None:
    try:
        pattern = Pattern.parse("registry.example/" + text)
    except InvalidPattern:
        return
    assert Pattern.parse(str(pattern)) == pattern
