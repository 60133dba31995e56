"""Where a container takes code from: Python's trees, the dynamic linker's directories, PATH.

``find`` looks into the container's root once; what a path means is then decided from the text
alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trainseal.agent.files import Tree
from trainseal.agent.layers import names_in

_TREE = re.compile(r"(?:python\d+(?:\.\d+)?|dist-packages|site-packages)")
_BELOW_TREE = re.compile(r"/lib(?:32|64)?/python\d+(?:\.\d+)?/|/(?:dist|site)-packages/")
_LIBRARY = re.compile(r"lib(?:32|64|x32)?")
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
_MOST_LOOKED_AT = 8_000
_MOST_CONF = 64 * 1024


@dataclass(frozen=True, slots=True)
class Loaders:
    """``trees``: Python imports from anywhere below; ``libraries`` and ``programs``: from just
    these directories. Real paths in the container.
    """

    trees: tuple[str, ...]
    libraries: frozenset[str]
    programs: frozenset[str]

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
    trees, libraries = _look(root, skipped)
    libraries |= _linker_directories(root) | _listed(env.get("LD_LIBRARY_PATH"))
    trees |= _listed(env.get("PYTHONPATH"))
    programs = _listed(_PROGRAMS) | _listed(env.get("PATH"))
    return Loaders(
        trees=_outermost(_real(root, trees)),
        libraries=frozenset(_real(root, libraries | set(_FIXED))) - {"/"},
        programs=frozenset(_real(root, programs)) - {"/"},
    )


def _look(root: Tree, skipped: frozenset[str]) -> tuple[set[str], set[str]]:
    """Directories named like Python's or the linker's, near the top of the root."""
    trees: set[str] = set()
    libraries: set[str] = set()
    left = _MOST_LOOKED_AT
    level = ["/"]
    for _ in range(_DEPTH):
        below: list[str] = []
        for directory in level:
            for name in names_in(root, directory):
                if left == 0:
                    return trees, libraries
                path = f"{directory.rstrip('/')}/{name}"
                if "." in name and not _TREE.fullmatch(name) and not name.startswith("."):
                    continue  # files, mostly
                if path in skipped:
                    continue
                left -= 1
                if _TREE.fullmatch(name):
                    trees.add(path)
                else:
                    below.append(path)
                    if _LIBRARY.fullmatch(name):
                        libraries.add(path)
        level = below
    return trees, libraries


def _linker_directories(root: Tree) -> set[str]:
    found: set[str] = set()
    names = (f"/etc/ld.so.conf.d/{name}" for name in names_in(root, "/etc/ld.so.conf.d"))
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
