"""Where a container takes code from: Python's trees, the dynamic linker's directories, PATH.

``find`` looks into the container's root once; what a path means is then decided from the text
alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from trainseal.agent.files import Tree

_TREE = re.compile(r"(?:python\d+(?:\.\d+)?|dist-packages|site-packages)")
_BELOW_TREE = re.compile(r"/lib(?:32|64)?/python\d+(?:\.\d+)?/|/(?:dist|site)-packages/")
_LIBRARY = re.compile(r"lib(?:32|64|x32)?")
#: What the names of both begin with.
_BEGINNINGS = ("python", "dist-", "site-", "lib")
_MODULE = re.compile(r".*\.(?:py|pyc|pyd|pth|egg-link|zip|egg)|.*\.so(?:\.[0-9.]+)?")
_SHARED = re.compile(r".*\.so(?:\.[0-9.]+)?")
#: Read by the dynamic linker, Python or NCCL wherever they start.
_ALWAYS = frozenset({"/etc/ld.so.preload", "/etc/ld.so.conf", "/etc/ld.so.cache", "/etc/nccl.conf"})
_ALWAYS_NAMES = frozenset({"sitecustomize.py", "usercustomize.py", ".nccl.conf", "pyvenv.cfg"})
_FIXED = ("/etc", "/etc/ld.so.conf.d", "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
_PROGRAMS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SKIPPED = frozenset(
    {"/proc", "/sys", "/dev", "/run", "/var", "/usr/share", "/usr/include", "/usr/src", "/boot"}
)
_DEPTH = 6
#: Directories that are looked into, and names that are looked at.
MOST_DIRECTORIES, MOST_NAMES = 20_000, 200_000
_MOST_CONF = 64 * 1024


@dataclass(frozen=True, slots=True)
class Loaders:
    """``trees``: Python imports from anywhere below; ``libraries`` and ``programs``: from just
    these directories. Real paths in the container. ``whole``: there were not too many directories
    to know them all.
    """

    trees: tuple[str, ...]
    libraries: frozenset[str]
    programs: frozenset[str]
    whole: bool = True

    def in_tree(self, path: str) -> bool:
        """Whether Python may import from there; a tree made later is known by its name."""
        return any(path.startswith(f"{tree}/") for tree in self.trees) or bool(
            _BELOW_TREE.search(path)
        )

    def imports(self, path: str) -> bool:
        """Whether a new file of this name is taken code from when something starts or imports."""
        parent, _, name = path.rpartition("/")
        if path in _ALWAYS or name in _ALWAYS_NAMES or name.endswith(".pth"):
            return True
        if parent == "/etc/ld.so.conf.d":
            return name.endswith(".conf")
        if parent in self.programs:
            return True
        if parent in self.libraries and _SHARED.fullmatch(name):
            return True
        return self.in_tree(path) and _MODULE.fullmatch(name) is not None

    @property
    def directories(self) -> tuple[str, ...]:
        """The directories whose own names matter, besides what lies below the trees."""
        return tuple(sorted({"/etc", *self.libraries, *self.programs}))


def find(root: Tree, env: Mapping[str, str | None], away: Iterable[str] = ()) -> Loaders:
    """``env`` names further directories; below ``away`` (mounts) nothing is looked for."""
    skipped = _SKIPPED | frozenset(away)
    trees, libraries, whole = _look(root, skipped)
    libraries |= _linker_directories(root) | _listed(env.get("LD_LIBRARY_PATH"))
    trees |= _listed(env.get("PYTHONPATH"))
    programs = _listed(_PROGRAMS) | _listed(env.get("PATH"))
    return Loaders(
        trees=_outermost(_real(root, trees)),
        libraries=frozenset(_real(root, libraries | set(_FIXED))) - {"/"},
        programs=frozenset(_real(root, programs)) - {"/"},
        whole=whole,
    )


def _look(root: Tree, skipped: frozenset[str]) -> tuple[set[str], set[str], bool]:
    """Directories named like Python's or the linker's, near the top of the root; and whether all
    directories there were looked into.
    """
    trees: set[str] = set()
    libraries: set[str] = set()
    directories = names = 0
    level = ["/"]
    for _ in range(_DEPTH):
        below: list[str] = []
        for directory in level:
            if directories >= MOST_DIRECTORIES or names >= MOST_NAMES:
                return trees, libraries, False
            directories += 1
            for entry in islice(root.entries(directory), MOST_NAMES - names):
                names += 1
                name, real = entry.name, entry.is_dir(follow_symlinks=False)
                if not real and not name.startswith(_BEGINNINGS):
                    continue  # files, mostly
                path = f"{directory.rstrip('/')}/{name}"
                if path in skipped:
                    continue
                if _TREE.fullmatch(name):  # or a link to one
                    trees.add(path)
                    continue
                if _LIBRARY.fullmatch(name):
                    libraries.add(path)
                if real:
                    below.append(path)
        level = below
    return trees, libraries, True


def _linker_directories(root: Tree) -> set[str]:
    found: set[str] = set()
    names = (f"/etc/ld.so.conf.d/{entry.name}" for entry in root.entries("/etc/ld.so.conf.d"))
    for path in ("/etc/ld.so.conf", *sorted(names)[:100]):
        text = (root.read(path, _MOST_CONF) or b"").decode(errors="replace")
        lines = (line.partition("#")[0].strip() for line in text.split("\n"))
        found.update(line.rstrip("/") for line in lines if line.startswith("/"))
    return found


def _listed(value: str | None) -> set[str]:
    return {part.rstrip("/") for part in (value or "").split(":") if part.startswith("/")} - {""}


def _real(root: Tree, paths: Iterable[str]) -> set[str]:
    return {real for path in paths if (real := root.real_directory(path)) is not None}


def _outermost(paths: set[str]) -> tuple[str, ...]:
    return tuple(
        sorted(
            p for p in paths - {"/"} if not any(p.startswith(f"{q}/") for q in paths if q != "/")
        )
    )
