"""What a job must be, beside signed: judged from the job alone, before any network.

Each rule gives a verdict only where it is broken; a job that keeps them all gets none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations, islice

from trainseal.api.trainingjob import RUN, ArtifactKind, TrainingJob
from trainseal.provenance.configfiles import MAX_CONFIG_BYTES, config_bytes
from trainseal.provenance.podrules import check_template, template_warnings
from trainseal.provenance.policies import CompiledPolicy
from trainseal.provenance.refusals import TemplateContext
from trainseal.provenance.requesters import Requester
from trainseal.provenance.systempaths import holds_programs
from trainseal.provenance.templates import StoredTemplate
from trainseal.provenance.verdicts import Outcome, Verdict

_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}\Z")
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
MAX_NAME = 40
_MOST_WARNINGS = 16


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the cluster knows of a run: its own UID, the runs so far of what was signed (the job, or
    the template that it is made from), who asks, and the template as it is stored.

    None where it is not known, as offline: then a bound is not judged, and what must be known to
    tell is undetermined.
    """

    cluster: str | None = None
    runs: int | None = None
    requester: Requester | None = None
    template: StoredTemplate | None = None


def job_rules(
    job: TrainingJob, digest: str, policy: CompiledPolicy, facts: RunFacts, now: datetime
) -> tuple[Verdict, ...]:
    """Every broken rule, as a refuted verdict."""
    name = f"{job.metadata.namespace}/{job.metadata.name}"
    broken: list[Verdict] = []

    def refuse(
        artifact: ArtifactKind,
        place: str,
        subject: str,
        reason: str,
        found: str,
        wanted: str,
        remedy: str,
    ) -> None:
        broken.append(
            Verdict(
                artifact, place, subject, Outcome.REFUTED, reason, found, wanted, remedy,
                policy=policy.name,
            )
        )  # fmt: skip

    if len(job.metadata.name) > MAX_NAME or not _NAME.fullmatch(job.metadata.name):
        refuse(
            "job", name, digest, "InvalidName", f"name {job.metadata.name[:80]!r}",
            f"a DNS label of at most {MAX_NAME} characters that starts with a letter",
            "rename it: pods and their host names carry the name",
        )  # fmt: skip
    for reason, found, wanted, remedy in _validity(job, policy, facts, now):
        refuse("job", name, digest, reason, found, wanted, remedy)
    for place, one, other in _overlapping_mounts(job):
        refuse(
            "job", place, digest, "OverlappingMounts", f"{one} and {other} overlap",
            "mounts that do not contain one another", "give each role a directory of its own",
        )  # fmt: skip
    for place, named in _twice(job):
        refuse(
            "job", place, digest, "DuplicateName", f"{named!r} stands twice", "each name once",
            "rename one of them",
        )  # fmt: skip
    if _config_bytes(job) > MAX_CONFIG_BYTES:
        refuse(
            "config", "spec.config.parameters", digest, "ConfigTooLarge",
            f"more than {MAX_CONFIG_BYTES} bytes of config.json", "smaller parameters",
            "put large tables into the code tree",
        )  # fmt: skip
    for data in () if policy.unverified_data else job.spec.data or ():
        refuse(
            "data", f"spec.data[{data.name}]", data.mount_path, "DataNotVerified",
            "a dataset, which is not verified yet",
            "verified data only", "a policy may set data.unverified: Allow",
        )  # fmt: skip
    for place, claim, lane in _lane_scratch(job, policy):
        refuse(
            "data", place, f"claim {claim}", "LaneScratch",
            f"claim {claim}, to which pods in lane {lane} write without a signature",
            "a volume that no lane writes to",
            "sign what the run is to read (`trainseal sign code`) and mount it as code, or use "
            "another claim",
        )  # fmt: skip
    for place, subject, reason, found, wanted, remedy in _checkpoints(job, policy):
        refuse("job", place, subject, reason, found, wanted, remedy)
    context = TemplateContext(
        # What a platform mounts there nobody signed either.
        writable=(*unsigned_mounts(job), *policy.additions.places),
        mounts=tuple(path for _, path in _mounts(job)),
        kept=kept_mounts(job),
        allowed_secrets=policy.allowed_secrets,
    )
    for index, role in enumerate(job.spec.roles):
        for refusal in check_template(role.template, context, f"spec.roles[{index}].template"):
            refuse(
                "job", refusal.path, refusal.found, refusal.reason, refusal.found, "",
                refusal.remedy,
            )  # fmt: skip
    for mount in job.spec.code or ():
        if not by_digest(mount.oci.reference):
            refuse(
                "code", mount.name, mount.oci.reference, "CodeNotByDigest",
                f"{mount.oci.reference} has no digest", "a reference by digest",
                "let `trainseal sign job` resolve the tag",
            )  # fmt: skip
    return tuple(broken)


