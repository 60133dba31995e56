"""What the kernel writes below ``/proc/PID``, as values (proc_pid_stat(5) and others). Pure.

All of it is chosen in part by the process it is about: names may hold spaces, brackets and line
feeds, so each parser goes by what a process cannot forge, and has bounds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from trainseal.agent.cgroups import container_id_of, pod_uid_of

#: What Linux allows for arguments and environment together (3/4 of 8 MiB), rounded up.
MAX_STRINGS = 8 * 1024 * 1024
_KERNEL_THREAD = 0x00200000
_EXITING = 0x00000004
_STATUS = re.compile(
    rb"^(Uid|TracerPid|NSpid|VmSize|VmExe|VmLib):[\t ]+([0-9][0-9\t ]*)(?: kB)?$", re.MULTILINE
)
_MAPPING = re.compile(
    rb"([0-9a-f]+-[0-9a-f]+) ([r-][w-](?:x[ps]|-s)) [0-9a-f]+ ([0-9a-f]+):([0-9a-f]+) ([0-9]+) *"
    rb"(.*)"
)
_FILE = re.compile(
    rb"[0-9a-f]+-[0-9a-f]+ ([r-])([w-])([x-])([ps]) [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ [0-9]+ *(.*)"
)
_KERNEL_PAGES = ("[vdso]", "[vsyscall]", "[uprobes]")
_ESCAPED = re.compile(r"\\([0-7]{3})")
_DELETED = " (deleted)"
#: Numbers in stat after the name that an exec changes: places of code, stack and strings.
_IMAGE = (23, 24, 25, 45, 46, 47, 48)


class ProcFileError(ValueError):
    """A file that is not as the kernel writes it."""


@dataclass(frozen=True, slots=True)
class Stat:
    """``/proc/PID/stat``. ``ticks`` is the start, in clock ticks since the node's boot.

    ``image`` differs after an exec: the same process with another image is read again.
    ``exiting``: it is ending, or has ended and is not yet waited for.
    """

    pid: int
    name: str
    state: str
    parent: int
    session: int
    ticks: int
    kernel: bool
    image: tuple[int | str, ...]
    exiting: bool = False

    def same_image(self, other: Stat) -> bool:
        """Whether it is the same process, and has executed nothing since."""
        return (self.pid, self.ticks, self.image) == (other.pid, other.ticks, other.image)

    def ended_as(self, before: Stat) -> bool:
        """Whether it is ``before``, which is ending or not yet waited for: it has no image any
        more, and is still called as the program that it ran.
        """
        same = (self.pid, self.ticks, self.name) == (before.pid, before.ticks, before.name)
        return self.exiting and same


@dataclass(frozen=True, slots=True)
class Status:
    """``/proc/PID/status``. ``pids`` are its numbers from the reader's namespace inwards.

    ``sizes`` are those of its memory, of the program and of its libraries, in KiB.
    """

    uid: int
    tracer: int
    pids: tuple[int, ...]
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping that is executable, or shared. ``path`` is as the kernel shows it."""

    span: str
    executable: bool
    writable: bool
    shared: bool
    device: int
    inode: int
    path: str


def parse_stat(data: bytes) -> Stat:
    """Raises ProcFileError. The name may hold brackets; what follows the last one is numbers."""
    number, _, rest = data.partition(b" (")
    name, bracket, after = rest.rpartition(b") ")
    fields = after.split()
    try:
        if not bracket or len(fields) < 20:
            raise ProcFileError("stat: too short")
        shown = os.fsdecode(name)
        return Stat(
            pid=int(number),
            name=shown,
            state=chr(fields[0][0]),
            parent=int(fields[1]),
            session=int(fields[3]),
            ticks=int(fields[19]),
            kernel=bool(int(fields[6]) & _KERNEL_THREAD),
            image=(shown, *(int(fields[i]) for i in _IMAGE if i < len(fields))),
            exiting=bool(int(fields[6]) & _EXITING) or fields[0][:1] in b"ZX",
        )
    except ValueError as error:
        raise ProcFileError(f"stat: {error}") from None


def parse_status(data: bytes) -> Status:
    """Raises ProcFileError. The kernel escapes line feeds in the name."""
    found = {match[1]: match[2].split() for match in _STATUS.finditer(data)}
    try:
        return Status(
            uid=int(found[b"Uid"][1]),
            tracer=int(found[b"TracerPid"][0]),
            pids=tuple(int(number) for number in found.get(b"NSpid", ())),
            sizes=tuple(int(found[n][0]) for n in (b"VmSize", b"VmExe", b"VmLib") if n in found),
        )
    except (KeyError, IndexError):
        raise ProcFileError("status: found no Uid or TracerPid") from None


