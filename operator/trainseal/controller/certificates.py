"""Keeps the webhook's certificate and the API server's trust in it: reads, decides, writes.

The Secret (``tls.crt``, ``tls.key``, ``ca.crt``, and what a rotation stages) is created here and
is not Helm's. The webhook configurations come with the chart, complete but for ``caBundle``;
only that field is written here, and only where a webhook points at our Service.

Safe to call at any time, by anyone, as often as wanted: everything is read anew, each write
names the resourceVersion it read, and a lost race starts over. Nothing is remembered in between.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Literal

# Named one by one: the client loads its hundreds of modules at the first use of each name, which
# takes seconds on a busy node and would hold up a leader's event loop until its Lease was lost.
from kubernetes.aio.client import (
    AdmissionregistrationV1Api,
    ApiClient,
    CoreV1Api,
    V1MutatingWebhookConfiguration,
    V1ObjectMeta,
    V1Secret,
    V1ValidatingWebhookConfiguration,
)
from kubernetes.aio.client.exceptions import ApiException

from trainseal.controller.certificate_rotation import (
    RETRY,
    ServingCertificate,
    Step,
    WebhookTLS,
    decide,
    from_secret,
    issue,
    serving_names,
    take,
    to_secret,
)

_LOG = logging.getLogger(__name__)

_FIELD_MANAGER = "trainseal-controller"
_STRATEGIC_MERGE = "application/strategic-merge-patch+json"
#: A whole rotation is four steps and as many patches; each lost race costs one more pass.
_PASSES = 12
_LOST_RACE = (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND)


@dataclass(frozen=True, slots=True)
class WebhookConfiguration:
    """One webhook configuration of ours, by kind and name."""

    kind: Literal["Mutating", "Validating"]
    name: str


#: Those of the chart.
CONFIGURATIONS = (
    WebhookConfiguration("Mutating", "trainseal"),
    WebhookConfiguration("Validating", "trainseal"),
    WebhookConfiguration("Validating", "trainseal-access"),
)


@dataclass(frozen=True, slots=True)
class _Secret:
    resource_version: str | None
    uid: str | None
    type: str | None
    state: WebhookTLS | None
    annotations: Mapping[str, str]

    def said_of(self, current: ServingCertificate) -> dict[str, str]:
        """What others noted beside the certificate, as long as it is the one that is served.

        cert-manager notes whose it is, and without that would take it for its present issuer's.
        """
        if self.state is None or self.state.current != current:
            return {}
        return {k: v for k, v in self.annotations.items() if not k.startswith("trainseal.dev/")}


@dataclass(frozen=True, slots=True)
class _Trust:
    """What a webhook configuration trusts: caBundle (base64) by the webhook's name."""

    configuration: WebhookConfiguration
    resource_version: str | None
    bundles: tuple[tuple[str, str], ...]

    def behind(self, wanted: str) -> tuple[str, ...]:
        """Names of the webhooks that trust something else than ``wanted``."""
        return tuple(name for name, bundle in self.bundles if bundle != wanted)


async def ensure_webhook_tls(
    api_client: ApiClient,
    namespace: str,
    service: str,
    secret: str,
    configurations: Sequence[WebhookConfiguration],
    now: datetime,
) -> datetime:
    """Brings certificate and trust to where they should be; returns when to call again.

    ``now`` is timezone-aware. Configurations that do not exist are passed over (before an
    install is complete, after an uninstall). Raises ApiException when the API server refuses
    or is away; the caller calls again.
    """
    names = serving_names(namespace, service)
    for _ in range(_PASSES):
        try:
            found = await _read_secret(api_client, namespace, secret)
            state = found.state if found else None
            trusts = [
                trust
                for configuration in configurations
                if (trust := await _read_trust(api_client, configuration, namespace, service))
            ]
            bundle = base64.b64encode(state.ca_bundle).decode() if state else ""
            behind = [trust for trust in trusts if trust.behind(bundle)]
            published = bool(trusts) and not behind
            decision = decide(state, names, published=published, now=now)
            if decision.step is not Step.KEEP:
                _LOG.info("webhook certificate: %s, since %s", decision.step.value, decision.reason)
                fresh = issue(names, now) if decision.step in (Step.REPLACE, Step.STAGE) else None
                after = take(decision.step, state, published=published, fresh=fresh, now=now)
                await _write_secret(api_client, namespace, secret, found, after)
                continue
            if not behind:
                return decision.check_at if trusts else min(decision.check_at, now + RETRY)
            for trust in behind:
                await _patch_trust(api_client, trust, bundle)
        except ApiException as error:
            if error.status not in _LOST_RACE:
                raise
            _LOG.info("webhook certificate: somebody else wrote first (%s); again", error.reason)
    return now + RETRY


