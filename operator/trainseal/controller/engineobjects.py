"""The engine's objects of a run: made, compared with the seal, found again, stopped."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object, metadata_name
from trainseal.api.sealedrun import SealedRun
from trainseal.api.trainingjob import TrainingJob
from trainseal.cluster.api import Kube, KubeError, NotFoundError
from trainseal.controller import objects
from trainseal.controller.liveobjects import LiveObjects
from trainseal.controller.objects import ForeignObjectError
from trainseal.controller.placing import resolved
from trainseal.controller.steering import Steering
from trainseal.engines import job as jobs
from trainseal.engines.catalogue import ENGINES, KINDS, OWNERS
from trainseal.engines.engine import Engine, Rendered, RenderedRole
from trainseal.provenance.boundseals import BoundRole
from trainseal.provenance.enginemarks import Marks
from trainseal.provenance.podmatch import PLACEMENT
from trainseal.provenance.seals import BoundUid

Json = Mapping[str, JsonValue]
#: Seconds until a run looks again for what an engine's controller is to make, and for whether it
#: has heard of what we made.
NOT_MADE_AGAIN = 5.0
_NOT_HEARD_AGAIN = 2.0
_REFUSALS = frozenset({403, 422})


class ObjectChangedError(Exception):
    """An object of the engine's is not what was sealed."""


class NotMadeYetError(Exception):
    """The engine's controller has not made of a root what is to own the pods, or knows nothing yet
    of what the root needs. ``again``: seconds until it is to be looked for again.
    """

    def __init__(self, words: str, again: float = NOT_MADE_AGAIN) -> None:
        super().__init__(words)
        self.again = again


