"""Reading /proc/PID/mountinfo."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainseal.agent.mounts import (
    MountInfoError,
    Overlay,
    at_path,
    holding,
    overlay_of,
    parse,
)

S = "/snapshots"
TEXT = f"""\
900 800 0:44 / / rw master:3 - overlay overlay rw,lowerdir={S}/9/fs:{S}/8/fs,upperdir={S}/12/fs
901 900 0:46 / /proc rw,nosuid - proc proc rw
902 900 8:1 /pods/a/etc-hosts /etc/hosts rw - ext4 /dev/sda1 rw
903 900 0:50 / /workspace ro,relatime - tmpfs tmpfs rw,size=64k
904 900 0:51 / /data\\040sets ro - nfs4 server:/a\\134b rw
"""


def test_mounts_are_read_with_their_device_root_and_kind() -> None:
    hosts = at_path(parse(TEXT), "/etc/hosts")
    assert hosts is not None
    assert (hosts.device, hosts.root, hosts.kind) == (
        os.makedev(8, 1),
        "/pods/a/etc-hosts",
        "ext4",
    )
    assert not hosts.whole


def test_what_is_read_only_by_its_mount_or_as_a_whole_is_known() -> None:
    more = (
        "905 900 0:60 / /iso rw,nosuid - iso9660 /dev/sr0 ro\n906 900 0:61 / /ro rw - tmpfs ro rw\n"
    )
    mounts = {m.path: m.read_only for m in parse(TEXT + more)}
    assert [path for path in mounts if mounts[path]] == ["/workspace", "/data sets", "/iso"]


def test_spaces_in_paths_are_unescaped() -> None:
    assert at_path(parse(TEXT), "/data sets") is not None


def test_a_path_lies_in_the_innermost_mount() -> None:
    mounts = parse(TEXT)
    assert [
        m.path for p in ("/workspace/a", "/workspaces", "/etc/hosts") if (m := holding(mounts, p))
    ] == [
        "/workspace",
        "/",
        "/etc/hosts",
    ]


def test_the_later_of_two_mounts_hides_the_earlier() -> None:
    mounts = parse(TEXT + "905 900 0:60 / /workspace rw - tmpfs other rw\n")
    found = (at_path(mounts, "/workspace"), holding(mounts, "/workspace/x"))
    assert [m.number for m in found if m] == [905, 905]


def test_layers_are_told_from_the_top_down() -> None:
    root = at_path(parse(TEXT), "/")
    assert root is not None
    assert overlay_of(root) == Overlay(f"{S}/12/fs", (f"{S}/9/fs", f"{S}/8/fs"))


@pytest.mark.parametrize(
    ("options", "lowers"),
    [
        ("rw,lowerdir=9/fs:8/fs,upperdir=/s/12/fs", ("/s/9/fs", "/s/8/fs")),
        ("rw,lowerdir+=/s/9/fs,lowerdir+=/s/8/fs,upperdir=/s/12/fs", ("/s/9/fs", "/s/8/fs")),
        (r"rw,lowerdir=/s/a\134:b:/s/c,upperdir=/s/12/fs", ("/s/a:b", "/s/c")),
        (r"rw,lowerdir=/s/a\072b:/s/c,upperdir=/s/12/fs", ("/s/a:b", "/s/c")),
        (r"rw,lowerdir=/s/a\040b,upperdir=/s/12/fs", ("/s/a b",)),
    ],
)
def test_every_way_to_write_layers_is_read(options: str, lowers: tuple[str, ...]) -> None:
    (mount,) = parse(f"1 0 0:1 / / rw - overlay overlay {options}\n")
    found = overlay_of(mount)
    assert found is not None
    assert found.lowers == lowers


@pytest.mark.parametrize("line", ["x", "1 2 3 4 5 6 - ext4 a rw", "a 2 0:1 / / rw - ext4 a rw"])
def test_other_lines_are_refused(line: str) -> None:
    with pytest.raises(MountInfoError):
        parse(line)


@given(st.text(max_size=120))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        for mount in parse(text):
            overlay_of(mount)
    except MountInfoError:
        pass


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30))
def test_any_path_comes_back_as_the_kernel_escapes_it(name: str) -> None:
    escaped = "".join(f"\\{ord(c):03o}" if c in " \t\n\\" else c for c in name)
    (mount,) = parse(f"1 0 0:1 / /{escaped} rw - ext4 a rw\n")
    assert mount.path == f"/{name}"
