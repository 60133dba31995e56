"""Registry credentials as container tools keep them: docker's ``config.json``.

Also the form of a Kubernetes pull secret (``.dockerconfigjson``) and of containers' ``auth.json``:
an entry's key may be a host, a host with a path (the longest that is a prefix of the repository
wins), or one of docker's old URL spellings. Credential helpers are programs; they are run only
where the caller asks for it (the command line does, the webhook never).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .references import DOCKER_HUB, normalized_host

CONFIG_LIMIT = 1024 * 1024
HELPER_SECONDS = 20.0
HELPER_LIMIT = 64 * 1024

_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class InvalidCredentials(ValueError):
    """A credentials file that cannot be read; the message never holds what is in it."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """For one registry. A password and tokens never show in ``repr``.

    ``identity_token`` is an OAuth2 refresh token for the token service, ``registry_token`` a
    bearer token for the registry itself.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


CredentialLookup = Callable[[str, str], Awaitable[Credentials | None]]
"""(registry, repository) as in ``Reference`` → credentials, or None to ask anonymously."""


async def anonymous(_registry: str, _repository: str) -> Credentials | None:
    """No credentials for anyone."""
    return None


@dataclass(frozen=True, slots=True)
class DockerConfig:
    """A parsed config: credentials by ``host[/path]``, helpers by host, the default helper."""

    auths: Mapping[str, Credentials]
    helpers: Mapping[str, str]
    store: str | None

    @classmethod
    def parse(cls, raw: bytes) -> DockerConfig:
        """Raises InvalidCredentials where ``raw`` is not a docker config of bounded size."""
        if len(raw) > CONFIG_LIMIT:
            raise InvalidCredentials(f"a docker config has at most {CONFIG_LIMIT} bytes")
        try:
            document = json.loads(raw or b"{}")
        except (ValueError, RecursionError):
            raise InvalidCredentials("the docker config is not JSON") from None
        if not isinstance(document, dict):
            raise InvalidCredentials("the docker config is not a JSON object")
        auths, helpers = document.get("auths", {}), document.get("credHelpers", {})
        if not isinstance(auths, dict) or not isinstance(helpers, dict):
            raise InvalidCredentials("'auths' and 'credHelpers' must be objects")
        entries = ((_key(key), _entry(value)) for key, value in auths.items())
        store = document.get("credsStore")
        return cls(
            auths={key: entry for key, entry in entries if entry is not None},
            helpers={_key(key): _helper(value) for key, value in helpers.items()},
            store=_helper(store) if store else None,
        )

    def find(self, registry: str, repository: str) -> Credentials | None:
        """The entry with the longest key that is this repository, a parent, or its registry."""
        for key in _keys(registry, repository):
            if key in self.auths:
                return self.auths[key]
        return None

    def helper(self, registry: str) -> str | None:
        """The helper program's suffix for this registry, if one is configured."""
        return self.helpers.get(registry, self.store)


def from_config(config: DockerConfig) -> CredentialLookup:
    """A lookup in one config, a pull secret's say. Runs no helpers."""

    async def lookup(registry: str, repository: str) -> Credentials | None:
        return config.find(registry, repository)

    return lookup


def from_file(path: Path, *, run_helpers: bool = False) -> CredentialLookup:
    """A lookup that reads the file each time, so that a rotated secret counts at once.

    A file that is absent has no credentials. Raises InvalidCredentials on lookup where it cannot
    be read. ``run_helpers`` lets ``docker-credential-*`` programs be run.
    """

    async def lookup(registry: str, repository: str) -> Credentials | None:
        config = await asyncio.to_thread(_read, path)
        if run_helpers and (helper := config.helper(registry)) is not None:
            found = await _ask_helper(helper, registry)
            if found is not None:
                return found
        return config.find(registry, repository)

    return lookup


def first_of(*lookups: CredentialLookup) -> CredentialLookup:
    """The first lookup that knows credentials wins: the webhook's own before pull secrets."""

    async def lookup(registry: str, repository: str) -> Credentials | None:
        for one in lookups:
            if (found := await one(registry, repository)) is not None:
                return found
        return None

    return lookup


