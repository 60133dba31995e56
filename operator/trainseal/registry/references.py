"""References to what lies in a registry: ``host[:port]/repository[:tag][@sha256:…]``.

The grammar is the one of container runtimes (distribution/reference), with its bounds, and their
defaulting: a first part that is no host name (no dot, no colon, not ``localhost``) belongs to
``docker.io``, and a single name there to ``docker.io/library``. Hosts are written in lower case.
Only SHA-256 digests are taken: nothing here verifies another.

Laws: ``Reference.parse(str(r)) == r``, and a reference's parts never hold a character that
means something in a URL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

DOCKER_HUB = "docker.io"
DOCKER_HUB_API = "registry-1.docker.io"
DEFAULT_TAG = "latest"

LONGEST_NAME = 255
LONGEST_TEXT = 512

_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:]+\])(?::[1-9][0-9]{{0,4}})?")
_PATH_PART = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class InvalidReference(ValueError):
    """A text that is no reference; the message says which part, and what it must look like."""


def is_digest(text: str) -> bool:
    """Whether ``text`` is a digest as it is taken here: ``sha256:`` and 64 lower-case hex."""
    return _DIGEST.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Reference:
    """One thing in a registry. With neither tag nor digest it stands for the tag ``latest``."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    def __post_init__(self) -> None:
        _check_host(self.registry)
        _check_repository(self.registry, self.repository)
        if self.tag is not None and not _TAG.fullmatch(self.tag):
            raise InvalidReference(
                f"tag {self.tag[:140]!r} is not valid: letters, digits, '_', '.', '-', at most 128"
            )
        if self.digest is not None and not is_digest(self.digest):
            raise InvalidReference(
                f"digest {self.digest[:140]!r} is not valid: 'sha256:' and 64 lower-case hex digits"
            )

    @classmethod
    def parse(cls, text: str) -> Reference:
        """The reference that ``text`` means. Raises InvalidReference."""
        if len(text) > LONGEST_TEXT:
            raise InvalidReference(f"a reference has at most {LONGEST_TEXT} characters")
        rest, at, digest = text.partition("@")
        name, colon, tag = rest.rpartition(":")
        if not colon or "/" in tag:  # the colon, if any, is a port's
            name, tag, colon = rest, "", ""
        registry, repository = _split_host(name)
        try:
            return cls(registry, repository, tag if colon else None, digest if at else None)
        except InvalidReference as error:
            raise InvalidReference(f"{text[:140]!r} is not an image reference: {error}") from None

    @property
    def repository_name(self) -> str:
        """``registry/repository``, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def identifier(self) -> str:
        """What a registry is asked for: the digest, else the tag, else ``latest``."""
        return self.digest or self.tag or DEFAULT_TAG

    @property
    def api_host(self) -> str:
        """The host (and port) that serves the registry API."""
        return api_host(self.registry)

    def at(self, digest: str) -> Reference:
        """The thing with this digest in the same repository (without the tag)."""
        return replace(self, tag=None, digest=digest)

    def tagged(self, tag: str) -> Reference:
        """The thing with this tag in the same repository (without the digest)."""
        return replace(self, tag=tag, digest=None)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"


def normalized_host(host: str) -> str:
    """A registry's one spelling: lower case, and Docker Hub by its short name."""
    host = host.lower()
    return DOCKER_HUB if host in {"index.docker.io", DOCKER_HUB_API} else host


def api_host(registry: str) -> str:
    """The host (and port) that serves a registry's API: Docker Hub's has another name."""
    return DOCKER_HUB_API if registry == DOCKER_HUB else registry


def check_host(host: str) -> str:
    """``host`` in its one spelling. Raises InvalidReference where it is no host[:port]."""
    host = normalized_host(host)
    _check_host(host)
    return host


def _split_host(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_host = "." in first or ":" in first or first == "localhost" or first != first.lower()
    if not slash or not is_host:
        registry, repository = DOCKER_HUB, name
    else:
        registry, repository = normalized_host(first), rest
    if registry == DOCKER_HUB and repository and "/" not in repository:
        repository = f"library/{repository}"
    return registry, repository


def _check_host(host: str) -> None:
    if len(host) > LONGEST_NAME or not _HOST.fullmatch(host):
        raise InvalidReference(f"registry {host[:140]!r} is not valid: host or host:port")
    if not host.endswith("]") and ":" in host and int(host.rpartition(":")[2]) > 65535:
        raise InvalidReference(f"registry {host[:140]!r} is not valid: a port is at most 65535")


def _check_repository(registry: str, repository: str) -> None:
    if not repository or len(registry) + 1 + len(repository) > LONGEST_NAME:
        raise InvalidReference(f"registry and repository have 1 to {LONGEST_NAME} characters")
    for part in repository.split("/"):
        if not _PATH_PART.fullmatch(part):
            raise InvalidReference(
                f"repository part {part[:140]!r} is not valid: lower-case letters and digits,"
                " joined by '.', '_', '__' or dashes"
            )
