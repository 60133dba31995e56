"""Asking for the stacks of a run, and waiting until its nodes have answered."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from trainseal.api import stackdump, stackrequest
from trainseal.api.model import (
    API_VERSION,
    InvalidObjectError,
    JsonObject,
    json_object,
    json_objects,
)
from trainseal.api.stackdump import StackDump, StackDumpStatus
from trainseal.api.stackrequest import StackRequest
from trainseal.cli.caller import caller, may_not_create
from trainseal.cli.failures import DONE, UNDETERMINED, Failure
from trainseal.cli.stackgroups import Rank, ranges
from trainseal.cli.statusview import job_of
from trainseal.cli.terminaltext import plain
from trainseal.cluster.api import (
    ConflictError,
    GoneError,
    Kube,
    KubeError,
    NotFoundError,
    path_of,
)
from trainseal.cluster.listing import listed
from trainseal.engines.podtemplate import LABEL_ROLE, LABEL_SEAL
from trainseal.provenance.livepods import index_of

#: Name of the policy in the API server that looks at requests.
_GUARD = "trainseal-stack-requests"
_PAGE = 100
_PAUSE = 0.5
#: A minute may turn between two calls.
_ATTEMPTS = 3

#: Told how many ranks have answered, of how many.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of the run. ``phase`` is its own word."""

    rank: Rank
    name: str
    uid: str
    node: str
    phase: str

    @property
    def runs(self) -> bool:
        """Whether it has processes to look at."""
        return self.phase == "Running"


@dataclass(frozen=True, slots=True)
class RunStacks:
    """What the ranks of a run were doing. ``others`` do not run; ``why`` is for those that do and
    did not answer.
    """

    namespace: str
    job: str
    seal: str
    request: StackRequest
    answered: tuple[tuple[Pod, StackDumpStatus], ...]
    unanswered: tuple[Pod, ...]
    others: tuple[Pod, ...]
    why: str

    @property
    def exit_code(self) -> int:
        """0 there are stacks of every rank that runs, 2 there are not."""
        whole = all(any(p.threads for p in status.processes or ()) for _, status in self.answered)
        return DONE if self.answered and whole and not self.unanswered else UNDETERMINED


@dataclass(frozen=True, slots=True)
class Run:
    """A job's run and its pods."""

    namespace: str
    job: str
    seal: str
    pods: tuple[Pod, ...]


async def ask(
    kube: Kube,
    namespace: str,
    job: str,
    rank: str | None,
    wait: float,
    progress: Progress = lambda _answered, _wanted: None,
) -> RunStacks:
    """The stacks of a job's run, or of one rank of it. Raises Failure."""
    run = await _run(kube, namespace, job)
    wanted = _chosen(run, rank)
    request = await _request(kube, run)
    found: dict[str, StackDumpStatus] = {}
    running = {p.uid: p for p in wanted if p.runs}
    refused = ""
    progress(0, len(running))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait), contextlib.aclosing(_dumps(kube, run)) as dumps:
            async for dump in dumps:
                pod = running.get(dump.spec.pod.uid)
                if pod is None or not _answers(dump, run, request):
                    continue
                if dump.spec.node != pod.node:
                    refused = f"; node {dump.spec.node} spoke of a pod of node {pod.node}"
                elif dump.status is not None:
                    found[pod.uid] = dump.status
                    progress(len(found), len(running))
                if len(found) == len(running):
                    break
    return RunStacks(
        namespace=namespace,
        job=job,
        seal=run.seal,
        request=request,
        answered=tuple((p, found[u]) for u, p in running.items() if u in found),
        unanswered=tuple(p for u, p in running.items() if u not in found),
        others=tuple(p for p in wanted if not p.runs),
        why=f"no answer within {wait:.0f} s{refused}",
    )


async def _run(kube: Kube, namespace: str, job: str) -> Run:
    found = await job_of(kube, namespace, job)
    seal = json_object(found.get("status")).get("sealedRun")
    if not isinstance(seal, str):
        raise Failure(
            f"{namespace}/{job} has no run",
            expected="a job that was sealed",
            remedy=f"`trainseal status {job} -n {namespace}` says what it waits for",
            code=UNDETERMINED,
        )
    roles = [str(r.get("name")) for r in json_objects(json_object(found["spec"]).get("roles"))]
    path, query = path_of("v1", "pods", namespace), {"labelSelector": f"{LABEL_SEAL}={seal}"}
    pods = [_pod(item, roles) async for item in listed(kube, path, query, most=_PAGE)]
    run = Run(namespace, job, seal, tuple(sorted(pods, key=lambda p: (p.rank, p.name))))
    if not any(p.runs for p in run.pods):
        phases = sorted({p.phase for p in run.pods})
        raise Failure(
            f"no pod of {namespace}/{job} runs"
            + (f": found {len(run.pods)} that are {' or '.join(phases)}" if phases else ""),
            expected="running pods, which alone have stacks",
            remedy=f"`trainseal status {job} -n {namespace}` says where the job is",
            code=UNDETERMINED,
        )
    return run


