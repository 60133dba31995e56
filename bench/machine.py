"""Where figures were measured: they mean little without it."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tests.cluster.pins import KUBERNETES_VERSION

_ROOT = Path(__file__).parents[1]
#: What a run writes itself changes nothing that is measured.
_WRITTEN = ":(exclude)docs/reference/figures.md"
_LIBRARIES = ("aiohttp", "cryptography", "kopf", "orjson")


@dataclass(frozen=True, slots=True)
class Machine:
    """``commit`` says so where the checkout had changes that are not committed."""

    cores: int
    processor: str
    memory_gib: int
    commit: str
    versions: dict[str, str]

    def text(self) -> str:
        """One line."""
        hardware = ", ".join(filter(None, (self.processor, f"{self.memory_gib} GiB")))
        versions = ", ".join(f"{name} {found}" for name, found in self.versions.items())
        return f"commit {self.commit}, {self.cores} cores ({hardware}), {versions}"


def this_machine() -> Machine:
    """As it is now."""
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        processor=_processor(Path("/proc/cpuinfo").read_text()),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        commit=_commit(),
        versions={
            "Linux": platform.release().partition("-")[0],
            "Python": platform.python_version(),
            "Kubernetes": KUBERNETES_VERSION.removeprefix("v"),
            **{name: version(name) for name in _LIBRARIES},
        },
    )


def _processor(cpuinfo: str) -> str:
    """The first processor's model; empty where the kernel names none."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return ""


def _commit() -> str:
    commit = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--", ".", _WRITTEN)
    return f"{commit or 'unknown'}{' with changes' if changed else ''}"


def _git(*arguments: str) -> str:
    """Git's answer; nothing where there is no git or no repository."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
