"""ProvenancePolicy: who must sign what, and what a sealed pod may hold. Cluster-scoped.

Every policy that matches a namespace must hold; where enforcement applies and none matches, a job
is denied.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from trainseal.api.findings import FindingId
from trainseal.api.model import (
    Condition,
    Count,
    DnsLabel,
    DnsSubdomain,
    Model,
    NamespacePattern,
    Resource,
    ShortText,
)
from trainseal.api.policyadditions import Addition
from trainseal.api.policylanes import Lane
from trainseal.api.signers import Requirement
from trainseal.api.trainingjob import CheckpointFormat

PLURAL = "provenancepolicies"

Pattern = Annotated[str, StringConstraints(min_length=1, max_length=512)]


class Namespaces(Model):
    """Namespaces by name or glob (``team-*``); never by a label its owner can set."""

    include: list[NamespacePattern] | None = Field(
        default=None, max_length=64, description="Absent: every namespace."
    )
    exclude: list[NamespacePattern] | None = Field(default=None, max_length=64)
    """Taken out of `include`. Absent: none."""


class KeySource(Model):
    """A PEM SubjectPublicKeyInfo: ECDSA P-256/384/521, Ed25519 or RSA from 2048 bits."""

    public_key: Annotated[str, StringConstraints(min_length=64, max_length=4096)]
    """PEM, with its BEGIN and END lines."""


class KeylessSource(Model):
    """A Fulcio identity: its issuer exactly, and its subject exactly or by anchored pattern."""

    issuer: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    """The certificate's OIDC issuer."""
    subject: Pattern | None = None
    """The certificate's subject: an e-mail address or URI."""
    subject_reg_exp: Pattern | None = Field(
        default=None, description="Matches the whole subject, as if written ^…$."
    )
    trust_root: DnsSubdomain = Field(description="Name of a TrustRoot.")

    @model_validator(mode="after")
    def _one_subject(self) -> KeylessSource:
        if (self.subject is None) == (self.subject_reg_exp is None):
            raise ValueError("exactly one of subject, subjectRegExp")
        return self


class KubernetesSource(Model):
    """The authenticated requester of a job: who asks for the run counts as this person."""

    users: list[ShortText] | None = Field(default=None, max_length=64)
    """User names, as the API server sees them; no service accounts. Absent: none."""
    groups: list[ShortText] | None = Field(default=None, max_length=64)
    """Groups, as the API server sees them. Absent: none. Each of their members counts as the same
    person."""

    @model_validator(mode="after")
    def _people(self) -> KubernetesSource:
        if not self.users and not self.groups:
            raise ValueError("at least one of users, groups")
        accounts = [n for n in self.users or () if n.startswith("system:serviceaccount:")]
        everybody = [g for g in self.groups or () if g.startswith("system:")]
        if accounts or everybody:
            raise ValueError(
                "users and groups of people: whoever can make pods can act as a service account; "
                f"not {', '.join([*accounts, *everybody])}"
            )
        return self


class Authority(Model):
    """Someone whose signature counts. Thresholds count persons, not keys."""

    name: DnsLabel
    """Unique among the policy's authorities; what requirements refer to."""
    person: ShortText | None = Field(default=None, description="Absent: the authority's name.")
    key: KeySource | None = None
    """A public key."""
    keyless: KeylessSource | None = None
    """An identity whose certificate Fulcio issued."""
    kubernetes: KubernetesSource | None = None
    """Who asks for a job, by user name or group: for `requirements.job` alone, and for templates'
    `launch.requesters`."""

    @model_validator(mode="after")
    def _one_source(self) -> Authority:
        if [self.key, self.keyless, self.kubernetes].count(None) != 2:
            raise ValueError("exactly one of key, keyless, kubernetes")
        return self


class Requirements(Model):
    """What must be signed, by artifact. All three are required: an absent one would be a hole."""

    job: Requirement
    """The job digest."""
    image: Requirement
    """Each container's image."""
    code: Requirement
    """Each code artifact."""


class Registries(Model):
    """Repositories that may be contacted: ``registry.example/team/*``, ``registry.example/**``."""

    allow: list[Pattern] = Field(min_length=1, max_length=128)
    """`*` stands for one part of a path, `**` for any number."""


class ValidityRules(Model):
    """Bounds that every signed job must carry."""

    require: list[Literal["notAfter", "maxRuns", "cluster"]] | None = Field(
        default=None, max_length=3
    )
    """Fields of `spec.validity` that a job must carry. Absent: none."""


#: As the API server sees users; one with a control character in it could not be told to the floor.
UserName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=256)]