def default_config_file(environment: Mapping[str, str] = os.environ) -> Path:
    """Where container tools keep credentials: DOCKER_CONFIG, ~/.docker, else containers' own."""
    if folder := environment.get("DOCKER_CONFIG"):
        return Path(folder) / "config.json"
    home = Path(environment.get("HOME") or Path.home())
    docker = home / ".docker" / "config.json"
    runtime = environment.get("XDG_RUNTIME_DIR")
    containers = Path(runtime) / "containers" / "auth.json" if runtime else None
    if not docker.exists() and containers is not None and containers.exists():
        return containers
    return docker


def _read(path: Path) -> DockerConfig:
    try:
        with path.open("rb") as file:
            return DockerConfig.parse(file.read(CONFIG_LIMIT + 1))
    except (FileNotFoundError, NotADirectoryError):
        return DockerConfig({}, {}, None)
    except OSError as error:
        raise InvalidCredentials(f"cannot read {path}: {error.strerror}") from None
    except InvalidCredentials as error:
        raise InvalidCredentials(f"{path}: {error}") from None


async def _ask_helper(helper: str, registry: str) -> Credentials | None:
    name = f"docker-credential-{helper}"
    server = _DOCKER_HUB_KEY if registry == DOCKER_HUB else registry
    try:
        process = await asyncio.create_subprocess_exec(
            name,
            "get",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError as error:
        raise InvalidCredentials(
            f"credential helper {name} cannot be run ({error.strerror}): install it, or remove it"
            " from the docker config"
        ) from None
    try:
        async with asyncio.timeout(HELPER_SECONDS):
            output, _ = await process.communicate(server.encode())
    except TimeoutError:
        raise InvalidCredentials(
            f"credential helper {name} gave no answer in {HELPER_SECONDS:.0f} s"
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:  # the helpers' way to say "not found"
        return None
    try:
        document = json.loads(output[:HELPER_LIMIT])
        username, secret = document["Username"], document["Secret"]
    except (ValueError, KeyError, TypeError):
        raise InvalidCredentials(f"credential helper {name} gave no readable answer") from None
    if not isinstance(username, str) or not isinstance(secret, str):
        raise InvalidCredentials(f"credential helper {name} gave no readable answer")
    if username == "<token>":
        return Credentials(identity_token=secret)
    return Credentials(username, secret)


def _keys(registry: str, repository: str) -> Iterator[str]:
    parts = repository.split("/")
    for count in range(len(parts), 0, -1):
        yield "/".join([registry, *parts[:count]])
    yield registry


def _key(key: str) -> str:
    host, _, path = key.removeprefix("https://").removeprefix("http://").partition("/")
    path = path.strip("/")
    if path in {"v1", "v2"}:  # docker's old spelling of a registry
        path = ""
    host = normalized_host(host)
    return f"{host}/{path}" if path else host


def _entry(value: object) -> Credentials | None:
    if not isinstance(value, dict):
        raise InvalidCredentials("an entry of 'auths' is not an object")
    username, password = _text(value, "username"), _text(value, "password")
    if packed := _text(value, "auth"):
        try:
            pair = base64.b64decode(packed, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise InvalidCredentials("an 'auth' entry is not base64 of user:password") from None
        username, _, password = pair.rstrip("\0").partition(":")
    found = Credentials(
        username, password, _text(value, "identitytoken"), _text(value, "registrytoken")
    )
    return None if found == Credentials() else found


def _text(value: Mapping[str, object], key: str) -> str:
    text = value.get(key, "")
    if not isinstance(text, str) or any(char in text for char in "\r\n"):
        raise InvalidCredentials(f"{key!r} of an entry of 'auths' is not a line of text")
    return text


def _helper(value: object) -> str:
    if not isinstance(value, str) or not _HELPER.fullmatch(value):
        raise InvalidCredentials("a credential helper's name is not valid")
    return value
