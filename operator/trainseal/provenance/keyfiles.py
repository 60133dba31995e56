"""Private keys as files hold them: PKCS #8, the traditional PEM forms, and cosign's own.

cosign encrypts with scrypt and NaCl's secretbox and writes the parts as JSON into a PEM block
(secure-systems-lab/go-securesystemslib, package ``encrypted``). Its scrypt parameters are one of
three; any other is refused, since the parameters come from the file and decide how much memory is
taken.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable

import nacl.exceptions
import nacl.secret
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from trainseal.provenance import strictjson
from trainseal.provenance.keys import (
    MAX_KEY_BYTES,
    KeyFormatError,
    KeyPasswordError,
    PrivateKey,
    private_key_of,
)

_BLOCK = re.compile(
    rb"-----BEGIN ([A-Z0-9 ]{1,40})-----\r?\n(.*?)-----END \1-----", flags=re.DOTALL
)
_COSIGN_LABELS = (b"ENCRYPTED SIGSTORE PRIVATE KEY", b"ENCRYPTED COSIGN PRIVATE KEY")
_PEM_LABELS = (b"PRIVATE KEY", b"ENCRYPTED PRIVATE KEY", b"EC PRIVATE KEY", b"RSA PRIVATE KEY")
# (N, r, p): go-securesystemslib's "legacy", "standard" and "OWASP" strengths, 32 to 128 MiB
_SCRYPT_PARAMETERS = ((2**15, 8, 1), (2**16, 8, 1), (2**17, 8, 1))
_LOCKED = "the private key is encrypted and no password was given"
_STILL_LOCKED = "the private key does not open with this password"


def load_private_key(pem: bytes, password: Callable[[], bytes] | None = None) -> PrivateKey:
    """The private key in ``pem``; ``password`` is called only where the key is encrypted.

    Raises KeyPasswordError where the password is missing or wrong, else KeyFormatError.
    """
    if len(pem) > MAX_KEY_BYTES:
        raise KeyFormatError(f"found {len(pem)} bytes, expected a private key in PEM form")
    for match in _BLOCK.finditer(pem):
        label, body = match.groups()
        if label in _COSIGN_LABELS:
            return _load_der(_open_cosign(body, password))
        if label in _PEM_LABELS:
            return _load_pem(match.group(0) + b"\n", password)
        if label == b"OPENSSH PRIVATE KEY":
            raise KeyFormatError(
                "found an OpenSSH private key, expected PKCS #8: "
                "convert a copy with 'ssh-keygen -p -m PKCS8 -f COPY'"
            )
        if label.endswith(b"PUBLIC KEY"):
            raise KeyFormatError("found a public key, expected a private one")
    raise KeyFormatError(
        "found no private key in PEM form, expected '-----BEGIN PRIVATE KEY-----' or a key file "
        "that 'cosign generate-key-pair' wrote"
    )


def _load_pem(block: bytes, password: Callable[[], bytes] | None) -> PrivateKey:
    encrypted = b"ENCRYPTED" in block
    if encrypted and password is None:
        raise KeyPasswordError(_LOCKED)
    secret = password() if encrypted and password is not None else None
    try:
        handle = serialization.load_pem_private_key(block, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if encrypted:
            raise KeyPasswordError(_STILL_LOCKED) from None
        raise KeyFormatError(f"not a private key in PEM form: {error}") from None
    return private_key_of(handle)


def _load_der(der: bytes) -> PrivateKey:
    try:
        handle = serialization.load_der_private_key(der, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyFormatError("the key file opened, but holds no PKCS #8 private key") from None
    return private_key_of(handle)


def _open_cosign(body: bytes, password: Callable[[], bytes] | None) -> bytes:
    salt, parameters, nonce, ciphertext = _cosign_parts(body)
    if password is None:
        raise KeyPasswordError(_LOCKED)
    n, r, p = parameters
    key = Scrypt(salt, nacl.secret.SecretBox.KEY_SIZE, n, r, p).derive(password())
    try:
        return nacl.secret.SecretBox(key).decrypt(ciphertext, nonce)
    except nacl.exceptions.CryptoError:
        raise KeyPasswordError(_STILL_LOCKED) from None


def _cosign_parts(body: bytes) -> tuple[bytes, tuple[int, int, int], bytes, bytes]:
    try:
        text = base64.b64decode(b"".join(body.split()), validate=True)
        document = strictjson.parse(text, max_bytes=MAX_KEY_BYTES, max_depth=8)
    except (binascii.Error, strictjson.JSONError) as error:
        raise KeyFormatError(f"not a key file of cosign's: {error}") from None
    kdf = _member(document, "kdf")
    cipher = _member(document, "cipher")
    names = (_member(kdf, "name"), _member(cipher, "name"))
    if names != ("scrypt", "nacl/secretbox"):
        raise KeyFormatError(
            f"found a key file with {names!r:.100}, expected ('scrypt', 'nacl/secretbox')"
        )
    numbers = [_member(_member(kdf, "params"), name) for name in ("N", "r", "p")]
    found = next((known for known in _SCRYPT_PARAMETERS if list(known) == numbers), None)
    if found is None or not all(type(number) is int for number in numbers):
        raise KeyFormatError(
            f"found scrypt parameters N, r, p = {numbers!r:.100}, "
            f"expected one of {_SCRYPT_PARAMETERS}"
        )
    nonce = _octets(cipher, "nonce")
    if len(nonce) != nacl.secret.SecretBox.NONCE_SIZE:
        raise KeyFormatError(
            f"found a nonce of {len(nonce)} bytes, expected {nacl.secret.SecretBox.NONCE_SIZE}"
        )
    return _octets(kdf, "salt"), found, nonce, _octets(document, "ciphertext")


def _member(value: strictjson.JSONValue, name: str) -> strictjson.JSONValue:
    if not isinstance(value, dict) or name not in value:
        raise KeyFormatError(f"not a key file of cosign's: it has no {name!r}")
    return value[name]


def _octets(value: strictjson.JSONValue, name: str) -> bytes:
    text = _member(value, name)
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except ValueError:
        pass
    raise KeyFormatError(f"not a key file of cosign's: {name!r} is not base64")
