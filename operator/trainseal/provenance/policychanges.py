"""What of a policy's change lets through what it did not let through before.

Pure: the old spec and the new one, in; words, out. What is in another order, or only says why
differently, changes nothing. A change that cannot be told to be stricter counts as weaker: an
authority with another key, for one, is another person who can sign.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import cast, get_args

from pydantic import BaseModel, JsonValue

from trainseal.api.policy import (
    AccessRules,
    Answer,
    DriftRules,
    PodRules,
    ProvenancePolicySpec,
    Requirements,
    Resumers,
    SelfApproval,
)
from trainseal.api.policylanes import Lane
from trainseal.api.signers import Requirement
from trainseal.provenance.accessrules import FIELDS, compile_access
from trainseal.provenance.checkpointformats import ACCEPTED
from trainseal.provenance.drift import STRENGTH, compile_drift
from trainseal.provenance.policies import pending_seconds

#: From the strictest on.
_ANSWERS: tuple[str, ...] = get_args(Answer)
_SHOWN = 5
_LIMITS = ("maxPods", "maxGPUs", "maxDurationSeconds")


def weakenings(old: ProvenancePolicySpec, new: ProvenancePolicySpec) -> tuple[str, ...]:
    """One line for each field by which ``new`` demands less than ``old``; none: it does not."""
    return tuple(_weakenings(old, new))


def _weakenings(old: ProvenancePolicySpec, new: ProvenancePolicySpec) -> Iterator[str]:
    if (old.mode, new.mode) == ("Enforce", "Audit"):
        yield "mode: found Audit, before it was Enforce"
    yield from _namespaces(old, new)
    yield from _requirements(old, new)
    yield from _people(old, new)
    yield from _more("registries.allow", old.registries.allow, new.registries.allow)
    yield from _fewer(
        "validity.require",
        (old.validity and old.validity.require) or (),
        (new.validity and new.validity.require) or (),
    )
    yield from _pending(old, new)
    yield from _more(
        "pods.allowedSecrets",
        old.pods.allowed_secrets if old.pods else None,
        new.pods.allowed_secrets if new.pods else None,
    )
    yield from _resumers(old, new)
    yield from _rotators(old.pods or PodRules(), new.pods or PodRules())
    yield from _more("pods.additions", _added(old), _added(new))
    yield from _access(old.access or AccessRules(), new.access or AccessRules())
    yield from _lanes(old, new)
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
        before, now = getattr(old.requirements, artifact), getattr(new.requirements, artifact)
        yield from _requirement(f"requirements.{artifact}", before, now, old, new)


def _requirement(
    field: str,
    before: Requirement,
    now: Requirement,
    old: ProvenancePolicySpec,
    new: ProvenancePolicySpec,
) -> Iterator[str]:
    if (now.threshold or 1) < (before.threshold or 1):
        yield (
            f"{field}.threshold: found {now.threshold or 1}, before it was {before.threshold or 1}"
        )
    counted = {_normal(a) for a in old.authorities if a.name in before.authorities}
    added = [
        a.name for a in new.authorities if a.name in now.authorities and _normal(a) not in counted
    ]
    if added:
        yield f"{field}.authorities: now counts, and did not before: {_some(added)}"


def _people(old: ProvenancePolicySpec, new: ProvenancePolicySpec) -> Iterator[str]:
    """Whom a template may name by an authority of the policy, whatever is required of signers."""
    before = {a.name: a.kubernetes for a in old.authorities}
    for authority in new.authorities:
        now, was = authority.kubernetes, before.get(authority.name)
        if now is not None:
            field = f"authorities[{authority.name}].kubernetes"
            yield from _more(f"{field}.users", was.users if was else None, now.users)
            yield from _more(f"{field}.groups", was.groups if was else None, now.groups)


def _pending(old: ProvenancePolicySpec, new: ProvenancePolicySpec) -> Iterator[str]:
    """Nothing runs by it; what approvers have signed counts for longer."""
    before, now = pending_seconds(old.pending), pending_seconds(new.pending)
    if before is None and now is not None:
        yield "pending: is there, before jobs that lack signatures were refused at once"
    elif before is not None and now is not None:
        yield from _longer(
            "pending.maxAgeSeconds", timedelta(seconds=before), timedelta(seconds=now)
        )


def _lanes(old: ProvenancePolicySpec, new: ProvenancePolicySpec) -> Iterator[str]:
    """A lane is wider by what its pods may do more; and by what runs may read that was scratch."""
    before = {lane.name: lane for lane in old.lanes or ()}
    now = {lane.name: lane for lane in new.lanes or ()}
    if opened := sorted(now.keys() - before.keys()):
        yield f"lanes: now open, and were not before: {_some(opened)}"
    for name, was in before.items():
        field, lane = f"lanes[{name}]", now.get(name)
        scratch = (lane.scratch_claims if lane else None) or ()
        yield from _fewer(f"{field}.scratchClaims", was.scratch_claims, scratch)
        if lane is None:
            continue
        yield from _more(f"{field}.scratchClaims", was.scratch_claims, scratch)
        yield from _more(f"{field}.namespaces", was.namespaces, lane.namespaces)
        if was.scratch_claims:
            yield from _fewer(f"{field}.namespaces", was.namespaces, lane.namespaces)
        yield from _more(f"{field}.secrets", was.secrets, lane.secrets)
        yield from _requirement(f"{field}.image", was.image, lane.image, old, new)
        for limit, one, other in zip(_LIMITS, _limits(was), _limits(lane), strict=True):
            if other > one:
                yield f"{field}.{limit}: found {other}, before it was {one}"


def _limits(lane: Lane) -> tuple[int, int, int]:
    return lane.max_pods, lane.max_gpus, lane.max_duration_seconds


def _resumers(old: ProvenancePolicySpec, new: ProvenancePolicySpec) -> Iterator[str]:
    before, after = (
        (spec.checkpoints and spec.checkpoints.may_resume) or Resumers() for spec in (old, new)
    )
    yield from _more("checkpoints.mayResume.users", before.users, after.users)
    yield from _more("checkpoints.mayResume.groups", before.groups, after.groups)
    formats = [(spec.checkpoints and spec.checkpoints.formats) or ACCEPTED for spec in (old, new)]
    yield from _more("checkpoints.formats", *map(sorted, formats))


def _rotators(old: PodRules, new: PodRules) -> Iterator[str]:
    if old.secret_rotators is not None and new.secret_rotators is None:
        yield "pods.secretRotators: is gone, before it named who may change Secrets"
    elif old.secret_rotators is not None:
        yield from _more("pods.secretRotators", old.secret_rotators, new.secret_rotators)


def _added(spec: ProvenancePolicySpec) -> list[str | BaseModel]:
    """What a platform may add, whatever the addition is called."""
    found: list[str | BaseModel] = []
    for addition in (spec.pods.additions if spec.pods else None) or ():
        found += [
            f"variable {v.name}{f'={v.value_prefix}…' if v.value_prefix else ''}"
            for v in addition.env or ()
        ]
        found += [f"variable {name} of the pod's own" for name in addition.fields or ()]
        found += [f"label {key}" for key in addition.labels or ()]
        found += [f"annotation {key}" for key in addition.annotations or ()]
        found += [
            container.model_copy(update={"images": [image]})
            for container in addition.containers or ()
            for image in container.images
        ]
        found += addition.volumes or ()
        for mount in addition.mounts or ():
            words = f"mount of {mount.volume} below {mount.path}"
            found += [words] if mount.read_only else [words, f"writable {words}"]
    return found


def _access(old: AccessRules, new: AccessRules) -> Iterator[str]:
    before, now = compile_access(old), compile_access(new)
    for way, field in FIELDS.items():
        was, answer = before.answers[way], now.answers[way]
        if _ANSWERS.index(answer) > _ANSWERS.index(was):
            yield f"access.{field}: found {answer}, before it was {was}"
    yield from _more("access.serviceAccounts", old.service_accounts, new.service_accounts)
    if old.deletion is not None and new.deletion is None:
        yield "access.deletion: is gone, before it named who may delete"
    elif old.deletion is not None and new.deletion is not None:
        yield from _more("access.deletion.users", old.deletion.users, new.deletion.users)
        yield from _more("access.deletion.groups", old.deletion.groups, new.deletion.groups)
    yield from _longer("access.breakGlass.maxDurationSeconds", before.longest, now.longest)
    own, others = (
        (rules.break_glass and rules.break_glass.self_approval) or SelfApproval()
        for rules in (old, new)
    )
    yield from _more("access.breakGlass.selfApproval.users", own.users, others.users)
    yield from _more("access.breakGlass.selfApproval.groups", own.groups, others.groups)


def _drift(old: DriftRules, new: DriftRules) -> Iterator[str]:
    yield from _more("drift.exceptions", old.exceptions, new.exceptions)
    # Their patterns need not be such as can be used.
    before, now = (
        compile_drift(rules.model_copy(update={"exceptions": None})) for rules in (old, new)
    )
    for (severity, was), (_, response) in zip(before.responses, now.responses, strict=True):
        yield from _milder(f"drift.responses.{severity.lower()}", was, response)
    spans = (timedelta(seconds=rules.freeze_seconds) for rules in (before, now))
    yield from _longer("drift.freeze.maxDurationSeconds", *spans)
    yield from _milder("drift.freeze.then", before.then, now.then)


def _allows(spec: ProvenancePolicySpec) -> bool:
    return spec.data is not None and spec.data.unverified == "Allow"


def _milder(field: str, before: str, now: str) -> Iterator[str]:
    if STRENGTH.index(now) < STRENGTH.index(before):
        yield f"{field}: found {now}, before it was {before}"


def _longer(field: str, before: timedelta, now: timedelta) -> Iterator[str]:
    if now > before:
        yield (
            f"{field}: found {now.total_seconds():.0f}, before it was {before.total_seconds():.0f}"
        )


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
    if any(source in values for source in ("key", "keyless", "kubernetes")):
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
