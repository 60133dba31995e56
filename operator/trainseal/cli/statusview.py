"""One job with its seal and its pods: looked up, and shown."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import JsonValue
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from trainseal.api.model import API_VERSION, JsonObject, json_object, json_objects, metadata_name
from trainseal.cli.clusters import SEALS, follow, job_path, phase_of
from trainseal.cli.failures import DONE, REFUTED, Failure
from trainseal.cli.sealtrust import SealTrust, seal_trust
from trainseal.cluster.api import Kube, KubeError, NotFoundError, path_of
from trainseal.engines.podtemplate import GATE_CONTAINER, LABEL_SEAL
from trainseal.provenance.memberships import in_words, members_of

MOST_PODS = 16
ENDED = frozenset({"Succeeded", "Failed"})
_COLORS = {
    "Pending": "yellow", "Refused": "red", "Sealed": "cyan", "Running": "green",
    "Suspended": "yellow", "Succeeded": "green", "Failed": "red",
}  # fmt: skip
_MARKS = {"verified": ("✓", "green"), "refuted": ("✗", "red"), "undetermined": ("?", "yellow")}


@dataclass(frozen=True, slots=True)
class Pod:
    """One of the run's pods. ``gate`` is what its gate said, where it refused."""

    name: str
    phase: str
    reason: str
    node: str
    gate: str


@dataclass(frozen=True, slots=True)
class JobView:
    """A job, its seal and its pods. ``unseen`` says what could not be looked at.

    ``sealed``: what the seal says; nothing where there is none, or one that is not the operator's.
    """

    namespace: str
    name: str
    job: JsonObject
    seal: JsonObject | None
    trust: SealTrust | None
    pods: tuple[Pod, ...]
    unseen: tuple[str, ...]

    @property
    def sealed(self) -> JsonObject:
        if self.seal is None or (self.trust is not None and self.trust.outcome == "refuted"):
            return {}
        return json_object(self.seal.get("spec"))

    @property
    def exit_code(self) -> int:
        return REFUTED if self.trust is not None and self.trust.outcome == "refuted" else DONE

    @property
    def phase(self) -> str:
        return phase_of(self.job)

    @property
    def status(self) -> JsonObject:
        return json_object(self.job.get("status"))


async def look(kube: Kube, namespace: str, name: str, release_namespace: str) -> JobView:
    """The job as it is now. Raises Failure where there is none."""
    job = await job_of(kube, namespace, name)
    return await _around(kube, namespace, name, job, release_namespace)


async def watch(kube: Kube, namespace: str, name: str, release_namespace: str) -> int:
    """Shows the job anew at each change until its run has ended; the exit code."""
    console = Console(highlight=False, soft_wrap=True)
    shown = ""
    with _live(console) as live:
        try:
            async with contextlib.aclosing(follow(kube, namespace, name)) as states:
                async for job in states:
                    view = await _around(kube, namespace, name, job, release_namespace)
                    if live is not None:
                        live.update(render(view), refresh=True)
                    elif (line := one_line(view.job)) != shown:
                        console.print(shown := line)
                    if view.phase in ENDED:
                        return view.exit_code
        except NotFoundError as error:
            raise no_job(namespace, name, error) from None
    return DONE


def one_line(job: JsonObject) -> str:
    """``Running: 2/2 workers ready``, for logs."""
    message = json_object(job.get("status")).get("message")
    return f"{phase_of(job)}: {message}" if message else phase_of(job)


def print_text(view: JobView) -> None:
    """For people, on stdout."""
    Console(highlight=False, soft_wrap=True).print(render(view))


def print_json(view: JobView) -> None:
    """For programs, on stdout."""
    sealed = view.sealed
    value: JsonObject = {
        "namespace": view.namespace,
        "name": view.name,
        "phase": view.phase,
        **{k: v for k, v in view.status.items() if k != "phase"},
        "policies": sealed.get("policies"),
        "requestTime": json_object(sealed.get("requester")).get("time"),
        "epochs": _epochs(view),
        "artifacts": _artifacts(view),
        "seal": {"outcome": view.trust.outcome, "message": view.trust.message}
        if view.trust
        else None,
        "pods": [
            {"name": p.name, "phase": p.phase, "reason": p.reason, "node": p.node, "gate": p.gate}
            for p in view.pods
        ],
        "notSeen": list(view.unseen),
    }
    print(json.dumps(value, indent=2, ensure_ascii=False))  # noqa: T201


