"""BreakGlasses of a job's runs: made, listed, reviewed."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainseal.api.breakglass import PLURAL, BreakGlass
from trainseal.api.model import (
    API_VERSION,
    InvalidObjectError,
    JsonObject,
    json_object,
    metadata_name,
)
from trainseal.api.sealedrun import BrokenGlass, SealedRunStatus
from trainseal.cli.caller import caller, may_not_create
from trainseal.cli.clusters import no_run, runs_of
from trainseal.cli.failures import DONE, REFUTED, UNDETERMINED, Failure
from trainseal.cli.releases import PAUSE, ask
from trainseal.cli.statusview import job_of
from trainseal.cli.terminaltext import plain
from trainseal.cluster.api import Kube, KubeError, path_of
from trainseal.cluster.listing import listed
from trainseal.provenance.keyrings import rfc3339

_REASON = 1024


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for; ``user`` is None for who asks, ``ways`` empty for all."""

    span: timedelta
    user: str | None
    ways: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Made:
    """A BreakGlass as it is stored."""

    job: str
    obj: JsonObject

    def words(self) -> str:
        """For people."""
        glass = BreakGlass.parse(self.obj)
        spec, metadata = glass.spec, glass.metadata
        ways = ", ".join(spec.ways) if spec.ways else "every way that needs it"
        where = f"the pods of {metadata.namespace}/{self.job}, by {ways}"
        until = f"{spec.not_after:%Y-%m-%d %H:%M:%S} UTC"
        lines = [
            f"{plain(spec.user)} may get into {where}, until {until}: BreakGlass {metadata.name}",
            "Each use is on record, and taints the run until somebody else has reviewed it:",
            f"    trainseal break-glass review {self.job} -n {metadata.namespace} --reason TEXT",
        ]
        if spec.user == spec.approved_by:
            lines.append(
                "You approved it for yourself: it counts only where the policy's "
                "access.breakGlass.selfApproval names you."
            )
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Item:
    """One BreakGlass; ``waits`` is what was done by it and waits for review."""

    glass: BreakGlass
    valid: bool
    waits: BrokenGlass | None


@dataclass(frozen=True, slots=True)
class Listed:
    """Those of a job's runs, the oldest first. ``gone`` wait for review and are not there.

    ``seals`` has the run of each that waits, by its name.
    """

    namespace: str
    job: str
    items: tuple[Item, ...]
    gone: tuple[BrokenGlass, ...]
    unread: tuple[str, ...]
    seals: Mapping[str, str]

    @property
    def waiting(self) -> tuple[BrokenGlass, ...]:
        """What is to be reviewed."""
        return (*(i.waits for i in self.items if i.waits), *self.gone)

    @property
    def exit_code(self) -> int:
        """0 nothing waits; 1 something does; 2 some could not be read."""
        if self.waiting:
            return REFUTED
        return UNDETERMINED if self.unread else DONE


async def make(kube: Kube, namespace: str, job: str, wanted: Wanted) -> Made:
    """Creates one, in the caller's name. Raises Failure where it may not."""
    found = await job_of(kube, namespace, job)
    seal = json_object(found.get("status")).get("sealedRun")
    if not isinstance(seal, str):
        raise Failure(
            f"{namespace}/{job} has no sealed run",
            expected="a job that runs",
            remedy=f"`trainseal status {job}` says what it waits for",
            code=REFUTED,
        )
    who = await caller(kube)
    until = rfc3339((who.now + wanted.span).replace(microsecond=0))
    spec: JsonObject = {
        "sealedRun": seal,
        "user": wanted.user or who.user,
        "reason": wanted.reason[:_REASON],
        "notAfter": until,
        "approvedBy": who.user,
    }
    if wanted.ways:
        spec["ways"] = [*wanted.ways]
    mark = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:12]
    body: JsonObject = {
        "apiVersion": API_VERSION,
        "kind": "BreakGlass",
        "metadata": {"name": f"{seal[:240].rstrip('-.')}-{mark}", "namespace": namespace},
        "spec": spec,
    }
    try:
        made = await kube.create(path_of(API_VERSION, PLURAL, namespace), body, strict=True)
    except KubeError as error:
        remedy = "ask somebody who has it: the chart's role trainseal-approver gives it"
        raise may_not_create(error, "BreakGlasses", namespace, remedy) from None
    return Made(job, made)


async def look(kube: Kube, namespace: str, job: str) -> Listed:
    """Those of a job's runs. Raises Failure."""
    try:
        runs = await runs_of(kube, namespace, job)
        names = {metadata_name(run) for run in runs}
        objects = [
            item
            async for item in listed(kube, path_of(API_VERSION, PLURAL, namespace))
            if json_object(item.get("spec")).get("sealedRun") in names
        ]
        now = (await caller(kube)).now
    except KubeError as error:
        raise Failure(
            f"the BreakGlasses could not be read: {error.message or error.reason}",
            expected="the rights to list sealedruns and breakglasses, which `view` has",
            remedy="ask for them, or look whether `kubectl version` gets an answer",
            code=UNDETERMINED,
        ) from None
    if not runs:
        raise no_run(namespace, job, None)
    waiting = {glass.name: glass for run in runs for glass in _waiting(run)}
    seals = {glass.name: metadata_name(run) for run in runs for glass in _waiting(run)}
    items: list[Item] = []
    unread: list[str] = []
    for obj in objects:
        try:
            glass = BreakGlass.parse(obj)
        except InvalidObjectError as error:
            unread.append(plain(str(error)))
            continue
        waits = waiting.pop(glass.metadata.name, None)
        items.append(Item(glass, now < glass.spec.not_after, waits))
    items.sort(key=lambda i: (i.glass.spec.not_after, i.glass.metadata.name))
    return Listed(namespace, job, tuple(items), tuple(waiting.values()), tuple(unread), seals)


