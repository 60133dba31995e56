"""Exceptions proposed from what was found on a run, never wider than their directory. Pure.

A run that was attacked teaches its attacks. So nothing is proposed that a person's session did,
that the controller does not believe, or that is `Critical`, unless that id is asked for. What
remains is grouped by finding id, program and directory; the laws, which a test holds:

1. Every proposed exception covers each finding that it was made from.
2. What it covers beyond them lies below the group's common directory and in no signed place.
3. Wildcards stand only for what was seen more than a few times, and not where programs and
   libraries live (``SYSTEM``) or in a mount that the pods only read.

Whether an exception is harmless a person decides: the reason says where it was learnt, and asks.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from trainseal.api.findings import FindingId
from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.api.policy import DriftException
from trainseal.cli.driftview import Found, RunFindings
from trainseal.cli.terminaltext import plain
from trainseal.cli.wording import counted
from trainseal.provenance.drift import PatternError, path_pattern

#: Paths that are listed one by one before a wildcard stands for them.
FEW = 3
#: What the kind holds: patterns of an exception, exceptions of a policy, characters of a pattern.
MOST_PATHS, MOST_EXCEPTIONS, LONGEST = 32, 64, 512
#: Where images have their programs and libraries.
SYSTEM = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/opt", "/proc", "/run",
          "/sbin", "/sys", "/usr")  # fmt: skip
#: Names in a shallow directory begin alike where this many characters are the same.
_FIXED = 3
Parts = tuple[str, ...]
_Sequence = TypeVar("_Sequence", str, Parts)


@dataclass(frozen=True, slots=True)
class Proposed:
    """An exception, and what it was made from: findings of one program below ``directory``."""

    exception: DriftException
    directory: str
    found: tuple[Found, ...]


@dataclass(frozen=True, slots=True)
class Left:
    """Findings of one id that no exception is proposed for, and why."""

    finding: str
    why: str
    count: int
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Proposal:
    """What is proposed, and what is left to a person."""

    proposed: tuple[Proposed, ...]
    left: tuple[Left, ...]


def propose(view: RunFindings, also: Collection[str] = ()) -> Proposal:
    """Exceptions for the run's findings; ``also``: ids of `Critical` ones that are asked for."""
    signed = signed_places(view.seal)
    groups: dict[tuple[FindingId, str | None], dict[Parts, list[Found]]] = defaultdict(
        lambda: defaultdict(list)
    )
    left: dict[tuple[str, str], list[Found]] = defaultdict(list)
    for item in view.found:
        if why := _unproposable(item, also):
            left[item.finding.id, why].append(item)
        else:
            key = FindingId(item.finding.id), _program(item)
            groups[key][_parts(str(item.finding.path))].append(item)
    proposed: list[Proposed] = []
    for (id_, program), paths in sorted(groups.items(), key=lambda g: (g[0][0], g[0][1] or "")):
        for directory, members in _clusters(sorted(paths)):
            found = tuple(item for parts in members for item in paths[parts])
            patterns = _patterns(directory, members, signed)
            if len(patterns) > MOST_PATHS:
                left[id_, _too_many(directory)].extend(found)
            elif len(proposed) == MOST_EXCEPTIONS:
                left[id_, f"a policy holds no more than {MOST_EXCEPTIONS} exceptions"].extend(found)
            else:
                made = _exception(view, id_, program, directory, patterns, len(found))
                proposed.append(Proposed(made, _text(directory), found))
    return Proposal(tuple(proposed), tuple(_left(left)))


def signed_places(seal: JsonObject) -> tuple[str, ...]:
    """Where the seal's pods have what they only read: code, config and data."""
    places = [
        str(mount.get("mountPath")).rstrip("/")
        for role in json_objects(json_object(seal.get("spec")).get("roles"))
        for container in json_objects(_pod(role).get("containers"))
        for mount in json_objects(container.get("volumeMounts"))
        if mount.get("readOnly") is True
    ]
    return tuple(sorted(set(places)))


def _pod(role: JsonObject) -> JsonObject:
    return json_object(json_object(role.get("template")).get("spec"))


