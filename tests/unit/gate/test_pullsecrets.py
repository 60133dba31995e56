"""The gate's credentials: the pull secrets its plan names, and what is said of them."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import pytest

from tests.unit.gate.world import REPOSITORY, World
from trainseal.api.gateplan import GatePlan, PlannedPullSecret
from trainseal.gate.main import USAGE, run_text
from trainseal.gate.pullsecrets import pull_secrets_lookup, what_to_do
from trainseal.registry.credentials import Credentials, InvalidCredentials
from trainseal.registry.errors import AccessDenied
from trainseal.registry.references import Reference

PASSWORD = "hunter-2-is-secret"
REFERENCE = Reference.parse(f"{REPOSITORY}@sha256:{'a' * 64}")
MALFORMED = {
    "no JSON": PASSWORD.encode(),
    "no object": json.dumps([PASSWORD]).encode(),
    "no base64": json.dumps({"auths": {"registry.example": {"auth": PASSWORD}}}).encode(),
    "no line": json.dumps(
        {"auths": {"registry.example": {"username": "a", "password": f"{PASSWORD}\r\nHost: x"}}}
    ).encode(),
    "too large": b" " * (1 << 20) + b"{}",
}


def entry(registry: str, user: str) -> bytes:
    auth = base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()
    return json.dumps({"auths": {registry: {"auth": auth}}}).encode()


class Secrets:
    """Pull secrets as the kubelet shows them: a folder each, empty where there is none."""

    def __init__(self, folder: Path, *contents: bytes | None) -> None:
        self.planned = []
        for number, content in enumerate(contents):
            file = folder / str(number) / "config.json"
            if content is not None:
                file.parent.mkdir()
                file.write_bytes(content)
            self.planned.append(PlannedPullSecret(name=f"secret-{number}", file=str(file)))

    def find(self, registry: str = "registry.example") -> Credentials | None:
        return asyncio.run(pull_secrets_lookup(self.planned)(registry, "research/code"))  # type: ignore[arg-type]

    def words(self) -> str:
        return what_to_do(self.planned, REFERENCE)


def test_the_first_secret_with_an_entry_for_the_registry_is_used(tmp_path: Path) -> None:
    secrets = Secrets(
        tmp_path,
        None,
        entry("other.example", "other"),
        entry("registry.example", "first"),
        entry("registry.example", "second"),
    )
    assert secrets.find() == Credentials("first", PASSWORD)
    assert secrets.find("other.example") == Credentials("other", PASSWORD)


@pytest.mark.parametrize(
    "registry", ["registry.example.evil.test", "evil.test", "registry.example:5000", "example"]
)
def test_no_entry_goes_to_another_registry(tmp_path: Path, registry: str) -> None:
    assert Secrets(tmp_path, entry("registry.example", "ada")).find(registry) is None


def test_secrets_that_are_not_there_are_no_error_until_the_registry_asks(tmp_path: Path) -> None:
    assert Secrets(tmp_path, None, None).find() is None
    assert Secrets(tmp_path).find() is None


def test_a_secret_made_meanwhile_counts(tmp_path: Path) -> None:
    secrets = Secrets(tmp_path, None)
    assert secrets.find() is None
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "config.json").write_bytes(entry("registry.example", "ada"))
    assert secrets.find() == Credentials("ada", PASSWORD)


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_secret_is_named_and_nothing_of_it_is_said(tmp_path: Path, what: str) -> None:
    secrets = Secrets(tmp_path, MALFORMED[what])
    with pytest.raises(InvalidCredentials, match="pull secret secret-0: ") as error:
        secrets.find()
    assert PASSWORD not in str(error.value)
    assert secrets.words() == (
        "Secret secret-0 is no docker config: make it anew with kubectl create secret"
    )


def test_what_became_of_each_secret_is_said(tmp_path: Path) -> None:
    secrets = Secrets(tmp_path, None, entry("other.example", "x"), entry("registry.example", "ada"))
    missing, other, refused = secrets.words().split("; ")
    assert missing.startswith("Secret secret-0 is not there, or not of type kubernetes.io/docker")
    assert other == "Secret secret-1 has no entry for registry.example: add one"
    assert refused.startswith("Secret secret-2 has an entry for registry.example: check")
    assert PASSWORD not in secrets.words()


def test_a_job_that_names_no_secret_is_told_where_to_name_one(tmp_path: Path) -> None:
    assert "imagePullSecrets in the job's pod template" in Secrets(tmp_path).words()


def test_a_registry_that_refuses_is_undetermined_at_once_and_each_secret_is_named(
    world: World,
) -> None:
    plan = world.push()

    async def refuse(*_: object) -> bytes:
        raise AccessDenied(REPOSITORY, "the registry wants a user and a password")

    world.registry.blob = refuse  # type: ignore[method-assign, assignment]
    secrets = [PlannedPullSecret(name="regcred", file=str(world.root / "none"))]
    code, message = world.run_plan(plan.model_copy(update={"pull_secrets": secrets}))
    assert code == 2
    assert message.startswith(
        f"trainseal gate: undetermined: code trainer: {REPOSITORY}: the registry wants a user"
    )
    assert "Secret regcred is not there" in message
    assert world.slept == []


@pytest.mark.parametrize(
    "change",
    [
        {"pullSecrets": [{"name": "../x", "file": "/x"}]},
        {"pullSecrets": [{"name": "x", "file": "/x"}] * 17},
        {"registryCa": "x" * (16 * 1024 + 1)},
    ],
)
def test_a_plan_beyond_its_bounds_is_no_plan(
    world: World, change: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_text(json.dumps(change), termination_log=world.root / "termination-log") == USAGE
    assert "not valid" in capsys.readouterr().err


def test_the_largest_plan_fits_into_one_argument() -> None:
    digest = "sha256:" + "a" * 64
    code = {
        "name": "n" * 63,
        "reference": "r" * 1024,
        "treeDigest": digest,
        "bundle": digest,
        "target": "t" * 1024,
    }
    plan = GatePlan.model_validate(
        {
            "code": [code] * 16,
            "config": {"source": "s", "target": "t", "files": {"f" * 64: digest}},
            "plainHttp": ["p" * 1024] * 16,
            "registryCa": "\n" * (16 * 1024),  # two characters each in JSON
            "pullSecrets": [{"name": "s" * 253, "file": "f" * 1024}] * 16,
        }
    )
    assert len(plan.model_dump_json(by_alias=True)) < 128 * 1024  # MAX_ARG_STRLEN
