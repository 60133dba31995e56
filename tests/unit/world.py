"""A signed world, made with one call each, so that a test can break one thing in it.

Keys, a policy, a job signed by Alice, its verification, its seal with a binding, and the pods that
the Job controller and the API server make of it. Nothing here talks to anything: the registry's
part is an answer kept in memory. ``stored_template`` and ``pod`` write down what Kubernetes adds
(defaulting, the ServiceAccount and DefaultTolerationSeconds plugins, the Job controller), as seen
on a real cluster.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from trainseal.admission.pods import PodRulesContext
from trainseal.admission.reviews import Request
from trainseal.admission.sealindex import SealIndex
from trainseal.admission.waysin import WaysIn
from trainseal.api.sealedrun import PlatformImage, SealedCode, SealedImage
from trainseal.api.trainingjob import ArtifactKind, TrainingJob
from trainseal.cluster.settings import Settings
from trainseal.controller.sealing import Sealing, seal_name, seal_object
from trainseal.engines.catalogue import ENGINES
from trainseal.engines.engine import Rendered
from trainseal.engines.job import template_of
from trainseal.engines.podtemplate import RenderInputs
from trainseal.provenance.accessrules import Permit
from trainseal.provenance.bundles import make_bundle_dsse
from trainseal.provenance.canonical import job_digest, template_digest
from trainseal.provenance.dsse import IN_TOTO_PAYLOAD_TYPE
from trainseal.provenance.jobrules import RunFacts
from trainseal.provenance.keyrings import Keyring, KeyringEntry, rfc3339
from trainseal.provenance.keys import PrivateKey, private_key_of
from trainseal.provenance.memberships import Membership
from trainseal.provenance.policies import CompiledPolicy, compile_policy
from trainseal.provenance.seals import BoundUid, bind
from trainseal.provenance.statements import job_statement
from trainseal.provenance.tickets import Ticket
from trainseal.provenance.verdicts import Outcome, Signer, Verdict
from trainseal.verifier.artifacts import CodeResult, ImageResult
from trainseal.verifier.jobs import JobVerification, JobVerifier
from trainseal.verifier.policystore import BrokenPolicy

Object = dict[str, Any]
T = TypeVar("T")

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
CLUSTER = "0c5b5a4f-0000-4000-8000-000000000001"
JOB_UID = "5f9d8d8e-1111-4000-8000-000000000001"
OBJECT_UID = "7a0c1f2e-2222-4000-8000-000000000001"
JOB_CONTROLLER = "system:serviceaccount:kube-system:job-controller"
CONTROLLER = "system:serviceaccount:trainseal-system:trainseal-controller"
EDITOR = "mallory@example.org"
GATE_IMAGE = "registry.example/trainseal/operator@sha256:" + "9" * 64
IMAGE = "registry.example/research/pytorch@sha256:" + "a" * 64
CODE = "registry.example/research/code@sha256:" + "c" * 64
TREE = "sha256:" + "7" * 64
CODE_BUNDLE = "sha256:" + "b" * 64


def new_key() -> PrivateKey:
    return private_key_of(Ed25519PrivateKey.generate())


ALICE, BOB, MALLORY = new_key(), new_key(), new_key()
SEAL_KEY, TICKET_KEY = new_key(), new_key()


def keyring(*keys: PrivateKey) -> Keyring:
    """A ring of keys that have been valid for a year."""
    start = NOW.replace(year=NOW.year - 1)
    return {key.public.id: KeyringEntry(key.public, start) for key in keys or (SEAL_KEY,)}


# What people write ------------------------------------------------------------------------------


def policy_object(name: str = "research", **spec: Any) -> Object:
    """Alice or Bob sign; ``spec`` replaces fields of the spec."""
    signers: Object = {"authorities": ["alice", "bob"]}
    return {
        "apiVersion": "trainseal.dev/v1alpha1",
        "kind": "ProvenancePolicy",
        "metadata": {"name": name},
        "spec": {
            "mode": "Enforce",
            "namespaces": {"include": ["research"]},
            "authorities": [
                {"name": "alice", "person": "Alice", "key": {"publicKey": ALICE.public.pem}},
                {"name": "bob", "person": "Bob", "key": {"publicKey": BOB.public.pem}},
            ],
            "requirements": {"job": signers, "image": dict(signers), "code": dict(signers)},
            "registries": {"allow": ["registry.example/**"]},
        }
        | spec,
    }


def lane(**fields: Any) -> Object:
    """A lane of a policy, with these fields."""
    return {
        "name": "notebooks",
        "reason": "interactive work",
        "namespaces": ["research"],
        "image": {"authorities": ["alice"]},
        "maxPods": 2,
        "maxGPUs": 4,
        "maxDurationSeconds": 3600,
    } | fields


def policy(name: str = "research", **spec: Any) -> CompiledPolicy:
    return compile_policy(policy_object(name, **spec), {})


def job_object() -> Object:
    """A job with code, config, checkpoints and scratch, as its author writes it; not signed."""
    return {
        "apiVersion": "trainseal.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "char-lm", "namespace": "research", "uid": JOB_UID},
        "spec": {
            "engine": "Job",
            "code": [
                {"name": "trainer", "mountPath": "/workspace", "oci": {"reference": CODE}},
            ],
            "config": {
                "mountPath": "/etc/training",
                "parameters": {"learning_rate": 0.0003, "batch_size": 64, "steps": 2000},
            },
            "checkpoints": {
                "mountPath": "/checkpoints",
                "volume": {"persistentVolumeClaim": {"claimName": "ckpt"}},
                "path": "runs/char-lm",
            },
            "scratch": [{"mountPath": "/tmp"}],
            "roles": [
                {
                    "name": "worker",
                    "replicas": 2,
                    "template": {
                        "metadata": {"labels": {"team": "research"}},
                        "spec": {
                            "containers": [
                                {
                                    "name": "trainer",
                                    "image": IMAGE,
                                    "command": ["python", "/workspace/train.py"],
                                    "args": ["--config", "/etc/training/config.yaml"],
                                    "env": [
                                        {"name": "OMP_NUM_THREADS", "value": "4"},
                                        {"name": "SEED", "value": "17"},
                                    ],
                                    "resources": {
                                        "limits": {"nvidia.com/gpu": 1, "memory": "4Gi"},
                                        "requests": {"cpu": "2", "memory": "4Gi"},
                                    },
                                }
                            ]
                        },
                    },
                }
            ],
        },
    }


def sign_job(job: Object, *signers: PrivateKey) -> Object:
    """The job with a bundle of each signer over what it says now."""
    hexadecimal = job_digest(job).removeprefix("sha256:")
    metadata = job["metadata"]
    statement = job_statement(metadata["namespace"], metadata["name"], hexadecimal)
    job["spec"]["signatures"] = [
        {"bundle": make_bundle_dsse(key, statement, IN_TOTO_PAYLOAD_TYPE)} for key in signers
    ]
    return job


def signed_job(change: Callable[[Object], object] | None = None) -> Object:
    """A job signed by Alice; ``change`` is made before she signs."""
    job = job_object()
    if change:
        change(job)
    return sign_job(job, ALICE)


def template_object(**spec: Any) -> Object:
    """The same job as a template, with things left open; not signed. ``spec`` replaces fields."""
    job = job_object()["spec"]
    parameters: Object = {
        "learning_rate": {"type": "number", "minimum": 0.00001, "maximum": 0.001},
        "optim.seed": {"type": "integer", "minimum": 0, "maximum": 65535},
        "optim.name": {"type": "string", "enum": ["adam", "sgd"]},
        "tag": {"type": "string", "maxLength": 16},
        "amp": {"type": "boolean"},
    }
    job["config"]["parameters"] |= {
        "optim": {"seed": 1, "name": "adam", "eps": 1e-8},
        "tag": "none",
    }
    job["config"]["parameters"]["amp"] = False
    return {
        "apiVersion": "trainseal.dev/v1alpha1",
        "kind": "TrainingTemplate",
        "metadata": {"name": "pretrain-v7", "namespace": "research"},
        "spec": {
            "parameters": parameters,
            "replicas": {"worker": {"min": 1, "max": 8}},
            "code": {"trainer": {"repository": CODE.partition("@")[0], "authority": "alice"}},
            "launch": {"requesters": [{"user": "bob@example.org"}, {"group": "research"}]},
            "job": job,
        }
        | spec,
    }


def sign_template(template: Object, *signers: PrivateKey) -> Object:
    """The template with a bundle of each signer over what it says now."""
    hexadecimal = template_digest(template).removeprefix("sha256:")
    place = (template["metadata"]["namespace"], template["metadata"]["name"], hexadecimal)
    statement = job_statement(*place, "TrainingTemplate")
    template["spec"]["signatures"] = [
        {"bundle": make_bundle_dsse(key, statement, IN_TOTO_PAYLOAD_TYPE)} for key in signers
    ]
    return template


def launched_job(template: Object, **spec: Any) -> Object:
    """A job that names the template, as the API server has it."""
    ref = {"name": template["metadata"]["name"], "digest": template_digest(template)}
    metadata = {"generateName": "sweep-", "name": "sweep-x7k2f", "namespace": "research"}
    return {
        "apiVersion": "trainseal.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {**metadata, "uid": JOB_UID},
        "spec": {"templateRef": ref} | spec,
    }


# What the registry says -------------------------------------------------------------------------


@dataclass
class Evidence:
    """Stands in for ArtifactVerifier: every artifact is verified, but for what is said here."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def _verdicts(
        self, kind: ArtifactKind, place: str, reference: str, policies: Sequence[CompiledPolicy]
    ) -> tuple[Verdict, ...]:
        self.asked.append(reference)
        outcome = self.outcomes.get(reference, Outcome.VERIFIED)
        good = outcome is Outcome.VERIFIED
        signers = (Signer("alice", "Alice", ALICE.public.id),) if good else ()
        return tuple(
            Verdict(
                kind, place, reference, outcome, "Verified" if good else "NoSignature",
                "signed by Alice" if good else "no signature found", "a signature",
                signers=signers, policy=p.name,
            )
            for p in policies
        )  # fmt: skip

    async def image(
        self, place: str, reference: str, policies: Sequence[CompiledPolicy], _until: float
    ) -> ImageResult:
        return ImageResult(
            self._verdicts("image", place, reference, policies),
            SealedImage(
                reference=reference,
                digest=reference.rpartition("@")[2],
                platforms=[
                    PlatformImage(
                        platform="linux/amd64",
                        manifest="sha256:" + "1" * 64,
                        config="sha256:" + "2" * 64,
                    )
                ],
            ),
        )

    async def code(
        self, name: str, reference: str, policies: Sequence[CompiledPolicy], _until: float
    ) -> CodeResult:
        verdicts = self._verdicts("code", name, reference, policies)
        found = all(v.outcome is Outcome.VERIFIED for v in verdicts)
        return CodeResult(verdicts, sealed_code(name, reference) if found else None)


