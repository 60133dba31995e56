"""Public and private keys as signers hold them, and the signatures each kind makes.

One key, one conventional signature, as the algorithm registry of Sigstore's client specification
has it; what other tools are known to write is accepted besides:

=============  ==========================  =============================================
key            signed by us                accepted on verification
=============  ==========================  =============================================
ECDSA P-256    SHA-256                     the same
ECDSA P-384    SHA-384                     and SHA-256 (older cosign used it for every curve)
ECDSA P-521    SHA-512                     and SHA-256
Ed25519        pure (RFC 8032, 5.1)        and Ed25519ph (cosign, when it writes to a log)
RSA            PKCS #1 v1.5, SHA-256       and PSS with SHA-256
=============  ==========================  =============================================

Nothing here reads a file or asks a person; see :mod:`keyfiles` for private keys as files hold them.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import TypeAlias

import nacl.bindings
import nacl.exceptions
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

MAX_KEY_BYTES = 16 * 1024
MAX_SIGNATURE_BYTES = 1024
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192  # beyond it a single verification costs milliseconds

_PublicHandle: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
_PrivateHandle: TypeAlias = (
    ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
)

_CURVES: dict[str, tuple[str, hashes.HashAlgorithm]] = {
    "secp256r1": ("ecdsa-p256", hashes.SHA256()),
    "secp384r1": ("ecdsa-p384", hashes.SHA384()),
    "secp521r1": ("ecdsa-p521", hashes.SHA512()),
}
_SUPPORTED = "ECDSA P-256, P-384 or P-521, Ed25519, or RSA of 2048 to 8192 bits"


class KeyFormatError(ValueError):
    """This is no key that we can use; the text says what was found and what to give instead."""


class KeyPasswordError(KeyFormatError):
    """The key is encrypted and no password, or a wrong one, was given."""


class SignatureError(ValueError):
    """The signature was not made by this key over these bytes."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key. Equal to another if their DER SubjectPublicKeyInfo is.

    ``algorithm`` is one of ecdsa-p256, ecdsa-p384, ecdsa-p521, ed25519, rsa.
    """

    der: bytes = field(repr=False)
    algorithm: str
    handle: _PublicHandle = field(repr=False, compare=False)

    @property
    def id(self) -> str:
        """``sha256:`` and the hex digest of the DER SubjectPublicKeyInfo."""
        return "sha256:" + hashlib.sha256(self.der).hexdigest()

    @property
    def pem(self) -> str:
        """The key as PEM SubjectPublicKeyInfo."""
        return self.handle.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode()


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key and its public half. Its text form shows the public half only."""

    public: PublicKey
    handle: _PrivateHandle = field(repr=False, compare=False)


def load_public_key(pem: str | bytes) -> PublicKey:
    """The public key in ``pem`` (one PEM block, SubjectPublicKeyInfo or PKCS #1).

    Raises KeyFormatError.
    """
    data = pem.encode() if isinstance(pem, str) else pem
    if len(data) > MAX_KEY_BYTES:
        raise KeyFormatError(f"found {len(data)} bytes, expected a public key in PEM form")
    blocks = data.count(b"-----BEGIN ")
    if b"PRIVATE KEY-----" in data:
        raise KeyFormatError(
            "found a private key, expected a public one: give the file that ends in .pub"
        )
    if b"-----BEGIN CERTIFICATE" in data:
        raise KeyFormatError(
            "found a certificate, expected a public key: "
            "take it out with 'openssl x509 -pubkey -noout'"
        )
    if blocks != 1:
        raise KeyFormatError(
            f"found {blocks} PEM blocks, expected one '-----BEGIN PUBLIC KEY-----'"
        )
    try:
        handle = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFormatError(f"not a public key in PEM form: {error}") from None
    return public_key_of(handle)


def public_key_of(handle: object) -> PublicKey:
    """A key that ``cryptography`` has read, as ours. Raises KeyFormatError for a kind we refuse."""
    if isinstance(handle, ec.EllipticCurvePublicKey):
        if handle.curve.name not in _CURVES:
            raise KeyFormatError(
                f"found an ECDSA key on {handle.curve.name}, expected {_SUPPORTED}"
            )
        algorithm = _CURVES[handle.curve.name][0]
    elif isinstance(handle, ed25519.Ed25519PublicKey):
        algorithm = "ed25519"
    elif isinstance(handle, rsa.RSAPublicKey):
        _check_rsa(handle)
        algorithm = "rsa"
    else:
        raise KeyFormatError(f"found a {type(handle).__name__}, expected {_SUPPORTED}")
    der = handle.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return PublicKey(der, algorithm, handle)


