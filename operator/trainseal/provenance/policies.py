"""A policy made ready for judging: keys parsed, patterns compiled, once and not on each request.

The digest of a compiled policy covers its spec and every trust root it uses; so a cache entry
under it is void the moment either changes.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from pydantic import JsonValue

from trainseal.api.policy import Authority as AuthoritySpec
from trainseal.api.policy import DriftRules, PendingRules, PodRules, ProvenancePolicy
from trainseal.api.policyadditions import Addition
from trainseal.api.policylanes import Lane
from trainseal.api.signers import Requirement as RequirementSpec
from trainseal.provenance.accessrules import CompiledAccess, compile_access
from trainseal.provenance.additions import AdditionError, Additions, compile_additions
from trainseal.provenance.authorities import (
    Authority,
    AuthorityError,
    KeyAuthority,
    KeylessAuthority,
    KubernetesAuthority,
)
from trainseal.provenance.canonical import digest
from trainseal.provenance.checkpointformats import ACCEPTED
from trainseal.provenance.drift import CompiledDrift, PatternError, compile_drift
from trainseal.provenance.keys import KeyFormatError, load_public_key
from trainseal.provenance.trustroots import TrustedRoot

Json = Mapping[str, JsonValue]

#: How long a job may wait for signatures where a policy lets it and does not say: three days.
PENDING_SECONDS = 259200


class PolicyError(ValueError):
    """A policy cannot be used; the words say which field and what to do."""


@dataclass(frozen=True, slots=True)
class UnavailableAuthority:
    """An authority whose trust root is missing or unreadable: its evidence cannot be judged."""

    name: str
    person: str
    why: str


@dataclass(frozen=True, slots=True)
class Requirement:
    """Signatures by at least ``threshold`` different persons among the authorities."""

    authorities: tuple[Authority | UnavailableAuthority, ...]
    threshold: int

    @property
    def wanted(self) -> str:
        """For messages: how many of whom."""
        names = ", ".join(a.name for a in self.authorities)
        if self.threshold == 1:
            return f"a signature by {'one of ' if len(self.authorities) > 1 else ''}{names}"
        return f"signatures by {self.threshold} different persons among {names}"


@dataclass(frozen=True, slots=True)
class CompiledLane:
    """A policy's lane. ``namespaces`` and ``scratch`` are globs."""

    name: str
    namespaces: tuple[str, ...]
    image: Requirement
    max_pods: int
    max_gpus: int
    max_seconds: int
    scratch: tuple[str, ...]
    secrets: frozenset[str]

    def names(self, namespace: str) -> bool:
        """Whether it names this namespace."""
        return any(fnmatch.fnmatchcase(namespace, p) for p in self.namespaces)

    def is_scratch(self, claim: str) -> bool:
        """Whether its pods may write to a claim of this name."""
        return any(fnmatch.fnmatchcase(claim, p) for p in self.scratch)


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """A policy ready for use; ``digest`` covers its spec and the trust roots it uses.

    ``people`` are its authorities of kind ``kubernetes``, by name. ``pending_seconds`` is how long
    a job may wait for signatures; None where it may not.
    """

    name: str
    digest: str
    mode: Literal["Enforce", "Audit"]
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    job: Requirement
    image: Requirement
    code: Requirement
    pending_seconds: int | None
    people: Mapping[str, KubernetesAuthority]
    registries: tuple[str, ...]
    required_validity: frozenset[str]
    allowed_secrets: frozenset[str]
    secret_rotators: frozenset[str] | None
    additions: Additions
    access: CompiledAccess
    lanes: tuple[CompiledLane, ...]
    unverified_data: bool
    may_resume_users: frozenset[str]
    may_resume_groups: frozenset[str]
    checkpoint_formats: frozenset[str]
    drift: CompiledDrift

    def applies_to(self, namespace: str) -> bool:
        """Whether the policy names this namespace."""
        return any(fnmatch.fnmatchcase(namespace, p) for p in self.include) and not any(
            fnmatch.fnmatchcase(namespace, p) for p in self.exclude
        )


def only_audited(policies: Sequence[CompiledPolicy], *, broken: bool) -> bool:
    """Whether what these policies refuse is let in with a warning: none of them enforces.

    ``broken``: there is one that cannot be used, which may be one that enforces here.
    """
    return bool(policies) and all(p.mode == "Audit" for p in policies) and not broken


def longest_wait(policies: Iterable[CompiledPolicy]) -> timedelta | None:
    """For how long a job may wait for signatures: as long as every enforcing policy that sets a
    time lets it. None: none lets it wait.
    """
    allowed = [
        p.pending_seconds for p in policies if p.mode == "Enforce" and p.pending_seconds is not None
    ]
    return timedelta(seconds=min(allowed)) if allowed else None