def render(view: JobView) -> RenderableType:
    """The whole view: head, what was verified, who, what runs."""
    status = view.status
    head = Text(f"{view.namespace}/{view.name} ", "bold")
    head.append(view.phase, f"bold {_COLORS.get(view.phase, '')}".strip())
    parts: list[RenderableType] = [head]
    if message := str(status.get("message") or ""):
        parts.append(Text(f"  {message.strip()}".replace("\n", "\n  ")))
    if view.trust is not None and view.trust.outcome == "refuted":
        words = (
            f"  ✗ the seal is not TrainSeal's: {view.trust.message}; what it says is not shown. "
        )
        parts.append(Text(f"{words}Tell the platform team", "red"))
    parts += [Text(f"  {label:<10} {value}") for label, value in _facts(view)]
    if artifacts := _artifacts(view):
        parts.append(Text("verified", "bold"))
        parts += [_artifact(json_object(a)) for a in artifacts]
    if view.pods:
        parts.append(Text("pods", "bold"))
        parts.append(_pods(view.pods))
    parts += [Text(f"not shown: {words}", "dim") for words in view.unseen]
    return Group(*parts)


def _facts(view: JobView) -> Iterator[tuple[str, str]]:
    status = view.status
    sealed = view.sealed
    requester = json_object(sealed.get("requester"))
    if digest := status.get("jobDigest"):
        yield "digest", str(digest)
    if signers := status.get("signers"):
        yield "signed by", str(signers)
    if asked := requester.get("username") or status.get("requester"):
        time = requester.get("time")
        yield "asked by", f"{asked} at {time}" if time else str(asked)
    if seal := status.get("sealedRun"):
        yield "seal", f"{seal} (run {status.get('run', '?')} of this digest){_trusted(view.trust)}"
    policies = sealed.get("policies")
    if isinstance(policies, list) and policies:
        yield (
            "policy",
            ", ".join(
                f"{json_object(p).get('name')} ({json_object(p).get('mode')})" for p in policies
            ),
        )
    for role in json_objects(status.get("roles")):
        counts = [f"{role.get('ready', 0)}/{role.get('replicas', '?')} ready"]
        counts += [f"{role[k]} {k}" for k in ("succeeded", "failed") if role.get(k)]
        yield f"role {role.get('name')}", ", ".join(counts)
    if members := _members(view):
        yield "members", members
    if drifted := status.get("drifted"):
        yield "drift", f"{drifted}: `trainseal drift {view.name}` shows them"
    for label, field in (("started", "startTime"), ("ended", "completionTime")):
        if time := status.get(field):
            yield label, str(time)


def _members(view: JobView) -> str:
    """Who belongs to an elastic run now: ``3 worker (epoch 2, since …, chosen by …)``."""
    epochs = json_objects(_epochs(view))
    if not epochs:
        return ""
    last = epochs[-1]
    by = f", chosen by {last['user']}" if last.get("user") else ""
    members = in_words(members_of(last.get("members")))
    return f"{members} (epoch {last.get('number')}, since {last.get('since')}{by})"


def _epochs(view: JobView) -> JsonValue:
    """The memberships of an elastic run; None of any other, or where the seal is not trusted."""
    return json_object((view.seal or {}).get("status")).get("epochs") if view.sealed else None


def _trusted(trust: SealTrust | None) -> str:
    if trust is None:
        return ""
    words = {
        "verified": "its signature verified",
        "refuted": "not trusted",
        "unverified": f"unverified: {trust.message}",
    }
    return f", {words[trust.outcome]}"


def _artifacts(view: JobView) -> list[JsonValue]:
    """What the seal says was verified; before there is one, what the controller said."""
    source = view.sealed if view.seal else view.status
    found = source.get("artifacts")
    return list(found) if isinstance(found, list) else []


def _artifact(artifact: JsonObject) -> Text:
    mark, color = _MARKS.get(str(artifact.get("outcome")), ("?", ""))
    text = Text(f"  {mark} ", color)
    text.append(f"{artifact.get('artifact')} {artifact.get('name')} ")
    persons = [
        f"{s.get('person')}" + (f" at {s['signedAt']}" if s.get("signedAt") else "")
        for s in json_objects(artifact.get("signers"))
    ]
    if artifact.get("outcome") == "verified":
        text.append(f"signed by {', '.join(persons)}" if persons else "verified", "green")
        text.append(f"\n      {artifact.get('subject')}", "dim")
    else:
        text.append(str(artifact.get("message")))
    return text


