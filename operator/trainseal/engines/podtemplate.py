"""The pods of a run: the signed template with what TrainSeal adds to it.

It adds the gate as first init container, one volume for each mount role, explicit rendezvous
variables, and placement. It takes nothing of the signed template away.

The Secrets that the template names as ``imagePullSecrets`` are mounted into the gate, and into
nothing else, so that it fetches code with the credentials that the kubelet fetches images with. A
Secret that is not there keeps no pod from starting, as with the kubelet: the gate says so where
the registry then refuses it. Those that the service account brings are nobody's signed word, and
an editor's to change; the gate has none of them.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from trainseal.api.gateplan import (
    GatePlan,
    PlannedCode,
    PlannedConfig,
    PlannedOwn,
    PlannedPullSecret,
    PlannedResume,
)
from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.api.sealedrun import SealedCode
from trainseal.api.trainingjob import RUN, Role, Scheduling, TrainingJob, Volume
from trainseal.provenance.configfiles import file_digests
from trainseal.provenance.keys import PublicKey
from trainseal.provenance.memberships import ELASTIC_ENGINES
from trainseal.provenance.podrules import pull_secret_names
from trainseal.provenance.signedfiles import KEY, list_name

GATE_CONTAINER = "trainseal-gate"
GATE_REFUTED = 1
GATE_UNDETERMINED = 2
MASTER_PORT = 29500
LABEL_JOB = "trainseal.dev/job"
LABEL_ROLE = "trainseal.dev/role"
LABEL_SEAL = "trainseal.dev/seal"
#: Fields of a pod's spec that ``spec.scheduling`` may set.
PLACED = (
    "affinity", "nodeSelector", "priorityClassName", "schedulingGates", "tolerations",
    "topologySpreadConstraints",
)  # fmt: skip
#: Where the Job controller says a pod's index.
INDEX_PATH = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
_GATE_UID = 65532
_LOCALHOST = "localhost"
#: Like a dataset, which it is to the trainer: read-only, and no name of a dataset.
_RESUME = "data-resume"
RESUME_SOURCE = "/gate/resume"
_SIGNED_LIST, _SIGNED_LIST_PATH = "signed-list", "/gate/signed"
_OWN_SOURCE = "/gate/checkpoints"
_PULL_SECRETS = "pull-secrets"
_PULL_SECRETS_PATH = "/gate/pull-secrets"


@dataclass(frozen=True, slots=True)
class ResumeInputs:
    """The checkpoint that a run goes on from, once it is chosen: where it lies, what is in it."""

    claim: str
    path: str
    plan: PlannedResume


@dataclass(frozen=True, slots=True)
class RenderInputs:
    """What rendering needs beside the job: the gate's image by digest, the code as sealed.

    ``signs`` is the public key of the operator's that signs what checkpoints are; None where no
    agent tells of them. ``registry_ca`` is PEM text of the platform's registry authorities, or
    empty. ``resume`` is None where the job goes on from no run, and when pods are not rendered to
    be sealed. ``of_template``: whether the job was made of a template, and its name with it.
    """

    seal_name: str
    job_uid: str
    gate_image: str
    code: tuple[SealedCode, ...]
    plain_http: tuple[str, ...] = ()
    registry_ca: str = ""
    resume: ResumeInputs | None = None
    signs: PublicKey | None = None
    of_template: bool = False


def object_name(job: str, role: str) -> str:
    """Name of a role's Job: a DNS label that leaves room for the pods' index and suffix."""
    return shortened(f"{job}-{role}", 50)


def shortened(name: str, most: int) -> str:
    """The name where it is so short, else its beginning and a digest of it."""
    if len(name) <= most:
        return name
    return f"{name[: most - 9].rstrip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def service_name(job: str) -> str:
    """Name of the headless Service by which workers find each other."""
    return job


def meets_by_service(*, of_template: bool, sizes: Iterable[int]) -> bool:
    """Whether a run's pods do; ``sizes``: how many each role has at most.

    A single pod looks for no other. Where the job was signed itself, what was signed may name the
    Service all the same; of a run of a template nobody who signed knew the name.
    """
    return not of_template or sum(sizes) > 1


def has_service(job: TrainingJob, inputs: RenderInputs) -> bool:
    """Whether the run has one."""
    sizes = (role.size for role in job.spec.roles)
    return meets_by_service(of_template=inputs.of_template, sizes=sizes)


def first_host(job: TrainingJob, inputs: RenderInputs, first: str) -> str:
    """The name by which pods find the first; ``first``: as for ``pod_template``."""
    if not has_service(job, inputs):
        return _LOCALHOST
    service = service_name(job.metadata.name)
    host = f"{first}.{service}" if first else service
    return f"{host}.{job.metadata.namespace}.svc"


def config_map_name(seal_name: str) -> str:
    """Name of the ConfigMap that the gate, and only the gate, reads."""
    return f"{seal_name}-config"


def has_gate(job: TrainingJob) -> bool:
    """Whether the pods start with a gate: where everything is in the image there is none."""
    resumes = job.spec.checkpoints is not None and job.spec.checkpoints.resume is not None
    return bool(job.spec.code or job.spec.config or resumes)


def pod_template(
    job: TrainingJob,
    role: Role,
    inputs: RenderInputs,
    files: Mapping[str, str],
    first: str,
    index: str = INDEX_PATH,
) -> JsonObject:
    """A role's pods. ``first``: host name of the pod that the others meet at; empty where the run's
    Service is that pod. ``index``: field path of a pod's index.
    """
    template = copy.deepcopy(role.template)
    metadata = json_object(template.setdefault("metadata", {}))
    labels = json_object(metadata.setdefault("labels", {}))
    labels |= {
        LABEL_JOB: job.metadata.name,
        LABEL_ROLE: role.name,
        LABEL_SEAL: inputs.seal_name,
    }
    metadata["labels"] = labels
    template["metadata"] = metadata
    spec = json_object(template["spec"])
    spec["restartPolicy"] = "Never"
    # A Service named master would otherwise inject MASTER_PORT.
    spec["enableServiceLinks"] = False
    spec.setdefault("automountServiceAccountToken", False)
    if has_service(job, inputs):
        spec["subdomain"] = service_name(job.metadata.name)
    mounts = [*_mounts(job, inputs.seal_name), *_resume_mounts(job, inputs.resume)]
    rendezvous = _rendezvous(job, first_host(job, inputs, first), index)
    for kind in ("initContainers", "containers"):
        containers = json_objects(spec.get(kind))
        for container in containers:
            env = json_objects(container.get("env"))
            given = {e.get("name") for e in env}
            added = (
                [e for e in rendezvous if e["name"] not in given] if kind == "containers" else []
            )
            if env or added:
                container["env"] = [*env, *added]
            if mounts:
                container["volumeMounts"] = list(mounts)
        if containers:
            spec[kind] = list(containers)
    volumes = _volumes(job, inputs, files)
    secrets = pull_secret_names(spec) if inputs.code else ()
    if secrets:
        volumes.append(_pull_secrets_volume(secrets))
    if inputs.resume is not None:
        source: JsonObject = {"claimName": inputs.resume.claim, "readOnly": True}
        volumes.append({"name": _RESUME, "persistentVolumeClaim": source})
    own = _own(job, inputs)
    if own is not None:
        listed: JsonObject = {"name": list_name(inputs.seal_name), "optional": True}
        volumes.append({"name": _SIGNED_LIST, "configMap": listed})
    if volumes:
        spec["volumes"] = list(volumes)
    if has_gate(job):
        gate = _gate(inputs, files, secrets, own)
        if own is not None:
            gate["volumeMounts"] = [*json_objects(gate["volumeMounts"]), *_own_mounts(mounts)]
        spec["initContainers"] = [
            gate,
            *json_objects(spec.get("initContainers")),
        ]
    _place(job.spec.scheduling, spec)
    template["spec"] = spec
    return template


def _own(job: TrainingJob, inputs: RenderInputs) -> PlannedOwn | None:
    """What the gate asks of the run's own checkpoints: where they lie in a directory of its own, on
    a claim, and the job says by what a whole one is told.
    """
    kept = job.spec.checkpoints
    if kept is None or kept.complete is None or inputs.signs is None or not has_gate(job):
        return None
    if RUN not in (kept.path or "") or kept.volume.persistent_volume_claim is None:
        return None
    return PlannedOwn(
        source=_OWN_SOURCE,
        signed=f"{_SIGNED_LIST_PATH}/{KEY}",
        key=inputs.signs.pem,
        namespace=job.metadata.namespace,
        run=inputs.seal_name,
        marker=kept.complete.marker,
        mount_path=kept.mount_path,
    )


def asks_for_list(template: JsonObject) -> bool:
    """Whether a rendered template's gate mounts the signed list of what its checkpoints are."""
    volumes = json_objects(json_object(template.get("spec")).get("volumes"))
    return any(v.get("name") == _SIGNED_LIST and "configMap" in v for v in volumes)


