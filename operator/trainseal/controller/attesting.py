"""Makes the statement on a run that has ended, and makes it anew where more became known.

Called with each look at a run (``drift``), after its findings were believed and its manifests
signed. Level-triggered: what is to be said follows from the seal, the findings and the manifests;
where the last statement says so already, nothing is written.

The last files of a run are read, and their manifests made, up to a minute after its pods have gone
(``agent.checkpoints``); so the statement waits for that. One look lists a run's manifests only
where something that the statement says is not as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from prometheus_client import Counter

from trainseal.api.model import (
    API_VERSION,
    JsonObject,
    json_object,
    json_objects,
)
from trainseal.api.runstatement import PLURAL
from trainseal.api.sealedrun import SealedRun
from trainseal.cluster.api import ConflictError, path_of
from trainseal.controller import objects
from trainseal.controller.runmanifests import manifests_of
from trainseal.controller.sightings import Sighting, rank
from trainseal.controller.world import World
from trainseal.engines.podtemplate import LABEL_JOB, LABEL_SEAL, sealed_mounts
from trainseal.provenance import outputbundles, runstatements
from trainseal.provenance.checkpointmanifests import verify
from trainseal.provenance.keyrings import UntrustedError
from trainseal.provenance.manifests import ManifestError
from trainseal.provenance.runstatements import (
    Found,
    Manifest,
    Mount,
    Outputs,
    StatementTooLargeError,
    Watched,
)
from trainseal.provenance.statements import Statement

_log = logging.getLogger(__name__)
_SIGNED = Counter("trainseal_statements_total", "Statements on runs that have ended, signed.")
_UNSIGNED = Counter("trainseal_statements_failed_total", "Runs of which no statement fits.")
Key = tuple[str, str]
_OVER = frozenset({"Succeeded", "Failed", "Deleted"})
#: Agents send what a pod wrote last for so long after its end, and a little for the way.
SETTLES = timedelta(seconds=75)


class Attesting:
    """Statements on runs."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def reconcile(
        self,
        key: Key,
        seal: JsonObject,
        sightings: Sequence[Sighting],
        reports: Sequence[JsonObject],
        shapes: Sequence[JsonObject],
    ) -> float | None:
        """Of one run, whose binding was verified; ``shapes`` are its manifests as they are kept in
        memory, ``reports`` the DriftReports on it. Returns seconds until it wants to be looked at
        again. Raises KubeError.
        """
        status = json_object(seal.get("status"))
        if status.get("phase") not in _OVER or not isinstance(status.get("binding"), dict):
            return None
        sealed = SealedRun.parse(seal)
        ended = sealed.status.completion_time if sealed.status else None
        if ended is not None and (wait := self._settles(ended)) > 0:
            return wait
        path = path_of(API_VERSION, PLURAL, key[0], key[1])
        live = await objects.found(self._world.kube, path)
        last = self._last(key, live)
        watched = _watched(self._told(reports), sightings, status)
        mounts = mounts_of(sealed)
        if last is not None and _stands(last, seal, mounts, watched, shapes):
            await self._note(key, status, json_object((live or {}).get("status")))
            return None
        manifests, unsigned = await self._manifests(key)
        outputs = runstatements.outputs_of(manifests, unsigned)
        said = runstatements.content(seal, mounts, watched, outputs)
        if last is None or not runstatements.says(last, said):
            number = runstatements.number_of(last) + 1 if last else 1
            try:
                signed = self._signed(key, said, number, sightings)
            except StatementTooLargeError as error:
                _UNSIGNED.inc()
                _log.error("SealedRun %s/%s: no statement: %s", *key, error)
                return None
            live = live or await self._made(key, sealed)
            await objects.put_status(self._world.kube, path, live, signed)
            live = {**live, "status": signed}
            _SIGNED.inc()
        await self._note(key, status, json_object((live or {}).get("status")))
        return None

    def _settles(self, ended: datetime) -> float:
        """Seconds until all is known; nobody tells more where there are no agents."""
        if not self._world.settings.agents.enabled:
            return 0.0
        return (ended + SETTLES - self._world.clock()).total_seconds()

    def _told(self, reports: Sequence[JsonObject]) -> int | None:
        """Of how many pods an agent told; None where there are no agents."""
        if not self._world.settings.agents.enabled:
            return None
        return sum(json_object(r.get("spec")).get("reporter") == "Agent" for r in reports)

    def _last(self, key: Key, live: JsonObject | None) -> Statement | None:
        """The statement that stands; None where there is none, or it is not ours."""
        status = json_object((live or {}).get("status"))
        if not status:
            return None
        try:
            return runstatements.read(self._world.seal_keyring(), *key, status)
        except UntrustedError as error:
            _log.warning("%s; it is made anew", error)
            return None

    def _signed(
        self, key: Key, said: JsonObject, number: int, sightings: Sequence[Sighting]
    ) -> JsonObject:
        now = self._world.clock()
        status = runstatements.sign(self._world.seal_key, said, number, now)
        statement = runstatements.read(self._world.seal_keyring(), *key, status)
        if self._world.output_key is not None and runstatements.is_output(statement):
            try:
                files = outputbundles.files_of_statement(statement)
                tree = outputbundles.tree_of(key[1], files)
                status["outputs"] = outputbundles.sign(self._world.output_key, tree)
            except ManifestError as error:
                _log.warning("outputs of SealedRun %s/%s: no bundle: %s", *key, error)
        outcome = json_object(said.get("predicate")).get("outcome")
        ids = dict.fromkeys(s.finding.id for s in _worst_first(sightings))
        more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
        findings = ", ".join(list(ids)[:3]) + more
        return {**status, "outcome": outcome, "number": number} | (
            {"findings": findings[:256]} if findings else {}
        )

    async def _made(self, key: Key, sealed: SealedRun) -> JsonObject:
        obj: JsonObject = {
            "apiVersion": API_VERSION,
            "kind": "RunStatement",
            "metadata": {
                "name": key[1],
                "namespace": key[0],
                "labels": {LABEL_SEAL: key[1], LABEL_JOB: sealed.spec.job.name[:63]},
            },
            "spec": {"sealedRun": key[1]},
        }
        path = path_of(API_VERSION, PLURAL, key[0])
        try:
            return await self._world.kube.create(path, obj, strict=True)
        except ConflictError:
            return await self._world.kube.get(f"{path}/{key[1]}")

    async def _note(self, key: Key, before: JsonObject, statement: JsonObject) -> None:
        """Says in the seal what was signed, so that a statement that is gone is missed."""
        digest = runstatements.digest_of(str(statement.get("payload")).encode())
        if before.get("statement") != digest:
            path = path_of(API_VERSION, "sealedruns", *key, "status")
            await self._world.kube.patch(path, {"status": {"statement": digest}})

    async def _manifests(self, key: Key) -> tuple[list[Manifest], int]:
        """Those of the run that verify, and how many do not."""
        found, unsigned = [], 0
        async for obj in manifests_of(self._world.kube, *key):
            try:
                body = verify(self._world.seal_keyring(), obj)
            except UntrustedError:
                unsigned += 1
            else:
                found.append(Manifest(obj, runstatements.digest_of(body)))
        return found, unsigned