async def _read_secret(api_client: ApiClient, namespace: str, name: str) -> _Secret | None:
    try:
        found = await CoreV1Api(api_client).read_namespaced_secret(name, namespace)
    except ApiException as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return None
        raise
    metadata = found.metadata or V1ObjectMeta()
    return _Secret(
        resource_version=metadata.resource_version,
        uid=metadata.uid,
        type=found.type,
        annotations=metadata.annotations or {},
        state=from_secret(
            {key: _text(value) for key, value in (found.data or {}).items()},
            metadata.annotations or {},
        ),
    )


async def _write_secret(
    api_client: ApiClient,
    namespace: str,
    name: str,
    found: _Secret | None,
    state: WebhookTLS,
) -> None:
    data, annotations = to_secret(state)
    core = CoreV1Api(api_client)
    body = V1Secret(
        type=found.type if found else "kubernetes.io/tls",
        metadata=V1ObjectMeta(
            name=name,
            # Both None for a new one; with them, an older or another Secret is not overwritten.
            resource_version=found.resource_version if found else None,
            uid=found.uid if found else None,
            annotations=annotations | (found.said_of(state.current) if found else {}),
            labels={
                "app.kubernetes.io/name": "trainseal",
                "app.kubernetes.io/part-of": "trainseal",
                "app.kubernetes.io/component": "webhook",
            },
        ),
        data=data,
    )
    if found is None:
        await core.create_namespaced_secret(namespace, body, field_manager=_FIELD_MANAGER)
        return
    await core.replace_namespaced_secret(name, namespace, body, field_manager=_FIELD_MANAGER)


async def _read_trust(
    api_client: ApiClient,
    configuration: WebhookConfiguration,
    namespace: str,
    service: str,
) -> _Trust | None:
    api = AdmissionregistrationV1Api(api_client)
    try:
        found: V1MutatingWebhookConfiguration | V1ValidatingWebhookConfiguration
        if configuration.kind == "Mutating":
            found = await api.read_mutating_webhook_configuration(configuration.name)
        else:
            found = await api.read_validating_webhook_configuration(configuration.name)
    except ApiException as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return None
        raise
    return _Trust(
        configuration=configuration,
        resource_version=found.metadata.resource_version if found.metadata else None,
        bundles=tuple(
            (webhook.name, _text(webhook.client_config.ca_bundle))
            for webhook in found.webhooks or []
            if (target := webhook.client_config.service)
            and (target.namespace, target.name) == (namespace, service)
        ),
    )


def _text(value: str | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


async def _patch_trust(api_client: ApiClient, trust: _Trust, bundle: str) -> None:
    # Merged by the webhook's name, so that nothing else of it is written or owned by us.
    body = {
        "metadata": {"resourceVersion": trust.resource_version},
        "webhooks": [
            {"name": name, "clientConfig": {"caBundle": bundle}} for name in trust.behind(bundle)
        ],
    }
    api = AdmissionregistrationV1Api(api_client)
    patch = (
        api.patch_mutating_webhook_configuration
        if trust.configuration.kind == "Mutating"
        else api.patch_validating_webhook_configuration
    )
    await patch(
        trust.configuration.name,
        body,
        field_manager=_FIELD_MANAGER,
        _content_type=_STRATEGIC_MERGE,
    )
