"""Authorities for registries' TLS certificates, as text that is small enough to be sealed.

The gate runs in namespaces whose editors could exchange a ConfigMap with them; so the text stands
in the gate's own sealed arguments (docs/decisions/0012). It stands there once a pod, which is why
it is bounded, and why everything but the certificates is left out.
"""

from __future__ import annotations

import re
import ssl
from pathlib import Path

_CERTIFICATE = re.compile(
    r"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----"
)
_READ_LIMIT = 4 * 1024 * 1024


class InvalidAnchors(ValueError):
    """A file of authorities that cannot be used; the words say what to do."""


def read_anchors(path: Path, max_bytes: int) -> str:
    """The certificates in a PEM file, each once, in its order. Raises InvalidAnchors.

    Law: reading what was read gives the same again.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_READ_LIMIT + 1)
    except OSError as error:
        raise InvalidAnchors(f"{path} cannot be read: {error.strerror}") from None
    try:
        return _anchors(raw, max_bytes)
    except InvalidAnchors as error:
        raise InvalidAnchors(f"{path}: {error}") from None


def _anchors(raw: bytes, max_bytes: int) -> str:
    if len(raw) > _READ_LIMIT:
        raise InvalidAnchors(f"more than {_READ_LIMIT} bytes; give the registries' own authorities")
    found = dict.fromkeys(_blocks(raw.decode("ascii", "replace")))
    if not found:
        raise InvalidAnchors("no certificate in it; expected PEM, -----BEGIN CERTIFICATE-----")
    text = "".join(f"{block}\n" for block in found)
    if len(text) > max_bytes:
        raise InvalidAnchors(
            f"{len(found)} certificates of {len(text)} bytes in all; expected at most {max_bytes}"
            " bytes, since they stand in every pod's gate; give the authorities of your own"
            " registries alone, public ones are trusted without"
        )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidAnchors(f"a certificate in it cannot be read ({error})") from None
    return text


def _blocks(text: str) -> list[str]:
    return [
        "\n".join(line.strip() for line in block.splitlines() if line.strip())
        for block in _CERTIFICATE.findall(text)
    ]
