"""When an answer is what a page shows."""

from __future__ import annotations

import pytest

from tests.guides.shown import filled, stand_ins

DIGEST = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (
            "signed with sha256:16bc…; 1 signature in all",
            f"signed with {DIGEST}; 1 signature in all\n",
        ),
        ("two\n  lines of it", "before two lines\nof it, and after"),
        ("code 6 files, 18,489 bytes", "code 6 files, 512 bytes"),
        ("started    2026-11-23T20:17:35Z", "started    2027-01-01T00:00:00Z"),
        ("Running  2/2  27s", "Running   2/2   3m2s"),
        ("first\n…\nlast", "first\nmiddle\nlast"),
        ("path …/adam.py", "path /usr/lib/adam.py"),
        ("write repository@sha256:…, or", "write repository@sha256:…, or"),
        ("loss 3.8211 tokens/s 16465", "loss 12.1 tokens/s 8"),
        ("on node-7", "on worker.example"),
        ("Running: 2/2 workers ready", "Running: 1/2 workers ready"),
        ("NAME  AGE\nb  4s", "NAME   AGE\na      1s\nb      2s\n"),
        ("job.batch/a\npod/c", "job.batch/a\njob.batch/b\npod/c\n"),
        ("", "anything"),
    ],
)
def test_what_differs_each_time_may_differ(shown: str, said: str) -> None:
    assert stand_ins(shown, said, {}) is not None


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ("1 signature in all", "2 signatures in all"),
        ("Running  2/2", "Running  1/2"),
        ("Running: 2/2 workers ready", "Running: 1/3 workers ready"),
        ("signed with sha256:16bc…", "signed with nothing"),
        ("first\nlast", "first\nmiddle\nlast"),
        ("last\n…\nfirst", "first\nlast"),
        ("sha256:aaaa… then sha256:aaaa…", f"{DIGEST} then {OTHER}"),
        ("sha256:aaaa… then sha256:bbbb…", f"{DIGEST} then {DIGEST}"),
        ("PHASE\nRunning", "PHASE\nFailed"),
    ],
)
def test_words_amounts_and_their_order_may_not(shown: str, said: str) -> None:
    assert stand_ins(shown, said, {}) is None


def test_a_stand_in_is_what_the_answer_said_in_later_commands() -> None:
    shown = "char-lm-worker-0-45nv7  char-lm-0880cd2b-5e62e3b3  sha256:d150…"
    said = f"char-lm-worker-0-zzzz2  char-lm-11111111-22222222  {DIGEST}"
    known = stand_ins(shown, said, {})
    assert known == {
        "-45nv7": "-zzzz2",
        "-0880cd2b-5e62e3b3": "-11111111-22222222",
        "sha256:d150…": DIGEST,
    }
    assert filled("logs char-lm-worker-0-45nv7 x@sha256:d150…", known) == (
        f"logs char-lm-worker-0-zzzz2 x@{DIGEST}"
    )


def test_what_is_known_must_stay_the_same() -> None:
    known = {"sha256:d150…": DIGEST}
    assert stand_ins("sha256:d150…", OTHER, known) is None
    assert stand_ins("sha256:d150…", DIGEST, known) == {}
