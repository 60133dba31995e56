"""``trainseal webhook``: answers the API server, until told to stop; then drains."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from trainseal.admission.access import AccessContext, AccessRecorder
from trainseal.admission.lanebook import LaneBook
from trainseal.admission.lanepods import Images, LanePods
from trainseal.admission.networks import NetworkContext, Networks
from trainseal.admission.nodeproxy import NodeContext, NodeProxies
from trainseal.admission.ownkinds import validate_evidence, validate_policy
from trainseal.admission.pods import PodRulesContext, decide
from trainseal.admission.policyrecords import PolicyRecords
from trainseal.admission.reviews import ALLOWED, TRY_AGAIN, Request, Response, deny
from trainseal.admission.server import Answer, application
from trainseal.admission.state import State
from trainseal.admission.trainingjobs import (
    JobContext,
    in_turn,
    stamp,
    validate,
    validate_template,
)
from trainseal.admission.turns import Turns
from trainseal.admission.waysin import WaysIn
from trainseal.admission.witness import Witness
from trainseal.cluster.api import Kube, connect, path_of
from trainseal.cluster.health import health
from trainseal.cluster.settings import Settings, load_settings
from trainseal.provenance.selectors import Selector
from trainseal.registry.client import RegistryClient
from trainseal.registry.credentials import default_config_file, from_file
from trainseal.registry.transport import Options as RegistryOptions
from trainseal.verifier.artifacts import ArtifactVerifier
from trainseal.verifier.jobs import JobVerifier
from trainseal.verifier.storedtemplates import stored_template

_log = logging.getLogger(__name__)
#: Requests under way when the drain begins have this long.
_DRAIN_SECONDS = 16.0
#: Until the template that a job names has been read.
_TEMPLATE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line gives."""

    namespace: str
    config: Path
    tls_secret: str = "trainseal-webhook-tls"  # noqa: S105 - a name, no secret
    port: int = 8443
    metrics_port: int = 8080
    kubeconfig: str | None = None


async def serve(options: Options) -> int:
    """Runs until SIGTERM or SIGINT, then finishes what is under way."""
    # Judging a job keeps a thread busy: it has to give way at once to whoever asks about a pod.
    sys.setswitchinterval(0.0005)
    settings = load_settings(options.config)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    registry_options = RegistryOptions(
        plain_http=frozenset(settings.registries.plain_http),
        ca_file=Path(settings.registries.ca_file) if settings.registries.ca_file else None,
    )
    credentials = from_file(default_config_file())
    async with (
        connect(options.kubeconfig) as kube,
        RegistryClient(registry_options, credentials) as registry,
    ):
        cluster = await _cluster_uid(kube)
        state = State(kube, options.namespace, options.tls_secret, cluster, _now)
        images = Images(registry, ArtifactVerifier(registry, time.monotonic))
        answers = _answers(options, settings, state, images, cluster, kube)
        async with contextlib.AsyncExitStack() as stack:
            watching = asyncio.ensure_future(state.run())
            stack.callback(watching.cancel)
            await stack.enter_async_context(health(options.metrics_port, state.missing))
            app = application(answers, state.missing, settings.documentation_url)
            await _listen(stack, app, options.port, state)
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                stopping.cancel()
                watching.result()
            _log.info("draining")
            state.draining = True
    return 0


async def _listen(
    stack: contextlib.AsyncExitStack, app: web.Application, port: int, state: State
) -> None:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_DRAIN_SECONDS)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, port=port, ssl_context=state.tls, backlog=1024).start()


