"""Who a process is: itself, its parents, its container, and how it came in. Reads ``/proc``.

A process belongs to a container by its control group; or, where it came from the node with
``setns`` (nsenter), by having the container's mount or PID namespace. Of those, what does not
descend from the container's first process *entered*: its topmost ancestor in the container is the
session's first process.

When a parent ends, Linux gives its children to the PID namespace's first process, so an orphan of
a session looks like a descendant. It still counts as the session's when

- it, or a parent of it, was looked at while the session's process lived (every execution is),
- it is in the session's process session (``setsid``), which runtimes begin for each exec,
- it has a login uid, and the container's first process has none: it came from a login on the node,
- or its control group is not the container's, which it would have inherited.

What is left: a process that leaves its session between two looks, by forking twice and calling
``setsid``, without executing anything, from a session whose first process nobody ever looked at.
A single thread that enters another namespace is not seen either.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from trainseal.agent.observed import Lineage, Process, WatchedContainer
from trainseal.agent.procfiles import (
    ProcFileError,
    Stat,
    containers,
    parse_stat,
    parse_status,
    pod_uid,
    words,
)

K = TypeVar("K")
V = TypeVar("V")

_TICKS = os.sysconf("SC_CLK_TCK")
_DEEPEST = 64
_NO_LOGIN = 0xFFFFFFFF
#: A command line's bytes that are kept; a longer one is cut.
_COMMAND = 64 * 1024
_SMALL = 64 * 1024


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a process sits: what decides whose it is. Namespaces are inode numbers."""

    stat: Stat
    containers: tuple[str, ...]
    pod: str | None
    mount_namespace: int | None
    pid_namespace: int | None
    #: It was ending when it was first read: it has left its groups, and with them what they tell.
    exiting: bool = False

    @property
    def key(self) -> tuple[int, int]:
        """Identifies the process for as long as the node runs."""
        return self.stat.pid, self.stat.ticks


@dataclass(frozen=True, slots=True)
class Member:
    """A process in a container. ``grouped`` says whether its control group is the container's."""

    seat: Seat
    process: Process
    lineage: Lineage
    grouped: bool

    @property
    def pid(self) -> int:
        return self.process.pid


