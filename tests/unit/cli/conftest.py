"""The command line as a person has it: files in a folder, an exit code, two streams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import serialization

from tests.unit import world
from trainseal.cli.failures import run
from trainseal.cli.main import app
from trainseal.provenance.keys import PrivateKey

Run = Callable[..., "Answer"]


@dataclass(frozen=True)
class Answer:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def trainseal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Runs one command line in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("TRAINSEAL_PLAIN_HTTP", "TRAINSEAL_KEY_PASSWORD", "COSIGN_PASSWORD"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: str) -> Answer:
        capsys.readouterr()
        code = run(app, list(arguments))
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job that stands by digests, with a comment in its file; not signed."""
    value = world.job_object()
    del value["metadata"]["uid"]
    path = tmp_path / "job.yaml"
    path.write_text("# ours\n" + yaml.safe_dump(value, sort_keys=False))
    return path


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Path]:
    """Key files of Alice, Bob and Mallory."""
    named = {"alice": world.ALICE, "bob": world.BOB, "mallory": world.MALLORY}
    return {name: key_file(tmp_path / f"{name}.key", key) for name, key in named.items()}


def key_file(path: Path, key: PrivateKey, password: bytes | None = None) -> Path:
    """The key as PKCS #8 PEM, encrypted where there is a password."""
    encryption = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    path.write_bytes(
        key.handle.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )
    )
    return path
