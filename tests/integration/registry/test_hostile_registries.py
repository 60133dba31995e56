"""A registry that lies, floods, stalls or sends us elsewhere costs little and proves nothing."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import json
import ssl
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from trainseal.provenance.verdicts import Outcome
from trainseal.registry.client import RegistryClient
from trainseal.registry.descriptors import (
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    sha256_digest,
)
from trainseal.registry.errors import (
    ContentMismatch,
    NotFound,
    RegistryError,
    RegistryMisbehaved,
    RegistryUnavailable,
    TooLarge,
)
from trainseal.registry.references import Reference

from .liar import HASTY, PATIENT, client_of, known, lying, never, refusal

MANIFEST = b'{"schemaVersion":2}'
BLOB = b"import torch\n"
DIGEST = sha256_digest(BLOB)


async def served(_request: web.Request) -> web.Response:
    return web.Response(body=MANIFEST, content_type=OCI_MANIFEST)


async def blob_served(_request: web.Request) -> web.Response:
    return web.Response(body=BLOB)


async def stream_all(client: RegistryClient, where: Reference, descriptor: Descriptor) -> bytes:
    return b"".join([chunk async for chunk in client.blob_stream(where, descriptor)])


# Wrong bytes


async def test_a_manifest_with_another_digest_is_refuted_and_the_right_one_read() -> None:
    async with lying(served) as liar, client_of(liar) as client:
        with pytest.raises(ContentMismatch) as error:
            await client.manifest(liar.repository.at(DIGEST))
        assert error.value.outcome is Outcome.REFUTED
        manifest = await client.manifest(liar.repository.at(sha256_digest(MANIFEST)))
        assert manifest.raw == MANIFEST


async def test_a_compressed_body_is_not_inflated() -> None:
    async def bomb(_request: web.Request) -> web.Response:
        body = gzip.compress(bytes(2**26))
        return web.Response(body=body, headers={"Content-Encoding": "gzip"})

    async with lying(bomb) as liar, client_of(liar) as client:
        with pytest.raises(ContentMismatch):
            await client.blob(liar.repository, DIGEST, 2**20)


async def test_a_blob_shorter_than_its_descriptor_is_refuted() -> None:
    async with lying(blob_served) as liar, client_of(liar) as client:
        longer = Descriptor("application/octet-stream", DIGEST, len(BLOB) + 1)
        with pytest.raises(ContentMismatch):
            await client.blob(liar.repository, longer, 1000)
        with pytest.raises(ContentMismatch):
            await stream_all(client, liar.repository, longer)
        right = Descriptor("application/octet-stream", DIGEST, len(BLOB))
        assert await stream_all(client, liar.repository, right) == BLOB


# Endless


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": OCI_MANIFEST})
    await response.prepare(request)
    while True:
        await response.write(bytes(64 * 1024))


async def test_an_endless_body_is_read_to_its_bound_only() -> None:
    async with lying(endless) as liar, client_of(liar) as client:
        with pytest.raises(TooLarge) as error:
            await client.manifest(liar.repository.tagged("v1"))
        assert error.value.outcome is Outcome.UNDETERMINED
        with pytest.raises(TooLarge):
            await client.blob(liar.repository, DIGEST, 1000)
        with pytest.raises(ContentMismatch, match="more than 13 bytes"):
            await stream_all(
                client, liar.repository, Descriptor("application/x", DIGEST, len(BLOB))
            )


async def test_a_body_that_announces_too_much_is_not_read() -> None:
    async with lying(endless) as liar, client_of(liar) as client:
        huge = Descriptor("application/x", DIGEST, 10**12)
        with pytest.raises(TooLarge):
            await client.blob(liar.repository, huge, 1000)
        assert liar.asked == []


# Slow


async def silent(_request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def dripping(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": OCI_MANIFEST})
    await response.prepare(request)
    while True:  # always soon enough for a timeout that counts from the last byte
        await response.write(b" ")
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("handler", [silent, dripping])
async def test_a_registry_that_stalls_or_drips_is_unavailable_after_the_deadline(
    handler: object,
) -> None:
    async with lying(handler) as liar, client_of(liar, options=HASTY) as client:  # type: ignore[arg-type]
        descriptor = Descriptor("application/x", DIGEST, 4096)
        for attempt in (
            client.manifest(liar.repository.tagged("v1")),
            client.blob(liar.repository, DIGEST, 4096),
            client.referrers(liar.repository.at(DIGEST)),
            stream_all(client, liar.repository, descriptor),
        ):
            with pytest.raises(RegistryUnavailable) as error:
                async with asyncio.timeout(10):
                    await attempt
            assert error.value.outcome is Outcome.UNDETERMINED


async def test_a_registry_that_stalls_does_not_hold_up_another() -> None:
    full = asyncio.Event()

    async def stalling(request: web.Request) -> web.StreamResponse:
        if len(stalled.asked) == PATIENT.connections:
            full.set()
        return await silent(request)

    async with (
        lying(stalling) as stalled,
        lying(served) as well,
        client_of(stalled, well) as client,
    ):
        waiting = [
            asyncio.create_task(client.manifest(stalled.repository.tagged("v1")))
            for _ in range(3 * PATIENT.connections)
        ]
        await full.wait()
        assert (await client.manifest(well.repository.tagged("v1"))).raw == MANIFEST
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert len(stalled.asked) == PATIENT.connections


async def test_a_deadline_of_the_caller_stays_the_callers() -> None:
    async with lying(silent) as liar, client_of(liar) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.manifest(liar.repository.tagged("v1"))


# Down, throttled


async def test_nobody_there_is_unavailable_and_says_so() -> None:
    async with RegistryClient(replace(PATIENT, plain_http=frozenset({"127.0.0.1:1"}))) as client:
        with pytest.raises(RegistryUnavailable, match="cannot be reached"):
            await client.manifest(Reference("127.0.0.1:1", "research/code", "v1"))


async def test_a_registry_that_keeps_failing_is_tried_as_often_as_configured() -> None:
    async def failing(_request: web.Request) -> web.Response:
        return refusal(503, "UNAVAILABLE")

    async with lying(failing) as liar, client_of(liar) as client:
        with pytest.raises(RegistryUnavailable, match=r"answered 503 \(UNAVAILABLE: as told\)"):
            await client.manifest(liar.repository.tagged("v1"))
        assert len(liar.asked) == PATIENT.attempts


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_passing_failure_is_waited_out(status: int) -> None:
    async def once(_request: web.Request) -> web.Response:
        if len(liar.asked) == 1:
            return refusal(status, "TOOMANYREQUESTS", **{"Retry-After": "0"})
        return await served(_request)

    async with lying(once) as liar, client_of(liar) as client:
        assert (await client.manifest(liar.repository.tagged("v1"))).raw == MANIFEST


@pytest.mark.parametrize("after", ["3600", "Wed, 21 Oct 2099 07:28:00 GMT"])
async def test_a_registry_that_asks_for_an_hour_is_not_waited_for(after: str) -> None:
    async def throttling(_request: web.Request) -> web.Response:
        return refusal(429, "TOOMANYREQUESTS", **{"Retry-After": after})

    async with lying(throttling) as liar, client_of(liar) as client:
        with pytest.raises(RegistryUnavailable, match="asks to wait"):
            await client.manifest(liar.repository.tagged("v1"))
        assert len(liar.asked) == 1


async def test_a_connection_cut_in_the_middle_is_unavailable() -> None:
    async def cutting(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "4096"})
        await response.prepare(request)
        await response.write(b"x" * 10)
        assert request.transport is not None
        request.transport.abort()
        return response

    async with lying(cutting) as liar, client_of(liar) as client:
        with pytest.raises(RegistryUnavailable):
            await client.manifest(liar.repository.tagged("v1"))
        with pytest.raises(RegistryUnavailable, match="midway"):
            await stream_all(client, liar.repository, Descriptor("application/x", DIGEST, 4096))


# Absent, or not


async def test_a_404_of_a_registry_is_absence_and_that_of_a_proxy_is_not() -> None:
    async def registry(_request: web.Request) -> web.Response:
        return refusal(404, "MANIFEST_UNKNOWN")

    async def proxy(_request: web.Request) -> web.Response:
        return web.Response(status=404, text="default backend - 404")

    async with lying(registry) as liar, client_of(liar) as client:
        with pytest.raises(NotFound) as absent:
            await client.manifest(liar.repository.tagged("v1"))
        assert absent.value.outcome is Outcome.REFUTED
        assert await client.referrers(liar.repository.at(DIGEST)) == []
        liar.handler = proxy
        with pytest.raises(RegistryMisbehaved) as unknown:
            await client.manifest(liar.repository.tagged("v1"))
        assert unknown.value.outcome is Outcome.UNDETERMINED
        with pytest.raises(RegistryMisbehaved):
            await client.referrers(liar.repository.at(DIGEST))


# Redirects


def redirect(to: str) -> web.Response:
    return web.Response(status=307, headers={"Location": to})


async def test_a_redirect_loop_ends_after_five() -> None:
    async def looping(request: web.Request) -> web.Response:
        return redirect(request.path + "?again")

    async with lying(looping) as liar, client_of(liar) as client:
        with pytest.raises(RegistryMisbehaved, match="more than 5 times"):
            await client.blob(liar.repository, DIGEST, 100)
        assert len(liar.asked) == 6


async def test_a_redirect_to_a_store_is_followed_and_gets_no_credentials() -> None:
    async def wants_password(request: web.Request) -> web.Response:
        if "Authorization" not in request.headers:
            return refusal(401, "UNAUTHORIZED", **{"WWW-Authenticate": "Basic"})
        return redirect(f"http://{store.address}/signed%2Furl?sig=a%2Bb")

    async with (
        lying(blob_served) as store,
        lying(wants_password) as liar,
        client_of(liar, credentials=known()) as client,
    ):
        assert await client.blob(liar.repository, DIGEST, 100) == BLOB
        assert liar.asked[-1].authorization is not None
        assert [asked.authorization for asked in store.asked] == [None]
        assert store.asked[0].path == "/signed%2Furl?sig=a%2Bb"


async def test_a_store_behind_a_redirect_cannot_ask_for_the_password() -> None:
    async def asking(_request: web.Request) -> web.Response:
        return refusal(401, "UNAUTHORIZED", **{"WWW-Authenticate": "Basic"})

    async with lying(asking) as store:

        async def away(_request: web.Request) -> web.Response:
            return redirect(f"http://{store.address}/v2/")

        async with lying(away) as liar, client_of(liar, store, credentials=known()) as client:
            with pytest.raises(RegistryError):
                await client.blob(liar.repository, DIGEST, 100)
            assert [asked.authorization for asked in store.asked] == [None]


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://0.0.0.0:1/",
        "file:///etc/passwd",
        "http://user:password@localhost/",
    ],
)
async def test_redirects_to_where_no_registry_lives_are_refused(target: str) -> None:
    async def away(_request: web.Request) -> web.Response:
        return redirect(target)

    async with lying(away) as liar, client_of(liar) as client:
        with pytest.raises(RegistryMisbehaved):
            await client.blob(liar.repository, DIGEST, 100)
        assert len(liar.asked) == 1


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context for 127.0.0.1, and the file of its (own) CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry")])
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=36500))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    ca, private = folder / "ca.pem", folder / "key.pem"
    ca.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(ca, private)
    return context, ca


async def test_tls_with_a_given_ca_works_and_without_it_is_unavailable(
    certificate: tuple[ssl.SSLContext, Path],
) -> None:
    tls, ca = certificate
    async with lying(served, tls) as liar:
        async with RegistryClient(replace(PATIENT, ca_file=ca)) as client:
            assert (await client.manifest(liar.repository.tagged("v1"))).raw == MANIFEST
        async with RegistryClient(PATIENT) as client:
            with pytest.raises(RegistryUnavailable, match="certificate was not accepted"):
                await client.manifest(liar.repository.tagged("v1"))
        assert len(liar.asked) == 1


async def test_https_never_leads_to_plain_http(
    certificate: tuple[ssl.SSLContext, Path],
) -> None:
    tls, ca = certificate
    async with lying(never) as plain:

        async def away(_request: web.Request) -> web.Response:
            return redirect(f"http://{plain.address}/")

        options = replace(PATIENT, ca_file=ca, plain_http=frozenset({plain.address}))
        async with lying(away, tls) as liar, RegistryClient(options) as client:
            with pytest.raises(RegistryMisbehaved, match="from https to plain http"):
                await client.blob(liar.repository, DIGEST, 100)
        assert plain.asked == []


async def test_a_registry_that_is_not_named_as_plain_is_never_spoken_to_without_tls() -> None:
    async with lying(never) as liar, RegistryClient(HASTY) as client:
        with pytest.raises(RegistryUnavailable):
            await client.manifest(liar.repository.tagged("v1"))
        assert liar.asked == []


# Referrers


def entry(number: int, **more: object) -> dict[str, object]:
    digest = sha256_digest(str(number).encode())
    return {"mediaType": OCI_MANIFEST, "digest": digest, "size": 2, **more}


def index(*entries: object, link: str | None = None) -> web.Response:
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    headers = None if link is None else {"Link": f'<{link}>; rel="next"'}
    return web.Response(text=body, content_type=OCI_INDEX, headers=headers)


async def test_pages_of_referrers_are_followed() -> None:
    async def paged(request: web.Request) -> web.Response:
        page = int(request.query.get("page", "0"))
        link = f"{request.path}?page={page + 1}" if page < 2 else None
        return index(entry(page), link=link)

    async with lying(paged) as liar, client_of(liar) as client:
        listed = await client.referrers(liar.repository.at(DIGEST))
        assert [found.digest for found in listed] == [entry(n)["digest"] for n in range(3)]


@pytest.mark.parametrize("count", [257, 10_000])
async def test_a_flood_of_referrers_is_an_error_and_not_cut_off(count: int) -> None:
    async def flood(_request: web.Request) -> web.Response:
        return index(*(entry(number) for number in range(count)))

    async with lying(flood) as liar, client_of(liar) as client:
        with pytest.raises(TooLarge) as error:
            await client.referrers(liar.repository.at(DIGEST))
        assert error.value.outcome is Outcome.UNDETERMINED


async def test_256_referrers_are_not_a_flood() -> None:
    async def many(_request: web.Request) -> web.Response:
        return index(*(entry(number) for number in range(256)))

    async with lying(many) as liar, client_of(liar) as client:
        assert len(await client.referrers(liar.repository.at(DIGEST))) == 256


async def test_pages_without_end_are_an_error() -> None:
    async def paged(request: web.Request) -> web.Response:
        return index(entry(len(liar.asked)), link=request.path + "?next")

    async with lying(paged) as liar, client_of(liar) as client:
        with pytest.raises(TooLarge):
            await client.referrers(liar.repository.at(DIGEST))
        assert liar.pages == 16


async def test_the_next_page_is_never_somewhere_else() -> None:
    async with lying(never) as elsewhere:
        path = f"/v2/research/code/referrers/{DIGEST}?page=2"
        for link in (f"http://{elsewhere.address}{path}", "/v2/other/manifests/latest"):

            async def paged(_request: web.Request, link: str = link) -> web.Response:
                return index(entry(1), link=link)

            async with lying(paged) as liar, client_of(liar, elsewhere) as client:
                with pytest.raises(RegistryMisbehaved, match="somewhere else"):
                    await client.referrers(liar.repository.at(DIGEST))
                assert liar.pages == 1


async def test_an_odd_entry_does_not_hide_the_others() -> None:
    async def odd(_request: web.Request) -> web.Response:
        return index({"digest": "md5:1"}, "text", entry(1), entry(2, size=-1), entry(3, size="1"))

    async with lying(odd) as liar, client_of(liar) as client:
        listed = await client.referrers(liar.repository.at(DIGEST))
        assert [found.digest for found in listed] == [entry(1)["digest"]]


async def test_referrers_of_another_type_are_left_out_and_unstated_ones_kept() -> None:
    async def mixed(_request: web.Request) -> web.Response:
        empty = "application/vnd.oci.empty.v1+json"
        return index(
            entry(1, artifactType="application/sbom"),
            entry(2, artifactType="application/wanted"),
            entry(3, artifactType=empty),
            entry(4),
        )

    async with lying(mixed) as liar, client_of(liar) as client:
        listed = await client.referrers(liar.repository.at(DIGEST), "application/wanted")
        assert [found.digest for found in listed] == [entry(n)["digest"] for n in (2, 3, 4)]


async def test_a_web_page_in_place_of_referrers_means_the_tag_is_asked() -> None:
    async def pages(request: web.Request) -> web.Response:
        if "/referrers/" in request.path:
            return web.Response(text="<html>", content_type="text/html")
        assert request.path.endswith("/manifests/" + DIGEST.replace(":", "-"))
        return index(entry(7))

    async with lying(pages) as liar, client_of(liar) as client:
        listed = await client.referrers(liar.repository.at(DIGEST))
        assert [found.digest for found in listed] == [entry(7)["digest"]]


@pytest.mark.parametrize("body", ["[]", "{", '{"manifests": 1}', "[" * 100_000])
async def test_a_list_of_referrers_that_is_none_is_undetermined(body: str) -> None:
    async def nonsense(_request: web.Request) -> web.Response:
        return web.Response(text=body, content_type=OCI_INDEX)

    async with lying(nonsense) as liar, client_of(liar) as client:
        with pytest.raises(RegistryMisbehaved) as error:
            await client.referrers(liar.repository.at(DIGEST))
        assert error.value.outcome is Outcome.UNDETERMINED


# Pushing


async def uploads(request: web.Request, location: str) -> web.Response:
    if "Authorization" not in request.headers and "/v2/" in request.path:
        return refusal(401, "UNAUTHORIZED", **{"WWW-Authenticate": "Basic"})
    if request.method == "HEAD":
        return web.Response(status=404)
    if request.method == "POST":
        return web.Response(status=202, headers={"Location": location})
    return web.Response(status=201)


async def test_an_upload_sent_elsewhere_takes_no_credentials_along() -> None:
    async def store(_request: web.Request) -> web.Response:
        return web.Response(status=201)

    async with lying(store) as elsewhere:

        async def away(request: web.Request) -> web.Response:
            return await uploads(request, f"http://{elsewhere.address}/up?state=a%2Fb")

        async with lying(away) as liar, client_of(liar, credentials=known()) as client:
            assert await client.push_blob(liar.repository, BLOB)
        (put,) = elsewhere.asked
        assert put.authorization is None
        assert put.body == BLOB
        assert put.path == "/up?state=a%2Fb&digest=" + DIGEST.replace(":", "%3A")


async def test_an_upload_that_breaks_is_begun_anew() -> None:
    broken: list[str] = []

    async def breaking(request: web.Request) -> web.Response:
        if request.method == "PUT" and not broken:
            broken.append(request.path)
            return refusal(500, "UNKNOWN")
        return await uploads(request, f"/v2/research/code/blobs/uploads/{len(broken)}")

    async with lying(breaking) as liar, client_of(liar, credentials=known()) as client:
        assert await client.push_blob(liar.repository, BLOB)
        puts = [asked for asked in liar.asked if asked.method == "PUT"]
        assert [put.body for put in puts] == [BLOB, BLOB]
        assert puts[0].path != puts[1].path


async def test_a_manifest_stored_under_another_digest_is_noticed() -> None:
    async def changing(_request: web.Request) -> web.Response:
        return web.Response(status=201, headers={"Docker-Content-Digest": DIGEST})

    async with lying(changing) as liar, client_of(liar) as client:
        with pytest.raises(RegistryMisbehaved, match="another digest"):
            await client.push_manifest(liar.repository.tagged("v1"), MANIFEST, OCI_MANIFEST)
