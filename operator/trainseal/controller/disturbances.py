"""How pods of a run ended before their time, and by whom. Pure: objects in, what was seen out.

The rules, in order:

1. Who asked for a pod's deletion or eviction is in its access record; that it took place, in the
   pod: it is being deleted, or gone. What was asked after the run's end disturbed nothing.
2. A deletion that nobody asked for on record is explained by the pod's own condition
   ``DisruptionTarget`` (preemption, taint, the kubelet's eviction, loss of its node), by a job that
   is gone, was deleted a moment ago, has ended or is suspended, by a pod that was there before the
   run was last resumed, or by an epoch of an elastic role to which its index does not belong. An
   eviction by the API is always asked for by somebody.
3. A container that a signal ended is explained by memory, by the kubelet's own reason (node
   shutdown, a deadline), by a deletion of its pod, by a probe or hook of the signed template after
   which the kubelet kills, or, for a sidecar, by the end of the others. Of a sidecar that runs
   again, its last end tells.
4. Any other exit code, and the signals of a program's own faults, are the program's.

A session in the pod shortly before a kill names a person only where no other person had one.
Sources: kubernetes/api core/v1 (PodCondition DisruptionTarget, ContainerStateTerminated), the
Job controller's suspension (batch/v1 JobStatus.startTime), KEP-3329, KEP-753.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import JsonValue

from trainseal.api.findings import FindingId
from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.controller.ownreport import Seen
from trainseal.provenance.livepods import index_of
from trainseal.provenance.memberships import Shrunk
from trainseal.provenance.resizes import Size

#: Signals that come from others: HUP, INT, QUIT, KILL, USR1, USR2, TERM. A program that dies of
#: its own faults gets ILL, TRAP, ABRT, BUS, FPE, SEGV, PIPE or SYS.
SIGNALS: Mapping[int, str] = {
    1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 9: "SIGKILL", 10: "SIGUSR1", 12: "SIGUSR2",
    15: "SIGTERM",
}  # fmt: skip
SESSIONS = frozenset({"Exec", "Attach", "EphemeralContainer"})
#: A session that was opened this long before a kill may have brought it.
SESSION_BEFORE = timedelta(minutes=10)
#: What clocks of nodes and of the API server may be apart.
_SLACK = timedelta(seconds=10)
#: Once a job's deletion is asked for, the garbage collector deletes its pods within this time.
LEAVING = timedelta(minutes=10)
#: The reason of DisruptionTarget that anybody brings about who may evict.
_EVICTED = "EvictionByEvictionAPI"


@dataclass(frozen=True, slots=True)
class RunState:
    """What of a run explains the end of its pods.

    ``leaving``: the TrainingJob or the pods' Job is gone. ``leaving_since``: when the deletion of
    the one that is there still was asked for. ``over``: the Job has ended or is about to.
    ``started``: when the Job was last resumed. ``completed``: the run's end. ``shrunk``: which
    indexes of an elastic role did not belong to it, and when.
    """

    requester: str
    leaving: bool = False
    leaving_since: datetime | None = None
    over: bool = False
    suspended: bool = False
    started: datetime | None = None
    completed: datetime | None = None
    shrunk: tuple[Shrunk, ...] = ()

    def scaled_away(self, index: str, at: datetime) -> bool:
        """Whether the run was made smaller by the pod of this index at that time."""
        known = index.isascii() and index.isdigit()
        return known and any(item.explains(int(index), at) for item in self.shrunk)

    def explains(self, at: datetime) -> bool:
        """Whether pods are deleted at that time because of what the run itself does.

        A finalizer can keep an object for ever that is being deleted: it then excuses no more.
        """
        leaving = self.leaving_since is not None and at <= self.leaving_since + LEAVING
        return self.leaving or leaving or self.over or self.suspended


@dataclass(frozen=True, slots=True)
class Record:
    """An access record, as far as it matters here."""

    name: str
    pod: str
    pod_uid: str
    node: str
    action: str
    user: str
    time: datetime
    break_glass: str = ""
    #: Kind and name of an object of the run that was deleted.
    object: str = ""
    #: What containers were to ask for, of a resize.
    resized: tuple[Size, ...] = ()

    @classmethod
    def of(cls, obj: JsonObject) -> Record | None:
        """Read from an AccessRecord; None where it says nothing that took place."""
        metadata, spec = json_object(obj.get("metadata")), json_object(obj.get("spec"))
        time, pod = timestamp(spec.get("time")), json_object(spec.get("pod"))
        thing = json_object(spec.get("object"))
        if time is None or spec.get("allowed") is not True:
            return None
        return cls(
            name=str(metadata.get("name")),
            pod=str(pod.get("name")),
            pod_uid=str(pod.get("uid")),
            node=str(spec.get("node") or ""),
            action=str(spec.get("action")),
            user=str(spec.get("username")),
            time=time,
            break_glass=str(spec.get("breakGlass") or ""),
            object=f"{thing.get('kind')} {thing.get('name')}" if thing else "",
            resized=tuple(
                Size.of(str(item.get("container")), item)
                for item in json_objects(spec.get("resized"))
            ),
        )


@dataclass(frozen=True, slots=True)
class Kill:
    """A container that a signal from outside ended."""

    container: str
    exit_code: int
    at: datetime

    @property
    def signal(self) -> str:
        """As in ``SIGKILL``."""
        return SIGNALS[self.exit_code - 128]


def timestamp(value: JsonValue) -> datetime | None:
    """A time as the API server writes it."""
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def uid_of(pod: JsonObject) -> str:
    """The pod's UID."""
    return str(json_object(pod.get("metadata")).get("uid", ""))


