"""What the image has, layer by layer, and that a new directory's files ask it but once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

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
