"""The Lease by which the official client's election elects, read and written with deadlines.

The client's own lock (kubernetes 36, ``resourcelock/leaselock.py``) cannot make a Lease (it passes
a boolean where the generated API wants text), waits for an answer for minutes, and ends the
election on a connection that breaks. Here every request has a deadline that leaves the leader time
to stop before its Lease runs out, and what goes wrong is an attempt that failed.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.baselock import BaseLock

from trainseal.api.model import JsonObject
from trainseal.cluster.api import Kube, KubeError, Method, NotFoundError, path_of

_log = logging.getLogger(__name__)
_API = "coordination.k8s.io/v1"


class LeaseExpiredError(Exception):
    """We were held up for longer than our own Lease lasts: another may lead since."""


class KubeLease(BaseLock):
    """One candidate's view of the Lease; ``seconds`` is the deadline of each request.

    Once it was held for longer than it lasts without being renewed, ``get`` raises
    LeaseExpiredError: whoever was stopped, or starved of processor time, must not go on.
    """

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        name: str,
        identity: str,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name, namespace, identity)
        self._kube = kube
        self._seconds = seconds
        self._clock = clock
        self._expires: float | None = None
        self._lease: JsonObject = {}

    async def get(
        self, name: str, namespace: str
    ) -> tuple[bool, LeaderElectionRecord] | tuple[bool, Exception] | tuple[bool, None]:
        """The record, or the error; the election makes the Lease where the error is a 404."""
        if self._expires is not None and self._clock() > self._expires:
            raise LeaseExpiredError(f"the Lease {namespace}/{name} was not renewed in time")
        try:
            path = path_of(_API, "leases", namespace, name)
            self._lease = await self._kube.get(path, seconds=self._seconds)
        except KubeError as error:
            answer = ApiException(status=error.status, reason=str(error))
            answer.body = json.dumps({"code": 404 if isinstance(error, NotFoundError) else 0})
            return False, answer
        return True, _record(self._lease)

    async def create(
        self, name: str, namespace: str, election_record: LeaderElectionRecord
    ) -> bool:
        """Whether the Lease could be made."""
        lease: JsonObject = {
            "apiVersion": _API,
            "kind": "Lease",
            "metadata": {"name": name, "namespace": namespace},
            "spec": _spec(election_record, transitions=0),
        }
        return await self._hold("POST", path_of(_API, "leases", namespace), lease)

    async def update(self, name: str, namespace: str, updated_record: LeaderElectionRecord) -> bool:
        """Whether the Lease, unchanged since it was read, could be written."""
        before = _object(self._lease.get("spec"))
        count = before.get("leaseTransitions")
        transitions = count if isinstance(count, int) else 0
        if before.get("holderIdentity") != updated_record.holder_identity:
            transitions += 1
        lease = {**self._lease, "spec": _spec(updated_record, transitions)}
        return await self._hold("PUT", path_of(_API, "leases", namespace, name), lease)

    async def release(self) -> None:
        """Lets go of the Lease, so that another takes it at once. Only once nothing acts any more.

        Where it cannot be written the Lease runs out by itself.
        """
        self._expires = None
        found, record = await self.get(self.name, self.namespace)
        if not found or getattr(record, "holder_identity", None) != self.identity:
            return
        spec = {**_object(self._lease.get("spec")), "holderIdentity": "", "leaseDurationSeconds": 1}
        path = path_of(_API, "leases", self.namespace, self.name)
        await self._write("PUT", path, {**self._lease, "spec": spec})

    async def _hold(self, method: Method, path: str, lease: JsonObject) -> bool:
        """Writes a Lease that names us; it lasts from before the request on."""
        asked = self._clock()
        written = await self._write(method, path, lease)
        duration = _object(lease["spec"]).get("leaseDurationSeconds")
        if written:
            self._expires = asked + (duration if isinstance(duration, int) else 0)
        return written

    async def _write(self, method: Method, path: str, lease: JsonObject) -> bool:
        try:
            await self._kube.request(method, path, body=lease, seconds=self._seconds)
        except KubeError as error:
            # A conflict is another candidate, or our own earlier write that came through late.
            _log.info("lease %s/%s: %s", self.namespace, self.name, error)
            return False
        return True


def _spec(record: LeaderElectionRecord, transitions: int) -> JsonObject:
    return {
        "holderIdentity": record.holder_identity,
        "leaseDurationSeconds": int(float(record.lease_duration or "0")),
        "acquireTime": _micro_time(record.acquire_time),
        "renewTime": _micro_time(record.renew_time),
        "leaseTransitions": transitions,
    }


def _record(lease: JsonObject) -> LeaderElectionRecord:
    """What the election compares: it believes no clock, only that a record did not change."""
    spec = _object(lease.get("spec"))

    def text(field: str) -> str | None:
        value = spec.get(field)
        return str(value) if value else None

    return LeaderElectionRecord(
        text("holderIdentity"),
        text("leaseDurationSeconds"),
        _local(text("acquireTime")),
        _local(text("renewTime")),
    )


def _micro_time(text: str | None) -> str:
    """Kubernetes' MicroTime of the election's own form, a local time without a zone."""
    moment = datetime.fromisoformat(text or "").astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _local(text: str | None) -> str | None:
    """The election's form of a MicroTime; None where it cannot be read, which it overwrites."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return str(moment.astimezone().replace(tzinfo=None))


def _object(value: object) -> JsonObject:
    return value if isinstance(value, dict) else {}
