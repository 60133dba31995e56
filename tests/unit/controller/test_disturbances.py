"""How a pod ended, and whether anything explains it: each attack beside its benign twin."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainseal.api.findings import FindingId
from trainseal.controller.disturbances import (
    SIGNALS,
    Record,
    RunState,
    by_whom,
    disturbed,
    killed,
    kills,
    people,
    unexplained_deletion,
    unrecorded,
)
from trainseal.controller.ownreport import Seen
from trainseal.controller.references import deleted as object_deleted
from trainseal.provenance.memberships import Membership, shrunk

Object = dict[str, Any]
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
STARTED = NOW - timedelta(hours=1)
STATE = RunState(requester="bob@example.org", started=STARTED)


def text(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def pod(code: int | None = None, reason: str = "Error") -> Object:
    """A pod on node-1 whose trainer runs or, with a code, ended at NOW."""
    state: Object = {"running": {"startedAt": text(STARTED)}}
    if code is not None:
        state = {"terminated": {"exitCode": code, "reason": reason, "finishedAt": text(NOW)}}
    return {
        "metadata": {
            "name": "char-lm-worker-0-x7kq2",
            "uid": "pod-0",
            "creationTimestamp": text(STARTED + timedelta(seconds=2)),
            "annotations": {"batch.kubernetes.io/job-completion-index": "0"},
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "trainer"}]},
        "status": {
            "phase": "Running" if code is None else "Failed",
            "containerStatuses": [{"name": "trainer", "state": state}],
        },
    }


def deleted(found: Object, at: datetime = NOW, grace: int = 30) -> Object:
    """The pod after its deletion was asked for."""
    found["metadata"] |= {
        "deletionTimestamp": text(at + timedelta(seconds=grace)),
        "deletionGracePeriodSeconds": grace,
    }
    return found


def disruption(found: Object, reason: str) -> Object:
    found["status"]["conditions"] = [
        {"type": "DisruptionTarget", "status": "True", "reason": reason}
    ]
    return found


def record(user: str, action: str, before: timedelta = timedelta(0), uid: str = "pod-0") -> Record:
    name = f"{user.partition('@')[0]}-{action.lower()}"
    return Record(name, "char-lm-worker-0-x7kq2", uid, "node-1", action, user, NOW - before)


# Kills ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_signal_that_nothing_explains_is_a_kill(signal: int) -> None:
    (kill,) = kills(pod(128 + signal))
    assert kill.signal == SIGNALS[signal]
    found = killed(pod(128 + signal), kill, ())
    assert found.id is FindingId.POD_KILLED
    assert found.user == ""
    assert found.evidence["node"] == "node-1"
    assert "nothing explains it" in found.message


@given(st.integers(0, 255).filter(lambda code: code - 128 not in SIGNALS))
def test_any_other_exit_code_is_the_programs_own(code: int) -> None:
    """Among them its own faults: 134 (abort), 135 (bus error), 136, 139 (segmentation fault)."""
    assert list(kills(pod(code))) == []
    assert not disturbed(pod(code))


def with_reason(reason: str) -> Object:
    found = pod(137)
    found["status"]["reason"] = reason
    return found


def probed(found: Object) -> Object:
    found["spec"]["containers"][0]["livenessProbe"] = {"exec": {"command": ["true"]}}
    return found


def sidecar(after: int) -> Object:
    """The trainer ended by itself; its sidecar was ended by SIGTERM so many seconds later."""
    found = pod(0)
    found["spec"]["initContainers"] = [{"name": "proxy", "restartPolicy": "Always"}]
    finished = text(NOW + timedelta(seconds=after))
    found["status"]["initContainerStatuses"] = [
        {"name": "proxy", "state": {"terminated": {"exitCode": 143, "finishedAt": finished}}}
    ]
    return found


EXPLAINED: dict[str, Object] = {
    "out of memory": pod(137, reason="OOMKilled"),
    "evicted by the kubelet": with_reason("Evicted"),
    "a node that shuts down": with_reason("Terminated"),
    "the pod's deadline": with_reason("DeadlineExceeded"),
    "preempted": disruption(pod(143), "PreemptionByScheduler"),
    "tainted node": disruption(pod(143), "DeletionByTaintManager"),
    "node gone": disruption(pod(137), "DeletionByPodGC"),
    "drained": disruption(deleted(pod(143), NOW - timedelta(seconds=3)), "EvictionByEvictionAPI"),
    "deleted, which is judged by itself": deleted(pod(143), NOW - timedelta(seconds=3)),
    "a probe of the signed template": probed(pod(137)),
    "a sidecar after the end": sidecar(1),
    "killed, its end not known yet": pod(),
}


@pytest.mark.parametrize("what", EXPLAINED)
def test_what_ends_pods_in_an_ordinary_life_is_no_kill(what: str) -> None:
    assert list(kills(EXPLAINED[what])) == []


def test_a_kill_before_a_deletion_stays_a_kill() -> None:
    found = deleted(pod(137), NOW + timedelta(minutes=5))
    assert [k.exit_code for k in kills(found)] == [137]


def test_a_sidecar_that_is_killed_while_the_trainer_runs_is_a_kill() -> None:
    found = sidecar(0)
    found["status"]["containerStatuses"] = pod()["status"]["containerStatuses"]
    assert [k.container for k in kills(found)] == ["proxy"]


def restarted(found: Object, code: int) -> Object:
    """The sidecar was ended so a minute ago, and the kubelet started it again."""
    before = text(NOW - timedelta(minutes=1))
    (proxy,) = found["status"]["initContainerStatuses"]
    proxy["lastState"] = {"terminated": {"exitCode": code, "finishedAt": before}}
    return found


def test_a_sidecar_that_was_killed_and_runs_again_is_a_kill() -> None:
    found = restarted(sidecar(0), 137)
    found["status"]["initContainerStatuses"][0]["state"] = {"running": {}}
    (kill,) = kills(found)
    assert (kill.container, kill.at) == ("proxy", NOW - timedelta(minutes=1))


def test_a_sidecar_that_fails_by_itself_and_runs_again_is_none() -> None:
    found = restarted(sidecar(0), 1)
    found["status"]["initContainerStatuses"][0]["state"] = {"running": {}}
    assert list(kills(found)) == []


def test_a_kill_names_who_alone_had_a_session_in_the_pod() -> None:
    (kill,) = kills(pod(137))
    found = killed(pod(137), kill, [record("mallory@example.org", "Exec", timedelta(minutes=2))])
    assert (found.user, found.access_record) == ("mallory@example.org", "mallory-exec")


OTHERS: dict[str, list[Record]] = {
    "a session long before": [record("mallory@example.org", "Exec", timedelta(hours=2))],
    "a session after it": [record("mallory@example.org", "Exec", -timedelta(minutes=1))],
    "a session in another pod": [record("mallory@example.org", "Exec", uid="pod-1")],
    "a forwarded port": [record("mallory@example.org", "PortForward")],
    "two persons": [record("mallory@example.org", "Exec"), record("bob@example.org", "Exec")],
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_kill_accuses_nobody_where_it_might_be_another(what: str) -> None:
    (kill,) = kills(pod(137))
    found = killed(pod(137), kill, OTHERS[what])
    assert found.user == ""
    assert ("mallory" in found.message) == (what == "two persons")


# Deletions that nobody asked for on record ------------------------------------------------------


def test_a_deletion_that_nothing_explains_is_found() -> None:
    found = deleted(pod())
    assert unexplained_deletion(found, STATE, ()) == NOW
    assert unrecorded(found, NOW).id is FindingId.POD_UNRECORDED


def test_the_kubelets_second_deletion_changes_no_time() -> None:
    """It shortens the grace to nothing, and the API server moves the time back with it."""
    assert unexplained_deletion(deleted(pod(137), NOW, grace=0), STATE, ()) == NOW


CAUSES: dict[str, tuple[Object, RunState, list[Record]]] = {
    "a person on record": (deleted(pod()), STATE, [record("eve", "Delete")]),
    "an eviction on record": (deleted(pod()), STATE, [record("eve", "Evict")]),
    "preempted": (disruption(deleted(pod()), "PreemptionByScheduler"), STATE, []),
    "drained, on record": (
        disruption(deleted(pod()), "EvictionByEvictionAPI"),
        STATE,
        [record("admin@example.org", "Evict")],
    ),
    "evicted by its kubelet": (disruption(deleted(pod()), "TerminationByKubelet"), STATE, []),
    "node gone": (disruption(deleted(pod()), "DeletionByPodGC"), STATE, []),
    "the job was deleted": (deleted(pod()), replace(STATE, leaving=True), []),
    "the job is being deleted": (
        deleted(pod()),
        replace(STATE, leaving_since=NOW - timedelta(minutes=9)),
        [],
    ),
    "the job has ended": (deleted(pod()), replace(STATE, over=True), []),
    "suspended": (deleted(pod()), replace(STATE, suspended=True), []),
    "suspended, and resumed meanwhile": (
        deleted(pod()),
        replace(STATE, started=NOW + timedelta(seconds=9)),
        [],
    ),
    "cleaned up after it had ended": (deleted(pod(1), NOW + timedelta(hours=1)), STATE, []),
    "not deleted": (pod(), STATE, []),
}


@pytest.mark.parametrize("what", CAUSES)
def test_a_deletion_with_a_cause_is_none_of_ours(what: str) -> None:
    found, state, records = CAUSES[what]
    assert unexplained_deletion(found, state, records) is None


def test_a_record_of_another_pod_explains_nothing() -> None:
    other = [record("eve", "Delete", uid="pod-1")]
    assert unexplained_deletion(deleted(pod()), STATE, other) == NOW


@pytest.mark.parametrize("others", [[], [record("eve", "Evict", uid="pod-1")]])
def test_an_eviction_that_is_on_nobodys_record_is_found(others: list[Record]) -> None:
    """Anybody who may evict brings the condition about; while no webhook answers, unrecorded."""
    found = disruption(deleted(pod()), "EvictionByEvictionAPI")
    assert unexplained_deletion(found, STATE, others) == NOW
    seen = unrecorded(found, NOW)
    assert seen.id is FindingId.POD_UNRECORDED
    assert "was evicted; found no access record" in seen.message


def test_an_eviction_on_record_names_who_asked_and_is_no_more_than_that() -> None:
    found = disruption(deleted(pod()), "EvictionByEvictionAPI")
    asked = [record("admin@example.org", "Evict")]
    assert unexplained_deletion(found, STATE, asked) is None
    (seen,) = people(STATE, asked, {"pod-0": found})
    assert (seen.id, seen.user) == (FindingId.POD_EVICTED, "admin@example.org")


def test_an_eviction_that_did_not_take_place_explains_no_kill() -> None:
    assert [k.exit_code for k in kills(disruption(pod(137), "EvictionByEvictionAPI"))] == [137]


def test_a_job_that_a_finalizer_keeps_excuses_no_deletion_for_ever() -> None:
    kept = replace(STATE, leaving_since=NOW - timedelta(minutes=11))
    assert unexplained_deletion(deleted(pod()), kept, ()) == NOW


# People -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "action", "id_"),
    [
        ("mallory@example.org", "Delete", FindingId.POD_DELETED),
        ("bob@example.org", "Delete", FindingId.POD_DELETED_BY_REQUESTER),
        ("admin@example.org", "Evict", FindingId.POD_EVICTED),
    ],
)
@pytest.mark.parametrize("standing", [{"pod-0": deleted(pod())}, {}])
def test_who_had_a_pod_deleted_is_named_also_once_it_is_gone(
    user: str, action: str, id_: FindingId, standing: dict[str, Object]
) -> None:
    (found,) = people(STATE, [record(user, action)], standing)
    assert (found.id, found.user) == (id_, user)
    assert found.access_record == record(user, action).name


SILENT: dict[str, tuple[Record, RunState, dict[str, Object]]] = {
    "refused after all, or not done yet": (record("eve", "Delete"), STATE, {"pod-0": pod()}),
    "a drain that a budget holds up": (record("eve", "Evict"), STATE, {"pod-0": pod()}),
    "cleaned up after the run": (
        record("eve", "Delete"),
        replace(STATE, completed=NOW - timedelta(minutes=1)),
        {},
    ),
    "only looked at": (record("eve", "Exec"), STATE, {}),
}


@pytest.mark.parametrize("what", SILENT)
def test_who_disturbed_nothing_is_not_named(what: str) -> None:
    asked, state, standing = SILENT[what]
    assert list(people(state, [asked], standing)) == []


def test_asking_again_is_not_told_again() -> None:
    asked = [
        replace(record("eve", "Delete"), name=f"r{n}", time=NOW + timedelta(minutes=n))
        for n in range(3)
    ]
    (found,) = people(STATE, list(reversed(asked)), {})
    assert found.occasion == "r0"


@given(st.permutations([record("eve", "Delete"), record("bob@example.org", "Delete"),
                        record("kim", "Evict")]))  # fmt: skip
def test_the_order_of_records_does_not_matter(records: list[Record]) -> None:
    assert [s.user for s in people(STATE, records, {})] == [
        s.user for s in people(STATE, sorted(records, key=lambda r: r.name), {})
    ]


def test_a_denied_access_is_no_record_of_anything() -> None:
    obj: Object = {
        "metadata": {"name": "r"},
        "spec": {
            "pod": {"name": "p", "uid": "u"},
            "action": "Delete",
            "username": "eve",
            "allowed": True,
            "time": text(NOW),
        },
    }
    assert Record.of(obj) is not None
    denied = copy.deepcopy(obj)
    denied["spec"]["allowed"] = False
    assert Record.of(denied) is None
    nonsense: Callable[[Any], Object] = lambda time: {  # noqa: E731
        "metadata": {}, "spec": {"allowed": True, "time": time},
    }  # fmt: skip
    assert [Record.of(nonsense(t)) for t in (None, 7, "soon")] == [None, None, None]


# Objects of the run -----------------------------------------------------------------------------


def object_gone(name: str = "ConfigMap char-lm-1-config") -> Seen:
    return object_deleted(name, "it is gone", "gone", {})


def deletion(name: str, user: str, at: datetime = NOW, thing: str = "") -> Record:
    return Record(
        name=name, pod="None", pod_uid="None", node="", action="DeleteObject", user=user,
        time=at, object=thing or "ConfigMap char-lm-1-config",
    )  # fmt: skip


def test_who_last_deleted_an_object_is_named() -> None:
    records = [
        deletion("r-1", "ann@example.org", NOW - timedelta(minutes=9)),
        deletion("r-2", "mallory@example.org"),
        deletion("r-3", "bob@example.org", NOW + timedelta(minutes=1), "Service char-lm"),
    ]
    found = by_whom(object_gone(), records)
    assert (found.user, found.access_record) == ("mallory@example.org", "r-2")
    assert found.message.endswith("it is gone; mallory@example.org deleted it")
    assert found.key == object_gone().key


def test_an_object_that_nobody_on_record_deleted_names_nobody() -> None:
    assert by_whom(object_gone(), []) == object_gone()
    assert by_whom(object_gone(), [deletion("r", "bob", thing="Service x")]) == object_gone()


def test_a_record_of_an_object_says_which() -> None:
    spec = {
        "object": {"kind": "Job", "name": "char-lm-worker", "uid": "u"},
        "action": "DeleteObject",
        "username": "mallory",
        "allowed": True,
        "time": text(NOW),
    }
    found = Record.of({"metadata": {"name": "r"}, "spec": spec})
    assert found is not None
    assert (found.object, found.action) == ("Job char-lm-worker", "DeleteObject")
    assert Record.of({"metadata": {"name": "r"}, "spec": {**spec, "allowed": False}}) is None


# Scaled away ------------------------------------------------------------------------------------


def of_epochs(*members: int) -> RunState:
    """An elastic run that had so many workers, each for an hour, the last since NOW."""
    since = [NOW - timedelta(hours=len(members) - 1 - n) for n in range(len(members))]
    told = [
        Membership(number, {"worker": count}, text(at)).told(None)
        for number, (count, at) in enumerate(zip(members, since, strict=True), 1)
    ]
    return replace(STATE, shrunk=shrunk(told, "worker"))


def of_index(index: str) -> Object:
    found = deleted(pod(), NOW + timedelta(seconds=1))
    found["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] = index
    return found


def test_a_pod_that_goes_because_the_run_is_made_smaller_is_explained() -> None:
    assert unexplained_deletion(of_index("3"), of_epochs(4, 3), ()) is None


@pytest.mark.parametrize(
    ("index", "members"),
    [("2", (4, 3)), ("3", (4, 4)), ("3", (4,)), ("3", (3, 4, 4)), ("", (4, 3)), ("-1", (4, 3))],
)
def test_no_other_pod_goes_unexplained_with_it(index: str, members: tuple[int, ...]) -> None:
    assert unexplained_deletion(of_index(index), of_epochs(*members), ()) is not None


def test_a_person_who_deletes_a_pod_beyond_the_members_is_still_named() -> None:
    found = of_index("3")
    seen = list(
        people(of_epochs(4, 3), [record("mallory@example.org", "Delete")], {"pod-0": found})
    )
    assert [s.user for s in seen] == ["mallory@example.org"]
