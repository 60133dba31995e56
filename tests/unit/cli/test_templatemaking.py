"""`trainseal template from-job`: a job becomes a template that can be signed and run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit import world
from tests.unit.cli.conftest import Run
from trainseal.provenance.canonical import digest, template_digest
from trainseal.provenance.templates import made_from
from trainseal.provenance.yamlreader import read_documents

Object = dict[str, Any]
FROM = ("template", "from-job", "-f", "job.yaml")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job with values of all types in its config, signed, and waiting in a queue."""
    value = world.job_object()
    value["metadata"]["labels"] = {"team": "research"}
    value["spec"]["config"]["parameters"] |= {
        "optim": {"seed": 1, "name": "adam", "betas": [0.9, 0.95]},
        "tag": "none",
        "dropout": 1.0,
        "amp": False,
    }
    value["spec"]["validity"] = {"maxRuns": 3}
    world.sign_job(value, world.ALICE)
    value["spec"] |= {"suspend": True, "scheduling": {"queueName": "research"}}
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(value))
    return path


def template_of(text: str) -> Object:
    (document,) = read_documents(text, "template.yaml")
    found: Object = document.value
    return found


# from-job ----------------------------------------------------------------------------------------


def test_a_job_becomes_a_template_that_can_be_signed_and_run(
    trainseal: Run, job: Path, keys: dict[str, Path], tmp_path: Path
) -> None:
    answer = trainseal(
        *FROM, "--name", "pretrain-v1", "--open", "learning_rate=1e-5..1e-3",
        "--open", "optim.seed=0..65535", "--open", "optim.name=adam,sgd", "--open", "tag=name:16",
        "--open", "amp", "--open", "dropout=0.0..1.0", "--open", "batch_size=32,64",
        "--replicas", "worker=1..8", "--code", "trainer=alice", "--user", "bob@example.org",
        "--group", "research", "--authority", "people", "--max-concurrent", "4",
        "--not-after", "2027-03-01T00:00:00Z",
    )  # fmt: skip
    assert answer.code == 0
    made = template_of(answer.out)
    assert made["metadata"] == {"name": "pretrain-v1", "namespace": "research"}
    assert made["spec"]["parameters"] == {
        "learning_rate": {"type": "number", "minimum": 0.00001, "maximum": 0.001},
        "optim.seed": {"type": "integer", "minimum": 0, "maximum": 65535},
        "optim.name": {"type": "string", "enum": ["adam", "sgd"]},
        "tag": {"type": "string", "maxLength": 16},
        "amp": {"type": "boolean"},
        "dropout": {"type": "number", "minimum": 0, "maximum": 1},
        "batch_size": {"type": "integer", "enum": [32, 64]},
    }
    assert made["spec"]["replicas"] == {"worker": {"min": 1, "max": 8}}
    assert made["spec"]["code"] == {
        "trainer": {"repository": world.CODE.partition("@")[0], "authority": "alice"}
    }
    assert made["spec"]["launch"] == {
        "requesters": [{"user": "bob@example.org"}, {"group": "research"}, {"authority": "people"}],
        "maxConcurrent": 4,
        "notAfter": "2027-03-01T00:00:00Z",
    }
    assert "open: optim.seed (integer, 0 to 65535)" in answer.err
    (tmp_path / "template.yaml").write_text(answer.out)
    signed = trainseal("sign", "template", "-f", "template.yaml", "--key", "alice.key")
    assert signed.code == 0
    stored = template_of((tmp_path / "template.yaml").read_text())
    assert template_digest(stored) == template_digest(made)
    made_from(stored, world.launched_job(stored, parameters={"optim.seed": 17}))


def test_the_job_stands_in_it_as_it_was_less_what_is_not_signed(trainseal: Run, job: Path) -> None:
    made = template_of(trainseal(*FROM, "--user", "bob").out)
    spec = template_of(job.read_text())["spec"]
    for unsigned in ("signatures", "suspend", "scheduling"):
        del spec[unsigned]
    assert digest(made["spec"]["job"]) == digest(spec)
    assert spec["validity"] == {"maxRuns": 3}
    assert made["metadata"] == {"name": "char-lm", "namespace": "research"}