def _config_bytes(job: TrainingJob) -> int:
    return config_bytes(job.spec.config.parameters) if job.spec.config else 0


def _checkpoints(
    job: TrainingJob, policy: CompiledPolicy
) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Place, subject, reason, found, wanted, remedy."""
    checkpoints = job.spec.checkpoints
    if checkpoints is None:
        return
    for part in (checkpoints.path or "").split("/"):
        if set("{}") & set(part.replace(RUN, "")):  # nothing stands for it
            yield (
                "spec.checkpoints.path", part, "CheckpointsPath",
                f"{part} in spec.checkpoints.path", f"{RUN} and no other braces",
                f"{RUN} is the name of the run's seal; write other names out, and sign again",
            )  # fmt: skip
    taken = policy.checkpoint_formats
    for unaccepted in () if "pickle" in taken else sorted(set(checkpoints.format or ()) - taken):
        yield (
            "spec.checkpoints.format", unaccepted, "CheckpointFormat",
            f"{unaccepted} in spec.checkpoints.format", " or ".join(sorted(taken)),
            "write checkpoints in such a format, or have the policy's checkpoints.formats name it",
        )  # fmt: skip


def _lane_scratch(job: TrainingJob, policy: CompiledPolicy) -> Iterator[tuple[str, str, str]]:
    """Volumes of the job that a lane of its namespace writes to: place, claim, lane."""
    mounts = [(f"spec.data[{data.name}]", data.volume) for data in job.spec.data or ()]
    if job.spec.checkpoints:
        mounts.append(("spec.checkpoints", job.spec.checkpoints.volume))
    for place, volume in mounts:
        if volume.persistent_volume_claim is None:
            continue
        claim = volume.persistent_volume_claim.claim_name
        for lane in policy.lanes:
            if lane.names(job.metadata.namespace or "") and lane.is_scratch(claim):
                yield place, claim, lane.name
                break


def job_warnings(job: TrainingJob) -> tuple[str, ...]:
    """What a job may have, and whoever submits it should know. At most 16."""
    found = (
        warning
        for index, role in enumerate(job.spec.roles)
        for warning in template_warnings(role.template, f"spec.roles[{index}].template")
    )
    return tuple(islice(found, _MOST_WARNINGS))


def by_digest(reference: str) -> bool:
    """Whether a reference ends in a digest, so that it always means the same bytes."""
    return bool(_DIGEST.search(reference))


def unsigned_mounts(job: TrainingJob) -> tuple[str, ...]:
    """Mount paths whose bytes nobody signed: the writable roles, and data that is not verified."""
    spec = job.spec
    found = [s.mount_path for s in spec.scratch or ()] + [d.mount_path for d in spec.data or ()]
    found += _resumed(job)
    # On an emptyDir too: what a pod wrote there before, signed code may be made to run.
    return (*found, spec.checkpoints.mount_path) if spec.checkpoints else tuple(found)


def kept_mounts(job: TrainingJob) -> tuple[str, ...]:
    """Of those, the ones that a pod may find filled by others: what is on a claim."""
    found = [d.mount_path for d in job.spec.data or ()] + _resumed(job)
    if job.spec.checkpoints and job.spec.checkpoints.volume.persistent_volume_claim:
        found.append(job.spec.checkpoints.mount_path)
    return tuple(found)


def _resumed(job: TrainingJob) -> list[str]:
    """Where the checkpoint of another run is mounted: it was signed, and nobody has read it."""
    resume = job.spec.checkpoints.resume if job.spec.checkpoints else None
    return [] if resume is None else [resume.mount_path]


def _twice(job: TrainingJob) -> Iterator[tuple[str, str]]:
    """Names that must be each another's own and are not, with the list they stand in."""
    for place, names in (
        ("spec.code", [c.name for c in job.spec.code or ()]),
        ("spec.data", [d.name for d in job.spec.data or ()] + ["resume" for _ in _resumed(job)]),
        ("spec.roles", [r.name for r in job.spec.roles]),
    ):
        yield from ((place, name) for name, count in Counter(names).items() if count > 1)


