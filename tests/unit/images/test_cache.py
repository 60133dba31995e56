"""What decides a product, and that a product is there whole or not at all."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.images.cache import KEEP, Inputs, images_dir, product
from tests.images.errors import ImageError

PARTS = st.lists(st.tuples(st.text(max_size=4), st.binary(max_size=4)), max_size=4).map(tuple)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the folder of images in it."""
    monkeypatch.setenv("TRAINSEAL_CACHE", str(tmp_path))
    return images_dir()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of code."""
    root = tmp_path / "tree"
    (root / "part").mkdir(parents=True)
    (root / "part" / "a.py").write_text("a = 1\n")
    return root


def fill(folder: Path) -> None:
    (folder / "image").write_text("whole")


@given(PARTS, PARTS)
def test_two_lists_of_parts_have_one_digest_only_if_they_are_equal(
    one: tuple[tuple[str, bytes], ...], other: tuple[tuple[str, bytes], ...]
) -> None:
    assert (Inputs(one).digest == Inputs(other).digest) == (one == other)


def test_a_changed_byte_in_a_tree_gives_another_digest(tree: Path) -> None:
    before = Inputs().tree("code", tree).digest
    (tree / "part" / "a.py").write_text("a = 2\n")
    assert Inputs().tree("code", tree).digest != before


def test_a_moved_file_gives_another_digest(tree: Path) -> None:
    before = Inputs().tree("code", tree).digest
    (tree / "part" / "a.py").rename(tree / "a.py")
    assert Inputs().tree("code", tree).digest != before


def test_byte_code_left_by_a_run_gives_the_same_digest(tree: Path) -> None:
    before = Inputs().tree("code", tree).digest
    (tree / "part" / "__pycache__").mkdir()
    (tree / "part" / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"\0")
    assert Inputs().tree("code", tree).digest == before


def test_a_comment_in_a_recipe_gives_the_same_digest(tree: Path) -> None:
    module = tree / "part" / "a.py"
    before = Inputs().code(module).digest
    module.write_text("# why\na   =   1\n")
    assert Inputs().code(module).digest == before
    module.write_text("a = 2\n")
    assert Inputs().code(module).digest != before


def test_a_product_is_built_once(cache: Path) -> None:
    built: list[Path] = []

    def build(folder: Path) -> None:
        built.append(folder)
        fill(folder)

    first = product("base", Inputs().text("a", "1"), build)
    assert product("base", Inputs().text("a", "1"), build) == first
    assert len(built) == 1
    assert (first / "image").read_text() == "whole"
    product("base", Inputs().text("a", "2"), build)
    assert len(built) == 2


def test_builders_at_the_same_time_build_once(cache: Path) -> None:
    built: list[Path] = []
    entered = threading.Event()
    others_started = threading.Event()

    def build(folder: Path) -> None:
        entered.set()
        others_started.wait(10)
        built.append(folder)
        fill(folder)

    threads = [
        threading.Thread(target=product, args=("base", Inputs(), build)) for _worker in range(4)
    ]
    for thread in threads:
        thread.start()
    assert entered.wait(10)
    others_started.set()
    for thread in threads:
        thread.join(10)
    assert len(built) == 1


def test_a_build_that_fails_leaves_nothing(cache: Path) -> None:
    def fail(folder: Path) -> None:
        fill(folder)
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        product("base", Inputs(), fail)
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def test_what_a_killed_build_left_goes_with_the_next_build_of_its_kind(cache: Path) -> None:
    left = cache / ".tmp-base-killed"
    left.mkdir(parents=True)
    fill(left)
    other_kind = cache / ".tmp-training-running"
    other_kind.mkdir()
    product("base", Inputs(), fill)
    assert not left.exists()
    assert other_kind.exists()


def test_the_products_used_last_are_kept(cache: Path) -> None:
    made = [product("base", Inputs().text("n", str(n)), fill) for n in range(KEEP)]
    product("base", Inputs().text("n", "0"), fill)
    product("base", Inputs().text("n", "one more"), fill)
    assert made[0].exists()
    assert not made[1].exists()
    assert len(list(cache.glob("base-*"))) == KEEP


def test_nothing_is_removed_through_a_mount(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = cache / ".tmp-base-killed"
    (left / "rootfs" / "proc").mkdir(parents=True)
    fill(left)
    read = Path.read_text

    def mounts(path: Path) -> str:
        if path == Path("/proc/self/mounts"):
            return f"proc {left}/rootfs/proc proc ro 0 0\nproc /proc proc rw 0 0\n"
        return read(path)

    monkeypatch.setattr(Path, "read_text", mounts)
    with pytest.raises(ImageError, match="umount"):
        product("base", Inputs(), fill)
    assert (left / "image").exists()
