"""Code in a private registry: the gate fetches it with the pull secrets that the job names."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from tests.e2e.lab import TEAM, Lab, Object
from tests.e2e.test_code import gate_message
from tests.local_registry import PASSWORD
from tests.stage.jobs import SHORT_CODE
from tests.stage.release import pull_secret
from tests.stage.signing import signed
from tests.stage.waiting import eventually


@pytest.fixture(scope="module")
def code(lab: Lab) -> str:
    """Code signed by alice, in the private registry."""
    if lab.private is None:
        pytest.skip("TRAINSEAL_KUBECONFIG names a cluster that does not reach this machine")
    return lab.push_tree_privately(SHORT_CODE, lab.alice)


def private_job(lab: Lab, name: str, code: str, *pull_secrets: str) -> Object:
    job = lab.job(name, "finish.py")
    job["spec"]["code"][0]["oci"]["reference"] = code
    spec = job["spec"]["roles"][0]["template"]["spec"]
    if pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret} for secret in pull_secrets]
    return signed(job, lab.alice)


def test_code_in_a_private_registry_trains_with_the_pull_secret_that_the_job_names(
    lab: Lab, code: str, apply: Callable[[Object], Object]
) -> None:
    assert lab.private is not None
    apply(pull_secret("team-registry", TEAM, lab.private.docker_config()))
    job = apply(private_job(lab, "private", code, "not-made-yet", "team-registry"))
    lab.wait_for_phase(job, "Succeeded")
    (pod,) = lab.pods(job)
    assert "as signed" in gate_message(pod)
    gate, trainer = pod["spec"]["initContainers"][0], pod["spec"]["containers"][0]
    assert "pull-secrets" in {m["name"] for m in gate["volumeMounts"]}
    assert "pull-secrets" not in {m["name"] for m in trainer["volumeMounts"]}


def test_without_a_pull_secret_that_has_the_password_the_gate_says_what_is_missing(
    lab: Lab, code: str, apply: Callable[[Object], Object]
) -> None:
    assert lab.private is not None
    wrong = lab.private.docker_config("not " + PASSWORD)
    apply(pull_secret("old-password", TEAM, wrong))
    none = private_job(lab, "private-none", code)
    unfit = private_job(lab, "private-unfit", code, "not-made-yet", "old-password")
    expected = (
        (none, "under imagePullSecrets in the job's pod template"),
        (unfit, "Secret not-made-yet is not there"),
        (unfit, f"Secret old-password has an entry for {lab.private.address}"),
    )
    for job in (none, unfit):
        apply(job)
    for job, words in expected:
        eventually(functools.partial(_is_told, lab, job, words), words)
        message = lab.status(job)["message"]
        assert "trainseal gate: undetermined: code trainer: " in message
        assert PASSWORD not in message
        # The pod of the next try may have just been made, and say nothing yet.
        assert all(
            gate["state"].get("terminated", {}).get("exitCode") in (None, 2)
            for pod in lab.pods(job)
            for gate in pod["status"].get("initContainerStatuses", ())[:1]
        )
        # What could not be read says nothing about the job: it is tried again, and counts nothing.
        assert not lab.engine(job)["status"].get("failed")
        assert lab.status(job)["phase"] == "Sealed"


def _is_told(lab: Lab, job: Object, words: str) -> bool:
    return words in lab.status(job).get("message", "")
