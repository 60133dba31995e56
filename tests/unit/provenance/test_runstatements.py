"""The statement at a run's end: what it says, and that nobody can have it say something else."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sample_objects import checkpoint
from tests.unit import world
from trainseal.provenance import runstatements
from trainseal.provenance.keyrings import UntrustedError
from trainseal.provenance.runstatements import (
    Found,
    Manifest,
    Mount,
    StatementTooLargeError,
    Watched,
    content,
    outputs_of,
    read,
    says,
    sign,
)

Object = dict[str, Any]
RING = world.keyring(world.SEAL_KEY)
TAINT = {"finding": "file.changed", "message": "changed, by mallory"}
ACCEPTED = {"release": "r", "user": "carol", "reason": "seen"}
CLEAN = Watched(1, (), {}, {})


def wrote(name: str, files: dict[str, str], minute: int = 0, **more: Any) -> Manifest:
    """A manifest that was verified: each file with two digits that its digest is made of."""
    obj = checkpoint(name)
    obj["spec"] |= {
        "completed": f"2026-11-23T12:{minute:02}:00.000000Z",
        "pod": {"name": "w-0", "uid": more.pop("pod", "u")},
        "volume": more.pop("volume", {"claim": "ckpt"}),
        "files": [
            {
                "path": p,
                "size": 1,
                "digest": f"sha256:{d * 32}",
                "writer": "Trainer",
                "format": "safetensors",
            }
            for p, d in files.items()
        ],
        "removed": more.pop("removed", []),
        "unlisted": None,
    }
    obj["status"] = more
    return Manifest(obj, "sha256:" + "0" * 64)


def ended(**status: Any) -> Object:
    seal = copy.deepcopy(world.sealed_world().seal)
    seal["status"] |= {"phase": "Succeeded", "completionTime": "2026-11-23T12:30:00Z"} | status
    return seal


def names(manifests: list[Manifest]) -> dict[str, str]:
    """Subjects with two digits of each digest."""
    found: dict[str, str] = {}
    for subject in outputs_of(manifests, 0).subjects:
        digest: Any = subject["digest"]
        found[str(subject["name"])] = digest["sha256"][:2]
    return found


def signed(*manifests: Manifest, watched: Watched = CLEAN, **status: Any) -> Object:
    said = content(ended(**status), (), watched, outputs_of(manifests, 0))
    return sign(world.SEAL_KEY, said, 1, world.NOW)


def name_of(seal: Object) -> str:
    return str(seal["metadata"]["name"])


SEAL = name_of(ended())


# The run ----------------------------------------------------------------------------------------


def test_of_an_elastic_run_it_says_how_many_workers_it_had_and_who_chose_them() -> None:
    epochs = [world.membership(4).told(None), world.membership(2, 2).told("carol@example.org")]
    statement = read(RING, "research", SEAL, signed(epochs=epochs))
    assert statement.predicate["epochs"] == epochs
    assert "epochs" not in read(RING, "research", SEAL, signed()).predicate


# Outputs -----------------------------------------------------------------------------------------


def test_of_each_file_the_newest_that_is_signed_is_an_output() -> None:
    manifests = [wrote("m-2", {"latest": "22"}, 2), wrote("m-1", {"latest": "11", "one": "11"}, 1)]
    assert names(manifests) == {"latest": "22", "one": "11"}


def test_what_was_removed_since_is_none() -> None:
    first, second = wrote("m-1", {"a": "11"}, 1), wrote("m-2", {"b": "22"}, 2, removed=["a"])
    assert names([first, second]) == {"b": "22"}
    again = wrote("m-3", {"a": "33"}, 3)
    assert names([first, second, again]) == {"b": "22", "a": "33"}


def test_a_tainted_file_is_no_subject_and_is_named_as_tainted() -> None:
    found = outputs_of([wrote("m-1", {"a": "11"}), wrote("m-2", {"b": "22"}, 1, tainted=TAINT)], 0)
    assert [s["name"] for s in found.subjects] == ["a"]
    said: Any = found.said
    assert [t["name"] for t in said["tainted"]] == ["b"]


def test_a_tainted_file_that_somebody_signed_off_is_one() -> None:
    assert names([wrote("m-1", {"a": "11"}, tainted=TAINT, accepted=ACCEPTED)]) == {"a": "11"}


def test_a_tainted_file_hides_the_clean_one_that_it_was_written_over() -> None:
    assert names([wrote("m-1", {"a": "11"}), wrote("m-2", {"a": "22"}, 1, tainted=TAINT)]) == {}


def test_pods_with_a_directory_each_have_each_their_file_of_one_name() -> None:
    own = [wrote(f"m-{n}", {"a": f"{n}{n}"}, n, pod=f"u-{n}", volume={}) for n in (1, 2)]
    assert len(outputs_of(own, 0).subjects) == 2


def test_what_does_not_fit_is_counted_and_the_newest_stay() -> None:
    many = [wrote(f"m-{n}", {f"{n:03}-{i}": "11" for i in range(256)}, n) for n in range(3)]
    found = outputs_of(many, 0)
    assert len(found.subjects) == runstatements.MAX_FILES
    assert found.said["filesUnlisted"] == 256
    assert str(found.subjects[0]["name"]).startswith("002-")


# What is said ------------------------------------------------------------------------------------


def test_it_says_inputs_signers_requester_findings_and_how_the_run_ended() -> None:
    findings = [Found("file.changed", "Critical", 1, 3, proved=True)]
    watched = Watched(
        2, findings, {"critical": 1}, {"finding": "file.changed", "severity": "Critical"}
    )
    seal = ended()
    mounts = (Mount("data-corpus", "corpus", "v1"),)
    said: Any = content(seal, mounts, watched, outputs_of([wrote("m-1", {"a": "11"})], 1))
    predicate = said["predicate"]
    assert predicate["sealDigest"] == seal["status"]["binding"]["sealDigest"]
    assert predicate["requester"]["username"] == seal["spec"]["requester"]["username"]
    assert {s["person"] for s in predicate["signers"]} >= {"Alice"}
    assert [c["name"] for c in predicate["inputs"]["code"]] == ["trainer"]
    assert predicate["inputs"]["images"][0]["digest"].startswith("sha256:")
    assert predicate["inputs"]["configDigest"] == seal["spec"]["configDigest"]
    assert predicate["inputs"]["mounts"] == [
        {"role": "data-corpus", "claim": "corpus", "path": "v1"}
    ]
    assert predicate["watch"]["findings"] == [
        {"id": "file.changed", "severity": "Critical", "things": 1, "times": 3, "proved": True}
    ]
    assert predicate["watch"]["taint"]["finding"] == "file.changed"
    assert (predicate["outcome"], predicate["ended"]) == ("Succeeded", "2026-11-23T12:30:00Z")
    assert predicate["outputs"]["unsigned"] == 1


def test_where_there_are_no_agents_it_says_so() -> None:
    said: Any = content(ended(), (), Watched(None, (), {}, {}), outputs_of([], 0))
    assert said["predicate"]["watch"]["agents"] is False


def test_a_run_without_outputs_is_stated_by_its_seal() -> None:
    statement = read(RING, "research", SEAL, signed())
    (subject,) = statement.subjects
    assert subject.name == f"sealedrun/research/{SEAL}"
    assert f"sha256:{subject.digests['sha256']}" == ended()["status"]["binding"]["sealDigest"]
    assert not runstatements.is_output(statement)


# Signed ------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.dictionaries(st.text(min_size=1, max_size=8), st.sampled_from(["11", "22"]), max_size=4))
def test_what_is_signed_is_what_is_read(files: dict[str, str]) -> None:
    said = content(ended(), (), CLEAN, outputs_of([wrote("m-1", files)], 0))
    statement = read(RING, "research", SEAL, sign(world.SEAL_KEY, said, 3, world.NOW))
    assert says(statement, said)
    assert runstatements.number_of(statement) == 3
    assert not says(statement, content(ended(phase="Failed"), (), CLEAN, outputs_of([], 0)))


def _edited(change: Callable[[Any], object]) -> Callable[[Object], None]:
    def edit(status: Object) -> None:
        document = json.loads(status["payload"])
        change(document)
        status["payload"] = json.dumps(document)

    return edit


CHANGES: dict[str, Callable[[Object], object]] = {
    "an output": _edited(lambda d: d["subject"][0]["digest"].update(sha256="0" * 64)),
    "the findings": _edited(lambda d: d["predicate"]["watch"].update(findings=[])),
    "a space": lambda s: s.update(payload=s["payload"] + " "),
    "the key's id": lambda s: s.update(keyID="sha256:" + "0" * 64),
    "the time": lambda s: s.update(signedAt="2026-11-23T12:00:01Z"),
    "the signature": lambda s: s.update(signature="bm8="),
    "no payload": lambda s: s.pop("payload"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_was_changed_is_not_read(change: Callable[[Object], object]) -> None:
    status = signed(wrote("m-1", {"a": "11"}))
    assert read(RING, "research", SEAL, status)
    change(status)
    with pytest.raises(UntrustedError):
        read(RING, "research", SEAL, status)


@pytest.mark.parametrize("place", [("research", "other"), ("other", SEAL)])
def test_a_statement_put_into_another_object_is_not_read(place: tuple[str, str]) -> None:
    with pytest.raises(UntrustedError, match="another run"):
        read(RING, *place, signed())


def test_a_key_that_the_keyring_does_not_hold_signs_nothing() -> None:
    with pytest.raises(UntrustedError, match="keyring"):
        read(world.keyring(world.MALLORY), "research", SEAL, signed())


def test_what_would_not_be_stored_is_not_signed() -> None:
    said: Any = content(ended(), (), CLEAN, outputs_of([], 0))
    said["predicate"]["message"] = "x" * runstatements.MAX_PAYLOAD_BYTES
    with pytest.raises(StatementTooLargeError, match="expected at most"):
        sign(world.SEAL_KEY, said, 1, world.NOW)
