"""`trainseal params`: Hydra's overrides become parameters, judged by config and template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit import world
from tests.unit.cli.conftest import Run
from trainseal.provenance.canonical import template_digest
from trainseal.provenance.templates import made_from
from trainseal.provenance.yamlreader import read_documents

Object = dict[str, Any]
PARAMS = ("params", "--hydra", "conf")


def job_in(text: str) -> Object:
    (document,) = read_documents(text, "job.yaml")
    return document.value


@pytest.fixture(autouse=True)
def conf(tmp_path: Path) -> Path:
    """A Hydra config: its main file, a chosen group, one that places its keys itself."""
    folder = tmp_path / "conf"
    for group in ("optim", "model/encoder", "logger"):
        (folder / group).mkdir(parents=True)
    (folder / "config.yaml").write_text(
        "defaults:\n- _self_\n- optim: adam\n- model/encoder: small\n- logger: wandb\n"
        "- override hydra/launcher: basic\n- optional x: null\n"
        "learning_rate: 1.0\nsteps: 2000\ntag: none\namp: no\nlayers: [1, 2]\nunset: ???\n"
        "nothing: null\nhome: ${oc.env:HOME}\ndata: {path: /x}\nhydra: {run: {dir: x}}\n"
    )
    (folder / "optim/adam.yaml").write_text("_target_: torch.optim.Adam\nseed: 1\nname: adam\n")
    (folder / "optim/sgd.yaml").write_text("momentum: 0.9\n")
    (folder / "model/encoder/small.yaml").write_text("width: 64\n")
    (folder / "logger/wandb.yaml").write_text("# @package _global_\nproject: x\n")
    return folder


@pytest.fixture
def template(tmp_path: Path) -> Object:
    value = world.sign_template(world.template_object(), world.ALICE)
    (tmp_path / "template.yaml").write_text(yaml.safe_dump(value))
    return value


def test_overrides_become_parameters(trainseal: Run) -> None:
    answer = trainseal(
        *PARAMS, "--", "learning_rate=3e-4", "optim.seed=17", "amp=true", "tag='a 1'",
        "model.encoder.width=128", "unset=5", "nothing=x", "home=/here", "data.path=/y",
    )  # fmt: skip
    assert answer.code == 0
    wanted = {
        "learning_rate": 0.0003, "optim.seed": 17, "amp": True, "tag": "a 1",
        "model.encoder.width": 128, "unset": 5, "nothing": "x", "home": "/here", "data.path": "/y",
    }  # fmt: skip
    assert yaml.safe_load(answer.out) == wanted
    assert json.loads(trainseal(*PARAMS, "-o", "json", "--", "steps=1e3").out) == {"steps": 1000}


def test_a_composed_config_is_taken_as_a_file(trainseal: Run, tmp_path: Path) -> None:
    (tmp_path / "whole.yaml").write_text("optim: {lr: 0.1}\n")
    answer = trainseal("params", "--hydra", "whole.yaml", "--", "optim.lr=1")
    assert yaml.safe_load(answer.out) == {"optim.lr": 1}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("absent=1", "conf/config.yaml:1:1: there is no absent"),
        ("optim.absent=1", "conf/optim/adam.yaml:1:1: there is no optim.absent"),
        ("optim.momentum=1", "there is no optim.momentum"),
        ("project=x", "there is no project"),
        ("logger.project=x", "there is no logger.project"),
        ("learning_rate.x=1", "there is no learning_rate.x"),
        ("learning_rate=adam", "found 'adam', a text"),
        ("learning_rate=true", "expected: a number, as 1 in conf/config.yaml:8:1"),
        ("steps='17'", "a number, as 2000"),
        ("amp=yes", "true or false, as False"),
        ("amp=1", "true or false"),
        ("tag=17", "quoted twice"),
        ("data=x", "data is a mapping"),
        ("layers=x", "layers is a list"),
        ("optim=sgd", "optim is a config group"),
        ("model/encoder=small", "a config group"),
        ("optim._target_=x", "the key _target_"),
        ("+steps=1", "a key added"),
        ("tag=${home}", "an interpolation"),
        ("steps=1,2", "one job each: run it in a loop"),
        ("steps=range(1,5)", "one job each: run it in a loop"),
    ],
)
def test_what_is_no_plain_value_of_the_config_is_refused_with_the_reason(
    trainseal: Run, override: str, words: str
) -> None:
    answer = trainseal(*PARAMS, "--", override)
    assert answer.code == 64
    assert words in answer.err
    assert answer.out == ""


def test_a_config_is_never_run_and_never_read_beyond_its_bounds(trainseal: Run, conf: Path) -> None:
    (conf / "config.yaml").write_text("x: !!python/object/apply:os.system [touch ran]\n")
    answer = trainseal(*PARAMS, "--", "x=1")
    assert answer.code == 64
    assert "conf/config.yaml:1:4: found the tag" in answer.err
    assert not Path("ran").exists()
    (conf / "config.yaml").write_text("defaults:\n- optim: ../../secret\nx: 1\n")
    (conf.parent / "secret.yaml").write_text("size: 1\n")
    assert trainseal(*PARAMS, "--", "optim.size=1").code == 64


def test_an_empty_config_has_no_keys_and_a_directory_without_one_is_no_config(
    trainseal: Run, conf: Path
) -> None:
    (conf / "config.yaml").write_text("# nothing\n")
    assert "there is no steps" in trainseal(*PARAMS, "--", "steps=1").err
    (conf / "config.yaml").write_text("- steps\n")
    assert "a document that is a list" in trainseal(*PARAMS, "--", "steps=1").err
    (conf / "config.yaml").unlink()
    assert "there is no config.yaml in it" in trainseal(*PARAMS, "--", "steps=1").err


# With a template -------------------------------------------------------------------------------

WITH = (*PARAMS, "--template", "template.yaml")


def test_a_whole_job_is_ready_for_the_cluster(trainseal: Run, template: Object) -> None:
    answer = trainseal(*WITH, "-o", "job", "--", "learning_rate=3e-4", "optim.seed=17")
    assert answer.code == 0
    job = job_in(answer.out)
    assert job == {
        "apiVersion": "trainseal.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"generateName": "pretrain-v7-", "namespace": "research"},
        "spec": {
            "templateRef": {"name": "pretrain-v7", "digest": template_digest(template)},
            "parameters": {"learning_rate": 0.0003, "optim.seed": 17},
        },
    }
    assert answer.err == ""
    made_from(template, job)


def test_without_overrides_the_job_sets_nothing(trainseal: Run, template: Object) -> None:
    assert list(job_in(trainseal(*WITH, "-o", "job").out)["spec"]) == ["templateRef"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("learning_rate=0.5", "found 0.5, expected from 1e-05 to 0.001"),
        ("steps=1", "a parameter that template pretrain-v7 does not leave open"),
        ("optim.seed=1.5", "expected a whole number"),
        ("optim.name=lamb", "expected one of 'adam', 'sgd'"),
        ("tag='a b'", "a name of at most 16 characters"),
    ],
)
def test_a_value_is_judged_by_the_templates_own_bounds(
    trainseal: Run, template: Object, override: str, words: str
) -> None:
    for form in ("yaml", "job"):
        answer = trainseal(*WITH, "-o", form, "--", override)
        assert answer.code == 64
        assert words in answer.err
        assert answer.out == ""


def test_a_value_that_the_template_lacks_must_be_given(trainseal: Run, tmp_path: Path) -> None:
    template = world.template_object()
    del template["spec"]["job"]["config"]["parameters"]["tag"]
    (tmp_path / "template.yaml").write_text(yaml.safe_dump(template))
    assert "spec.parameters[tag]: found no value" in trainseal(*WITH, "--", "amp=true").err
    assert trainseal(*WITH, "--", "amp=true", "tag=x").code == 0


def test_a_template_that_the_cluster_would_not_run_is_noted(trainseal: Run, tmp_path: Path) -> None:
    template = world.template_object(revoked={"reason": "over"})
    template["metadata"]["name"] = f"7b-{'x' * 50}"
    template["spec"]["job"]["code"][0]["oci"]["reference"] = "registry.example/research/code:v1"
    (tmp_path / "template.yaml").write_text(yaml.safe_dump(template))
    answer = trainseal(*WITH, "-o", "job", "--", "amp=true")
    for words in ("no signature", "signing resolves registry.example/research/code:v1", "revoked"):
        assert words in answer.err
    name = job_in(answer.out)["metadata"]["generateName"]
    assert name.startswith("run-7b-")
    assert len(name) + 5 <= 40


def test_a_whole_job_takes_a_template(trainseal: Run) -> None:
    assert trainseal(*PARAMS, "-o", "job", "--", "steps=1").code == 64
