"""What is wrong with the pods of a run as they stand."""

from __future__ import annotations

from typing import Any

from tests.unit import world
from tests.unit.platforms import istio, vault
from tests.unit.provenance.test_livepods import EXPECTED, IMAGES, ranks, running, trainer
from trainseal.api.findings import FindingId
from trainseal.controller.podfindings import (
    Sealed,
    additions_as_found,
    findings_among,
    findings_on,
    is_at_work,
)
from trainseal.provenance.additions import Additions

Object = dict[str, Any]
SEALED = Sealed({world.OBJECT_UID: EXPECTED}, IMAGES)


def ids(pod: Object, additions: Additions | None = None) -> list[FindingId]:
    return [s.id for s in findings_on(pod, SEALED, additions)]


def test_a_pod_that_is_as_sealed_has_no_finding() -> None:
    assert ids(running(), Additions()) == []


def test_a_pod_that_bears_the_label_and_has_another_owner_is_foreign() -> None:
    pod = running()
    pod["metadata"]["ownerReferences"][0]["uid"] = "other"
    assert ids(pod, Additions()) == [FindingId.POD_FOREIGN]
    del pod["metadata"]["ownerReferences"]
    assert ids(pod, Additions()) == [FindingId.POD_FOREIGN]


def test_image_variables_and_debug_containers_are_findings_of_their_own() -> None:
    pod = running(digest="sha256:" + "e" * 64)
    trainer(pod)["env"].append({"name": "SEED", "value": "7"})
    pod["spec"]["ephemeralContainers"] = [{"name": "debugger", "image": "busybox"}]
    assert ids(pod, Additions()) == [
        FindingId.POD_CHANGED,
        FindingId.POD_IMAGE,
        FindingId.POD_EPHEMERAL,
    ]


def test_an_addition_of_a_policy_that_has_changed_since_is_no_finding() -> None:
    """What the policy allowed when the pod was made is not known; what loads code never was."""
    pod = running()
    trainer(pod)["env"].append({"name": "TRACE_ID", "value": "7"})
    assert ids(pod, Additions()) == [FindingId.POD_CHANGED]
    assert ids(pod, None) == []
    trainer(pod)["env"].append({"name": "LD_PRELOAD", "value": "/x.so"})
    assert ids(pod, None) == [FindingId.POD_CHANGED]
    assert "trainseal.dev/seal" not in additions_as_found(pod).labels


def test_two_pods_of_one_index_are_found_and_named() -> None:
    pods = [*ranks(2), running(1)]
    pods[2]["metadata"] |= {"name": "later", "uid": "later"}
    (seen,) = findings_among(pods, SEALED)
    assert seen.id is FindingId.POD_DUPLICATE
    assert "later" in seen.message
    assert list(findings_among(pods[:2], SEALED)) == []


def test_an_odd_rank_is_found_where_an_addition_allows_it() -> None:
    pods = [running(0), running(1)]
    trainer(pods[1])["env"].append({"name": "TRACE_ID", "value": "7"})
    allowed = Additions(env={"TRACE_ID": ("",)})
    assert ids(pods[1], allowed) == []
    (seen,) = findings_among(pods, SEALED)
    assert (seen.id, seen.evidence["index"]) == (FindingId.RANK_DIFFERS, "1")


def test_a_pod_that_ended_or_is_to_end_holds_no_place() -> None:
    assert is_at_work(running())
    for change in ({"status": {"phase": "Failed"}}, {"status": {"phase": "Succeeded"}}):
        assert not is_at_work(running() | change)
    leaving = running()
    leaving["metadata"]["deletionTimestamp"] = "2026-11-23T12:00:00Z"
    assert not is_at_work(leaving)


def test_a_sidecar_that_a_lost_policy_let_in_is_no_finding_but_what_none_allows_is() -> None:
    pod = running()
    istio(pod)
    vault(pod)
    assert ids(pod, Additions()) == [FindingId.POD_CHANGED]
    assert ids(pod, None) == []
    proxy = pod["spec"]["initContainers"][1]
    proxy["volumeMounts"].append({"name": "code-trainer", "mountPath": "/code"})
    assert ids(pod, None) == [FindingId.POD_CHANGED]
