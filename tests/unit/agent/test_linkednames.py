"""A file that is written under one name is looked for under the signed ones that it has besides."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from trainseal.agent.linkednames import LinkedNames
from trainseal.agent.observed import Act
from trainseal.agent.scene import Identity
from trainseal.agent.touches import Touch

ADAM, LINK = "/usr/lib/torch/adam.py", "/var/tmp/x"
FILE, OTHER = (1, 10), (1, 11)

NOW = datetime(2026, 11, 1, tzinfo=UTC)


class Layer:
    """An upper layer; each file of it takes a hundredth of a second to be looked at."""

    def __init__(self, files: list[tuple[str, Identity]]) -> None:
        self.files = files
        self.now = 100.0
        self.looks = 0

    def listed(self) -> Iterator[tuple[str, Identity]]:
        self.looks += 1
        for one in self.files:
            self.now += 0.01
            yield one

    def names(self) -> LinkedNames:
        return LinkedNames(self.listed, lambda path: path.startswith("/usr/"), lambda: self.now)


def written(path: str = LINK, pid: int = 7) -> Touch:
    return Touch(path, pid, NOW, acts={Act.WRITTEN, Act.EXECUTED})


def test_the_signed_name_is_told_with_who_wrote_and_as_what() -> None:
    layer = Layer([(LINK, FILE), ("/usr/lib/other", OTHER), ("/opt/new", FILE), (ADAM, FILE)])
    names = layer.names()
    names.written(FILE, written())
    names.written(FILE, written(pid=8))
    found = [(t.path, t.pid, t.acts, t.written_as) for t in names.look(layer.now, final=True)]
    assert found == [(ADAM, pid, {Act.WRITTEN}, LINK) for pid in (7, 8)]
    assert names.next is None


def test_who_wrote_under_the_signed_name_is_not_told_of_twice() -> None:
    layer = Layer([(LINK, FILE), (ADAM, FILE)])
    names = layer.names()
    names.written(FILE, written(ADAM))
    assert [*names.look(layer.now, final=True)] == []


def test_nothing_is_looked_through_where_no_file_with_several_names_was_written() -> None:
    layer = Layer([(ADAM, FILE)])
    names = layer.names()
    assert [*names.look(layer.now, final=True)] == []
    assert (layer.looks, names.next) == (0, None)


def test_a_large_layer_is_looked_through_in_steps_and_what_comes_meanwhile_has_its_turn() -> None:
    layer = Layer([*((f"/opt/{n}", OTHER) for n in range(20)), (ADAM, FILE)])
    names = layer.names()
    names.written(FILE, written())
    assert [*names.look(layer.now)] == [], "it took its time"
    assert names.next is not None
    assert names.next <= layer.now
    names.written(FILE, written(pid=8))
    found: list[int] = []
    while names.next is not None and names.next <= layer.now:
        found += [t.pid for t in names.look(layer.now)]
    assert (found, layer.looks) == ([7], 1)
    assert names.next is not None
    assert names.next - layer.now > 5, "fifty times what it took"
    assert [*names.look(layer.now)] == []
    assert [t.pid for t in names.look(layer.now, final=True)] == [8]
