"""Reads what a run leans on and has ``references`` compare it with the seal."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import datetime

from trainseal.api.model import (
    API_VERSION,
    InvalidObjectError,
    JsonObject,
    json_object,
    json_objects,
    metadata_name,
)
from trainseal.api.sealedrun import PLURAL, SealedRun
from trainseal.api.trainingjob import TrainingJob
from trainseal.cluster.api import path_of
from trainseal.controller import isolation, objects, references
from trainseal.controller.disturbances import timestamp
from trainseal.controller.ownreport import Seen
from trainseal.controller.runreads import read_findings
from trainseal.controller.runstate import LiveRun, read_run
from trainseal.controller.sealing import rendered_again
from trainseal.controller.world import World
from trainseal.engines.catalogue import ENGINES, OWNERS
from trainseal.engines.engine import Engine, Rendered
from trainseal.provenance.additions import Additions
from trainseal.provenance.boundseals import BoundRole, has_ended
from trainseal.provenance.canonical import CanonicalError
from trainseal.provenance.livepods import claims_of
from trainseal.provenance.memberships import sizes_told
from trainseal.provenance.sealedjobs import is_of, whole_job


async def reference_findings(
    world: World, run: LiveRun, additions: Additions | None
) -> tuple[list[Seen], bool]:
    """What is wrong with them, and whether all was compared; nothing of a run whose TrainingJob is
    gone. Raises KubeError.

    ``additions``: what the run's policies let a platform add; None where that is not known.
    """
    if run.job is None:
        return [], False
    job = _sealed_job(run)
    seen = [*_lost(run)]
    if job is not None:
        seen += [item async for item in _findings(world, run, job, additions)]
    if not seen:
        return [], job is not None
    # A TrainingJob that was deleted meanwhile took them along.
    again = await read_run(world.kube, run.key, run.seal, run.sealed, run.roles)
    return (seen, job is not None) if again.job is not None else ([], False)


def _sealed_job(run: LiveRun) -> TrainingJob | None:
    """The TrainingJob of a run that goes on, if it is the sealed one: `runs` holds another, and
    says so.
    """
    if run.job is None or has_ended(run.seal):
        return None
    try:
        return whole_job(run.sealed, run.job) if is_of(run.sealed, run.job) else None
    except (InvalidObjectError, CanonicalError):
        return None


async def _findings(
    world: World, run: LiveRun, job: TrainingJob, additions: Additions | None
) -> AsyncIterator[Seen]:
    engine = ENGINES[run.sealed.spec.engine]
    rendered = rendered_again(world, job, run.sealed)
    since = min((t for t in map(_made, run.engines.values()) if t is not None), default=None)
    for wanted in (rendered.config_map, rendered.service, rendered.network_policy):
        if wanted is None:
            continue
        name = str(json_object(wanted["metadata"])["name"])
        path = f"{objects.collection(str(wanted['kind']), run.key[0])}/{name}"
        live = await objects.found(world.kube, path)
        if wanted["kind"] == "NetworkPolicy" and live is not None:
            wanted = await _ours(world, run, wanted, live)
        for item in references.surroundings(wanted, live, job.metadata.uid, since):
            yield item
    for item in await _owners_now(world, run, engine, rendered, additions):
        yield item
    for item in _above(run, engine, rendered):
        yield item
    first_worker = job.status.start_time if job.status else None
    for item in await findings_beside(world, run.sealed, first_worker):
        yield item


async def findings_beside(
    world: World, sealed: SealedRun, first_worker: datetime | None
) -> list[Seen]:
    """What is wrong with what the run reads and is not made of: `runversions` tells nothing of it.

    ``first_worker``: when it started, by the TrainingJob. Raises KubeError.
    """
    seen = []
    for claim in sorted({c for r in sealed.spec.roles for c in claims_of(r.template)}):
        path = path_of("v1", "persistentvolumeclaims", sealed.metadata.namespace, claim)
        live = await objects.found(world.kube, path)
        replaced = references.replaced_claim(live, first_worker) if live else None
        if replaced is not None:
            seen.append(replaced)
    seen += [item async for item in read_findings(world, sealed)]
    return seen


async def _ours(world: World, run: LiveRun, ordinary: JsonObject, live: JsonObject) -> JsonObject:
    """What the NetworkPolicy is to be compared with: we change it by quarantine and its end."""
    forms = isolation.ours(ordinary, run.seal)
    if all(form["spec"] != live.get("spec") for form in forms):
        # If it was we, since the seal was read, the seal says so now.
        again = await objects.found(world.kube, path_of(API_VERSION, PLURAL, *run.key))
        forms = (*forms, *isolation.ours(ordinary, again or run.seal))
    return next((form for form in forms if form["spec"] == live.get("spec")), forms[-1])


async def _owners_now(
    world: World, run: LiveRun, engine: Engine, rendered: Rendered, additions: Additions | None
) -> list[Seen]:
    """What is wrong with the owners of the pods, and still is by the epochs that there are now."""
    seen = [*_owners(run, engine, rendered, additions)]
    if not seen or not run.epochs:
        return seen
    # If it was we who scaled it, since the seal was read, the seal says so now.
    again = await objects.found(world.kube, path_of(API_VERSION, PLURAL, *run.key))
    return [*_owners(replace(run, seal=again or run.seal), engine, rendered, additions)]


def _owners(
    run: LiveRun, engine: Engine, rendered: Rendered, additions: Additions | None
) -> Iterator[Seen]:
    own, owners = {r.name: r.owner for r in rendered.roles}, OWNERS[engine.OWNER.kind]
    for role in run.roles:
        live, wanted = run.engines[role.object_uid], own.get(role.role)
        if live is None or wanted is None or not run.stands(role.object_uid):
            continue
        wanted, live = owners.as_job(wanted), owners.as_job(live)
        size = _size_told(run, role, live)
        spec = {**json_object(wanted["spec"]), **size, "template": role.template}
        sealed = {**wanted, "spec": spec}
        allowed = additions if additions is not None else _as_found(live)
        if words := references.job_changes(sealed, live, allowed, engine.added(role)):
            name = f"{engine.OWNER.kind} {role.object_name}"
            yield references.changed(name, words, {"uid": role.object_uid})


def _size_told(run: LiveRun, role: BoundRole, live: JsonObject) -> JsonObject:
    """How many pods the Job of an elastic role is to have: those of the last epoch; or, as it is
    brought to that, those of an earlier one, or what it was made with.
    """
    if role.members is None:
        return {}
    has = json_object(live.get("spec")).get("completions")
    told = sizes_told(run.epochs, role.role)
    latest = [*sizes_told(run.epochs[-1:], role.role)]
    count = has if has in {role.replicas, *told} else next(iter(latest), role.members)
    return {"completions": count, "parallelism": count}


def _above(run: LiveRun, engine: Engine, rendered: Rendered) -> Iterator[Seen]:
    """What the owners were made from, where that are other objects."""
    if run.root_uid is None:
        return
    found: list[tuple[str, str, JsonObject | None]] = [
        (engine.ROOT.kind, run.root_uid, run.root),
        *((bound.kind, bound.uid, obj) for bound, obj in run.above.items()),
    ]
    for kind, uid, live in found:
        for wanted in (*rendered.roots, *rendered.beside, *rendered.between):
            if wanted["kind"] != kind or live is None or not run.stands(uid):
                continue
            if words := references.root_words(engine.root_changes(wanted, live)):
                yield references.changed(f"{kind} {metadata_name(wanted)}", words, {"uid": uid})


def _as_found(live: JsonObject) -> Additions:
    """What policies that have changed since may have let a platform write on the template."""
    template = json_object(json_object(live.get("spec")).get("template"))
    metadata = json_object(template.get("metadata"))
    return Additions(
        {},
        frozenset(json_object(metadata.get("labels"))),
        frozenset(json_object(metadata.get("annotations"))),
    )


def _lost(run: LiveRun) -> Iterator[Seen]:
    """A Job of the run that is gone while the TrainingJob stands.

    Of a run that has ended only where that was its end: Jobs that ended are cleaned up.
    """
    conditions = json_objects(json_object((run.job or {}).get("status")).get("conditions"))
    lost = [
        str(c.get("message"))
        for c in conditions
        if c.get("type") == "Complete" and c.get("reason") == "RunLost"
    ]
    if has_ended(run.seal) and not lost:
        return
    engine = ENGINES[run.sealed.spec.engine]
    parts = [
        (engine.ROOT.kind, root.name, root.uid, run.root)
        for root in {r.root for r in run.roles if r.root is not None}
    ]
    parts += [(bound.kind, bound.name, bound.uid, obj) for bound, obj in run.above.items()]
    if not run.root_ended:
        parts += [
            (engine.OWNER.kind, r.object_name, r.object_uid, run.engines[r.object_uid])
            for r in run.roles
        ]
    for kind, name, uid, live in parts:
        if not run.stands(uid):
            words = "it is gone" if live is None else "somebody made another of its name"
            yield references.deleted(f"{kind} {name}", words, uid, {"uid": uid})


def _made(obj: JsonObject | None) -> datetime | None:
    return timestamp(json_object((obj or {}).get("metadata")).get("creationTimestamp"))
