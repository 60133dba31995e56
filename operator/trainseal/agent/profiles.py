"""What of one rank is compared with the others: gathered for a container, and as its report has it.

Pure. What is each rank's own by nature must not look like a difference:

- Where a rank, a process or a host is counted in a name or value, the number says nothing; nor does
  the pod's own name, nor what ``mkdtemp`` made up.
- Code from the mounts that all ranks share or each writes (data, checkpoints, scratch) is left out:
  compilers keep their caches there, and no two ranks need have the same in them.
- Other new code of the writable layer counts by where it lies, two directories deep: a cache in a
  home directory is one place, however many files of it a rank happened to load.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from datetime import datetime

from trainseal.agent.ledger import cut
from trainseal.agent.loadervariables import parts
from trainseal.agent.observed import Observation, Profile, WatchedContainer
from trainseal.agent.origins import Origin
from trainseal.api.driftreport import (
    MAX_PROFILE_ENTRIES,
    MAX_PROFILES,
    ContainerProfile,
    ProfileEntry,
    ProfilePart,
)
from trainseal.api.findings import FindingId
from trainseal.api.model import JsonObject

#: Things that ran since the start, at most; later ones are left out.
_MOST = 512
_TEXT = 512
#: Of all profiles of a pod, listed things: a report has room for 512 KiB of findings besides.
_MOST_BYTES = 256 * 1024
_DEPTH = 2
_NUMBERS = re.compile(r"\d+")
_MADE_UP = re.compile(r"(?<=/)tmp[A-Za-z0-9_]{6,12}(?=/|$)")
_CODE = frozenset(
    {
        FindingId.EXEC_FOREIGN,
        FindingId.EXEC_DELETED,
        FindingId.MAP_FOREIGN,
        FindingId.MAP_DELETED,
    }
)
_MEMORY = frozenset({FindingId.EXEC_MEMORY, FindingId.MAP_MEMORY})


class Gathering:
    """The code and the variables of one container, as its sweeps find them."""

    def __init__(self, container: WatchedContainer) -> None:
        self._container = container
        self._code: dict[str, str] = {}

    def saw(self, seen: Observation, origin: Origin, *, named: bool) -> None:
        """Takes what a sweep found; of files where it comes from, and whether the image has the
        name or code is loaded from there by name.
        """
        found = self._entry(seen, origin, named=named)
        if found is not None and (found[0] in self._code or len(self._code) < _MOST):
            self._code[found[0]] = found[1]

    def profile(
        self, files: Mapping[str, str] | None, loaders: Mapping[str, tuple[str, ...]]
    ) -> Profile:
        """As of now; ``loaders`` are the first process's variables that name code."""
        # What a new file in such a place says, the files say already.
        said = files or {}
        code = {name: value for name, value in self._code.items() if said.get(name) != value}
        return Profile(files, code, self._environment(loaders))

    def _entry(self, seen: Observation, origin: Origin, *, named: bool) -> tuple[str, str] | None:
        evidence, path = seen.evidence, seen.path or ""
        digest = evidence.get("digest", "")
        if seen.finding is FindingId.ENV_LOADER:
            program = seen.lineage.chain[0].executable if seen.lineage else ""
            name = f"{evidence.get('variable')} of {program.rpartition('/')[2]}"
            return name, self._plain(evidence.get("value", ""))
        if seen.finding is FindingId.TREE_CHANGED:
            return path, evidence.get("found", "")
        if seen.finding in _MEMORY:
            return self._plain(path), ""
        if seen.finding not in _CODE or self._container.mount_of(path) is not None:
            return None
        if named:
            return path, digest
        in_root = origin in ("image", "upper", "unknown")
        return self._plain(_place(path) if in_root else path), ""

    def _environment(self, loaders: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
        sealed = self._container.env
        found = {}
        for name, values in loaders.items():
            if not any(parts(name, value) for value in values):
                continue  # a switch, or a word that names no code
            if name in sealed and sealed[name] is None:
                found[name] = "as known at run time"
            elif any(value != sealed.get(name) for value in values):
                found[name] = "; ".join(sorted(self._plain(value) for value in values))
        return found

    def _plain(self, text: str) -> str:
        """Without what is this rank's own by nature."""
        for own in (self._container.pod, self._container.pod_uid):
            text = text.replace(own, "*")
        return _NUMBERS.sub("#", _MADE_UP.sub("tmp*", text))


def report_of(container: str, started: datetime, profile: Profile) -> ContainerProfile:
    """The profile as the pod's report has it."""
    return ContainerProfile(
        container=container,
        started=started.replace(microsecond=0),
        files=None if profile.files is None else _part(profile.files),
        code=_part(profile.code),
        environment=_part(profile.environment),
    )


def wire_of(profiles: Iterable[ContainerProfile]) -> list[JsonObject]:
    """All of a pod's as its report holds them: within bounds, beyond which things are no longer
    listed, or a container is left out.
    """
    found: list[JsonObject] = []
    left = _MOST_BYTES
    for profile in profiles:
        size = len(profile.model_dump_json(by_alias=True).encode())
        if size > left:
            bare = {
                name: part.model_copy(update={"entries": None})
                for name in ("files", "code", "environment")
                if isinstance(part := getattr(profile, name), ProfilePart)
            }
            profile = profile.model_copy(update=bare)
        else:
            left -= size
        if len(found) < MAX_PROFILES:
            found.append(profile.wire())
    return found


def _part(entries: Mapping[str, str]) -> ProfilePart:
    hasher = hashlib.sha256()
    for name in sorted(entries):
        for text in (name, entries[name]):
            hasher.update(text.encode("utf-8", "surrogateescape") + b"\0")
    last = sorted(list(entries.items())[-MAX_PROFILE_ENTRIES:])
    return ProfilePart(
        digest=f"sha256:{hasher.hexdigest()}",
        count=len(entries),
        entries=[ProfileEntry(name=cut(n, _TEXT), value=cut(v, _TEXT)) for n, v in last] or None,
    )


def _place(path: str) -> str:
    """``/root/.triton/…`` of all that lies deeper."""
    steps = path.split("/")
    return path if len(steps) <= _DEPTH + 1 else "/".join([*steps[: _DEPTH + 1], "…"])
