"""All of a layer is walked, a little at a time, and a large cache puts off nothing but itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.unit.agent.test_sweep_layer import ADAM, PACKAGES, Layered
from trainseal.agent import layers, upperwalk
from trainseal.agent.judge import judge
from trainseal.agent.observed import FileEvent, Observation
from trainseal.agent.upperwalk import UpperWalk

START = datetime.now(UTC) - timedelta(hours=1)


class Walked(Layered):
    """A layer and its walks; each entry that is looked at takes a millisecond."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, START)
        self.spent = 0.0
        #: Everything is older than a moment: no event of it is on its way.
        self.ahead = 60.0
        self.walk = UpperWalk(
            self.scene,
            self.container,
            self.judge,
            self.monotonic,
            lambda: self.wall().timestamp(),
        )

    def wall(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead)

    def monotonic(self) -> float:
        self.spent += 0.001
        return self.spent

    def judge(self, event: FileEvent, since: datetime) -> list[Observation]:
        found = judge(event, self.container, self.scene.facts(event))
        self.walk.remember(event.path)
        return [] if found is None else [replace(found, not_before=since)]

    def cache(self, files: int, top: str = "/root/.triton") -> None:
        """Many new files in directories that the image has not."""
        for number in range(files):
            folder = self.folder / f"upper{top}/{number // 50}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / str(number)).touch()

    def turn(self) -> list[str | None]:
        """What one turn finds; it is the next one's time then."""
        found = list(self.walk.step(self.walk.next, quiet=True, blind=False))
        self.ahead += 10
        return [seen.path for seen in found]


def open_files() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


@pytest.fixture
def walked(tmp_path: Path) -> Iterator[Walked]:
    found = Walked(tmp_path)
    (tmp_path / "image/root").mkdir()
    yield found
    found.walk.close()


def test_more_than_was_ever_walked_at_once_is_walked_in_turns(
    walked: Walked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upperwalk, "_AT_ONCE", 100)
    walked.cache(1_000)
    found = {seen.path for seen in walked.walk.first()}
    assert len(found) < 200
    while len(found) < 1_000:
        some = set(walked.turn())
        assert not some & found, "told twice"
        found |= some
    assert {f"/root/.triton/{n // 50}/{n}" for n in range(1_000)} == found
    for _ in range(100):
        assert walked.turn() == []


def test_a_large_cache_puts_off_nothing_but_itself(
    walked: Walked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upperwalk, "_AT_ONCE", 100)
    walked.cache(600)
    list(walked.walk.first())
    for number in range(5):
        path = f"{PACKAGES}/evil{number}.py"
        walked.write(path, b"evil\n")
        assert path in [*walked.turn(), *walked.turn()]
    walked.write(ADAM, b"lr = 0\n")
    assert ADAM in [*walked.turn(), *walked.turn()]


def test_a_flood_of_files_in_a_directory_of_the_image_puts_off_nothing_but_itself(
    walked: Walked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upperwalk, "_AT_ONCE", 100)
    monkeypatch.setattr(layers, "MANY", 20)
    for number in range(200):
        walked.write(f"/etc/{number}", b"")
    found = {seen.path for seen in walked.walk.first()}
    walked.write(ADAM, b"lr = 0\n")
    soon = {*walked.turn(), *walked.turn()}
    assert ADAM in soon
    for _ in range(50):
        soon |= set(walked.turn())
    found |= soon
    assert {f"/etc/{n}" for n in range(200)} <= found


def test_a_turn_is_short_and_the_next_one_waits_its_time(walked: Walked) -> None:
    list(walked.walk.first())
    walked.cache(500)
    for _ in range(5):
        began = walked.spent
        at = walked.walk.next
        walked.turn()
        assert walked.spent - began < 0.05
        assert walked.walk.next - at >= 9


def test_after_events_were_lost_it_walks_without_a_pause(walked: Walked) -> None:
    list(walked.walk.first())
    walked.cache(500)
    walked.write(ADAM, b"lr = 0\n")
    walked.walk.begin()
    at = walked.walk.next
    paths = []
    while walked.walk.next == at:
        paths += [seen.path for seen in walked.walk.step(at, quiet=False, blind=False)]
    assert ADAM in paths
    assert len(paths) == 501


def test_what_is_found_was_not_there_when_an_earlier_walk_began(walked: Walked) -> None:
    list(walked.walk.first())
    assert walked.walk.since == START, "what the second walk finds may have been young in the first"
    for _ in range(5):
        walked.turn()
    done = walked.wall()
    walked.cache(300)
    walked.write(ADAM, b"lr = 0\n")
    by_path: dict[str | None, datetime | None] = {}
    while len(by_path) < 301:
        found = walked.walk.step(walked.walk.next, quiet=True, blind=False)
        by_path |= {seen.path: seen.not_before for seen in found}
        walked.ahead += 10
    assert all(since is not None and since <= done for since in by_path.values())
    early = by_path[ADAM]
    assert early is not None
    assert early >= done - timedelta(seconds=40), "or more would be tainted than need be"


def test_it_is_said_where_a_walk_takes_long(
    walked: Walked, monkeypatch: pytest.MonkeyPatch
) -> None:
    walked.write(ADAM, b"lr = 0\n")
    list(walked.walk.first())
    for _ in range(3):
        walked.turn()
    said = [walked.walk.slow]
    walked.cache(500)
    for _ in range(5):
        walked.turn()
        walked.spent += 300
    said.append(walked.walk.slow)
    assert said[0] is None
    assert "after up to 40 minutes" in str(said[1])


def test_what_is_too_deep_to_be_looked_at_is_said_once(
    walked: Walked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "MAX_DEPTH", 3)
    (walked.folder / "upper/root/a/b/c/d/e/f").mkdir(parents=True)
    said = [*walked.walk.first()]
    assert [seen.finding for seen in said] == ["watch.blind"]
    for _ in range(5):
        assert walked.turn() == []


def test_closing_it_leaves_nothing_open(walked: Walked) -> None:
    list(walked.walk.first())
    walked.cache(500)
    before = open_files()
    for _ in range(3):
        walked.turn()
    assert open_files() > before
    walked.walk.close()
    assert open_files() == before
