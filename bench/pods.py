"""How much a sealed GPU pod's admission costs, beside a webhook that only says yes.

API server, etcd, webhook and load share the machine. Each round measures no webhook, the yes-only
webhook and TrainSeal's in turn, so that their ratios are of one run. Pods are created as the Job
controller would, as server-side dry runs: nothing is stored, and admission runs in full.
"""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.figures import Figure, ratio
from bench.load import ApiClient
from bench.processes import Measured
from bench.sealed import NAMESPACE, Object, bare_pod, encode, seal
from tests.cluster import Cluster
from trainseal.cluster.api import Kube, connect, path_of
from trainseal.cluster.keys import ensure_in_keyring, ensure_private_key
from trainseal.cluster.settings import SEAL_KEY_SECRET, TICKET_KEY_SECRET, TLS_SECRET
from trainseal.controller.certificate_rotation import ServingCertificate, issue

SYSTEM = "trainseal-system"
CREATOR = {
    "Impersonate-User": "system:serviceaccount:kube-system:job-controller",
    "Impersonate-Group": "system:masters",
}
PATH = f"/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All"
CONCURRENCIES = (1, 20, 100)
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Round:
    """One configuration, measured once."""

    rate: float
    median_ms: float
    cpu_per_1000: float


def run(rounds: int, count: int) -> None:
    """Measures and prints."""
    cluster = Cluster.up("bench", api_only=True)
    try:
        asyncio.run(_run(cluster, rounds, count))
    finally:
        cluster.down()


async def _run(cluster: Cluster, rounds: int, count: int) -> None:
    for path in sorted((_ROOT / "crds").glob("*.yaml")):
        cluster.kubectl("apply", "--server-side", "-f", str(path))
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    for namespace in (NAMESPACE, SYSTEM):
        cluster.kubectl("create", "namespace", namespace)
    certificate = issue(["localhost"], datetime.now(UTC))
    ports = {"yes": _free_port(), "trainseal": _free_port()}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        pair = folder / "pair.pem"
        pair.write_bytes(certificate.certificate + certificate.private_key)
        async with connect(str(cluster.kubeconfig)) as kube:
            pod = await _prepare(kube, certificate)
            config = folder / "config.yaml"
            config.write_text("{}\n")
            processes = {
                "yes": stack.enter_context(
                    Measured(
                        [sys.executable, "-m", "bench.yes", str(pair), str(ports["yes"])],
                        folder / "yes.log",
                    )
                ),
                "trainseal": stack.enter_context(
                    Measured(
                        [
                            sys.executable, "-m", "trainseal.cli.main", "webhook",
                            "--namespace", SYSTEM, "--config", str(config),
                            "--port", str(ports["trainseal"]),
                            "--metrics-port", str(_free_port()),
                            "--kubeconfig", str(cluster.kubeconfig),
                        ],
                        folder / "trainseal.log",
                    )
                ),
            }  # fmt: skip
            async with ApiClient(cluster.kubeconfig) as client:
                await _measure(kube, client, pod, certificate, ports, processes, rounds, count)


async def _prepare(kube: Kube, certificate: ServingCertificate) -> Object:
    """Keys, keyring, certificate, and a bound seal; returns its pod."""
    seal_key = await ensure_private_key(kube, SYSTEM, SEAL_KEY_SECRET)
    ticket_key = await ensure_private_key(kube, SYSTEM, TICKET_KEY_SECRET)
    now = datetime.now(UTC)
    await ensure_in_keyring(kube, SYSTEM, {"seal": seal_key, "ticket": ticket_key}, now)
    encoded = {
        "tls.crt": base64.b64encode(certificate.certificate).decode(),
        "tls.key": base64.b64encode(certificate.private_key).decode(),
    }
    await kube.create(
        path_of("v1", "secrets", SYSTEM),
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": TLS_SECRET},
            "type": "kubernetes.io/tls",
            "data": encoded,
        },
    )
    system = await kube.get(path_of("v1", "namespaces", None, "kube-system"))
    return await seal(kube, seal_key, system["metadata"]["uid"])  # type: ignore[index,call-overload]


