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
from typing import Literal

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.cluster.api import ConflictError, Kube, NotFoundError, path_of
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
from trainseal.provenance.differences import strings

_LOG = logging.getLogger(__name__)

_FIELD_MANAGER = "trainseal-controller"
_ADMISSION = "admissionregistration.k8s.io/v1"
_STRATEGIC_MERGE = "application/strategic-merge-patch+json"
#: A whole rotation is four steps and as many patches; each lost race costs one more pass.
_PASSES = 12


@dataclass(frozen=True, slots=True)
class WebhookConfiguration:
    """One webhook configuration of ours, by kind and name."""

    kind: Literal["Mutating", "Validating"]
    name: str

    @property
    def path(self) -> str:
        """Of the object in the API."""
        return path_of(_ADMISSION, f"{self.kind.lower()}webhookconfigurations", None, self.name)


#: Those of the chart.
CONFIGURATIONS = (
    WebhookConfiguration("Mutating", "trainseal"),
    WebhookConfiguration("Validating", "trainseal"),
    WebhookConfiguration("Validating", "trainseal-access"),
)


@dataclass(frozen=True, slots=True)
class _Secret:
    resource_version: str
    uid: str
    type: str
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
    resource_version: str
    bundles: tuple[tuple[str, str], ...]

    def behind(self, wanted: str) -> tuple[str, ...]:
        """Names of the webhooks that trust something else than ``wanted``."""
        return tuple(name for name, bundle in self.bundles if bundle != wanted)


async def ensure_webhook_tls(
    kube: Kube,
    namespace: str,
    service: str,
    secret: str,
    configurations: Sequence[WebhookConfiguration],
    now: datetime,
) -> datetime:
    """Brings certificate and trust to where they should be; returns when to call again.

    ``now`` is timezone-aware. Configurations that do not exist are passed over (before an
    install is complete, after an uninstall). Raises KubeError when the API server refuses
    or is away; the caller calls again.
    """
    names = serving_names(namespace, service)
    secrets = path_of("v1", "secrets", namespace)
    for _ in range(_PASSES):
        try:
            found = await _read_secret(kube, f"{secrets}/{secret}")
            state = found.state if found else None
            trusts = [
                trust
                for configuration in configurations
                if (trust := await _read_trust(kube, configuration, namespace, service))
            ]
            bundle = base64.b64encode(state.ca_bundle).decode() if state else ""
            behind = [trust for trust in trusts if trust.behind(bundle)]
            published = bool(trusts) and not behind
            decision = decide(state, names, published=published, now=now)
            if decision.step is not Step.KEEP:
                _LOG.info("webhook certificate: %s, since %s", decision.step.value, decision.reason)
                fresh = issue(names, now) if decision.step in (Step.REPLACE, Step.STAGE) else None
                after = take(decision.step, state, published=published, fresh=fresh, now=now)
                await _write_secret(kube, secrets, secret, found, after)
                continue
            if not behind:
                return decision.check_at if trusts else min(decision.check_at, now + RETRY)
            for trust in behind:
                await _patch_trust(kube, trust, bundle)
        except (ConflictError, NotFoundError) as error:
            _LOG.info("webhook certificate: somebody else wrote first (%s); again", error.reason)
    return now + RETRY


async def _read_secret(kube: Kube, path: str) -> _Secret | None:
    try:
        found = await kube.get(path)
    except NotFoundError:
        return None
    metadata = json_object(found.get("metadata"))
    annotations = strings(metadata.get("annotations"))
    return _Secret(
        resource_version=str(metadata.get("resourceVersion")),
        uid=str(metadata.get("uid")),
        type=str(found.get("type")),
        annotations=annotations,
        state=from_secret(strings(found.get("data")), annotations),
    )


async def _write_secret(
    kube: Kube, secrets: str, name: str, found: _Secret | None, state: WebhookTLS
) -> None:
    data, annotations = to_secret(state)
    metadata: JsonObject = {
        "name": name,
        "labels": {
            "app.kubernetes.io/name": "trainseal",
            "app.kubernetes.io/part-of": "trainseal",
            "app.kubernetes.io/component": "webhook",
        },
        "annotations": {**annotations, **(found.said_of(state.current) if found else {})},
    }
    if found is not None:
        # An older or another Secret is not overwritten.
        metadata |= {"resourceVersion": found.resource_version, "uid": found.uid}
    body: JsonObject = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": found.type if found else "kubernetes.io/tls",
        "metadata": metadata,
        "data": {**data},
    }
    await kube.request(
        "POST" if found is None else "PUT",
        secrets if found is None else f"{secrets}/{name}",
        query={"fieldManager": _FIELD_MANAGER},
        body=body,
    )


async def _read_trust(
    kube: Kube, configuration: WebhookConfiguration, namespace: str, service: str
) -> _Trust | None:
    try:
        found = await kube.get(configuration.path)
    except NotFoundError:
        return None
    bundles = []
    for webhook in json_objects(found.get("webhooks")):
        client = json_object(webhook.get("clientConfig"))
        target = json_object(client.get("service"))
        if (target.get("namespace"), target.get("name")) == (namespace, service):
            bundles.append((str(webhook.get("name")), str(client.get("caBundle") or "")))
    version = str(json_object(found.get("metadata")).get("resourceVersion"))
    return _Trust(configuration, version, tuple(bundles))


async def _patch_trust(kube: Kube, trust: _Trust, bundle: str) -> None:
    # Merged by the webhook's name, so that nothing else of it is written or owned by us.
    body: JsonObject = {
        "metadata": {"resourceVersion": trust.resource_version},
        "webhooks": [
            {"name": name, "clientConfig": {"caBundle": bundle}} for name in trust.behind(bundle)
        ],
    }
    await kube.request(
        "PATCH",
        trust.configuration.path,
        query={"fieldManager": _FIELD_MANAGER},
        body=body,
        content_type=_STRATEGIC_MERGE,
    )