# What may be proposed -----------------------------------------------------------------------------


def _unproposable(item: Found, also: Collection[str]) -> str:
    """Why no exception is proposed for it; empty where one may be."""
    found, kind = item.finding, item.kind
    if item.reporter != "Agent":
        return "the controller found it, and exceptions are for what agents find"
    if kind is None:
        return "this version does not know it; use a newer `trainseal`"
    if not item.counts:
        return "the controller does not believe its report, or not yet"
    if found.user or found.access_record:
        return "a person's session did it"
    if kind.severity == "Critical" and found.id not in also:
        return f"it is Critical; `--also {found.id}` proposes it all the same"
    if found.path is None:
        return "it names no file, and an exception without a path covers all of its kind"
    for what, text in (("path", found.path), ("program", _program(item))):
        if text is not None and not _is_literal(text):
            return f"its {what} cannot stand in a pattern: too long, or not plain text"
    return ""


def _program(item: Found) -> str | None:
    processes = item.finding.processes
    return processes[0].executable if processes else None


def _is_literal(text: str) -> bool:
    """Whether the text, as a pattern, means itself. Reports cut and escape what is odd."""
    if len(text) > LONGEST - len("/**") or "*" in text or "\\" in text or not text.isprintable():
        return False
    try:
        path_pattern(text)
    except PatternError:
        return False
    return True


# Groups and their patterns ------------------------------------------------------------------------


def _parts(path: str) -> Parts:
    return tuple(path.split("/")[1:])


def _text(parts: Sequence[str]) -> str:
    return "/" + "/".join(parts)


def _is_shallow(directory: Parts) -> bool:
    """Whether all sorts of things lie below it, such as ``/tmp`` or somebody's home."""
    return len(directory) < (3 if directory[:1] == ("home",) else 2)


def _clusters(paths: Sequence[Parts]) -> Iterator[tuple[Parts, list[Parts]]]:
    """Directories, each with the paths below it. What lies in a shallow one is kept apart by name,
    but for many names that begin alike.
    """
    directory = paths[0][: alike_for([p[:-1] for p in paths])]
    if not _is_shallow(directory):
        yield directory, list(paths)
        return
    depth = len(directory)
    here = [p for p in paths if len(p) == depth + 1]
    for alike in _alike(here, depth) if len(here) > FEW else [here] if here else []:
        yield directory, alike
    for alike in _alike([p for p in paths if len(p) > depth + 1], depth):
        by_child: dict[str, list[Parts]] = defaultdict(list)
        for path in alike:
            by_child[path[depth]].append(path)
        if len(by_child) > FEW:
            yield directory, alike
        else:
            for children in by_child.values():
                yield from _clusters(children)


def _alike(paths: Sequence[Parts], depth: int) -> list[list[Parts]]:
    """The paths whose names at this depth begin alike, together."""
    found: dict[str, list[Parts]] = defaultdict(list)
    for path in paths:
        found[path[depth][:_FIXED]].append(path)
    return list(found.values())


def _patterns(directory: Parts, members: Sequence[Parts], signed: Sequence[str]) -> list[str]:
    """Patterns that cover the members: one by one, or all by a wildcard."""
    each = [_text(p) for p in members]
    if len(members) <= FEW or _is_signed(_text(directory), signed):
        return each
    depth = len(directory)
    flat = all(len(p) == depth + 1 for p in members)
    name = _name(sorted({p[depth] for p in members}))
    if flat:
        return [_text([*directory, name])]
    # In a shallow one they begin alike, or are few.
    return [_text([*directory, name, "**"] if _is_shallow(directory) else [*directory, "**"])]


def _name(names: Sequence[str]) -> str:
    """A pattern of all these names: how they begin and end."""
    start = names[0][: alike_for(names)]
    rests = [name[len(start) :] for name in names]
    end = rests[0][::-1][: alike_for([rest[::-1] for rest in rests])][::-1]
    return f"{start}*{end}"


