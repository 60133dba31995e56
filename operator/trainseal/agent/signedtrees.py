"""The manifests of a container's code and config mounts, without asking anybody for them.

*Code*: the seal has each tree's digest. The agent hashes what is mounted; where that gives the
sealed digest, the contents are the signed ones, and the sweep holds the mount to them from then on.
Where it does not, that is a finding: between the gate and the first sweep somebody changed the
mount. The digest covers contents in the order of their names, not the names: a file that was
renamed in that time, keeping its place in the order, is taken for signed under its new name.

*Config*: the seal has each file's digest, in the arguments of the gate that wrote them. So the
manifest is known before anything is read, and the sweep's first pass is a comparison already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from trainseal.agent.observed import (
    FOUND_BY,
    READING,
    Observation,
    Role,
    RoleMount,
    WatchedContainer,
)
from trainseal.agent.sealedtemplates import SealedTrees
from trainseal.agent.sweep_tree import SignedTree
from trainseal.api.findings import FindingId
from trainseal.provenance.manifests import ManifestError, TreeManifest
from trainseal.registry.tree_files import IgnoreRules, TreeFilesError, hash_files, list_files

#: What the signed mounts of a container's pod hold; None where the pod is gone.
Sealed = Callable[[WatchedContainer], SealedTrees | None]
_EVERYTHING = IgnoreRules(())
#: A container, and its mounts: one before the gate gets more of them.
_Key = tuple[str, tuple[RoleMount, ...]]


class SignedTrees:
    """By container; used from the sweep's thread alone."""

    def __init__(self, sealed: Sealed) -> None:
        self._sealed = sealed
        self._known: dict[_Key, tuple[SignedTree, ...]] = {}
        self._found: list[tuple[WatchedContainer, Observation]] = []

    def of(self, container: WatchedContainer) -> Sequence[SignedTree]:
        """The code trees that are as sealed, read whole the first time, and the config's files.

        OSError where it is gone.
        """
        known = self._known.get(_key(container))
        if known is None:
            sealed = self._sealed(container)
            if sealed is None:
                return ()
            known = (*self._code(container, sealed.code), *self._config(container, sealed.config))
            self._known[_key(container)] = known
        return known

    def differing(self) -> Sequence[tuple[WatchedContainer, Observation]]:
        """What was not as sealed when it was first read, each once."""
        found, self._found = self._found, []
        return found

    def keep(self, containers: Sequence[WatchedContainer]) -> None:
        """Forgets all others."""
        keys = set(map(_key, containers))
        self._known = {key: trees for key, trees in self._known.items() if key in keys}

    def _code(self, container: WatchedContainer, sealed: Mapping[str, str]) -> list[SignedTree]:
        found = []
        for mount in _of_role(container, "code"):
            digest = sealed.get(mount.name)
            if digest is None:
                continue
            folder = Path(f"{container.root}{mount.path}")
            try:
                files = list_files(folder, _EVERYTHING)
                manifest = TreeManifest.of("code", hash_files(folder, files, threads=1))
            except (TreeFilesError, ManifestError) as error:
                self._differs(container, mount.path, digest, str(error))
                continue
            if manifest.root_digest == digest:
                found.append(SignedTree(manifest, mount.path))
            else:
                self._differs(container, mount.path, digest, manifest.root_digest)
        return found

    def _config(self, container: WatchedContainer, sealed: Mapping[str, str]) -> list[SignedTree]:
        mounts = _of_role(container, "config")
        try:
            files = {name: digest.removeprefix("sha256:") for name, digest in sealed.items()}
            manifest = TreeManifest.of("config", files) if mounts else None
        except ManifestError as error:
            self._found += [(container, _unread(m.path, str(error))) for m in mounts]
            return []
        return [SignedTree(manifest, m.path) for m in mounts if manifest is not None]

    def _differs(self, container: WatchedContainer, path: str, sealed: str, found: str) -> None:
        self._found.append(
            (
                container,
                Observation(
                    FindingId.TREE_CHANGED,
                    f"the code mounted at {path} is not the sealed tree",
                    path=path,
                    evidence={"sealed digest": sealed, "found": found, FOUND_BY: READING},
                ),
            )
        )


def _key(container: WatchedContainer) -> _Key:
    return container.container_id, container.mounts


def _of_role(container: WatchedContainer, role: Role) -> list[RoleMount]:
    return [m for m in container.mounts if m.role == role]


def _unread(path: str, why: str) -> Observation:
    return Observation(
        FindingId.WATCH_BLIND,
        f"the config mounted at {path} is not read again: the gate's sealed arguments give no "
        f"digests to hold it to ({why})",
        subject=f"config {path}",
    )
