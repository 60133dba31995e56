"""The engine's objects of a run: made, compared with the seal, found again, stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object, metadata_name
from trainseal.api.sealedrun import SealedRun
from trainseal.api.trainingjob import TrainingJob
from trainseal.cluster.api import Kube, NotFoundError
from trainseal.controller import objects
from trainseal.controller.liveobjects import LiveObjects
from trainseal.controller.objects import ForeignObjectError
from trainseal.controller.steering import Steering
from trainseal.engines import job as jobs
from trainseal.engines.catalogue import ENGINES, OWNERS
from trainseal.engines.engine import Engine, Rendered, RenderedRole
from trainseal.provenance.boundseals import BoundRole
from trainseal.provenance.enginemarks import Marks
from trainseal.provenance.podmatch import PLACEMENT
from trainseal.provenance.seals import BoundUid

Json = Mapping[str, JsonValue]


class ObjectChangedError(Exception):
    """An object of the engine's is not what was sealed."""


class NotMadeYetError(Exception):
    """The engine's controller has not made of a root what is to own the pods."""


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
        roots = []
        at_once = starts and len(wanted.roots) == 1
        for root in wanted.roots:
            made = (engine.running(root) if at_once else None) or root
            live, is_new = await objects.ensure(self._kube, made, job.metadata.uid, new=True)
            if not is_new:
                # Whoever made it did not come to bind it, and its pods were refused meanwhile: once
                # it is resumed they are tried at once, and not a minute later.
                live = await self._steering.suspended(engine, live)
            for field, _, _ in engine.root_changes(root, live):
                raise _changed(engine.ROOT.kind, metadata_name(root), field)
            roots.append(live)
        owners = {}
        for number, role in enumerate(wanted.roles):
            owner, added = roots[min(number, len(roots) - 1)], None
            if engine.OWNER != engine.ROOT:
                owner = await self._made(engine, sealed.metadata.namespace, role, roots)
                added = engine.added(_role(sealed, role, owner, roots[0]))
            if found := changed_before_binding(role.owner, owner, added):
                raise _changed(engine.OWNER.kind, role.object_name, found)
            owners[role.name] = owner
        return LiveObjects(engine, tuple(roots), owners)

    async def _made(
        self, engine: Engine, namespace: str, role: RenderedRole, roots: Sequence[JsonObject]
    ) -> JsonObject:
        """What the engine's controller made of its root for a role."""
        kind, name = engine.OWNER.kind, role.object_name
        try:
            found = await self._kube.get(f"{objects.collection(kind, namespace)}/{name}")
        except NotFoundError:
            raise NotMadeYetError(
                f"waiting for {kind} {name}, which the controller of {engine.ROOT.kind} makes of "
                f"{metadata_name(roots[0])}; if it does not come, see that this controller runs"
            ) from None
        if not any(objects.owned_by(found, objects.uid_of(root)) for root in roots):
            raise ForeignObjectError.of(kind, namespace, name)
        return found

    async def live(self, sealed: SealedRun, bound: Sequence[BoundUid]) -> LiveObjects:
        """Those that the seal is bound to. Raises ObjectChangedError."""
        engine, namespace = ENGINES[sealed.spec.engine], sealed.metadata.namespace
        roots = [item for item in bound if engine.OWNER == engine.ROOT or not item.role]
        live = {item.uid: await self._bound(namespace, item) for item in roots}
        ended = all(engine.outcome(root) is not None for root in live.values())
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
        return LiveObjects(engine, tuple(live.values()), owners)

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
        for name in engine.root_names(sealed.spec.job.name, names):
            with contextlib.suppress(NotFoundError):
                path = objects.collection(engine.ROOT.kind, namespace)
                live = await self._kube.get(f"{path}/{name}")
                if objects.owned_by(live, owner) or objects.uid_of(live) in uids:
                    uids.add(objects.uid_of(live))
                    await self._steering.hold_root(engine, live)
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
    engine, found = live.engine, []
    if engine.OWNER != engine.ROOT:
        found = [
            BoundUid("", engine.ROOT.kind, metadata_name(root), objects.uid_of(root))
            for root in live.roots
        ]
    found += [
        BoundUid(r.name, engine.OWNER.kind, r.object_name, objects.uid_of(live.owners[r.name]))
        for r in sealed.spec.roles
    ]
    return tuple(found)


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


def _role(sealed: SealedRun, role: RenderedRole, owner: JsonObject, root: JsonObject) -> BoundRole:
    """The role as it will be bound."""
    engine = ENGINES[sealed.spec.engine]
    return BoundRole(
        role=role.name,
        object_name=role.object_name,
        object_uid=objects.uid_of(owner),
        replicas=role.replicas,
        template={},
        namespace=sealed.metadata.namespace,
        engine=sealed.spec.engine,
        root=BoundUid("", engine.ROOT.kind, metadata_name(root), objects.uid_of(root)),
        peers=tuple(r.name for r in sealed.spec.roles),
    )


def _unplaced(template: Json) -> Json:
    """A template less placement, which is not signed and may be changed while suspended."""
    spec = {k: v for k, v in json_object(template.get("spec")).items() if k not in PLACEMENT}
    return {**template, "spec": spec}
