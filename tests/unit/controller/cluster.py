"""An API server in memory, as far as the controller uses one, and the Job controller beside it.

What it refuses, and what it adds to a Job, is what a real one does (``world.stored_job``; placement
of a Job that is on: kubernetes pkg/apis/batch/validation). ``writes`` are counted, and the one that
``dies_after`` names is the last that a controller makes: it is done, and then the controller dies.
A placement, which is a JSON patch, is written down as PLACE, another change as PATCH.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.unit import world
from trainseal.cluster.api import ConflictError, KubeError, NotFoundError
from trainseal.cluster.settings import Settings
from trainseal.controller.ownreport import Seen
from trainseal.controller.queueing import Kept
from trainseal.controller.runs import Runs
from trainseal.controller.runversions import RunVersions
from trainseal.controller.world import World
from trainseal.provenance.canonical import job_digest
from trainseal.provenance.policies import CompiledPolicy
from trainseal.provenance.tickets import TICKET_ANNOTATION, Ticket, issue_ticket
from trainseal.verifier.jobs import JobVerifier

Object = dict[str, Any]
KEY = ("research", "char-lm")
OURS = "/apis/trainseal.dev/v1alpha1/namespaces/research"
JOB = f"{OURS}/trainingjobs/char-lm"
ENGINE = "/apis/batch/v1/namespaces/research/jobs/char-lm-worker"
EVENTS = "/api/v1/namespaces/research/events"
#: Looks after which a job must have come to rest.
LOOKS = 64


class DiedError(Exception):
    """The controller was killed."""


@dataclass
class Cluster:
    """Objects by path. Stands in for ``cluster.api.Kube``."""

    objects: dict[str, Object] = field(default_factory=dict)
    evidence: world.Evidence = field(default_factory=world.Evidence)
    writes: list[str] = field(default_factory=list)
    policy: CompiledPolicy = field(default_factory=world.policy)
    now: datetime = world.NOW
    dies_after: int | None = None
    deaths: int = 0
    #: Paths of the objects that were read, but for lists of versions.
    reads: list[str] = field(default_factory=list)
    #: Seconds of the controller's clock.
    seconds: float = 0.0
    #: Names of AdmissionChecks that are ours.
    checks: set[str] = field(default_factory=set)
    #: Answers to writes, by what is written down of them.
    refuses: dict[str, KubeError] = field(default_factory=dict)
    #: Whether a watch has told of seals whose run has not ended; and collections that were listed.
    may_be_open: bool = True
    lists: list[str] = field(default_factory=list)
    #: Values of the controller's configuration.
    settings: Object = field(default_factory=dict)

    # As the API server ----------------------------------------------------------------------------

    async def get(self, path: str) -> Object:
        self.reads.append(path)
        if path not in self.objects:
            raise NotFoundError(404, "NotFound", f"{path} not found")
        return copy.deepcopy(self.objects[path])

    async def get_metadata(self, path: str) -> Object:
        found = await self.get(path)
        return {"kind": "PartialObjectMetadata", "metadata": found["metadata"]}

    async def request(self, method: str, path: str, *, query: Object | None = None) -> Object:
        assert method == "GET"
        self.lists.append(path)
        found = [
            copy.deepcopy(obj)
            for at, obj in sorted(self.objects.items())
            if at.rpartition("/")[0] == path and _selected(obj, query or {})
        ]
        start, size = int((query or {}).get("continue", 0)), int((query or {}).get("limit", 500))
        more = {"continue": str(start + size)} if start + size < len(found) else {}
        return {"items": found[start : start + size], "metadata": more}

    async def metadata(self, path: str, query: Object) -> AsyncIterator[Object]:
        """As if each object had a version for what it says."""
        plural = path.rpartition("/")[2]
        for at, obj in sorted(self.objects.items()):
            in_it = at.rpartition("/")[0].endswith(f"/{plural}")
            if in_it and _selected(obj, query):
                says = hashlib.sha256(json.dumps(obj, sort_keys=True, default=str).encode())
                version = {"namespace": KEY[0], "resourceVersion": says.hexdigest()}
                yield {**copy.deepcopy(obj["metadata"]), **version}

    async def create(
        self, path: str, obj: Object, *, dry_run: bool = False, strict: bool = False
    ) -> Object:
        assert strict or obj["kind"] != "SealedRun", "a misspelt field would be dropped in silence"
        place = f"{path}/{obj['metadata']['name']}"
        if place in self.objects:
            raise ConflictError(409, "AlreadyExists", f"{place} exists")
        if dry_run:
            if error := self.refuses.get(f"TRY {place}"):
                raise error
            return world.stored_job(obj, "dry-run") if obj["kind"] == "Job" else obj
        self._may_write(f"POST {place}")
        uid = f"uid-{len(self.objects)}"
        stored = copy.deepcopy(obj)
        stored["metadata"] |= {"uid": uid, "creationTimestamp": "2026-11-23T12:00:00Z"}
        self.objects[place] = world.stored_job(obj, uid) if obj["kind"] == "Job" else stored
        return self._written(place)

    async def patch(
        self, path: str, patch: Any, content_type: str = "application/merge-patch+json"
    ) -> Object:
        status = path.endswith("/status")
        place = path.removesuffix("/status")
        found = await self.get(place)
        placing = isinstance(patch, list) and not status
        self._may_write(f"{'PLACE' if placing else 'PATCH'} {path}")
        if isinstance(patch, list):
            assert content_type == "application/json-patch+json"
            changed = _operated(found, patch)
        else:
            uid = patch.get("metadata", {}).get("uid", found["metadata"]["uid"])
            if uid != found["metadata"]["uid"] and not status:  # a status' takes any, as 1.36 does
                raise ConflictError(409, "Conflict", "another uid")
            changed = _merged(found, patch)
        changed["status" if not status else "spec"] = found.get("status" if not status else "spec")
        if place == ENGINE:
            _check_update(found, changed)
        self.objects[place] = {k: v for k, v in changed.items() if v is not None}
        return self._written(place, path)

    def _may_write(self, what: str) -> None:
        if error := self.refuses.get(what):
            raise error
        self.writes.append(what)

    def _written(self, place: str, path: str = "") -> Object:
        if self.dies_after == len(self.writes):
            self.deaths += 1
            raise DiedError(path or place)
        return copy.deepcopy(self.objects[place])

    # As people and the cluster --------------------------------------------------------------------

    def submit(self, change: Callable[[Object], object] | None = None) -> None:
        """A signed job as the webhook lets it in; ``change`` is made before it is signed."""
        job = world.signed_job(change)
        ticket = Ticket("bob@example.org", "uid-bob", job_digest(job), world.NOW)
        job["metadata"] |= {
            "generation": 1,
            "annotations": {TICKET_ANNOTATION: issue_ticket(world.TICKET_KEY, ticket)},
        }
        self.objects[JOB] = job

    def launch(self, template: Object, name: str = "sweep-x7k2f", **spec: Any) -> None:
        """A job of a template, as the webhook lets it in."""
        self.objects[f"{OURS}/trainingtemplates/{template['metadata']['name']}"] = template
        job = world.launched_job(template, **spec)
        job["metadata"] |= {"name": name, "uid": f"{name[-5:]}-{world.JOB_UID}", "generation": 1}
        ticket = Ticket("bob@example.org", "uid-bob", job_digest(job), world.NOW)
        job["metadata"]["annotations"] = {TICKET_ANNOTATION: issue_ticket(world.TICKET_KEY, ticket)}
        self.objects[f"{OURS}/trainingjobs/{name}"] = job

    def edit(self, **spec: Any) -> None:
        """An editor's change of what is not signed."""
        job = self.objects[JOB]
        job["spec"] |= spec
        job["metadata"]["generation"] += 1

    def engine(self, **status: Any) -> None:
        """The Job controller's word."""
        self.objects[ENGINE]["status"] = status

    def works(self) -> bool:
        """What the Job controller does next; False where there is nothing to do."""
        job = self.objects.get(ENGINE)
        if job is None or job["spec"]["suspend"] or self.status.get("phase") == "Succeeded":
            return False
        status = job.get("status", {})
        if status.get("ready"):
            done = {"type": "Complete", "status": "True"}
            self.engine(startTime="2026-11-23T12:00:00Z", succeeded=2, conditions=[done])
        elif not status.get("succeeded"):
            self.engine(startTime="2026-11-23T12:00:00Z", active=2, ready=2)
        return True

    # What is there --------------------------------------------------------------------------------

    @property
    def status(self) -> Object:
        found: Object = self.objects[JOB].get("status", {})
        return found

    @property
    def seal(self) -> Object:
        (found,) = [o for o in self.objects.values() if o["kind"] == "SealedRun"]
        return found

    def condition(self, type_: str) -> Object:
        (found,) = [c for c in self.status["conditions"] if c["type"] == type_]
        return found  # type: ignore[no-any-return]

    def told(self) -> list[str]:
        """Reasons of the job's Events, in the order in which they were made."""
        made = [w.removeprefix("POST ") for w in self.writes if w.startswith(f"POST {EVENTS}/")]
        return [self.objects[path]["reason"] for path in made]

    # The controller -------------------------------------------------------------------------------

    def runs(self) -> Runs:
        """A controller that has just started."""
        return Runs(self.world(), self.versions(), may_be_open=lambda _: self.may_be_open)

    def versions(self) -> RunVersions:
        """By the controller's clock."""
        return RunVersions(self, lambda: self.seconds)  # type: ignore[arg-type]

    def world(self) -> World:
        """What a controller works with."""
        kept = Kept(self)  # type: ignore[arg-type]
        kept.ours |= self.checks
        return World(
            kube=self,  # type: ignore[arg-type]
            settings=Settings.model_validate({"gateImage": world.GATE_IMAGE, **self.settings}),
            kept_by=kept.queue,
            cluster=world.CLUSTER,
            seal_key=world.SEAL_KEY,
            ticket_keyring=lambda: world.keyring(world.TICKET_KEY),
            seal_keyring=lambda: world.keyring(world.SEAL_KEY),
            policies=lambda _: (self.policy,),
            broken_policies=lambda: (),
            verifier=JobVerifier(self.evidence, lambda: self.now),  # type: ignore[arg-type]
            clock=lambda: self.now,
        )

    def reconcile(self) -> float | None:
        """One look, by a controller that has just started; dies where it is told to."""
        return world.run(self.runs().reconcile(KEY))

    def settle(self) -> float | None:
        """Looks until there is nothing to do; whoever dies is started anew."""
        for _ in range(LOOKS):
            before = len(self.writes)
            try:
                again = self.reconcile()
            except DiedError:
                continue
            if len(self.writes) == before:
                return again
        raise AssertionError(f"it never comes to rest: {self.writes[-6:]}")


