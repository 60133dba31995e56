"""Takes what an EvidenceItem is made of: the file's bytes, the processes. All I/O of it is here.

Runs in a thread of its own beside the event loop, right after the finding was told. What is gone by
then is said to be gone. The file's bytes are as a rule read already, with the finding's digest.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from datetime import datetime

from trainseal.agent.evidenceitems import WITH_FILE, FileState, Taken, TakenProcess
from trainseal.agent.files import Content, Tree, content_of
from trainseal.agent.observed import Observation, Process, WatchedContainer
from trainseal.agent.processes import Processes
from trainseal.agent.procfiles import mapped_files, variables
from trainseal.api.evidenceitem import MAX_KEPT

#: Bytes of a process's environment and of its maps that are looked at.
_ENVIRONMENT = 64 * 1024
_MAPS = 4 * 1024 * 1024
#: Processes of a chain whose environment and maps are read.
_CHAIN = 8


class EvidenceTaker:
    """Of one node."""

    def __init__(self, processes: Processes, now: Callable[[], datetime]) -> None:
        self._processes = processes
        self._now = now

    def take(self, seen: Observation, container: WatchedContainer | None) -> Taken:
        """What there is of it now. ``container`` is None where that is no longer watched."""
        state: FileState | None = None
        content: Content | None = None
        if seen.path is not None and seen.finding in WITH_FILE:
            state, content = self._file(seen, container)
        processes = [*self._chain(seen), *self._others(seen, container)]
        return Taken(self._now(), state, content, processes)

    def _file(
        self, seen: Observation, container: WatchedContainer | None
    ) -> tuple[FileState, Content | None]:
        if seen.content is not None:
            return "Kept", seen.content
        if seen.evidence.get("digest") == "gone":
            return "Gone", None
        try:
            if seen.source is not None:
                return _read_link(seen.source)
            if container is None or seen.path is None:
                return "Gone", None
            with Tree(container.root) as root:
                return _read(root, seen.path)
        except FileNotFoundError:
            return "Gone", None
        except OSError:
            return "Unreadable", None

    def _chain(self, seen: Observation) -> Iterator[TakenProcess]:
        chain = seen.lineage.chain[:_CHAIN] if seen.lineage is not None else ()
        for process in chain:
            yield self._whole(process)

    def _whole(self, process: Process) -> TakenProcess:
        """With environment and maps, where it is still the same process."""
        environment: list[tuple[str, str]] | None = None
        files: dict[str, str] | None = None
        try:
            environment = list(
                variables(self._processes.file(process.pid, "environ", _ENVIRONMENT))
            )
            files = mapped_files(self._processes.file(process.pid, "maps", _MAPS))
        except OSError:
            pass
        now = self._processes.read(process.pid)
        same = now is not None and now.started == process.started
        if not same or not (environment or files):  # one that is not yet waited for has neither
            return TakenProcess(process, acting=True, ended=True)
        return TakenProcess(process, acting=True, environment=environment, files=files)

    def _others(
        self, seen: Observation, container: WatchedContainer | None
    ) -> Iterator[TakenProcess]:
        if container is None:
            return
        acting = {p.pid for p in seen.lineage.chain} if seen.lineage is not None else set()
        members = self._processes.members([container])[container.container_id]
        for member in sorted(members, key=lambda m: m.pid):
            if member.pid not in acting:
                yield TakenProcess(member.process)


def _read(root: Tree, path: str) -> tuple[FileState, Content | None]:
    status = root.status(path)
    if status is None:
        return "Gone", None
    if not stat.S_ISREG(status.st_mode):
        return "NotAFile", None
    with root.regular(path) as fd:
        return "Kept", content_of(fd, MAX_KEPT)


def _read_link(link: str) -> tuple[FileState, Content | None]:
    """Of ``/proc/PID/exe`` or ``map_files``: nothing but a regular file is opened for reading."""
    at = os.open(link, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(at).st_mode):
            return "NotAFile", None
        fd = os.open(f"/proc/self/fd/{at}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(at)
    try:
        return "Kept", content_of(fd, MAX_KEPT)
    finally:
        os.close(fd)
