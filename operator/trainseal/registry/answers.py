"""What a registry's refusal means: status and error body to the errors of this package.

Source: OCI distribution specification 1.1, "Error Codes".
"""

from __future__ import annotations

import json

import aiohttp

from .authentication import Scope, denied
from .errors import (
    NotFound,
    RegistryError,
    RegistryMisbehaved,
    RegistryUnavailable,
    quoted,
)


def describe(status: int, body: bytes) -> str:
    """The refusal in words, with the registry's own where it gave some."""
    code, message = _first_error(body)
    said = quoted(": ".join(part for part in (code, message) if part))
    return f"the registry answered {status}" + (f" ({said})" if said else "")


def refusal(
    subject: str, scope: Scope | None, response: aiohttp.ClientResponse, body: bytes
) -> RegistryError:
    """The error that an unusable status means."""
    status, found = response.status, describe(response.status, body)
    if status in (401, 403) and scope is not None:
        return denied(scope, found)
    if status == 404:
        if is_registry_answer(response, body):
            return NotFound(
                subject,
                "the registry has no such thing",
                expected="an existing repository, tag or digest",
                remedy="check the reference, or push it",
            )
        # A proxy whose registry is gone answers 404 as well, and that is not "no signature".
        return RegistryMisbehaved(
            subject,
            "something answered 404, but not as a registry does",
            expected="an OCI registry at this address",
            remedy="check the registry's address and any proxy before it",
        )
    if 300 <= status < 400:
        return RegistryMisbehaved(
            subject, f"it redirected us ({status}) where no redirect is followed"
        )
    return RegistryUnavailable(
        subject, found, remedy="look at the registry's own logs for the reason"
    )


def is_registry_answer(response: aiohttp.ClientResponse, body: bytes) -> bool:
    """Whether a 404 comes from a registry: it says so in a header, or has a registry's errors."""
    version = response.headers.get("Docker-Distribution-Api-Version", "")
    return version.startswith("registry/2") or _first_error(body)[0] != ""


def _first_error(body: bytes) -> tuple[str, str]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    errors = document.get("errors") if isinstance(document, dict) else None
    first = errors[0] if isinstance(errors, list) and errors else None
    if not isinstance(first, dict):
        return "", ""
    code, message = first.get("code"), first.get("message")
    return code if isinstance(code, str) else "", message if isinstance(message, str) else ""