def deleted_at(pod: JsonObject) -> datetime | None:
    """When the pod's deletion was asked for; None where it was not."""
    metadata = json_object(pod.get("metadata"))
    until = timestamp(metadata.get("deletionTimestamp"))
    grace = metadata.get("deletionGracePeriodSeconds")
    if until is None:
        return None
    return until - timedelta(seconds=grace if isinstance(grace, int) else 0)


def disturbed(pod: JsonObject) -> bool:
    """Whether there is an end to explain, sooner or later."""
    return deleted_at(pod) is not None or any(True for _ in kills(pod))


def people(
    state: RunState, records: Sequence[Record], standing: Mapping[str, JsonObject]
) -> Iterator[Seen]:
    """Deletions and evictions that somebody asked for, each person and pod once.

    ``standing``: the pods that are there, by UID.
    """
    told: set[tuple[str, str, str]] = set()
    for record in sorted(records, key=lambda r: (r.time, r.name)):
        what = (record.pod_uid, record.user, record.action)
        if record.action not in ("Delete", "Evict") or what in told:
            continue
        pod = standing.get(record.pod_uid)
        if pod is not None and deleted_at(pod) is None:
            continue
        if state.completed is not None and record.time > state.completed:
            continue
        told.add(what)
        if record.action == "Evict":
            id_, did = FindingId.POD_EVICTED, "had it evicted"
        elif record.user == state.requester:
            id_, did = FindingId.POD_DELETED_BY_REQUESTER, "deleted it and had asked for the job"
        else:
            id_ = FindingId.POD_DELETED
            did = f"deleted it; the job was asked for by {state.requester}"
        yield Seen(
            id=id_,
            subject=f"{record.pod_uid} {record.user}",
            message=f"pod {record.pod}: {record.user} {did}",
            occasion=record.name,
            evidence={
                "pod": record.pod,
                "podUID": record.pod_uid,
                "node": record.node,
                "at": record.time.isoformat(),
            },
            user=record.user,
            access_record=record.name,
        )


def by_whom(seen: Seen, records: Sequence[Record]) -> Seen:
    """A finding on an object that is gone, or was made anew, with who last deleted it."""
    own = [r for r in records if r.object and r.object == seen.evidence.get("object")]
    if seen.user or not own:
        return seen
    last = max(own, key=lambda r: (r.time, r.name))
    return dataclasses.replace(
        seen,
        message=f"{seen.message}; {last.user} deleted it",
        user=last.user,
        access_record=last.name,
        evidence={**seen.evidence, "deletedAt": last.time.isoformat()},
    )


def unexplained_deletion(
    pod: JsonObject, state: RunState, records: Sequence[Record]
) -> datetime | None:
    """When the pod's deletion was asked for, where nothing explains it."""
    at = deleted_at(pod)
    if at is None or state.explains(at) or _disruption(pod):
        return None
    if state.scaled_away(index_of(pod), at):
        return None
    if any(r.action in ("Delete", "Evict") and r.pod_uid == uid_of(pod) for r in records):
        return None
    if _ended_before(pod, at):
        return None
    made = timestamp(json_object(pod.get("metadata")).get("creationTimestamp"))
    if state.started is not None and made is not None and made < state.started:
        return None
    return at


