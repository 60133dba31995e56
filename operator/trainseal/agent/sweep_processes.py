"""The sweep of a container's processes: what they run, have mapped and were given, who traces them.

For what events miss. One look at each process; what has not changed since the last look is not
judged again for a while (six sweeps at most). What comes and goes between two sweeps is not seen
here: executions are events, but a tracer that detaches, or ``process_vm_writev``
(``sys.remote_exec``), leaves nothing. What a running interpreter reads (a ``.py`` in a scratch
mount that is imported) is no mapping: only the variable, the program that the command line names or
the written file is seen.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from trainseal.agent.files import digest_of
from trainseal.agent.loadervariables import names_cache, parts
from trainseal.agent.masking import named_by
from trainseal.agent.observed import Lineage, Observation, Process, WatchedContainer
from trainseal.agent.origins import FOREIGN, OWN, Places, why
from trainseal.agent.processes import Member, Processes
from trainseal.agent.procfiles import (
    MAX_STRINGS,
    Mapping,
    ProcFileError,
    mappings,
    parse_status,
    undeleted,
    variables,
)
from trainseal.agent.scripts import foreign_script
from trainseal.agent.sweep_stopped import StoppedProcesses
from trainseal.api.findings import FindingId
from trainseal.provenance.commandlines import finds_code, loads_code

#: ``/proc/PID/maps`` beyond this is not read, and said: 65,530 mappings have about 8 MB.
MAX_MAPS = 32 * 1024 * 1024
#: Sweeps after which a file that was of the image is looked at again.
_AGAIN = 6
#: What is found was looked at so many sweeps before at the least: a process on its way in is passed
#: over once; mappings are read each ``_AGAIN`` sweeps, and a file's verdict stands for up to twice
#: as many.
SWEEPS_LATE, MAPPINGS_LATE = 2, 3 * _AGAIN
MAPPED = frozenset(
    {
        FindingId.MAP_FOREIGN,
        FindingId.MAP_MEMORY,
        FindingId.MAP_DELETED,
        FindingId.MAP_WRITABLE,
    }
)
_MOST_JUDGED = 20_000
#: How long a runtime may take from joining the container to executing the program.
_JOINING = timedelta(seconds=5)
_RUNTIMES = ("runc", "crun", "youki", "exe", "memfd:runc_cloned:", "memfd:crun")
_MEMORY = ("/memfd:", "/SYSV")
#: Shared memory without a name: where compilers within the process put code, among others.
_ANONYMOUS = ("/dev/zero (deleted)", "/anon_hugepage (deleted)")
#: .NET maps its own compiled code twice; only where its runtime is loaded from the image.
_NET_JIT, _NET_RUNTIME = "/memfd:doublemapper (deleted)", "/libcoreclr.so"


#: By process: what it executed when it was looked at, and what there was to say.
_Known = dict[int, tuple[object, tuple[Observation, ...]]]


@dataclass(frozen=True, slots=True)
class _Verdict:
    sweep: int
    finding: FindingId | None = None
    path: str = ""
    message: str = ""


class ProcessSweep:
    """The processes of one container, again and again. Make it when the container is first seen:
    the environment of its first process, as it is then, is part of what the others are held to.
    """

    def __init__(self, processes: Processes, container: WatchedContainer, places: Places) -> None:
        self._processes = processes
        self._container = container
        self._places = places
        self._number = 0
        self._stopped = StoppedProcesses()
        self._files: dict[tuple[int, int, str, bool], _Verdict] = {}
        self._sizes: dict[int, tuple[object, tuple[int, ...]]] = {}
        self._environments: _Known = {}
        self._scripts: _Known = {}
        self._digests: dict[tuple[int, int, int, int], str] = {}
        #: The first process's variables that name code, as it has them now.
        self.first: dict[str, tuple[str, ...]] = {}
        self._given: dict[str, set[str]] = {}
        for name, value in self._loaders(container.pid):
            self._given.setdefault(name, set()).add(value)

    def run(self, members: Sequence[Member], now: datetime) -> Iterator[Observation | None]:
        """What is to be said of these processes. None after each: a place to pause."""
        self._number += 1
        if len(self._files) > _MOST_JUDGED:
            self._files.clear()
        seen = set()
        for member in members:
            seen.add(member.pid)
            if not _joining(member, now):
                yield from self._process(member)
            yield None
        yield from self._stopped.look(members, now)
        self._environments = {k: v for k, v in self._environments.items() if k in seen}
        self._scripts = {k: v for k, v in self._scripts.items() if k in seen}
        self._sizes = {k: v for k, v in self._sizes.items() if k in seen}

    def _process(self, member: Member) -> Iterator[Observation]:
        try:
            status = parse_status(self._processes.file(member.pid, "status"))
        except (OSError, ProcFileError):
            return
        link = self._processes.link(member.pid, "exe")
        if link is not None:
            yield from self._executable(member, link)
            # The working directory tells most just after the start.
            yield from _once(self._scripts, member, self._script)
            if self._may_map_otherwise(member, status.sizes):
                yield from self._mapped(member, link)
        yield from _once(self._environments, member, self._variables)
        yield from self._traced(member, status.tracer)

    def _may_map_otherwise(self, member: Member, sizes: tuple[int, ...]) -> bool:
        """Whether to read the mappings, which costs most: not each time while the sizes of the
        memory, the program and the libraries stay as they are.
        """
        now = (member.seat.stat.image, sizes)
        same = self._sizes.get(member.pid) == now
        self._sizes[member.pid] = now
        return not same or (self._number + member.pid) % _AGAIN == 0

    def _executable(self, member: Member, link: str) -> Iterator[Observation]:
        file = f"{self._processes.proc}/{member.pid}/exe"
        try:
            status = os.stat(file)  # noqa: PTH116 follows the kernel's link, which is no path
        except OSError:
            return
        if link.startswith("/memfd:"):
            finding, path = FindingId.EXEC_MEMORY, undeleted(link) or link
            message = f"{_program(member)} runs from memory, as {path}; the image has no such file"
        elif self._gone(link, status):
            finding, path = FindingId.EXEC_DELETED, undeleted(link) or link
            message = f"{_program(member)} runs {path}, which was deleted or replaced since"
        else:
            path, origin = link, self._places.origin(link)
            if origin in FOREIGN:
                reason = why(origin)
            elif origin != "unknown" and not self._same(link, status):
                reason = "it is another file than the container has under that name"
            else:
                return
            finding = FindingId.EXEC_FOREIGN
            message = f"{path} runs and is not of the image: {reason}"
        evidence = {"command": _command(member.process)}
        seen = self._observation(finding, message, path, member, file, evidence)
        # As its event is told of: that it still runs is no second finding.
        yield replace(seen, subject=path) if finding is FindingId.EXEC_FOREIGN else seen

    def _script(self, member: Member) -> Iterator[Observation]:
        found = foreign_script(
            member.process,
            self._processes.link(member.pid, "cwd"),
            self._places,
            # Its command is sealed, and it may long be elsewhere than where it began.
            relative=member.pid != self._container.pid,
        )
        if found is not None:
            yield replace(found, lineage=member.lineage)

    def _mapped(self, member: Member, link: str) -> Iterator[Observation]:
        try:
            data = self._processes.file(member.pid, "maps", MAX_MAPS + 1)
        except OSError:
            return
        if len(data) > MAX_MAPS:
            yield Observation(
                FindingId.WATCH_BLIND,
                f"process {member.pid} ({member.process.executable}) has more mappings than are "
                f"read: over {MAX_MAPS} bytes of them; expected tens of thousands at most",
                lineage=member.lineage,
            )
            data = data[:MAX_MAPS]
        said: set[tuple[FindingId, str]] = set()
        runtime: bool | None = None
        for mapping in mappings(data):
            if mapping.executable and mapping.path == link:
                continue  # judged as the executable
            if mapping.path == _NET_JIT:
                if runtime is None:
                    runtime = self._has(data, _NET_RUNTIME)
                if runtime:
                    continue
            verdict = self._verdict(member, mapping)
            if verdict.finding is None or (verdict.finding, verdict.path) in said:
                continue
            said.add((verdict.finding, verdict.path))
            yield self._observation(
                verdict.finding,
                verdict.message,
                verdict.path,
                member,
                f"{self._processes.proc}/{member.pid}/map_files/{mapping.span}",
                {"mapping": "executable" if mapping.executable else "shared, writable"},
            )

    def _verdict(self, member: Member, mapping: Mapping) -> _Verdict:
        path = mapping.path
        if not mapping.executable and (
            path.startswith(("/dev/", "/memfd:", "/SYSV")) or not path.startswith("/")
        ):
            return _Verdict(0)
        key = (mapping.device, mapping.inode, path, mapping.executable)
        known = self._files.get(key)
        if known is not None and known.sweep + _AGAIN > self._number:
            return known
        judged = (self._code if mapping.executable else self._shared)(member, mapping)
        finding, path, message = judged or (None, "", "")
        # Spread: what was first seen together is not looked at again together.
        verdict = _Verdict(self._number + mapping.inode % _AGAIN, finding, path, message)
        self._files[key] = verdict
        return verdict

    def _code(self, member: Member, mapping: Mapping) -> tuple[FindingId, str, str] | None:
        path = mapping.path
        if path in _ANONYMOUS and mapping.device != self._device("/dev"):
            return None
        if not path.startswith("/"):
            return None
        if path.startswith(_MEMORY):
            shown = undeleted(path) or path
            return (
                FindingId.MAP_MEMORY,
                shown,
                f"{member.process.executable} runs code from memory: {shown}",
            )
        status = self._mapped_status(member, mapping)
        if status is None:
            return None
        if self._gone(path, status):
            shown = undeleted(path) or path
            message = (
                f"{member.process.executable} runs code of {shown}, which was deleted or replaced "
                "since it was loaded"
            )
            return FindingId.MAP_DELETED, shown, message
        origin = self._places.origin(path)
        if origin in FOREIGN:
            reason = why(origin)
        elif origin != "unknown" and not self._same(path, status):
            reason = "it is another file than the container has under that name"
        else:
            return None
        message = f"{member.process.executable} runs code of {path}, not of the image: {reason}"
        return FindingId.MAP_FOREIGN, path, message

    def _shared(self, member: Member, mapping: Mapping) -> tuple[FindingId, str, str] | None:
        """A shared mapping of a signed file that is writable, or was when the file was opened.

        To open an image's file for writing copies it into the upper layer first: so a file of the
        image's that lies there and is mapped shared may be made writable without a further call.
        """
        path = mapping.path
        if undeleted(path) is not None:
            return None
        origin = self._places.origin(path)
        if origin in ("mount:code", "mount:config", "image"):
            signed = mapping.writable
        else:
            signed = origin == "upper" and self._places.in_image(path)
        if not signed:
            return None
        message = (
            f"{member.process.executable} has {path} mapped for writing: it can change this signed "
            "file without any write that is seen"
        )
        return FindingId.MAP_WRITABLE, path, message

    def _variables(self, member: Member) -> Iterator[Observation]:
        sealed = self._container.env
        first = member.pid == self._container.pid
        loaders = self._loaders(member.pid)
        if first:
            self.first = {
                n: tuple(v for m, v in loaders if m == n) for n, _ in loaders if loads_code(n)
            }
        for name, value in loaders:
            if not loads_code(name) and member.lineage.session is None:
                continue  # where its own processes find things, signed code decides
            if sealed.get(name) == value or (not first and value in self._given.get(name, ())):
                continue
            if first and name in sealed and sealed[name] is None:
                continue  # only known at run time: this is the value
            unsigned = self._unsigned(member.pid, name, value)
            if unsigned is None:
                continue
            expected = sealed.get(name) if name in sealed else None
            yield Observation(
                FindingId.ENV_LOADER,
                f"{_program(member)} has {name} set to take code from {unsigned}",
                path=None,
                lineage=member.lineage,
                evidence={
                    "variable": name,
                    "value": value[:1024],
                    "sealed value": "(none)" if expected is None else expected[:1024],
                },
                subject=f"{name}={value[:4096]} {member.process.executable}",
            )

    def _unsigned(self, pid: int, name: str, value: str) -> str | None:
        """What it takes code from that nobody signed; None where all is signed."""
        foreign = FOREIGN - OWN if names_cache(name) else FOREIGN
        for part in parts(name, value):
            if part.kind == "name":
                return f"{part.text[:200]!r}, which is not sealed"
            place = part.text
            if not place.startswith("/"):
                place = posixpath.join(self._processes.link(pid, "cwd") or "/", place)
            origin = self._places.origin(self._places.resolved(place, pid))
            if origin in foreign:
                return f"{place[:500]}: {why(origin)}"
        return None

    def _loaders(self, pid: int) -> list[tuple[str, str]]:
        """A process's variables that name code, or a directory where programs look for it."""
        try:
            data = self._processes.file(pid, "environ", MAX_STRINGS)
        except OSError:
            return []
        return [
            (name, value) for name, value in variables(data) if loads_code(name) or finds_code(name)
        ]

    def _traced(self, member: Member, tracer: int) -> Iterator[Observation]:
        if tracer == 0:
            return
        lineage = self._processes.lineage(tracer, self._container)
        who = "a process that ended" if lineage is None else _command(lineage.chain[0])
        yield Observation(
            FindingId.PROCESS_TRACED,
            f"{_program(member)} is traced by process {tracer}: {who}",
            lineage=lineage or Lineage((member.process,)),
            evidence={"tracer": f"{tracer}: {who}", "traced": _command(member.process)},
            subject=f"{who} {member.process.executable}",
        )

    def _observation(
        self,
        finding: FindingId,
        message: str,
        path: str,
        member: Member,
        file: str,
        evidence: dict[str, str],
    ) -> Observation:
        digest = self._digest(file)
        if digest:
            evidence["digest"] = digest
        return Observation(finding, message, path, member.lineage, evidence, source=file)

    def _digest(self, file: str) -> str | None:
        """Of a file that the kernel links to; kept, for the same is said again each sweep."""
        try:
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            status = os.fstat(fd)
            key = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
            if key not in self._digests:
                if len(self._digests) > 1024:
                    self._digests.clear()
                self._digests[key] = digest_of(fd)
            return self._digests[key]
        except OSError:
            return None
        finally:
            os.close(fd)

    def _mapped_status(self, member: Member, mapping: Mapping) -> os.stat_result | None:
        try:
            return os.stat(  # noqa: PTH116 follows the kernel's link, which is no path
                f"{self._processes.proc}/{member.pid}/map_files/{mapping.span}"
            )
        except OSError:
            return None

    def _gone(self, path: str, status: os.stat_result) -> bool:
        """Whether the kernel calls the file deleted, and it is not just called so."""
        return undeleted(path) is not None and not self._same(path, status)

    def _same(self, path: str, status: os.stat_result) -> bool:
        there = self._places.status(path)
        return there is not None and (there.st_dev, there.st_ino) == (status.st_dev, status.st_ino)

    def _device(self, path: str) -> int | None:
        status = self._places.status(path)
        return None if status is None else status.st_dev

    def _has(self, maps: bytes, ending: str) -> bool:
        """Whether a library of the image with that ending is loaded."""
        return any(
            m.executable and m.path.endswith(ending) and self._places.origin(m.path) == "image"
            for m in mappings(maps)
        )


def _once(
    known: _Known, member: Member, look: Callable[[Member], Iterable[Observation]]
) -> tuple[Observation, ...]:
    """What there is to say of a process until it executes something else, by one look."""
    image = (member.seat.key, member.seat.stat.image)
    if member.pid not in known or known[member.pid][0] != image:
        known[member.pid] = (image, tuple(look(member)))
    return known[member.pid][1]


def _joining(member: Member, now: datetime) -> bool:
    """Whether it is the runtime's own helper on its way into the container (``runc init``)."""
    name = posixpath.basename(member.process.executable.removesuffix(" (deleted)"))
    from_memory = member.process.executable.removeprefix("/").startswith(_RUNTIMES)
    return (
        member.grouped
        and member.lineage.session == member.process
        and (name in _RUNTIMES or from_memory)
        and now - member.process.started < _JOINING
    )


def _program(member: Member) -> str:
    return f"process {member.pid} ({named_by(member.process)})"


def _command(process: Process) -> str:
    return named_by(process, 1024)
