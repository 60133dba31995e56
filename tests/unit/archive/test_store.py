"""The archive on disk: what was recorded stays, and whatever is done to it is found."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sample_objects import drift_report, sealed_run
from trainseal.archive import store as store_module
from trainseal.archive.store import Store, StoreError, lines, object_path, read_object
from trainseal.provenance.evidence import BrokenChainError, Entry, Head, read_line, walk

NOW = datetime(2026, 11, 23, 21, 0, tzinfo=UTC)


def seal(name: str = "char-lm-1", phase: str = "Bound") -> dict[str, Any]:
    obj = sealed_run(name)
    obj["metadata"] |= {"uid": f"uid-{name}", "namespace": "research", "managedFields": [{}]}
    return obj | {"status": {"phase": phase}}


def entries(folder: Path) -> list[Entry]:
    return [entry for entry, _ in walk(lines(folder))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An archive of two seals, one of which ended and was deleted."""
    with Store(tmp_path) as store:
        store.append(seal(), NOW)
        store.append(seal("other-1"), NOW)
        store.append(seal(phase="Succeeded"), NOW)
        store.append(seal(phase="Succeeded"), NOW, deleted=True)
    return tmp_path


def log(folder: Path) -> Path:
    return next((folder / "log").iterdir())


def test_each_version_of_an_object_is_kept_and_its_end_is_noted(folder: Path) -> None:
    found = [(e.name, e.kind, e.digest is None) for e in entries(folder)]
    assert found == [
        ("char-lm-1", "SealedRun", False),
        ("other-1", "SealedRun", False),
        ("char-lm-1", "SealedRun", False),
        ("char-lm-1", "SealedRun", True),
    ]
    kept = [read_object(folder, e.digest) for e in entries(folder) if e.digest]
    assert b'"phase":"Bound"' in kept[0]
    assert b'"phase":"Succeeded"' in kept[2]
    assert b"managedFields" not in b"".join(kept)


def test_what_is_recorded_is_not_recorded_again_also_after_a_restart(folder: Path) -> None:
    with Store(folder) as store:
        assert not store.append(seal("other-1"), NOW)
        assert store.head.number == 4
        assert store.append(seal("other-1", "Failed"), NOW)
    assert len(entries(folder)) == 5


def test_what_went_while_the_archive_was_down_is_noted(folder: Path) -> None:
    with Store(folder) as store:
        assert store.note_absent("DriftReport", set(), NOW) == 0
        assert store.note_absent("SealedRun", {"uid-other-1"}, NOW) == 0
        assert store.note_absent("SealedRun", set(), NOW) == 1
    assert (entries(folder)[-1].name, entries(folder)[-1].digest) == ("other-1", None)


def test_what_was_last_seen_only_at_its_deletion_is_kept_whole(folder: Path) -> None:
    with Store(folder) as store:
        store.append(drift_report() | {"status": {"dropped": 7}}, NOW, deleted=True)
    *_, last, end = entries(folder)
    assert last.digest
    assert b'"dropped":7' in read_object(folder, last.digest)
    assert end.digest is None


@pytest.mark.parametrize("line", [0, 1, 2])
def test_a_line_that_is_removed_breaks_the_chain(folder: Path, line: int) -> None:
    kept = log(folder).read_bytes().splitlines(keepends=True)
    del kept[line]
    log(folder).write_bytes(b"".join(kept))
    with pytest.raises(BrokenChainError, match=f"line {line + 1}: found entry {line + 2}"):
        entries(folder)


def test_a_line_that_is_changed_breaks_the_chain_at_the_next(folder: Path) -> None:
    log(folder).write_bytes(log(folder).read_bytes().replace(b"other-1", b"other-2", 1))
    with pytest.raises(BrokenChainError, match=r"line 3: .* what stands before it was changed"):
        entries(folder)


def test_a_log_that_is_cut_short_ends_before_its_head(folder: Path) -> None:
    with Store(folder) as store:
        head = store.head
    kept = log(folder).read_bytes().splitlines(keepends=True)
    log(folder).write_bytes(b"".join(kept[:-1]))
    with Store(folder) as store:
        assert store.head.number < head.number


def test_an_object_that_is_changed_or_removed_is_found(folder: Path) -> None:
    digest = entries(folder)[0].digest
    assert digest
    path, other = object_path(folder, digest), entries(folder)[1].digest
    path.write_bytes(object_path(folder, str(other)).read_bytes())
    with pytest.raises(BrokenChainError, match="was changed"):
        read_object(folder, digest)
    path.unlink()
    with pytest.raises(BrokenChainError, match="was removed"):
        read_object(folder, digest)


@given(cut=st.integers(min_value=1))
@settings(max_examples=40)
def test_a_crash_in_the_middle_of_a_line_loses_that_line_alone(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("archive")
    with Store(folder) as store:
        store.append(seal(), NOW)
        head = store.head
        store.append(seal("other-1"), NOW)
        whole = store.head
    data = log(folder).read_bytes()
    last = data.splitlines(keepends=True)[-1]
    log(folder).write_bytes(data[: len(data) - cut % len(last)])
    with Store(folder) as store:
        assert store.head == (head if cut % len(last) else whole)
        assert store.append(seal("other-1"), NOW) == bool(cut % len(last))
    assert len(entries(folder)) == 2


def test_a_disk_that_is_full_loses_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> None:
        written = __import__("os").write(descriptor, data[:5])
        raise OSError(28, f"No space left on device after {written} bytes")

    with Store(folder) as store:
        with monkeypatch.context() as broken:
            broken.setattr(store_module, "_write_all", full)
            with pytest.raises(OSError, match="No space"):
                store.append(seal("third-1"), NOW)
        assert store.append(seal("third-1"), NOW)
    assert entries(folder)[-1].name == "third-1"


def test_a_second_writer_is_refused(folder: Path) -> None:
    with Store(folder), pytest.raises(StoreError, match="another archive that writes here"):
        Store(folder).__enter__()
    with Store(folder):
        pass


def test_a_log_of_several_files_is_one_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "LINES_A_FILE", 2)
    with Store(tmp_path) as store:
        for number in range(5):
            store.append(seal(f"run-{number}"), NOW)
    assert len(list((tmp_path / "log").iterdir())) == 3
    assert [e.number for e in entries(tmp_path)] == [1, 2, 3, 4, 5]
    sorted((tmp_path / "log").iterdir())[1].unlink()
    with pytest.raises(BrokenChainError, match="a part of the log was removed"):
        entries(tmp_path)


@pytest.fixture
def a_line(folder: Path) -> bytes:
    return next(lines(folder))


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line.replace(b'"number":1', b'"number":true'),
        lambda line: line.replace(b'"number":1', b'"number": 1'),
        lambda line: line.replace(b"sha256:", b"sha512:"),
        lambda line: line[:-1] + b',"more":1}',
        lambda _: b"[]",
        lambda line: b"\xff" + line,
    ],
)
def test_a_line_has_one_form(a_line: bytes, damage: Any) -> None:
    assert read_line(a_line).number == 1
    with pytest.raises(BrokenChainError):
        read_line(damage(a_line))


@pytest.mark.parametrize("text", ["", "1", "1@", "x@sha256:" + "0" * 64, "-1@sha256:" + "0" * 64])
def test_a_head_is_a_number_and_a_digest(text: str) -> None:
    assert Head.parse(str(Head())) == Head()
    with pytest.raises(ValueError, match="expected a head"):
        Head.parse(text)
