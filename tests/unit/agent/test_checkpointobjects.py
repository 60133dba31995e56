"""Checkpoint objects, made and read again."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from trainseal.agent.checkpointbook import Book
from trainseal.agent.checkpointobjects import Volume, known_files, object_of
from trainseal.agent.checkpointvalues import Batch, Completed, Stamp, Written
from trainseal.agent.reports import Subject
from trainseal.api.checkpoint import Checkpoint, Writer
from trainseal.provenance.fileforms import Judged
from trainseal.provenance.pickleimports import Import

POD = Subject("research", "char-lm-worker-0-abcde", "0aa3b1c2-1111-2222-3333-444455556666", "seal")
OTHER = Subject("research", "char-lm-worker-1-fghij", "1bb3b1c2-1111-2222-3333-444455556666", "s")
SHARED = Volume("ckpt", "runs/char-lm")
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
CHANGED = int(NOW.timestamp()) * 10**9 + 123_456_789
DIGEST = "sha256:" + "a" * 64
MODEL = Completed("step-1/model", Stamp(1, 2, 7, CHANGED), DIGEST, "Trainer")
LARGEST = Judged("pickle", tuple(Import("&" * 200, f"n{n}") for n in range(20)), ("&" * 300,))


def made(
    *files: Completed, subject: Subject = POD, volume: Volume = SHARED, **more: Any
) -> dict[str, Any]:
    batch = Batch(files or (MODEL,), **more)
    found: dict[str, Any] = object_of(subject, "node-1", volume, batch, lambda _: None, NOW)
    return found


def test_an_object_is_of_its_kinds_form() -> None:
    obj = made(MODEL, removed=("step-0",), unlisted=2)
    checkpoint = Checkpoint.parse(obj)
    assert checkpoint.spec.wire() == obj["spec"]
    assert checkpoint.metadata.name.startswith("char-lm-worker-0-abcde-0aa3b1c2-")


@pytest.mark.parametrize("writer", ["Trainer", "Session"])
@pytest.mark.parametrize("name", ["&" * 500, "\U0001f600" * 500, "step"])
@pytest.mark.parametrize("judged", [Judged("text"), LARGEST])
def test_no_object_is_larger_than_it_may_be(name: str, writer: Writer, judged: Judged) -> None:
    book = Book({}, 0)
    for number in range(600):
        stamp = Stamp(1, number, 2**40, CHANGED)
        book.wrote(Written(stamp.key, "", writer))
        book.seen(f"{name}-{number}", stamp, 0.0)
        book.hashed(f"{name}-{number}", stamp, f"sha256:{number:064x}", 0.0, judged)
    batches = list(book.batches(100.0, ending=True))
    assert sum(len(b.files) for b in batches) == 600
    for batch in batches:
        made = object_of(POD, "node-1", SHARED, batch, lambda _: "u" * 256, NOW)
        # As Go writes it, which escapes what HTML means something by.
        text = json.dumps(made, ensure_ascii=False).replace("&", "\\u0026")
        assert len(text.encode()) <= 256 * 1024


def test_what_a_file_was_found_to_be_stands_beside_its_digest() -> None:
    names = tuple(Import("m", f"{'n' * 300}{n}") for n in range(20))
    found = made(
        replace(MODEL, judged=Judged("safetensors")),
        replace(MODEL, path="a/.metadata", judged=Judged("metadata", (Import("torch", "Size"),))),
        replace(MODEL, path="a/model.pt", judged=Judged("pickle", names, ("what it computes",))),
    )["spec"]["files"]
    assert [f["format"] for f in found] == ["safetensors", "dcp", "pickle"]
    assert "imports" not in found[1]
    assert (len(found[2]["imports"]), found[2]["moreImports"]) == (16, 4)
    assert found[2]["doubt"] == "what it computes"
    assert Checkpoint.parse(made(replace(MODEL, judged=Judged("pickle", names)))).spec


def test_the_same_files_make_the_same_name_and_others_another() -> None:
    again = made()["metadata"]["name"]
    assert made()["metadata"]["name"] == again
    other = Completed("step-1/model", MODEL.stamp, "sha256:" + "b" * 64, "Trainer")
    assert made(other)["metadata"]["name"] != again
    assert made(subject=OTHER)["metadata"]["name"] != again


@pytest.mark.parametrize("pod", ["a" * 253, f"{'a' * 229}.{'b' * 9}", "x"])
def test_a_name_fits_whatever_the_pods(pod: str) -> None:
    name = made(subject=Subject("research", pod, POD.uid, "seal"))["metadata"]["name"]
    assert Checkpoint.parse(made()).spec
    assert len(name) <= 253
    assert "." not in name.replace(pod, "")


def test_what_was_written_is_known_again_to_the_microsecond() -> None:
    known = known_files([made()], POD, SHARED)
    book = Book(known, CHANGED - 10**9)
    book.unwatched(0, 2**63)
    book.begin_walk()
    book.seen(MODEL.path, MODEL.stamp, 0.0)
    assert not book.busy, "its stamp is the manifest's"
    assert known[MODEL.path].ours


@pytest.mark.parametrize(
    ("theirs", "ours", "path"),
    [
        ("runs/char-lm", "runs/char-lm", "step-1/model"),
        ("", "", "step-1/model"),
        ("", "step-1", "model"),
        ("runs/char-lm", "runs", "char-lm/step-1/model"),
        ("runs/char-lm", "", "runs/char-lm/step-1/model"),
        ("runs", "runs/char-lm", None),
        ("runs/char-lm-2", "runs/char-lm", None),
    ],
)
def test_manifests_of_another_directory_of_the_volume_are_known_by_our_names(
    theirs: str, ours: str, path: str | None
) -> None:
    obj = made(subject=OTHER, volume=Volume("ckpt", theirs))
    known = known_files([obj], POD, Volume("ckpt", ours))
    assert list(known) == ([path] if path else [])
    assert not any(k.ours for k in known.values())


def test_another_volumes_manifests_say_nothing() -> None:
    elsewhere = made(volume=Volume("other", "runs/char-lm"))
    of_another_pod = made(subject=OTHER, volume=Volume("", "runs/char-lm"))
    assert known_files([elsewhere], POD, SHARED) == {}
    assert known_files([of_another_pod], POD, Volume("", "runs/char-lm")) == {}


def test_the_last_manifest_of_a_file_counts() -> None:
    later = Completed(MODEL.path, Stamp(1, 2, 9, CHANGED + 10**9), "sha256:" + "b" * 64, "Trainer")
    first, second = made(), made(later)
    first["metadata"]["creationTimestamp"] = "2026-11-23T12:00:01Z"
    second["metadata"]["creationTimestamp"] = "2026-11-23T12:00:02Z"
    known = known_files([second, first], POD, SHARED)
    assert known[MODEL.path].digest == later.digest


def test_what_the_controller_dropped_says_nothing() -> None:
    dropped = made() | {"status": {"standing": "Dropped"}}
    assert known_files([dropped], POD, SHARED) == {}


@pytest.mark.parametrize(
    "broken", [{"changed": "yesterday"}, {"changed": "2026-11-23T12:00:00"}, {"size": "7"}]
)
def test_a_file_that_cannot_be_read_is_passed_over(broken: dict[str, Any]) -> None:
    obj = made()
    obj["spec"]["files"][0] |= broken
    assert known_files([obj], POD, SHARED) == {}