def sealed_code(name: str = "trainer", reference: str = CODE) -> SealedCode:
    return SealedCode(name=name, reference=reference, tree_digest=TREE, bundle=CODE_BUNDLE)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine in a loop of its own."""
    return asyncio.run(work)


def verify(
    job: Object,
    *policies: CompiledPolicy,
    evidence: Evidence | None = None,
    facts: RunFacts | None = None,
) -> JobVerification:
    """What the webhook and the controller find."""
    verifier = JobVerifier(evidence or Evidence(), lambda: NOW)  # type: ignore[arg-type]
    return run(
        verifier.verify(job, policies or (policy(),), facts or RunFacts(CLUSTER, 0), deadline=1.0)
    )


# What Kubernetes makes of it --------------------------------------------------------------------


def render_job(job: Object, *, of_template: bool = False) -> Rendered:
    """Its objects, by its own engine."""
    parsed = TrainingJob.parse(job)
    return ENGINES[parsed.spec.engine].render(
        parsed,
        RenderInputs(
            seal_name=seal_name(parsed.metadata, job_digest(job)),
            job_uid=parsed.metadata.uid,
            gate_image=GATE_IMAGE,
            code=tuple(sealed_code(c.name, c.oci.reference) for c in parsed.spec.code or ()),
            of_template=of_template,
        ),
    )


def stored_job(job: Object, uid: str = OBJECT_UID) -> Object:
    """A rendered Job as the API server stores it: defaulted; its selector is its own."""
    stored = copy.deepcopy(job)
    stored["metadata"] |= {"uid": uid, "generation": 1, "creationTimestamp": "2026-11-23T12:00:00Z"}
    template = stored["spec"]["template"]
    assert stored["spec"]["manualSelector"]
    template["metadata"] = {"creationTimestamp": None, **template["metadata"]}
    pod = template["spec"]
    for key, value in (
        ("dnsPolicy", "ClusterFirst"),
        ("schedulerName", "default-scheduler"),
        ("securityContext", {}),
        ("terminationGracePeriodSeconds", 30),
    ):
        pod.setdefault(key, value)
    if "serviceAccountName" in pod:
        pod["serviceAccount"] = pod["serviceAccountName"]
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        container.setdefault("imagePullPolicy", "IfNotPresent")
        container.setdefault("resources", {})
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        for kind in ("limits", "requests"):
            amounts = container["resources"].get(kind)
            if amounts:  # quantities are text once they are stored
                container["resources"][kind] = {k: str(v) for k, v in amounts.items()}
        for entry in container.get("env", []):
            reference = entry.get("valueFrom", {}).get("fieldRef")
            if reference is not None:
                reference.setdefault("apiVersion", "v1")
    for volume in pod.get("volumes", []):
        if "configMap" in volume:
            volume["configMap"].setdefault("defaultMode", 420)
    return stored


def pod(job: Object, index: int = 0, *, token: bool | None = None) -> Object:
    """The pod of a stored Job as the webhook sees it: Job controller, then admission plugins."""
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    template = copy.deepcopy(job["spec"]["template"])
    completion = "batch.kubernetes.io/job-completion-index"
    metadata = template["metadata"]
    metadata.pop("creationTimestamp", None)
    metadata["labels"] = {**metadata.get("labels", {}), completion: str(index)}
    metadata["annotations"] = {**metadata.get("annotations", {}), completion: str(index)}
    metadata |= {
        "generateName": f"{name}-{index}-",
        "namespace": job["metadata"]["namespace"],
        "finalizers": ["batch.kubernetes.io/job-tracking"],
        "ownerReferences": [
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": name,
                "uid": uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    spec = template["spec"]
    spec["hostname"] = f"{name}-{index}"
    spec.setdefault("serviceAccountName", "default")
    spec["serviceAccount"] = spec["serviceAccountName"]
    spec["priority"], spec["preemptionPolicy"] = 0, "PreemptLowerPriority"
    spec["tolerations"] = [
        *spec.get("tolerations", []),
        *(
            {
                "key": f"node.kubernetes.io/{what}",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 300,
            }
            for what in ("not-ready", "unreachable")
        ),
    ]
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        container["env"] = [
            *container.get("env", []),
            {
                "name": "JOB_COMPLETION_INDEX",
                "valueFrom": {
                    "fieldRef": {
                        "apiVersion": "v1",
                        "fieldPath": f"metadata.labels['{completion}']",
                    }
                },
            },
        ]
        resources = container["resources"]
        if resources.get("limits"):
            resources["requests"] = {**resources["limits"], **resources.get("requests", {})}
    if token if token is not None else spec.get("automountServiceAccountToken") is not False:
        add_token(spec)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": {}}


def add_token(spec: Object) -> None:
    """What the ServiceAccount plugin adds to a pod that mounts its account's token."""
    spec.setdefault("volumes", []).append(
        {
            "name": "kube-api-access-x7kq2",
            "projected": {
                "defaultMode": 420,
                "sources": [
                    {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                    {
                        "configMap": {
                            "name": "kube-root-ca.crt",
                            "items": [{"key": "ca.crt", "path": "ca.crt"}],
                        }
                    },
                    {
                        "downwardAPI": {
                            "items": [
                                {
                                    "path": "namespace",
                                    "fieldRef": {
                                        "apiVersion": "v1",
                                        "fieldPath": "metadata.namespace",
                                    },
                                }
                            ]
                        }
                    },
                ],
            },
        }
    )
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        container.setdefault("volumeMounts", []).append(
            {
                "name": "kube-api-access-x7kq2",
                "readOnly": True,
                "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
            }
        )


# What TrainSeal makes of it ---------------------------------------------------------------------


@dataclass(repr=False)
class World:
    """One sealed run of one role, bound: ``seal`` as stored, ``live`` its Job, suspended."""

    job: Object
    seal: Object
    live: Object
    policies: tuple[CompiledPolicy, ...]

    @property
    def template(self) -> Object:
        """The sealed template."""
        found: Object = self.seal["spec"]["roles"][0]["template"]
        return found

    def pod(self, index: int = 0) -> Object:
        return pod(self.live, index)

    def index(self) -> SealIndex:
        """The webhook's index with this seal in it."""
        found = SealIndex(CLUSTER)
        found.use_keyring(keyring(SEAL_KEY))
        found.on_seal("ADDED", ("research", self.seal["metadata"]["name"]), self.seal)
        return found

    def context(self) -> PodRulesContext:
        """What the webhook judges pods against."""
        settings, excluded = Settings(), frozenset({"kube-system", "trainseal-system"})

        def policies(namespace: str) -> tuple[CompiledPolicy, ...]:
            return self.policies if namespace == "research" else ()

        return PodRulesContext(
            gpus=settings.gpus,
            find=self.index().find,
            policies=policies,
            broken=lambda: (),
            pod_creators=frozenset(settings.pod_creators),
            excluded_namespaces=excluded,
            ways_in=ways_in(policies),
        )


def ways_in(
    policies: Callable[[str], tuple[CompiledPolicy, ...]],
    permits: tuple[Permit, ...] = (),
    broken: tuple[BrokenPolicy, ...] = (),
) -> WaysIn:
    """By these policies; ``permits`` are of every run and user."""
    excluded = frozenset({"kube-system", "trainseal-system"})
    return WaysIn(policies, lambda: broken, lambda *_: permits, excluded, lambda: NOW)


def sealed_world(
    change: Callable[[Object], object] | None = None, *policies: CompiledPolicy
) -> World:
    """A job signed, verified, sealed and bound; ``change`` is made before Alice signs."""
    job = signed_job(change)
    used = policies or (policy(),)
    verification = verify(job, *used)
    assert verification.outcome is Outcome.VERIFIED, verification.denials
    parsed, rendered = TrainingJob.parse(job), render_job(job)
    # The dry run has another UID than the Job that is made afterwards.
    templates = {r.name: template_of(stored_job(r.owner, "dry-run")) for r in rendered.roles}
    seal = seal_object(
        SEAL_KEY,
        Sealing(
            job=parsed,
            asked=verification.digest,
            verification=verification,
            rendered=rendered,
            templates=templates,
            ticket=Ticket("bob@example.org", "uid-bob", verification.digest, NOW),
            cluster=CLUSTER,
            run=1,
            now=NOW,
        ),
    )
    live = stored_job(rendered.roles[0].owner)
    seal["status"] = {"binding": binding(seal), "phase": "Bound"}
    return World(job, seal, live, used)


def elastic(job: Object) -> None:
    """Gives the job's workers a range: two to five."""
    job["spec"]["roles"][0]["replicas"] = {"min": 2, "max": 5}


def membership(workers: int, epoch: int = 1, since: datetime = NOW) -> Membership:
    """So many workers of an elastic job."""
    return Membership(epoch, {"worker": workers}, rfc3339(since))


def binding(
    seal: Object, key: PrivateKey = SEAL_KEY, *uids: str, members: Membership | None = None
) -> Object:
    """The operator's binding of a seal to the Jobs of its roles."""
    roles = seal["spec"]["roles"]
    uids = uids or tuple(f"{OBJECT_UID}{i or ''}" for i in range(len(roles)))
    return bind(
        key,
        namespace=seal["metadata"]["namespace"],
        name=seal["metadata"]["name"],
        spec=seal["spec"],
        objects=tuple(
            BoundUid(role["name"], "Job", role["objectName"], uid)
            for role, uid in zip(roles, uids, strict=True)
        ),
        now=NOW,
        membership=members,
    )


def request(
    obj: Object | None = None,
    old: Object | None = None,
    *,
    operation: str = "CREATE",
    user: str = JOB_CONTROLLER,
    resource: str = "pods",
    subresource: str = "",
    namespace: str = "research",
) -> Request:
    """An admission request; ``old`` makes it an update."""
    metadata = (obj or old or {}).get("metadata", {})
    return Request(
        uid="review-1",
        operation="UPDATE" if old is not None and obj is not None else operation,
        resource=resource,
        subresource=subresource,
        namespace=namespace,
        name=metadata.get("name", ""),
        username=user,
        user_uid="uid-1",
        dry_run=False,
        object=obj or {},
        old=old or {},
    )
