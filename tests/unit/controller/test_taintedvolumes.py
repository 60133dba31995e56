"""What a job must not go on from: which mounts meet, what bars, and in which words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sample_objects import checkpoint, status_of
from tests.unit import world
from trainseal.api.sealedrun import MAX_EARLIER
from trainseal.api.trainingjob import TrainingJob
from trainseal.controller.taintedvolumes import (
    Place,
    TaintedVolumes,
    mounted,
    overlap,
    place_of,
)

SEAL = ("default", "char-lm-1")
HERE = Place("default", "ckpt", "runs/char-lm", "u-2", "pv-1")
PARTS = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=4)


def stored(**status: Any) -> dict[str, Any]:
    obj = checkpoint()
    obj["status"] = status_of("Checkpoint") | status
    del obj["status"]["accepted"], obj["status"]["refused"]
    return obj


def told(*objects: dict[str, Any]) -> TaintedVolumes:
    """What is known, all of it judged."""
    found = TaintedVolumes()
    for number, obj in enumerate(objects):
        found.listen("ADDED", ("default", f"{obj['metadata']['name']}-{number}"), obj)
    found.judged(SEAL)
    return found


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("runs/a", "runs/a", True),
        ("runs", "runs/a", True),
        ("", "runs/a", True),
        ("", "", True),
        ("runs/a", "runs/b", False),
        ("runs/a", "runs/ab", False),
    ],
)
def test_paths_overlap_where_one_lies_in_the_other(one: str, other: str, meet: bool) -> None:
    assert overlap(one, other) is meet
    assert overlap(other, one) is meet


@given(PARTS, PARTS)
def test_a_path_overlaps_all_below_it_and_overlapping_has_no_direction(
    top: list[str], rest: list[str]
) -> None:
    one, below, other = "/".join(top), "/".join([*top, *rest]), "/".join(rest)
    assert overlap(one, below)
    assert overlap(one, other) == overlap(other, one)


@pytest.mark.parametrize(
    ("place", "meets"),
    [
        (HERE, True),
        (replace(HERE, path="runs"), True),
        (replace(HERE, path="runs/char-lm/step-20"), True),
        (replace(HERE, path="runs/other"), False),
        # The same volume by another claim, in another namespace.
        (Place("other", "mine", "", "u-9", "pv-1"), True),
        # A claim of the same name, made anew, with another volume.
        (replace(HERE, uid="u-9", volume="pv-9"), False),
        (replace(HERE, uid="u-9", volume=""), False),
        (Place("other", "ckpt", "runs/char-lm", "u-9", "pv-9"), False),
        # Nobody knows more than its name.
        (replace(HERE, uid="", volume=""), True),
        (Place("other", "ckpt", "runs/char-lm"), False),
    ],
)
def test_a_job_is_barred_from_the_same_volume_and_from_no_other(place: Place, meets: bool) -> None:
    found = told(stored()).bar([place])
    assert (found is not None) is meets
    assert found is None or not found.waiting


def test_the_words_name_files_run_finding_and_what_to_do() -> None:
    found = told(stored()).bar([HERE])
    assert found is not None
    for words in (
        "runs/char-lm/step-20/model.safetensors",
        "3 more",
        "char-lm-1",
        "file.changed: a signed file was changed",
        "trainseal checkpoints accept char-lm -n default --reason",
        "trainseal-responder",
    ):
        assert words in found.words


def test_many_runs_are_named_briefly() -> None:
    objects = []
    for number in range(6):
        obj = stored()
        obj["spec"]["sealedRun"] = f"run-{number}"
        objects.append(obj)
    volumes = told(*objects)
    for number in range(6):
        volumes.judged(("default", f"run-{number}"))
    found = volumes.bar([HERE])
    assert found is not None
    assert "and of 3 more runs" in found.words


def test_clean_checkpoints_bar_nobody() -> None:
    obj = stored()
    del obj["status"]["tainted"]
    volumes = told(obj)
    assert volumes.bar([HERE]) is None
    assert not volumes.matter()


def test_what_was_signed_off_bars_nobody() -> None:
    obj = stored()
    obj["status"]["accepted"] = {"release": "r", "user": "carol", "reason": "seen"}
    assert told(obj).bar([HERE]) is None


def test_a_refused_release_is_said() -> None:
    obj = stored()
    obj["status"]["refused"] = "mallory wrote them"
    found = told(obj).bar([HERE])
    assert found is not None
    assert "not signed off: mallory wrote them" in found.words


def test_what_was_dropped_bars_nobody_so_one_agents_token_stops_no_run() -> None:
    assert told(stored(standing="Dropped")).bar([HERE]) is None


def test_what_is_gone_bars_nobody() -> None:
    volumes = told(stored())
    volumes.listen("DELETED", ("default", f"{checkpoint()['metadata']['name']}-0"), stored())
    assert volumes.bar([HERE]) is None


def test_what_nobody_judged_since_the_start_is_waited_for() -> None:
    volumes = TaintedVolumes()
    clean = stored()
    del clean["status"]["tainted"]
    volumes.listen("ADDED", ("default", "c"), clean)
    assert volumes.matter()
    found = volumes.bar([HERE])
    assert found is not None
    assert found.waiting
    assert volumes.bar([replace(HERE, path="elsewhere")]) is None
    volumes.judged(SEAL)
    assert volumes.bar([HERE]) is None


def test_nothing_is_answered_before_all_was_listed() -> None:
    volumes = TaintedVolumes()
    volumes.expect()
    assert volumes.matter()
    found = volumes.bar([HERE])
    assert found is not None
    assert found.waiting
    assert volumes.bar([]) is None, "a job without claims goes on"
    volumes.listed()
    assert not volumes.matter()


def test_a_directory_of_the_pod_is_on_no_volume() -> None:
    obj = stored()
    del obj["spec"]["volume"]["claim"]
    assert told(obj).bar([replace(HERE, uid="", volume="", claim="")]) is None


def test_data_mounts_count_as_checkpoints_do() -> None:
    job = world.job_object()
    volume = {"persistentVolumeClaim": {"claimName": "corpus"}}
    scratch: dict[str, Any] = {"emptyDir": {}}
    job["spec"]["data"] = [
        {"name": "a", "mountPath": "/a", "volume": volume, "path": "x"},
        {"name": "b", "mountPath": "/b", "volume": scratch},
    ]
    assert mounted(TrainingJob.parse(job), "char-lm-1") == (
        ("ckpt", "runs/char-lm"),
        ("corpus", "x"),
    )


def test_a_claim_that_is_not_there_is_known_by_its_name() -> None:
    assert place_of("ns", "c", "p", None) == Place("ns", "c", "p")
    claim = {"metadata": {"uid": "u"}, "spec": {"volumeName": "pv"}}
    assert place_of("ns", "c", "p", claim) == Place("ns", "c", "p", "u", "pv")


def test_the_runs_that_a_job_could_go_on_from_are_told_with_their_newest_checkpoint() -> None:
    old, new = stored(), stored()
    new["spec"]["completed"] = "2026-11-23T12:10:00.500000Z"
    other = stored()
    other["spec"] |= {"sealedRun": "other-1", "completed": "2026-11-23T12:05:00.000000Z"}
    far = stored()
    far["spec"] |= {"sealedRun": "far-1", "volume": {"claim": "ckpt", "path": "runs/far"}}
    met = told(old, new, other, far).earlier([HERE])
    name = old["metadata"]["name"]
    assert [(r.sealed_run, r.checkpoints, r.newest) for r in met] == [
        ("char-lm-1", 2, f"{name}-1"),
        ("other-1", 1, f"{name}-2"),
    ]


def test_of_many_runs_on_a_volume_the_newest_are_told() -> None:
    objects = [stored() for _ in range(MAX_EARLIER + 1)]
    for number, obj in enumerate(objects):
        obj["spec"] |= {"sealedRun": f"run-{number}", "completed": f"2026-11-23T12:{number:02}:00Z"}
    met = told(*objects).earlier([HERE])
    assert [r.sealed_run for r in met] == [f"run-{n}" for n in range(MAX_EARLIER, 0, -1)]


def test_a_directory_of_the_runs_own_bears_the_name_of_its_seal() -> None:
    job = world.job_object()
    volume = {"persistentVolumeClaim": {"claimName": "ckpt"}}
    job["spec"]["checkpoints"] |= {"volume": volume, "path": "runs/{run}"}
    assert mounted(TrainingJob.parse(job), "char-lm-1") == (("ckpt", "runs/char-lm-1"),)
    # So its own tainted checkpoints bar it when it was suspended, and no other run's do.
    own = stored()
    own["spec"]["volume"]["path"] = "runs/char-lm-1"
    volumes = told(own)
    for run, barred in (("char-lm-1", True), ("char-lm-2", False)):
        ((claim, path),) = mounted(TrainingJob.parse(job), run)
        place = Place("default", claim, path, "u-2", "pv-1")
        assert (volumes.bar([place]) is not None) is barred
