"""The findings on one run: looked up, and shown as a timeline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from trainseal.api.driftreport import PLURAL, DriftReport, Finding
from trainseal.api.findings import FINDINGS, FindingId, FindingKind
from trainseal.api.model import (
    API_VERSION,
    InvalidObjectError,
    JsonObject,
    json_object,
    metadata_name,
)
from trainseal.cli.clusters import no_run, runs_of
from trainseal.cli.failures import DONE, REFUTED, UNDETERMINED, Failure
from trainseal.cli.terminaltext import plain
from trainseal.cluster.api import Kube, KubeError, path_of
from trainseal.cluster.listing import listed
from trainseal.provenance.keyrings import rfc3339

_RESPONSES = {
    "Freeze": "frozen",
    "Suspend": "held",
    "Quarantine": "quarantined",
    "Terminate": "terminated",
}
#: What an event tells is as old at most.
_AT_ONCE = timedelta(seconds=2)
_COLORS = {"Critical": "red", "Warning": "yellow", "Info": "cyan"}


@dataclass(frozen=True, slots=True)
class Found:
    """A finding with the report it stands in. ``counts`` is false where the controller has not
    seen the report's pod run on the report's node.
    """

    report: str
    reporter: str
    pod: str
    node: str
    finding: Finding
    counts: bool

    @property
    def kind(self) -> FindingKind | None:
        """What the id stands for; None for one that this program does not know."""
        return next((FINDINGS[i] for i in FindingId if i == self.finding.id), None)


@dataclass(frozen=True, slots=True)
class RunFindings:
    """A run and what was found on it, in order of time. ``unread`` says what cannot be shown."""

    namespace: str
    job: str
    seal: JsonObject
    found: tuple[Found, ...]
    dropped: int
    evidence_dropped: int
    unread: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 nothing above Info, 1 something, 2 not everything could be read."""
        if any(f.finding.severity != "Info" for f in self.found):
            return REFUTED
        return UNDETERMINED if self.unread or self.dropped else DONE

    @property
    def status(self) -> JsonObject:
        """The seal's status."""
        return json_object(self.seal.get("status"))


async def look(kube: Kube, namespace: str, job: str, seal: str | None = None) -> RunFindings:
    """The findings on a job's last run, or on the named one. Raises Failure."""
    try:
        runs = await runs_of(kube, namespace, job, seal)
        if not runs:
            raise no_run(namespace, job, seal)
        run = runs[-1]
        name = metadata_name(run)
        reports = [
            item
            async for item in listed(kube, path_of(API_VERSION, PLURAL, namespace))
            if json_object(item.get("spec")).get("sealedRun") == name
        ]
    except KubeError as error:
        raise Failure(
            f"the findings could not be read: {error.message or error.reason}",
            expected="the rights to list sealedruns and driftreports, which `view` has",
            remedy="ask for them, or look whether `kubectl version` gets an answer",
            code=UNDETERMINED,
        ) from None
    believed = json_object(run.get("status")).get("reports")
    known = set(believed) if isinstance(believed, list) else set()
    found: list[Found] = []
    unread: list[str] = []
    dropped = evidence_dropped = 0
    for item in reports:
        try:
            report = DriftReport.parse(item)
        except InvalidObjectError as error:
            unread.append(plain(str(error)))
            continue
        pod, status = report.spec.pod, report.status
        dropped += (status.dropped if status else 0) or 0
        evidence_dropped += (status.evidence_dropped if status else 0) or 0
        found += [
            Found(
                report=report.metadata.name,
                reporter=report.spec.reporter,
                pod=pod.name if pod else "",
                node=report.spec.node or "",
                finding=finding,
                counts=report.spec.reporter == "Controller" or report.metadata.uid in known,
            )
            for finding in (status.findings if status else None) or ()
        ]
    found.sort(key=lambda f: (f.finding.first_time, f.report, f.finding.key))
    return RunFindings(namespace, job, run, tuple(found), dropped, evidence_dropped, tuple(unread))


def print_json(view: RunFindings) -> None:
    """For programs, on stdout."""
    value: JsonObject = {
        "namespace": view.namespace,
        "job": view.job,
        "sealedRun": json_object(view.seal.get("metadata")).get("name"),
        "run": json_object(view.seal.get("spec")).get("run"),
        "summary": view.status.get("drift"),
        "hold": view.status.get("hold"),
        "lifted": view.status.get("lifted"),
        "findings": [
            {
                **f.finding.wire(),
                "title": f.kind.title if f.kind else None,
                "report": f.report,
                "reporter": f.reporter,
                "pod": f.pod or None,
                "node": f.node or None,
                "counts": f.counts,
            }
            for f in view.found
        ],
        "dropped": view.dropped,
        "evidenceDropped": view.evidence_dropped,
        "notRead": list(view.unread),
    }
    print(json.dumps(value, indent=2, ensure_ascii=False))  # noqa: T201


