"""What the processes are told by the chart."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainseal.cluster.settings import Settings, SettingsError, load_settings


@pytest.mark.parametrize(
    "name",
    [
        *("nvidia.com/gpu", "nvidia.com/mig-1g.5gb", "amd.com/gpu", "google.com/tpu"),
        *("aws.amazon.com/neuroncore", "deviceclass.resource.kubernetes.io/gpu"),
    ],
)
def test_a_gpu_is_known_by_its_resource(name: str) -> None:
    assert Settings().is_gpu(name)


@pytest.mark.parametrize(
    "name",
    ["cpu", "memory", "not-nvidia.com/gpu", "nvidia.com", "google.com/tpu2", "NVIDIA.com/gpu", ""],
)
def test_what_only_looks_like_one_is_none(name: str) -> None:
    assert not Settings().is_gpu(name)


@pytest.mark.parametrize("text", ["", "{}", "# nothing"])
def test_a_file_that_says_nothing_leaves_the_defaults(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert load_settings(path) == Settings()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gpuResource: [x]", "gpuResource"),
        ("gpuResources: x", "gpuResources"),
        ("[1]", "config.yaml"),
        ("{", "config.yaml"),
        ("webhookDeadlineSeconds: 0", "webhookDeadlineSeconds"),
        ("webhookDeadlineSeconds: 60", "webhookDeadlineSeconds"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_by_file_and_field(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=words) as error:
        load_settings(path)
    assert "config.yaml" in str(error.value)


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="none"):
        load_settings(tmp_path / "none.yaml")


def test_the_accounts_of_engines_that_are_switched_on_are_told_and_of_no_others(
    tmp_path: Path,
) -> None:
    """`trainseal doctor` looks whether they are there."""
    path = tmp_path / "config.yaml"
    on, off = "{enabled: true, controller: %s}", "{enabled: false, controller: %s}"
    for jobset, trainer, enabled, accounts in (
        (off, off, ("Job",), []),
        (on, off, ("Job", "JobSet"), ["a"]),
        (on, on, ("Job", "JobSet", "TrainJob"), ["a", "b"]),
    ):
        path.write_text(f"engines: {{jobSet: {jobset % 'a'}, trainJob: {trainer % 'b'}}}")
        engines = load_settings(path).engines
        assert engines.enabled == enabled
        assert engines.controllers == accounts
