"""Whether TrainSeal reaches what it is to guard: certificates, webhook, namespaces, nodes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

from cryptography import x509

from trainseal.admission.pods import LABEL_SEAL
from trainseal.api.model import API_VERSION, JsonObject, json_object, json_objects, metadata_name
from trainseal.cli.caller import caller
from trainseal.cli.checkupreport import Finding, Health, some, unseen
from trainseal.cli.clusterrules import policies_of, settings_of
from trainseal.cluster.api import Kube, KubeError, path_of
from trainseal.cluster.listing import listed
from trainseal.cluster.settings import Settings
from trainseal.controller.heartbeats import SILENT_SECONDS
from trainseal.controller.silence import LEASE_PREFIX
from trainseal.provenance.gpuasks import asked

_ADMISSION = "admissionregistration.k8s.io/v1"
_CONFIGURATIONS = (
    ("mutatingwebhookconfigurations", "trainseal"),
    ("validatingwebhookconfigurations", "trainseal"),
    ("validatingwebhookconfigurations", "trainseal-access"),
)
#: The controller renews its own long before; cert-manager a third of the time before.
_SOON = timedelta(days=3)
#: What two clocks may be apart before it matters for signatures' and Leases' times.
_APART = timedelta(seconds=60)
_WEBHOOK = "trainingjobs.trainseal.dev"


def parts(kube: Kube, namespace: str) -> tuple[AsyncIterator[Finding], ...]:
    """Each piece; ``namespace`` is the release's."""
    return (
        _certificates(kube),
        _reach(kube),
        _coverage(kube, namespace),
        _agents(kube, namespace),
    )


async def _certificates(kube: Kube) -> AsyncIterator[Finding]:
    """Until when the API server takes what the webhook serves."""
    now = (await caller(kube)).now
    ends: list[datetime] = []
    for plural, name in _CONFIGURATIONS:
        try:
            found = await kube.get(path_of(_ADMISSION, plural, None, name))
        except KubeError:
            continue  # its own finding says so
        for hook in json_objects(found.get("webhooks")):
            bundle = json_object(hook.get("clientConfig")).get("caBundle")
            if not isinstance(bundle, str) or not bundle:
                continue
            try:
                pem = base64.b64decode(bundle, validate=True)
                ends.append(
                    max(c.not_valid_after_utc for c in x509.load_pem_x509_certificates(pem))
                )
            except (ValueError, binascii.Error):
                yield Finding(
                    "certificates", Health.WRONG,
                    f"{hook.get('name')}: its caBundle holds no certificate",
                    "upgrade the chart; the controller (or cert-manager) fills it in",
                )  # fmt: skip
    if not ends:
        return
    first = min(ends)
    words = f"the webhook's authority is trusted until {first:%Y-%m-%d %H:%M} UTC"
    if first <= now + _SOON:
        yield Finding(
            "certificates", Health.WRONG, words,
            "it should have been renewed: look at the log of the controller, or of cert-manager",
        )  # fmt: skip
    else:
        yield Finding("certificates", Health.GOOD, words)


async def _reach(kube: Kube) -> AsyncIterator[Finding]:
    """Whether the API server reaches the webhook: by an unsigned job that is not kept."""
    job: JsonObject = {
        "apiVersion": API_VERSION,
        "kind": "TrainingJob",
        "metadata": {"name": "trainseal-doctor", "namespace": "default"},
        "spec": {
            "engine": "Job",
            "roles": [
                {
                    "name": "worker",
                    "replicas": 1,
                    "template": {
                        "spec": {
                            "containers": [
                                {"name": "none", "image": "none.example/none@sha256:" + "0" * 64}
                            ]
                        }
                    },
                }
            ],
        },
    }
    path = path_of(API_VERSION, "trainingjobs", "default")
    good = Finding("webhook", Health.GOOD, "the API server reaches it, and it answers")
    try:
        await kube.create(path, job, dry_run=True, strict=True)
    except KubeError as error:
        if "failed calling webhook" in error.message:
            yield Finding(
                "webhook", Health.WRONG, f"the API server does not reach it: {error.message:.300}",
                "look at the webhook's Service, endpoints, network policies, and its log",
            )  # fmt: skip
        elif _WEBHOOK in error.message:
            yield good
        else:
            yield unseen("webhook", error)
    else:
        yield Finding(
            "webhook", Health.NOTED, "an unsigned TrainingJob passes in namespace default"
        )


