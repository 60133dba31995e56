"""What every bench of admission stands on: an API server, TrainSeal's keys, its processes.

etcd, API server, webhook, registry and load share the machine. The rules by which the API server
asks a webhook are the chart's own, match conditions too, sent to a port of this machine.
"""

from __future__ import annotations

import asyncio
import base64
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from bench.load import ApiClient
from bench.processes import Measured
from bench.sealed import NAMESPACE
from bench.section import Section
from tests.cluster import Cluster, tools
from tests.cluster.pins import API_ONLY
from tests.cluster.ports import free_port, free_ports
from tests.stage.release import CHART
from tests.stage.release import NAMESPACE as SYSTEM
from trainseal.cluster.api import Kube, connect, path_of
from trainseal.cluster.keys import ensure_in_keyring, ensure_private_key
from trainseal.cluster.settings import SEAL_KEY_SECRET, TICKET_KEY_SECRET, TLS_SECRET
from trainseal.controller.certificate_rotation import ServingCertificate, issue
from trainseal.provenance.keys import PrivateKey

Object = dict[str, Any]

_ROOT = Path(__file__).parents[1]
_ADMISSION = "admissionregistration.k8s.io/v1"
_CONFIGURATIONS = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")
_WAITS = 600
_DIGEST = "sha256:" + "ab" * 32
#: What the controller gives runs as their gate.
GATE_IMAGE = f"registry.example/trainseal@{_DIGEST}"


def on_api_server(measuring: Callable[[Cluster], Coroutine[None, None, Section]]) -> Section:
    """Measures on an API server that is started for it, and is gone afterwards."""
    cluster = Cluster.up("bench-api", api_only=True)
    try:
        return asyncio.run(measuring(cluster))
    finally:
        cluster.down()


@dataclass(frozen=True, slots=True)
class Served:
    """A webhook's process and its port; ``health`` is that of /readyz, 0 where it has none."""

    process: Measured
    port: int
    health: int = 0


@dataclass(frozen=True, slots=True)
class Rig:
    """An API server with the CRDs, a team's namespace, and TrainSeal's keys and certificate."""

    cluster: Cluster
    kube: Kube
    client: ApiClient
    folder: Path
    certificate: ServingCertificate
    seal_key: PrivateKey
    cluster_uid: str
    stack: ExitStack

    def yes_only(self) -> Served:
        """A webhook that only says yes."""
        pair = self.folder / "pair.pem"
        pair.write_bytes(self.certificate.certificate + self.certificate.private_key)
        port = free_port()
        argv = [sys.executable, "-m", "bench.yes", str(pair), str(port)]
        return Served(self._started("yes", argv), port)

    def webhook(self, registry: str = "", log: str = "webhook") -> Served:
        """`trainseal webhook`, which reads from that registry by plain HTTP."""
        port, health = free_ports(2)
        argv = self._trainseal("webhook", registry, health, "--port", str(port))
        return Served(self._started(log, argv), port, health)

    def controller(self, registry: str = "") -> Measured:
        """`trainseal controller`, likewise."""
        return self._started("controller", self._trainseal("controller", registry, free_port()))

    async def ask(self, served: Served | None, *names: str) -> None:
        """Sends the chart's webhooks of these names to one process, or nothing to anybody.

        The API server learns of it a moment later: wait with `until`.
        """
        for kind in ("mutating", "validating"):
            await self.kube.delete(
                path_of(_ADMISSION, f"{kind}webhookconfigurations", None, "bench")
            )
        if served is None:
            return
        for configuration in chart_rules(self.cluster):
            webhooks = [w for w in configuration["webhooks"] if w["name"] in names]
            if not webhooks:
                continue
            for webhook in webhooks:
                path = webhook["clientConfig"]["service"]["path"]
                webhook["clientConfig"] = {
                    "url": f"https://localhost:{served.port}{path}",
                    "caBundle": base64.b64encode(self.certificate.authority).decode(),
                }
            metadata: Object = {"name": "bench"}
            plural = f"{configuration['kind'].lower()}s"
            await self.kube.create(
                path_of(_ADMISSION, plural),
                {**configuration, "metadata": metadata, "webhooks": webhooks},
            )

    def _trainseal(self, command: str, registry: str, health: int, *flags: str) -> list[str]:
        config = self.folder / f"{command}.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "registries": {"plainHTTP": [registry] if registry else []},
                    "gateImage": GATE_IMAGE,
                    "manageCertificates": False,
                }
            )
        )
        argv = [sys.executable, "-m", "trainseal.cli.main", command, "--namespace", SYSTEM]
        argv += ["--config", str(config), "--kubeconfig", str(self.cluster.kubeconfig)]
        return [*argv, "--metrics-port", str(health), *flags]

    def _started(self, name: str, argv: list[str]) -> Measured:
        return self.stack.enter_context(Measured(argv, self.folder / f"{name}.log"))


@asynccontextmanager
async def rig(cluster: Cluster) -> AsyncIterator[Rig]:
    """Prepares an API server that was just brought up; ends the processes with the block."""
    cluster.tools = tools((*API_ONLY, "cosign", "helm", "registry"))
    for path in sorted((_ROOT / "crds").glob("*.yaml")):
        cluster.kubectl("apply", "--server-side", "-f", str(path))
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    for namespace in (NAMESPACE, SYSTEM):
        cluster.kubectl("create", "namespace", namespace)
    certificate = issue(["localhost"], datetime.now(UTC))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        async with (
            connect(str(cluster.kubeconfig)) as kube,
            ApiClient(cluster.kubeconfig) as client,
        ):
            seal_key = await _keys(kube, certificate)
            system: Object = await kube.get(path_of("v1", "namespaces", None, "kube-system"))
            uid = system["metadata"]["uid"]
            found = Rig(cluster, kube, client, Path(folder), certificate, seal_key, uid, stack)
            yield found


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Waits, half a minute at most."""
    for _ in range(_WAITS):
        if await condition():
            return
        await asyncio.sleep(0.05)
    raise RuntimeError(f"not within {_WAITS * 0.05:.0f} s: {what}")


def chart_rules(cluster: Cluster) -> list[Object]:
    """The webhook configurations as Helm renders them."""
    flags = ("--namespace", SYSTEM, "--set", f"image.reference=registry.example/t@{_DIGEST}")
    text = cluster.helm(
        "template", "trainseal", str(CHART), *flags, "--show-only", "templates/webhooks.yaml"
    )
    return [obj for obj in yaml.safe_load_all(text) if obj]


async def _keys(kube: Kube, certificate: ServingCertificate) -> PrivateKey:
    """What the controller and the chart would have made; returns the seal key."""
    seal_key = await ensure_private_key(kube, SYSTEM, SEAL_KEY_SECRET)
    ticket_key = await ensure_private_key(kube, SYSTEM, TICKET_KEY_SECRET)
    now = datetime.now(UTC)
    await ensure_in_keyring(kube, SYSTEM, {"seal": seal_key, "ticket": ticket_key}, now)
    await kube.create(
        path_of("v1", "secrets", SYSTEM),
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": TLS_SECRET},
            "type": "kubernetes.io/tls",
            "data": {
                "tls.crt": base64.b64encode(certificate.certificate).decode(),
                "tls.key": base64.b64encode(certificate.private_key).decode(),
            },
        },
    )
    return seal_key
