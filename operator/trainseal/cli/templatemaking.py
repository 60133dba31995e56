"""A TrainingTemplate made from a TrainingJob: the job as it stands, and what options leave open.

Nothing of the job is written otherwise than it was: what stands in it keeps its canonical form.
What the template's own rules refuse (``provenance.templates``) is refused with the option that it
comes from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from trainseal.api.model import (
    API_VERSION,
    InvalidObjectError,
    JsonObject,
    json_object,
    json_objects,
)
from trainseal.api.trainingtemplate import TrainingTemplate
from trainseal.cli.failures import Failure
from trainseal.cli.jobfiles import JobFile, canonical, whole_job
from trainseal.provenance.canonical import KIND, TEMPLATE_KIND, UNSIGNED_SPEC_FIELDS
from trainseal.provenance.document import FieldPath, value_at
from trainseal.provenance.templates import template_faults

_NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})")
_NUMBER_ALONE = re.compile(_NUMBER)
_LENGTH = re.compile(r"name:([1-9][0-9]{0,2})")
_COUNTS = re.compile(r"([1-9][0-9]{0,4})\.\.([1-9][0-9]{0,4})")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9:.]+(?:[Zz]|[+-][0-9]{2}:[0-9]{2})")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_PARAMETERS: FieldPath = ("spec", "config", "parameters")
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Opening:
    """What the options say: ``opened``, ``replicas`` and ``code`` as ``NAME=…`` texts."""

    name: str | None = None
    opened: Sequence[str] = ()
    replicas: Sequence[str] = ()
    code: Sequence[str] = ()
    users: Sequence[str] = ()
    groups: Sequence[str] = ()
    authorities: Sequence[str] = ()
    max_concurrent: int | None = None
    not_after: str | None = None


def template_from(job: JobFile, opening: Opening) -> JsonObject:
    """The unsigned template. Raises Failure."""
    manifest = job.manifest
    whole_job(job.job, manifest)
    spec = json_object(manifest.get("spec"))
    unsigned = UNSIGNED_SPEC_FIELDS[KIND]
    own = json_object(manifest.get("metadata"))
    name = opening.name or own.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Failure(
            f"{f'--name {name}' if opening.name else job.job.where(('metadata', 'name'))}: the name"
            f" {name!r:.70}",
            expected="a DNS label for the template: lower-case letters, digits and -",
            remedy="give --name NAME",
        )
    template: JsonObject = {
        "apiVersion": API_VERSION,
        "kind": TEMPLATE_KIND,
        "metadata": {"name": name, **{k: own[k] for k in ("namespace",) if own.get(k)}},
        "spec": {
            **_some("parameters", _parameters(job, spec, opening.opened)),
            **_some("replicas", _replicas(opening.replicas)),
            **_some("code", _code(job, spec, opening.code)),
            "launch": _launch(opening),
            "job": {key: value for key, value in spec.items() if key not in unsigned},
        },
    }
    _check(template)
    canonical(job.job, template, job.namespace)
    return template


def describe(template: JsonObject) -> list[str]:
    """What was left open, for who made it."""
    spec = json_object(template.get("spec"))
    lines = []
    for path, value in json_object(spec.get("parameters")).items():
        parameter = json_object(value)
        bounds = ""
        if "enum" in parameter:
            values = parameter["enum"]
            bounds = f": one of {', '.join(map(str, values if isinstance(values, list) else ()))}"
        elif "minimum" in parameter:
            bounds = f", {parameter['minimum']} to {parameter['maximum']}"
        elif "maxLength" in parameter:
            bounds = f": a name of at most {parameter['maxLength']} characters"
        lines.append(f"open: {path} ({parameter.get('type')}{bounds})")
    for role, value in json_object(spec.get("replicas")).items():
        size = json_object(value)
        lines.append(f"open: pods of {role}, {size.get('min')} to {size.get('max')}")
    for mount, value in json_object(spec.get("code")).items():
        choice = json_object(value)
        lines.append(
            f"open: code {mount}, from {choice.get('repository')} and signed by"
            f" {choice.get('authority')}"
        )
    return [*lines, "not signed yet: `trainseal sign template -f FILE --key KEY`"]


def _some(field: str, value: JsonObject) -> JsonObject:
    return {field: value} if value else {}


def _by_name(option: str, texts: Sequence[str]) -> Iterator[tuple[str, str, bool, str]]:
    """Each option as a whole, its name, whether it has a value, and the value."""
    seen: set[str] = set()
    for text in texts:
        name, equals, value = text.partition("=")
        if name in seen:
            raise Failure(f"{option} {text}: {name} is given twice", remedy="give it once")
        seen.add(name)
        yield f"{option} {text}", name, bool(equals), value


# Parameters -------------------------------------------------------------------------------------


def _parameters(job: JobFile, spec: JsonObject, texts: Sequence[str]) -> JsonObject:
    values = json_object(json_object(spec.get("config")).get("parameters"))
    found: JsonObject = {}
    for option, path, bounded, bounds in _by_name("--open", texts):
        there, value = value_at(values, path.split("."))
        if not there:
            paths = list(_paths(values))
            more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
            raise Failure(
                f"{option}: there is no {path} in {job.job.where(_PARAMETERS)}",
                expected="the path of a value in spec.config.parameters",
                remedy=f"one of: {', '.join(paths[:_SHOWN]) or 'none'}{more}",
            )
        if isinstance(value, dict | list):
            what = "a list" if isinstance(value, list) else "a mapping"
            raise Failure(
                f"{option}: {path} is {what}, in {job.job.where((*_PARAMETERS, *path.split('.')))}",
                expected="a number, true or false, or a text",
                remedy="open the values within it, one by one"
                if isinstance(value, dict)
                else "leave it as it is signed",
            )
        found[path] = _parameter(option, value, bounds if bounded else None)
    return found


def _parameter(option: str, value: JsonValue, bounds: str | None) -> JsonObject:
    """What the parameter may be, by what stands there and what the option says."""
    if isinstance(value, bool):
        if bounds is not None:
            raise Failure(f"{option}: it is true or false", remedy="give the path alone")
        return {"type": "boolean"}
    if bounds is None:
        kind, forms = "text", "PATH=a,b,c; or PATH=name:LENGTH, for a name of at most that length"
        if isinstance(value, int | float):
            kind, forms = "number", "PATH=MIN..MAX, or PATH=a,b,c"
        raise Failure(
            f"{option}: it is a {kind} ({value!r:.60}), and has no bounds",
            expected=forms,
            remedy="say what a run may set it to",
        )
    if isinstance(value, int | float):
        return _of_number(option, value, bounds)
    if length := _LENGTH.fullmatch(bounds):
        return {"type": "string", "maxLength": int(length[1])}
    values = bounds.split(",")
    if not all(values):
        raise Failure(f"{option}: an empty value", expected="PATH=a,b,c", remedy="leave it out")
    return {"type": "string", "enum": list(values)}


def _of_number(option: str, value: int | float, bounds: str) -> JsonObject:
    if between := _RANGE.fullmatch(bounds):
        texts = [between[1], between[2]]
    else:
        texts = bounds.split(",")
        if not all(_NUMBER_ALONE.fullmatch(text) for text in texts):
            raise Failure(
                f"{option}: it is a number ({value!r})",
                expected="PATH=MIN..MAX, or numbers with commas between them",
                remedy="such as --open optim.lr=1e-5..1e-3",
            )
    numbers = [_number(text) for text in texts]
    # Written with a point, a bound asks for fractions: 0.0..1.0.
    whole = isinstance(value, int) and all(
        isinstance(n, int) and "." not in text for n, text in zip(numbers, texts, strict=True)
    )
    kind = "integer" if whole else "number"
    if between is None:
        return {"type": kind, "enum": list(numbers)}
    return {"type": kind, "minimum": numbers[0], "maximum": numbers[1]}


def _number(text: str) -> int | float:
    number = float(text)
    return int(number) if number.is_integer() else number


def _paths(values: Mapping[str, JsonValue], before: str = "") -> Iterator[str]:
    """The paths of the values that could be opened."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _paths(value, f"{before}{key}.")
        elif not isinstance(value, list):
            yield f"{before}{key}"


