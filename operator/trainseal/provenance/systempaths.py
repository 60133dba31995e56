"""Directories of a container that nothing may be mounted over: the system's own."""

from __future__ import annotations

#: Directories that programs run from, or that the kernel speaks through.
_SYSTEM = frozenset(
    {"/bin", "/boot", "/dev", "/etc", "/lib", "/proc", "/root", "/run", "/sbin", "/sys", "/usr"}
)
_SYSTEM_BELOW = (
    "/bin/", "/boot/", "/lib/", "/lib32", "/lib64", "/libx32", "/proc/", "/sbin/", "/sys/",
    "/usr/bin/", "/usr/lib", "/usr/sbin/", "/usr/local/bin/", "/usr/local/lib/", "/etc/ld.so",
    "/etc/python", "/gate/", "/run/secrets/", "/var/run/secrets/",
)  # fmt: skip


def holds_programs(path: str) -> bool:
    """Whether a mount at this path would hide some of them: it is one, lies in one, or above."""
    # A mount above such a directory hides it just as well.
    above = any(below.startswith(f"{path}/") for below in (*_SYSTEM, *_SYSTEM_BELOW))
    return above or path in _SYSTEM or f"{path}/".startswith(_SYSTEM_BELOW)