async def _measure(
    kube: Kube,
    client: ApiClient,
    pod: Object,
    certificate: ServingCertificate,
    ports: dict[str, int],
    processes: dict[str, Measured],
    rounds: int,
    count: int,
) -> None:
    body = encode(pod)
    found: dict[tuple[str, int], list[Round]] = defaultdict(list)
    for number in range(rounds + 1):
        for which in ("none", "yes", "trainseal"):
            await _switch(kube, client, certificate, ports, which)
            for concurrency in CONCURRENCIES:
                requests = count // 4 if concurrency == 1 else count
                process = processes.get(which)
                before = process.cpu() if process else 0.0
                measured = await client.load(
                    PATH, lambda _: body, CREATOR, count=requests, concurrency=concurrency
                )
                spent = (process.cpu() if process else 0.0) - before
                if number:  # the first round warms up
                    found[which, concurrency].append(
                        Round(measured.rate, measured.median * 1000, spent * 1000 / requests)
                    )
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
    _report(found, processes, len(body))


def _report(
    found: dict[tuple[str, int], list[Round]], processes: dict[str, Measured], size: int
) -> None:
    print(f"Admission of a sealed GPU pod ({size} bytes), on {os.cpu_count()} processors")
    print("medians (minimum to maximum) over rounds\n")
    for concurrency in CONCURRENCIES:
        print(f"concurrency {concurrency}")
        for which in ("none", "yes", "trainseal"):
            rows = found[which, concurrency]
            rate = Figure(tuple(r.rate for r in rows)).text(0)
            median = Figure(tuple(r.median_ms for r in rows)).text(2)
            cpu = Figure(tuple(r.cpu_per_1000 for r in rows)).text(2)
            tail = "" if which == "none" else f"  CPU s per 1,000: {cpu}"
            print(f"  {which:10} {rate:>28} /s  {median:>24} ms{tail}")
        ours, theirs = found["trainseal", concurrency], found["yes", concurrency]
        share = ratio([r.rate for r in ours], [r.rate for r in theirs])
        more = Figure(tuple(a.median_ms - b.median_ms for a, b in zip(ours, theirs, strict=True)))
        print(f"  trainseal / yes: {share.text()} of its rate, {more.text()} ms more at the median")
    print(f"\nresident memory of the webhook: {processes['trainseal'].memory():.0f} MiB")


async def _switch(
    kube: Kube,
    client: ApiClient,
    certificate: ServingCertificate,
    ports: dict[str, int],
    which: str,
) -> None:
    """Makes the API server ask one webhook, or none, and waits until it does."""
    collection = path_of("admissionregistration.k8s.io/v1", "validatingwebhookconfigurations")
    await kube.delete(f"{collection}/bench")
    if which != "none":
        await kube.create(
            collection,
            {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "ValidatingWebhookConfiguration",
                "metadata": {"name": "bench"},
                "webhooks": [_webhook(certificate, ports[which])],
            },
        )
    words = {"none": b'"kind":"Pod"', "yes": b"yes-only", "trainseal": b"sealed run"}[which]
    for _ in range(600):
        _, answer = await client.post(PATH, encode(bare_pod()), CREATOR)
        if words in answer:
            return
        await asyncio.sleep(0.05)
    raise RuntimeError(f"{which} is not asked: {answer[:400]!r}")


def _webhook(certificate: ServingCertificate, port: int) -> Object:
    return {
        "name": "pods.bench.trainseal.dev",
        "clientConfig": {
            "url": f"https://localhost:{port}/validate-pod",
            "caBundle": base64.b64encode(certificate.authority).decode(),
        },
        "rules": [
            {
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "resources": ["pods"],
                "operations": ["CREATE", "UPDATE"],
            }
        ],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}},
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "timeoutSeconds": 5,
        "admissionReviewVersions": ["v1"],
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
