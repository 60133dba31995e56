"""Room on disk is counted for each filesystem."""

from pathlib import Path

import pytest

from tests.cluster.disk import GIB, Need, Space, require_space, space_at
from tests.cluster.errors import ClusterError

NEEDS = [
    Need("Go modules", Path("/root/go"), 4 * GIB),
    Need("tools", Path("/root/.cache"), 1 * GIB),
    Need("clusters", Path("/var/lib/x"), 2 * GIB),
]


def disks(root: float, var: float) -> dict[str, Space]:
    return {"root": Space(1, round(root * GIB)), "var": Space(2, round(var * GIB))}


def test_enough_room_is_enough() -> None:
    found = disks(5, 2)
    require_space(NEEDS, lambda place: found[place.parts[1]])


def test_what_goes_to_one_filesystem_is_added_up() -> None:
    found = disks(4.5, 100)
    with pytest.raises(ClusterError, match=r"4\.5 GiB free for /root/go, /root/\.cache") as caught:
        require_space(NEEDS, lambda place: found[place.parts[1]])
    assert "5.0 GiB (Go modules 4.0, tools 1.0)" in caught.value.message
    assert "clusters" not in caught.value.expected
    assert "GOMODCACHE" in caught.value.action


def test_each_filesystem_that_is_short_is_named() -> None:
    found = disks(4.5, 1)
    with pytest.raises(ClusterError, match=r"1\.0 GiB free for /var/lib/x") as caught:
        require_space(NEEDS, lambda place: found[place.parts[1]])
    assert "/root/go" in caught.value.found


def test_a_folder_that_is_still_to_be_made_is_where_its_parent_is(tmp_path: Path) -> None:
    assert space_at(tmp_path / "a/b").device == tmp_path.stat().st_dev
    assert space_at(tmp_path / "a/b").free > 0