class Processes:
    """The node's processes. Keeps what it read of one until that executes something else.

    May be asked from several threads.
    """

    def __init__(self, proc: Path = Path("/proc"), capacity: int = 8192) -> None:
        self.proc = proc
        self._root = str(proc)
        self._boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        self._capacity = capacity
        self._lock = threading.Lock()
        self._read: OrderedDict[int, tuple[Stat, Process]] = OrderedDict()
        self._seats: OrderedDict[int, Seat] = OrderedDict()
        self._came: OrderedDict[tuple[str, int, int], Process | None] = OrderedDict()
        self._sessions: OrderedDict[tuple[str, int], Process] = OrderedDict()
        self._logins: OrderedDict[tuple[int, int], int | None] = OrderedDict()
        self._node = (self._namespace(1, "mnt"), self._namespace(1, "pid"))

    def read(self, pid: int) -> Process | None:
        """The process, or None once it is gone."""
        stat = self._stat(pid)
        return None if stat is None else self._process(stat)

    def runs(self, pid: int) -> bool:
        """Whether it is there and does not end: one that ends has a number until it is waited for,
        and its namespaces no longer.
        """
        stat = self._stat(pid)
        return stat is not None and not stat.exiting

    def lineage(self, pid: int, container: WatchedContainer) -> Lineage | None:
        """The process and its parents up to where the container begins; None once it is gone.

        For a process outside of the container: its parents, and no session.
        """
        seat = self.seat(pid)
        return None if seat is None else self._lineage(seat, container)

    def parents(self, pid: int, most: int = 8) -> tuple[Process, ...]:
        """The processes above, nearest first, wherever they are."""
        found: list[Process] = []
        stat = self._stat(pid)
        while stat is not None and stat.parent > 0 and len(found) < most:
            stat = self._stat(stat.parent)
            process = None if stat is None else self._process(stat)
            if process is not None:
                found.append(process)
        return tuple(found)

    def above(self, pid: int) -> Lineage | None:
        """A process that belongs to no container, and its parents; None once it is gone."""
        process = self.read(pid)
        return None if process is None else Lineage((process, *self.parents(pid)))

    def members(self, watched: Sequence[WatchedContainer]) -> dict[str, list[Member]]:
        """The processes of each container, by its id: one look at all of ``/proc``."""
        found: dict[str, list[Member]] = {c.container_id: [] for c in watched}
        homes = [(c, self._home(c)) for c in watched]
        for pid in self.pids() if watched else ():
            seat = self.seat(pid, fresh=True)
            if seat is None or seat.exiting or seat.stat.exiting:
                continue
            for container, home in homes:
                if not _in(seat, container, home, self._node):
                    continue
                lineage = self._lineage(seat, container)
                found[container.container_id].append(
                    Member(
                        seat, lineage.chain[0], lineage, container.container_id in seat.containers
                    )
                )
        return found

    def pids(self) -> list[int]:
        """Every process of the node."""
        names = os.listdir(self._root)  # noqa: PTH208 a Path for each costs more than the call
        return [int(name) for name in names if name.isdecimal()]

    def login(self, pid: int) -> int | None:
        """The uid that logged in on the node and of which this process comes; None for none."""
        stat = self._stat(pid)
        if stat is None:
            return None
        key = (pid, stat.ticks)
        if key in self._logins:
            return self._logins.get(key)
        try:
            number = int(self.file(pid, "loginuid", 32))
        except (OSError, ValueError):
            number = _NO_LOGIN
        found = None if number == _NO_LOGIN else number
        self._keep(self._logins, key, found)
        return found

    def file(self, pid: int, name: str, most: int = _SMALL) -> bytes:
        """A file below ``/proc/PID``, at most ``most`` bytes of it. OSError."""
        fd = os.open(f"{self._root}/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Most are small; the kernel gives these files in pieces of a page and more.
            found = os.read(fd, min(most, 32768))
            if len(found) < 3072:
                return found
            parts, left = [found], most - len(found)
            while left > 0 and (part := os.read(fd, min(left, 1024 * 1024))):
                parts.append(part)
                left -= len(part)
            return b"".join(parts)
        finally:
            os.close(fd)

    def link(self, pid: int, name: str) -> str | None:
        """Where a link below ``/proc/PID`` leads, as the process sees it; None where unreadable."""
        try:
            return os.readlink(f"{self._root}/{pid}/{name}")  # noqa: PTH115 text, and often
        except OSError:
            return None

    def seat(self, pid: int, *, fresh: bool = False) -> Seat | None:
        """Where it sits; with ``fresh`` read anew although it executed nothing since."""
        stat = self._stat(pid)
        if stat is None or stat.kernel:
            return None
        known = self._seats.get(pid)
        if known is not None and (
            stat.ended_as(known.stat) or (not fresh and known.stat.same_image(stat))
        ):
            return known if known.stat == stat else replace(known, stat=stat)
        try:
            cgroup = self.file(pid, "cgroup").decode(errors="replace")
        except OSError:
            return None
        seat = Seat(
            stat=stat,
            containers=containers(cgroup),
            pod=pod_uid(cgroup),
            mount_namespace=self._namespace(pid, "mnt"),
            pid_namespace=self._namespace(pid, "pid"),
        )
        if not seat.containers:
            now = self._stat(pid)
            seat = replace(seat, exiting=now is None or now.exiting)
        self._keep(self._seats, pid, seat)
        return seat

    def _lineage(self, seat: Seat, container: WatchedContainer) -> Lineage:
        home = self._home(container)
        name = container.container_id
        seats: list[Seat] = []
        at: Seat | None = seat
        while at is not None and len(seats) < _DEEPEST:
            if _in(at, container, home, self._node):
                seats.append(at)
            elif not (seats and at.exiting):
                break
            at = None if at.stat.pid == container.pid else self.seat(at.stat.parent)
        chain = [self._process(s.stat) for s in seats]
        if not seats:
            return Lineage((self._process(seat.stat), *self.parents(seat.stat.pid)))
        known = [self._known_session(one, name) for one in seats]
        session = next((s for s in known if s is not None), None)
        if session is not None:  # above the last that is of it, the parents may since be others
            last = max(number for number, s in enumerate(known) if s is not None)
            chain = chain[: last + 1]
        else:
            top = seats[-1]
            if top.stat.pid != container.pid and home is not None:
                session = self._entered(top, at, container, home)
            elif (stranger := self._stranger(seats, container.container_id)) is not None:
                session, chain = chain[stranger], chain[: stranger + 1]
        for one in seats[: len(chain)]:
            self._keep(self._came, (name, *one.key), session)
            # Before it has begun one of its own, it is in the runtime's.
            if session is not None and one.stat.pid == session.pid == one.stat.session:
                self._keep(self._sessions, (name, session.pid), session)
        if session is not None:
            session = self._now(session)
            if session.pid not in {p.pid for p in chain}:
                chain.append(session)
        return Lineage(tuple(chain), session)

    def _known_session(self, seat: Seat, name: str) -> Process | None:
        return self._came.get((name, *seat.key)) or self._sessions.get((name, seat.stat.session))

    def _entered(
        self, top: Seat, parent: Seat | None, container: WatchedContainer, home: Seat
    ) -> Process | None:
        """The session that a topmost process is the first of; None where it is just an orphan."""
        key = (container.container_id, *top.key)
        if key in self._came:
            return self._came.get(key)
        if container.container_id in top.containers:
            adopted = (
                parent is not None
                and parent.pid_namespace == top.pid_namespace != self._node[1]
                and parent.pod == container.pod_uid
            )
            if adopted or (top.stat.session == home.stat.session != _session_of(parent)):
                return None  # the pod's first process, or the runtime's, took it over
        return self._process(top.stat)

    def _now(self, process: Process) -> Process:
        """The same process as it is now, for it may have executed something else; or as it was:
        one that ended and is not yet waited for has neither a command nor a control group.
        """
        found = self.read(process.pid)
        if found is None or found.started != process.started:
            return process
        return found if found.command or found.container_id is not None else process

    def _stranger(self, seats: Sequence[Seat], name: str) -> int | None:
        """The uppermost below the first process that is no child of its making: it has another
        control group, or a login.
        """
        first = seats[-1]
        for number in reversed(range(len(seats) - 1)):
            seat = seats[number]
            if name in first.containers and name not in seat.containers and not seat.exiting:
                return number
        if len(seats) > 1 and self.login(seats[-2].stat.pid) is not None:
            return None if self.login(first.stat.pid) is not None else len(seats) - 2
        return None

    def _home(self, container: WatchedContainer) -> Seat | None:
        return self.seat(container.pid)

    def _stat(self, pid: int) -> Stat | None:
        try:
            return parse_stat(self.file(pid, "stat", 4096))
        except (OSError, ProcFileError):
            return None

    def _process(self, stat: Stat) -> Process:
        known = self._read.get(stat.pid)
        if known is not None and (known[0].same_image(stat) or stat.ended_as(known[0])):
            if known[1].parent != stat.parent:  # its own parent ended
                known = (stat, replace(known[1], parent=stat.parent))
                self._keep(self._read, stat.pid, known)
            return known[1]
        pid = stat.pid
        try:
            cgroup = containers(self.file(pid, "cgroup").decode(errors="replace"))
            uid = parse_status(self.file(pid, "status")).uid
            command = words(self.file(pid, "cmdline", _COMMAND))
        except (OSError, ProcFileError):
            cgroup, uid, command = (), -1, ()
        process = Process(
            pid=pid,
            parent=stat.parent,
            started=datetime.fromtimestamp(self._boot + stat.ticks / _TICKS, UTC),
            # One that ended, or is of the kernel, has none: its name, as ps shows it.
            executable=self.link(pid, "exe") or f"[{stat.name}]",
            command=() if command == ("",) else command,
            uid=uid,
            container_id=cgroup[0] if cgroup else None,
        )
        if not stat.exiting and uid >= 0:
            self._keep(self._read, pid, (stat, process))
        return process

    def _namespace(self, pid: int, kind: str) -> int | None:
        link = self.link(pid, f"ns/{kind}")
        number = link.partition("[")[2].rstrip("]") if link else ""
        return int(number) if number.isdecimal() else None

    def _keep(self, kept: OrderedDict[K, V], key: K, value: V) -> None:
        with self._lock:
            kept[key] = value
            kept.move_to_end(key)
            while len(kept) > self._capacity:
                kept.popitem(last=False)


def read_process(pid: int, proc: Path = Path("/proc")) -> Process | None:
    """One process, read once; None once it is gone."""
    return Processes(proc, capacity=1).read(pid)


def sessions(members: Iterable[Member]) -> tuple[Process, ...]:
    """The first processes of all that entered, each once, by age; some may have ended."""
    found = {(s.pid, s.started): s for m in members if (s := m.lineage.session) is not None}
    return tuple(sorted(found.values(), key=lambda p: (p.started, p.pid)))


def _session_of(seat: Seat | None) -> int | None:
    return None if seat is None else seat.stat.session


def _in(
    seat: Seat, container: WatchedContainer, home: Seat | None, node: tuple[int | None, int | None]
) -> bool:
    if container.container_id in seat.containers or seat.stat.pid == container.pid:
        return True
    if home is None:
        return False
    mounts, pids = home.mount_namespace, home.pid_namespace
    if mounts is not None and seat.mount_namespace == mounts != node[0]:
        return True
    # Containers of one pod may share a PID namespace (shareProcessNamespace).
    return (
        pids is not None
        and seat.pid_namespace == pids != node[1]
        and not seat.containers
        and seat.pod != container.pod_uid
    )
