from __future__ import annotations

import io
import os
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainseal.registry.layers import LAYER_BYTES, pack, partition
from trainseal.registry.tree_files import TreeFile, TreeFilesError, list_files

MIB = 1024 * 1024

files = st.builds(
    TreeFile,
    st.text("abcdefgh/", min_size=1, max_size=12),
    st.integers(0, 6 * MIB),
    st.booleans(),
)
trees = st.lists(files, min_size=1, max_size=20, unique_by=lambda file: file.path)


@settings(max_examples=40)
@given(trees)
def test_every_file_is_in_exactly_one_layer(tree: list[TreeFile]) -> None:
    layers = partition(tree)
    placed = [file for layer in layers for file in layer]
    assert set(placed) == set(tree)
    assert len(placed) == len(tree)
    assert all(layers)
    assert len(layers) <= 64


@settings(max_examples=40)
@given(trees, st.randoms())
def test_the_order_of_listing_means_nothing(tree: list[TreeFile], random: object) -> None:
    shuffled = list(tree)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert partition(shuffled) == partition(tree)


@settings(max_examples=40)
@given(trees)
def test_only_layers_that_can_be_split_no_further_are_large(tree: list[TreeFile]) -> None:
    layers = partition(tree)
    for layer in layers:
        size = sum(file.size + 512 for file in layer)
        prefixes = {sha256(file.path.encode()).digest()[0] >> 2 for file in layer}
        assert size <= LAYER_BYTES or len(prefixes) == 1


@settings(max_examples=40)
@given(trees, files)
def test_an_added_file_leaves_all_layers_but_its_own_as_they_were(
    tree: list[TreeFile], added: TreeFile
) -> None:
    tree = [file for file in tree if file.path != added.path]
    assert len(set(partition(tree)) - set(partition([*tree, added]))) <= 1


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "package" / "deep").mkdir(parents=True)
    (tmp_path / "package" / "deep" / "model.py").write_text("import torch\n")
    (tmp_path / "package" / "empty").touch()
    (tmp_path / "train.sh").write_text("exec python\n")
    (tmp_path / "train.sh").chmod(0o700)
    (tmp_path / ("n" * 120 + ".txt")).write_text("a long name\n")
    (tmp_path / "größe.txt").write_text("not ASCII\n")
    return tmp_path


def tar_of(tree: Path) -> bytes:
    (layer,) = pack(tree, list_files(tree))
    raw = b"".join(layer.chunks())
    assert len(raw) == layer.size
    return raw


def test_a_small_tree_is_one_layer_that_any_tar_reads_back(tree: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(tar_of(tree))) as tar:
        found = {}
        for member in tar:
            assert member.isreg()
            content = tar.extractfile(member)
            assert content is not None
            found[member.name] = (member.mode, member.mtime, member.uid, content.read())
    assert found == {
        file.path: (
            0o755 if file.path == "train.sh" else 0o644,
            0,
            0,
            (tree / file.path).read_bytes(),
        )
        for file in list_files(tree)
    }


def test_times_owners_and_other_mode_bits_change_nothing(tree: Path) -> None:
    before = tar_of(tree)
    os.utime(tree / "train.sh", (1, 1))
    (tree / "train.sh").chmod(0o755)
    (tree / "package" / "empty").chmod(0o600)
    assert tar_of(tree) == before


@pytest.mark.parametrize("change", ["content", "executable", "name"])
def test_content_name_and_the_executable_bit_change_the_layer(tree: Path, change: str) -> None:
    before = tar_of(tree)
    if change == "content":
        (tree / "train.sh").write_text("exec pythom\n")
    elif change == "executable":
        (tree / "train.sh").chmod(0o644)
    else:
        (tree / "train.sh").rename(tree / "trail.sh")
    assert tar_of(tree) != before


def test_one_changed_file_of_a_large_tree_changes_one_layer(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}.bin").write_bytes(bytes([number]) * MIB)
    first = {layer.digest for layer in pack(tmp_path, list_files(tmp_path))}
    (tmp_path / "7.bin").write_bytes(b"x" * MIB)
    second = {layer.digest for layer in pack(tmp_path, list_files(tmp_path))}
    assert len(first) > 4
    assert len(second - first) == 1


def test_progress_counts_every_byte(tree: Path) -> None:
    seen: list[int] = []
    layers = pack(tree, list_files(tree), seen.append)
    assert sum(seen) == sum(layer.size for layer in layers)


@pytest.mark.parametrize("content", ["shorter", "longer than it was listed as"])
def test_a_file_that_is_no_longer_what_was_listed_is_named(tree: Path, content: str) -> None:
    files = list_files(tree)
    (tree / "train.sh").write_text(content)
    with pytest.raises(TreeFilesError, match=r"'train\.sh'"):
        pack(tree, files)


def test_a_file_that_became_a_link_is_refused(tree: Path) -> None:
    files = list_files(tree)
    (tree / "train.sh").unlink()
    (tree / "train.sh").symlink_to("/etc/passwd")
    with pytest.raises(TreeFilesError, match="a symbolic link"):
        pack(tree, files)
