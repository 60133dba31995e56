"""The webhook's certificate on a real API server, with the rights that the chart gives."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.integration.chart.conftest import (
    CONTROLLER,
    NAMESPACE,
    ApiServer,
    Helm,
    Object,
    configuration,
)
from trainseal.cluster.api import Kube, connect
from trainseal.controller.certificate_rotation import (
    CHECK_EVERY,
    LIFETIME,
    OVERLAP,
    RENEW_BEFORE,
    RETRY,
    STAGING,
    WebhookTLS,
    defect,
    from_secret,
    serving_names,
)
from trainseal.controller.certificates import CONFIGURATIONS, ensure_webhook_tls

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SERVICE = "trainseal-webhook"
SECRET = "trainseal-webhook-tls"
SECRET_OBJECT: Object = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": SECRET, "namespace": NAMESPACE},
}
#: The chart's webhook configurations, and how many webhooks they have together.
OURS = (
    configuration("mutating"),
    configuration("validating"),
    configuration("validating", "trainseal-access"),
)
WEBHOOKS = 17


@pytest.fixture(scope="module")
def installed(server: ApiServer, helm: Path) -> Iterator[list[Object]]:
    """Our webhook configurations as an install makes them."""
    chart = Helm(server, helm)
    chart.install()
    yield [server.get(obj) for obj in OURS]
    chart.uninstall()


@pytest.fixture
async def controller(server: ApiServer, installed: list[Object]) -> AsyncIterator[Kube]:
    """A client with the controller's own rights, where all is as after an install."""
    server.delete(SECRET_OBJECT)
    for obj in installed:
        live = server.get(obj)["metadata"]
        current = {key: live[key] for key in ("uid", "resourceVersion")}
        server.replace(obj | {"metadata": obj["metadata"] | current})
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}")
    kubeconfig = server.cluster.user_kubeconfig(CONTROLLER, groups)
    async with connect(str(kubeconfig)) as kube:
        yield kube


async def ensure(controller: Kube, now: datetime) -> datetime:
    """One call of the controller's loop."""
    return await ensure_webhook_tls(controller, NAMESPACE, SERVICE, SECRET, CONFIGURATIONS, now)


def kept(server: ApiServer) -> WebhookTLS:
    """What the Secret holds."""
    found = server.get(SECRET_OBJECT)
    assert found["type"] == "kubernetes.io/tls"
    state = from_secret(found["data"], found["metadata"].get("annotations", {}))
    assert state is not None
    return state


def trusted(server: ApiServer) -> list[bytes]:
    """caBundle of every webhook of ours."""
    return [
        base64.b64decode(webhook["clientConfig"].get("caBundle", ""))
        for configuration in OURS
        for webhook in server.get(configuration)["webhooks"]
    ]


def versions(server: ApiServer) -> list[str]:
    """resourceVersions of all that is written."""
    return [server.get(obj)["metadata"]["resourceVersion"] for obj in (SECRET_OBJECT, *OURS)]


async def test_after_an_install_it_is_made_and_trusted_by_every_webhook(
    controller: Kube, server: ApiServer
) -> None:
    assert trusted(server) == [b""] * WEBHOOKS
    assert await ensure(controller, NOW) == NOW + CHECK_EVERY
    state = kept(server)
    assert defect(state.current, serving_names(NAMESPACE, SERVICE), NOW) is None
    assert trusted(server) == [state.ca_bundle] * WEBHOOKS


async def test_a_second_look_writes_nothing(controller: Kube, server: ApiServer) -> None:
    await ensure(controller, NOW)
    before = versions(server)
    await ensure(controller, NOW + CHECK_EVERY)
    assert versions(server) == before


async def test_an_emptied_trust_is_filled_again(controller: Kube, server: ApiServer) -> None:
    await ensure(controller, NOW)
    before = kept(server)
    server.kubectl(
        "patch", "validatingwebhookconfiguration", "trainseal", "--type=json",
        "-p", '[{"op": "remove", "path": "/webhooks/1/clientConfig/caBundle"}]',
    )  # fmt: skip
    assert b"" in trusted(server)
    await ensure(controller, NOW + CHECK_EVERY)
    assert kept(server) == before
    assert trusted(server) == [before.ca_bundle] * WEBHOOKS


