"""Which checkpoint may be gone on from: whole, signed, untainted, the last."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.provenance.test_runstatements import wrote
from trainseal.api.gateplan import MAX_RESUME_FILES
from trainseal.provenance.resumepoints import Item, NoPointError, latest


def item(name: str, files: dict[str, str], minute: int, *, good: bool = True, **more: Any) -> Item:
    obj: Any = wrote(name, files, minute, **more).obj
    obj["status"]["attested"] = {"claimUID": "u-2"}
    return Item(obj, good)


def test_the_last_directory_is_taken_with_the_files_of_all_ranks() -> None:
    point = latest(
        [
            item("m-1", {"step-1/a": "11"}, 1),
            item("m-2", {"step-2/rank-0/a": "22"}, 2),
            item("m-3", {"step-2/rank-1/a": "33"}, 3, pod="u-9"),
        ]
    )
    assert point.folder == "step-2"
    assert [path for path, _ in point.files] == ["rank-0/a", "rank-1/a"]
    assert point.checkpoints == ("m-3", "m-2")
    assert (point.claim, point.place, point.claim_uid) == ("ckpt", "step-2", "u-2")


def test_a_file_in_the_mount_itself_is_one_with_those_completed_with_it() -> None:
    point = latest([item("m-1", {"a-1": "11"}, 1), item("m-2", {"a-2": "22", "b-2": "22"}, 2)])
    assert (point.folder, [p for p, _ in point.files]) == ("", ["a-2", "b-2"])


def test_a_tainted_one_is_passed_over_for_the_last_that_is_not() -> None:
    items = [item("m-1", {"step-1/a": "11"}, 1), item("m-2", {"step-2/a": "22"}, 2, good=False)]
    assert latest(items).folder == "step-1"


def test_one_of_which_a_single_file_is_tainted_is_passed_over() -> None:
    items = [
        item("m-1", {"step-1/a": "11"}, 1),
        item("m-2", {"step-2/a": "22"}, 2),
        item("m-3", {"step-2/b": "22"}, 3, good=False),
    ]
    assert latest(items).folder == "step-1"


def test_a_clean_file_that_a_tainted_one_was_written_over_is_not_gone_on_from() -> None:
    items = [item("m-1", {"step-1/a": "11"}, 1), item("m-2", {"step-1/a": "22"}, 2, good=False)]
    with pytest.raises(NoPointError, match="step-1/a is tainted"):
        latest(items)


def test_what_was_removed_since_is_not_looked_for() -> None:
    items = [
        item("m-1", {"step-1/a": "11", "step-1/b": "11"}, 1),
        item("m-2", {"step-2/a": "22"}, 2, removed=["step-2/a", "step-1/a", "step-1/b"]),
    ]
    assert latest(items).folder == "step-2"  # written after it was told that it had gone
    gone = item("m-3", {"other/x": "33"}, 3, removed=["step-2/a"])
    assert latest([*items, gone]).folder == "other"


def test_where_a_marker_is_named_one_without_it_was_cut_short() -> None:
    items = [
        item("m-1", {"step-1/a": "11", "step-1/.done": "ee"}, 1),
        item("m-2", {"step-2/a": "22"}, 2),
    ]
    assert latest(items).folder == "step-2"
    assert latest(items, ".done").folder == "step-1"
    with pytest.raises(NoPointError, match=r"step-2 has no \.ready"):
        latest(items, ".ready")


def test_files_that_went_unlisted_or_unread_cannot_be_compared() -> None:
    unread, unlisted = item("m-1", {"step-1/a": "11"}, 1), item("m-2", {"step-2/a": "22"}, 2)
    spec: Any = unread.obj["spec"]
    del spec["files"][0]["digest"]
    spec = unlisted.obj["spec"]
    spec["unlisted"] = 3
    for one, words in ((unread, "was not read"), (unlisted, "are not listed")):
        with pytest.raises(NoPointError, match=words):
            latest([one])


def test_a_directory_that_goes_with_its_pod_is_nothing_to_go_on_from() -> None:
    with pytest.raises(NoPointError, match="no checkpoint on a claim"):
        latest([item("m-1", {"step-1/a": "11"}, 1, volume={})])


def test_one_that_is_too_large_to_be_compared_is_not_replaced_by_an_older_one() -> None:
    many = {f"step-2/{n}": "22" for n in range(MAX_RESUME_FILES + 1)}
    with pytest.raises(NoPointError, match=f"expected at most {MAX_RESUME_FILES}"):
        latest([item("m-1", {"step-1/a": "11"}, 1), item("m-2", many, 2)])


def test_one_digest_stands_for_its_names_and_contents() -> None:
    one, renamed, changed = (
        latest([item("m-1", files, 1)]).manifest
        for files in ({"s/a": "11"}, {"s/b": "11"}, {"s/a": "22"})
    )
    assert len({one, renamed, changed}) == 3


@pytest.mark.parametrize("folder", ["..", ".hidden", "a:b", "a b", "x\n", "$(HOME)"])
def test_a_directory_that_no_mount_can_name_is_none(folder: str) -> None:
    with pytest.raises(NoPointError, match="no pod can mount"):
        latest([item("m-1", {f"{folder}/a": "11"}, 1)])
