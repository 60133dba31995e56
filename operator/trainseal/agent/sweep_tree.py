"""Reading signed trees again: every file of a code or config mount against its manifest.

A pass goes over the whole tree in small steps, each with a budget of bytes that the caller sets:
``TreeSweep.bytes_a_second`` says which budget reads the tree within a set time. Where files
change between two passes and are changed back, nothing is seen here.

Directories are opened one below the other, and nothing but regular files is opened, never through
a symbolic link: what the tree has been made to look like leads nowhere else.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from trainseal.agent.files import Tree, entries_of
from trainseal.agent.observed import FOUND_BY, READING, Observation
from trainseal.api.findings import FindingId
from trainseal.provenance.manifests import TreeManifest

_CHUNK = 1024 * 1024
#: What a file costs beside its bytes: opening and looking at it.
_FILE_COST = 16 * 1024
#: Names in a tree beyond this are not walked; a signed tree has at most 65,536 files.
_MOST_NAMES = 200_000
#: Unlisted files that are named one by one in a pass; the rest in one observation.
_MOST_NAMED = 100


class OpenTree(Protocol):
    """Opens the root of the container, or raises OSError once that is gone."""

    def __call__(self) -> Tree: ...


@dataclass(frozen=True, slots=True)
class SignedTree:
    """A tree and where it is mounted in the container (its real path)."""

    manifest: TreeManifest
    path: str


class TreeSweep:
    """One signed tree, read pass after pass. Holds nothing open between two steps but one file."""

    def __init__(self, tree: SignedTree, root: OpenTree) -> None:
        self._tree = tree
        self._root = root
        self._signed = tree.manifest.digests
        self._work = self._pass()
        self._left = 0
        self._bytes = 0
        self.passes = 0
        self.bytes_of_last_pass: int | None = None

    def bytes_a_second(self, seconds: float) -> int:
        """The budget a second by which a pass takes at most so long; from the last pass, or for
        the first one a guess of 64 KiB a file.
        """
        known = self.bytes_of_last_pass
        return int((len(self._signed) * 64 * 1024 if known is None else known) / seconds) + 1

    def step(self, budget: int) -> list[Observation]:
        """Reads on, until about ``budget`` bytes are read or the pass is done; what was found.

        OSError once the container is gone.
        """
        self._left = budget
        found: list[Observation] = []
        while self._left > 0:
            try:
                seen = next(self._work)
            except StopIteration:
                self.passes += 1
                self.bytes_of_last_pass = self._bytes
                self._work = self._pass()
                break
            except OSError:
                self._work = self._pass()  # an ended generator would look like a finished pass
                raise
            if seen is not None:
                found.append(seen)
        return found

    def _pass(self) -> Iterator[Observation | None]:
        self._bytes = 0
        names: set[str] = set()
        unlisted = 0
        for path, status in self._walk():
            yield None
            signed = self._signed.get(path)
            if signed is None:
                unlisted += 1
                if unlisted <= _MOST_NAMED:
                    yield self._said(path, "the signed manifest does not list it", {})
                continue
            names.add(path)
            if not stat.S_ISREG(status.st_mode):
                yield self._said(path, "it is no regular file any more", _evidence(signed, None))
                continue
            yield from self._compared(path, signed)
        if unlisted > _MOST_NAMED:
            words = f"{unlisted - _MOST_NAMED} more files that the signed manifest does not list"
            yield self._said("", words, {"more": str(unlisted - _MOST_NAMED)})
        for path in self._signed.keys() - names:
            if self._status(path) is None:  # made anew while the tree was walked: next pass
                yield self._said(path, "it is missing", _evidence(self._signed[path], None))

    def _compared(self, path: str, signed: str) -> Iterator[Observation | None]:
        hasher = sha256()
        root = self._root()  # an OSError here says that the container is gone, not the file
        try:
            with root, root.regular(self._at(path)) as fd:
                at = 0
                while part := os.pread(fd, _CHUNK, at):
                    hasher.update(part)
                    at += len(part)
                    self._spend(len(part))
                    yield None
        except FileNotFoundError:
            return  # named as missing at the end of the pass
        except OSError as error:
            words = f"it cannot be read: {error.strerror}"
            yield self._said(path, words, _evidence(signed, None))
            return
        found = hasher.hexdigest()
        if found != signed:
            yield self._said(path, "its content is not as signed", _evidence(signed, found))

    def _walk(self) -> Iterator[tuple[str, os.stat_result]]:
        """Everything in the tree but directories, by its path within; bounded."""
        left = _MOST_NAMES
        pending = [""]
        while pending:
            directory = pending.pop()
            for name, status in self._entries(directory):
                left -= 1
                if left < 0:
                    return
                self._spend(_FILE_COST)
                path = f"{directory}/{name}" if directory else name
                if stat.S_ISDIR(status.st_mode):
                    pending.append(path)
                else:
                    yield path, status

    def _entries(self, directory: str) -> list[tuple[str, os.stat_result]]:
        with self._root() as root:
            try:
                fd = root.open(self._at(directory), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except (FileNotFoundError, NotADirectoryError):
                return []
            try:
                return sorted(entries_of(fd, _MOST_NAMES), key=lambda entry: entry[0])
            finally:
                os.close(fd)

    def _status(self, path: str) -> os.stat_result | None:
        with self._root() as root:
            return root.status(self._at(path))

    def _at(self, path: str) -> str:
        return f"{self._tree.path}/{path}" if path else self._tree.path

    def _spend(self, count: int) -> None:
        self._left -= count
        self._bytes += count

    def _said(self, path: str, words: str, evidence: dict[str, str]) -> Observation:
        at = self._at(path)
        name = self._tree.manifest.name
        return Observation(
            FindingId.TREE_CHANGED,
            f"{at} is not as the signed tree {name} has it: {words}",
            path=at,
            evidence={**evidence, FOUND_BY: READING},
            subject=at,
        )


def _evidence(signed: str, found: str | None) -> dict[str, str]:
    return {"signed": f"sha256:{signed}", "found": f"sha256:{found}" if found else "(no file)"}
