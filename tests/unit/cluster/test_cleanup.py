"""What is below a cluster's folder is found, and nothing beside it."""

from pathlib import Path

import pytest

from tests.cluster import cleanup
from tests.cluster.errors import ClusterError
from tests.cluster.places import RunDir

MOUNTS = """\
22 27 0:21 / /proc rw - proc proc rw
30 27 0:30 / /var/lib/x/a/kubelet/one rw - tmpfs tmpfs rw
31 27 0:31 / /var/lib/x/a/kubelet/with\\040space rw shared:7 - tmpfs tmpfs rw
32 27 0:32 / /var/lib/x/ab/kubelet/two rw - tmpfs tmpfs rw
"""


@pytest.fixture
def mountinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mountinfo"
    file.write_text(MOUNTS)
    monkeypatch.setattr(cleanup, "_MOUNTINFO", file)


@pytest.mark.usefixtures("mountinfo")
def test_the_latest_mount_comes_first_and_neighbours_are_left_alone() -> None:
    assert cleanup.mounts_below(Path("/var/lib/x/a")) == [
        Path("/var/lib/x/a/kubelet/with space"),
        Path("/var/lib/x/a/kubelet/one"),
    ]


@pytest.mark.usefixtures("mountinfo")
def test_a_folder_with_mounts_is_never_deleted() -> None:
    with pytest.raises(ClusterError, match="still mounted"):
        cleanup.remove_folder(RunDir(Path("/var/lib/x/ab")))