class PodRules(Model):
    """What sealed pods may hold beyond the signed template."""

    allowed_secrets: list[DnsSubdomain] | None = Field(
        default=None,
        max_length=64,
        description="Secrets that a signed template may read keys of, by name.",
    )
    secret_rotators: list[UserName] | None = Field(
        default=None,
        max_length=64,
        description="User names, service accounts among them: who alone makes, changes and deletes "
        "those Secrets in the policy's namespaces. Absent: whoever RBAC lets.",
    )
    additions: list[Addition] | None = Field(default=None, max_length=32)
    """What the platform may add to a sealed pod."""


#: `BreakGlass`: for who has one that is valid; nobody else.
Answer = Literal["Deny", "BreakGlass", "Record"]
ServiceAccountName = Annotated[
    str,
    StringConstraints(
        pattern=r"^system:serviceaccount:[a-z0-9]([-a-z0-9]*[a-z0-9])?:[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        max_length=340,
    ),
]


class SelfApproval(Model):
    """Who may open a run for themselves, such as those on call. Others need another person."""

    users: list[ShortText] | None = Field(default=None, max_length=64)
    """User names. Absent: none."""
    groups: list[ShortText] | None = Field(default=None, max_length=64)
    """Groups, as the API server sees them. Absent: none."""


class BreakGlassRules(Model):
    """What a BreakGlass needs, so that it counts under this policy."""

    max_duration_seconds: int | None = Field(default=None, ge=300, le=86400)
    """How long one may be valid from its creation. Absent: 3600."""
    self_approval: SelfApproval | None = None
    """Absent: nobody opens a run for themselves."""


class DeletionRules(Model):
    """Who may delete pods of sealed runs, and what runs are made of."""

    users: list[ShortText] | None = Field(default=None, max_length=64)
    """User names, service accounts among them. Absent: none."""
    groups: list[ShortText] | None = Field(default=None, max_length=64)
    """Groups, as the API server sees them. Absent: none."""


class AccessRules(Model):
    """Ways into sealed pods that run, and to change them in place. What passes is on record; so is
    what is denied.

    Where several policies name a namespace, the strictest answer counts.
    """

    exec: Answer | None = Field(default=None, description="`kubectl exec`, `cp`. Absent: `Record`.")
    attach: Answer | None = Field(default=None, description="Absent: `Record`.")
    port_forward: Answer | None = Field(default=None, description="Absent: `Record`.")
    proxy: Answer | None = Field(
        default=None, description="The API server's proxy to a pod. Absent: `Record`."
    )
    ephemeral_containers: Answer | None = Field(
        default=None, description="`kubectl debug`. Absent: `Deny`."
    )
    resize: Answer | None = Field(
        default=None,
        description="Processor and memory of containers that run, changed in place by "
        "`pods/resize`. Absent: `Deny`.",
    )
    service_accounts: list[ServiceAccountName] | None = Field(
        default=None,
        max_length=64,
        description="Service accounts, by user name, to which the above applies as to people. "
        "Absent: none. Any other is denied, but those of excluded namespaces: editors of its "
        "namespace can act as it.",
    )
    deletion: DeletionRules | None = None
    """Beside those named, who asked for a run may delete its TrainingJob; the chart's
    `access.disruptors` delete what they like. Absent: whoever RBAC lets."""
    break_glass: BreakGlassRules | None = None
    """What a BreakGlass needs. Absent: another person's approval, for an hour at most."""


class DataRules(Model):
    """Datasets. ``Allow`` mounts unverified data read-only and says so in the seal."""

    unverified: Literal["Allow", "Refuse"]
    """What happens to a dataset without a verified manifest."""


class Resumers(Model):
    """People, as the API server sees them."""

    users: list[ShortText] | None = Field(default=None, max_length=64)
    """User names. Absent: none."""
    groups: list[ShortText] | None = Field(default=None, max_length=64)
    """Groups. Absent: none. A service account counts by its user name alone."""


class CheckpointRules(Model):
    """What jobs may go on from."""

    may_resume: Resumers | None = None
    """Who may go on from runs that others asked for. Absent: nobody."""
    formats: list[CheckpointFormat] | None = Field(default=None, min_length=1, max_length=3)
    """Of which formats a checkpoint may be that a job goes on from by `checkpoints.resume`.
    `pickle`: of any; whoever loads a pickle runs what it holds. Absent: `safetensors` and `dcp`."""


class DriftException(Model):
    """Findings that are expected, such as a compiler's cache. What is named must all match."""

    name: DnsLabel
    """Unique among the policy's exceptions; what reports say it was excepted by."""
    reason: ShortText
    """Why it is harmless, for who reads the policy."""
    findings: list[FindingId] = Field(min_length=1, max_length=16)
    """Ids of findings."""
    paths: list[Pattern] | None = Field(default=None, max_length=32)
    """Of the file itself, as the container sees it: `*` one part, `**` any number. Absent: any."""
    executables: list[Pattern] | None = Field(default=None, max_length=32)
    """Of the process that did it. Absent: any."""