def _pods(pods: tuple[Pod, ...]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for pod in pods:
        words = " ".join(filter(None, [pod.reason, pod.gate]))
        table.add_row(Text(f"  {pod.name}"), Text(pod.phase), Text(pod.node), Text(words))
    return table


async def _around(
    kube: Kube, namespace: str, name: str, job: JsonObject, release_namespace: str
) -> JobView:
    unseen: list[str] = []
    status = json_object(job.get("status"))
    seal_name = status.get("sealedRun")
    seal: JsonObject | None = None
    trust: SealTrust | None = None
    pods: tuple[Pod, ...] = ()
    if isinstance(seal_name, str):
        found, listed = await asyncio.gather(
            kube.get(path_of(API_VERSION, SEALS, namespace, seal_name)),
            kube.request(
                "GET",
                path_of("v1", "pods", namespace),
                query={"labelSelector": f"{LABEL_SEAL}={seal_name}", "limit": str(MOST_PODS)},
            ),
            return_exceptions=True,
        )
        for what, answer in (("the seal", found), ("the pods", listed)):
            if isinstance(answer, KubeError):
                unseen.append(f"{what}: {answer.message}")
            elif isinstance(answer, BaseException):
                raise answer
        if isinstance(found, dict):
            seal = found
            trust = await seal_trust(kube, release_namespace, job, seal)
        if isinstance(listed, dict):
            pods = tuple(_pod(item) for item in json_objects(listed.get("items")))
            if json_object(listed.get("metadata")).get("continue"):
                unseen.append(
                    f"more than {MOST_PODS} pods: kubectl get pods -l {LABEL_SEAL}={seal_name}"
                )
    return JobView(namespace, name, job, seal, trust, pods, tuple(unseen))


def _pod(pod: JsonObject) -> Pod:
    status = json_object(pod.get("status"))
    reason, gate = str(status.get("reason") or ""), ""
    for condition in json_objects(status.get("conditions")):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            reason = str(condition.get("message") or condition.get("reason"))
    kinds = ("initContainerStatuses", "containerStatuses")
    for container in [c for kind in kinds for c in json_objects(status.get(kind))]:
        state = json_object(container.get("state"))
        waiting, ended = json_object(state.get("waiting")), json_object(state.get("terminated"))
        if waiting and waiting.get("reason") not in ("PodInitializing", "ContainerCreating"):
            reason = f"{container.get('name')}: {waiting.get('reason')}"
        if ended.get("exitCode"):
            words = str(ended.get("message") or "").strip()
            if container.get("name") == GATE_CONTAINER:
                gate = f"gate: {words or ended.get('reason')}"
            else:
                reason = f"{container.get('name')}: {ended.get('reason')} ({ended['exitCode']})"
    return Pod(
        name=metadata_name(pod),
        phase=str(status.get("phase") or "Pending"),
        reason=reason,
        node=str(json_object(pod.get("spec")).get("nodeName") or ""),
        gate=gate,
    )


@contextlib.contextmanager
def _live(console: Console) -> Iterator[Live | None]:
    """A view that is painted over, on a terminal; None in a log."""
    if not console.is_terminal:
        yield None
        return
    with Live(console=console, auto_refresh=False) as live:
        yield live


async def job_of(kube: Kube, namespace: str, name: str) -> JsonObject:
    """A TrainingJob. Raises Failure where there is none, KubeError."""
    try:
        return await kube.get(job_path(namespace, name))
    except NotFoundError as error:
        raise no_job(namespace, name, error) from None


def no_job(namespace: str, name: str, error: NotFoundError) -> Failure:
    """Why a job was not found, in words."""
    if "could not find the requested resource" in error.message:
        return Failure(
            "the cluster does not know TrainingJobs",
            expected="TrainSeal, installed in it",
            remedy="`trainseal doctor` says what is missing",
            code=REFUTED,
        )
    return Failure(
        f"no TrainingJob {name} in namespace {namespace}",
        remedy="`kubectl get trainingjobs -A` lists them; -n NS names another namespace",
        code=REFUTED,
    )