# Sizes, code, and who may ----------------------------------------------------------------------


def _replicas(texts: Sequence[str]) -> JsonObject:
    found: JsonObject = {}
    for option, role, _, bounds in _by_name("--replicas", texts):
        counts = _COUNTS.fullmatch(bounds)
        if counts is None:
            raise Failure(
                f"{option}: no bounds", expected="ROLE=MIN..MAX", remedy="such as worker=1..8"
            )
        found[role] = {"min": int(counts[1]), "max": int(counts[2])}
    return found


def _code(job: JobFile, spec: JsonObject, texts: Sequence[str]) -> JsonObject:
    mounts = {
        str(mount.get("name")): str(json_object(mount.get("oci")).get("reference"))
        for mount in json_objects(spec.get("code"))
    }
    found: JsonObject = {}
    for option, name, _, authority in _by_name("--code", texts):
        if name not in mounts:
            raise Failure(
                f"{option}: the job has no code of this name, in {job.job.where(('spec', 'code'))}",
                expected=f"one of {', '.join(mounts) or 'none'}",
                remedy="correct the name, or add the mount to spec.code",
            )
        if not authority:
            raise Failure(
                f"{option}: no authority",
                expected="NAME=AUTHORITY",
                remedy="name an authority of the policies, whose signature newer code must carry",
            )
        found[name] = {"repository": _repository(mounts[name]), "authority": authority}
    return found


