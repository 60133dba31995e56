"""Every access to a sealed pod is recorded before it is let through, or refused by a policy.

Whether a pod is sealed is said by the seal of its owner, never by the request. CONNECT and
evictions bring no pod, so it is read once: one read a pod at a time, shared by those who ask
meanwhile. Then the AccessRecord is written, once, and only then the answer is yes.

Each of these calls, waiting for its turn included, has two seconds. Where the record of an access
to a sealed pod cannot be written, the access is denied. Where a pod cannot be read, it is denied
only if a sealed run that lives could have a pod of that name; where the seal cannot be, only if the
pod bears the label of one: any other pod is left alone, but those of a lane: who gets into one of
them is on record likewise.

Deletions of what a run is made of (its TrainingJob, Job, ConfigMap, Service, NetworkPolicy, the
claims that it mounts) bring the object, with our label on what is ours; they are recorded, and
never wait for that: who deleted is then in the audit log alone. In a namespace that is being
deleted nothing can be created: deletions there are on record in the release's own.

The API server's proxy to a Service leads to a pod that the Service's selector chooses: the Service
is read, and what may lead to a sealed pod is judged and recorded as the proxy to that pod would be.
One without a selector leads where somebody wrote its endpoints, which takes other rights.

What is not promised: a record says that TrainSeal let an access pass, not that it took place.
Another admission plugin may refuse it afterwards, or the kubelet.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import get_args

from prometheus_client import Counter

from trainseal.admission.accessrequests import Access, OddRequestError, read_access, record
from trainseal.admission.pods import LABEL_SEAL, seal_of
from trainseal.admission.rates import Buckets
from trainseal.admission.reviews import (
    ALLOWED,
    TOO_MANY,
    TRY_AGAIN,
    Request,
    Response,
    deny,
    meta,
)
from trainseal.admission.sealindex import LiveSeal, SealedPod
from trainseal.admission.waysin import BREAK_GLASS_KEY, WaysIn
from trainseal.api.accessrecord import LABEL_NAMESPACE, PLURAL, Action, Way
from trainseal.api.model import API_VERSION, JsonObject, json_object
from trainseal.cluster.api import ConflictError, Kube, KubeError, NotFoundError, path_of
from trainseal.provenance.accessrules import WAYS
from trainseal.provenance.lanes import lane_of
from trainseal.provenance.selectors import EVERYTHING, Selector, equal_to

_log = logging.getLogger(__name__)
_RECORDED = Counter(
    "trainseal_access_records_total", "Accesses to sealed pods on record.", ["action", "allowed"]
)
_FAILED = Counter(
    "trainseal_access_failures_total",
    "Calls that failed while an access was recorded: read (pod), look (seal), write (record); "
    "or rate: there were too many.",
    ["action", "call"],
)
for _action in get_args(Action):
    _FAILED.labels(_action, "write")  # alerted on: the first one is to be an increase
_CALL_SECONDS = 2.0
#: Sessions of one user in sealed pods of one namespace, for each replica: a second, and at once.
_RATE, _BURST = 20.0, 100.0
#: Calls to the API server under way at once; more wait for their turn within their two seconds.
_MOST_CALLS = 32
#: Runs that one claim is recorded for.
_MOST_RUNS = 8
#: How an action gets in; those that do not are none.
_WAYS_IN: Mapping[Action, Way] = {**{way: way for way in WAYS}, "ServiceProxy": "Proxy"}
#: Changes of a pod, which the pods' own webhook is asked about as well.
_BY_THE_PODS_RULES = frozenset({"EphemeralContainer", "Resize"})
_ENDINGS = frozenset({"Delete", "Evict", "DeleteObject"})
#: In the API server's answer to whoever creates something in a namespace that is being deleted
#: (k8s.io/apiserver, plugin/namespace/lifecycle).
_TERMINATING = "because it is being terminated"
#: The API server puts the webhook's name before it.
AUDIT_KEY = "access-record"


class _UnknownSealError(Exception):
    """Whether the seal that a pod's label names lives could not be told."""