def test_a_whole_number_stays_one_unless_a_bound_is_a_fraction(trainseal: Run, job: Path) -> None:
    kinds = {}
    for bounds in ("1..5000", "1e3..1e4", "0.5..5000", "1.0..5000.0"):
        answer = trainseal(*FROM, "--user", "bob", "--open", f"steps={bounds}")
        kinds[bounds] = template_of(answer.out)["spec"]["parameters"]["steps"]["type"]
    assert list(kinds.values()) == ["integer", "integer", "number", "number"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "--user, --group or --authority"),
        (("--user", "b", "--open", "absent=1..2"), "there is no absent"),
        (("--user", "b", "--open", "optim=1..2"), "optim is a mapping"),
        (("--user", "b", "--open", "optim.betas=1..2"), "optim.betas is a list"),
        (("--user", "b", "--open", "steps"), "it is a number (2000), and has no bounds"),
        (("--user", "b", "--open", "tag"), "PATH=name:LENGTH"),
        (("--user", "b", "--open", "tag=a,,none"), "an empty value"),
        (("--user", "b", "--open", "amp=1..2"), "it is true or false"),
        (("--user", "b", "--open", "steps=a..b"), "it is a number (2000)"),
        (("--user", "b", "--open", "steps=5000..1"), "--open: spec.parameters[steps]"),
        (("--user", "b", "--open", "steps=1..10"), "--open: spec.job.config.parameters.steps"),
        (("--user", "b", "--open", "tag=a,b"), "--open: spec.job.config.parameters.tag"),
        (("--user", "b", "--open", "tag=none,${x}"), "no interpolation"),
        (("--user", "b", "--open", "tag=name:300"), "--open: spec.parameters"),
        (("--user", "b", "--open", "amp", "--open", "amp"), "amp is given twice"),
        (("--user", "b", "--replicas", "leader=1..2"), "--replicas: spec.replicas[leader]"),
        (("--user", "b", "--replicas", "worker=3..4"), "--replicas: spec.job.roles[worker]"),
        (("--user", "b", "--replicas", "worker"), "ROLE=MIN..MAX"),
        (("--user", "b", "--replicas", "worker=4..1"), "--replicas: spec.replicas"),
        (("--user", "b", "--code", "other=alice"), "no code of this name"),
        (("--user", "b", "--code", "trainer"), "no authority"),
        (("--user", "b", "--code", "trainer=A B"), "--code: spec.code"),
        (("--user", "b" * 257), "--user, --group or --authority: spec.launch.requesters"),
        (("--user", "b", "--not-after", "tomorrow"), "--not-after tomorrow"),
        (("--user", "b", "--not-after", "2027-13-01T00:00:00Z"), "--not-after: spec.launch"),
        (("--user", "b", "--max-concurrent", "100001"), "--max-concurrent: spec.launch"),
        (("--user", "b", "--name", "No Label"), "--name No Label"),
        (("--user", "b", "-n", "other"), "two namespaces"),
    ],
)
def test_what_makes_no_template_is_refused_with_the_option(
    trainseal: Run, job: Path, options: tuple[str, ...], words: str
) -> None:
    answer = trainseal(*FROM, *options)
    assert answer.code == 64
    assert words in answer.err
    assert answer.out == ""


def test_without_a_namespace_anywhere_its_place_is_named(trainseal: Run, job: Path) -> None:
    value = yaml.safe_load(job.read_text())
    del value["metadata"]["namespace"]
    job.write_text(yaml.safe_dump(value))
    answer = trainseal(*FROM, "--user", "bob")
    assert answer.code == 64
    assert "job.yaml:" in answer.err
    assert "metadata.namespace" in answer.err
    given = template_of(trainseal(*FROM, "--user", "bob", "-n", "research").out)
    assert given["metadata"]["namespace"] == "research"


def test_a_job_of_a_template_makes_none(trainseal: Run, job: Path) -> None:
    job.write_text(yaml.safe_dump(world.launched_job(world.template_object())))
    answer = trainseal(*FROM, "--user", "bob")
    assert answer.code == 64
    assert "the job names template pretrain-v7" in answer.err


def test_code_that_stands_by_a_tag_is_opened_by_its_repository(trainseal: Run, job: Path) -> None:
    value = yaml.safe_load(job.read_text())
    value["spec"]["code"][0]["oci"]["reference"] = "registry.example:5000/team/code:v1"
    job.write_text(yaml.safe_dump(value))
    made = template_of(trainseal(*FROM, "--user", "bob", "--code", "trainer=alice").out)
    assert made["spec"]["code"]["trainer"]["repository"] == "registry.example:5000/team/code"