def placement(role: Role, scheduling: Scheduling | None) -> JsonObject:
    """What of the pods' spec says where they go, under this scheduling."""
    spec = copy.deepcopy(json_object(role.template.get("spec")))
    _place(scheduling, spec)
    return {field: spec[field] for field in PLACED if field in spec}


def _place(scheduling: Scheduling | None, spec: JsonObject) -> None:
    """Lays the unsigned placement over the template's own."""
    if scheduling is None:
        return
    placement = {k: v for k, v in scheduling.wire().items() if k in PLACED}
    # Beyond what the template asks for, never instead: the signed part of the placement stands.
    selector = {
        **json_object(placement.pop("nodeSelector", None)),
        **json_object(spec.get("nodeSelector")),
    }
    if selector:
        spec["nodeSelector"] = selector
    tolerations = [
        *json_objects(spec.get("tolerations")),
        *json_objects(placement.pop("tolerations", None)),
    ]
    if tolerations:
        spec["tolerations"] = list(tolerations)
    gates = [
        *json_objects(spec.get("schedulingGates")),
        *json_objects(placement.pop("schedulingGates", None)),
    ]
    if gates:
        # Kubernetes refuses a pod with one gate twice.
        spec["schedulingGates"] = list({gate.get("name"): gate for gate in gates}.values())
    spec |= placement


