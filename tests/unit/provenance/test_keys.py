"""Keys: what is read, what is refused and why, and signatures in both directions."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable

import nacl.bindings
import nacl.secret
import nacl.utils
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from hypothesis import given
from hypothesis import strategies as st

from trainseal.provenance.keyfiles import load_private_key
from trainseal.provenance.keys import (
    KeyFormatError,
    KeyPasswordError,
    PrivateKey,
    SignatureError,
    key_hint,
    key_id,
    load_public_key,
    private_key_of,
    sign,
    verify,
)

PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8
TRADITIONAL = serialization.PrivateFormat.TraditionalOpenSSL
PLAIN = serialization.NoEncryption()
RSA_KEY = rsa.generate_private_key(65537, 2048)

MAKERS: dict[str, Callable[[], object]] = {
    "ecdsa-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ecdsa-p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa": lambda: RSA_KEY,
}
KINDS = sorted(MAKERS)
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


def make(kind: str) -> PrivateKey:
    return private_key_of(MAKERS[kind]())


def cosign_key_file(
    private: PrivateKey,
    password: bytes,
    *,
    label: str = "ENCRYPTED SIGSTORE PRIVATE KEY",
    n: object = 2**15,
    r: object = 8,
    p: object = 1,
    kdf: str = "scrypt",
    nonce: bytes | None = None,
) -> bytes:
    """What ``cosign generate-key-pair`` writes, with one part changed."""
    salt = nacl.utils.random(32)
    der = private.handle.private_bytes(serialization.Encoding.DER, PKCS8, PLAIN)
    key = Scrypt(salt, 32, 2**15, 8, 1).derive(password)
    box = nacl.secret.SecretBox(key).encrypt(der)
    document = {
        "kdf": {
            "name": kdf,
            "params": {"N": n, "r": r, "p": p},
            "salt": base64.b64encode(salt).decode(),
        },
        "cipher": {
            "name": "nacl/secretbox",
            "nonce": base64.b64encode(box.nonce if nonce is None else nonce).decode(),
        },
        "ciphertext": base64.b64encode(box.ciphertext).decode(),
    }
    body = base64.encodebytes(json.dumps(document).encode()).decode()
    return f"-----BEGIN {label}-----\n{body}-----END {label}-----\n".encode()


@EVERY_KIND
def test_what_a_key_signs_its_public_half_verifies(kind: str) -> None:
    private = make(kind)
    assert private.public.algorithm == kind
    public = load_public_key(private.public.pem)
    assert public == private.public
    verify(public, sign(private, b"the canonical job"), b"the canonical job")


@EVERY_KIND
def test_a_signature_over_other_bytes_is_refused(kind: str) -> None:
    private = make(kind)
    signature = sign(private, b"the canonical job")
    with pytest.raises(SignatureError, match=private.public.id):
        verify(private.public, signature, b"the canonical job, changed")


@EVERY_KIND
def test_a_signature_by_another_key_is_refused(kind: str) -> None:
    other = private_key_of(rsa.generate_private_key(65537, 2048)) if kind == "rsa" else make(kind)
    with pytest.raises(SignatureError):
        verify(make(kind).public, sign(other, b"job"), b"job")


@given(kind=st.sampled_from(KINDS), signature=st.binary(max_size=1100), data=st.binary())
def test_no_bytes_are_taken_for_a_signature(kind: str, signature: bytes, data: bytes) -> None:
    with pytest.raises(SignatureError):
        verify(make(kind).public, signature, data)


@pytest.mark.parametrize("kind", ["ecdsa-p384", "ecdsa-p521"])
def test_the_sha256_signatures_that_older_cosign_made_on_larger_curves_are_accepted(
    kind: str,
) -> None:
    private = make(kind)
    assert isinstance(private.handle, ec.EllipticCurvePrivateKey)
    signature = private.handle.sign(b"job", ec.ECDSA(hashes.SHA256()))
    verify(private.public, signature, b"job")


def test_a_smaller_hash_on_p256_is_refused() -> None:
    private = make("ecdsa-p256")
    assert isinstance(private.handle, ec.EllipticCurvePrivateKey)
    with pytest.raises(SignatureError):
        verify(private.public, private.handle.sign(b"job", ec.ECDSA(hashes.SHA224())), b"job")


def test_rsa_pss_is_accepted_and_pss_over_other_bytes_is_not() -> None:
    private = make("rsa")
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    signature = RSA_KEY.sign(b"job", pss, hashes.SHA256())
    verify(private.public, signature, b"job")
    with pytest.raises(SignatureError):
        verify(private.public, signature, b"jab")


def test_ed25519ph_as_cosign_makes_for_logs_is_accepted_and_over_other_bytes_is_not() -> None:
    private = make("ed25519")
    assert isinstance(private.handle, ed25519.Ed25519PrivateKey)
    seed = private.handle.private_bytes_raw()
    state = nacl.bindings.crypto_sign_ed25519ph_state()
    nacl.bindings.crypto_sign_ed25519ph_update(state, b"job")
    secret = seed + private.handle.public_key().public_bytes_raw()
    signature = nacl.bindings.crypto_sign_ed25519ph_final_create(state, secret)
    verify(private.public, signature, b"job")
    with pytest.raises(SignatureError):
        verify(private.public, signature, b"jab")


def test_the_key_id_and_hint_are_digests_of_the_der_subject_public_key_info() -> None:
    public = make("ecdsa-p256").public
    digest = hashlib.sha256(public.der)
    assert key_id(public) == f"sha256:{digest.hexdigest()}"
    assert base64.b64decode(key_hint(public)) == digest.digest()


def test_a_point_in_compressed_form_is_the_same_key() -> None:
    handle = ec.generate_private_key(ec.SECP256R1()).public_key()
    compressed = handle.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )
    # AlgorithmIdentifier of P-256, and a BIT STRING of the 33 bytes
    head = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    body = base64.encodebytes(head + compressed).decode()
    public = load_public_key(f"-----BEGIN PUBLIC KEY-----\n{body}-----END PUBLIC KEY-----\n")
    whole = load_public_key(
        handle.public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    assert public.id == whole.id


def refused_public_keys() -> dict[str, bytes]:
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    good = make("ecdsa-p256").public.pem.encode()
    return {
        "RSA key of 1024 bits": rsa.generate_private_key(65537, 1024)  # noqa: S505
        .public_key()
        .public_bytes(PEM, spki),
        "exponent 3": rsa.generate_private_key(3, 2048).public_key().public_bytes(PEM, spki),
        "secp256k1": ec.generate_private_key(ec.SECP256K1()).public_key().public_bytes(PEM, spki),
        "DSAPublicKey": dsa.generate_private_key(2048).public_key().public_bytes(PEM, spki),
        "found a private key": RSA_KEY.private_bytes(PEM, PKCS8, PLAIN),
        "found a certificate": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "found 2 PEM blocks": good + good,
        "found 0 PEM blocks": b"ssh-ed25519 AAAA",
        "not a public key": b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        "bytes, expected a public key": good + b"\n" * 20_000,
    }


@pytest.mark.parametrize(("words", "pem"), refused_public_keys().items())
def test_what_is_no_usable_public_key_is_refused_in_words(words: str, pem: bytes) -> None:
    with pytest.raises(KeyFormatError, match=words):
        load_public_key(pem)


@EVERY_KIND
def test_a_pkcs8_key_opens_plain_and_encrypted(kind: str) -> None:
    private = make(kind)
    plain = private.handle.private_bytes(PEM, PKCS8, PLAIN)
    locked = private.handle.private_bytes(
        PEM, PKCS8, serialization.BestAvailableEncryption(b"correct")
    )
    assert load_private_key(plain).public == private.public
    assert load_private_key(locked, lambda: b"correct").public == private.public
    with pytest.raises(KeyPasswordError, match="does not open"):
        load_private_key(locked, lambda: b"wrong")
    with pytest.raises(KeyPasswordError, match="no password was given"):
        load_private_key(locked)


@pytest.mark.parametrize("kind", ["ecdsa-p256", "ecdsa-p384", "rsa"])
def test_a_traditional_pem_key_opens_plain_and_encrypted(kind: str) -> None:
    private = make(kind)
    plain = private.handle.private_bytes(PEM, TRADITIONAL, PLAIN)
    locked = private.handle.private_bytes(
        PEM, TRADITIONAL, serialization.BestAvailableEncryption(b"correct")
    )
    assert load_private_key(plain).public == private.public
    assert load_private_key(locked, lambda: b"correct").public == private.public
    with pytest.raises(KeyPasswordError):
        load_private_key(locked, lambda: b"wrong")


def test_what_openssl_writes_before_an_ec_key_is_passed_over() -> None:
    private = make("ecdsa-p256")
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    key = private.handle.private_bytes(PEM, TRADITIONAL, PLAIN)
    assert load_private_key(parameters + key).public == private.public


def test_nobody_is_asked_for_the_password_of_a_plain_key() -> None:
    def ask() -> bytes:
        raise AssertionError("asked")

    plain = make("ed25519").handle.private_bytes(PEM, PKCS8, PLAIN)
    assert load_private_key(plain, ask).public.algorithm == "ed25519"


@pytest.mark.parametrize(
    "label", ["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"]
)
@pytest.mark.parametrize("password", [b"correct", b""])
def test_a_key_file_of_cosign_opens_with_its_password_only(label: str, password: bytes) -> None:
    private = make("ecdsa-p256")
    pem = cosign_key_file(private, password, label=label)
    assert load_private_key(pem, lambda: password).public == private.public
    with pytest.raises(KeyPasswordError, match="does not open"):
        load_private_key(pem, lambda: b"wrong")
    with pytest.raises(KeyPasswordError, match="no password was given"):
        load_private_key(pem)


@pytest.mark.parametrize(
    "change",
    [{"n": 2**30}, {"n": 2**14}, {"r": 2**20}, {"p": 64}, {"n": 32768.0}, {"n": "32768"}],
    ids=str,
)
def test_scrypt_parameters_that_cosign_never_writes_are_refused_before_any_work(
    change: dict[str, object],
) -> None:
    pem = cosign_key_file(make("ecdsa-p256"), b"x", **change)  # type: ignore[arg-type]
    with pytest.raises(KeyFormatError, match="scrypt parameters"):
        load_private_key(pem, lambda: b"x")


def test_a_key_file_with_another_kdf_or_a_short_nonce_is_refused() -> None:
    private = make("ecdsa-p256")
    with pytest.raises(KeyFormatError, match="md5"):
        load_private_key(cosign_key_file(private, b"x", kdf="md5"), lambda: b"x")
    with pytest.raises(KeyFormatError, match="nonce of 3 bytes"):
        load_private_key(cosign_key_file(private, b"x", nonce=b"abc"), lambda: b"x")


@pytest.mark.parametrize(
    ("words", "pem"),
    [
        ("found no private key", b""),
        ("found a public key", make("ed25519").public.pem.encode()),
        ("OpenSSH", b"-----BEGIN OPENSSH PRIVATE KEY-----\n-----END OPENSSH PRIVATE KEY-----\n"),
        ("not a private key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        (
            "not a key file of cosign's",
            (
                b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\ne30=\n"
                b"-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n"
            ),
        ),
        (
            "RSA key of 1024 bits",
            rsa.generate_private_key(65537, 1024).private_bytes(PEM, PKCS8, PLAIN),  # noqa: S505
        ),
    ],
)
def test_what_is_no_usable_private_key_is_refused_in_words(words: str, pem: bytes) -> None:
    with pytest.raises(KeyFormatError, match=words):
        load_private_key(pem, lambda: b"x")


@given(
    st.binary(max_size=400), st.sampled_from([b"PRIVATE KEY", b"ENCRYPTED SIGSTORE PRIVATE KEY"])
)
def test_no_bytes_make_the_reader_of_private_keys_fail_otherwise(body: bytes, label: bytes) -> None:
    block = b"-----BEGIN %s-----\n%s\n-----END %s-----\n" % (label, body, label)
    for pem in (body, block):
        with pytest.raises(KeyFormatError):
            load_private_key(pem, lambda: b"x")


def test_neither_key_nor_error_shows_a_secret() -> None:
    private = make("ed25519")
    assert isinstance(private.handle, ed25519.Ed25519PrivateKey)
    secret = private.handle.private_bytes_raw()
    assert secret.hex() not in repr(private)
    assert repr(secret) not in repr(private)
