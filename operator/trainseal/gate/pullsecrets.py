"""The registry credentials of a gate: the pull secrets that its sealed plan names, in their order.

Each is a docker config that the kubelet shows as a file, or does not: a Secret that is missing or
of another type leaves none, and that is no error as long as the registry does not ask. They are
read anew each time, so that one which is made or renewed meanwhile counts. No credential goes to
another registry than the one that its entry is for (``registry.credentials``,
``registry.destinations``), and nothing of a Secret but its name is ever said.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainseal.api.gateplan import PlannedPullSecret
from trainseal.registry.credentials import (
    CONFIG_LIMIT,
    CredentialLookup,
    Credentials,
    DockerConfig,
    InvalidCredentials,
)
from trainseal.registry.references import Reference

_TYPE = "kubernetes.io/dockerconfigjson"


def pull_secrets_lookup(secrets: Sequence[PlannedPullSecret]) -> CredentialLookup:
    """The first entry for a registry among the secrets; raises InvalidCredentials on lookup."""

    async def lookup(registry: str, repository: str) -> Credentials | None:
        for secret in secrets:
            config = _read(secret)
            found = config.find(registry, repository) if config else None
            if found is not None:
                return found
        return None

    return lookup


def what_to_do(secrets: Sequence[PlannedPullSecret], reference: Reference) -> str:
    """What a person can do where the registry refused the gate; names each secret."""
    registry = reference.registry
    if not secrets:
        return (
            f"if {registry} wants a password: name a Secret of type {_TYPE} that has it under"
            " imagePullSecrets in the job's pod template, and sign the job again"
        )
    return "; ".join(_state(secret, reference) for secret in secrets)


def _state(secret: PlannedPullSecret, reference: Reference) -> str:
    name, registry = f"Secret {secret.name}", reference.registry
    try:
        config = _read(secret)
    except InvalidCredentials:
        return f"{name} is no docker config: make it anew with kubectl create secret"
    if config is None:
        return f"{name} is not there, or not of type {_TYPE}: create it in the job's namespace"
    if config.find(registry, reference.repository) is None:
        return f"{name} has no entry for {registry}: add one"
    return f"{name} has an entry for {registry}: check that this account may read the repository"


def _read(secret: PlannedPullSecret) -> DockerConfig | None:
    try:
        with Path(secret.file).open("rb") as file:
            return DockerConfig.parse(file.read(CONFIG_LIMIT + 1))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InvalidCredentials(
            f"pull secret {secret.name} cannot be read: {error.strerror}"
        ) from None
    except InvalidCredentials as error:
        raise InvalidCredentials(f"pull secret {secret.name}: {error}") from None
