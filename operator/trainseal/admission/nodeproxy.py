"""Through a node's proxy into containers: past the pods' own doors, and on record with who it was.

Who has ``nodes/proxy`` reaches every path of a kubelet by the API server: metrics, which monitoring
reads, and also those that run commands in containers, which no admission of pods ever hears of.
The chart's match condition leaves out the paths that only read; the rest is recorded here, in the
release's namespace, and refused where a policy that enforces does not let everybody exec. Which pod
it leads to the path alone says, and a kubelet takes many forms of it: so it is not asked whether
that pod is sealed. Who has this right runs the nodes.

What is not promised: the same credential is good for the kubelet's own port, if it can be reached,
and nothing of that passes here.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import Counter

from trainseal.admission.accessrequests import Thing, record_of, slot_of
from trainseal.admission.recording import place_of, put_on_record
from trainseal.admission.reviews import ALLOWED, TRY_AGAIN, Request, Response, deny
from trainseal.api.model import JsonObject
from trainseal.cluster.api import Kube, KubeError
from trainseal.provenance.policies import CompiledPolicy
from trainseal.verifier.policystore import BrokenPolicy

_log = logging.getLogger(__name__)
_FAILED = Counter(
    "trainseal_node_proxies_unrecorded_total",
    "Requests through a node's proxy that could not be recorded, and were refused.",
)
_CALL_SECONDS = 2.0
_PATH = 1024


@dataclass(frozen=True, slots=True)
class NodeContext:
    """What is known, as of now. ``policies`` are all of the cluster; ``home`` is our namespace."""

    policies: Callable[[], tuple[CompiledPolicy, ...]]
    broken: Callable[[], tuple[BrokenPolicy, ...]]
    home: str
    now: Callable[[], datetime]


def judge(request: Request, context: NodeContext) -> Response:
    """Pure. Yes; yes with a warning, where policies that say no only audit; or no, and by whom."""
    denying = [p for p in context.policies() if p.access.answers["Exec"] != "Record"]
    words = (
        f"the proxy of node {_node(request)} to {_path(request):.300} by {request.username!r:.300}"
    )
    why = [
        f"of ProvenancePolicy {p.name}, access.exec is {p.access.answers['Exec']}" for p in denying
    ]
    if any(p.mode == "Enforce" for p in denying):
        enforcing = [w for p, w in zip(denying, why, strict=True) if p.mode == "Enforce"]
        return _denied(words, "; ".join(enforcing))
    # A policy that cannot be used may be one that denies.
    if broken := context.broken():
        return _denied(
            words, f"ProvenancePolicy {broken[0].name} cannot be used: {broken[0].why:.300}"
        )
    if why:
        told = f"would be denied under Enforce: {words}: {'; '.join(why)}"
        return Response(True, warnings=(told,))
    return ALLOWED


def _denied(words: str, why: str) -> Response:
    return deny(
        f"{words} is denied, as it leads into containers past the pods' own doors: {why}; found a "
        "path that does more than read, expected /metrics, /stats, /pods, /logs and the like; "
        "`kubectl exec` asks those policies about one pod"
    )


def record(request: Request, answer: Response, home: str, now: datetime) -> JsonObject:
    """The AccessRecord; the same within ten minutes for the same user, node, path and answer."""
    path = _path(request)
    spec: JsonObject = {
        "action": "NodeProxy",
        "allowed": answer.allowed,
        "message": answer.message or next(iter(answer.warnings), "past the pods' own doors"),
        "path": path[:_PATH],
    }
    same = (slot_of(now), request.username, request.user_uid, path, str(answer.allowed))
    cut = ["path"] if len(path) > _PATH else []
    return record_of(request, Thing("Node", _node(request), ""), home, spec, {}, now, same, cut)


class NodeProxies:
    """Answers what is asked at /record-node-proxy."""

    def __init__(self, kube: Kube, context: NodeContext) -> None:
        self._kube = kube
        self._context = context

    async def answer(self, request: Request) -> Response:
        """What was judged, once it is on record; no, where what would pass cannot be recorded."""
        answer = judge(request, self._context)
        home = self._context.home
        made = record(request, answer, home, self._context.now())
        try:
            await put_on_record(self._kube, made, _CALL_SECONDS)
        except (KubeError, TimeoutError) as error:
            _FAILED.inc()
            why = str(error) or "no answer in time"
            _log.error("the proxy of node %s by %.300r: %s", _node(request), request.username, why)
            if not answer.allowed:
                return answer
            return deny(
                f"the proxy of node {_node(request)} by {request.username!r:.300} is denied because"
                f" it could not be recorded: {why:.500}; try again, and if it lasts look whether "
                f"namespace {home} is being deleted",
                TRY_AGAIN,
            )
        return dataclasses.replace(answer, audit={"access-record": place_of(made)})


def _node(request: Request) -> str:
    """In ``NAME``, ``NAME:PORT`` or ``SCHEME:NAME:PORT``."""
    parts = request.name.split(":")
    name = parts[1] if len(parts) == 3 else parts[0]
    return name[:253].strip("-.") or "unnamed"


def _path(request: Request) -> str:
    return "/" + str(request.object.get("path") or "").lstrip("/")