def _rendezvous(job: TrainingJob, host: str, index: str) -> list[JsonObject]:
    env: list[JsonObject] = [
        {"name": "MASTER_ADDR", "value": host},
        {"name": "MASTER_PORT", "value": str(MASTER_PORT)},
    ]
    ranged = any(role.least is not None for role in job.spec.roles)
    if ranged and job.spec.engine in ELASTIC_ENGINES:
        # How many there are changes while they run: they are told where to meet, and count there.
        return env
    env.append({"name": "WORLD_SIZE", "value": str(sum(role.size for role in job.spec.roles))})
    if len(job.spec.roles) == 1:
        # With several roles a rank is an offset, which the downward API cannot add.
        env.append({"name": "RANK", "valueFrom": {"fieldRef": {"fieldPath": index}}})
    return env


def _mounts(job: TrainingJob, run: str) -> list[JsonObject]:
    """The trainer's mounts: code, config and data read-only, the two writable roles writable."""
    spec = job.spec
    mounts: list[JsonObject] = [
        {"name": f"code-{c.name}", "mountPath": c.mount_path, "readOnly": True}
        for c in spec.code or ()
    ]
    if spec.config:
        mounts.append({"name": "config", "mountPath": spec.config.mount_path, "readOnly": True})
    for data in spec.data or ():
        mount: JsonObject = {
            "name": f"data-{data.name}",
            "mountPath": data.mount_path,
            "readOnly": True,
        }
        mounts.append(mount | ({"subPath": data.path} if data.path else {}))
    if spec.checkpoints:
        mount = {"name": "checkpoints", "mountPath": spec.checkpoints.mount_path}
        path = spec.checkpoints.path_of(run)
        mounts.append(mount | ({"subPath": path} if path else {}))
    mounts.extend(
        {"name": f"scratch-{i}", "mountPath": s.mount_path}
        for i, s in enumerate(spec.scratch or ())
    )
    return mounts


def _resume_mounts(job: TrainingJob, inputs: ResumeInputs | None) -> list[JsonObject]:
    """The trainer's, read-only, where the job says."""
    resume = job.spec.checkpoints.resume if job.spec.checkpoints else None
    if resume is None or inputs is None:
        return []
    return [_resume_mount(inputs, resume.mount_path)]


def _own_mounts(trainers: Sequence[JsonObject]) -> list[JsonObject]:
    """The gate's: what the trainer has, but read-only; and the list."""
    (kept,) = (mount for mount in trainers if mount["name"] == "checkpoints")
    return [
        {**kept, "mountPath": _OWN_SOURCE, "readOnly": True},
        {"name": _SIGNED_LIST, "mountPath": _SIGNED_LIST_PATH, "readOnly": True},
    ]


def _resume_mount(inputs: ResumeInputs, path: str) -> JsonObject:
    mount: JsonObject = {"name": _RESUME, "mountPath": path, "readOnly": True}
    return mount | ({"subPath": inputs.path} if inputs.path else {})


def _volumes(job: TrainingJob, inputs: RenderInputs, files: Mapping[str, str]) -> list[JsonObject]:
    spec = job.spec
    memory: JsonObject = {"medium": "Memory"}
    volumes: list[JsonObject] = [
        {"name": f"code-{c.name}", "emptyDir": dict(memory)} for c in spec.code or ()
    ]
    if files:
        volumes.append({"name": "config", "emptyDir": dict(memory)})
        volumes.append(
            {"name": "config-source", "configMap": {"name": config_map_name(inputs.seal_name)}}
        )
    volumes.extend(_volume(f"data-{d.name}", d.volume, read_only=True) for d in spec.data or ())
    if spec.checkpoints:
        volumes.append(_volume("checkpoints", spec.checkpoints.volume, read_only=False))
    for index, scratch in enumerate(spec.scratch or ()):
        source: JsonObject = {}
        if scratch.medium is not None:
            source["medium"] = scratch.medium
        if scratch.size_limit is not None:
            source["sizeLimit"] = scratch.size_limit
        volumes.append({"name": f"scratch-{index}", "emptyDir": source})
    return volumes