def compile_policy(
    obj: Json, trust_roots: Mapping[str, tuple[str, TrustedRoot | str]]
) -> CompiledPolicy:
    """Makes a ProvenancePolicy object ready.

    ``trust_roots`` maps a TrustRoot's name to the digest of its spec and the root itself, or the
    words why it cannot be read. Raises InvalidObjectError or PolicyError.
    """
    policy = ProvenancePolicy.parse(obj)
    persons = _persons(policy.spec.authorities)
    authorities = {a.name: _authority(a, trust_roots, persons) for a in policy.spec.authorities}
    used = {
        a.keyless.trust_root: trust_roots.get(a.keyless.trust_root, ("", ""))[0]
        for a in policy.spec.authorities
        if a.keyless
    }
    spec = obj.get("spec")
    requirements = policy.spec.requirements
    pods, namespaces = policy.spec.pods, policy.spec.namespaces
    checkpoints = policy.spec.checkpoints
    resumers = checkpoints.may_resume if checkpoints else None
    return CompiledPolicy(
        name=policy.metadata.name,
        digest=digest({"spec": spec, "trustRoots": used}),
        mode=policy.spec.mode,
        include=tuple((namespaces.include if namespaces else None) or ("*",)),
        exclude=tuple((namespaces.exclude if namespaces else None) or ()),
        job=_requirement(requirements.job, authorities),
        image=_requirement(requirements.image, authorities),
        code=_requirement(requirements.code, authorities),
        pending_seconds=pending_seconds(policy.spec.pending),
        people={n: a for n, a in authorities.items() if isinstance(a, KubernetesAuthority)},
        registries=tuple(policy.spec.registries.allow),
        required_validity=frozenset((policy.spec.validity and policy.spec.validity.require) or ()),
        allowed_secrets=frozenset((pods.allowed_secrets if pods else None) or ()),
        secret_rotators=_rotators(pods),
        additions=_additions((pods.additions if pods else None) or ()),
        access=compile_access(policy.spec.access),
        lanes=tuple(_lane(lane, authorities) for lane in policy.spec.lanes or ()),
        unverified_data=bool(policy.spec.data and policy.spec.data.unverified == "Allow"),
        may_resume_users=frozenset((resumers and resumers.users) or ()),
        may_resume_groups=frozenset((resumers and resumers.groups) or ()),
        checkpoint_formats=frozenset((checkpoints and checkpoints.formats) or ACCEPTED),
        drift=_drift(policy.spec.drift),
    )


def pending_seconds(rules: PendingRules | None) -> int | None:
    """How long a job may wait for signatures; None where it may not."""
    return None if rules is None else rules.max_age_seconds or PENDING_SECONDS


def _rotators(pods: PodRules | None) -> frozenset[str] | None:
    """None: the policy leaves Secrets to RBAC; nobody, where it names none."""
    if pods is None or pods.secret_rotators is None:
        return None
    return frozenset(pods.secret_rotators)


def _lane(lane: Lane, authorities: Mapping[str, Authority | UnavailableAuthority]) -> CompiledLane:
    return CompiledLane(
        name=lane.name,
        namespaces=tuple(lane.namespaces),
        image=_requirement(lane.image, authorities),
        max_pods=lane.max_pods,
        max_gpus=lane.max_gpus,
        max_seconds=lane.max_duration_seconds,
        scratch=tuple(lane.scratch_claims or ()),
        secrets=frozenset(lane.secrets or ()),
    )


def _drift(rules: DriftRules | None) -> CompiledDrift:
    try:
        return compile_drift(rules)
    except PatternError as error:
        raise PolicyError(str(error)) from None


def _additions(named: Iterable[Addition]) -> Additions:
    try:
        return compile_additions(named)
    except AdditionError as error:
        raise PolicyError(str(error)) from None


def _requirement(
    spec: RequirementSpec, authorities: Mapping[str, Authority | UnavailableAuthority]
) -> Requirement:
    named = tuple(authorities[n] for n in spec.authorities)
    persons: dict[str, Authority] = {}
    for authority in named:
        if isinstance(authority, KeyAuthority):
            other = persons.setdefault(authority.public_key.id, authority)
            if other.person != authority.person:
                raise PolicyError(
                    f"authorities {other.name} and {authority.name}: found one key for the persons "
                    f"{other.person} and {authority.person}, expected a key of each one's own; "
                    "give both authorities the same person, or one of them another key"
                )
    return Requirement(named, spec.threshold or 1)


def _persons(authorities: Iterable[AuthoritySpec]) -> dict[str, str]:
    """The person of each user name that an authority of kind ``kubernetes`` names."""
    found: dict[str, str] = {}
    for spec in authorities:
        for user in (spec.kubernetes and spec.kubernetes.users) or ():
            person = spec.person or spec.name
            if found.setdefault(user, person) != person:
                raise PolicyError(
                    f"authority {spec.name}: found user {user} for the persons {found[user]} and "
                    f"{person}, expected one; give both authorities the same person"
                )
    return found


def _authority(
    spec: AuthoritySpec,
    trust_roots: Mapping[str, tuple[str, TrustedRoot | str]],
    persons: Mapping[str, str],
) -> Authority | UnavailableAuthority:
    person = spec.person or spec.name
    try:
        if spec.key:
            return KeyAuthority(spec.name, person, load_public_key(spec.key.public_key))
        if spec.kubernetes:
            source = spec.kubernetes
            users, groups = frozenset(source.users or ()), frozenset(source.groups or ())
            return KubernetesAuthority(spec.name, person, users, groups, persons)
        if spec.keyless is None:
            raise PolicyError(f"authority {spec.name} has none of key, keyless, kubernetes")
        name = spec.keyless.trust_root
        _, root = trust_roots.get(name, ("", f"TrustRoot {name} does not exist"))
        if isinstance(root, str):
            return UnavailableAuthority(spec.name, person, root)
        return KeylessAuthority(
            name=spec.name,
            person=person,
            issuer=spec.keyless.issuer,
            subject=spec.keyless.subject,
            subject_regexp=spec.keyless.subject_reg_exp,
            trust_root=root,
        )
    except (KeyFormatError, AuthorityError) as error:
        raise PolicyError(f"authority {spec.name}: {error}") from None