@dataclass(frozen=True, slots=True)
class AccessContext:
    """What accesses are judged by, as of now.

    ``look`` brings a seal into the index that the watch has not brought yet, and says whether it is
    known now; ``may_hold`` says whether a sealed run could have a pod of that name; ``live`` gives
    what is kept of a run that lives, ``mounting`` the runs whose pods mount a claim, and
    ``reached_by`` those whose pods a Service's selector may choose; ``final`` is
    the pods' own webhook's answer, so that what that is asked about, too, has one and not two.
    ``home`` is the release's namespace.
    """

    find: Callable[[str], SealedPod | None]
    look: Callable[[str, str], Awaitable[bool]]
    may_hold: Callable[[str, str], bool]
    live: Callable[[str, str], LiveSeal | None]
    mounting: Callable[[str, str], Iterable[str]]
    reached_by: Callable[[str, Selector], Sequence[str]]
    final: Callable[[Request], Response]
    home: str
    ways_in: WaysIn
    now: Callable[[], datetime]
    #: Whether a lane is open in a namespace: then any pod there may be one of its pods.
    has_lanes: Callable[[str], bool] = field(default=lambda _: False)


class AccessRecorder:
    """Answers what is asked at /record-access."""

    def __init__(
        self, kube: Kube, rules: AccessContext, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._kube = kube
        self._rules = rules
        self._calls = asyncio.Semaphore(_MOST_CALLS)
        self._buckets = Buckets(_RATE, _BURST, monotonic)
        self._reads: dict[str, asyncio.Task[JsonObject]] = {}

    async def answer(self, request: Request) -> Response:
        """Yes, with the record's name for the audit log; or no, and why."""
        if request.namespace in self._rules.ways_in.excluded_namespaces:
            return ALLOWED
        try:
            access = read_access(request)
        except OddRequestError as error:
            return deny(f"{error}; nothing was recorded")
        if access is None:
            return ALLOWED
        if access.action == "ServiceProxy":
            return await self._by_service(request, access)
        if access.object is not None:
            return await self._gone(request, access)
        pod = request.old
        if not pod:
            try:
                pod = await self._read(path_of("v1", "pods", request.namespace, access.pod))
            except NotFoundError:
                return ALLOWED  # the API server will not find it either
            except (KubeError, TimeoutError) as error:
                return self._unread(request, access, error)
        try:
            sealed = await self._seal_of(request.namespace, pod)
        except _UnknownSealError as error:
            return self._unknown(request, access, str(error))
        lane = lane_of(pod) or ""
        if sealed is None and not (lane and access.action in _WAYS_IN):
            return ALLOWED
        if not access.once and not self._buckets.take((request.namespace, request.username)):
            return self._too_often(request, access)
        if sealed is None:
            return await self._record(request, access, pod, "", lane)
        return await self._record(request, access, pod, sealed.seal)

    async def _by_service(self, request: Request, access: Access) -> Response:
        """Through a Service: as into the pods that it may lead to."""
        _, name = access.object or ("Service", "")
        if not self._rules.reached_by(request.namespace, EVERYTHING):
            return ALLOWED  # no sealed run lives here
        try:
            service = await self._read(path_of("v1", "services", request.namespace, name))
        except NotFoundError:
            return ALLOWED  # the API server will not find it either
        except (KubeError, TimeoutError) as error:
            _FAILED.labels(access.action, "read").inc()
            _log.warning("reading the Service of %s: %s", _what(request, access), _words(error))
            return deny(
                f"{_what(request, access)} is denied because it may lead to a sealed pod, and the "
                f"Service could not be read: found {_words(error)}; try again, and if it lasts "
                "tell those who run TrainSeal",
                TRY_AGAIN,
            )
        selector = json_object(json_object(service.get("spec")).get("selector"))
        seals = self._rules.reached_by(request.namespace, equal_to(selector)) if selector else []
        if not seals:
            return ALLOWED
        return await self._record(request, access, service, seals[0])

    async def _gone(self, request: Request, access: Access) -> Response:
        """A deletion of an object: recorded where it belongs to runs that live."""
        answer = ALLOWED
        for seal in self._runs_of(request, access)[:_MOST_RUNS]:
            live = self._rules.live(request.namespace, seal)
            if live is None:
                continue
            own = access.object is not None and access.object[0] == "TrainingJob"
            said = self._rules.ways_in.judge_deletion(
                request, seal, access.what, live.requester if own else ""
            )
            if not said.allowed or answer is ALLOWED:
                answer = said
            made = record(
                *(request, access, request.old, seal, self._rules.now()),
                allowed=said.allowed,
                message=said.message,
            )
            name = await self._on_record(request, access, made)
            if name:
                answer = dataclasses.replace(answer, audit={**answer.audit, AUDIT_KEY: name})
            if not answer.allowed:
                break
        return answer

    def _runs_of(self, request: Request, access: Access) -> list[str]:
        """Names of the seals of an object, as it says itself: nobody but we write that."""
        if access.object is None:
            return []
        kind, name = access.object
        if kind == "PersistentVolumeClaim":
            return sorted(self._rules.mounting(request.namespace, name))
        if kind == "TrainingJob":
            named = json_object(request.old.get("status")).get("sealedRun")
        else:
            named = json_object(meta(request.old).get("labels")).get(LABEL_SEAL)
        return [named] if isinstance(named, str) else []

    async def _on_record(self, request: Request, access: Access, made: JsonObject) -> str:
        """The record's place; empty where it could not be written."""
        try:
            where = await self._write(request.namespace, made, access)
        except ConflictError:
            where = request.namespace  # the same act, on record already
        except (KubeError, TimeoutError) as error:
            _FAILED.labels(access.action, "write").inc()
            _log.warning("AccessRecord of %s: %s", _what(request, access), _words(error))
            return ""
        allowed = json_object(made.get("spec")).get("allowed") is True
        _RECORDED.labels(access.action, str(allowed).lower()).inc()
        return f"{where}/{meta(made)['name']}"

    async def _seal_of(self, namespace: str, pod: JsonObject) -> SealedPod | None:
        found = seal_of(pod, namespace, self._rules.find)
        named = json_object(meta(pod).get("labels")).get(LABEL_SEAL)
        if found is None and isinstance(named, str):
            known = await self._rules.look(namespace, named)
            found = seal_of(pod, namespace, self._rules.find)
            if found is None and not known:
                raise _UnknownSealError(named)
        return found

    async def _record(
        self, request: Request, access: Access, pod: JsonObject, seal: str, lane: str = ""
    ) -> Response:
        answer = self._judge(request, access, seal)
        made = record(
            *(request, access, pod, seal, self._rules.now()),
            lane=lane,
            allowed=answer.allowed,
            break_glass=answer.audit.get(BREAK_GLASS_KEY, ""),
            message=answer.message,
        )
        where = request.namespace
        try:
            where = await self._write(request.namespace, made, access)
        except ConflictError:
            pass  # the same act, on record already
        except (KubeError, TimeoutError) as error:
            _FAILED.labels(access.action, "write").inc()
            _log.warning("AccessRecord of %s: %s", _what(request, access), _words(error))
            return self._unwritten(request, access, seal, lane, error) if answer.allowed else answer
        _RECORDED.labels(access.action, str(answer.allowed).lower()).inc()
        name = f"{where}/{meta(made)['name']}"
        return dataclasses.replace(answer, audit={**answer.audit, AUDIT_KEY: name})

    def _judge(self, request: Request, access: Access, seal: str) -> Response:
        if access.action in _BY_THE_PODS_RULES:
            return self._rules.final(request)
        if access.action == "Delete":
            return self._rules.ways_in.judge_deletion(request, seal, access.what, "")
        if not seal:
            return ALLOWED  # into a pod of a lane people get, and are on record
        way = _WAYS_IN.get(access.action)
        return self._rules.ways_in.judge(way, request, seal) if way else ALLOWED

    def _too_often(self, request: Request, access: Access) -> Response:
        _FAILED.labels(access.action, "rate").inc()
        return deny(
            f"{_what(request, access)} is denied because each is recorded, and they are too many: "
            f"expected at most {_RATE:.0f} a second ({_BURST:.0f} at once) by one user into sealed "
            f"pods of a namespace; wait a second and try again",
            TOO_MANY,
        )

    def _unwritten(
        self, request: Request, access: Access, seal: str, lane: str, error: Exception
    ) -> Response:
        sealed = "the pod is" if access.pod else "it leads to pods that are"
        of = f"{sealed} sealed by SealedRun {request.namespace}/{seal}"
        return deny(
            f"{_what(request, access)} is denied because it could not be recorded, and "
            f"{f'the pod runs in lane {lane}' if lane else of}: expected an AccessRecord to be "
            f"written, found {_words(error)}; try again, and if it lasts tell those who run "
            "TrainSeal",
            TRY_AGAIN,
        )

    def _unknown(self, request: Request, access: Access, seal: str) -> Response:
        _FAILED.labels(access.action, "look").inc()
        return deny(
            f"{_what(request, access)} is denied because the pod bears the label of SealedRun "
            f"{request.namespace}/{seal:.253}, which could not be looked up: expected an answer of "
            "the API server; try again, and if it lasts tell those who run TrainSeal",
            TRY_AGAIN,
        )

    def _unread(self, request: Request, access: Access, error: Exception) -> Response:
        _FAILED.labels(access.action, "read").inc()
        _log.warning("reading the pod of %s: %s", _what(request, access), _words(error))
        if self._rules.may_hold(request.namespace, access.pod):
            why = "be sealed, by its name"
        elif access.action in _WAYS_IN and self._rules.has_lanes(request.namespace):
            why = "run in a lane"
        else:
            return ALLOWED
        return deny(
            f"{_what(request, access)} is denied because it may {why}, and that could "
            f"not be looked up: found {_words(error)}, expected the pod; try again, and if "
            "it lasts tell those who run TrainSeal",
            TRY_AGAIN,
        )

    async def _read(self, path: str) -> JsonObject:
        task = self._reads.get(path)
        if task is None:
            task = asyncio.ensure_future(self._get(path))
            self._reads[path] = task
            task.add_done_callback(lambda _: self._reads.pop(path, None))
        return await asyncio.shield(task)

    async def _get(self, path: str) -> JsonObject:
        async with asyncio.timeout(_CALL_SECONDS), self._calls:
            return await self._kube.get(path, seconds=_CALL_SECONDS)

    async def _write(self, namespace: str, made: JsonObject, access: Access) -> str:
        """Where it was written: of deletions in a namespace that is being deleted, at home."""
        async with asyncio.timeout(_CALL_SECONDS), self._calls:
            try:
                await self._kube.create(path_of(API_VERSION, PLURAL, namespace), made)
            except KubeError as error:
                if access.action not in _ENDINGS or _TERMINATING not in error.message:
                    raise
            else:
                return namespace
            metadata = meta(made)
            labels = {**json_object(metadata.get("labels")), LABEL_NAMESPACE: namespace}
            moved = {**metadata, "namespace": self._rules.home, "labels": labels}
            path = path_of(API_VERSION, PLURAL, self._rules.home)
            await self._kube.create(path, {**made, "metadata": moved})
            return self._rules.home


def _what(request: Request, access: Access) -> str:
    """For people and for the log: without the command, which may hold a secret."""
    kind, name = access.object or ("pod", access.pod)
    return f"{access.action} on {kind} {request.namespace}/{name} by {request.username!r:.300}"


def _words(error: Exception) -> str:
    return f"{str(error) or 'no answer within 2 seconds':.300}"