def _repository(reference: str) -> str:
    """The reference as it is written, less digest and tag."""
    name, _, _ = reference.partition("@")
    start, slash, last = name.rpartition("/")
    return f"{start}{slash}{last.partition(':')[0]}"


def _launch(opening: Opening) -> JsonObject:
    named = (("user", opening.users), ("group", opening.groups), ("authority", opening.authorities))
    requesters: list[JsonValue] = [{kind: who} for kind, many in named for who in many]
    if not requesters:
        raise Failure(
            "nobody may start runs from this template",
            expected="--user, --group or --authority",
            remedy="name who may: a user or a group as the API server knows them, or an authority"
            " of kind kubernetes of the policies",
        )
    if opening.not_after is not None and not _TIME.fullmatch(opening.not_after):
        raise Failure(
            f"--not-after {opening.not_after}: no time",
            expected="a date, a time and a zone (RFC 3339)",
            remedy="such as 2027-03-01T00:00:00Z",
        )
    limit, until = opening.max_concurrent, opening.not_after
    return {
        "requesters": requesters,
        **({"maxConcurrent": limit} if limit is not None else {}),
        **({"notAfter": until} if until is not None else {}),
    }


# What the template's own rules refuse ----------------------------------------------------------

#: Where a field stands in the template, and the option that decides on it.
_OPTIONS = {
    "spec.parameters": "--open",
    "spec.job.config.parameters": "--open",
    "spec.replicas": "--replicas",
    "spec.job.roles": "--replicas",
    "spec.code": "--code",
    "spec.launch.requesters": "--user, --group or --authority",
    "spec.launch.maxConcurrent": "--max-concurrent",
    "spec.launch.notAfter": "--not-after",
}


def _check(template: JsonObject) -> None:
    """Raises Failure with the option of each problem."""
    problems: list[tuple[str, str, str]]
    try:
        read = TrainingTemplate.parse(template)
        problems = [(f.place, f.found, f.wanted) for f in template_faults(read)]
    except InvalidObjectError as error:
        problems = [(p.path, p.found, p.expected) for p in error.problems]
    if problems:
        raise Failure(
            "\n  ".join(
                f"{_option(place)}{place}: found {found}, expected {wanted}"
                for place, found, wanted in problems[:20]
            ),
            remedy="correct the option, or the job",
        )


def _option(place: str) -> str:
    return next((f"{o}: " for start, o in _OPTIONS.items() if place.startswith(start)), "")
