"""The cluster's certificates."""

from pathlib import Path

import yaml
from cryptography import x509
from cryptography.x509.oid import NameOID

from tests.cluster.pki import Authority


def test_a_certificate_is_issued_by_the_authority(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server", "kube", names=["localhost", "10.213.0.2"])
    ca = x509.load_pem_x509_certificate(authority.pair.cert.read_bytes())
    x509.load_pem_x509_certificate(pair.cert.read_bytes()).verify_directly_issued_by(ca)


def test_an_authority_is_made_once(tmp_path: Path) -> None:
    first = Authority(tmp_path).pair.cert.read_bytes()
    assert Authority(tmp_path).pair.cert.read_bytes() == first


def test_user_and_groups_are_in_the_kubeconfigs_certificate(tmp_path: Path) -> None:
    path = Authority(tmp_path / "pki").kubeconfig(
        tmp_path / "kubeconfig", "https://127.0.0.1:1", "mallory@example.org", ["dev", "ml"]
    )
    assert path.stat().st_mode & 0o077 == 0
    config = yaml.safe_load(path.read_text())
    assert config["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:1"
    cert = x509.load_pem_x509_certificate(
        (tmp_path / "pki/user-mallory-example-org.crt").read_bytes()
    )
    organizations = cert.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    assert [a.value for a in organizations] == ["dev", "ml"]
    names = cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert names[0].value == "mallory@example.org"


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("a", "a")
    assert {p.stat().st_mode & 0o777 for p in (pair.key, authority.pair.key)} == {0o600}