async def test_an_upgrade_leaves_the_trust_that_it_wrote(
    controller: Kube, server: ApiServer, helm: Path
) -> None:
    chart = Helm(server, helm)
    chart.uninstall()
    chart.install()  # each field is Helm's again, and no other's
    await ensure(controller, NOW)
    bundle = kept(server).ca_bundle
    chart.upgrade("--set", "gpuResources={nvidia.com/*}")
    assert trusted(server) == [bundle] * WEBHOOKS


async def test_a_deleted_secret_is_made_anew(controller: Kube, server: ApiServer) -> None:
    await ensure(controller, NOW)
    before = kept(server)
    server.delete(SECRET_OBJECT)
    await ensure(controller, NOW)
    assert kept(server).current != before.current
    assert trusted(server) == [kept(server).ca_bundle] * WEBHOOKS


async def test_a_rotation_stages_trusts_promotes_and_retires(
    controller: Kube, server: ApiServer
) -> None:
    await ensure(controller, NOW)
    old = kept(server).current

    renewal = NOW + LIFETIME - RENEW_BEFORE
    promotion = await ensure(controller, renewal)
    staged = kept(server)
    assert promotion == renewal + STAGING
    assert staged.current == old
    assert staged.successor is not None
    assert trusted(server) == [old.authority + staged.successor.authority] * WEBHOOKS

    before = versions(server)[1:]
    await ensure(controller, promotion)
    promoted = kept(server)
    assert promoted.current == staged.successor
    assert versions(server)[1:] == before, "a promotion changes what is trusted"

    await ensure(controller, promotion + OVERLAP)
    assert kept(server).previous_authority is None
    assert trusted(server) == [promoted.current.authority] * WEBHOOKS


async def test_what_another_noted_of_its_certificate_stays_as_long_as_that_is_served(
    controller: Kube, server: ApiServer
) -> None:
    noted = "cert-manager.io/issuer-name"

    def issuer() -> str | None:
        found = server.get(SECRET_OBJECT)
        name: str | None = found["metadata"].get("annotations", {}).get(noted)
        return name

    await ensure(controller, NOW)
    server.kubectl("annotate", "secret", SECRET, "-n", NAMESPACE, f"{noted}=theirs")
    renewal = NOW + LIFETIME - RENEW_BEFORE
    promotion = await ensure(controller, renewal)
    assert kept(server).successor is not None
    assert issuer() == "theirs"
    await ensure(controller, promotion)
    assert issuer() is None


async def test_two_controllers_at_once_agree(controller: Kube, server: ApiServer) -> None:
    await asyncio.gather(*(ensure(controller, NOW) for _ in range(4)))
    assert trusted(server) == [kept(server).ca_bundle] * WEBHOOKS
    for now in (NOW + LIFETIME - RENEW_BEFORE, NOW + LIFETIME - RENEW_BEFORE + STAGING):
        await asyncio.gather(*(ensure(controller, now) for _ in range(4)))
        assert trusted(server) == [kept(server).ca_bundle] * WEBHOOKS
    assert kept(server).previous_authority is not None


async def test_a_webhook_that_calls_somebody_else_is_given_no_trust(
    controller: Kube, server: ApiServer
) -> None:
    server.kubectl(
        "patch", "mutatingwebhookconfiguration", "trainseal", "--type=json", "-p",
        '[{"op": "replace", "path": "/webhooks/0/clientConfig",'
        ' "value": {"url": "https://elsewhere.example/"}}]',
    )  # fmt: skip
    await ensure(controller, NOW)
    assert trusted(server) == [b"", *[kept(server).ca_bundle] * (WEBHOOKS - 1)]


async def test_an_uninstall_meanwhile_is_no_error(controller: Kube, server: ApiServer) -> None:
    for obj in OURS:  # nothing puts them back: this test is the last
        server.delete(obj)
    assert await ensure(controller, NOW) == NOW + RETRY
