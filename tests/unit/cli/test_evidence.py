"""`trainseal evidence`: what an archive kept, and whether it is whole."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.sample_objects import access_record, evidence_item, sealed_run
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_kube import FakeKube, connecting_to
from trainseal.archive.store import Store, object_path
from trainseal.cluster import api
from trainseal.cluster.api import KubeError
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


# Evidence items -----------------------------------------------------------------------------------

ITEMS = "/apis/trainseal.dev/v1alpha1/namespaces/research/evidenceitems"
BYTES = b"lr = 0\n"


def item(data: bytes = BYTES, **changed: Any) -> dict[str, Any]:
    """An item with these bytes; what is said of its file can be changed."""
    obj = placed(evidence_item())
    obj["spec"]["file"] = {
        "path": "/workspace/train.py",
        "state": "Kept",
        "digest": f"sha256:{hashlib.sha256(data).hexdigest()}",
        "size": len(data),
        "mode": "0644",
        "content": base64.b64encode(gzip.compress(data, mtime=0)).decode(),
        "contentSize": len(data),
    } | changed
    return obj


NAME = str(item()["metadata"]["name"])
LIVE = ("evidence", "show", NAME, "-n", "research", "--kubeconfig", "unused")


def serve(monkeypatch: pytest.MonkeyPatch, obj: dict[str, Any]) -> FakeKube:
    kube = FakeKube({f"{ITEMS}/{NAME}": obj})
    monkeypatch.setattr(api, "connect", connecting_to(kube))
    return kube


def test_an_item_is_shown_with_its_file_and_who_acted(
    trainseal: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, item())
    answer = trainseal(*LIVE)
    assert answer.code == 0
    for words in (
        "file.changed",
        "/workspace/train.py",
        "7 bytes, mode 0644",
        "[12] vi --token=(8 characters)  ← 1, /usr/bin/vi, uid 0",
        "API_KEY=(8 characters)",
        "r-xp /usr/bin/vi",
        "[11] /bin/sh  ← 1, /bin/sh, ended",
        "1 more processes had no room",
        "lr = 0",
    ):
        assert words in answer.out
    assert json.loads(trainseal(*LIVE, "-o", "json").out) == item()


def test_the_files_bytes_are_written_out(
    trainseal: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    serve(monkeypatch, item(b"\x7fELF\0\xff"))
    assert "no text" in trainseal(*LIVE).out
    assert trainseal(*LIVE, "--extract", "out").code == 0
    assert (tmp_path / "out").read_bytes() == b"\x7fELF\0\xff"


def test_bytes_that_are_not_those_of_the_digest_are_refuted(
    trainseal: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for changed in (
        {"digest": "sha256:" + "0" * 64},
        {"contentSize": 6},
        {"content": base64.b64encode(b"no gzip").decode()},
        {"content": base64.b64encode(gzip.compress(b"0" * 10_000_000)).decode()},
    ):
        serve(monkeypatch, item(**changed))
        answer = trainseal(*LIVE, "--extract", "out")
        assert (answer.code, (tmp_path / "out").exists()) == (1, False), changed


def test_of_a_cut_file_it_is_said_how_much_there_is(
    trainseal: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, item(truncated=True, size=1000, digest="sha256:" + "0" * 64))
    answer = trainseal(*LIVE, "--extract", "out")
    assert (answer.code, answer.err) == (0, "the first 7 of 1000 bytes: no more were kept\n")
    assert "the first 7 of 1000 bytes were kept" in trainseal(*LIVE).out


def test_a_file_that_was_gone_has_no_bytes_to_write_out(
    trainseal: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    obj = item()
    obj["spec"]["file"] = {"path": "/x", "state": "Gone"}
    serve(monkeypatch, obj)
    assert "it was gone when it was looked at" in trainseal(*LIVE).out
    answer = trainseal(*LIVE, "--extract", "out")
    assert (answer.code, "the file was Gone" in answer.err) == (64, True)


def test_control_sequences_in_evidence_do_nothing_to_the_terminal(
    trainseal: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    obj = item(b"\x1b[2J", path="/x\x1b[1m")
    obj["spec"]["processes"][0]["command"] = ["\x1b[31m"]
    serve(monkeypatch, obj)
    answer = trainseal(*LIVE)
    assert "\x1b" not in answer.out
    assert "\\x1b[2J" in answer.out


def test_an_item_that_is_not_there_or_not_to_be_read_is_undetermined(
    trainseal: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    kube = serve(monkeypatch, item())
    kube.failures[f"{ITEMS}/{NAME}"] = KubeError(403, "Forbidden", "cannot get")
    answer = trainseal(*LIVE)
    assert (answer.code, "trainseal-responder" in answer.err) == (2, True)
    kube.failures.clear()
    kube.objects.clear()
    answer = trainseal(*LIVE)
    assert (answer.code, "trainseal drift JOB" in answer.err) == (2, True)


def test_an_item_is_shown_from_the_archive_by_its_name(
    trainseal: Run, folder: Path, tmp_path: Path
) -> None:
    with Store(folder) as store:
        store.append(item(), NOW)
        store.append(item(), NOW, deleted=True)
    answer = trainseal("evidence", "show", str(folder), NAME, "--extract", "out")
    assert (answer.code, (tmp_path / "out").read_bytes()) == (0, BYTES)
    assert "lr = 0" in trainseal("evidence", "show", str(folder), NAME).out
    assert trainseal("evidence", "show", str(folder), NAME, "-n", "other").code == 64
    assert trainseal("evidence", "show", str(folder), "unheard-of").code == 64
    assert trainseal("evidence", "show", str(folder)).code == 64


def test_an_item_that_was_recorded_again_as_it_went_is_shown_as_it_was_last(
    trainseal: Run, folder: Path
) -> None:
    gone = item()
    gone["metadata"]["labels"] = {"as": "it-went"}
    with Store(folder) as store:
        store.append(item(), NOW)
        store.append(gone, NOW, deleted=True)
    shown = trainseal("evidence", "show", str(folder), NAME, "-o", "json")
    assert (shown.code, json.loads(shown.out)["metadata"]["labels"]) == (0, {"as": "it-went"})


def test_what_has_no_file_cannot_be_written_out(trainseal: Run, folder: Path) -> None:
    listed = trainseal("evidence", "list", str(folder), "--kind", "SealedRun", "-o", "json").out
    digest = json.loads(listed)["digest"]
    answer = trainseal("evidence", "show", str(folder), digest, "--extract", "out")
    assert (answer.code, "it is a SealedRun" in answer.err) == (64, True)
