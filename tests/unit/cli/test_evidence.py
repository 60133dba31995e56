"""`trainseal evidence`: what an archive kept, and whether it is whole."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.sample_objects import access_record, sealed_run
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_kube import FakeKube, connecting_to
from trainseal.archive.store import Store, object_path
from trainseal.cluster import api
from trainseal.provenance.evidence import Head

NOW = datetime(2026, 11, 23, 21, 0, tzinfo=UTC)
HEAD_PATH = "/api/v1/namespaces/trainseal-system/configmaps/trainseal-evidence-head"


def placed(obj: dict[str, Any]) -> dict[str, Any]:
    obj["metadata"] |= {"namespace": "research", "uid": f"uid-{obj['metadata']['name']}"}
    return obj


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive of a seal and of an access; its head is published."""
    folder = tmp_path / "archive"
    folder.mkdir()
    with Store(folder) as store:
        store.append(placed(sealed_run()), NOW)
        store.append(placed(access_record()), NOW)
        publish(monkeypatch, store.head)
    return folder


def publish(monkeypatch: pytest.MonkeyPatch, head: Head | None) -> None:
    objects = {HEAD_PATH: {"data": {"head": str(head)}}} if head else {}
    monkeypatch.setattr(api, "connect", connecting_to(FakeKube(objects)))


def log(folder: Path) -> Path:
    return next((folder / "log").iterdir())


def test_a_whole_archive_is_said_to_be_whole(trainseal: Run, folder: Path) -> None:
    answer = trainseal("evidence", "verify", str(folder))
    assert (answer.code, answer.out[:29]) == (0, "whole: 2 records, 2 objects; ")


def test_an_archive_that_grew_since_the_head_was_noted_is_whole(
    trainseal: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(folder) as store:
        noted = store.head
        store.append(placed(sealed_run("other-1")), NOW)
    answer = trainseal("evidence", "verify", str(folder), "--head", str(noted), "-o", "json")
    assert (answer.code, json.loads(answer.out)["records"]) == (0, 3)


def test_a_log_that_was_cut_short_is_refuted_by_the_published_head(
    trainseal: Run, folder: Path
) -> None:
    log(folder).write_bytes(log(folder).read_bytes().splitlines(keepends=True)[0])
    answer = trainseal("evidence", "verify", str(folder))
    assert answer.code == 1
    assert "the log ends at 1@sha256:" in answer.err
    assert trainseal("evidence", "verify", str(folder), "--offline").code == 0


def test_a_log_that_was_written_anew_is_refuted_by_the_published_head(
    trainseal: Run, folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    with Store(other) as store:
        store.append(placed(sealed_run("forged-1")), NOW)
        store.append(placed(access_record()), NOW)
    assert trainseal("evidence", "verify", str(other), "--offline").code == 0
    assert trainseal("evidence", "verify", str(other)).code == 1


def test_a_changed_line_and_a_removed_object_are_refuted_with_their_place(
    trainseal: Run, folder: Path
) -> None:
    line = json.loads(log(folder).read_bytes().splitlines()[0])
    path = object_path(folder, line["digest"])
    kept = path.read_bytes()
    path.unlink()
    answer = trainseal("evidence", "verify", str(folder))
    assert (answer.code, "was removed" in answer.err) == (1, True)
    path.write_bytes(kept)
    assert trainseal("evidence", "verify", str(folder)).code == 0
    log(folder).write_bytes(log(folder).read_bytes().replace(b"char-lm-1", b"char-lm-2", 1))
    answer = trainseal("evidence", "verify", str(folder))
    assert (answer.code, "line 2" in answer.err) == (1, True)


def test_without_a_head_it_is_undetermined_and_not_refuted(
    trainseal: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, None)
    answer = trainseal("evidence", "verify", str(folder))
    assert (answer.code, "says no head" in answer.err) == (2, True)


def test_a_folder_that_is_no_archive_is_wrong_use(trainseal: Run, tmp_path: Path) -> None:
    answer = trainseal("evidence", "verify", str(tmp_path), "--offline")
    assert (answer.code, "holds no folder log" in answer.err) == (64, True)
    answer = trainseal("evidence", "verify", str(tmp_path), "--head", "17")
    assert (answer.code, "expected a head as in" in answer.err) == (64, True)


def test_what_was_recorded_is_listed_and_shown(trainseal: Run, folder: Path) -> None:
    listed = trainseal("evidence", "list", str(folder), "-n", "research", "--kind", "accessrecord")
    assert "AccessRecord" in listed.out
    assert "SealedRun" not in listed.out
    lines = trainseal("evidence", "list", str(folder), "--name", "char-lm", "-o", "json").out
    digests = [json.loads(line)["digest"] for line in lines.splitlines()]
    shown = trainseal("evidence", "show", str(folder), digests[1][:20])
    assert json.loads(shown.out)["spec"]["username"] == "mallory"
    assert trainseal("evidence", "show", str(folder), "sha256:").code == 64