async def _coverage(kube: Kube, release: str) -> AsyncIterator[Finding]:
    """Policies that name nothing, and namespaces with GPU pods that nothing enforces."""
    try:
        settings = await settings_of(kube, release)
        policies = (await policies_of(kube)).policies
        names = [metadata_name(n) async for n in listed(kube, path_of("v1", "namespaces"))]
        asking = await _asking(kube, settings)
    except KubeError as error:
        yield unseen("coverage", error)
        return
    for policy in policies:
        if not any(policy.applies_to(name) for name in names):
            yield Finding(
                f"policy {policy.name}", Health.NOTED, "it names no namespace that exists",
                "look whether its patterns are spelt as the namespaces are",
            )  # fmt: skip
    excluded = {*settings.excluded_namespaces, release, settings.agent_namespace}
    loose = sorted(
        name
        for name in asking - excluded
        if not any(p.applies_to(name) and p.mode == "Enforce" for p in policies)
    )
    if loose:
        yield Finding(
            "namespaces", Health.NOTED,
            f"GPU pods run where no policy enforces: {some(loose)}",
            "`trainseal simulate --enforce` says what enforcing would refuse there",
        )  # fmt: skip
    else:
        words = "every namespace with GPU pods has a policy that enforces, or is excluded"
        yield Finding("namespaces", Health.GOOD, words)


async def _agents(kube: Kube, release: str) -> AsyncIterator[Finding]:
    """Nodes with sealed pods, and whether an agent of theirs was heard of just now."""
    now = (await caller(kube)).now
    query = {"labelSelector": LABEL_SEAL, "fieldSelector": "status.phase=Running"}
    try:
        settings = await settings_of(kube, release)
        nodes = {
            str(json_object(pod.get("spec")).get("nodeName"))
            async for pod in listed(kube, path_of("v1", "pods"), query)
        }
        leases = {
            metadata_name(lease).removeprefix(LEASE_PREFIX): _renewed(lease)
            async for lease in listed(kube, path_of("coordination.k8s.io/v1", "leases", release))
            if metadata_name(lease).startswith(LEASE_PREFIX)
        }
    except KubeError as error:
        yield unseen("agents", error)
        return
    if not settings.agents.enabled:
        yield Finding(
            "agents", Health.NOTED, "they are off: nobody watches running pods",
            "set agent.enabled in the chart's values",
        )  # fmt: skip
        return
    silent = sorted(
        node
        for node in nodes
        if (at := leases.get(node)) is None or now - at > timedelta(seconds=2 * SILENT_SECONDS)
    )
    ahead = sorted(node for node, at in leases.items() if at is not None and at - now > _APART)
    if silent:
        yield Finding(
            "agents", Health.WRONG, f"silent on nodes with sealed pods: {some(silent)}",
            f"kubectl get pods -n {settings.agent_namespace} -o wide",
        )  # fmt: skip
    if ahead:
        yield Finding(
            "clocks", Health.WRONG, f"more than a minute ahead of the API server: {some(ahead)}",
            "set those nodes' clocks: findings and records have their times",
        )  # fmt: skip
    if not silent and not ahead:
        yield Finding("agents", Health.GOOD, f"heard of on {len(nodes)} nodes with sealed pods")


async def _asking(kube: Kube, settings: Settings) -> set[str]:
    """Namespaces with pods that ask for GPUs."""
    found: set[str] = set()
    async for pod in listed(kube, path_of("v1", "pods")):
        if asked(pod, settings.gpus):
            found.add(str(json_object(pod.get("metadata")).get("namespace")))
    return found


def _renewed(lease: JsonObject) -> datetime | None:
    at = json_object(lease.get("spec")).get("renewTime")
    try:
        return datetime.fromisoformat(at) if isinstance(at, str) else None
    except ValueError:
        return None
