"""How texts differ, within bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trainseal.agent.evidence import MAX_DIFFERENCE, text_difference

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
