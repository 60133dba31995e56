"""Bundles signed with a short-lived certificate: Sigstore's verifier, and what it leaves to us.

In order, each step on evidence that the steps before have established:

1. the signature was made by the certificate's key over these bytes;
2. Sigstore's own verification against the trusted root, offline: trusted time, the certificate's
   chain at that time, its embedded log promise (SCT), its profile, the transparency log's
   inclusion proof and checkpoint, and that the log entry is about this signature;
3. within it, the policy's issuer, then its identity;
4. that authority and logs were valid, by the trusted root, at the trusted time: the sigstore
   package (4.5) reads those windows only where it signs and for timestamps.

Everything that these steps read and find wanting is ``refuted``. ``undetermined`` is what could
not be judged: a trusted root that lacks the kind of authority the evidence needs or is older than
the evidence, and kinds of key that the sigstore package cannot verify.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.x509.oid import ExtensionOID
from sigstore.errors import Error as SigstoreError
from sigstore.errors import MetadataError, VerificationError
from sigstore.models import Bundle as SigstoreBundle

from trainseal.provenance import trustroots
from trainseal.provenance.authorities import (
    Checked,
    KeylessAuthority,
    refuted,
    undetermined,
    verified,
)
from trainseal.provenance.bundles import Bundle
from trainseal.provenance.dsse import Envelope, pae
from trainseal.provenance.keys import KeyFormatError, SignatureError, public_key_of, verify
from trainseal.provenance.trustroots import TrustedRoot
from trainseal.provenance.verdicts import Signer

# https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md
_ISSUER_V1 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_ISSUER_V2 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_OTHER_NAME = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.7")

# What hostile certificates and timestamps are known to raise inside the libraries.
_UNREADABLE = (
    SigstoreError,
    ValueError,
    TypeError,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
    InvalidSignature,
)


class _PolicyMismatchError(VerificationError):
    """The certificate is good, and another's."""

    def __init__(self, reason: str, words: str) -> None:
        super().__init__(words)
        self.reason = reason


class _IdentityPolicy:
    """The policy's issuer and identity, as a Sigstore verification policy."""

    def __init__(self, authority: KeylessAuthority) -> None:
        self._authority = authority
        self.identity = ""
        self.issuer = ""

    def verify(self, cert: x509.Certificate) -> None:
        self.issuer = _issuer(cert)
        if self.issuer != self._authority.issuer:
            raise _PolicyMismatchError(
                "OtherIssuer",
                f"signed by an identity of issuer {self.issuer!r:.200}, "
                f"not of {self._authority.issuer!r}",
            )
        identities = _identities(cert)
        if len(identities) > 1:  # each would stand for a person of its own
            raise _PolicyMismatchError(
                "SeveralIdentities",
                f"the certificate names {len(identities)} identities, "
                f"{', '.join(identities)!r:.600}; expected one, as Fulcio issues them",
            )
        for identity in identities:
            if self._authority.accepts(identity):
                self.identity = identity
                return
        raise _PolicyMismatchError(
            "OtherIdentity",
            f"signed by {', '.join(identities)!r:.600}, not by {self._authority.wanted}",
        )


def named_in(bundle: Bundle) -> tuple[str, str]:
    """The identities and the issuer that a bundle's certificate names; empty where it names none.

    Whether the certificate is anybody's is not looked at.
    """
    try:
        leaf = x509.load_der_x509_certificate(bundle.certificates[0])
        return ", ".join(_identities(leaf)), _issuer(leaf)
    except (*_UNREADABLE, IndexError):
        return "", ""


def check_certificate(bundle: Bundle, authority: KeylessAuthority, blob: bytes = b"") -> Checked:
    """Whether the identity that ``authority`` names signed ``blob``, or the bundle's envelope.

    ``blob`` is not read for an envelope. The caller has seen to it that the bundle has the content
    asked for and a certificate.
    """
    if isinstance(bundle.content, Envelope):
        data = pae(bundle.content.payload_type, bundle.content.payload)
    else:
        data = blob
    try:
        leaf = x509.load_der_x509_certificate(bundle.certificates[0])
        for certificate in bundle.certificates[1:]:
            extra = x509.load_der_x509_certificate(certificate)
            if extra.issuer == extra.subject:
                return refuted(
                    "RootInBundle",
                    "the bundle brings a root certificate of its own, which bundles must not",
                )
        key = public_key_of(leaf.public_key())
    except KeyFormatError as error:
        return undetermined("UnsupportedCertificateKey", f"the signer's certificate: {error}")
    except _UNREADABLE as error:
        return refuted("MalformedCertificate", f"a certificate cannot be read: {_brief(error)}")
    try:
        verify(key, bundle.content.signature, data)
    except SignatureError:
        return refuted(
            "InvalidSignature", "the signature was not made by the certificate's key over this"
        )
    stale = _stale(authority.trust_root, leaf)
    if stale is not None:
        return stale
    return _check_with_sigstore(bundle, authority, data, supported=key.algorithm == "ecdsa-p256")


