"""The stacks of a run as people and programs read them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence

from pydantic import JsonValue
from rich.console import Console, Group, RenderableType
from rich.text import Text

from trainseal.api.model import JsonObject
from trainseal.cli import stackgroups
from trainseal.cli.stackgroups import Thread, grouped, ranges
from trainseal.cli.stacks import Pod, RunStacks
from trainseal.cli.terminaltext import plain

#: Names of threads that are told of one group.
_NAMES = 4


def progress(answered: int, wanted: int) -> None:
    """On stderr, for who waits at a terminal."""
    if sys.stderr.isatty():
        end = "\n" if answered == wanted else "\r"
        print(f"{answered} of {wanted} ranks answered", end=end, file=sys.stderr, flush=True)  # noqa: T201


def print_json(view: RunStacks) -> None:
    """For programs, on stdout."""
    ranks: list[JsonValue] = [{**_pod(pod), **status.wire()} for pod, status in view.answered]
    value: JsonObject = {
        "namespace": view.namespace,
        "job": view.job,
        "sealedRun": view.seal,
        "request": view.request.metadata.name,
        "user": view.request.spec.user,
        "ranks": ranks,
        "groups": [_group(g) for g in _groups(view)],
        "unanswered": [{**_pod(p), "why": view.why} for p in view.unanswered],
        "notRunning": [{**_pod(p), "phase": p.phase} for p in view.others],
    }
    print(json.dumps(value, indent=2, ensure_ascii=False))  # noqa: T201


def print_text(view: RunStacks) -> None:
    """For people, on stdout."""
    Console(highlight=False, soft_wrap=True).print(render(view))


def render(view: RunStacks) -> RenderableType:
    """The whole view: head, main threads, other threads, what there is not."""
    wanted = len(view.answered) + len(view.unanswered)
    head = Text(f"{view.namespace}/{view.job} ", "bold")
    head.append(f"{len(view.answered)} of {wanted} ranks answered", "")
    made = view.request.metadata.creation_timestamp
    when = f" at {made:%Y-%m-%dT%H:%M:%SZ}" if made else ""
    head.append(f", asked for by {plain(view.request.spec.user)}{when}", "dim")
    parts: list[RenderableType] = [head]
    groups = _groups(view)
    for main, title in ((True, "main threads"), (False, "other threads")):
        some = [g for g in groups if g.main is main]
        if some:
            different = f"{len(some)} different" if len(some) > 1 else "all alike"
            parts.append(Text(f"{title}: {different}", "bold"))
        for group in some:
            parts += _lines(group, view)
    return Group(*parts, *_missing(view))


def _groups(view: RunStacks) -> list[stackgroups.Group]:
    return grouped((pod.rank, status.processes or ()) for pod, status in view.answered)


def _lines(group: stackgroups.Group, view: RunStacks) -> Iterator[Text]:
    everybody = len({pod.rank for pod, _ in view.answered})
    # What not all have is what one looks for.
    color = "cyan" if len(group.ranks) == everybody else "bold yellow"
    word = "rank" if len(group.ranks) == 1 else "ranks"
    head = Text(f"  {word} {ranges(group.ranks)}", color)
    head.append(f"  {_threads(group.threads, len(group.ranks))}", "dim")
    yield head
    for frame in group.frames:
        line = Text(f"      {plain(frame.name)}")
        line.append(f"  {plain(frame.file)}" + (f":{frame.line}" if frame.line else ""), "dim")
        yield line
    if group.omitted:
        yield Text(f"      … and {group.omitted} more calls further out", "dim")
    if not group.frames:
        yield Text("      no call of Python", "dim")


def _threads(threads: Sequence[Thread], ranks: int) -> str:
    names = sorted({t.name for t in threads if t.name})
    told = ", ".join(plain(name) for name in names[:_NAMES])
    more = f" and {len(names) - _NAMES} more names" if len(names) > _NAMES else ""
    count = f"{len(threads)} threads" if len(threads) > ranks else ""
    return ": ".join(part for part in (count, told + more) if part)


def _missing(view: RunStacks) -> Iterator[Text]:
    for pod, status in view.answered:
        if status.message:
            yield Text(f"rank {pod.rank} ({pod.name}): {plain(status.message)}", "yellow")
        for process in status.processes or ():
            where = f"rank {pod.rank}, process {process.pid} ({plain(process.executable)})"
            if process.problem:
                yield Text(f"{where}: {plain(process.problem)}", "yellow")
            if process.threads_omitted:
                yield Text(f"{where}: {process.threads_omitted} more threads are not shown", "dim")
        if status.processes_omitted:
            count = status.processes_omitted
            yield Text(f"rank {pod.rank}: {count} more Python processes are not shown", "dim")
    for pod in view.unanswered:
        yield Text(
            f"rank {pod.rank} ({pod.name} on {pod.node}): {view.why}; expected one of its node's "
            "agent: look whether that runs (`kubectl get pods -A -o wide -l "
            "app.kubernetes.io/component=agent`), or ask again in a minute",
            "red",
        )
    for pod in view.others:
        yield Text(f"rank {pod.rank} ({pod.name}) does not run: {pod.phase}", "dim")


def _group(group: stackgroups.Group) -> JsonObject:
    threads: list[JsonValue] = [
        {"rank": str(t.rank), "pid": t.pid, "name": t.name} for t in group.threads
    ]
    return {
        "main": group.main,
        "ranks": [str(rank) for rank in group.ranks],
        "threads": threads,
        "frames": [f.wire() for f in group.frames],
        "framesOmitted": group.omitted,
    }


def _pod(pod: Pod) -> JsonObject:
    return {"rank": str(pod.rank), "pod": pod.name, "node": pod.node}