class EngineObjects:
    """Makes and finds them. Raises KubeError where the API server cannot be asked."""

    def __init__(self, kube: Kube, steering: Steering) -> None:
        self._kube = kube
        self._steering = steering

    async def make(
        self, job: TrainingJob, sealed: SealedRun, rendered: Rendered, *, starts: bool
    ) -> LiveObjects:
        """All of them, with the pods that the seal holds and not those rendered anew: an upgrade
        between sealing and binding must not change them.

        They are suspended, but for the one Job of a run that ``starts`` now: its first pod may come
        before its binding, and then waits at the webhook. A Job that is resumed costs its
        controller, who may ask twenty times a second, four requests more (docs/decisions/0044).
        With a second one to be made first, pods would wait for what may not come.

        Raises ObjectChangedError, NotMadeYetError, ForeignObjectError.
        """
        engine = ENGINES[sealed.spec.engine]
        wanted = engine.with_templates(rendered, {r.name: r.template for r in sealed.spec.roles})
        beside = [
            (KINDS[str(obj["kind"])], await self._ensured(engine, job, wanted, obj))
            for obj in wanted.beside
        ]
        at_once = starts and len(wanted.roots) == 1
        roots = [
            await self._ensured(engine, job, wanted, root, at_once=at_once) for root in wanted.roots
        ]
        between: list[tuple[Engine, JsonObject]] = []
        above, maker = roots, engine
        for made, obj in zip(engine.BETWEEN, wanted.between, strict=True):
            live = await self._made(maker, obj, above)
            _compare_whole(engine, wanted, obj, live)
            between.append((made, live))
            above, maker = [live], made
        owners = {}
        for number, role in enumerate(wanted.roles):
            owner, added = roots[min(number, len(roots) - 1)], None
            if engine.OWNER != engine.ROOT:
                owner = await self._made(maker, role.owner, above)
                bound = _above(roots, [obj for _, obj in between])
                added = engine.added(_role(sealed, role, owner, bound))
            if found := changed_before_binding(role.owner, owner, added):
                raise _changed(engine.OWNER.kind, role.object_name, found)
            owners[role.name] = owner
        return LiveObjects(engine, tuple(roots), owners, tuple(beside), tuple(between))

    async def _ensured(
        self,
        engine: Engine,
        job: TrainingJob,
        wanted: Rendered,
        obj: JsonObject,
        *,
        at_once: bool = False,
    ) -> JsonObject:
        """A root, or what is beside it, as we make it; a root that starts ``at_once`` running."""
        running = engine.running(obj) if at_once else None
        try:
            live, is_new = await objects.ensure(
                self._kube, running or obj, job.metadata.uid, new=True
            )
        except KubeError as error:
            if obj not in wanted.roots or not wanted.beside or error.status not in _REFUSALS:
                raise
            # The engine's webhook looks for what is beside it, of which it may have heard nothing.
            raise NotMadeYetError(
                f"{obj['kind']} {metadata_name(obj)} is not taken yet: {error.message}",
                _NOT_HEARD_AGAIN,
            ) from error
        if running is not None and not is_new:
            # Whoever made it did not come to bind it, and its pods were refused meanwhile: once it
            # is resumed they are tried at once, and not a minute later.
            live = await self._steering.suspended(engine, live)
        _compare_whole(engine, wanted, obj, live)
        return live

    async def _made(
        self, engine: Engine, wanted: JsonObject, above: Sequence[JsonObject]
    ) -> JsonObject:
        """What an engine's controller made of its root."""
        metadata = json_object(wanted["metadata"])
        kind, namespace, name = (str(wanted["kind"]), str(metadata["namespace"]), metadata["name"])
        try:
            found = await self._kube.get(f"{objects.collection(kind, namespace)}/{name}")
        except NotFoundError:
            raise NotMadeYetError(
                f"waiting for {kind} {name}, which the controller of {engine.ROOT.kind} makes of "
                f"{metadata_name(above[0])}; if it does not come, see that this controller runs"
            ) from None
        if not any(objects.owned_by(found, objects.uid_of(obj)) for obj in above):
            raise ForeignObjectError.of(kind, namespace, str(name))
        return found

    async def live(self, sealed: SealedRun, bound: Sequence[BoundUid]) -> LiveObjects:
        """Those that the seal is bound to. Raises ObjectChangedError."""
        engine, namespace = ENGINES[sealed.spec.engine], sealed.metadata.namespace
        first = [item for item in bound if engine.OWNER == engine.ROOT or not item.role]
        live = {item.uid: await self._bound(namespace, item) for item in first}
        of_kind = [(item.kind, live[item.uid]) for item in first]
        found = LiveObjects(
            engine,
            tuple(obj for kind, obj in of_kind if kind == engine.ROOT.kind),
            {},
            tuple((KINDS[kind], obj) for kind, obj in of_kind if KINDS[kind] in engine.BESIDE),
            tuple((m, obj) for m in engine.BETWEEN for kind, obj in of_kind if kind == m.ROOT.kind),
        )
        ended = None not in found.outcomes()
        owners = {}
        for item in bound:
            if item.uid in live:
                owner = live[item.uid]
            elif ended:
                # Of a root that has ended the engine's controller takes away what still ran.
                try:
                    owner = await self._bound(namespace, item)
                except ObjectChangedError:
                    owner = {}
            else:
                owner = await self._bound(namespace, item)
            if item.role:
                owners[item.role] = owner
        return dataclasses.replace(found, owners=owners)

    async def _bound(self, namespace: str, item: BoundUid) -> JsonObject:
        path = f"{objects.collection(item.kind, namespace)}/{item.name}"
        try:
            live = await self._kube.get(path)
        except NotFoundError:
            raise ObjectChangedError(f"{item.kind} {item.name} of this run was deleted") from None
        if objects.uid_of(live) != item.uid:
            raise ObjectChangedError(
                f"{item.kind} {item.name} was deleted and made anew by somebody"
            )
        return live

    async def suspend_all(self, owner: str, sealed: SealedRun) -> None:
        """Suspends a run's objects, whoever changed them; ``owner``: its TrainingJob's UID."""
        engine, namespace = ENGINES[sealed.spec.engine], sealed.metadata.namespace
        binding = sealed.status.binding if sealed.status else None
        # An editor can take its owner off an object; what it was bound as stays.
        uids = {owner} | ({o.uid for o in binding.objects} if binding else set())
        names = [(role.name, role.object_name) for role in sealed.spec.roles]
        for made in (engine, *engine.BETWEEN):
            for name in engine.root_names(sealed.spec.job.name, names):
                with contextlib.suppress(NotFoundError):
                    path = objects.collection(made.ROOT.kind, namespace)
                    live = await self._kube.get(f"{path}/{name}")
                    if objects.uid_of(live) in uids or any(objects.owned_by(live, u) for u in uids):
                        uids.add(objects.uid_of(live))
                        await self._steering.hold_root(made, live)
        if engine.OWNER == engine.ROOT:
            return
        for _, name in names:
            with contextlib.suppress(NotFoundError):
                path = objects.collection(engine.OWNER.kind, namespace)
                live = await self._kube.get(f"{path}/{name}")
                if objects.uid_of(live) in uids or any(objects.owned_by(live, u) for u in uids):
                    await self._steering.hold_root(jobs, live)


