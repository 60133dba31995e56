"""What py-spy says of a process, read within bounds, and what of it fits into a pod's dump. Pure.

The text comes out of a process that may lie in every word of it, by a parser that it may have
misled: nothing is taken over but what has its form and its bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import orjson
from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_objects
from trainseal.api.stackdump import (
    MAX_BYTES,
    MAX_FRAMES,
    MAX_THREADS,
    NO_STACKS,
    Frame,
    ProcessStacks,
    ThreadStack,
)

_NAME, _FILE = 256, 1024
_MOST = 2**31 - 1
_MAIN = "MainThread"


class StackFormatError(ValueError):
    """It is not what py-spy writes; the words say what was found."""


@dataclass(frozen=True, slots=True)
class Stacks:
    """The threads of one process, the main one first, and how many more there were."""

    threads: tuple[ThreadStack, ...]
    omitted: int


def read_stacks(data: bytes, inner: int) -> Stacks:
    """The threads in the JSON of ``py-spy dump``. Raises StackFormatError.

    ``inner`` is the process's number in its own PID namespace, by which Python knows its threads.
    """
    try:
        value: JsonValue = orjson.loads(data)
    except ValueError as error:
        raise StackFormatError(f"py-spy's answer is no JSON: {error}") from None
    if not isinstance(value, list):
        raise StackFormatError("py-spy's answer is no list of threads")
    found = json_objects(value)
    if not found:
        raise StackFormatError("found no Python thread in it")
    # py-spy tells the youngest thread first.
    threads = sorted((_thread(item, inner) for item in reversed(found)), key=lambda t: not t.main)
    return Stacks(tuple(threads[:MAX_THREADS]), max(0, len(threads) - MAX_THREADS))


def fitted(processes: Sequence[ProcessStacks], most: int = MAX_BYTES) -> list[ProcessStacks]:
    """The processes with as many of their threads as have room together, main threads first.

    A process whose first thread has no room says so.
    """
    left = most - sum(_size(p.model_copy(update={"threads": None})) for p in processes)
    kept: list[list[ThreadStack]] = []
    for process in processes:
        first = list(process.threads or ())[:1]
        left, kept_now = _within(left, first)
        kept.append(kept_now)
    for process, threads in zip(processes, kept, strict=True):
        if threads:
            left, more = _within(left, (process.threads or [])[1:])
            threads += more
    return [_with(p, threads) for p, threads in zip(processes, kept, strict=True)]


def _within(left: int, threads: Iterable[ThreadStack]) -> tuple[int, list[ThreadStack]]:
    kept = []
    for thread in threads:
        size = _size(thread) + 1
        if size > left:
            break
        left -= size
        kept.append(thread)
    return left, kept


def _with(process: ProcessStacks, threads: list[ThreadStack]) -> ProcessStacks:
    had = len(process.threads or ())
    if had == len(threads):
        return process
    if not threads:
        words = f"{NO_STACKS}: those of the pod's other processes took all the room there is"
        return process.model_copy(update={"threads": None, "problem": words})
    omitted = (process.threads_omitted or 0) + had - len(threads)
    return process.model_copy(update={"threads": threads, "threads_omitted": omitted})


def _size(model: ThreadStack | ProcessStacks) -> int:
    return len(orjson.dumps(model.wire()))


def _thread(item: JsonObject, inner: int) -> ThreadStack:
    name = item.get("thread_name")
    calls = json_objects(item.get("frames"))
    frames = [_frame(call) for call in calls[:MAX_FRAMES]]
    number = item.get("os_thread_id")
    # Before Python 3.11 the kernel's number of a thread is not known, and its name has to do.
    main = number == inner if isinstance(number, int) else name == _MAIN
    return ThreadStack(
        name=name[:_NAME] if isinstance(name, str) and name else None,
        main=main or None,
        frames=frames or None,
        frames_omitted=len(calls) - len(frames) or None,
    )


def _frame(call: JsonObject) -> Frame:
    line = call.get("line")
    known = isinstance(line, int) and not isinstance(line, bool) and 0 < line <= _MOST
    return Frame(
        name=_text(call.get("name"), _NAME),
        file=_text(call.get("filename"), _FILE),
        line=line if known and isinstance(line, int) else None,
    )


def _text(value: JsonValue, most: int) -> str:
    return value[:most] if isinstance(value, str) else "?"