def _check_with_sigstore(
    bundle: Bundle, authority: KeylessAuthority, data: bytes, *, supported: bool
) -> Checked:
    root = authority.trust_root
    policy = _IdentityPolicy(authority)
    try:
        evidence = SigstoreBundle.from_json(bundle.document)
    except _UNREADABLE as error:
        return refuted("InvalidEvidence", f"the bundle lacks what it needs: {_brief(error)}")
    try:
        stamps = evidence.verification_material.timestamp_verification_data
        if stamps is not None and not root.model.timestamp_authorities:
            return undetermined(
                "TrustRootIncomplete",
                "the bundle is timestamped, and the trust root names no timestamp authority: "
                "add timestampAuthorities to the TrustRoot",
            )
        if isinstance(bundle.content, Envelope):
            root.verifier.verify_envelope(evidence, policy, bundle.content)
        else:
            root.verifier.verify_artifact(data, evidence, policy)
        signed_at = min(root.verifier.established_times(evidence))
        _check_windows(root, evidence, signed_at)
    except _PolicyMismatchError as error:
        return refuted(error.reason, str(error))
    except MetadataError as error:
        return undetermined(
            "TrustRootIncomplete", f"the trust root cannot judge this bundle: {_brief(error)}"
        )
    except _UNREADABLE as error:
        if not supported:
            return undetermined(
                "UnsupportedCertificateKey",
                "certificates with another key than ECDSA P-256 cannot be judged yet: "
                + _brief(error),
            )
        return refuted("InvalidEvidence", f"the bundle's evidence does not hold: {_brief(error)}")
    signer = Signer(
        authority.name, authority.person, policy.identity, policy.issuer, signed_at=signed_at
    )
    return verified(signer, f"signed by {policy.identity} ({policy.issuer})")


def _brief(error: Exception) -> str:
    """The first words of a library's error: some print whole documents."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "…"


def _stale(root: TrustedRoot, leaf: x509.Certificate) -> Checked | None:
    """Whether the trusted root is older than the evidence: then it is the root that is wanting."""
    ends = [authority.valid_for.end for authority in root.model.certificate_authorities]
    known = [end for end in ends if end is not None]
    if len(known) < len(ends) or leaf.not_valid_before_utc <= max(known):
        return None
    return undetermined(
        "TrustRootOutdated",
        f"signed after {leaf.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}, and the last certificate "
        f"authority in the trust root ended {max(known):%Y-%m-%dT%H:%M:%SZ}: renew the TrustRoot",
    )


def _check_windows(root: TrustedRoot, evidence: SigstoreBundle, signed_at: datetime) -> None:
    leaf = evidence.signing_certificate
    if not any(
        trustroots.within(authority.valid_for, signed_at) and _issued_by(leaf, authority_cert)
        for authority in root.model.certificate_authorities
        for authority_cert in [authority.cert_chain.certificates[0].raw_bytes]
    ):
        raise VerificationError(
            f"the certificate authority was not valid at {signed_at:%Y-%m-%dT%H:%M:%SZ}"
        )
    entry = evidence.log_entry._inner
    logged_at = signed_at
    if entry.integrated_time and entry.inclusion_promise:  # else nothing binds it to the entry
        logged_at = datetime.fromtimestamp(entry.integrated_time, UTC)
    window = trustroots.log_window(root.model.tlogs, entry.log_id.key_id)
    if not trustroots.within(window, logged_at):
        raise VerificationError(
            f"the transparency log was not valid at {logged_at:%Y-%m-%dT%H:%M:%SZ}"
        )
    promises = leaf.extensions.get_extension_for_oid(
        ExtensionOID.PRECERT_SIGNED_CERTIFICATE_TIMESTAMPS
    ).value
    if isinstance(promises, x509.PrecertificateSignedCertificateTimestamps):
        for promise in promises:
            promised_at = promise.timestamp.replace(tzinfo=UTC)
            window = trustroots.log_window(root.model.ctlogs, promise.log_id)
            if not trustroots.within(window, promised_at):
                raise VerificationError(
                    f"the certificate log was not valid at {promised_at:%Y-%m-%dT%H:%M:%SZ}"
                )


def _issued_by(leaf: x509.Certificate, authority_der: bytes) -> bool:
    try:
        leaf.verify_directly_issued_by(x509.load_der_x509_certificate(authority_der))
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _issuer(cert: x509.Certificate) -> str:
    """The OIDC issuer: the newer extension (DER text) before the older (bare bytes)."""
    for oid in (_ISSUER_V2, _ISSUER_V1):
        try:
            value = cert.extensions.get_extension_for_oid(oid).value
        except x509.ExtensionNotFound:
            continue
        if isinstance(value, x509.UnrecognizedExtension):
            if oid == _ISSUER_V2:
                return asn1.decode_der(str, value.value)
            return value.value.decode()
    return ""


def _identities(cert: x509.Certificate) -> list[str]:
    """The subject alternative names that Fulcio issues: mail, URIs, its own other name."""
    try:
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    found = list(names.get_values_for_type(x509.RFC822Name))
    found += names.get_values_for_type(x509.UniformResourceIdentifier)
    for other in names.get_values_for_type(x509.OtherName):
        if other.type_id == _OTHER_NAME:
            found.append(asn1.decode_der(str, other.value))
    return found