def bound_uids(sealed: SealedRun, live: LiveObjects) -> tuple[BoundUid, ...]:
    """What a seal is to be bound to."""
    engine = live.engine
    made = [*(obj for _, obj in live.beside), *(obj for _, obj in live.between)]
    found = _above(live.roots, made) if engine.OWNER != engine.ROOT else ()
    return found + tuple(
        BoundUid(r.name, engine.OWNER.kind, r.object_name, objects.uid_of(live.owners[r.name]))
        for r in sealed.spec.roles
    )


def _above(roots: Sequence[JsonObject], others: Sequence[JsonObject]) -> tuple[BoundUid, ...]:
    """What owners are made from, the root first."""
    return tuple(
        BoundUid("", str(obj["kind"]), metadata_name(obj), objects.uid_of(obj))
        for obj in (*roots, *others)
    )


def _compare_whole(engine: Engine, wanted: Rendered, obj: JsonObject, live: JsonObject) -> None:
    """Raises ObjectChangedError where an object that holds pods, or what they are made from, is not
    what we made, or had made. Pods that it owns itself are compared as an owner's.
    """
    kind, name = str(obj["kind"]), metadata_name(obj)
    for field, _, _ in engine.root_changes(obj, live):
        raise _changed(kind, name, field)
    if kind == engine.OWNER.kind:
        return
    labels = json_object(json_object(live.get("metadata")).get("labels"))
    for label, value in json_object(json_object(obj["metadata"]).get("labels")).items():
        if labels.get(label) != value:
            raise _changed(kind, name, f"label {label}")
    for role in wanted.roles:
        at = engine.pods_at(obj, role.name).removesuffix("/spec")
        one, other = (
            _unplaced(jobs.template_of({"spec": {"template": resolved(o, at)}}))
            for o in (obj, live)
        )
        if at and one != other:
            raise _changed(kind, name, f"template of the pods of role {role.name}")


def changed_before_binding(wanted: Json, live: Json, added: Marks | None = None) -> str:
    """Which part of an owner of pods is not what we made, or had made; empty if none is.

    A Job that was put there before ours, under our name and with a copied owner reference, would
    else be bound with whatever it says of completions, success or who manages it. ``added``: what
    the engine's controller writes on it.
    """
    kind = OWNERS[str(wanted["kind"])]
    wanted, live = kind.as_job(wanted), kind.as_job(live)
    template = json_object(json_object(wanted.get("spec")).get("template"))
    if _unplaced(jobs.template_of(live, added)) != _unplaced(template):
        return "spec.template"
    own, found = json_object(wanted.get("spec")), json_object(live.get("spec"))
    # A narrower selector would give pods up, a wider one take others in.
    if found.get("selector") != own.get("selector"):
        return "spec.selector"
    # Suspension is looked after all the time.
    skipped = {"selector", "suspend", "template"}
    for field in sorted((own.keys() | found.keys()) - skipped):
        if field not in own or not objects.holds(own[field], found.get(field)):
            return f"spec.{field}"
    return ""


def _changed(kind: str, name: str, part: str) -> ObjectChangedError:
    return ObjectChangedError(
        f"{kind} {name} was changed before it was bound to its seal: found another {part}"
    )


def _role(
    sealed: SealedRun, role: RenderedRole, owner: JsonObject, above: tuple[BoundUid, ...]
) -> BoundRole:
    """The role as it will be bound."""
    return BoundRole(
        role=role.name,
        object_name=role.object_name,
        object_uid=objects.uid_of(owner),
        replicas=role.replicas,
        template={},
        namespace=sealed.metadata.namespace,
        engine=sealed.spec.engine,
        root=above[0],
        above=above[1:],
        peers=tuple(r.name for r in sealed.spec.roles),
    )


def _unplaced(template: Json) -> Json:
    """A template less placement, which is not signed and may be changed while suspended."""
    spec = {k: v for k, v in json_object(template.get("spec")).items() if k not in PLACEMENT}
    return {**template, "spec": spec}
