"""Sigstore trusted roots: the certificate authorities, logs and timestamp authorities to believe.

Given as JSON (``application/vnd.dev.sigstore.trustedroot+json``) and never fetched: no TUF, no
network, so that an air-gapped cluster verifies as any other does. A trusted root has no expiry of
its own; each authority in it has a window of validity, and :mod:`keyless` says when all are past.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sigstore._internal.tuf import DEFAULT_TUF_URL
from sigstore._utils import read_embedded
from sigstore.errors import Error as SigstoreError
from sigstore.models import TrustedRoot as SigstoreTrustedRoot
from sigstore_models.common.v1 import TimeRange
from sigstore_models.trustroot.v1 import TransparencyLogInstance
from sigstore_models.trustroot.v1 import TrustedRoot as TrustedRootModel

from trainseal.provenance import strictjson
from trainseal.provenance.rekor import RekorVerifier

MAX_TRUSTED_ROOT_BYTES = 1024 * 1024
_MAX_AUTHORITIES = 64


class TrustRootError(ValueError):
    """The text is no trusted root that can verify anything; it says what is missing or wrong."""


@dataclass(frozen=True, slots=True)
class TrustedRoot:
    """A trusted root, read once. Equal to another if their texts are.

    ``digest`` (``sha256:…`` of the JSON text) names it in caches. ``verifier`` is Sigstore's own,
    made once here because making it parses every certificate.
    """

    digest: str
    model: TrustedRootModel = field(repr=False, compare=False)
    verifier: RekorVerifier = field(repr=False, compare=False)


def load_trusted_root(json_text: str | bytes) -> TrustedRoot:
    """The trusted root in ``json_text``. Raises TrustRootError."""
    text = json_text.encode() if isinstance(json_text, str) else json_text
    try:
        strictjson.parse(text, max_bytes=MAX_TRUSTED_ROOT_BYTES)
        model = TrustedRootModel.from_json(text)
        _check_complete(model)
        _close_windows(model)
        verifier = RekorVerifier(trusted_root=SigstoreTrustedRoot(model))
    except TrustRootError:
        raise
    except (SigstoreError, ValueError) as error:
        raise TrustRootError(f"not a Sigstore trusted root: {error}") from None
    return TrustedRoot("sha256:" + hashlib.sha256(text).hexdigest(), model, verifier)


@functools.cache
def public_good_trusted_root() -> TrustedRoot:
    """The public-good instance's root as the ``sigstore`` package carries it."""
    return load_trusted_root(read_embedded("trusted_root.json", DEFAULT_TUF_URL))


def within(window: TimeRange | None, moment: datetime) -> bool:
    """Whether ``moment`` lies in the window, both ends included; no window has no ends."""
    return window is None or (
        window.start <= moment and (window.end is None or moment <= window.end)
    )


def log_window(logs: list[TransparencyLogInstance], log_id: bytes) -> TimeRange | None:
    """The validity of the log that ``log_id`` names, None where it is unknown or unlimited."""
    for log in logs:
        if log.log_id.key_id == log_id:
            return log.public_key.valid_for
    return None


def _check_complete(model: TrustedRootModel) -> None:
    for name, items in (
        ("certificateAuthorities", model.certificate_authorities),
        ("tlogs", model.tlogs),
        ("ctlogs", model.ctlogs),
    ):
        if not items:
            raise TrustRootError(
                f"{name}: found none, expected at least one: "
                "without it no keyless signature can be verified"
            )
        if len(items) > _MAX_AUTHORITIES:
            raise TrustRootError(f"{name}: found {len(items)}, expected at most {_MAX_AUTHORITIES}")
    if len(model.timestamp_authorities) > _MAX_AUTHORITIES:
        raise TrustRootError(f"timestampAuthorities: expected at most {_MAX_AUTHORITIES}")


def _close_windows(model: TrustedRootModel) -> None:
    """Make the ends of timestamp authorities' windows inclusive, as TimeRange defines them.

    Sigstore's verifier compares ``time < end``; a microsecond, the clock's grain, is the
    difference.
    """
    for authority in model.timestamp_authorities:
        if authority.valid_for.end is not None:
            authority.valid_for.end += timedelta(microseconds=1)
