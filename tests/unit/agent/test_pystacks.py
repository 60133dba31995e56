"""What py-spy says, which nobody has to believe: read within bounds, or refused in words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trainseal.agent.pystacks import StackFormatError, fitted, read_stacks
from trainseal.api.stackdump import (
    MAX_BYTES,
    MAX_FRAMES,
    MAX_THREADS,
    Frame,
    ProcessStacks,
    ThreadStack,
)

INNER = 7


def call(name: str = "step", line: Any = 12, **changed: Any) -> dict[str, Any]:
    return {
        "name": name,
        "filename": "/workspace/train.py",
        "module": None,
        "short_filename": "train.py",
        "line": line,
        "locals": None,
        "is_entry": False,
    } | changed


def thread(number: Any = INNER, name: str | None = "MainThread", *calls: Any) -> dict[str, Any]:
    return {
        "pid": 4711,
        "thread_id": 140508955607104,
        "thread_name": name,
        "os_thread_id": number,
        "active": False,
        "owns_gil": False,
        "frames": list(calls) or [call()],
        "process_info": None,
    }


def read(*threads: Any) -> list[ThreadStack]:
    return list(read_stacks(json.dumps(list(threads)).encode(), INNER).threads)


def test_a_thread_has_its_name_and_its_calls_innermost_first() -> None:
    (found,) = read(thread(INNER, "MainThread", call("wait", 3), call("<module>", 40)))
    assert found.wire() == {
        "name": "MainThread",
        "main": True,
        "frames": [
            {"name": "wait", "file": "/workspace/train.py", "line": 3},
            {"name": "<module>", "file": "/workspace/train.py", "line": 40},
        ],
    }


def test_the_main_thread_is_the_one_with_the_processs_number_and_comes_first() -> None:
    found = read(thread(9, "pin"), thread(8, "MainThread"), thread(INNER, "renamed"))
    assert [(t.name, t.main) for t in found] == [
        ("renamed", True),
        ("MainThread", None),
        ("pin", None),
    ]


def test_where_the_kernels_number_is_not_known_the_main_thread_is_known_by_its_name() -> None:
    found = read(thread(None, "pin"), thread(None, "MainThread"))
    assert [(t.name, t.main) for t in found] == [("MainThread", True), ("pin", None)]


def test_a_local_variable_is_not_taken_over() -> None:
    held = call(locals=[{"name": "token", "repr": "hunter2"}])
    (found,) = read(thread(INNER, "MainThread", held))
    assert "hunter2" not in found.model_dump_json()


@pytest.mark.parametrize("line", [0, -1, 2**31, "3", None, True, 1.5])
def test_a_line_that_is_none_is_left_out(line: Any) -> None:
    (found,) = read(thread(INNER, "MainThread", call("step", line)))
    assert found.frames == [Frame(name="step", file="/workspace/train.py")]


def test_names_and_files_are_cut_at_their_bounds() -> None:
    long = call("f" * 5000, filename="/" + "x" * 5000)
    (found,) = read(thread(INNER, "n" * 5000, long))
    (frame,) = found.frames or []
    assert (len(found.name or ""), len(frame.name), len(frame.file)) == (256, 256, 1024)


def test_calls_and_threads_beyond_the_bounds_are_counted() -> None:
    deep = thread(INNER, "MainThread", *(call(str(n)) for n in range(MAX_FRAMES + 3)))
    stacks = read_stacks(
        json.dumps([*(thread(100 + n, None) for n in range(MAX_THREADS)), deep]).encode(), INNER
    )
    assert (len(stacks.threads), stacks.omitted) == (MAX_THREADS, 1)
    main = stacks.threads[0]
    assert (main.main, len(main.frames or ()), main.frames_omitted) == (True, MAX_FRAMES, 3)
    assert (main.frames or [])[0].name == "0"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"a": 1}', "no list"),
        (b"[]", "no Python thread"),
        (b'[1, "x", null]', "no Python thread"),
    ],
)
def test_what_is_no_answer_of_py_spys_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(StackFormatError, match=words):
        read_stacks(data, INNER)


@pytest.mark.parametrize("frames", [None, 3, "x", {}, [None, 3], [{"name": 3, "filename": None}]])
def test_a_thread_without_calls_that_can_be_read_is_still_a_thread(frames: Any) -> None:
    (found,) = read(thread() | {"frames": frames, "thread_name": 3})
    assert found.main
    assert found.name is None
    assert {(f.name, f.file) for f in found.frames or ()} <= {("?", "?")}


# What has room --------------------------------------------------------------------------------


def process(pid: int, threads: int, calls: int = 4) -> ProcessStacks:
    frames = [Frame(name="f" * 90, file="/w/train.py", line=n + 1) for n in range(calls)]
    return ProcessStacks(
        pid=pid,
        parent=1,
        container="trainer",
        executable="/usr/bin/python3",
        threads=[ThreadStack(main=not n or None, frames=frames) for n in range(threads)],
    )


def size(processes: list[ProcessStacks]) -> int:
    return len(json.dumps([p.wire() for p in processes], separators=(",", ":")))


def test_what_has_room_is_left_as_it_is() -> None:
    processes = [process(1, 3), process(2, 3)]
    assert fitted(processes) == processes


def test_each_process_keeps_its_main_thread_before_any_keeps_another() -> None:
    processes = [process(pid, 128, 20) for pid in range(1, 5)]
    found = fitted(processes)
    assert size(found) <= MAX_BYTES
    assert all((p.threads or [])[0].main for p in found)
    for before, after in zip(processes, found, strict=True):
        kept = len(after.threads or ())
        assert kept + (after.threads_omitted or 0) == len(before.threads or ())
    assert [len(p.threads or ()) for p in found][-1] == 1


def test_threads_that_were_left_out_before_stay_counted() -> None:
    many = process(1, 128, 20).model_copy(update={"threads_omitted": 9})
    (found,) = fitted([many], 100_000)
    assert len(found.threads or ()) + (found.threads_omitted or 0) == 128 + 9


def test_a_process_without_room_for_any_thread_says_so() -> None:
    first, second = fitted([process(1, 1, 100), process(2, 1, 100)], 20_000)
    assert len(first.threads or ()) == 1
    assert second.threads is None
    assert (second.problem or "").startswith("no Python stacks: ")


def test_a_process_without_stacks_keeps_its_reason() -> None:
    ended = process(1, 0).model_copy(update={"threads": None, "problem": "no Python stacks: ended"})
    assert fitted([ended, process(2, 1)])[0] == ended