def _waiting(run: JsonObject) -> list[BrokenGlass]:
    given = json_object(run.get("status")).get("brokenGlass")
    return SealedRunStatus.model_validate({"brokenGlass": given}).broken_glass or []


async def review(
    kube: Kube, namespace: str, job: str, names: Collection[str], reason: str, wait: float
) -> None:
    """Reviews what waits now. Raises Failure where it does not go."""
    found = await look(kube, namespace, job)
    asked = [glass for glass in found.waiting if not names or glass.name in names]
    if missing := set(names) - {glass.name for glass in asked}:
        raise Failure(
            f"{', '.join(sorted(missing))}: nothing done by it waits for review",
            expected=f"names of what waits: {', '.join(g.name for g in found.waiting) or 'none'}",
            remedy=f"`trainseal break-glass list {job}` shows them",
            code=REFUTED,
        )
    if not asked:
        print(f"{namespace}/{job}: nothing waits for review")  # noqa: T201
        return
    user = (await caller(kube)).user
    if own := [glass.name for glass in asked if glass.user == user]:
        raise Failure(
            f"{plain(user)} got in by {', '.join(own)}",
            expected="a review by somebody else",
            remedy="ask somebody with the role trainseal-responder",
            code=REFUTED,
        )
    for glass in asked:
        print(f"{glass.name}: {plain(glass.user)}, last at {glass.last_use:%Y-%m-%d %H:%M:%S} UTC")  # noqa: T201
        seal = found.seals[glass.name]
        mark = hashlib.sha256(f"{glass.name}/{glass.last_use}".encode()).hexdigest()[:16]
        release: JsonObject = {"sealedRun": seal, "breakGlass": glass.name}
        await ask(kube, namespace, user, f"{seal[:200]}-glass-{mark}", release, reason)
    wanted = {glass.name for glass in asked}
    for _ in range(max(1, round(wait / PAUSE))):
        left = [g for g in (await look(kube, namespace, job)).waiting if g.name in wanted]
        if not left:
            print(f"{namespace}/{job}: reviewed")  # noqa: T201
            return
        before = {glass.name: glass.last_use for glass in asked}
        if again := [g.name for g in left if g.last_use > before[g.name]]:
            raise Failure(
                f"{', '.join(again)} was used again meanwhile",
                remedy="look at it and review it again",
                code=REFUTED,
            )
        await asyncio.sleep(PAUSE)
    raise Failure(
        f"the release was made, and it waits still after {wait:.0f} s",
        remedy="look whether TrainSeal's controller runs: `trainseal doctor`",
        code=UNDETERMINED,
    )


def print_json(found: Listed) -> None:
    """For programs, on stdout."""
    value: JsonObject = {
        "namespace": found.namespace,
        "job": found.job,
        "breakGlasses": [
            {
                "name": item.glass.metadata.name,
                **item.glass.spec.wire(),
                "valid": item.valid,
                "waits": item.waits.wire() if item.waits else None,
            }
            for item in found.items
        ],
        "gone": [glass.wire() for glass in found.gone],
        "notRead": list(found.unread),
    }
    print(json.dumps(value, indent=2, ensure_ascii=False))  # noqa: T201


def print_text(found: Listed) -> None:
    """For people, on stdout."""
    console = Console(highlight=False, soft_wrap=True)
    if not found.items and not found.gone:
        console.print(Text(f"{found.namespace}/{found.job}: nobody was let in by a BreakGlass"))
    for item in found.items:
        spec = item.glass.spec
        ways = ", ".join(spec.ways) if spec.ways else "every way that needs it"
        state = "valid until" if item.valid else "over since"
        head = f"{item.glass.metadata.name}: {plain(spec.user)}, {state} "
        console.print(Text(head + f"{spec.not_after:%Y-%m-%d %H:%M:%S} UTC", style="bold"))
        lines = Table.grid(padding=(0, 1))
        for name, value in (
            ("approved by", spec.approved_by),
            ("reason", spec.reason),
            ("ways", ways),
            ("review", _review_words(item.waits)),
        ):
            lines.add_row(Text(f"    {name}"), Text(plain(value)))
        console.print(lines)
    for glass in found.gone:
        console.print(Text(f"{glass.name}: {plain(glass.user)}; it is gone", style="bold"))
        console.print(Text(f"    review {_review_words(glass)}"))
    for words in found.unread:
        console.print(Text(f"not read: {words}"))
    if found.waiting:
        again = f"trainseal break-glass review {found.job} -n {found.namespace} --reason TEXT"
        console.print(Text(f"\nSomebody else than who got in reviews it: {again}"))


def _review_words(waits: BrokenGlass | None) -> str:
    if waits is None:
        return "nothing waits for it"
    return f"waits: used from {waits.since:%Y-%m-%d %H:%M:%S} to {waits.last_use:%H:%M:%S} UTC"
