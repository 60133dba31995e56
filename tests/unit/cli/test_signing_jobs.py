"""`trainseal sign job`, `canonical`, `digest`: files as people have them."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit import world
from tests.unit.cli.conftest import Run, key_file
from trainseal.cli import jobsigning
from trainseal.provenance.bundles import make_bundle_blob
from trainseal.provenance.canonical import canonical_job, job_digest
from trainseal.provenance.verdicts import Outcome
from trainseal.provenance.yamlreader import read_documents


def read(path: Path) -> Any:
    return read_documents(path.read_bytes(), str(path))[0].value


def signatures(path: Path) -> list[Any]:
    found: list[Any] = read(path)["spec"].get("signatures", [])
    return found


def add_bundle(path: Path, bundle: object) -> None:
    path.write_text(f"{path.read_text()}  signatures:\n  - bundle: {json.dumps(bundle)}\n")


def test_a_signed_job_verifies_and_its_text_stays(
    trainseal: Run, job: Path, keys: dict[str, Path]
) -> None:
    before = job.read_text()
    answer = trainseal("sign", "job", "-f", "job.yaml", "--key", "alice.key")
    assert answer.code == 0
    assert answer.out == ""
    assert job_digest(read(job)) in answer.err
    assert world.IMAGE in answer.err
    assert world.CODE in answer.err
    assert job.read_text().startswith(before)
    assert world.verify(read(job)).outcome is Outcome.VERIFIED


def test_signed_by_a_stranger_it_does_not_verify(
    trainseal: Run, job: Path, keys: dict[str, Path]
) -> None:
    trainseal("sign", "job", "-f", "job.yaml", "--key", "mallory.key")
    assert world.verify(read(job)).outcome is Outcome.REFUTED


def test_what_is_signed_is_shown_before_the_key_is_opened(trainseal: Run, job: Path) -> None:
    answer = trainseal("sign", "job", "-f", "job.yaml", "--key", "absent.key")
    assert answer.code == 64
    assert answer.err.index(job_digest(read(job))) < answer.err.index("absent.key: No such file")


def test_a_second_signer_adds_a_second_bundle(
    trainseal: Run, job: Path, keys: dict[str, Path]
) -> None:
    trainseal("sign", "job", "-f", "job.yaml", "--key", "alice.key")
    answer = trainseal("sign", "job", "-f", "job.yaml", "--key", "bob.key")
    assert "2 signatures in all" in answer.err
    assert len(signatures(job)) == 2


def test_signing_again_with_one_key_changes_nothing_and_says_so(
    trainseal: Run, job: Path, keys: dict[str, Path]
) -> None:
    trainseal("sign", "job", "-f", "job.yaml", "--key", "alice.key")
    before = job.read_bytes(), job.stat().st_ino
    answer = trainseal("sign", "job", "-f", "job.yaml", "--key", "alice.key")
    assert answer.code == 0
    assert "already signed" in answer.err
    assert (job.read_bytes(), job.stat().st_ino) == before


def test_signatures_over_an_earlier_state_are_dropped_with_a_word(
    trainseal: Run, job: Path, keys: dict[str, Path]
) -> None:
    trainseal("sign", "job", "-f", "job.yaml", "--key", "alice.key")
    trainseal("sign", "job", "-f", "job.yaml", "--key", "bob.key")
    job.write_text(job.read_text().replace("steps: 2000", "steps: 2001"))
    answer = trainseal("sign", "job", "-f", "job.yaml", "--key", "alice.key")
    assert "2 signatures were over the job as it was before" in answer.err
    assert len(signatures(job)) == 1


def test_what_is_not_signed_may_change_and_signatures_stay(
    trainseal: Run, job: Path, keys: dict[str, Path]
) -> None:
    trainseal("sign", "job", "-f", "job.yaml", "--key", "alice.key")
    job.write_text(f"{job.read_text()}  suspend: true\n")
    answer = trainseal("sign", "job", "-f", "job.yaml", "--key", "bob.key")
    assert "dropped" not in answer.err
    assert len(signatures(job)) == 2


def test_a_bare_signature_over_the_canonical_bytes_counts_and_a_stale_one_is_dropped(
    trainseal: Run, job: Path, keys: dict[str, Path]
) -> None:
    add_bundle(job, make_bundle_blob(world.ALICE, canonical_job(read(job))))
    again = trainseal("sign", "job", "-f", "job.yaml", "--key", "alice.key")
    assert "already signed" in again.err
    job.write_text(job.read_text().replace("steps: 2000", "steps: 2001"))
    trainseal("sign", "job", "-f", "job.yaml", "--key", "bob.key")
    assert len(signatures(job)) == 1


def test_a_bundle_that_cannot_be_read_stays(
    trainseal: Run, job: Path, keys: dict[str, Path]
) -> None:
    add_bundle(job, {"mediaType": "application/of.the.future"})
    answer = trainseal("sign", "job", "-f", "job.yaml", "--key", "alice.key")
    assert "spec.signatures[0] cannot be read, and stays as it is" in answer.err
    assert len(signatures(job)) == 2


def test_a_seventeenth_signature_is_refused_and_the_file_stays(
    trainseal: Run, job: Path, keys: dict[str, Path]
) -> None:
    value = read(job)
    world.sign_job(value, *(world.new_key() for _ in range(16)))
    job.write_text(json.dumps(value))
    before = job.read_bytes()
    answer = trainseal("sign", "job", "-f", "job.yaml", "--key", "alice.key")
    assert answer.code == 64
    assert "at most 16" in answer.err
    assert job.read_bytes() == before


def test_a_namespace_from_the_command_is_signed_and_not_written(
    trainseal: Run, job: Path, keys: dict[str, Path]
) -> None:
    job.write_text(job.read_text().replace("  namespace: research\n", ""))
    missing = trainseal("sign", "job", "-f", "job.yaml", "--key", "alice.key")
    assert missing.code == 64
    assert "job.yaml:4:1: metadata.namespace" in missing.err
    assert "-n NS" in missing.err
    answer = trainseal("sign", "job", "-f", "job.yaml", "--key", "alice.key", "-n", "team")
    assert answer.code == 0
    assert "team/char-lm" in answer.err
    assert "namespace" not in read(job)["metadata"]


def test_another_namespace_than_the_manifest_names_is_refused(trainseal: Run, job: Path) -> None:
    answer = trainseal("digest", "-f", "job.yaml", "-n", "team")
    assert answer.code == 64
    assert "two namespaces" in answer.err


def test_the_result_may_go_to_another_file_or_to_standard_output(
    trainseal: Run, job: Path, keys: dict[str, Path], tmp_path: Path
) -> None:
    before = job.read_bytes()
    trainseal("sign", "job", "-f", "job.yaml", "--key", "alice.key", "-o", "signed.yaml")
    assert len(signatures(tmp_path / "signed.yaml")) == 1
    answer = trainseal("sign", "job", "-f", "job.yaml", "--key", "alice.key", "-o", "-")
    assert answer.out == (tmp_path / "signed.yaml").read_text()
    assert job.read_bytes() == before


def test_standard_input_goes_to_standard_output(
    trainseal: Run, job: Path, keys: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(job.read_bytes())))
    answer = trainseal("sign", "job", "-f", "-", "--key", "alice.key")
    (document,) = read_documents(answer.out, "")
    assert document.where(("spec", "signatures", 0)) != document.where(("spec",))


def test_a_layout_of_braces_is_left_alone_in_place_and_written_anew_elsewhere(
    trainseal: Run, job: Path, keys: dict[str, Path], tmp_path: Path
) -> None:
    value = read(job)
    job.write_text(
        "apiVersion: trainseal.dev/v1alpha1\nkind: TrainingJob\n"
        f"metadata: {json.dumps(value['metadata'])}\nspec: {json.dumps(value['spec'])}\n"
    )
    before = job.read_bytes()
    refused = trainseal("sign", "job", "-f", "job.yaml", "--key", "alice.key")
    assert refused.code == 64
    assert "-o FILE" in refused.err
    assert job.read_bytes() == before
    trainseal("sign", "job", "-f", "job.yaml", "--key", "alice.key", "-o", "new.yaml")
    assert job_digest(read(tmp_path / "new.yaml")) == job_digest(value)
    assert len(signatures(tmp_path / "new.yaml")) == 1


def test_a_link_stays_a_link_and_the_mode_stays(
    trainseal: Run, job: Path, keys: dict[str, Path], tmp_path: Path
) -> None:
    job.chmod(0o640)
    link = tmp_path / "link.yaml"
    link.symlink_to("job.yaml")
    trainseal("sign", "job", "-f", "link.yaml", "--key", "alice.key")
    assert link.is_symlink()
    assert stat.S_IMODE(job.stat().st_mode) == 0o640
    assert len(signatures(job)) == 1


def test_what_would_not_hold_the_signature_is_not_written(
    trainseal: Run, job: Path, keys: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def losing(text: str, *_: object) -> str:
        return text

    monkeypatch.setattr(jobsigning, "edited", losing)
    before = job.read_bytes()
    answer = trainseal("sign", "job", "-f", "job.yaml", "--key", "alice.key")
    assert answer.code == 64
    assert "nothing was written" in answer.err
    assert job.read_bytes() == before


def test_canonical_prints_the_bytes_that_the_digest_is_of(trainseal: Run, job: Path) -> None:
    digest = trainseal("digest", "-f", "job.yaml")
    canonical = trainseal("canonical", "-f", "job.yaml")
    assert canonical.code == 0
    assert canonical.out.encode() == canonical_job(read(job))
    found = hashlib.sha256(canonical.out.encode()).hexdigest()
    assert digest.out == f"sha256:{found}\n"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("steps: 2000", "steps: .nan"), "job.yaml:19:14"),
        (("steps: 2000", "steps: 99999999999999999"), "2^53-1"),
        (("steps: 2000", "steps: 2000\n      steps: 1"), "job.yaml:20:7"),
        (("engine: Job", "engine: Jobs"), "job.yaml:8:3: spec.engine: found 'Jobs'"),
        (("replicas: 2", "replica: 2"), "spec.roles[0].replica: found 2, expected no such field"),
        (("kind: TrainingJob", "kind: Job"), "0 of kind TrainingJob or TrainingTemplate (Job)"),
        (("name: char-lm", "generateName: char-lm"), "a signed job has one fixed name"),
    ],
)
def test_an_error_names_file_line_and_field(
    trainseal: Run, job: Path, change: tuple[str, str], words: str
) -> None:
    text = job.read_text()
    assert change[0] in text
    job.write_text(text.replace(*change))
    answer = trainseal("digest", "-f", "job.yaml")
    assert answer.code == 64
    assert words in answer.err


@pytest.mark.parametrize("variable", ["TRAINSEAL_KEY_PASSWORD", "COSIGN_PASSWORD"])
def test_the_password_of_a_key_comes_from_the_environment(
    trainseal: Run, job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    key_file(tmp_path / "locked.key", world.ALICE, b"correct horse")
    monkeypatch.setenv(variable, "correct horse")
    assert trainseal("sign", "job", "-f", "job.yaml", "--key", "locked.key").code == 0
    monkeypatch.setenv(variable, "wrong")
    wrong = trainseal("sign", "job", "-f", "job.yaml", "--key", "locked.key")
    assert wrong.code == 64
    assert "locked.key" in wrong.err
    assert "wrong" not in wrong.err.replace("wrong password", "")
