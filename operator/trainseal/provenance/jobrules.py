"""What a job must be, beside signed: judged from the job alone, before any network.

Each rule gives a verdict only where it is broken; a job that keeps them all gets none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations

from trainseal.api.trainingjob import TrainingJob
from trainseal.provenance.configfiles import MAX_CONFIG_BYTES, config_files
from trainseal.provenance.podrules import TemplateContext, check_template
from trainseal.provenance.policies import CompiledPolicy
from trainseal.provenance.verdicts import Outcome, Verdict

_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
_NAME = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
MAX_NAME = 40


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the cluster knows of earlier runs: its UID, and runs of this job digest so far.

    None where it is not known, as offline: then the bound is not judged.
    """

    cluster: str | None = None
    runs: int | None = None


def job_rules(
    job: TrainingJob, digest: str, policy: CompiledPolicy, facts: RunFacts, now: datetime
) -> tuple[Verdict, ...]:
    """Every broken rule, as a refuted verdict."""
    name = f"{job.metadata.namespace}/{job.metadata.name}"
    broken: list[Verdict] = []

    def refuse(
        artifact: str, place: str, subject: str, reason: str, found: str, wanted: str, remedy: str
    ) -> None:
        broken.append(
            Verdict(
                artifact, place, subject, Outcome.REFUTED, reason, found, wanted, remedy,
                policy=policy.name,
            )
        )  # fmt: skip

    if len(job.metadata.name) > MAX_NAME or not _NAME.match(job.metadata.name):
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
    if (
        job.spec.config
        and sum(len(t.encode()) for t in config_files(job.spec.config.parameters).values())
        > MAX_CONFIG_BYTES
    ):
        refuse(
            "config", "spec.config.parameters", digest, "ConfigTooLarge",
            f"more than {MAX_CONFIG_BYTES} bytes of config files", "smaller parameters",
            "put large tables into the code tree",
        )  # fmt: skip
    if not policy.unverified_data:
        for data in job.spec.data or ():
            refuse(
                "data", f"spec.data[{data.name}]", data.mount_path, "DataNotVerified",
                "a dataset, which is not verified yet",
                "verified data only", "a policy may set data.unverified: Allow",
            )  # fmt: skip
    context = TemplateContext(writable=writable_mounts(job), allowed_secrets=policy.allowed_secrets)
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


def by_digest(reference: str) -> bool:
    """Whether a reference ends in a digest, so that it always means the same bytes."""
    return bool(_DIGEST.search(reference))


def writable_mounts(job: TrainingJob) -> tuple[str, ...]:
    """Mount paths of the writable roles."""
    paths = [s.mount_path for s in job.spec.scratch or ()]
    if job.spec.checkpoints:
        paths.append(job.spec.checkpoints.mount_path)
    return tuple(paths)


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
            "MaxRunsReached", f"{facts.runs} runs of this signed job",
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
    spec = job.spec
    paths = [(f"spec.code[{c.name}]", c.mount_path) for c in spec.code or ()]
    paths += [("spec.config", spec.config.mount_path)] if spec.config else []
    paths += [(f"spec.data[{d.name}]", d.mount_path) for d in spec.data or ()]
    paths += [("spec.checkpoints", spec.checkpoints.mount_path)] if spec.checkpoints else []
    paths += [(f"spec.scratch[{i}]", s.mount_path) for i, s in enumerate(spec.scratch or ())]
    for (_, one), (place, other) in combinations(paths, 2):
        if one == other or one.startswith(other + "/") or other.startswith(one + "/"):
            yield place, one, other
    for place, path in paths:
        if path in _SYSTEM or path.startswith(_SYSTEM_BELOW):
            yield place, path, "the system's directories"


#: Directories that programs run from, or that the kernel speaks through.
_SYSTEM = frozenset(
    {"/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/root", "/sbin", "/sys", "/usr"}
)
_SYSTEM_BELOW = (
    "/bin/", "/boot/", "/lib/", "/lib64/", "/proc/", "/sbin/", "/sys/", "/usr/bin", "/usr/lib",
    "/usr/sbin", "/usr/local/bin", "/usr/local/lib", "/etc/ld.so", "/etc/python", "/gate",
)  # fmt: skip