def private_key_of(handle: object) -> PrivateKey:
    """A private key that ``cryptography`` has read or made, as ours. Raises KeyFormatError."""
    if not isinstance(
        handle, (ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey, rsa.RSAPrivateKey)
    ):
        raise KeyFormatError(f"found a {type(handle).__name__}, expected {_SUPPORTED}")
    return PrivateKey(public_key_of(handle.public_key()), handle)


def _check_rsa(handle: rsa.RSAPublicKey) -> None:
    if not MIN_RSA_BITS <= handle.key_size <= MAX_RSA_BITS:
        raise KeyFormatError(f"found an RSA key of {handle.key_size} bits, expected {_SUPPORTED}")
    exponent = handle.public_numbers().e
    if exponent != 65537:
        raise KeyFormatError(f"found an RSA key with exponent {exponent}, expected 65537")


def key_id(public: PublicKey) -> str:
    """``sha256:`` and the hex digest of the DER SubjectPublicKeyInfo."""
    return public.id


def key_hint(public: PublicKey) -> str:
    """What cosign writes as ``verificationMaterial.publicKey.hint``.

    Standard base64 of the SHA-256 of the DER SubjectPublicKeyInfo (cosign 3,
    internal/key/svkeypair.go). A hint proves nothing.
    """
    return base64.b64encode(hashlib.sha256(public.der).digest()).decode()


def model_signing_hint(public: PublicKey) -> str:
    """What model_signing writes there, and wants: the hex SHA-256 of the PEM text.

    (sigstore/model-transparency, ``model_signing/_signing/sign_ec_key.py``). It refuses a bundle
    with another hint.
    """
    return hashlib.sha256(public.pem.encode()).hexdigest()


def digest_algorithm(public: PublicKey) -> str:
    """The hash (as ``hashlib`` names it) whose digest a bundle signed by this key carries.

    For Ed25519, which hashes within, sha512: the digest is then no more than a label.
    """
    return {"ecdsa-p384": "sha384", "ecdsa-p521": "sha512", "ed25519": "sha512"}.get(
        public.algorithm, "sha256"
    )


def sign(private: PrivateKey, data: bytes) -> bytes:
    """A signature over ``data``, of the kind that the table of this module names."""
    handle = private.handle
    if isinstance(handle, ec.EllipticCurvePrivateKey):
        return handle.sign(data, ec.ECDSA(_CURVES[handle.curve.name][1]))
    if isinstance(handle, ed25519.Ed25519PrivateKey):
        return handle.sign(data)
    return handle.sign(data, padding.PKCS1v15(), hashes.SHA256())


def verify(public: PublicKey, signature: bytes, data: bytes) -> None:
    """Return if ``signature`` was made by the key over ``data``; else raise SignatureError."""
    if 0 < len(signature) <= MAX_SIGNATURE_BYTES:
        handle = public.handle
        if isinstance(handle, ec.EllipticCurvePublicKey):
            valid = _ecdsa(handle, signature, data)
        elif isinstance(handle, ed25519.Ed25519PublicKey):
            valid = _ed25519(handle, signature, data)
        else:
            valid = _rsa(handle, signature, data)
        if valid:
            return
    raise SignatureError(f"the signature was not made by key {public.id} over these bytes")


def _ecdsa(handle: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> bool:
    conventional = _CURVES[handle.curve.name][1]
    algorithms: list[hashes.HashAlgorithm] = [conventional]
    if not isinstance(conventional, hashes.SHA256):
        algorithms.append(hashes.SHA256())
    for algorithm in algorithms:
        try:
            handle.verify(signature, data, ec.ECDSA(algorithm))
        except InvalidSignature:
            continue
        return True
    return False


def _rsa(handle: rsa.RSAPublicKey, signature: bytes, data: bytes) -> bool:
    schemes: list[padding.AsymmetricPadding] = [
        padding.PKCS1v15(),
        padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH),
    ]
    for scheme in schemes:
        try:
            handle.verify(signature, data, scheme, hashes.SHA256())
        except InvalidSignature:
            continue
        return True
    return False


def _ed25519(handle: ed25519.Ed25519PublicKey, signature: bytes, data: bytes) -> bool:
    try:
        handle.verify(signature, data)
    except InvalidSignature:
        return _ed25519ph(handle.public_bytes_raw(), signature, data)
    return True


def _ed25519ph(public: bytes, signature: bytes, data: bytes) -> bool:
    """RFC 8032's pre-hashed variant, by libsodium: ``cryptography`` does not have it."""
    if len(signature) != nacl.bindings.crypto_sign_BYTES:
        return False
    state = nacl.bindings.crypto_sign_ed25519ph_state()
    nacl.bindings.crypto_sign_ed25519ph_update(state, data)
    try:
        nacl.bindings.crypto_sign_ed25519ph_final_verify(state, signature, public)
    except nacl.exceptions.BadSignatureError:
        return False
    return True