def image_references(job: TrainingJob) -> dict[str, str]:
    """Every image of every container, with the first place it stands in the job."""
    found: dict[str, str] = {}
    for role in job.spec.roles:
        spec = role.template.get("spec")
        if not isinstance(spec, dict):
            continue
        for kind in ("initContainers", "containers"):
            containers = spec.get(kind)
            for container in containers if isinstance(containers, list) else ():
                if isinstance(container, dict) and isinstance(container.get("image"), str):
                    place = f"roles[{role.name}].{kind}[{container.get('name')}]"
                    found.setdefault(str(container["image"]), place)
    return found


def _validity(
    job: TrainingJob, policy: CompiledPolicy, facts: RunFacts, now: datetime
) -> Iterator[tuple[str, str, str, str]]:
    validity = job.spec.validity
    given = set(validity.model_dump(by_alias=True, exclude_none=True)) if validity else set()
    for field in sorted(policy.required_validity - given):
        yield (
            "ValidityMissing", f"no validity.{field}", f"a signed validity.{field}",
            "add it and sign again",
        )  # fmt: skip
    if validity is None:
        return
    if validity.not_after and now > validity.not_after:
        yield (
            "Expired", f"notAfter {validity.not_after.isoformat()} has passed",
            f"a start before it, it is {now.isoformat(timespec='seconds')}",
            "have it signed again with a later notAfter",
        )  # fmt: skip
    if validity.max_runs is not None and facts.runs is not None and facts.runs >= validity.max_runs:
        yield (
            "MaxRunsReached",
            f"{facts.runs} run{'' if facts.runs == 1 else 's'} of this signed job",
            f"at most {validity.max_runs}",
            "have it signed again with a higher maxRuns",
        )  # fmt: skip
    if validity.cluster and facts.cluster is not None and validity.cluster != facts.cluster:
        yield (
            "OtherCluster", f"signed for cluster {validity.cluster}", f"cluster {facts.cluster}",
            "have it signed for this cluster",
        )  # fmt: skip


def _overlapping_mounts(job: TrainingJob) -> Iterator[tuple[str, str, str]]:
    """Mounts that contain one another: a writable one inside code would shadow signed files."""
    paths = _mounts(job)
    for (_, one), (place, other) in combinations(paths, 2):
        if one == other or one.startswith(other + "/") or other.startswith(one + "/"):
            yield place, one, other
    for place, path in paths:
        if holds_programs(path):
            yield place, path, "the system's directories"


def _mounts(job: TrainingJob) -> list[tuple[str, str]]:
    """Every mount: where it stands in the job, and its path."""
    spec = job.spec
    paths = [(f"spec.code[{c.name}]", c.mount_path) for c in spec.code or ()]
    paths += [("spec.config", spec.config.mount_path)] if spec.config else []
    paths += [(f"spec.data[{d.name}]", d.mount_path) for d in spec.data or ()]
    paths += [("spec.checkpoints", spec.checkpoints.mount_path)] if spec.checkpoints else []
    paths += [("spec.checkpoints.resume", path) for path in _resumed(job)]
    paths += [(f"spec.scratch[{i}]", s.mount_path) for i, s in enumerate(spec.scratch or ())]
    return paths