def print_text(view: RunFindings) -> None:
    """For people, on stdout."""
    Console(highlight=False, soft_wrap=True).print(render(view))


def print_kinds(*, as_json: bool) -> None:
    """The findings there are."""
    if as_json:
        value = {
            i.value: {
                "severity": k.severity,
                "title": k.title,
                "meaning": k.meaning,
                "evidence": k.evidence,
                "remedy": k.remedy,
                "references": list(k.references),
            }
            for i, k in FINDINGS.items()
        }
        print(json.dumps(value, indent=2, ensure_ascii=False))  # noqa: T201
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("finding", "severity", "meaning"):
        table.add_column(title, overflow="fold")
    for i, kind in FINDINGS.items():
        table.add_row(i.value, Text(kind.severity, _COLORS[kind.severity]), kind.title)
    Console(highlight=False).print(table)


def render(view: RunFindings) -> RenderableType:
    """The whole view: head, hold, timeline."""
    metadata, spec = json_object(view.seal.get("metadata")), json_object(view.seal.get("spec"))
    head = Text(f"{view.namespace}/{view.job} ", "bold")
    head.append(f"run {spec.get('run', '?')}, seal {metadata.get('name')}", "dim")
    parts: list[RenderableType] = [head, *_hold(view)]
    if not view.found:
        parts.append(Text("  nothing was found", "green"))
    parts += [Group(*_finding(f)) for f in view.found]
    if view.dropped:
        parts.append(Text(f"{view.dropped} more findings were counted and are not listed", "red"))
    if view.evidence_dropped:
        words = "findings have no evidence kept: there was no room for more, or it was refused"
        parts.append(Text(f"{view.evidence_dropped} {words}", "yellow"))
    if any(f.finding.evidence_item for f in view.found):
        words = "shows what was kept of a finding: the file, who acted, what they had mapped"
        parts.append(Text(f"`trainseal evidence show NAME -n {view.namespace}` {words}", "dim"))
    parts += [Text(f"not shown: {words}", "dim") for words in view.unread]
    return Group(*parts)


def _hold(view: RunFindings) -> Iterator[Text]:
    hold, lifted = json_object(view.status.get("hold")), json_object(view.status.get("lifted"))
    if hold:
        response = _RESPONSES.get(str(hold.get("response")), "held")
        yield Text(
            f"  {response} since {hold.get('since')}: {plain(str(hold.get('message')))}", "red"
        )
        if waiting := hold.get("waiting"):
            yield Text(f"  not lifted: {plain(str(waiting))}", "yellow")
        elif hold.get("response") != "Terminate":
            yield Text(f"  `trainseal thaw {view.job}` lets it go on", "dim")
    if lifted:
        yield Text(
            f"  a hold was lifted at {lifted.get('time')} by {plain(str(lifted.get('user')))}: "
            f"{plain(str(lifted.get('reason')))}",
            "dim",
        )


def _finding(item: Found) -> Iterator[RenderableType]:
    found = item.finding
    head = Text(f"{found.first_time.isoformat().replace('+00:00', 'Z')}  ")
    head.append(f"{found.severity:<8}  ", f"bold {_COLORS[found.severity]}")
    head.append(found.id, "bold")
    if item.kind:
        head.append(f"  {item.kind.title}")
    if found.count > 1:
        head.append(f"  seen {found.count} times, last {found.last_time:%H:%M:%S}", "dim")
    yield head
    for label, value in _facts(item):
        yield Text(f"    {label:<8} {value}")
    if not item.counts:
        yield Text(
            "    it does not count, or not yet: nobody but its report says that the pod ran there",
            "yellow",
        )
    if found.difference:
        yield from (_difference(line) for line in plain(found.difference, lines=True).splitlines())


def _facts(item: Found) -> Iterator[tuple[str, str]]:
    found = item.finding
    if item.pod:
        where = f"{item.pod}/{plain(found.container)}" if found.container else item.pod
        yield "pod", f"{where} on {item.node}" if item.node else where
    if found.path:
        yield "path", plain(found.path)
    if found.user:
        record = f" ({found.access_record})" if found.access_record else ""
        yield "by", plain(found.user) + record
    if found.processes:
        yield (
            "process",
            " ← ".join(
                f"{plain(' '.join(p.command) if p.command else p.executable)} [{p.pid}]"
                for p in found.processes
            ),
        )
    yield "what", plain(found.message)
    if found.not_before and found.first_time - found.not_before > _AT_ONCE:
        yield "when", f"after {rfc3339(found.not_before)}: it was not so yet then"
    for name, value in sorted((found.evidence or {}).items()):
        if name != "occasion" and value:
            yield plain(name), plain(value)
    if found.evidence_item:
        yield "evidence", found.evidence_item


def _difference(line: str) -> Text:
    color = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "dim")
    return Text(f"      {line}", color)
