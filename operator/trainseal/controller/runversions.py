"""What runs are made of, by version: whether anything of a run has changed since it was looked at.

Runs that are on are looked at each minute, whatever was heard of them, and nearly all are as they
were. So all that bears a run's label is listed without its content, a few requests for thousands of
runs, and a run that was in order is not read again while nothing of it has changed. The rules:

1. A look counts for what was listed before it began. What changed during a look shows as a change
   afterwards, and is looked at again.
2. Only what was found in order is remembered, and only where every part was among what was listed:
   of what has lost its label, no change would show.
3. Taken away, made anew, given the label or changed: each makes other versions of the run.

What a run depends on beyond these objects is for the caller to look at.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from trainseal.api.model import API_VERSION, JsonObject, json_object
from trainseal.api.sealedrun import SealedRun
from trainseal.cluster.api import Kube, KubeError, NotFoundError, path_of
from trainseal.engines.catalogue import ENGINES, kinds_above, names_above
from trainseal.engines.podtemplate import (
    LABEL_JOB,
    config_map_name,
    meets_by_service,
    service_name,
)

_log = logging.getLogger(__name__)
#: What was listed is good for so long; a look comes later by it at most.
FRESH_SECONDS = 20.0
_JOBS = "trainingjobs"
_LISTED = (
    (API_VERSION, _JOBS),
    (API_VERSION, "sealedruns"),
    ("batch/v1", "jobs"),
    ("v1", "configmaps"),
    ("v1", "services"),
    ("networking.k8s.io/v1", "networkpolicies"),
)
Key = tuple[str, str]
#: Plural and name.
Part = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Standing:
    """A run as it was listed: a digest of the versions of its parts, and which these are."""

    versions: bytes
    parts: frozenset[Part]


class RunVersions:
    """Lists when it is asked and what it has is too old; ``monotonic`` gives seconds."""

    def __init__(
        self,
        kube: Kube,
        monotonic: Callable[[], float] = time.monotonic,
        engines: Iterable[str] = (),
    ) -> None:
        """``engines``: of which runs may be."""
        self._kube = kube
        kinds = {kind for e in engines for kind in kinds_above(ENGINES[e])}
        roots = {(kind.api_version, kind.plural) for kind in kinds}
        self._kinds = (*_LISTED, *sorted(roots - set(_LISTED)))
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._listed: dict[Key, Standing] = {}
        self._at: float | None = None

    async def of(self, namespace: str, job: str) -> Standing | None:
        """The run of a TrainingJob; None where nothing of it was listed, or nothing can be."""
        async with self._lock:
            if self._at is None or self._monotonic() - self._at > FRESH_SECONDS:
                # What is listed is at least as new as this.
                at = self._monotonic()
                try:
                    self._listed = await self._list()
                except KubeError as error:
                    _log.warning("listing what runs are made of: %s", error)
                    return None
                self._at = at
        return self._listed.get((namespace, job))

    async def _list(self) -> dict[Key, Standing]:
        found: dict[Key, list[tuple[str, str, str, str]]] = defaultdict(list)
        for api_version, plural in self._kinds:
            query = {} if plural == _JOBS else {"labelSelector": LABEL_JOB}
            try:
                async for item in self._kube.metadata(path_of(api_version, plural), query):
                    job, name, uid, version = _read(item)
                    key = (str(item.get("namespace")), name if plural == _JOBS else job)
                    found[key].append((plural, name, uid, version))
            except NotFoundError:
                if (api_version, plural) in _LISTED:
                    raise
                # An engine's kind is not there: no run is made of one.
        return {key: _standing(parts) for key, parts in found.items()}


def parts_of(sealed: SealedRun) -> frozenset[Part]:
    """What a sealed run is made of, by the names that it was rendered under."""
    name, job = sealed.metadata.name, sealed.spec.job.name
    engine = ENGINES[sealed.spec.engine]
    owners = [(role.name, role.object_name) for role in sealed.spec.roles]
    found = {
        (_JOBS, job),
        ("sealedruns", name),
        ("networkpolicies", name),
        *((engine.OWNER.plural, role.object_name) for role in sealed.spec.roles),
        *((kind.plural, above) for kind, above in names_above(engine, job, owners)),
    }
    if sealed.spec.config_digest is not None:
        found.add(("configmaps", config_map_name(name)))
    sizes = (role.replicas for role in sealed.spec.roles)
    if meets_by_service(of_template=sealed.spec.launch is not None, sizes=sizes):
        found.add(("services", service_name(job)))
    return frozenset(found)


def _read(metadata: JsonObject) -> tuple[str, ...]:
    label = json_object(metadata.get("labels")).get(LABEL_JOB)
    return (str(label), *(str(metadata.get(f)) for f in ("name", "uid", "resourceVersion")))


def _standing(parts: Iterable[tuple[str, str, str, str]]) -> Standing:
    ordered = sorted(parts)
    # None of the four has a line break or a slash in it.
    text = "\n".join("/".join(part) for part in ordered)
    return Standing(
        hashlib.sha256(text.encode()).digest(),
        frozenset((plural, name) for plural, name, _, _ in ordered),
    )