def _volume(name: str, volume: Volume, *, read_only: bool) -> JsonObject:
    if volume.persistent_volume_claim:
        claim: JsonObject = {"claimName": volume.persistent_volume_claim.claim_name}
        if read_only:
            claim["readOnly"] = True
        return {"name": name, "persistentVolumeClaim": claim}
    empty = volume.empty_dir.wire() if volume.empty_dir else {}
    return {"name": name, "emptyDir": empty}


def _pull_secrets_volume(secrets: Sequence[str]) -> JsonObject:
    """Each Secret's docker config as a file under its number; none of them need be there."""
    return {
        "name": _PULL_SECRETS,
        "projected": {
            "sources": [
                {
                    "secret": {
                        "name": name,
                        "items": [{"key": ".dockerconfigjson", "path": f"{number}/config.json"}],
                        "optional": True,
                    }
                }
                for number, name in enumerate(secrets)
            ]
        },
    }


def sealed_checkpoints(template: JsonObject) -> tuple[str, str] | None:
    """Claim and directory of a rendered template's checkpoints; None where it mounts none.

    Empty: a directory that goes with the pod; the volume's top.
    """
    spec = json_object(template.get("spec"))
    volumes = {v.get("name"): v for v in json_objects(spec.get("volumes"))}
    for container in json_objects(spec.get("containers")):
        for mount in json_objects(container.get("volumeMounts")):
            if mount.get("name") == "checkpoints" and "checkpoints" in volumes:
                claim = json_object(volumes["checkpoints"].get("persistentVolumeClaim"))
                return str(claim.get("claimName") or ""), str(mount.get("subPath") or "")
    return None


def sealed_mounts(template: JsonObject) -> list[tuple[str, str, str]]:
    """What a rendered template's containers read of claims, as (role, claim, directory).

    ``data-NAME`` and ``checkpoints`` are names of ours: of mounts that a platform adds none is.
    """
    spec = json_object(template.get("spec"))
    volumes = {v.get("name"): v for v in json_objects(spec.get("volumes"))}
    found: dict[tuple[str, str, str], None] = {}
    for container in json_objects(spec.get("containers")):
        for mount in json_objects(container.get("volumeMounts")):
            name = str(mount.get("name"))
            claim = json_object(json_object(volumes.get(name)).get("persistentVolumeClaim"))
            if claim and (name == "checkpoints" or name.startswith("data-")):
                path = str(mount.get("subPath") or "")
                found[name, str(claim.get("claimName")), path] = None
    return list(found)


def gate_plan(
    inputs: RenderInputs,
    files: Mapping[str, str],
    secrets: Sequence[str] = (),
    own: PlannedOwn | None = None,
) -> GatePlan:
    """What the gate must find; goes into its arguments, which the seal covers."""
    return GatePlan(
        code=[
            PlannedCode(
                name=c.name,
                reference=c.reference,
                tree_digest=c.tree_digest,
                bundle=c.bundle,
                target=f"/gate/code/{c.name}",
            )
            for c in inputs.code
        ],
        config=PlannedConfig(
            source="/gate/config-source", target="/gate/config", files=file_digests(files)
        )
        if files
        else None,
        plain_http=list(inputs.plain_http),
        registry_ca=(inputs.registry_ca or None) if inputs.code else None,
        pull_secrets=[
            PlannedPullSecret(name=name, file=f"{_PULL_SECRETS_PATH}/{number}/config.json")
            for number, name in enumerate(secrets)
        ],
        resume=inputs.resume.plan if inputs.resume else None,
        own=own,
    )


def _gate(
    inputs: RenderInputs, files: Mapping[str, str], secrets: Sequence[str], own: PlannedOwn | None
) -> JsonObject:
    mounts: list[JsonValue] = [
        {"name": f"code-{c.name}", "mountPath": f"/gate/code/{c.name}"} for c in inputs.code
    ]
    if files:
        mounts.append({"name": "config", "mountPath": "/gate/config"})
        mounts.append(
            {"name": "config-source", "mountPath": "/gate/config-source", "readOnly": True}
        )
    if secrets:
        mounts.append({"name": _PULL_SECRETS, "mountPath": _PULL_SECRETS_PATH, "readOnly": True})
    if inputs.resume is not None:
        mounts.append(_resume_mount(inputs.resume, RESUME_SOURCE))
    plan = gate_plan(inputs, files, secrets, own)
    return {
        "name": GATE_CONTAINER,
        "image": inputs.gate_image,
        "args": ["gate", "--plan", plan.model_dump_json(by_alias=True, exclude_none=True)],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": _GATE_UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": mounts,
    }