def kills(pod: JsonObject) -> Iterator[Kill]:
    """Containers that a signal ended and that nothing in the pod itself explains."""
    status, spec = json_object(pod.get("status")), json_object(pod.get("spec"))
    if status.get("reason") or _disruption(pod):
        return
    sealed = {
        c.get("name"): c
        for kind in ("initContainers", "containers")
        for c in json_objects(spec.get(kind))
    }
    asked = deleted_at(pod)
    ends = [_terminated(c) for c in json_objects(status.get("containerStatuses"))]
    finishes = [timestamp(e.get("finishedAt")) for e in ends if e]
    others = max((f for f in finishes if f), default=None) if ends and all(ends) else None
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in json_objects(status.get(kind)):
            end = _terminated(container) or _terminated(container, "lastState")
            code, at = end.get("exitCode"), timestamp(end.get("finishedAt"))
            if not isinstance(code, int) or at is None or code - 128 not in SIGNALS:
                continue
            own = json_object(sealed.get(container.get("name")))
            if end.get("reason") == "OOMKilled" or _kubelet_kills(own):
                continue
            if own.get("restartPolicy") == "Always" and others is not None and at >= others:
                continue  # a sidecar, ended because the others have
            if asked is not None and asked <= at + _SLACK:
                continue
            yield Kill(str(container.get("name")), code, at)


def sessions(kill: Kill, pod: JsonObject, records: Sequence[Record]) -> tuple[Record, ...]:
    """Sessions in the pod that were opened shortly before, the latest last."""
    uid = uid_of(pod)
    found = [
        r
        for r in records
        if r.pod_uid == uid
        and r.action in SESSIONS
        and kill.at - SESSION_BEFORE <= r.time <= kill.at + _SLACK
    ]
    return tuple(sorted(found, key=lambda r: r.time))


def killed(pod: JsonObject, kill: Kill, records: Sequence[Record]) -> Seen:
    """The finding; ``user`` is empty where nobody, or more than one, had a session."""
    opened = sessions(kill, pod, records)
    users = list(dict.fromkeys(r.user for r in opened))
    user = users[0] if len(users) == 1 else ""
    place = _place(pod)
    words = (
        f"container {kill.container} of pod {place['pod']} on node {place['node']} was ended by "
    )
    words += f"{kill.signal} (exit code {kill.exit_code})"
    if user:
        words += f"; {user} had a session in it shortly before"
    elif users:
        words += f", and it is not known by whom; sessions shortly before: {', '.join(users)}"
    else:
        words += ", and nothing explains it"
    return Seen(
        id=FindingId.POD_KILLED,
        subject=f"{uid_of(pod)} {kill.container}",
        message=words,
        occasion=kill.at.isoformat(),
        evidence={
            **place,
            "exitCode": str(kill.exit_code),
            "signal": kill.signal,
            "at": kill.at.isoformat(),
            **({"sessions": ", ".join(users)} if users else {}),
        },
        container=kill.container,
        user=user,
        access_record=opened[-1].name if user else "",
    )


def unrecorded(pod: JsonObject, at: datetime) -> Seen:
    """The finding on a deletion that nothing explains."""
    place, did, why = _place(pod), "deleted", "no condition DisruptionTarget"
    if _EVICTED in _disruptions(pod):
        did, why = "evicted", f"the condition DisruptionTarget of an eviction by API ({_EVICTED})"
    return Seen(
        id=FindingId.POD_UNRECORDED,
        subject=uid_of(pod),
        message=f"pod {place['pod']} on node {place['node'] or 'none'} was {did}; found no "
        f"access record of it, {why}, and a job that goes on",
        occasion=at.isoformat(),
        evidence={**place, "at": at.isoformat()},
    )


def _place(pod: JsonObject) -> dict[str, str]:
    metadata = json_object(pod.get("metadata"))
    return {
        "pod": str(metadata.get("name")),
        "podUID": uid_of(pod),
        "index": index_of(pod),
        "node": str(json_object(pod.get("spec")).get("nodeName") or ""),
    }


def _disruption(pod: JsonObject) -> bool:
    """Whether the cluster ended it. An eviction somebody asked for: their record must say so."""
    return any(reason != _EVICTED for reason in _disruptions(pod))


def _disruptions(pod: JsonObject) -> list[str]:
    return [
        str(c.get("reason"))
        for c in json_objects(json_object(pod.get("status")).get("conditions"))
        if c.get("type") == "DisruptionTarget" and c.get("status") == "True"
    ]


def _terminated(container: JsonObject, state: str = "state") -> JsonObject:
    return json_object(json_object(container.get(state)).get("terminated"))


def _ended_before(pod: JsonObject, at: datetime) -> bool:
    """Whether all its containers had ended when its deletion was asked for."""
    containers = json_objects(json_object(pod.get("status")).get("containerStatuses"))
    ends = [timestamp(_terminated(c).get("finishedAt")) for c in containers]
    return bool(ends) and all(end is not None and end < at for end in ends)


def _kubelet_kills(container: JsonObject) -> bool:
    """Whether the signed template gives the kubelet a reason to kill it that shows nowhere."""
    hooks = json_object(container.get("lifecycle"))
    return bool(
        container.get("livenessProbe") or container.get("startupProbe") or hooks.get("postStart")
    )
