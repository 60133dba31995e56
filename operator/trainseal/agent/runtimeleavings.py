"""What container runtimes and device toolkits put into a container before it starts. Pure.

Each is known by its exact name and by what it is: an empty file, a link with just that target, a
cache with just that beginning. And each is older than the container's first process: the same file
made later is a difference like any other. What something is mounted on needs no entry here: nobody
sees it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from trainseal.agent.layers import Entry

_LINKS = {"/etc/mtab": ("/proc/mounts", "/proc/self/mounts", "../proc/self/mounts")}
_EMPTY = frozenset({"/.dockerenv", "/run/.containerenv"})
_CACHE = "/etc/ld.so.cache"
_CACHE_BEGINNINGS = (b"glibc-ld.so.cache1.1", b"ld.so-1.7.0\0")
_DRIVER = re.compile(
    r"(?:/usr)?/lib(?:64|/[a-z0-9_]+-linux-gnu)?/(?:vdpau/)?"
    r"lib(?:cuda|cudadebugger|nvidia-[a-z0-9-]+|nvcuvid|nvoptix|GL[A-Za-z]*_nvidia|vdpau_nvidia)"
    r"\.so(?:\.[0-9]+)*"
)
_DRIVER_CONF = re.compile(r"/etc/ld\.so\.conf\.d/(?:00-)?nvcr-[0-9]+\.conf")
_DRIVER_DIRECTORY = re.compile(r"(?:/usr)?/lib(?:64|/[a-z0-9_]+-linux-gnu)?(?:/vdpau)?")
#: How much of a file is looked at; bytes.
MAX_BEGINNING = 4096


@dataclass(frozen=True, slots=True)
class Left:
    """An entry of the upper layer, with what tells where it came from.

    ``beginning``: of a file's content. ``target``: of a
    link. ``target_covered``: something is mounted on what the link leads to.
    """

    entry: Entry
    beginning: bytes = b""
    target: str | None = None
    target_covered: bool = False


def left_by_runtime(left: Left, started: datetime) -> bool:
    """Whether a runtime or its hooks put it there before the container ``started``."""
    entry = left.entry
    status = entry.status
    if status.st_ctime > started.timestamp():
        return False
    if entry.path in _EMPTY:
        return entry.kind == "file" and status.st_size == 0
    if entry.kind == "link":
        if entry.path in _LINKS:
            return left.target in _LINKS[entry.path]
        return (
            _DRIVER.fullmatch(entry.path) is not None
            and left.target is not None
            and "/" not in left.target
            and left.target_covered
        )
    if entry.kind != "file":
        return False
    if entry.path == _CACHE:
        return left.beginning.startswith(_CACHE_BEGINNINGS)
    if _DRIVER_CONF.fullmatch(entry.path):
        return status.st_size <= MAX_BEGINNING and all(
            _DRIVER_DIRECTORY.fullmatch(line)
            for line in left.beginning.decode(errors="replace").split("\n")
            if line
        )
    return False
