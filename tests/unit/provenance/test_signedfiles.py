"""The list of what a run's checkpoints are: what stands in it, and whose it is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit import world
from tests.unit.provenance.test_runstatements import wrote
from trainseal.provenance.keyrings import UntrustedError
from trainseal.provenance.signedfiles import MAX_TEXT, SignedFile, files_of, read, said_by, sign

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
RING = world.keyring(world.SEAL_KEY)
CHANGED = "2026-11-23T12:00:00.250000Z"
FILE = st.builds(
    SignedFile,
    path=st.text(min_size=1, max_size=20),
    size=st.integers(0, 2**50),
    changed=st.integers(0, 2**52),
    digest=st.none() | st.just("sha256:" + "a" * 64),
    barred=st.booleans(),
)


def manifest(name: str, files: dict[str, str], minute: int, **more: Any) -> Any:
    obj: Any = wrote(name, files, minute, **more).obj
    for file in obj["spec"]["files"]:
        file["changed"] = CHANGED
    return obj


def listed(manifests: list[Any]) -> tuple[SignedFile, ...]:
    return files_of(map(said_by, manifests))


@given(st.lists(FILE, max_size=5, unique_by=lambda f: f.path))
def test_what_was_signed_is_read_again(files: list[SignedFile]) -> None:
    text = sign(world.SEAL_KEY, "research", "run-1", files, NOW)
    assert read(RING, "research", "run-1", text) == {f.path: f for f in files}


def test_of_each_name_the_last_manifest_counts_and_what_was_removed_is_none() -> None:
    found = listed(
        [
            manifest("m-2", {"step-1/a": "22"}, 2, removed=["step-0/a"]),
            manifest("m-1", {"step-1/a": "11", "step-0/a": "11"}, 1),
        ]
    )
    assert [(f.path, f.digest) for f in found] == [("step-1/a", "sha256:" + "22" * 32)]


@pytest.mark.parametrize(
    ("writer", "status", "barred"),
    [
        ("Outside", {"tainted": {"finding": "checkpoint.replaced"}}, True),
        ("Session", {"tainted": {"finding": "checkpoint.replaced"}}, True),
        ("Outside", {"tainted": {"finding": "x"}, "accepted": {"user": "carol"}}, False),
        ("Trainer", {"tainted": {"finding": "file.changed", "since": CHANGED}}, False),
    ],
)
def test_what_no_trainer_wrote_is_barred_until_it_is_signed_off(
    writer: str, status: dict[str, Any], barred: bool
) -> None:
    obj = manifest("m-1", {"a": "11"}, 1, **status)
    obj["spec"]["files"][0]["writer"] = writer
    (file,) = listed([obj])
    assert file.barred is barred


@pytest.mark.parametrize(("namespace", "run"), [("other", "run-1"), ("research", "run-2")])
def test_a_list_of_another_run_is_not_this_ones(namespace: str, run: str) -> None:
    text = sign(world.SEAL_KEY, namespace, run, [], NOW)
    with pytest.raises(UntrustedError):
        read(RING, "research", "run-1", text)


def test_of_more_than_finds_room_the_newest_are_listed() -> None:
    files = [SignedFile(f"{'é' * 400}-{n}", 1, 1, "sha256:" + "a" * 64) for n in range(2000)]
    text = sign(world.SEAL_KEY, "research", "run-1", files, NOW)
    assert len(text) <= MAX_TEXT
    found = read(RING, "research", "run-1", text)
    assert files[0].path in found
    assert files[-1].path not in found


@given(st.text(max_size=60))
def test_whatever_the_text_is_it_is_not_believed(text: str) -> None:
    with pytest.raises(UntrustedError):
        read(RING, "research", "run-1", text)