def alike_for(items: Sequence[_Sequence]) -> int:
    """How long all of them begin alike: what the first and the last in order share, all share."""
    first, last = min(items), max(items)
    shared = zip(first, last, strict=False)
    return next((n for n, (one, other) in enumerate(shared) if one != other), len(first))


def _is_signed(directory: str, signed: Sequence[str]) -> bool:
    """Whether something below the directory may be signed, or it lies in what is."""
    here = directory.rstrip("/") + "/"
    return any(
        here.startswith(f"{place}/") or f"{place}/".startswith(here) for place in (*SYSTEM, *signed)
    )


def _too_many(directory: Parts) -> str:
    return (
        f"more than {MOST_PATHS} files below {_text(directory)}, where no wildcard is proposed; "
        "give the job a scratch mount for them, or build them into the image"
    )


def _exception(
    view: RunFindings,
    id_: FindingId,
    program: str | None,
    directory: Parts,
    patterns: list[str],
    count: int,
) -> DriftException:
    seal = json_object(view.seal.get("metadata")).get("name")
    mark = hashlib.sha256(repr((id_.value, program, patterns)).encode()).hexdigest()[:8]
    slug = re.sub(r"[^a-z0-9]+", "-", f"{id_.value}-{'-'.join(directory)}".lower()).strip("-")
    times = counted(count, "finding")
    by = "" if program else ", program not known: any is covered"
    return DriftException(
        name=f"learnt-{slug[:40].strip('-')}-{mark}",
        reason=f"WRITE HERE why it is harmless ({times} on {view.namespace}/{seal}{by})"[:256],
        findings=[id_],
        paths=patterns,
        executables=[program] if program else None,
    )


def _left(left: dict[tuple[str, str], list[Found]]) -> Iterator[Left]:
    for (finding, why), items in sorted(left.items()):
        paths = Counter(str(i.finding.path) for i in items if i.finding.path is not None)
        yield Left(finding, why, len(items), tuple(sorted(paths)))


# Shown --------------------------------------------------------------------------------------------


def as_json(view: RunFindings, proposal: Proposal) -> JsonObject:
    """For programs."""
    return {
        "namespace": view.namespace,
        "job": view.job,
        "sealedRun": json_object(view.seal.get("metadata")).get("name"),
        "exceptions": [p.exception.wire() for p in proposal.proposed],
        "left": [
            {"finding": x.finding, "why": x.why, "count": x.count, "paths": [*x.paths]}
            for x in proposal.left
        ],
        "dropped": view.dropped,
        "notRead": list(view.unread),
    }


def as_yaml(view: RunFindings, proposal: Proposal) -> Iterator[str]:
    """For people, line by line: a list to be put into ``spec.drift.exceptions``, and comments."""
    import yaml

    seal = json_object(view.seal.get("metadata")).get("name")
    covered = sum(len(p.found) for p in proposal.proposed)
    yield f"# For spec.drift.exceptions of a ProvenancePolicy, learnt from {view.namespace}/{seal}:"
    made = counted(len(proposal.proposed), "exception")
    yield f"# {made} for {covered} of {counted(len(view.found), 'finding')}."
    yield "# Nothing is in force before who may change policies has applied it. Read each path,"
    yield "# write into each reason why it is harmless, and leave out what you cannot explain."
    if any(f.finding.severity == "Critical" for f in view.found):
        yield "# This run has critical findings: what came with them is no honest run's."
    exceptions = [p.exception.wire() for p in proposal.proposed]
    yield from yaml.safe_dump(
        exceptions, sort_keys=False, allow_unicode=True, width=10_000
    ).splitlines()
    if proposal.left:
        yield "# Not proposed:"
    for item in proposal.left:
        yield f"# - {plain(item.finding)} ({item.count}): {plain(item.why)}"
        yield from (f"#     {plain(path)}" for path in item.paths[:FEW])
        if len(item.paths) > FEW:
            yield f"#     and {len(item.paths) - FEW} more"
    if view.dropped:
        yield f"# {view.dropped} more findings were counted and are not listed."
    yield from (f"# not read: {plain(words)}" for words in view.unread)
