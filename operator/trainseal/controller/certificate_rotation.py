"""The rules by which the webhook's certificate is replaced, without a gap. Pure.

Each serving certificate has an authority of its own, whose private key is forgotten as soon as it
has signed. So there is one kind of rotation, it runs every two months, and no key lies about that
could sign for another name. The rules, in order; `decide` names one step at a time:

1. no certificate, or one that cannot serve (expired, another name than the API server calls it by,
   key of another): replace it now;
2. a third of its life left, or not of this module's making (cert-manager's, say, which kept the
   Secret before): stage a successor beside it; nobody serves it yet;
3. the API server trusts the staged authority too (every webhook of ours carries both in its
   caBundle): note since when;
4. `STAGING` later, when every API server has seen that: promote the successor; the old
   authority stays trusted, since replicas of the webhook reload one by one;
5. `OVERLAP` later: trust the old one no more.

It does not promise a gapless change where rule 1 applies: what cannot serve is refused already.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=90)
#: A certificate with less than this left gets a successor.
RENEW_BEFORE = timedelta(days=30)
#: How long a new authority must have been in every caBundle before anything serves under it:
#: API servers learn of it by watch, within seconds.
STAGING = timedelta(minutes=2)
#: How long an old authority stays trusted after the last replica should have reloaded.
OVERLAP = timedelta(minutes=10)
#: Nothing is left unlooked at for longer: somebody may have emptied a caBundle.
CHECK_EVERY = timedelta(minutes=5)
#: When something did not work or is not there yet.
RETRY = timedelta(seconds=5)
#: Clocks of API servers may run behind ours by this much.
CLOCK_SKEW = timedelta(minutes=5)

_NEXT_PUBLISHED = "trainseal.dev/next-published-at"
_PROMOTED = "trainseal.dev/promoted-at"


@dataclass(frozen=True, slots=True)
class ServingCertificate:
    """A certificate with its key and the authority that signed it, all PEM."""

    authority: bytes
    certificate: bytes
    private_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class WebhookTLS:
    """All that the Secret holds."""

    current: ServingCertificate
    successor: ServingCertificate | None = None
    #: Since when every caBundle of ours has held the successor's authority.
    successor_published_at: datetime | None = None
    previous_authority: bytes | None = None
    promoted_at: datetime | None = None

    @property
    def ca_bundle(self) -> bytes:
        """Every authority to be trusted now, oldest first: a promotion changes no byte of it."""
        authorities = [self.previous_authority, self.current.authority]
        if self.successor is not None:
            authorities.append(self.successor.authority)
        return b"".join(pem.strip() + b"\n" for pem in authorities if pem)


class Step(Enum):
    """What to do next."""

    KEEP = "keep"
    REPLACE = "replace"
    STAGE = "stage"
    MARK = "mark"
    PROMOTE = "promote"
    RETIRE = "retire"


@dataclass(frozen=True, slots=True)
class Decision:
    """A step, why, and when to look again once nothing else is to be done."""

    step: Step
    reason: str
    check_at: datetime


def serving_names(namespace: str, service: str) -> tuple[str, ...]:
    """The names under which a Service is called; the API server uses the first."""
    return (
        f"{service}.{namespace}.svc",
        f"{service}.{namespace}.svc.cluster.local",
        f"{service}.{namespace}",
        service,
    )


def issue(names: Sequence[str], now: datetime) -> ServingCertificate:
    """A new ECDSA P-256 certificate for DNS ``names``, signed by an authority of its own.

    The authority's key is dropped here, and its name constraints end at ``names``: trusting it
    trusts this one certificate.
    """
    authority_key = ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP256R1())
    # Different subjects, or a verifier with two authorities in its bundle may try the wrong one.
    authority_name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, "trainseal webhook authority"),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, f"{x509.random_serial_number():x}"),
        ]
    )
    authority_id = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    authority = (
        _builder(authority_name, authority_name, authority_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(sign_certificates=True), critical=True)
        .add_extension(authority_id, critical=False)
        .add_extension(
            x509.NameConstraints([x509.DNSName(name) for name in names], None), critical=True
        )
        .sign(authority_key, hashes.SHA256())
    )
    # The common name may be 64 characters at most; a namespace alone may be 63.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "trainseal webhook")])
    certificate = (
        _builder(subject, authority_name, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_id),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    return ServingCertificate(
        authority=authority.public_bytes(serialization.Encoding.PEM),
        certificate=certificate.public_bytes(serialization.Encoding.PEM),
        private_key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFETIME)
    )


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def defect(serving: ServingCertificate, names: Sequence[str], now: datetime) -> str | None:
    """Why this certificate cannot serve ``names[0]`` at ``now``; None when it can."""
    try:
        authority = x509.load_pem_x509_certificate(serving.authority)
        certificate = x509.load_pem_x509_certificate(serving.certificate)
        key = serialization.load_pem_private_key(serving.private_key, password=None)
        named = _dns_names(certificate)
    except (ValueError, TypeError, x509.ExtensionNotFound):
        return "it cannot be read"
    if key.public_key() != certificate.public_key():
        return "its key belongs to another certificate"
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return "its authority did not sign it"
    if names[0] not in named:
        return f"it does not name {names[0]}"
    expiry = min(authority.not_valid_after_utc, certificate.not_valid_after_utc)
    if now >= expiry:
        return f"it expired at {expiry:%Y-%m-%dT%H:%M:%SZ}"
    if now < max(authority.not_valid_before_utc, certificate.not_valid_before_utc):
        return "it is not valid yet; is this machine's clock right?"
    return None


def stranger(serving: ServingCertificate, names: Sequence[str]) -> str | None:
    """Why `issue` did not make this certificate, one that can serve; None where it may have.

    What another made can serve, but its authority's key lies somewhere, and may sign for others.
    """
    missing = set(names) - _dns_names(x509.load_pem_x509_certificate(serving.certificate))
    if missing:
        return f"it does not name {', '.join(sorted(missing))}"
    authority = x509.load_pem_x509_certificate(serving.authority)
    try:
        bounds = authority.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return "its authority may sign for any name"
    if {bound.value for bound in bounds.permitted_subtrees or ()} != set(names):
        return "its authority may sign for other names"
    return None


def _dns_names(certificate: x509.Certificate) -> set[str]:
    """Raises ExtensionNotFound where it has no alternative names."""
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return set(found.value.get_values_for_type(x509.DNSName))


def _renew_at(serving: ServingCertificate) -> datetime:
    return x509.load_pem_x509_certificate(serving.certificate).not_valid_after_utc - RENEW_BEFORE


def decide(
    state: WebhookTLS | None, names: Sequence[str], *, published: bool, now: datetime
) -> Decision:
    """The next step, by the rules at the top of this module.

    ``published``: every webhook of ours carries exactly ``state.ca_bundle``.
    """
    if state is None:
        return Decision(Step.REPLACE, "there is no certificate yet", now)
    if problem := defect(state.current, names, now):
        return Decision(Step.REPLACE, f"the certificate cannot serve: {problem}", now)
    if state.successor is not None:
        return _decide_on_successor(state, state.successor, names, published=published, now=now)
    check_at = min(now + CHECK_EVERY, _renew_at(state.current))
    if state.previous_authority is not None:
        retire_at = (state.promoted_at or now - OVERLAP) + OVERLAP
        if now >= retire_at:
            return Decision(Step.RETIRE, "every replica serves the new certificate", now)
        return Decision(Step.KEEP, "the old authority is still trusted", min(check_at, retire_at))
    if now >= _renew_at(state.current):
        return Decision(Step.STAGE, f"it expires within {RENEW_BEFORE.days} days", now)
    if problem := stranger(state.current, names):
        return Decision(Step.STAGE, f"the certificate is another's: {problem}", now)
    return Decision(Step.KEEP, "the certificate serves", check_at)


def _decide_on_successor(
    state: WebhookTLS,
    successor: ServingCertificate,
    names: Sequence[str],
    *,
    published: bool,
    now: datetime,
) -> Decision:
    if problem := defect(successor, names, now):
        return Decision(Step.STAGE, f"the staged certificate cannot serve: {problem}", now)
    if published != (state.successor_published_at is not None):
        heard = "is in every caBundle" if published else "is not in every caBundle any more"
        return Decision(Step.MARK, f"the staged authority {heard}", now)
    if state.successor_published_at is None:
        return Decision(Step.KEEP, "the staged authority is not in every caBundle", now + RETRY)
    promote_at = state.successor_published_at + STAGING
    if now >= promote_at:
        return Decision(Step.PROMOTE, "every API server trusts the staged authority", now)
    return Decision(Step.KEEP, "API servers learn of the staged authority", promote_at)


def take(
    step: Step,
    state: WebhookTLS | None,
    *,
    published: bool,
    fresh: ServingCertificate | None,
    now: datetime,
) -> WebhookTLS:
    """The state after a step; ``fresh`` is the new certificate that REPLACE and STAGE need."""
    if step is Step.REPLACE and fresh is not None:
        return WebhookTLS(current=fresh)
    if state is None:
        raise ValueError(f"step {step.value} needs a certificate to start from")
    if step is Step.STAGE and fresh is not None:
        return replace(state, successor=fresh, successor_published_at=None)
    if step is Step.MARK:
        return replace(state, successor_published_at=now if published else None)
    if step is Step.PROMOTE and state.successor is not None:
        return WebhookTLS(
            current=state.successor, previous_authority=state.current.authority, promoted_at=now
        )
    if step is Step.RETIRE:
        return replace(state, previous_authority=None, promoted_at=None)
    raise ValueError(f"step {step.value} does not change this state")


def to_secret(state: WebhookTLS) -> tuple[dict[str, str], dict[str, str]]:
    """The Secret's ``data`` (base64) and annotations; `from_secret` reads them back the same."""
    data = {
        "ca.crt": state.current.authority,
        "tls.crt": state.current.certificate,
        "tls.key": state.current.private_key,
    }
    if state.successor is not None:
        data["next-ca.crt"] = state.successor.authority
        data["next-tls.crt"] = state.successor.certificate
        data["next-tls.key"] = state.successor.private_key
    if state.previous_authority is not None:
        data["previous-ca.crt"] = state.previous_authority
    annotations = {
        name: moment.astimezone(UTC).isoformat()
        for name, moment in (
            (_NEXT_PUBLISHED, state.successor_published_at),
            (_PROMOTED, state.promoted_at),
        )
        if moment is not None
    }
    return {key: base64.b64encode(value).decode() for key, value in data.items()}, annotations


def from_secret(data: Mapping[str, str], annotations: Mapping[str, str]) -> WebhookTLS | None:
    """What a Secret holds; None where its current certificate is incomplete or unreadable."""
    pems: dict[str, bytes] = {}
    for key, value in data.items():
        try:
            pems[key] = base64.b64decode(value, validate=True)
        except ValueError:  # not ASCII, not base64
            continue
    current = _serving(pems, "")
    if current is None:
        return None
    successor = _serving(pems, "next-")
    return WebhookTLS(
        current=current,
        successor=successor,
        successor_published_at=_moment(annotations.get(_NEXT_PUBLISHED)) if successor else None,
        previous_authority=pems.get("previous-ca.crt"),
        promoted_at=_moment(annotations.get(_PROMOTED)),
    )


def _serving(pems: Mapping[str, bytes], prefix: str) -> ServingCertificate | None:
    parts = [pems.get(f"{prefix}{name}") for name in ("ca.crt", "tls.crt", "tls.key")]
    authority, certificate, key = parts
    if not authority or not certificate or not key:
        return None
    return ServingCertificate(authority, certificate, key)


def _moment(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else None
