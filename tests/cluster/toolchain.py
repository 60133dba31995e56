"""Builds the pinned Go programs once and finds them again in the cache."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.golang import require_go
from tests.cluster.pins import BUILD_ENV, CLUSTER, PROGRAMS, Program
from tests.cluster.places import cache_dir, locked
from tests.cluster.progress import minutes, say, step


@dataclass(frozen=True)
class Tools:
    """Paths of built programs."""

    paths: Mapping[str, Path]

    def __getitem__(self, name: str) -> Path:
        try:
            return self.paths[name]
        except KeyError:
            raise ClusterError(
                f"{name} was not built for this mode",
                expected=f"one of {', '.join(sorted(self.paths))}",
            ) from None

    @property
    def kubectl(self) -> Path:
        """kubectl of the cluster's own version."""
        return self["kubectl"]

    @property
    def helm(self) -> Path:
        """helm 4."""
        return self["helm"]

    @property
    def cosign(self) -> Path:
        """cosign 3."""
        return self["cosign"]

    @property
    def crane(self) -> Path:
        """crane, of the same module as the registry."""
        return self["crane"]

    @property
    def search_path(self) -> str:
        """A PATH in which all of them come first."""
        folders = dict.fromkeys(str(p.parent) for p in self.paths.values())
        return os.pathsep.join([*folders, os.environ.get("PATH", os.defpath)])


def cached(program: Program) -> Path:
    """Where the program is or will be."""
    return cache_dir() / "tools" / program.key() / program.name


def located(names: Iterable[str]) -> Tools:
    """The named programs as they were built before; nothing is built now."""
    return Tools({name: cached(PROGRAMS[name]) for name in names})


def tools(names: Iterable[str] = CLUSTER) -> Tools:
    """The named programs, built now if the cache lacks them."""
    wanted = tuple(names)
    if missing := unbuilt(wanted):
        _build_all(missing)
    return located(wanted)


def unbuilt(names: Iterable[str]) -> list[Program]:
    """Those of the named programs that the cache lacks, in the order of `names`."""
    return [PROGRAMS[name] for name in names if not cached(PROGRAMS[name]).exists()]


def module_files(program: str, module: str) -> Path:
    """The files of a Go module at the version that a program is built of it.

    Charts and manifests lie there as well; fetched, should Go's cache have lost them.
    """
    told = subprocess.run(
        ["go", "mod", "download", "-json", module],
        cwd=PROGRAMS[program].source,
        env=os.environ | BUILD_ENV,
        check=True,
        capture_output=True,
        text=True,
    )
    return Path(json.loads(told.stdout)["Dir"])


def _build_all(missing: list[Program]) -> None:
    require_go()
    total = sum(p.seconds for p in missing)
    say(
        f"Building {len(missing)} pinned tools into {cache_dir() / 'tools'}, once: "
        f"about {minutes(total)} on 2 cores."
    )
    for number, program in enumerate(missing, 1):
        target = cached(program)
        with locked(cache_dir() / "tools" / f".{program.key()}.lock"):
            if target.exists():  # somebody else built it while we waited
                continue
            with step(f"[{number}/{len(missing)}] {program.name}", expected=program.seconds):
                _build(program, target.parent)


def _build(program: Program, folder: Path) -> None:
    """Build into a temporary folder beside `folder`, then rename: whole or not at all."""
    work = Path(tempfile.mkdtemp(prefix=".build-", dir=folder.parent))
    try:
        result = subprocess.run(
            ["go", "build", *program.flags(), "-o", str(work / program.name), program.package],
            cwd=program.source,
            env=os.environ | BUILD_ENV,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise ClusterError(
                f"building {program.name} failed",
                expected=f"`go build {program.package}` in {program.source} to succeed",
                action="read on below; a module that cannot be fetched needs the Go module proxy",
                detail="\n".join(result.stdout.splitlines()[-30:]),
            )
        work.chmod(0o755)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
