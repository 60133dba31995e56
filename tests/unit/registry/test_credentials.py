from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from trainseal.registry.credentials import (
    Credentials,
    DockerConfig,
    InvalidCredentials,
    anonymous,
    default_config_file,
    first_of,
    from_config,
    from_file,
)


def packed(pair: str) -> str:
    return base64.b64encode(pair.encode()).decode()


def config(**auths: object) -> bytes:
    return json.dumps({"auths": auths}).encode()


ADA = Credentials("ada", "pass:word")
ENTRY = {"auth": packed("ada:pass:word")}


@pytest.mark.parametrize(
    ("key", "registry", "repository"),
    [
        ("registry.example", "registry.example", "x"),
        ("https://registry.example", "registry.example", "x"),
        ("https://registry.example/v2/", "registry.example", "x"),
        ("registry.example:5000", "registry.example:5000", "a/b"),
        ("https://index.docker.io/v1/", "docker.io", "library/python"),
        ("docker.io", "docker.io", "ada/tool"),
        ("registry.example/research", "registry.example", "research/code"),
        ("registry.example/research/code", "registry.example", "research/code"),
    ],
)
def test_an_entry_is_found_under_each_spelling_of_its_key(
    key: str, registry: str, repository: str
) -> None:
    assert DockerConfig.parse(config(**{key: ENTRY})).find(registry, repository) == ADA


@pytest.mark.parametrize(
    ("key", "registry", "repository"),
    [
        ("registry.example", "registry.example:5000", "x"),
        ("registry.example", "registry.example.evil.test", "x"),
        ("registry.example/research", "registry.example", "researcher/code"),
        ("registry.example/research", "registry.example", "other/code"),
    ],
)
def test_an_entry_is_not_given_to_another_registry_or_repository(
    key: str, registry: str, repository: str
) -> None:
    assert DockerConfig.parse(config(**{key: ENTRY})).find(registry, repository) is None


def test_the_longest_key_wins() -> None:
    raw = config(
        **{
            "registry.example": {"username": "all", "password": "1"},
            "registry.example/research": {"username": "team", "password": "2"},
        }
    )
    parsed = DockerConfig.parse(raw)
    assert parsed.find("registry.example", "research/x") == Credentials("team", "2")
    assert parsed.find("registry.example", "other/x") == Credentials("all", "1")


def test_tokens_are_read_and_empty_entries_are_none() -> None:
    raw = config(
        **{
            "a.example": {"auth": packed("00000000:"), "identitytoken": "refresh"},
            "b.example": {"registrytoken": "bearer"},
            "c.example": {},
        }
    )
    parsed = DockerConfig.parse(raw)
    assert parsed.find("a.example", "x") == Credentials("00000000", "", "refresh")
    assert parsed.find("b.example", "x") == Credentials(registry_token="bearer")
    assert parsed.find("c.example", "x") is None


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"[]",
        b'{"auths": []}',
        b'{"auths": {"a.example": "s3cret"}}',
        b'{"auths": {"a.example": {"auth": "s3cret!"}}}',
        b'{"auths": {"a.example": {"username": 5}}}',
        b'{"auths": {"a.example": {"username": "s3cret\\r\\nX: y"}}}',
        b'{"credsStore": "../../bin/sh"}',
        b'{"credHelpers": {"a.example": "a b"}}',
        b" " * (1024 * 1024 + 1),
    ],
)
def test_an_unreadable_config_is_refused_without_telling_what_is_in_it(raw: bytes) -> None:
    with pytest.raises(InvalidCredentials) as error:
        DockerConfig.parse(raw)
    assert "s3cret" not in str(error.value)


def test_secrets_do_not_show() -> None:
    shown = repr(Credentials("ada", "hunter2", "refresh-t", "bearer-t"))
    assert "ada" in shown
    assert not any(secret in shown for secret in ("hunter2", "refresh-t", "bearer-t"))


async def test_a_file_is_read_anew_and_may_be_absent(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    lookup = from_file(file)
    assert await lookup("registry.example", "x") is None
    file.write_bytes(config(**{"registry.example": ENTRY}))
    assert await lookup("registry.example", "x") == ADA
    file.write_bytes(b"{")
    with pytest.raises(InvalidCredentials, match=r"config\.json"):
        await lookup("registry.example", "x")


async def test_the_first_lookup_that_knows_wins() -> None:
    one = from_config(DockerConfig.parse(config(**{"a.example": ENTRY})))
    other = from_config(
        DockerConfig.parse(config(**{"a.example": {"username": "x", "password": "y"}}))
    )
    assert await first_of(anonymous, one, other)("a.example", "x") == ADA
    assert await first_of(anonymous)("a.example", "x") is None


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A credential helper on the PATH that notes that it ran."""
    program = tmp_path / "docker-credential-test"
    program.write_text(
        f"#!/bin/sh\ntouch {tmp_path}/ran\nread server\n"
        'case "$server" in\n'
        'registry.example) echo \'{"Username":"ada","Secret":"pass:word"}\' ;;\n'
        'token.example) echo \'{"Username":"<token>","Secret":"refresh"}\' ;;\n'
        "odd.example) echo nonsense ;;\n"
        "*) echo not found; exit 1 ;;\nesac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "config.json").write_text('{"credsStore": "test"}')
    return tmp_path


async def test_helpers_run_only_where_asked_for(helper: Path) -> None:
    file = helper / "config.json"
    assert await from_file(file)("registry.example", "x") is None
    assert not (helper / "ran").exists()
    assert await from_file(file, run_helpers=True)("registry.example", "x") == ADA
    assert (helper / "ran").exists()


async def test_a_helper_may_give_a_token_know_nothing_or_fail(helper: Path) -> None:
    lookup = from_file(helper / "config.json", run_helpers=True)
    assert await lookup("token.example", "x") == Credentials(identity_token="refresh")
    assert await lookup("unknown.example", "x") is None
    with pytest.raises(InvalidCredentials, match="no readable answer"):
        await lookup("odd.example", "x")
    (helper / "config.json").write_text('{"credsStore": "absent"}')
    with pytest.raises(InvalidCredentials, match="docker-credential-absent cannot be run"):
        await lookup("registry.example", "x")


def test_the_default_file_is_where_container_tools_keep_it(tmp_path: Path) -> None:
    home, run = tmp_path / "home", tmp_path / "run"
    environment = {"HOME": str(home), "XDG_RUNTIME_DIR": str(run)}
    docker, containers = home / ".docker/config.json", run / "containers/auth.json"
    assert default_config_file(environment) == docker
    containers.parent.mkdir(parents=True)
    containers.write_text("{}")
    assert default_config_file(environment) == containers
    docker.parent.mkdir(parents=True)
    docker.write_text("{}")
    assert default_config_file(environment) == docker
    chosen = {**environment, "DOCKER_CONFIG": "/chosen"}
    assert default_config_file(chosen) == Path("/chosen/config.json")
