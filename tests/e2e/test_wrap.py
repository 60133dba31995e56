"""A PyTorchJob of Kubeflow's, wrapped and completed as docs/how-to/wrap.md says, trains here."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.cluster import CommandError
from tests.e2e.lab import TEAM, Lab, Object
from tests.e2e.test_training import trainseal
from tests.stage.jobs import EXAMPLE
from tests.stage.signing import signed

_WEIGHTS = re.compile(r"finished, weights (sha256:[0-9a-f]{64})")


@pytest.fixture(scope="module")
def wrapped(lab: Lab) -> tuple[Path, str]:
    """The manifest that `trainseal wrap` wrote, and what it said."""
    policy = lab.folder / "wrap-policy.yaml"
    policy.write_text(lab.admin("get", "provenancepolicy", TEAM, "-o", "yaml"))
    source, made = lab.folder / "pytorchjob.yaml", lab.folder / "wrapped.yaml"
    source.write_text((EXAMPLE / "pytorchjob.yaml").read_text().replace("IMAGE", lab.image))
    with pytest.raises(CommandError) as said:
        trainseal(lab, "wrap", "-f", str(source), "--policy", str(policy), "--to", str(made))
    return made, said.value.stderr


def test_what_is_left_to_do_is_the_code(wrapped: tuple[Path, str]) -> None:
    _, said = wrapped
    assert "0 guessed, 1 left, 0 refused" in said
    assert "/workspace/train.py is run from a claim: nobody signed what stands there" in said


def test_before_that_is_done_nobody_can_sign_it_and_it_is_refused(
    lab: Lab, wrapped: tuple[Path, str]
) -> None:
    made, _ = wrapped
    plain = ("--plain-http", lab.target.registry_from_host)
    with pytest.raises(CommandError) as said:
        trainseal(lab, "sign", "job", "-f", str(made), "--key", str(lab.alice.key_file), *plain)
    assert "'TODO'" in said.value.stderr
    job: Object = yaml.safe_load(made.read_text())
    assert "TODO has no digest" in lab.refusal(signed(job, lab.alice))


def test_wrapped_completed_and_signed_it_trains_to_its_end(
    lab: Lab, wrapped: tuple[Path, str], apply: Callable[[Object], Object]
) -> None:
    made, _ = wrapped
    plain = ("--plain-http", lab.target.registry_from_host)
    key = ("--key", str(lab.alice.key_file))
    repository = f"{lab.target.registry_from_host}/{TEAM}/wrapped-code"
    printed = trainseal(lab, "sign", "code", str(EXAMPLE), *key, "--push", repository, *plain)
    made.write_text(
        made.read_text().replace("reference: TODO", "reference: " + lab.in_cluster(printed.strip()))
    )
    trainseal(lab, "sign", "job", "-f", str(made), *key, *plain)
    job = apply(yaml.safe_load(made.read_text()))
    lab.wait_for_phase(job, "Succeeded", 300)
    names = [pod["metadata"]["name"] for pod in lab.pods(job)]
    weights = [_WEIGHTS.findall(lab.kubectl("logs", n, "-c", "pytorch")) for n in names]
    assert len(weights) == 2
    assert weights[0] == weights[1] != []
