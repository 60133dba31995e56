"""The connection of a pod: its own token, read again, to the server that the kubelet names."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.unit import world
from trainseal.cluster import inpod
from trainseal.cluster.api import Kube, KubeError, connect


def authority(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A self-signed certificate for localhost, PEM."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server")])
    local = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(world.NOW - timedelta(days=3650))
        .not_valid_after(world.NOW + timedelta(days=3650))
        .add_extension(local, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """A service account's folder; its authority is the server's own certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "ca.crt").write_bytes(authority(key))
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    (tmp_path / "token").write_text("first\n")
    return tmp_path


@pytest.fixture
async def asked(account: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[web.Request]]:
    """The requests that the server of this pod's cluster was sent."""
    found: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        found.append(request)
        return web.json_response({"text": await request.text()})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(account / "ca.crt", account / "key.pem")
    site = web.TCPSite(runner, "localhost", 0, ssl_context=served)
    await site.start()
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "localhost")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(runner.addresses[0][1]))
    yield found
    await runner.cleanup()


async def test_a_request_carries_the_pods_token_and_arrives_as_it_was_meant(
    account: Path, asked: list[web.Request]
) -> None:
    async with inpod.connection(account) as connection:
        kube = Kube(connection)
        answer = await kube.request(
            "POST", "/api/v1/x/a:b%c", query={"fieldSelector": "a=b&c,d e"}, body={"ö": [1]}
        )
    assert answer == {"text": '{"ö":[1]}'}
    (request,) = asked
    assert request.headers["Authorization"] == "Bearer first"
    assert request.path == "/api/v1/x/a:b%c"
    assert request.query["fieldSelector"] == "a=b&c,d e"


async def test_a_token_that_the_kubelet_replaces_is_read_again(
    account: Path, asked: list[web.Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with inpod.connection(account) as connection:
        await Kube(connection).get("/x")
        (account / "token").write_text("second")
        await Kube(connection).get("/x")
        monkeypatch.setattr(inpod, "_TOKEN_SECONDS", -1.0)
        await Kube(connection).get("/x")
    sent = [r.headers["Authorization"] for r in asked]
    assert sent == ["Bearer first", "Bearer first", "Bearer second"]


async def test_a_server_of_another_authority_never_sees_the_token(
    account: Path, asked: list[web.Request]
) -> None:
    (account / "ca.crt").write_bytes(authority(ec.generate_private_key(ec.SECP256R1())))
    async with inpod.connection(account) as connection:
        with pytest.raises(KubeError) as error:
            await Kube(connection).get("/x")
    assert error.value.status == 0
    assert asked == []


async def test_a_pod_without_a_token_is_an_error_that_names_the_server_unreachable(
    account: Path, asked: list[web.Request]
) -> None:
    (account / "token").unlink()
    async with inpod.connection(account) as connection:
        with pytest.raises(KubeError, match="token"):
            await Kube(connection).get("/x")
    assert asked == []


async def test_who_names_a_kubeconfig_is_connected_by_it_also_in_a_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
        "contexts: [{name: c, context: {cluster: x, user: u}}]\n"
        "clusters: [{name: x, cluster: {server: 'http://127.0.0.1:1'}}]\n"
        "users: [{name: u, user: {token: t}}]\n"
    )
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    async with connect(str(file)) as kube:
        with pytest.raises(KubeError) as error:
            await kube.get("/x")
    assert error.value.status == 0
