"""What the image has, layer by layer, and that a new directory's files ask it but once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from trainseal.agent import layers as layers_module
from trainseal.agent.files import Tree
from trainseal.agent.layers import Layers
from trainseal.agent.mounts import Overlay


@pytest.fixture
def layers(tmp_path: Path) -> Iterator[Layers]:
    for name in ("upper", "second/usr/lib", "first/usr/lib/python3", "first/opt"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "first/usr/lib/python3/a.py").write_text("of the first")
    (tmp_path / "second/usr/lib/b.so").write_text("of the second")
    found = Layers(Overlay("/upper", ("/second", "/first")), str(tmp_path))
    yield found
    found.close()


def test_what_any_lower_layer_has_is_the_images(layers: Layers) -> None:
    for path in ("/usr/lib/python3/a.py", "/usr/lib/b.so", "/opt", "/"):
        for _ in range(2):  # also once it is known which layer lacks the directory
            assert layers.image_tree(path) is not None
    for path in ("/usr/lib/python3/c.py", "/usr/lib/a.so", "/var/cache/flood/1", "/etc"):
        for _ in range(2):
            assert layers.image_tree(path) is None


def test_of_a_directory_that_the_image_lacks_its_layers_are_asked_once(
    layers: Layers, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert layers.image_tree("/var/cache/flood/0") is None
    asked: list[str] = []
    ask = Tree.open

    def counting(tree: Tree, path: str, flags: int) -> int:
        asked.append(path)
        return ask(tree, path, flags)

    monkeypatch.setattr(Tree, "open", counting)
    for number in range(100):
        assert layers.image_tree(f"/var/cache/flood/{number}") is None
    assert asked == []
    assert layers.image_tree("/usr/lib/b.so") is not None
    assert asked


def test_what_could_not_be_read_for_a_moment_is_not_remembered_as_missing(
    layers: Layers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(tree: Tree, path: str, flags: int) -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(Tree, "open", fails)
        assert layers.image_tree("/usr/lib/python3/a.py") is None
    assert layers.image_tree("/usr/lib/python3/a.py") is not None


def test_a_walk_goes_over_all_however_much_there_is(layers: Layers, tmp_path: Path) -> None:
    (tmp_path / "upper/cache/inner").mkdir(parents=True)
    files = {f"/cache/{n}" for n in range(3_000)} | {"/cache/inner/x", "/a"}
    for path in files:
        (tmp_path / f"upper{path}").touch()
    assert {e.path for e in layers.walk()} == files | {"/cache", "/cache/inner"}
    assert {e.path for e in layers.walk("/cache/inner")} == {"/cache/inner/x"}
    assert layers.too_deep is None


def test_directories_are_put_off_at_once_or_when_they_have_many_names(
    layers: Layers, tmp_path: Path
) -> None:
    for directory in ("new", "large"):
        (tmp_path / "upper" / directory).mkdir()
    (tmp_path / "upper/new/x").touch()
    for n in range(2_500):
        (tmp_path / f"upper/large/{n}").touch()
    asked: list[tuple[str, int]] = []

    def put_off(directory: str, names: int) -> bool:
        asked.append((directory, names))
        return directory == "/new" or names == 2_000

    found = [e.path for e in layers.walk(put_off=put_off)]
    assert len(found) == 2 + 1_999
    assert "/new/x" not in found
    assert set(asked) == {("/new", 0), ("/large", 0), ("/large", 1_000), ("/large", 2_000)}


def test_what_is_too_deep_is_passed_over_and_named(
    layers: Layers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers_module, "MAX_DEPTH", 3)
    (tmp_path / "upper/a/b/c/d").mkdir(parents=True)
    assert [e.path for e in layers.walk()] == ["/a", "/a/b", "/a/b/c"]
    assert layers.too_deep == "/a/b/c"


def test_a_walk_that_is_left_holds_nothing_open(layers: Layers, tmp_path: Path) -> None:
    (tmp_path / "upper/a/b").mkdir(parents=True)
    before = len([*Path("/proc/self/fd").iterdir()])
    walk = layers.walk()
    assert next(walk).path == "/a"
    assert next(walk).path == "/a/b"
    walk.close()
    assert len([*Path("/proc/self/fd").iterdir()]) == before
