"""How texts differ, within bounds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainseal.agent.evidence import MAX_DIFFERENCE, text_difference, with_evidence
from trainseal.agent.files import Tree
from trainseal.agent.observed import Observation
from trainseal.agent.scene import Scene
from trainseal.api.evidenceitem import MAX_KEPT
from trainseal.api.findings import FindingId

OLD = "".join(f"line {n}\n" for n in range(1, 2001)).encode()


def test_the_changed_line_stands_with_its_place() -> None:
    found = text_difference(OLD, OLD.replace(b"line 1500\n", b"line x\n"), "/a.py")
    assert found is not None
    lines = found.split("\n")
    assert lines[:3] == ["--- /a.py (signed)", "+++ /a.py", "@@ -1497,7 +1497,7 @@"]
    assert "-line 1500" in lines
    assert "+line x" in lines


def test_two_places_far_apart_make_two_hunks_at_their_places() -> None:
    new = OLD.replace(b"line 1500\n", b"").replace(b"line 1600\n", b"x\n")
    found = text_difference(OLD, new, "/a.py") or ""
    assert [line for line in found.split("\n") if line.startswith("@@")] == [
        "@@ -1497,7 +1497,6 @@",
        "@@ -1597,7 +1596,7 @@",
    ]


def test_a_new_file_is_shown_whole() -> None:
    assert text_difference(b"", b"import os\n", "/a.pth") == (
        "--- /dev/null\n+++ /a.pth\n@@ -0,0 +1 @@\n+import os"
    )


def test_binaries_and_long_files_have_no_difference() -> None:
    assert text_difference(b"a", b"\0", "/a") is None
    assert text_difference(b"a", b"\xff", "/a") is None
    assert text_difference(None, b"a", "/a") is None


@given(
    st.lists(st.sampled_from("abc\n"), max_size=60), st.lists(st.sampled_from("abc\n"), max_size=60)
)
def test_a_difference_is_never_too_long(old: list[str], new: list[str]) -> None:
    many = 60
    found = text_difference(("".join(old) * many).encode(), ("".join(new) * many).encode(), "/a")
    assert found is None or len(found) <= MAX_DIFFERENCE


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A container's root without an image to compare with."""
    with Tree(str(tmp_path)) as root:
        fields: dict[str, Any] = {
            "root": root,
            "layers": None,
            "signed": lambda _self, _path: False,
        }
        yield cast("Scene", type("Bare", (), fields)())


def looked_at(scene: Scene, path: str) -> Observation:
    return with_evidence(Observation(FindingId.IMPORT_CHANGED, "x", path), scene)


def test_digest_difference_and_bytes_are_of_one_reading(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"lr = 0\n")
    found = looked_at(scene, "/a.py")
    assert found.content is not None
    assert found.content.head == b"lr = 0\n"
    digest = f"sha256:{hashlib.sha256(found.content.head).hexdigest()}"
    assert found.evidence["digest"] == found.content.digest == digest
    assert found.difference == "--- /dev/null\n+++ /a.py\n@@ -0,0 +1 @@\n+lr = 0"


def test_of_a_long_file_the_beginning_is_handed_on(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"x" * (MAX_KEPT + 1))
    found = looked_at(scene, "/a.py")
    assert found.content is not None
    assert (len(found.content.head), found.content.whole) == (MAX_KEPT, False)
    assert found.difference is None


def test_what_is_no_file_or_gone_has_no_bytes(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "link.py").symlink_to("/etc/passwd")
    link, gone = looked_at(scene, "/link.py"), looked_at(scene, "/gone.py")
    assert (link.content, link.evidence["digest"]) == (None, "not a file")
    assert (gone.content, gone.evidence["digest"]) == (None, "gone")
