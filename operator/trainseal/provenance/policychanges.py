"""What of a policy's change lets through what it did not let through before.

Pure: the old spec and the new one, in; words, out. What is in another order, or only says why
differently, changes nothing. A change that cannot be told to be stricter counts as weaker: an
authority with another key, for one, is another person who can sign.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import cast, get_args

from pydantic import BaseModel, JsonValue

from trainseal.api.policy import (
    AccessRules,
    Answer,
    BreakGlassRules,
    DriftRules,
    ProvenancePolicySpec,
    Requirements,
    Response,
    SelfApproval,
)

#: From the strictest on.
_ANSWERS: tuple[str, ...] = get_args(Answer)
#: From the weakest on (the API lists them so).
_RESPONSES: tuple[str, ...] = get_args(Response)
#: What an absent answer means (api.policy.AccessRules).
_WAYS = {
    "exec": "Record",
    "attach": "Record",
    "port_forward": "Record",
    "proxy": "Record",
    "ephemeral_containers": "Deny",
}
_SEVERITIES = {"critical": "Alert", "warning": "Alert", "info": "Record"}
_GLASS_SECONDS = 3600
_FREEZE_SECONDS = 300
_SHOWN = 5


def weakenings(old: ProvenancePolicySpec, new: ProvenancePolicySpec) -> tuple[str, ...]:
    """One line for each field by which ``new`` demands less than ``old``; none: it does not."""
    return tuple(_weakenings(old, new))


def _weakenings(old: ProvenancePolicySpec, new: ProvenancePolicySpec) -> Iterator[str]:
    if (old.mode, new.mode) == ("Enforce", "Audit"):
        yield "mode: found Audit, before it was Enforce"
    yield from _namespaces(old, new)
    yield from _requirements(old, new)
    yield from _more("registries.allow", old.registries.allow, new.registries.allow)
    yield from _fewer(
        "validity.require",
        (old.validity and old.validity.require) or (),
        (new.validity and new.validity.require) or (),
    )
    yield from _more(
        "pods.allowedSecrets",
        old.pods.allowed_secrets if old.pods else None,
        new.pods.allowed_secrets if new.pods else None,
    )
    yield from _more("pods.additions", _added(old), _added(new))
    yield from _access(old.access or AccessRules(), new.access or AccessRules())
    if _allows(new) and not _allows(old):
        yield "data.unverified: found Allow, before it was Refuse"
    yield from _drift(old.drift or DriftRules(), new.drift or DriftRules())


def _namespaces(old: ProvenancePolicySpec, new: ProvenancePolicySpec) -> Iterator[str]:
    before, now = _included(old), _included(new)
    if "*" not in now:
        yield from _fewer("namespaces.include", before, now)
    yield from _more(
        "namespaces.exclude",
        old.namespaces.exclude if old.namespaces else None,
        new.namespaces.exclude if new.namespaces else None,
    )


def _included(spec: ProvenancePolicySpec) -> list[str]:
    return (spec.namespaces and spec.namespaces.include) or ["*"]


def _requirements(old: ProvenancePolicySpec, new: ProvenancePolicySpec) -> Iterator[str]:
    for artifact in Requirements.model_fields:
        field = f"requirements.{artifact}"
        before, now = getattr(old.requirements, artifact), getattr(new.requirements, artifact)
        if (now.threshold or 1) < (before.threshold or 1):
            yield (
                f"{field}.threshold: found {now.threshold or 1}, "
                f"before it was {before.threshold or 1}"
            )
        counted = {_normal(a) for a in old.authorities if a.name in before.authorities}
        added = [
            a.name
            for a in new.authorities
            if a.name in now.authorities and _normal(a) not in counted
        ]
        if added:
            yield f"{field}.authorities: now counts, and did not before: {_some(added)}"


def _added(spec: ProvenancePolicySpec) -> list[str]:
    """What a platform may add, whatever the addition is called."""
    found: list[str] = []
    for addition in (spec.pods.additions if spec.pods else None) or ():
        found += [
            f"variable {v.name}{f'={v.value_prefix}…' if v.value_prefix else ''}"
            for v in addition.env or ()
        ]
        found += [f"label {key}" for key in addition.labels or ()]
        found += [f"annotation {key}" for key in addition.annotations or ()]
    return found


def _access(old: AccessRules, new: AccessRules) -> Iterator[str]:
    for field, absent in _WAYS.items():
        name = _camel(field)
        before, now = getattr(old, field) or absent, getattr(new, field) or absent
        if _ANSWERS.index(now) > _ANSWERS.index(before):
            yield f"access.{name}: found {now}, before it was {before}"
    yield from _more("access.serviceAccounts", old.service_accounts, new.service_accounts)
    if old.deletion is not None and new.deletion is None:
        yield "access.deletion: is gone, before it named who may delete"
    elif old.deletion is not None and new.deletion is not None:
        yield from _more("access.deletion.users", old.deletion.users, new.deletion.users)
        yield from _more("access.deletion.groups", old.deletion.groups, new.deletion.groups)
    glass, then = old.break_glass or BreakGlassRules(), new.break_glass or BreakGlassRules()
    yield from _longer(
        "access.breakGlass.maxDurationSeconds",
        glass.max_duration_seconds or _GLASS_SECONDS,
        then.max_duration_seconds or _GLASS_SECONDS,
    )
    own, others = glass.self_approval or SelfApproval(), then.self_approval or SelfApproval()
    yield from _more("access.breakGlass.selfApproval.users", own.users, others.users)
    yield from _more("access.breakGlass.selfApproval.groups", own.groups, others.groups)


def _drift(old: DriftRules, new: DriftRules) -> Iterator[str]:
    yield from _more("drift.exceptions", old.exceptions, new.exceptions)
    for field, absent in _SEVERITIES.items():
        before = getattr(old.responses, field, None) or absent
        now = getattr(new.responses, field, None) or absent
        yield from _milder(f"drift.responses.{field}", before, now)
    before_seconds = (old.freeze and old.freeze.max_duration_seconds) or _FREEZE_SECONDS
    now_seconds = (new.freeze and new.freeze.max_duration_seconds) or _FREEZE_SECONDS
    yield from _longer("drift.freeze.maxDurationSeconds", before_seconds, now_seconds)
    yield from _milder(
        "drift.freeze.then",
        (old.freeze and old.freeze.then) or "Suspend",
        (new.freeze and new.freeze.then) or "Suspend",
    )


def _allows(spec: ProvenancePolicySpec) -> bool:
    return spec.data is not None and spec.data.unverified == "Allow"


def _milder(field: str, before: str, now: str) -> Iterator[str]:
    if _RESPONSES.index(now) < _RESPONSES.index(before):
        yield f"{field}: found {now}, before it was {before}"


def _longer(field: str, before: int, now: int) -> Iterator[str]:
    if now > before:
        yield f"{field}: found {now}, before it was {before}"


def _more(
    field: str, before: Iterable[str | BaseModel] | None, now: Iterable[str | BaseModel] | None
) -> Iterator[str]:
    had = {_normal(item) for item in before or ()}
    if added := [_name(item) for item in now or () if _normal(item) not in had]:
        yield f"{field}: now has, and had not before: {_some(added)}"


def _fewer(
    field: str, before: Iterable[str | BaseModel] | None, now: Iterable[str | BaseModel] | None
) -> Iterator[str]:
    has = {_normal(item) for item in now or ()}
    if gone := [_name(item) for item in before or () if _normal(item) not in has]:
        yield f"{field}: had before, and has not now: {_some(gone)}"


def _normal(item: str | BaseModel) -> str:
    """The same for what means the same: no reason, and no order."""
    if isinstance(item, str):
        return item
    values = cast("dict[str, JsonValue]", item.model_dump(mode="json", exclude_none=True))
    if "key" in values or "keyless" in values:
        values.setdefault("person", values["name"])
    values.pop("reason", None)
    return json.dumps(_sorted(values), sort_keys=True)


def _sorted(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return {key: _sorted(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted(
            (_sorted(item) for item in value), key=lambda v: json.dumps(v, sort_keys=True)
        )
    return value


def _name(item: str | BaseModel) -> str:
    return item if isinstance(item, str) else str(getattr(item, "name", item))


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _camel(field: str) -> str:
    first, *rest = field.split("_")
    return first + "".join(part.capitalize() for part in rest)
