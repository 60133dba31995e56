"""StackDump: what the Python processes of one pod were doing when somebody asked.

The agent of the pod's node writes it, one a pod; the next request's takes its place. It holds names
of functions, files and threads, and line numbers: no arguments, no values. The processes themselves
are where it was read: it helps who looks for a fault, and is no evidence.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from trainseal.api.driftreport import PodIdentity
from trainseal.api.model import (
    MAX_COUNT_32,
    Count32,
    DnsSubdomain,
    Model,
    Resource,
    ShortText,
    Text,
)

PLURAL = "stackdumps"

MAX_PROCESSES = 32
MAX_THREADS = 128
MAX_FRAMES = 128
#: Of a dump's processes as JSON. Who builds it keeps this; the fields' own bounds add up to more.
MAX_BYTES = 256 * 1024
#: How each problem begins.
NO_STACKS = "no Python stacks"


class Frame(Model):
    """A call that has not returned."""

    name: ShortText
    """Name of the function; with its class, where the interpreter says it."""
    file: Text
    """Where its code is, as the container sees it."""
    line: Annotated[int, Field(ge=1, le=MAX_COUNT_32)] | None = None
    """Which line runs; absent where that is not known."""


class ThreadStack(Model):
    """What one thread was doing."""

    name: ShortText | None = None
    """As the program calls it, which Python threads need not be."""
    main: bool | None = None
    """It is the process's first thread."""
    frames: list[Frame] | None = Field(default=None, max_length=MAX_FRAMES)
    """The innermost call first."""
    frames_omitted: Count32 | None = None
    """Outermost calls beyond the bounds."""


class ProcessStacks(Model):
    """The threads of one Python process."""

    pid: int = Field(ge=0, le=2**22)
    """In the node's own PID namespace."""
    parent: int = Field(ge=0, le=2**22)
    """Its parent's."""
    container: ShortText
    """The container it runs in."""
    executable: Text
    """`/proc/PID/exe`, as the container sees it."""
    threads: list[ThreadStack] | None = Field(default=None, max_length=MAX_THREADS)
    """The main thread first."""
    threads_omitted: Count32 | None = None
    """Threads beyond the bounds."""
    problem: Text | None = None
    """Why there are no stacks of it; begins with `no Python stacks`."""


class StackDumpSpec(Model):
    """What the dump is of."""

    sealed_run: DnsSubdomain
    """Name of the seal."""
    node: DnsSubdomain
    """The agent's own node."""
    pod: PodIdentity
    """The pod that was looked at."""


class StackDumpStatus(Model):
    """What was read, the last time somebody asked."""

    request: DnsSubdomain
    """Name of the StackRequest that this answers."""
    taken_at: datetime
    """When reading began."""
    processes: list[ProcessStacks] | None = Field(default=None, max_length=MAX_PROCESSES)
    """The pod's Python processes, the oldest first."""
    processes_omitted: Count32 | None = None
    """Python processes beyond the bounds."""
    message: Text | None = None
    """Why there are none; begins with `no Python stacks`."""


class StackDump(Resource):
    """A StackDump object."""

    spec: StackDumpSpec
    status: StackDumpStatus | None = None


def name_of(pod: str, uid: str) -> str:
    """The dump's name: the pod's, cut where it is too long, and eight characters of its UID."""
    return f"{pod[:244].rstrip('-.')}-{uid[:8]}"
