"""Benches run one by one: what fails, hangs or is too small is said, and costs no other figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.figures import spread
from bench.jobs import CONCURRENCIES, cold_count
from bench.load import ApiClient
from bench.page import replaced
from bench.part import BENCHES
from bench.parts import Outcome, run_part
from bench.processes import Measured
from bench.section import Section, paragraphs, table
from tests.stage.release import CHART
from tests.stage.waiting import eventually

#: Seconds; see `begun`.
LIMIT = 77.0
PAGE = CHART.parents[1] / "docs" / "reference" / "figures.md"
GOOD = (
    "import json, sys; json.dump({'markdown': 'words', 'values': [1.5]}, open(sys.argv[-1], 'w'))"
)


def run(program: str, limit: float = 30.0, grace: float = 30.0) -> tuple[Outcome, list[str]]:
    """The outcome, and a word for each time that was cleared up."""
    cleared: list[str] = []
    outcome = run_part(
        "tried", [sys.executable, "-c", program], limit, lambda: cleared.append("x"), grace
    )
    return outcome, cleared


def test_what_a_bench_found_comes_back() -> None:
    outcome, cleared = run(GOOD)
    assert outcome.section == Section("words", [1.5])
    assert len(cleared) == 1  # before it begins


def test_a_bench_that_fails_is_an_outcome_and_no_error() -> None:
    outcome, _ = run("raise SystemExit(3)")
    assert outcome.section is None
    assert "ended with 3" in outcome.failure


def test_a_bench_that_cannot_begin_is_an_outcome_and_no_error() -> None:
    def clear() -> None:
        raise RuntimeError("processes do not die")

    outcome = run_part("tried", [sys.executable, "-c", GOOD], 30.0, clear)
    assert outcome.failure == "RuntimeError: processes do not die"


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file; once it is there the limit is over, however long the bench took to begin."""
    file = tmp_path / "begun"

    class Timed(subprocess.Popen[bytes]):
        def wait(self, timeout: float | None = None) -> int:
            if timeout != LIMIT:
                return super().wait(timeout)
            eventually(file.exists, "the bench has begun")
            raise subprocess.TimeoutExpired(self.args, LIMIT)

    monkeypatch.setattr("bench.parts.subprocess.Popen", Timed)
    return file


def test_a_bench_without_end_is_asked_to_end_and_what_it_left_is_removed(
    tmp_path: Path, begun: Path
) -> None:
    asked = tmp_path / "asked"
    program = (
        "import pathlib, signal, time\n"
        # As bench.part does: whoever runs the tests in the background ignores it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "try:\n"
        f"    pathlib.Path({str(begun)!r}).touch()\n"
        "    time.sleep(60)\n"
        f"except KeyboardInterrupt:\n    pathlib.Path({str(asked)!r}).touch()\n"
    )
    outcome, cleared = run(program, limit=LIMIT)
    assert outcome.failure == "no end within 77 s"
    assert asked.exists()
    assert len(cleared) == 2


def test_a_bench_that_does_not_obey_is_killed_with_all_that_it_started(
    tmp_path: Path, begun: Path
) -> None:
    number = tmp_path / "child"
    program = (
        "import pathlib, signal, subprocess, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"pathlib.Path({str(number)!r}).write_text(str(child.pid))\n"
        f"pathlib.Path({str(begun)!r}).touch()\n"
        "time.sleep(60)\n"
    )
    outcome, _ = run(program, limit=LIMIT, grace=0.2)
    assert outcome.section is None
    stat = Path(f"/proc/{number.read_text()}/stat")

    def ended() -> bool:
        with suppress(OSError):
            return stat.read_text().rpartition(")")[2].split()[0] == "Z"
        return True

    eventually(ended, "what it started has ended")  # a process takes a moment to die


@pytest.fixture
def all_but_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is measured; the second bench fails."""

    def run_nothing(name: str, *_: object) -> Outcome:
        if name == "jobs":
            return Outcome(name, 2.0, None, "no end within 1 s")
        return Outcome(name, 1.0, Section(f"figures of {name}", [name]))

    monkeypatch.setattr("bench.__main__.run_part", run_nothing)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # pytest's own stay


@pytest.mark.usefixtures("all_but_jobs")
def test_where_one_bench_fails_the_others_stand_on_the_page_and_its_own_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, values = tmp_path / "page.md", tmp_path / "values.json"
    old = replaced(PAGE.read_text(), "jobs", "old figures of jobs")
    page.write_text(old)
    assert main(["--page", str(page), "--json", str(values)]) == 1
    written = page.read_text()
    for name in BENCHES:
        assert f"{'old ' if name == 'jobs' else ''}figures of {name}" in written
    assert written.count("Measured ") == len(BENCHES) - 1
    kept = json.loads(values.read_text())
    assert kept["benches"]["pods"] == ["pods"]
    assert kept["benches"]["jobs"] == {"failure": "no end within 1 s"}
    printed = capsys.readouterr().out
    assert f" {len(os.sched_getaffinity(0))} cores (" in printed
    assert "| jobs | 2 s | no end within 1 s |" in printed
    assert "| in all | " in printed


@pytest.mark.usefixtures("all_but_jobs")
def test_the_page_has_a_place_for_every_bench(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    main(["--page", str(page)])
    assert page.read_text().count("<!-- make bench: ") == len(BENCHES)


@pytest.mark.usefixtures("all_but_jobs")
def test_a_page_without_a_place_for_a_bench_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text().replace("<!-- make bench: watch -->", ""))
    with pytest.raises(SystemExit):
        main(["--page", str(page)])
    said = capsys.readouterr()
    assert "found no part watch" in said.err
    assert "pods" not in said.out


@pytest.mark.parametrize(
    "words", [["--count", "99"], ["--rounds", "0"], ["pots"], ["watch", "--quick", "--page", "x"]]
)
def test_what_would_give_no_sound_figures_is_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert "found " in capsys.readouterr().err


@pytest.mark.parametrize("concurrency", CONCURRENCIES)
@pytest.mark.parametrize("count", [100, 1000, 5000])
def test_cold_jobs_are_enough_to_have_so_many_under_way(count: int, concurrency: int) -> None:
    assert cold_count(count, concurrency) >= 5 * concurrency


async def test_fewer_requests_than_are_to_be_under_way_at_once_are_no_load() -> None:
    client = ApiClient.__new__(ApiClient)  # nothing is sent
    with pytest.raises(ValueError, match="found 5 requests, expected at least 20"):
        await client.load("/", lambda _: b"", {}, count=5, concurrency=20)


def test_a_process_that_ended_is_said_with_its_last_words(tmp_path: Path) -> None:
    program = "print('no API server')"
    with Measured([sys.executable, "-c", program], tmp_path / "log") as process:
        with suppress(RuntimeError):
            while True:
                process.alive()
        for measured in (process.cpu, process.memory):
            with pytest.raises(RuntimeError, match="no API server"):
                measured()


def test_a_table_leaves_out_what_was_not_measured() -> None:
    rows = [["1", ""], ["20", spread([3.0, 1.0, 2.0], 0)]]
    assert paragraphs("words\n", table(["n", "ms"], rows)) == (
        "words\n\n| n | ms |\n|---|---|\n| 1 | |\n| 20 | 2 (1 to 3) |"
    )
