"""What an EvidenceItem is made of, within its bounds, and without anybody's secrets."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainseal.agent.evidenceitems import (
    About,
    Taken,
    TakenProcess,
    fitted,
    item,
    packed,
    renamed,
    wanted,
)
from trainseal.agent.files import Content
from trainseal.agent.ledger import finding_of, key_of
from trainseal.agent.observed import Lineage, Observation, Process
from trainseal.api.evidenceitem import MAX_BYTES, EvidenceItem
from trainseal.api.findings import FINDINGS, FindingId

Object = dict[str, Any]
NOW = datetime(2026, 11, 26, tzinfo=UTC)
PATH = "/usr/lib/python3/torch/optim/adam.py"
SHELL = Process(4711, 4700, NOW, "/bin/sh", ("sh", "-c", "API_KEY=hunter2 go"), 1000, "c" * 64)
TRAINER = Process(4700, 1, NOW, "/usr/bin/python3", ("python3", "train.py"), 1000, "c" * 64)
SIGNED = "sha256:" + "1" * 64
#: Does not pack.
NOISE = random.Random(1).randbytes(512 * 1024)


def content(data: bytes = b"lr = 0\n", **changed: Any) -> Content:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return replace(Content(digest, len(data), 0o644, data, steady=True), **changed)


def seen(found: Content | None = None, **changed: Any) -> Observation:
    found = found or content()
    fields: dict[str, Any] = {
        "finding": FindingId.FILE_CHANGED,
        "message": "it was written",
        "path": PATH,
        "lineage": Lineage((SHELL, TRAINER), session=SHELL),
        "evidence": {"digest": found.digest, "signed digest": SIGNED},
        "content": found,
    }
    return Observation(**(fields | changed))


def about(observation: Observation | None = None) -> About:
    observation = observation or seen()
    return About(
        node="node-1",
        namespace="research",
        pod="char-lm-worker-0-x",
        uid="0aa3b1c2-1111-2222-3333-444455556666",
        seal="char-lm-1",
        finding=finding_of("trainer", observation, NOW, key_of("trainer", observation)),
        seen=observation,
    )


def taken(**changed: Any) -> Taken:
    fields: dict[str, Any] = {
        "time": NOW,
        "file": "Kept",
        "content": content(),
        "processes": (
            TakenProcess(
                SHELL,
                acting=True,
                environment=[("HF_TOKEN", "hunter2"), ("LD_PRELOAD", "/tmp/x.so")],
                files={"/bin/sh": "r-xp", "/memfd:x (deleted)": "rwxp", "/lib/libc.so": "r-xp"},
            ),
            TakenProcess(TRAINER, acting=True, ended=True),
        ),
    }
    return Taken(**(fields | changed))


def made(observation: Observation | None = None, room: int = MAX_BYTES, **changed: Any) -> Object:
    obj, size = item(about(observation), taken(**changed), room)
    assert size <= room
    return obj


def unpacked(obj: Object) -> bytes:
    return gzip.decompress(base64.b64decode(obj["spec"]["file"]["content"]))


def test_an_item_has_the_files_bytes_with_its_digest_and_the_signed_one() -> None:
    obj = made()
    assert obj["metadata"]["name"] == f"char-lm-worker-0-x-0aa3b1c2-{about().finding.key}"
    assert "ownerReferences" not in obj["metadata"]
    file = EvidenceItem.parse(obj).spec.file
    assert file is not None
    assert (file.state, file.signed_digest, file.truncated) == ("Kept", SIGNED, None)
    assert file.digest == f"sha256:{hashlib.sha256(unpacked(obj)).hexdigest()}"
    assert unpacked(obj) == b"lr = 0\n"
    assert file.found_digest is None


def test_an_item_has_who_acted_with_environment_and_maps_and_no_secret() -> None:
    obj = made()
    assert "hunter2" not in json.dumps(obj)
    shell, trainer = EvidenceItem.parse(obj).spec.processes or []
    assert shell.command == ["sh", "-c", "API_KEY=(7 characters) go"]
    assert [(v.name, v.value) for v in shell.environment or []] == [
        ("LD_PRELOAD", "/tmp/x.so"),
        ("HF_TOKEN", "(7 characters)"),
    ]
    # What code runs from first, and of that what no file of the image stands for.
    assert [m.path for m in shell.maps or []] == ["/memfd:x (deleted)", "/bin/sh", "/lib/libc.so"]
    assert (trainer.ended, trainer.environment) == (True, None)


def test_a_file_that_changed_since_it_was_found_is_said_to_have_changed() -> None:
    late = made(content=content(b"lr = 1\n"))
    file = EvidenceItem.parse(late).spec.file
    assert file is not None
    assert file.digest != file.found_digest == content().digest


@pytest.mark.parametrize("state", ["Gone", "NotAFile", "Unreadable"])
def test_a_file_that_cannot_be_read_is_said_to_be_so(state: str) -> None:
    obj = made(file=state, content=None)
    file = EvidenceItem.parse(obj).spec.file
    assert file is not None
    assert (file.state, file.content, file.digest) == (state, None, None)


def test_a_file_that_was_written_while_it_was_read_is_said_to_be_unsteady() -> None:
    obj = made(content=content(steady=False))
    assert obj["spec"]["file"]["unsteady"] is True


def test_of_a_large_file_the_beginning_is_kept_and_that_is_said() -> None:
    large = content(NOISE[: 400 * 1024], size=10**9)
    obj = made(content=large)
    file = EvidenceItem.parse(obj).spec.file
    assert file is not None
    assert (file.size, file.truncated) == (10**9, True)
    kept = unpacked(obj)
    assert (len(kept), kept) == (file.content_size, NOISE[: len(kept)])
    assert len(kept) > 100 * 1024


@given(st.integers(0, 5000), st.integers(0, 3000), st.booleans())
def test_what_is_packed_has_its_room_and_unpacks_to_the_beginning(
    length: int, room: int, noise: bool
) -> None:
    data = NOISE[:length] if noise else b"a = 1\n" * (length // 6)
    text, size = packed(data, room)
    assert len(text) <= room
    assert (gzip.decompress(base64.b64decode(text)) if text else b"") == data[:size]


WORDS = st.text(max_size=60)


@given(
    st.lists(
        st.tuples(
            st.lists(WORDS, max_size=6),
            st.lists(st.tuples(WORDS, WORDS), max_size=8),
            st.dictionaries(WORDS, st.sampled_from(["r--p", "r-xp", "rw-s"]), max_size=8),
        ),
        max_size=12,
    ),
    st.integers(0, 6_000),
)
def test_processes_stay_within_their_room(processes: Any, room: int) -> None:
    many = [
        TakenProcess(
            replace(SHELL, pid=number, command=tuple(command)),
            acting=True,
            environment=environment,
            files=files,
        )
        for number, (command, environment, files) in enumerate(processes)
    ]
    found, omitted = fitted(many, room)
    assert sum(len(p.model_dump_json(by_alias=True, exclude_none=True)) for p in found) <= (
        room + 100 * len(found)  # the counts of what is left out
    )
    assert len(found) + omitted == len(many)
    for process, given_ in zip(found, many, strict=False):
        environment = process.environment or []
        assert len(environment) + (process.environment_omitted or 0) == len(
            given_.environment or ()
        )


def test_an_item_of_everything_at_its_bounds_is_no_larger_than_allowed() -> None:
    process = TakenProcess(
        replace(SHELL, command=("x" * 2000,) * 100),
        acting=True,
        environment=[(f"LD_{n}", "ä" * 2000) for n in range(1000)],
        files={f"/lib/{n}{'y' * 900}": "r-xp" for n in range(1000)},
    )
    for room in (MAX_BYTES, 64 * 1024, 24 * 1024):
        full = taken(processes=[process] * 100, content=content(NOISE))
        obj, size = item(about(), full, room)
        assert size == len(json.dumps(obj, ensure_ascii=False).encode()) <= room
        spec = EvidenceItem.parse(obj).spec
        assert (spec.processes_omitted or 0) + len(spec.processes or ()) == 100


@given(st.binary(max_size=200))
def test_whatever_bytes_a_process_has_for_names_they_can_be_written(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    process = TakenProcess(
        replace(SHELL, executable=text, command=(text, text)),
        environment=[(text, text), ("LD_PRELOAD", text)],
        files={text: "r-xp"},
    )
    json.dumps(made(processes=[process]), ensure_ascii=False).encode()


def test_a_padded_environment_does_not_hide_what_loads_code() -> None:
    padded = [(f"A{n}", "") for n in range(5000)] + [("LD_PRELOAD", "/tmp/x.so")]
    (found,), _ = fitted([TakenProcess(SHELL, environment=padded)], 100_000)
    assert (found.environment or [])[0].name == "LD_PRELOAD"
    assert found.environment_omitted == 5001 - 256


def test_a_finding_of_before_a_restart_gives_the_item_its_name() -> None:
    body = made()
    other = about(seen(lineage=None))
    again = renamed(body, other)
    assert again["metadata"]["name"] == other.name != body["metadata"]["name"]
    assert again["spec"]["finding"]["key"] == other.finding.key
    assert EvidenceItem.parse(again).spec.file == EvidenceItem.parse(body).spec.file


@pytest.mark.parametrize("finding", [f for f in FindingId if FINDINGS[f].severity == "Info"])
def test_what_is_only_information_deserves_no_evidence(finding: FindingId) -> None:
    assert not wanted(seen(finding=finding))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (content(b"#!/bin/sh\n"), True),
        (content(b"\x7fELF\x02"), True),
        (content(b"x", mode=0o755), True),
        (content(b"machine x login y password z"), False),
    ],
)
def test_of_new_files_those_that_can_run_are_kept(found: Content, expected: bool) -> None:
    assert wanted(seen(found, finding=FindingId.FILE_CREATED)) is expected


def test_a_new_file_that_was_not_looked_at_in_a_flood_is_not_kept() -> None:
    assert not wanted(seen(finding=FindingId.FILE_CREATED, content=None))
