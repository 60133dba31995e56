"""`trainseal sign template`, `digest`, `verify`: templates, and jobs that name one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit import world
from tests.unit.cli.conftest import Run
from trainseal.cli import verification
from trainseal.provenance.canonical import template_digest
from trainseal.provenance.yamlreader import read_documents

Object = dict[str, Any]


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """As its author writes it; not signed."""
    path = tmp_path / "template.yaml"
    path.write_text(yaml.safe_dump(world.template_object(), sort_keys=False))
    return path


@pytest.fixture(autouse=True)
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alice or Bob sign; no registry is asked."""
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(world.policy_object()))
    monkeypatch.setattr(verification, "ArtifactVerifier", lambda *_: world.Evidence())


def read(path: Path) -> Object:
    found: Object = read_documents(path.read_bytes(), str(path))[0].value
    return found


def sign(trainseal: Run) -> str:
    answer = trainseal("sign", "template", "-f", "template.yaml", "--key", "alice.key")
    assert answer.code == 0, answer.err
    return answer.err


def test_a_template_is_signed_in_its_file_and_verifies(
    trainseal: Run, template: Path, keys: dict[str, Path]
) -> None:
    said = sign(trainseal)
    digest = template_digest(read(template))
    assert f"template research/pretrain-v7 {digest}" in said
    assert world.IMAGE in said
    assert trainseal("digest", "-f", "template.yaml").out.strip() == digest
    answer = trainseal("verify", "-f", "template.yaml", "--policy", "policy.yaml")
    assert answer.code == 0, answer.out
    assert "signed by Alice" in answer.out
    assert "judged with each job that starts from it" in answer.out


def test_an_unsigned_template_is_refuted(trainseal: Run, template: Path) -> None:
    answer = trainseal("verify", "-f", "template.yaml", "--policy", "policy.yaml")
    assert answer.code == 1
    assert "trainseal sign template" in answer.out


def test_a_template_that_makes_no_sense_is_not_signed_and_its_line_is_named(
    trainseal: Run, template: Path, keys: dict[str, Path]
) -> None:
    text = template.read_text().replace("maximum: 0.001", "maximum: 0.000001")
    template.write_text(text)
    line = next(n for n, at in enumerate(text.splitlines(), 1) if "learning_rate:" in at)
    answer = trainseal("sign", "template", "-f", "template.yaml", "--key", "alice.key")
    assert answer.code == 64
    assert f"template.yaml:{line}:" in answer.err
    assert "minimum 1e-05 above maximum 1e-06" in answer.err


def verify(trainseal: Run, *words: str) -> Any:
    return trainseal("verify", "-f", "run.yaml", "--policy", "policy.yaml", *words)


def launch(template: Path, **spec: Any) -> None:
    job = world.launched_job(read(template), **spec)
    del job["metadata"]["name"]
    (template.parent / "run.yaml").write_text(json.dumps(job))


def test_a_run_verifies_with_its_template_and_who_will_start_it(
    trainseal: Run, template: Path, keys: dict[str, Path]
) -> None:
    sign(trainseal)
    launch(template, parameters={"optim.seed": 17})
    known = ("--template", "template.yaml")
    assert verify(trainseal, *known, "--as", "bob@example.org").code == 0
    assert verify(trainseal, *known, "--as", "x", "--as-group", "research").code == 0
    assert verify(trainseal, *known, "--as", "x").code == 1
    assert verify(trainseal, *known).code == 2
    assert verify(trainseal).code == 2


def test_a_value_out_of_bounds_is_refuted_with_its_field(
    trainseal: Run, template: Path, keys: dict[str, Path]
) -> None:
    sign(trainseal)
    launch(template, parameters={"optim.seed": -1})
    answer = verify(trainseal, "--template", "template.yaml", "--as", "bob@example.org")
    assert answer.code == 1
    assert "spec.parameters[optim.seed]" in answer.out
    assert "from 0 to 65535" in answer.out


def test_nobody_signs_a_job_that_names_a_template(
    trainseal: Run, template: Path, keys: dict[str, Path]
) -> None:
    job = world.launched_job(read(template))
    del job["metadata"]["generateName"]
    (template.parent / "run.yaml").write_text(json.dumps(job))
    answer = trainseal("sign", "job", "-f", "run.yaml", "--key", "alice.key")
    assert answer.code == 64
    assert "nobody signs it: its template is signed" in answer.err