Response = Literal["Record", "Alert", "Freeze", "Suspend", "Quarantine", "Terminate"]


class DriftResponses(Model):
    """What happens to the whole job, by severity. Absent: `Alert`, for `Info` `Record`."""

    critical: Response | None = None
    """For a finding of severity `Critical`."""
    warning: Response | None = None
    """For a finding of severity `Warning`."""
    info: Response | None = None
    """For a finding of severity `Info`."""


class FreezeRules(Model):
    """How long a frozen job waits for a person."""

    max_duration_seconds: int | None = Field(default=None, ge=10, le=86400)
    """Seconds after which `then` applies. Absent: 300."""
    then: Literal["Suspend", "Quarantine", "Terminate"] | None = None
    """What follows. Absent: `Suspend`."""


class DriftRules(Model):
    """What the watch excepts, and what it does about the rest."""

    exceptions: list[DriftException] | None = Field(default=None, max_length=64)
    """A finding is excepted only where every policy of the namespace excepts it."""
    responses: DriftResponses | None = None
    """Of several policies the strongest response counts."""
    freeze: FreezeRules | None = None
    """Absent: five minutes, then `Suspend`."""


class PendingRules(Model):
    """Jobs that are created before all have signed. Nothing of one runs until they have."""

    max_age_seconds: int | None = Field(default=None, ge=60, le=2592000)
    """How long after its creation one may still be approved. Absent: 259200, three days."""


class ProvenancePolicySpec(Model):
    """The policy."""

    mode: Literal["Enforce", "Audit"]
    """`Enforce` denies; `Audit` admits with a warning and a record."""
    namespaces: Namespaces | None = None
    """Where it holds. Absent: everywhere."""
    authorities: list[Authority] = Field(min_length=1, max_length=64)
    """Everyone whose signature counts."""
    requirements: Requirements
    registries: Registries
    pending: PendingRules | None = None
    """Absent: a job is created with all signatures, or refused."""
    validity: ValidityRules | None = None
    """Absent: none."""
    pods: PodRules | None = None
    """Absent: nothing beyond the signed template."""
    access: AccessRules | None = None
    """Absent: people get in and are on record; debug containers, resizes and service accounts are
    denied."""
    lanes: list[Lane] | None = Field(default=None, max_length=16)
    """Absent: none; every pod on a GPU is part of a sealed run."""
    data: DataRules | None = Field(default=None, description="Absent: unverified data is refused.")
    checkpoints: CheckpointRules | None = None
    """Absent: who asked for a run, and nobody else, goes on from it by `checkpoints.resume`, and
    not from a plain pickle."""
    drift: DriftRules | None = None
    """Absent: nothing is excepted; findings are recorded and alerted."""

    @model_validator(mode="after")
    def _names_exist(self) -> ProvenancePolicySpec:
        names = [a.name for a in self.authorities]
        if len(set(names)) != len(names):
            raise ValueError("authority names, each once")
        lanes = [lane.name for lane in self.lanes or ()]
        if len(set(lanes)) != len(lanes):
            raise ValueError("names of lanes, each once")
        required: dict[str, Requirement] = {
            f"requirements.{what}": getattr(self.requirements, what)
            for what in ("job", "image", "code")
        }
        required |= {f"lanes[{lane.name}].image": lane.image for lane in self.lanes or ()}
        for what, requirement in required.items():
            missing = [n for n in requirement.authorities if n not in names]
            if missing:
                raise ValueError(f"authorities of {what} among {names}; not there: {missing}")
            named = [a for a in self.authorities if a.name in requirement.authorities]
            askers = [a.name for a in named if a.kubernetes]
            if askers and what != "requirements.job":
                raise ValueError(
                    f"authorities of {what} that sign it; {', '.join(askers)} only ask for jobs"
                )
            persons = {a.person or a.name for a in named}
            if (requirement.threshold or 1) > len(persons):
                raise ValueError(
                    f"threshold of {what} at most {len(persons)}, the persons it names"
                )
        return self


class ProvenancePolicyStatus(Model):
    """What the controller saw of the policy."""

    observed_generation: Count | None = None
    """The `metadata.generation` that this status is about."""
    conditions: list[Condition] | None = Field(default=None, max_length=16)
    """`Ready`: the policy is in force."""


class ProvenancePolicy(Resource):
    """A ProvenancePolicy object."""

    spec: ProvenancePolicySpec
    status: ProvenancePolicyStatus | None = None
