"""Which manifests of a run nobody needs any more. Pure.

A trainer that keeps its last three checkpoints leaves thousands of manifests of files that are no
longer there. Those of a run beyond the newest few go where each file of theirs was overwritten
(another manifest of the run has it) or removed (the agent says so in a later one). What is tainted
stays, and so does what is young: the archive has seen it by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

#: Manifests of one run that stay in any case.
KEEP = 256
YOUNG = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A Checkpoint object as far as its age goes. ``pod`` is the UID of the pod it is about;
    ``shared``: its volume is a claim, which other pods of the run mount too.
    """

    name: str
    uid: str
    pod: str
    created: datetime
    files: frozenset[str]
    removed: frozenset[str]
    tainted: bool
    shared: bool = True


def surplus(manifests: Sequence[Manifest], now: datetime, keep: int) -> list[Manifest]:
    """Those that go beyond the newest ``keep``, the oldest first."""
    ordered = sorted(manifests, key=lambda m: (m.created, m.name))
    most = len(ordered) - keep
    if most <= 0:
        return []
    written: set[tuple[str, str]] = set()
    removed: set[tuple[str, str]] = set()
    found = []
    for manifest in reversed(ordered):
        pod, volume = manifest.pod, "" if manifest.shared else manifest.pod
        over = all((volume, f) in written or (pod, f) in removed for f in manifest.files)
        if over and not manifest.tainted and now - manifest.created >= YOUNG:
            found.append(manifest)
        written |= {(volume, f) for f in manifest.files}
        removed |= {(pod, f) for f in manifest.removed}
    return found[::-1][:most]
