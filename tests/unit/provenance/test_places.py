"""Where a path leads, whatever way it is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainseal.provenance.places import is_open_file, resolve, within


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/a/./b//c/", "/a/b/c"),
        ("//a", "/a"),
        ("/../a", "/a"),
        ("b", "/home/b"),
        ("../b", "/b"),
        ("", "/home"),
        ("/proc/self/root/a", "/a"),
        ("/proc/1/root/a", "/a"),
        ("/proc/self/root/../a", "/a"),
        ("/proc/self/task/7/root/a", "/a"),
        ("/proc/self/root/proc/1/root/a", "/a"),
        ("/proc/thread-self/cwd/a", "/home/a"),
        ("/proc/self/cwd/../a", "/a"),
        ("/proc/*/root/a", "/a"),
        ("/proc/self/status", "/proc/self/status"),
        ("/proc/meminfo/root/a", "/proc/meminfo/root/a"),
        ("/procs/self/root/a", "/procs/self/root/a"),
    ],
)
def test_a_path_leads_where_the_kernel_leads_it(path: str, place: str) -> None:
    assert resolve(path, "/home") == place


@pytest.mark.parametrize("path", ["/ckpt", "/ckpt/x", "/ck?t/x", "/[c]kpt/x", "/*/x", "/c*"])
def test_what_is_or_may_be_below_a_root_is_within_it(path: str) -> None:
    assert within(path, ["/ckpt"])


@pytest.mark.parametrize("path", ["/ckpts/x", "/", "/x/ckpt", "ckpt", "/ck?/x", "/workspace/*"])
def test_what_only_looks_like_it_is_not(path: str) -> None:
    assert not within(path, ["/ckpt"], "/workspace")


SPELLINGS = st.lists(
    st.sampled_from(["/.", "//", "/x/..", "/../..", "/proc/self/root", "/proc/1/task/2/root"])
)
ROOTS = st.sampled_from(["/ckpt", "/mnt/a/b", "/dev/shm"])


@given(ROOTS, SPELLINGS, st.sampled_from(["", "/", "/run.sh", "/a/../b", "/./x"]))
def test_no_spelling_of_a_path_leads_it_out_of_its_root(
    root: str, spelling: list[str], rest: str
) -> None:
    spelled = "".join(spelling) + root + rest
    assert within(spelled, [root])
    assert not within(spelled, ["/workspace"])


@given(st.text(), st.text())
def test_every_text_leads_somewhere_and_twice_to_the_same(path: str, directory: str) -> None:
    place = resolve(path, directory)
    assert place.startswith("/")
    assert ".." not in place.split("/")


@pytest.mark.parametrize(
    "path", ["/dev/stdin", "/dev/fd/3", "/proc/self/fd/0", "/proc/9/task/9/fd/1"]
)
def test_a_file_that_is_open_already_is_known_by_its_other_names(path: str) -> None:
    assert is_open_file(path)
    assert not is_open_file(f"/workspace{path}")
