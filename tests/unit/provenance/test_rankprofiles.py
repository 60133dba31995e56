"""Ranks compared by their profiles: the odd one is named, and what is each one's own is not odd."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from trainseal.api.driftreport import ContainerProfile, ProfileEntry, ProfilePart
from trainseal.provenance.rankprofiles import Rank, odd_profiles

NOW = datetime(2026, 11, 1, tzinfo=UTC)
OPTIM = "/usr/lib/python3/dist-packages/torch/optim/adam.py"


def part(entries: Mapping[str, str], count: int | None = None, other: str = "") -> ProfilePart:
    text = repr(sorted(entries.items())) + other
    return ProfilePart(
        digest=f"sha256:{sha256(text.encode()).hexdigest()}",
        count=len(entries) if count is None else count,
        entries=[ProfileEntry(name=n, value=v) for n, v in entries.items()] or None,
    )


def rank(
    key: str,
    files: Mapping[str, str] | ProfilePart | None = None,
    code: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    container: str = "trainer",
) -> Rank:
    made = ContainerProfile(
        container=container,
        started=NOW,
        files=files if isinstance(files, ProfilePart) else part(files or {}),
        code=part(code or {}),
        environment=part(environment or {}),
    )
    return Rank(key, (made,))


def odd(*ranks: Rank) -> dict[str, list[str]]:
    """Kinds by rank."""
    return {key: list(kinds) for key, kinds in odd_profiles(ranks).items()}


def test_ranks_with_nothing_are_alike() -> None:
    assert odd(*(rank(str(n)) for n in range(8))) == {}


def test_the_only_rank_with_a_changed_file_is_named_with_file_and_digest() -> None:
    ranks = [rank(str(n)) for n in range(3)]
    ranks[1] = rank("1", {OPTIM: "sha256:aa"})
    found = odd_profiles(ranks)
    assert list(found) == ["1"]
    assert OPTIM in found["1"]["files, trainer"]
    assert "sha256:aa" in found["1"]["files, trainer"]


def test_of_two_ranks_the_one_with_more_is_odd() -> None:
    assert odd(rank("0"), rank("1", {OPTIM: "sha256:aa"})) == {"1": ["files, trainer"]}


def test_a_file_that_all_have_changed_alike_is_silent() -> None:
    """As an entry point does, which a policy excepts."""
    assert odd(*(rank(str(n), {OPTIM: "sha256:aa"}) for n in range(4))) == {}


def test_the_rank_with_another_content_is_odd_and_so_is_one_that_lacks_it() -> None:
    ranks = [rank(str(n), {OPTIM: "sha256:aa"}) for n in range(5)]
    ranks[2], ranks[4] = rank("2", {OPTIM: "sha256:bb"}), rank("4")
    found = odd_profiles(ranks)
    assert set(found) == {"2", "4"}
    assert "where others have 'sha256:aa'" in found["2"]["files, trainer"]
    assert "lacks" in found["4"]["files, trainer"]


def test_a_file_that_each_rank_writes_for_itself_makes_none_odd() -> None:
    assert odd(*(rank(str(n), {"/etc/rank.conf": f"sha256:{n}"}) for n in range(8))) == {}
    assert odd(*(rank(str(n), {"/etc/rank.conf": f"sha256:{n}"}) for n in range(2))) == {}


def test_a_rank_that_has_not_loaded_yet_what_most_have_is_not_odd() -> None:
    ranks = [rank(str(n), code={"/root/.triton/…": ""}) for n in range(4)]
    ranks[3] = rank("3")
    assert odd(*ranks) == {}


def test_the_only_rank_that_ran_foreign_code_is_odd() -> None:
    ranks = [rank(str(n)) for n in range(4)]
    ranks[0] = rank("0", code={"/opt/evil.so": ""})
    assert odd(*ranks) == {"0": ["code that ran, trainer"]}


def test_a_variable_that_one_rank_has_and_one_that_it_lacks_are_told() -> None:
    ranks = [rank(str(n), environment={"LD_PRELOAD": "/usr/lib/jemalloc.so"}) for n in range(4)]
    ranks[0] = rank("0", environment={"LD_PRELOAD": "/usr/lib/faketime.so"})
    ranks[1] = rank("1")
    assert set(odd(*ranks)) == {"0", "1"}


def test_other_containers_and_ranks_of_which_nothing_is_known_are_no_peers() -> None:
    ranks = [
        rank("0", {OPTIM: "sha256:aa"}),
        rank("1", container="sidecar"),
        Rank("2", ()),
    ]
    assert odd(*ranks) == {}


def large(count: int, other: str = "", **entries: str) -> ProfilePart:
    return part({f"/{n}": v for n, v in entries.items()}, count, other)


def test_of_more_than_is_listed_the_digests_tell() -> None:
    alike = [rank(str(n), large(5000, a="x")) for n in range(4)]
    assert odd(*alike) == {}
    assert odd(*alike, rank("4", large(5000, other="y", a="x"))) == {"4": ["files, trainer"]}
    found = odd_profiles([*alike, rank("4", large(5001, a="x", evil="y"))])
    assert "5001 where others have 5000" in found["4"]["files, trainer"]
    assert "/evil" in found["4"]["files, trainer"]


def test_of_more_than_is_listed_and_all_different_none_is_odd() -> None:
    assert odd(*(rank(str(n), large(5000, other=str(n))) for n in range(4))) == {}


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz")), max_size=6))
def test_most_ranks_are_never_odd_for_what_they_are_alike_in(made: list[dict[str, str]]) -> None:
    """Added to as many and one more that are all alike, none of those is odd in any name."""
    alike = [rank(f"alike-{n}", {"same": "v"}, {"same": "v"}) for n in range(len(made) + 1)]
    others = [rank(f"other-{n}", files, files) for n, files in enumerate(made)]
    found = odd_profiles([*alike, *others])
    assert not [key for key in found if key.startswith("alike")]