def words(data: bytes, most: int = 4096) -> tuple[str, ...]:
    """A command line's words, or an environment's; what is after ``most`` is left out."""
    return tuple(os.fsdecode(word) for word in data.removesuffix(b"\0").split(b"\0", most)[:most])


def variables(data: bytes) -> Iterator[tuple[str, str]]:
    """Names and values, as often as they are there: programs differ in which one they take."""
    for word in data.split(b"\0"):
        name, equals, value = word.partition(b"=")
        if equals:
            yield os.fsdecode(name), os.fsdecode(value)


@lru_cache(maxsize=2048)
def containers(cgroup: str) -> tuple[str, ...]:
    """Ids of the containers that ``/proc/PID/cgroup`` names, each once; mostly none or one.

    Of one line the outermost counts: what a container makes below its own group is its own. The
    unified hierarchy and systemd's come first, for a v1 hierarchy may be left out by a runtime.
    """
    found: dict[str, None] = {}
    for path in sorted(_paths(cgroup), key=lambda line: not line[0]):
        name = next((n for part in path[1].split("/") if (n := container_id_of(part))), None)
        if name:
            found[name] = None
    return tuple(found)


@lru_cache(maxsize=2048)
def pod_uid(cgroup: str) -> str | None:
    """UID of the pod in whose group the process is."""
    parts = (part for _, path in _paths(cgroup) for part in path.split("/"))
    return next((uid for part in parts if (uid := pod_uid_of(part))), None)


def _paths(cgroup: str) -> Iterator[tuple[bool, str]]:
    for line in cgroup.splitlines()[:64]:
        _, _, rest = line.partition(":")
        kind, _, path = rest.partition(":")
        yield kind in ("", "name=systemd"), path


def mappings(data: bytes) -> Iterator[Mapping]:
    """The executable and the shared mappings of files in ``/proc/PID/maps``; others are passed.

    Regions without a file (heap, stack, what a compiler in the process made) have no inode.
    """
    for line in data.split(b"\n"):  # the kernel escapes line feeds in names
        at = line.find(b" ")
        if line[at + 3 : at + 4] != b"x" and line[at + 4 : at + 5] != b"s":
            continue  # most are neither, and this costs a third of the pattern
        match = _MAPPING.fullmatch(line)
        if match is None:
            continue
        inode = int(match[5])
        if inode == 0:
            continue
        rights = match[2]
        path = os.fsdecode(match[6])
        yield Mapping(
            span=match[1].decode(),
            executable=rights[2:3] == b"x",
            writable=rights[1:2] == b"w",
            shared=rights[3:4] == b"s",
            device=os.makedev(int(match[3], 16), int(match[4], 16)),
            inode=inode,
            path=_ESCAPED.sub(lambda m: chr(int(m[1], 8)), path) if "\\" in path else path,
        )


def mapped_files(data: bytes) -> dict[str, str]:
    """What is mapped by ``/proc/PID/maps``, with what any of its mappings allows, as ``r-xp``.

    Beside files: executable memory without one, as ``(anonymous)`` or what the kernel calls it
    (``[stack]``), but for the kernel's own pages.
    """
    found: dict[str, str] = {}
    for line in data.split(b"\n"):
        match = _FILE.fullmatch(line)
        if match is None:
            continue
        path = os.fsdecode(match[5])
        if not path.startswith("/"):
            if match[3] != b"x" or path in _KERNEL_PAGES:
                continue
            path = path or "(anonymous)"
        path = _ESCAPED.sub(lambda m: chr(int(m[1], 8)), path) if "\\" in path else path
        rights = b"".join(match.group(1, 2, 3, 4)).decode()
        found[path] = _either(found[path], rights) if path in found else rights
    return found


def _either(one: str, other: str) -> str:
    """What either of two mappings allows; shared where one is."""
    pairs = zip(one, other, strict=True)
    return "".join(a if a not in "-p" else b for a, b in pairs)


def undeleted(path: str) -> str | None:
    """The path that a deleted file had; None where the kernel does not call it deleted.

    A file may also just be called so: whoever needs to know asks whether it is there.
    """
    return path.removesuffix(_DELETED) if path.endswith(_DELETED) else None
