"""A container's mounts, from ``/proc/PID/mountinfo`` (proc_pid_mountinfo(5)). Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

_OCTAL = re.compile(r"\\([0-7]{3})")
#: A colon within a name is written \\: by older kernels, as octal by newer ones.
_LAYER = re.compile(r"(?<!\\)(?<!\\134):")
#: mountinfo beyond this is not read; bytes. A container has tens of mounts.
MAX_MOUNTINFO = 4 * 1024 * 1024


class MountInfoError(ValueError):
    """A line that is not as the kernel writes it."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount: ``root`` is the path within its file system, ``path`` where it shows.

    ``device`` compares with ``st_dev``, except on btrfs. ``read_only``: by this mount, or as a
    whole.
    """

    number: int
    device: int
    root: str
    path: str
    kind: str
    options: str
    read_only: bool

    @property
    def place(self) -> tuple[int, int, str, str]:
        """Tells it from others: a number is given again once it is free, and stays in a move."""
        return self.number, self.device, self.root, self.path

    @property
    def whole(self) -> bool:
        """Whether it shows its file system from the top."""
        return self.root == "/"


@dataclass(frozen=True, slots=True)
class Overlay:
    """The directories of an overlay, as the node named them; lowers from the top down."""

    upper: str | None
    lowers: tuple[str, ...]


def parse(text: str) -> tuple[Mount, ...]:
    """The mounts in order: a later one hides an earlier one. Raises MountInfoError."""
    return tuple(_mount(line) for line in text.split("\n") if line)


def _mount(line: str) -> Mount:
    # 36 35 98:0 /root /path rw,noatime master:1 - ext3 /dev/root rw,errors=continue
    before, dash, after = line.partition(" - ")
    left, right = before.split(" "), after.split(" ")
    major, colon, minor = left[2].partition(":") if len(left) > 5 else ("", "", "")
    if not (dash and colon and len(right) >= 2):
        raise MountInfoError(f"no line of mountinfo: {line[:200]!r}")
    try:
        return Mount(
            number=int(left[0]),
            device=os.makedev(int(major), int(minor)),
            root=_plain(left[3]),
            path=_plain(left[4]),
            kind=_plain(right[0]),
            options=right[2] if len(right) > 2 else "",
            read_only="ro" in [*left[5].split(","), *",".join(right[2:]).split(",")],
        )
    except (ValueError, OverflowError):
        raise MountInfoError(f"no line of mountinfo: {line[:200]!r}") from None


def _plain(text: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text) if "\\" in text else text


def at_path(mounts: Iterable[Mount], path: str) -> Mount | None:
    """What is mounted at exactly ``path``: the last of several."""
    return next((m for m in reversed(tuple(mounts)) if m.path == path), None)


def holding(mounts: Iterable[Mount], path: str) -> Mount | None:
    """The mount that ``path`` lies in."""
    inside = [m for m in mounts if path == m.path or path.startswith(f"{m.path.rstrip('/')}/")]
    # Of two at one path the later hides the earlier.
    return max(enumerate(inside), key=lambda item: (len(item[1].path), item[0]), default=(0, None))[
        1
    ]


def overlay_of(mount: Mount) -> Overlay | None:
    """The layers of an overlay mount, None for other kinds.

    containerd shortens many layers to names relative to the directory of all snapshots, which is
    where the upper directory ``SNAPSHOTS/NUMBER/fs`` lies.
    """
    if mount.kind != "overlay":
        return None
    upper: str | None = None
    lowers: list[str] = []
    for option in mount.options.split(","):
        name, _, value = option.partition("=")
        if name == "upperdir":
            upper = _layer(value)
        elif name == "lowerdir":
            lowers += [_layer(part) for part in _LAYER.split(value) if part]
        elif option.startswith("lowerdir+="):
            lowers.append(_layer(option.removeprefix("lowerdir+=")))
    base = os.path.dirname(os.path.dirname(upper)) if upper else ""  # noqa: PTH120 text only
    return Overlay(upper, tuple(low if low.startswith("/") else f"{base}/{low}" for low in lowers))


def _layer(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", _plain(text))
