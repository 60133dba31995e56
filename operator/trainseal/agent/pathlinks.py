"""Following a path link by link, as the kernel does for one process. Pure.

Among the links are the kernel's own below ``/proc``: a process's root and working directory, and
what it has open. Who resolves a path from outside gets no further there, or to a place of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_MOST_LINKS = 40  # as the kernel
_KERNELS = re.compile(
    r"/proc/(?P<process>self|thread-self|[0-9]+)(?:/task/[0-9]+)?/(?P<link>root|cwd|fd/[0-9]+)"
)
#: Where a link of the kernel's leads, by process and name; None for the process itself.
KernelLink = Callable[[int | None, str], str | None]


def followed(path: str, link: Callable[[str], str | None], kernels: KernelLink) -> str:
    """The path without links in it, as far as they lead.

    ``link`` gives a symbolic link's target, by a path without links. A descriptor at the end is
    not followed: what is open is not a place.
    """
    at: list[str] = []
    pending = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    left = _MOST_LINKS
    while pending:
        part = pending.pop()
        if part == "..":
            del at[-1:]
            continue
        here = "/" + "/".join([*at, part])
        target = _target(here, link, kernels, last=not pending) if left else None
        if target is None:
            at.append(part)
            continue
        left -= 1
        if target.startswith("/"):
            at.clear()
        pending += [step for step in reversed(target.split("/")) if step not in ("", ".")]
    return "/" + "/".join(at)


def of_a_process(path: str) -> bool:
    """Whether a path leads on from a process's root, directory or descriptor."""
    found = _KERNELS.match(path)
    return found is not None and path[found.end() : found.end() + 1] == "/"


def _target(
    here: str, link: Callable[[str], str | None], kernels: KernelLink, *, last: bool
) -> str | None:
    if here in ("/proc/self", "/proc/thread-self"):
        return None  # whoever asks would get its own
    found = _KERNELS.fullmatch(here)
    if found is None:
        return link(here)
    if last and found["link"].startswith("fd/"):
        return None
    process = int(found["process"]) if found["process"].isdecimal() else None
    target = kernels(process, found["link"])
    return target if target is not None and target.startswith("/") else None
