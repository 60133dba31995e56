"""Which files of a checkpoints mount are complete, and which manifests come of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainseal.agent.checkpointbook import (
    BURST,
    CLOCKS_APART,
    GATHER,
    LONGEST_GATHER,
    PATIENCE,
    QUIET,
    SUSPECT_QUIET,
    UNLISTED_PACE,
    Book,
)
from trainseal.agent.checkpointvalues import Batch, Known, Replaced, Stamp, Written
from trainseal.api.checkpoint import MAX_FILES, Writer
from trainseal.provenance.fileforms import Judged

STARTED = 1_000 * 10**9
SECOND = 10**9
TENSORS = Judged("safetensors")


@dataclass
class Mount:
    """A mount in memory, and a pod that is looked at as the agent does: events, walks, hashes.

    ``now`` is both clocks. A file's content is its digest.
    """

    known: dict[str, Known] = field(default_factory=dict)
    now: float = 2_000.0
    files: dict[str, tuple[Stamp, str]] = field(default_factory=dict)
    inodes: Iterator[int] = field(default_factory=lambda: iter(range(1, 10**6)))
    replaced: list[Replaced] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    hashed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.book = Book(self.known, STARTED)

    @property
    def clock(self) -> int:
        return int(self.now * SECOND)

    def change(self, path: str, content: str, *, at: int | None = None) -> Stamp:
        """Somebody writes, and no event tells."""
        inode = self.files[path][0].inode if path in self.files else next(self.inodes)
        stamp = Stamp(1, inode, len(content), self.clock if at is None else at)
        self.files[path] = stamp, content
        return stamp

    def write(self, path: str, content: str = "x", writer: Writer = "Trainer") -> None:
        """Somebody in the pod writes and closes."""
        stamp = self.change(path, content)
        self.book.wrote(Written(stamp.key, path, writer))
        self.book.seen(path, stamp, self.now)

    def walk(self) -> None:
        self.book.begin_walk()
        for path, (stamp, _) in self.files.items():
            self.book.seen(path, stamp, self.now)
        self.book.end_walk(whole=True)

    def look(self, *, ending: bool = False) -> None:
        """One turn, with all hashing that is due."""
        for path, stamp in self.book.due(self.now, ending=ending):
            there = self.files.get(path)
            if there is None:
                self.book.vanished(path)
                continue
            if there[0] != stamp:
                self.book.seen(path, there[0], self.now)
                continue
            self.hashed.append(path)
            found = self.book.hashed(path, stamp, there[1], self.now, TENSORS)
            self.replaced += [found] if found is not None else []
        self.batches += self.book.batches(self.now, ending=ending)

    def after(self, seconds: float) -> None:
        """Time passes, with a turn each second."""
        end = self.now + seconds
        while self.now < end:
            self.now += 1
            self.look()

    @property
    def told(self) -> list[tuple[str, str | None, Writer]]:
        return [(f.path, f.digest, f.writer) for b in self.batches for f in b.files]


@pytest.fixture
def mount() -> Mount:
    """A pod that begins with an empty directory, all of whose writes are told."""
    found = Mount()
    found.walk()
    return found


def test_a_file_that_was_closed_and_left_alone_gets_a_manifest(mount: Mount) -> None:
    mount.write("step-1.pt", "one")
    mount.after(QUIET + GATHER + 1)
    assert mount.told == [("step-1.pt", "one", "Trainer")]


def test_a_file_that_is_still_written_is_not_hashed(mount: Mount) -> None:
    for _ in range(20):
        mount.write("step-1.pt", f"{mount.now}")
        mount.after(1)
    assert mount.hashed == []


def test_files_completed_together_make_one_manifest(mount: Mount) -> None:
    for part in range(5):
        mount.write(f"step-1/rank-{part}.pt")
        mount.after(1)
    mount.after(10)
    (batch,) = mount.batches
    assert len(batch.files) == 5


def test_files_of_different_times_make_different_manifests(mount: Mount) -> None:
    for step in (1, 2):
        mount.write(f"step-{step}.pt")
        mount.after(20)
    assert [len(b.files) for b in mount.batches] == [1, 1]


def test_a_log_beside_a_checkpoint_keeps_its_manifest_from_nobody(mount: Mount) -> None:
    mount.write("step-1.pt", "one")
    for _ in range(int(LONGEST_GATHER) + 5):
        mount.write("metrics.csv", f"{mount.now}")
        mount.after(1)
    assert mount.told == [("step-1.pt", "one", "Trainer")]


def test_ten_thousand_small_files_make_few_manifests(mount: Mount) -> None:
    count = 10_000
    for number in range(count):
        mount.write(f"shards/{number}")
    mount.after(20)
    assert len(mount.told) == count
    assert len(mount.batches) == -(-count // MAX_FILES) == 40


def test_a_file_that_is_written_again_and_again_gets_fewer_and_fewer_manifests(
    mount: Mount,
) -> None:
    for number in range(180):
        mount.write("latest.pt", f"{number}")
        mount.after(20)
    hour = len(mount.told)
    assert 8 <= hour <= 20


def test_the_last_state_of_such_a_file_is_told_at_the_end(mount: Mount) -> None:
    for number in range(10):
        mount.write("latest.pt", f"{number}")
        mount.after(5)
    mount.look(ending=True)
    assert mount.told[-1] == ("latest.pt", "9", "Trainer")


def test_a_file_renamed_into_place_is_told_under_its_name(mount: Mount) -> None:
    mount.write("step-1.pt.tmp", "one")
    mount.files["step-1.pt"] = mount.files.pop("step-1.pt.tmp")
    mount.walk()
    assert mount.book.unlocated
    mount.walk()
    mount.after(20)
    assert mount.told == [("step-1.pt", "one", "Trainer")]


def test_an_event_whose_name_is_gone_waits_for_a_walk(mount: Mount) -> None:
    stamp = mount.change("step-1.pt", "one")
    mount.book.wrote(Written(stamp.key, "step-1.pt.tmp", "Trainer"))
    assert mount.book.unlocated
    mount.walk()
    mount.after(20)
    assert mount.told == [("step-1.pt", "one", "Trainer")]


def test_one_that_nobody_judged_is_read_again_when_its_directory_is_renamed(mount: Mount) -> None:
    """As after the agent was restarted, by what its manifest says."""
    mount.change("a/model", "w")
    known = Known("w", 1, mount.clock // 1000, "m-1", ours=True)
    again = Mount({"a/model": known}, now=mount.now, files=mount.files, inodes=mount.inodes)
    again.walk()
    again.files = {"b/model": again.files["a/model"]}
    again.walk()
    again.after(QUIET + 20)
    assert again.hashed == ["b/model"]
    assert ("b/model", "w", "Trainer") in again.told


def test_a_file_whose_directory_is_renamed_is_told_again_without_being_read(mount: Mount) -> None:
    mount.write("tmp-step-1/model", "one")
    mount.after(20)
    mount.files["step-1/model"] = mount.files.pop("tmp-step-1/model")
    mount.walk()
    mount.after(20)
    assert mount.told == [
        ("tmp-step-1/model", "one", "Trainer"),
        ("step-1/model", "one", "Trainer"),
    ]
    assert mount.hashed == ["tmp-step-1/model"]
    assert mount.batches[-1].removed == ("tmp-step-1/model",)


def test_a_file_that_was_only_opened_for_writing_has_no_second_manifest(mount: Mount) -> None:
    mount.write("step-1.pt", "one")
    mount.after(20)
    stamp = mount.files["step-1.pt"][0]
    mount.book.wrote(Written(stamp.key, "step-1.pt", "Trainer"))
    mount.book.seen("step-1.pt", stamp, mount.now)
    mount.after(20)
    assert len(mount.told) == 1
    # Nor does that event speak for who changes it next.
    mount.change("step-1.pt", "poisoned")
    mount.walk()
    mount.after(SUSPECT_QUIET + 1)
    assert [r.found for r in mount.replaced] == ["poisoned"]


def test_what_a_session_wrote_is_told_as_its_own(mount: Mount) -> None:
    mount.write("step-1.pt", "one", "Session")
    mount.after(20)
    assert mount.told == [("step-1.pt", "one", "Session")]
    assert mount.replaced == []


@pytest.mark.parametrize("writer", ["Session", "Outside"])
def test_whoever_else_overwrites_a_checkpoint_replaces_it(mount: Mount, writer: Writer) -> None:
    mount.write("step-1.pt", "one")
    mount.after(20)
    mount.write("step-1.pt", "poisoned", writer)
    mount.after(30)
    (found,) = mount.replaced
    assert (found.signed, found.found, found.sure) == ("one", "poisoned", True)
    assert mount.told[-1] == ("step-1.pt", "poisoned", writer)


def test_who_overwrote_one_and_was_gone_is_left_for_the_access_records_to_tell(
    mount: Mount,
) -> None:
    mount.write("step-1.pt", "one")
    mount.after(20)
    mount.write("step-1.pt", "two", "Container")
    mount.after(30)
    (found,) = mount.replaced
    assert (found.unseen, found.sure) == (True, False)
    assert mount.told[-1] == ("step-1.pt", "two", "Container")


# From outside ------------------------------------------------------------------------------------


def replaced_from_outside(mount: Mount) -> Stamp:
    """A checkpoint that has a manifest and is changed without an event."""
    mount.write("step-1.pt", "one")
    mount.after(20)
    stamp = mount.change("step-1.pt", "poisoned")
    mount.walk()
    return stamp


def test_a_checkpoint_that_is_changed_from_outside_gets_no_manifest_before_it_is_asked_about(
    mount: Mount,
) -> None:
    stamp = replaced_from_outside(mount)
    mount.after(SUSPECT_QUIET + 1)
    (found,) = mount.replaced
    assert (found.path, found.signed, found.found, found.sure) == (
        "step-1.pt",
        "one",
        "poisoned",
        False,
    )
    mount.after(100)
    assert len(mount.told) == 1
    assert mount.book.unexplained("step-1.pt", stamp, mount.now)
    mount.after(20)
    assert mount.told[1:] == [("step-1.pt", "poisoned", "Outside")]


def test_one_that_another_pods_manifest_explains_gets_none_of_ours(mount: Mount) -> None:
    stamp = replaced_from_outside(mount)
    mount.after(SUSPECT_QUIET + 1)
    theirs = Known("poisoned", stamp.size, stamp.changed // 1000, "other-pod")
    mount.book.explained("step-1.pt", stamp, theirs)
    mount.after(100)
    assert len(mount.told) == 1
    # And is held to that from then on.
    mount.change("step-1.pt", "again")
    mount.walk()
    mount.after(SUSPECT_QUIET + 1)
    assert [r.signed for r in mount.replaced] == ["one", "poisoned"]


def test_one_that_somebody_in_the_pod_still_holds_open_is_asked_about_later(mount: Mount) -> None:
    stamp = replaced_from_outside(mount)
    mount.after(SUSPECT_QUIET + 1)
    mount.book.later("step-1.pt", stamp, mount.now)
    mount.after(SUSPECT_QUIET - 2)
    assert len(mount.replaced) == 1
    # It is closed: the trainer's.
    mount.write("step-1.pt", "longer")
    mount.after(40)
    assert mount.told[1:] == [("step-1.pt", "longer", "Trainer")]


def test_a_checkpoint_that_was_only_touched_is_no_finding(mount: Mount) -> None:
    mount.write("step-1.pt", "one")
    mount.after(20)
    mount.change("step-1.pt", "one")  # chmod, touch, a restored backup
    mount.walk()
    mount.after(2 * SUSPECT_QUIET)
    assert mount.replaced == []
    assert len(mount.told) == 1


def test_files_of_others_on_a_shared_volume_are_left_alone(mount: Mount) -> None:
    for number in range(10):
        mount.change(f"rank-1/step-{number}.pt", f"{number}")
        mount.walk()
        mount.after(30)
    assert (mount.hashed, mount.told, mount.replaced) == ([], [], [])


def test_a_number_that_another_file_was_given_is_no_finding(mount: Mount) -> None:
    mount.write("step-1.pt", "one")
    mount.after(20)
    stamp, _ = mount.files.pop("step-1.pt")
    mount.files["theirs"] = Stamp(1, stamp.inode, 6, mount.clock), "theirs"
    mount.walk()
    mount.after(2 * SUSPECT_QUIET)
    assert mount.replaced == []
    assert len(mount.told) == 1


# What was there before ---------------------------------------------------------------------------


def earlier(digest: str | None = "one", *, ours: bool = False) -> dict[str, Known]:
    """A checkpoint of an earlier run, with its manifest."""
    return {"step-1.pt": Known(digest, 3, 500 * 10**6, "earlier-run", ours)}


def test_what_was_there_before_the_pod_is_not_its_own() -> None:
    mount = Mount()
    mount.change("step-1.pt", "one", at=STARTED - SECOND)
    mount.walk()
    mount.after(100)
    assert (mount.hashed, mount.told) == ([], [])


def test_a_checkpoint_of_an_earlier_run_that_is_as_it_was_is_not_read() -> None:
    mount = Mount(earlier())
    mount.change("step-1.pt", "one", at=500 * SECOND)
    mount.walk()
    mount.after(100)
    assert (mount.hashed, mount.told, mount.replaced) == ([], [], [])


def test_one_that_was_changed_between_two_runs_is_found_soon() -> None:
    mount = Mount(earlier())
    stamp = mount.change("step-1.pt", "bad", at=STARTED - CLOCKS_APART - SECOND)
    mount.walk()
    mount.after(QUIET + 1)
    (found,) = mount.replaced
    assert (found.signed, found.found, found.manifest) == ("one", "bad", "earlier-run")
    assert mount.book.unexplained("step-1.pt", stamp, mount.now)


def test_one_that_another_pod_of_this_run_may_have_written_is_asked_about_for_a_while() -> None:
    mount = Mount(earlier())
    stamp = mount.change("step-1.pt", "new", at=STARTED)
    mount.walk()
    mount.after(SUSPECT_QUIET + 1)
    assert not mount.book.unexplained("step-1.pt", stamp, mount.now)
    mount.after(PATIENCE)
    assert mount.book.unexplained("step-1.pt", stamp, mount.now)


def test_one_that_was_never_read_is_held_to_nothing() -> None:
    mount = Mount(earlier(None))
    mount.change("step-1.pt", "other", at=STARTED - SECOND)
    mount.walk()
    mount.after(1000)
    assert (mount.hashed, mount.replaced) == ([], [])


def test_an_earlier_runs_checkpoint_under_a_new_name_is_not_this_runs() -> None:
    mount = Mount(earlier())
    mount.change("step-1.pt", "one", at=500 * SECOND)
    mount.walk()
    mount.files["best.pt"] = mount.files.pop("step-1.pt")
    mount.walk()
    mount.after(100)
    assert mount.told == []


def test_a_new_name_takes_nothing_off_who_wrote_it() -> None:
    """Also where the agent starts anew in between."""
    known = Known("one", 3, STARTED // 1000 + 1, "before", ours=True, writer="Session")
    mount = Mount({"step-1.pt": known})
    mount.change("step-1.pt", "one", at=STARTED + 1000)
    mount.walk()
    mount.files["best.pt"] = mount.files.pop("step-1.pt")
    mount.walk()
    mount.after(100)
    assert mount.told == [("best.pt", "one", "Session")]


# Times without events ----------------------------------------------------------------------------


def test_what_was_written_before_the_events_is_told_as_unwatched() -> None:
    mount = Mount()
    mount.book.unwatched(STARTED, STARTED + SECOND)
    mount.change("step-1.pt", "one", at=STARTED + SECOND // 2)
    mount.change("old.pt", "old", at=STARTED - 1)
    mount.walk()
    mount.after(20)
    assert mount.told == [("step-1.pt", "one", "Unwatched")]


def test_an_agent_that_starts_anew_makes_no_manifest_twice() -> None:
    mount = Mount({"step-1.pt": Known("one", 3, STARTED // 1000 + 10, "before", ours=True)})
    mount.book.unwatched(STARTED, mount.clock)
    mount.change("step-1.pt", "one", at=STARTED + 10_000)
    mount.change("step-2.pt", "two", at=STARTED + 20_000)
    mount.walk()
    mount.after(20)
    assert mount.told == [("step-2.pt", "two", "Unwatched")]


def test_names_that_went_while_the_agent_was_away_are_told_with_the_next_manifest() -> None:
    mount = Mount({"step-1.pt": Known("one", 3, 0, "before", ours=True)})
    mount.walk()
    mount.write("step-2.pt")
    mount.after(20)
    (batch,) = mount.batches
    assert batch.removed == ("step-1.pt",)


# Ends and bounds ---------------------------------------------------------------------------------


def test_at_the_end_nothing_waits(mount: Mount) -> None:
    mount.write("step-1.pt", "one")
    mount.now += 0.1
    mount.look(ending=True)
    assert mount.told == [("step-1.pt", "one", "Trainer")]


def test_at_the_end_what_was_written_last_is_read_first(mount: Mount) -> None:
    for step in (1, 2, 3):
        mount.write(f"step-{step}.pt")
        mount.now += 0.1
    due = [path for path, _ in mount.book.due(mount.now, ending=True)]
    assert due == ["step-3.pt", "step-2.pt", "step-1.pt"]


def test_what_could_not_be_read_any_more_is_told_without_a_digest(mount: Mount) -> None:
    mount.write("step-1.pt")
    lost = mount.change("step-2.pt", "two")
    mount.book.wrote(Written(lost.key, "", "Trainer"))
    mount.book.give_up(mount.now)
    mount.batches += mount.book.batches(mount.now, ending=True)
    assert mount.told == [("step-1.pt", None, "Trainer")]
    assert mount.batches[0].unlisted == 1
    assert not mount.book.busy


def test_a_name_that_no_manifest_can_hold_is_counted(mount: Mount) -> None:
    for name in ("a" * 600, "line\nfeed", "\udcff.pt"):
        mount.write(name)
    mount.now += UNLISTED_PACE
    mount.after(5)
    assert mount.told == []
    assert [b.unlisted for b in mount.batches] == [3]


def test_a_pod_that_completes_files_without_end_makes_a_manifest_a_minute(mount: Mount) -> None:
    for number in range(2000):
        mount.write(f"{number}")
        mount.after(6)
    minutes = 2000 * 6 / 60
    assert len(mount.batches) <= BURST + minutes + 1
    assert len(mount.told) >= 1900, "they wait for one another"


def test_who_floods_with_what_cannot_be_listed_makes_few_manifests(mount: Mount) -> None:
    for number in range(600):
        mount.write("x" * 600 + str(number))
        mount.after(1)
    assert len(mount.batches) <= 2


def test_a_checkpoint_replaced_by_renaming_every_few_seconds_is_no_finding(mount: Mount) -> None:
    """As trainers keep their latest: written under another name, seen there, then renamed."""
    for number in range(60):
        mount.write("latest.pt.part", f"{number}")
        mount.after(number % 3)
        mount.files["latest.pt"] = mount.files.pop("latest.pt.part")
        if number % 2:
            mount.walk()
        mount.after(5)
        if mount.book.unlocated:
            mount.walk()
    mount.walk()
    mount.after(700)
    assert mount.replaced == []
    assert mount.told[-1] == ("latest.pt", "59", "Trainer")


WRITERS = st.sampled_from(["Trainer", "Session", "Container"])
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from("abc"), WRITERS),
        st.tuples(st.just("outside"), st.sampled_from("abc"), st.none()),
        st.tuples(st.just("walk"), st.none(), st.none()),
        st.tuples(st.just("wait"), st.integers(1, 90), st.none()),
    ),
    max_size=25,
)


@given(ACTS)
def test_no_manifest_says_that_somebody_in_the_pod_wrote_what_came_from_outside(
    acts: list[tuple[str, object, object]],
) -> None:
    mount = Mount()
    mount.walk()
    for number, (act, what, who) in enumerate(acts):
        if act == "write":
            mount.write(str(what), f"in-{number}", who)  # type: ignore[arg-type]
            mount.after(QUIET + 1)  # else the last close speaks for what follows at once
        elif act == "outside":
            mount.change(str(what), f"out-{number}")
        elif act == "walk":
            mount.walk()
        else:
            mount.after(float(str(what)))
    mount.walk()
    mount.after(700)
    assert not [t for t in mount.told if str(t[1]).startswith("out") and t[2] != "Outside"]
