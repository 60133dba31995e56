"""Registry authorities: only certificates, each once, no more than a gate's plan holds."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from trainseal.registry.trustanchors import InvalidAnchors, read_anchors

LIMIT = 16 * 1024
KEY = ec.generate_private_key(ec.SECP256R1())


def authority(name: str) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=36500))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(KEY, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


ONE, OTHER = authority("one"), authority("other")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ca.crt"


def test_certificates_are_read_in_their_order(file: Path) -> None:
    file.write_text(ONE + OTHER)
    assert read_anchors(file, LIMIT) == ONE + OTHER


def test_comments_doubles_and_anything_else_are_left_out(file: Path) -> None:
    key = KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    windows = OTHER.replace("\n", "\r\n").encode()
    file.write_bytes("# Zürich\n".encode() + ONE.encode() + key + ONE.encode() + windows)
    assert read_anchors(file, LIMIT) == ONE + OTHER


def test_what_was_read_reads_the_same_again(file: Path) -> None:
    file.write_text("text\n" + ONE + "\n\n" + OTHER)
    once = read_anchors(file, LIMIT)
    file.write_text(once)
    assert read_anchors(file, LIMIT) == once


def test_as_much_as_fits_is_taken_and_a_byte_more_is_refused(file: Path) -> None:
    file.write_text(ONE + OTHER)
    assert read_anchors(file, len(ONE + OTHER)) == ONE + OTHER
    with pytest.raises(InvalidAnchors, match=f"2 certificates .* at most {len(ONE + OTHER) - 1}"):
        read_anchors(file, len(ONE + OTHER) - 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no certificate in it"),
        ("nonsense", "no certificate in it"),
        (ONE.replace("BEGIN CERTIFICATE", "BEGIN PUBLIC KEY"), "no certificate in it"),
        (ONE[:100] + "\n-----END CERTIFICATE-----\n", "cannot be read"),
        (" " * (4 * 1024 * 1024 + 1), "more than"),
    ],
)
def test_what_holds_no_authority_is_refused_by_its_file(file: Path, text: str, words: str) -> None:
    file.write_text(text)
    with pytest.raises(InvalidAnchors, match=words) as error:
        read_anchors(file, LIMIT)
    assert "ca.crt" in str(error.value)


def test_a_file_that_is_not_there_is_said_so(file: Path) -> None:
    with pytest.raises(InvalidAnchors, match="No such file"):
        read_anchors(file, LIMIT)
