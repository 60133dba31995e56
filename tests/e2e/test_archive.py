"""The archive: evidence that outlives what is deleted, and tells when it was touched."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.e2e.lab import Lab, Object
from tests.stage.release import NAMESPACE
from tests.stage.waiting import eventually

FOLDER = "/var/lib/trainseal/archive"


def archive(lab: Lab, *words: str) -> str:
    """`trainseal evidence …` where the volume is mounted."""
    return lab.admin(
        "exec", "-n", NAMESPACE, "deploy/trainseal-archive", "--", "trainseal", "evidence", *words
    )


def recorded(lab: Lab, name: str) -> list[Object]:
    """The archive's entries of what is so named."""
    lines = archive(lab, "list", FOLDER, "--name", name, "-o", "json").splitlines()
    return [json.loads(line) for line in lines]


def test_a_seal_that_goes_with_its_namespace_stays_in_the_archive(
    lab: Lab, apply: Callable[[Object], Object]
) -> None:
    job = apply(lab.signed_job("short-lived"))
    seal = lab.wait_for_phase(job, "Running")["sealedRun"]
    live = lab.get("sealedrun", seal)
    uid = live["metadata"]["uid"]
    # Nobody but the end of its namespace takes a seal away; so for this test the guard is lifted
    # for one deletion, as the namespace controller's is.
    lab.admin(
        "delete", "sealedrun", seal, "-n", live["metadata"]["namespace"],
        "--as=system:serviceaccount:kube-system:namespace-controller",
    )  # fmt: skip
    eventually(
        lambda: any(e["uid"] == uid and "digest" not in e for e in recorded(lab, seal)),
        "the archive notes that the seal is gone",
    )
    bound = [e for e in recorded(lab, seal) if e["uid"] == uid and "digest" in e][-1]
    kept = json.loads(archive(lab, "show", FOLDER, bound["digest"]))
    assert kept["spec"] == live["spec"]
    assert kept["status"]["binding"] == live["status"]["binding"]


def test_the_archive_is_whole_and_passes_through_its_published_head(lab: Lab) -> None:
    assert archive(lab, "verify", FOLDER).startswith("whole: ")