class Own:
    """Keeps what is found."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    async def record(self, _namespace: str, _seal: str, seen: list[Seen]) -> None:
        self.seen += seen


def _selected(obj: Object, query: Object) -> bool:
    labels = obj["metadata"].get("labels", {})
    for part in filter(None, query.get("labelSelector", "").split(",")):
        name, given, value = part.partition("=")
        if name not in labels or (given and labels[name] != value):
            return False
    wanted = query.get("fieldSelector", "").removeprefix("status.phase=")
    return not wanted or obj.get("status", {}).get("phase") == wanted


def _merged(value: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    found = dict(value) if isinstance(value, dict) else {}
    for key, part in patch.items():
        if part is None:
            found.pop(key, None)
        else:
            found[key] = _merged(found.get(key), part)
    return found


def _operated(value: Object, operations: list[Object]) -> Object:
    """RFC 6902, as far as it is used."""
    found = copy.deepcopy(value)
    for operation in operations:
        *parents, last = operation["path"].lstrip("/").split("/")
        at: Any = found
        for name in parents:
            at = at[int(name) if isinstance(at, list) else name]
        if operation["op"] == "test":
            if at[last] != operation["value"]:
                raise KubeError(422, "Invalid", "the server rejected our request")
        elif operation["op"] == "add":
            at[last] = copy.deepcopy(operation["value"])
        else:
            assert operation["op"] == "remove"
            del at[last]
    return found


def _check_update(old: Object, new: Object) -> None:
    """What the API server lets change of a Job's template, and when (1.36)."""
    status, spec = old.get("status", {}), old["spec"]
    sizes = (spec["completions"], new["spec"]["completions"], new["spec"]["parallelism"])
    if sizes[0] != sizes[1] != sizes[2]:
        words = "can only be modified in tandem with spec.parallelism"
        raise KubeError(422, "Invalid", f"spec.completions: {words}")
    before, after = spec["template"]["spec"], new["spec"]["template"]["spec"]
    if before == after:
        return
    stopped = status.get("startTime") is None or any(
        c["type"] == "Suspended" and c["status"] == "True" for c in status.get("conditions", [])
    )
    allowed = {"nodeSelector", "tolerations", "schedulingGates"}
    changed = {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
    if "affinity" in changed:
        one, other = (dict(x.get("affinity") or {}) for x in (before, after))
        one.pop("nodeAffinity", None)
        other.pop("nodeAffinity", None)
        if one == other:
            changed.discard("affinity")
    if not (spec["suspend"] and stopped and not status.get("active")) or changed - allowed:
        raise KubeError(422, "Invalid", f"spec.template: {sorted(changed)}: field is immutable")
