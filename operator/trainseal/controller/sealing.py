"""What a seal says: made once from a verified job, its rendered objects and who asked. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from trainseal.api.model import API_VERSION, JsonObject, Metadata, json_object
from trainseal.api.sealedrun import (
    EarlierRun,
    JobIdentity,
    PolicyRecord,
    Requester,
    SealedLaunch,
    SealedReferences,
    SealedResume,
    SealedRole,
    SealedRun,
    SealedRunSpec,
)
from trainseal.api.trainingjob import MAX_SIGNERS, ArtifactStatus, SignerStatus, TrainingJob
from trainseal.controller.launchbook import LABEL_TEMPLATE
from trainseal.controller.world import World
from trainseal.engines.catalogue import ENGINES
from trainseal.engines.engine import Rendered
from trainseal.engines.podtemplate import RenderInputs
from trainseal.provenance import sealedjobs
from trainseal.provenance.configfiles import config_digest, config_files
from trainseal.provenance.keys import PrivateKey
from trainseal.provenance.launches import Launch
from trainseal.provenance.memberships import ELASTIC_ENGINES
from trainseal.provenance.seals import SEAL_ANNOTATION, check_size, sign_seal
from trainseal.provenance.tickets import Ticket
from trainseal.provenance.verdicts import Verdict
from trainseal.verifier.jobs import JobVerification

LABEL_DIGEST = "trainseal.dev/job-digest"
LABEL_JOB = "trainseal.dev/job"


@dataclass(frozen=True, slots=True)
class Sealing:
    """All that a seal is made from. ``templates`` are the API server's, by role; ``asked`` is the
    digest of the TrainingJob as it was submitted.
    """

    job: TrainingJob
    asked: str
    verification: JobVerification
    rendered: Rendered
    templates: Mapping[str, JsonObject]
    ticket: Ticket
    cluster: str
    run: int
    now: datetime
    references: SealedReferences | None = None
    earlier: tuple[EarlierRun, ...] = ()
    resume: SealedResume | None = None


def rendered_again(world: World, job: TrainingJob, sealed: SealedRun) -> Rendered:
    """The objects of a run that was sealed, but for its pods, which are as the seal has them."""
    settings = world.settings
    inputs = RenderInputs(
        seal_name=sealed.metadata.name,
        job_uid=job.metadata.uid,
        gate_image=settings.gate_image,
        code=tuple(sealed.spec.code),
        plain_http=tuple(settings.registries.plain_http),
        registry_ca=world.registry_ca,
        of_template=sealed.spec.launch is not None,
    )
    return ENGINES[sealed.spec.engine].render(job, inputs)


def seal_name(job: Metadata, asked: str) -> str:
    """The name of a job's seal."""
    return sealedjobs.seal_name(job.name, job.uid, asked)


def digest_label(digest: str) -> str:
    """The job digest as a label value (63 characters of it), to find earlier runs by."""
    return digest.removeprefix("sha256:")[:63]


def seal_object(key: PrivateKey, sealing: Sealing) -> JsonObject:
    """The SealedRun to create, with the operator's mark on it. Raises SealTooLargeError."""
    job, verification, launch = sealing.job, sealing.verification, sealing.verification.launch
    elastic = job.spec.engine in ELASTIC_ENGINES
    least = {role.name: role.least for role in job.spec.roles if elastic}
    spec = SealedRunSpec(
        job=JobIdentity(name=job.metadata.name, uid=job.metadata.uid, digest=verification.digest),
        launch=_launch(launch, sealing.asked) if launch else None,
        cluster=sealing.cluster,
        run=sealing.run,
        engine=job.spec.engine,
        requester=Requester(
            username=sealing.ticket.username[:256],
            uid=sealing.ticket.uid[:256] or None,
            groups=list(sealing.ticket.groups) or None,
            time=sealing.ticket.time,
        ),
        policies=[
            PolicyRecord(name=p.name, digest=p.digest, mode=p.mode) for p in verification.policies
        ],
        artifacts=artifacts(verification.verdicts),
        images=list(verification.images),
        code=list(verification.code),
        config_digest=config_digest(config_files(job.spec.config.parameters))
        if job.spec.config
        else None,
        roles=[
            SealedRole(
                name=role.name,
                replicas=role.replicas,
                min_replicas=least.get(role.name),
                object_name=role.object_name,
                template=sealing.templates[role.name],
            )
            for role in sealing.rendered.roles
        ],
        references=sealing.references,
        earlier=list(sealing.earlier) or None,
        resume=sealing.resume,
        sealed_at=sealing.now.replace(microsecond=0),
    )
    namespace, name = job.metadata.namespace, seal_name(job.metadata, sealing.asked)
    wire = spec.wire()
    check_size(wire)
    labels: JsonObject = {
        LABEL_JOB: job.metadata.name,
        LABEL_DIGEST: digest_label(verification.digest),
    }
    if launch:
        labels[LABEL_TEMPLATE] = digest_label(launch.digest)
    return {
        "apiVersion": API_VERSION,
        "kind": "SealedRun",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "annotations": {
                SEAL_ANNOTATION: sign_seal(
                    key, namespace=namespace, name=name, spec=wire, now=sealing.now
                )
            },
            "labels": labels,
        },
        "spec": wire,
    }


def _launch(launch: Launch, asked: str) -> SealedLaunch:
    made = json_object(launch.made.get("spec"))
    return SealedLaunch(
        template=launch.name,
        digest=launch.digest,
        asked=asked,
        parameters=launch.asked.spec.parameters or None,
        job={k: v for k, v in made.items() if k not in ("scheduling", "suspend")},
    )


def artifacts(verdicts: Sequence[Verdict]) -> list[ArtifactStatus]:
    """Verdicts as status and seal show them."""
    return [
        ArtifactStatus(
            artifact=v.artifact,
            name=v.name[:256],
            subject=v.subject[:1024],
            outcome=v.outcome.value,
            reason=v.reason,
            message=v.sentence()[:4096],
            signers=[
                SignerStatus(
                    authority=s.authority,
                    person=s.person,
                    identity=s.identity[:1024],
                    issuer=s.issuer[:1024] if s.issuer else None,
                    signed_at=s.signed_at,
                )
                for s in v.signers[:MAX_SIGNERS]
            ],
        )
        for v in verdicts[:128]
    ]