def _answers(
    options: Options,
    settings: Settings,
    state: State,
    images: Images,
    cluster: str,
    kube: Kube,
) -> dict[str, Answer]:
    """What is asked at each path; the chart's webhook configurations name the same paths."""
    jobs = JobContext(
        cluster=cluster,
        verifier=JobVerifier(images.verifier, _now),
        policies=state.policies.for_namespace,
        broken=lambda: state.policies.broken,
        runs=state.seals.runs,
        sealed=state.seals.knows,
        tickets=lambda: state.tickets,
        deadline=settings.webhook_deadline_seconds,
        turns=Turns(),
        now=_now,
        template=lambda obj: stored_template(kube, obj, seconds=_TEMPLATE_SECONDS),
        engines=settings.engines.enabled,
    )
    excluded = frozenset({*settings.excluded_namespaces, options.namespace})
    ways_in = WaysIn(
        policies=state.policies.for_namespace,
        broken=lambda: state.policies.broken,
        permits=state.permits.of,
        excluded_namespaces=excluded,
        now=_now,
    )
    pods = PodRulesContext(
        gpus=settings.gpus,
        find=state.seals.find,
        policies=state.policies.for_namespace,
        broken=lambda: state.policies.broken,
        pod_creators=frozenset(settings.pod_creators),
        excluded_namespaces=excluded,
        ways_in=ways_in,
        mounting=state.seals.mounting,
        pod_makers=settings.engines.pod_makers,
    )
    account = f"system:serviceaccount:{options.namespace}:trainseal-"
    agent = frozenset({f"system:serviceaccount:{settings.agent_namespace}:trainseal-agent"})
    writers = {
        "sealedruns": frozenset({f"{account}controller"}),
        "runstatements": frozenset({f"{account}controller"}),
        "accessrecords": frozenset({f"{account}webhook"}),
        "driftreports": agent,
        "evidenceitems": agent,
        "checkpoints": agent,
    }

    accesses = AccessRecorder(
        kube,
        AccessContext(
            find=state.seals.find,
            look=state.look,
            may_hold=state.seals.may_hold,
            live=state.seals.live,
            mounting=state.seals.mounting,
            reached_by=lambda namespace, selector: _reached_by(state, namespace, selector),
            final=lambda request: decide(request, pods, final=True),
            home=options.namespace,
            ways_in=ways_in,
            now=_now,
            has_lanes=lambda namespace: bool(pods.lanes(namespace)),
        ),
    )
    lanes = LanePods(
        pods,
        images,
        LaneBook(kube, options.namespace, settings.is_gpu, time.time),
        lambda: "" if state.draining else state.missing(),
    )

    async def mutate_training_job(request: Request) -> Response:
        key = state.ticket_key
        if key is None:
            return deny(
                "TrainSeal's webhook has no ticket key yet; try again in a moment", TRY_AGAIN
            )
        policies = jobs.policies(request.namespace)
        return await in_turn(
            request, jobs, lambda offline: offline(lambda: stamp(request, key, policies, _now()))
        )

    async def validate_training_job(request: Request) -> Response:
        if waits := _not_yet(state):
            return waits
        return await in_turn(request, jobs, lambda offline: validate(request, jobs, offline))

    async def validate_training_template(request: Request) -> Response:
        return _not_yet(state) or await in_turn(
            request, jobs, lambda offline: validate_template(request, jobs, offline)
        )

    async def validate_pod(request: Request) -> Response:
        return await state.bindings.judge(request, pods)

    changes = PolicyRecords(kube, options.namespace, _now)

    async def validate_policies(request: Request) -> Response:
        decided = validate_policy(request, state.policies.trust_roots)
        return await changes.answer(request, decided)

    async def validate_seal(request: Request) -> Response:
        return validate_evidence(request, writers)

    async def record_access(request: Request) -> Response:
        return _not_yet(state) or await accesses.answer(request)

    witness = Witness(kube, pods, _now)

    async def look_on(request: Request) -> Response:
        # It is no gate: what it does not know yet it does not hold up.
        return ALLOWED if state.missing() else await witness.answer(request)

    return {
        "/witness": look_on,
        "/mutate-trainingjob": mutate_training_job,
        "/mutate-lane": lanes.mutate,
        "/validate-lane": lanes.validate,
        "/validate-trainingjob": validate_training_job,
        "/validate-trainingtemplate": validate_training_template,
        "/validate-pod": validate_pod,
        "/validate-policy": validate_policies,
        "/validate-seal": validate_seal,
        "/record-access": record_access,
        **_network_answers(options, state, kube, excluded),
    }


def _network_answers(
    options: Options, state: State, kube: Kube, excluded: frozenset[str]
) -> dict[str, Answer]:
    """What leads to a run's pods by the network, and into containers by a node's proxy."""
    networks = Networks(
        kube,
        NetworkContext(
            policies=state.policies.for_namespace,
            broken=lambda: state.policies.broken,
            reached_by=lambda namespace, selector: _reached_by(state, namespace, selector),
            live=state.seals.live,
            excluded_namespaces=excluded,
            now=_now,
        ),
    )
    node_proxies = NodeProxies(
        kube,
        NodeContext(
            policies=lambda: state.policies.policies,
            broken=lambda: state.policies.broken,
            home=options.namespace,
            now=_now,
        ),
    )

    async def validate_network(request: Request) -> Response:
        # A Service is never held up: it is on record, no more.
        if request.resource == "services" and state.missing():
            return ALLOWED
        return _not_yet(state) or await networks.answer(request)

    async def record_node_proxy(request: Request) -> Response:
        return _not_yet(state) or await node_proxies.answer(request)

    return {"/validate-network": validate_network, "/record-node-proxy": record_node_proxy}


def _reached_by(state: State, namespace: str, selector: Selector) -> list[str]:
    """Seals of the runs whose pods a selector may choose, also by labels that platforms add."""
    added = (p.additions.labels for p in state.policies.for_namespace(namespace))
    return state.seals.reached_by(namespace, selector, frozenset().union(*added))


def _not_yet(state: State) -> Response | None:
    missing = state.missing()
    if missing and not state.draining:
        return deny(f"TrainSeal's webhook is starting and waits for {missing}", TRY_AGAIN)
    return None


async def _cluster_uid(kube: Kube) -> str:
    """The UID of kube-system, by which a cluster is known."""
    namespace = await kube.get(path_of("v1", "namespaces", None, "kube-system"))
    metadata = namespace.get("metadata")
    return str(metadata["uid"]) if isinstance(metadata, dict) else ""


def _now() -> datetime:
    return datetime.now(UTC)
