"""The manifests of a container's code mounts, without asking anybody for them.

The seal has each tree's digest. The agent hashes what is mounted; where that gives the sealed
digest, the contents are the signed ones, and the sweep holds the mount to them from then on. Where
it does not, that is a finding: between the gate and the first sweep somebody changed the mount.
The digest covers contents in the order of their names, not the names: a file that was renamed in
that time, keeping its place in the order, is taken for signed under its new name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from trainseal.agent.observed import Observation, WatchedContainer
from trainseal.agent.sweep_tree import SignedTree
from trainseal.api.findings import FindingId
from trainseal.provenance.manifests import ManifestError, TreeManifest
from trainseal.registry.tree_files import IgnoreRules, TreeFilesError, hash_files, list_files

#: The sealed digests of a container's code mounts, by volume name.
Sealed = Callable[[WatchedContainer], Mapping[str, str]]
_EVERYTHING = IgnoreRules(())


class SignedTrees:
    """By container; used from the sweep's thread alone."""

    def __init__(self, sealed: Sealed) -> None:
        self._sealed = sealed
        self._known: dict[str, tuple[SignedTree, ...]] = {}
        self._found: list[tuple[WatchedContainer, Observation]] = []

    def of(self, container: WatchedContainer) -> Sequence[SignedTree]:
        """The trees that are as sealed; read whole the first time. OSError where it is gone."""
        known = self._known.get(container.container_id)
        if known is None:
            known = tuple(self._read(container))
            self._known[container.container_id] = known
        return known

    def differing(self) -> Sequence[tuple[WatchedContainer, Observation]]:
        """What was not as sealed when it was first read, each once."""
        found, self._found = self._found, []
        return found

    def keep(self, containers: Sequence[WatchedContainer]) -> None:
        """Forgets all others."""
        ids = {c.container_id for c in containers}
        self._known = {i: trees for i, trees in self._known.items() if i in ids}

    def _read(self, container: WatchedContainer) -> list[SignedTree]:
        sealed, found = self._sealed(container), []
        for mount in container.mounts:
            digest = sealed.get(mount.name)
            if mount.role != "code" or digest is None:
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

    def _differs(self, container: WatchedContainer, path: str, sealed: str, found: str) -> None:
        self._found.append(
            (
                container,
                Observation(
                    FindingId.TREE_CHANGED,
                    f"the code mounted at {path} is not the sealed tree",
                    path=path,
                    evidence={"sealed digest": sealed, "found": found},
                ),
            )
        )