def mounts_of(sealed: SealedRun) -> tuple[Mount, ...]:
    """Claims that the run's pods read, each directory once."""
    found = (Mount(*m) for role in sealed.spec.roles for m in sealed_mounts(role.template))
    return tuple(dict.fromkeys(found))


def _watched(agents: int | None, sightings: Sequence[Sighting], status: JsonObject) -> Watched:
    by_id: dict[tuple[str, bool], list[Sighting]] = {}
    for sighting in _worst_first(sightings):
        by_id.setdefault((sighting.finding.id, sighting.proved), []).append(sighting)
    findings = [
        Found(
            id=id_,
            severity=met[0].finding.severity,
            things=len({s.mark for s in met}),
            times=sum(s.finding.count for s in met),
            proved=proved,
        )
        for (id_, proved), met in by_id.items()
    ]
    return Watched(
        agents, findings, json_object(status.get("drift")), json_object(status.get("taint"))
    )


def _stands(
    last: Statement,
    seal: JsonObject,
    mounts: Sequence[Mount],
    watched: Watched,
    shapes: Sequence[JsonObject],
) -> bool:
    """Whether a statement says what is known, as far as that can be told without any digest."""
    outputs = json_object(last.predicate.get("outputs"))
    subjects = tuple({"name": s.name, "digest": dict(s.digests)} for s in last.subjects)
    same = Outputs(subjects if runstatements.is_output(last) else (), outputs)  # type: ignore[arg-type]
    if not runstatements.says(last, runstatements.content(seal, mounts, watched, same)):
        return False
    told = [
        (m.get("name"), m.get("tainted"), m.get("accepted"))
        for m in json_objects(outputs.get("manifests"))
    ]
    signed = sorted((s for s in shapes if _is_signed(s)), key=_completed, reverse=True)
    known = [
        (
            json_object(s.get("metadata")).get("name"),
            json_object(json_object(s.get("status")).get("tainted")).get("finding"),
            json_object(json_object(s.get("status")).get("accepted")).get("user"),
        )
        for s in signed
    ]
    more = outputs.get("manifestsUnlisted")
    return (
        told == known[: runstatements.MAX_MANIFESTS]
        and len(told) + (more if isinstance(more, int) else 0) == len(known)
        and outputs.get("unsigned") == len(shapes) - len(known)
    )


def _is_signed(shape: JsonObject) -> bool:
    return bool(json_object(shape.get("status")).get("signature"))


def _completed(obj: JsonObject) -> tuple[str, str]:
    metadata, spec = json_object(obj.get("metadata")), json_object(obj.get("spec"))
    return str(spec.get("completed")), str(metadata.get("name"))


def _worst_first(sightings: Sequence[Sighting]) -> list[Sighting]:
    return sorted(sightings, key=lambda s: (-rank(s.finding.severity), s.finding.id, s.mark))
