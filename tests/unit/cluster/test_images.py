"""Archives are recognised by what is in them; the pause image is a whole one."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.cluster.errors import ClusterError
from tests.cluster.images import archive_transport
from tests.cluster.pause import PAUSE_IMAGE, pause_archive


def archive(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    return path


@pytest.mark.parametrize(
    ("names", "transport"),
    [
        (["blobs/x", "oci-layout"], "oci-archive"),
        (["./oci-layout"], "oci-archive"),
        (["layer.tar", "manifest.json"], "docker-archive"),
    ],
)
def test_the_kind_of_an_archive_is_seen(tmp_path: Path, names: list[str], transport: str) -> None:
    assert archive_transport(archive(tmp_path / "a.tar", *names)) == transport


def test_a_folder_is_an_oci_layout(tmp_path: Path) -> None:
    assert archive_transport(tmp_path) == "oci"


def test_another_tar_or_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="neither oci-layout nor manifest"):
        archive_transport(archive(tmp_path / "a.tar", "README"))
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ClusterError, match="no tar archive"):
        archive_transport(tmp_path / "text")


def test_the_pause_images_layer_is_what_its_config_names(tmp_path: Path) -> None:
    binary = tmp_path / "catatonit"
    binary.write_bytes(b"\x7fELF")
    with tarfile.open(pause_archive(tmp_path / "pause.tar", binary)) as tar:

        def read(name: str) -> bytes:
            member = tar.extractfile(name)
            assert member is not None
            return member.read()

        manifest = json.loads(read("manifest.json"))[0]
        config = json.loads(read(manifest["Config"]))
        layer = read(manifest["Layers"][0])
    assert manifest["RepoTags"] == [PAUSE_IMAGE]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]


def test_without_catatonit_the_error_names_the_package(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="apt-get install catatonit"):
        pause_archive(tmp_path / "pause.tar", tmp_path / "missing")
