from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainseal.registry.references import InvalidReference, Reference

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"

lower = string.ascii_lowercase + string.digits
labels = st.text(lower, min_size=1, max_size=10)
hosts = st.builds(
    lambda names, port: ".".join(names) + port,
    st.lists(labels, min_size=2, max_size=3),
    st.one_of(st.just(""), st.integers(1, 65535).map(lambda port: f":{port}")),
)
parts = st.builds(lambda a, mark, b: a + mark + b, labels, st.sampled_from("._-"), labels)
repositories = st.lists(st.one_of(labels, parts), min_size=1, max_size=4).map("/".join)
tags = st.text(lower + "_-.", max_size=20).map(lambda rest: "v" + rest)
digests = st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:".__add__)
references = st.builds(
    Reference, hosts, repositories, st.one_of(st.none(), tags), st.one_of(st.none(), digests)
)


@given(references)
def test_a_reference_survives_being_written_and_read(reference: Reference) -> None:
    assert Reference.parse(str(reference)) == reference


@given(st.text(max_size=80))
def test_any_text_is_a_reference_that_survives_or_is_refused(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidReference:
        return
    assert Reference.parse(str(reference)) == reference
    assert set(str(reference)) <= set(string.ascii_letters + string.digits + "._-/:@[]")


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("python", "docker.io/library/python"),
        ("python:3.11", "docker.io/library/python:3.11"),
        ("ada/tool", "docker.io/ada/tool"),
        ("docker.io/python", "docker.io/library/python"),
        ("index.docker.io/python", "docker.io/library/python"),
        ("registry-1.docker.io/library/python", "docker.io/library/python"),
        ("localhost/x", "localhost/x"),
        ("localhost:5000/x:v1", "localhost:5000/x:v1"),
        ("[::1]:5000/x", "[::1]:5000/x"),
        ("Registry.Example/a/b", "registry.example/a/b"),
        (f"registry.example/a:v1@{DIGEST}", f"registry.example/a:v1@{DIGEST}"),
        ("a__b/c--d/e.f", "docker.io/a__b/c--d/e.f"),
    ],
)
def test_a_reference_means_what_container_runtimes_take_it_for(text: str, meaning: str) -> None:
    assert str(Reference.parse(text)) == meaning


@pytest.mark.parametrize(
    "text",
    [
        "",
        "registry.example/",
        "registry.example/UPPER",
        "/x",
        "registry.example//x",
        "registry.example/../x",
        "registry.example/a/./b",
        "registry.example/x:",
        "registry.example/x@",
        "registry.example/x:v1:v2",
        "registry.example/x@sha256:abc",
        f"registry.example/x@sha256:{HEX.upper()}",
        f"registry.example/x@sha512:{HEX}{HEX}",
        f"registry.example/x@{DIGEST}@{DIGEST}",
        "registry.example/x?y",
        "registry.example/x#y",
        "registry.example/x%2fy",
        "registry.example/x y",
        "registry.example/x\n",
        "user@registry.example/x",
        "registry.example:0/x",
        "registry.example:080/x",
        "registry.example:65536/x",
        "registry..example/x",
        "-registry.example/x",
        "registry.example./x",
        "registry.example/" + "a" * 255,
        "registry.example/x:" + "a" * 129,
        "https://registry.example/x",
        "registry.example/\uff58",
    ],
)
def test_what_is_no_reference_is_refused_with_words(text: str) -> None:
    with pytest.raises(InvalidReference) as error:
        Reference.parse(text)
    assert str(error.value)


def test_only_what_it_is_built_from_can_be_in_a_reference() -> None:
    with pytest.raises(InvalidReference):
        Reference("registry.example", "a/../b")
    with pytest.raises(InvalidReference):
        Reference("registry.example/v2", "b")


def test_the_identifier_is_the_digest_before_the_tag_before_latest() -> None:
    reference = Reference.parse("registry.example/x")
    assert reference.identifier == "latest"
    assert reference.tagged("v1").identifier == "v1"
    assert Reference("registry.example", "x", "v1", DIGEST).identifier == DIGEST
    assert reference.tagged("v1").at(DIGEST).tag is None


def test_docker_hub_is_spoken_to_under_its_other_name() -> None:
    assert Reference.parse("python").api_host == "registry-1.docker.io"
    assert Reference.parse("localhost:5000/x").api_host == "localhost:5000"


@pytest.mark.parametrize("character", ["a", "a-", "a.", "_", "/", ":", "@", "a/"])
def test_long_hostile_texts_are_judged_at_once(character: str) -> None:
    with pytest.raises(InvalidReference):
        Reference.parse(character * 10_000_000)
    with pytest.raises(InvalidReference):
        Reference.parse((character * 512)[:511] + "!")