def _pod(item: JsonObject, roles: Sequence[str]) -> Pod:
    metadata, spec = json_object(item.get("metadata")), json_object(item.get("spec"))
    role = str(json_object(metadata.get("labels")).get(LABEL_ROLE) or "")
    index = index_of(item)
    place = roles.index(role) if role in roles else len(roles)
    number = int(index) if index.isdecimal() else 0
    phase = str(json_object(item.get("status")).get("phase") or "Pending")
    return Pod(
        rank=Rank(place, number, role if len(roles) > 1 else ""),
        name=str(metadata.get("name")),
        uid=str(metadata.get("uid")),
        node=str(spec.get("nodeName") or ""),
        phase="Terminating" if "deletionTimestamp" in metadata and phase != "Running" else phase,
    )


def _chosen(run: Run, rank: str | None) -> list[Pod]:
    if rank is None:
        return list(run.pods)
    chosen = [p for p in run.pods if str(p.rank) == rank]
    if not any(p.runs for p in chosen):
        there = ranges(p.rank for p in run.pods if p.runs)
        raise Failure(
            f"no rank {plain(rank)} of {run.namespace}/{run.job} runs",
            expected=f"one of those that run: {there}",
            remedy="with several roles a rank is ROLE/INDEX",
        )
    return chosen


async def _request(kube: Kube, run: Run) -> StackRequest:
    """Made now, or by somebody else in the same minute."""
    collection = path_of(API_VERSION, stackrequest.PLURAL, run.namespace)
    for left in reversed(range(_ATTEMPTS)):
        who = await caller(kube)
        name = stackrequest.name_of(run.seal, who.now)
        body: JsonObject = {
            "apiVersion": API_VERSION,
            "kind": "StackRequest",
            "metadata": {"name": name, "namespace": run.namespace},
            "spec": {"sealedRun": run.seal, "user": who.user},
        }
        try:
            return StackRequest.parse(await kube.create(collection, body, strict=True))
        except ConflictError:
            return StackRequest.parse(await kube.get(f"{collection}/{name}"))
        except NotFoundError:
            raise Failure(
                "the cluster knows no StackRequests",
                expected="the kinds of this release of TrainSeal",
                remedy="upgrade the chart; `trainseal doctor` says what is missing",
                code=UNDETERMINED,
            ) from None
        except KubeError as error:
            if _GUARD in error.message and "expected the name" in error.message and left:
                continue
            remedy = "ask for the cluster's role edit, or the chart's role trainseal-debugger"
            raise may_not_create(error, "StackRequests", run.namespace, remedy) from None
    raise AssertionError("the last attempt returns or raises")


async def _dumps(kube: Kube, run: Run) -> AsyncGenerator[StackDump, None]:
    """Those of the run as they are, and as they change; for ever. Raises KubeError."""
    path = path_of(API_VERSION, stackdump.PLURAL, run.namespace)
    query = {"labelSelector": f"{LABEL_SEAL}={run.seal}"}
    while True:
        began = time.monotonic()
        try:
            version: list[str] = []
            async for item in listed(kube, path, query, most=_PAGE, versions=version):
                if (dump := _parsed(item)) is not None:
                    yield dump
            events = kube.watch(path, version[-1], query)
            async with contextlib.aclosing(events):
                async for kind, item in events:
                    if kind in ("ADDED", "MODIFIED") and (dump := _parsed(item)) is not None:
                        yield dump
        except GoneError:
            pass
        except KubeError as error:
            if error.status:
                raise
        await asyncio.sleep(max(0.0, _PAUSE - (time.monotonic() - began)))


def _parsed(item: JsonObject) -> StackDump | None:
    try:
        return StackDump.parse(item)
    except InvalidObjectError:
        return None  # it is no answer


def _answers(dump: StackDump, run: Run, request: StackRequest) -> bool:
    """Whether it was made for the request, or for a later one of the same run."""
    return (
        dump.status is not None
        and dump.spec.sealed_run == run.seal
        and dump.status.request.rpartition("-")[0] == run.seal
        and dump.status.request >= request.metadata.name
    )
