"""PyTorchJob (kubeflow.org) of Kubeflow's training operator v1: one PyTorchJob a role.

The roots are the PyTorchJobs, and they own the pods: the operator makes each pod itself, so a seal
is bound before there is one, and a pod is admitted by the UID of its PyTorchJob. All pods of one
are ``Worker`` replicas, with no ``Master``: so the operator adds no init container, whose image
nobody signed, tells no pod a rank, and calls the job done only once every pod has succeeded.

What the operator does, and what it may not:

1. A pod that failed fails its PyTorchJob, and with it the run (``restartPolicy: Never``). What else
   the operator offers starts a container anew in its pod, or deletes a pod whose gate refused and
   makes it again, without end.
2. When a PyTorchJob has ended, what still runs of it goes, and what failed stays to say why
   (``cleanPodPolicy: Running``).
3. It takes a pod that is being deleted for one that failed. So one that was suspended is resumed
   only once its pods are gone.
4. On pods it writes labels, three variables and nothing else: all follow from the PyTorchJob's name
   and from the pod's index, which is in its name as well. The port that it would fill in is
   rendered. Source: github.com/kubeflow/training-operator v1.8.1, pkg/controller.v1/common/pod.go,
   pkg/controller.v1/pytorch/envvar.go, pkg/apis/kubeflow.org/v1/pytorch_defaults.go.
5. It makes a Service for each pod, which nothing of ours goes by: the run's own Service is the name
   of the first role's first pod.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.api.trainingjob import Role, RoleStatus, TrainingJob
from trainseal.engines import job as jobs
from trainseal.engines import surroundings
from trainseal.engines.engine import Engine, Json, ObjectKind, Rendered, RenderedRole
from trainseal.engines.podtemplate import (
    LABEL_ROLE,
    MASTER_PORT,
    RenderInputs,
    first_host,
    object_name,
    pod_template,
)
from trainseal.provenance.boundseals import BoundRole
from trainseal.provenance.configfiles import config_files
from trainseal.provenance.downward import referred_keys
from trainseal.provenance.enginemarks import (
    KUBEFLOW,
    KUBEFLOW_INDEX,
    KUBEFLOW_PYTORCHJOBS,
    Marks,
    OwnPods,
)

ROOT = OWNER = ObjectKind("PyTorchJob", "kubeflow.org/v1", "pytorchjobs")
BETWEEN: tuple[Engine, ...] = ()
BESIDE: Mapping[ObjectKind, str] = {}
FIXED: frozenset[str] = frozenset()
#: ``core.UpdateJobReplicaStatuses`` counts a pod that is being deleted as failed.
WAITS_FOR_PODS = True
#: The container that the operator takes for the trainer's.
CONTAINER = "pytorch"
#: The one kind of replicas.
_WORKER = "Worker"
_SPECS = "pytorchReplicaSpecs"
_INDEX_PATH = f"metadata.labels['{KUBEFLOW_INDEX}']"
_PORT: JsonObject = {"name": "pytorchjob-port", "containerPort": 23456}
_PROCESSES = "PET_NPROC_PER_NODE"
_ENDS = {"Succeeded": "Complete", "Failed": "Failed"}


def render(job: TrainingJob, inputs: RenderInputs) -> Rendered:
    """One PyTorchJob a role."""
    files = config_files(job.spec.config.parameters) if job.spec.config else {}
    roles = tuple(_rendered_role(job, role, inputs, files) for role in job.spec.roles)
    first: JsonObject = {LABEL_ROLE: job.spec.roles[0].name, KUBEFLOW_INDEX: "0"}
    return Rendered(
        config_map=surroundings.config_map(job, inputs, files),
        service=surroundings.service(job, inputs, first),
        network_policy=surroundings.network_policy(job, inputs),
        roots=tuple(role.owner for role in roles),
        roles=roles,
    )


def _rendered_role(
    job: TrainingJob, role: Role, inputs: RenderInputs, files: Mapping[str, str]
) -> RenderedRole:
    name = object_name(job.metadata.name, role.name)
    template = pod_template(job, role, inputs, files, "", _INDEX_PATH)
    _tell(job, template, first_host(job, inputs, ""))
    worker: JsonObject = {"replicas": role.size, "restartPolicy": "Never", "template": template}
    owner: JsonObject = {
        "apiVersion": OWNER.api_version,
        "kind": OWNER.kind,
        "metadata": surroundings.object_metadata(job, inputs, name, {LABEL_ROLE: role.name}),
        "spec": {
            "nprocPerNode": _processes(template),
            "runPolicy": {"cleanPodPolicy": "Running", "suspend": True},
            _SPECS: {_WORKER: worker},
        },
    }
    spec = jobs.job_spec(job, role, inputs, template)
    trial = jobs.rendered_role(job, role, inputs, name, spec).owner
    return RenderedRole(role.name, role.size, name, owner, trial)


def _tell(job: TrainingJob, template: JsonObject, host: str) -> None:
    """Gives the containers what the Job controller, or the operator of a master, would tell them,
    where nothing of that name is signed; and the trainer the port that the operator fills in.
    """
    index: JsonObject = {"fieldRef": {"fieldPath": _INDEX_PATH}}
    told: list[JsonObject] = [
        {"name": "JOB_COMPLETION_INDEX", "valueFrom": index},
        {"name": "PET_MASTER_ADDR", "value": host},
        {"name": "PET_MASTER_PORT", "value": str(MASTER_PORT)},
    ]
    if len(job.spec.roles) == 1:
        told.append({"name": "PET_NODE_RANK", "valueFrom": index})
    spec = json_object(template["spec"])
    containers = json_objects(spec.get("containers"))
    for container in containers:
        env = json_objects(container.get("env"))
        given = {e.get("name") for e in env}
        container["env"] = [*env, *(dict(e) for e in told if e["name"] not in given)]
        ports = json_objects(container.get("ports"))
        if container.get("name") == CONTAINER and all(
            p.get("name") != _PORT["name"] for p in ports
        ):
            container["ports"] = [*ports, dict(_PORT)]
    spec["containers"] = list(containers)
    template["spec"] = spec


def unfit(job: TrainingJob) -> str:
    """Why the operator would not run what was signed; empty where it would."""
    for role in job.spec.roles:
        for words in _unfit(role):
            return f"spec.engine is PyTorchJob: role {role.name}: {words}, and sign again"
    return ""


def _unfit(role: Role) -> Iterator[str]:
    spec = json_object(role.template.get("spec"))
    containers = json_objects(spec.get("containers"))
    names = [str(c.get("name")) for c in containers]
    if CONTAINER not in names:
        yield (
            f"found the containers {', '.join(names)}, expected one of the name {CONTAINER}, which "
            "the training operator takes for the trainer's; rename it"
        )
    for key in sorted(referred_keys(spec)):
        if key.name.startswith("batch.kubernetes.io/"):
            yield (
                f"found a reference to {key.part} {key.name}, which no pod of this engine has, "
                f"expected {_INDEX_PATH}, or the variable JOB_COMPLETION_INDEX; name that"
            )
    if "hostname" in spec:
        yield "found a hostname, expected none: each pod has its own name; take it out"
    for container in containers:
        for port in json_objects(container.get("ports")):
            if container.get("name") == CONTAINER and not port.get("name"):
                yield (
                    f"found port {port.get('containerPort')} without a name, expected one: the "
                    "training operator makes Services of the trainer's ports; name it"
                )
        for name, value in _written(role.template, role.size).items():
            for entry in json_objects(container.get("env")):
                if entry.get("name") == name and entry != {"name": name, "value": value}:
                    yield (
                        f"found variable {name} of container {container.get('name')}, expected "
                        f"none, or {value!r}, which the training operator writes over it; take it "
                        "out"
                    )


def _processes(template: Json) -> str:
    """``spec.nprocPerNode``: what was signed for the trainer, else the operator's default."""
    for container in json_objects(json_object(template.get("spec")).get("containers")):
        for entry in json_objects(container.get("env")):
            value = entry.get("value")
            if container.get("name") == CONTAINER and entry.get("name") == _PROCESSES and value:
                return str(value)
    return "auto"


def _written(template: Json, replicas: int) -> dict[str, str]:
    """The variables that the operator adds to each container, in its order."""
    return {
        "PYTHONUNBUFFERED": "1",
        _PROCESSES: _processes(template),
        "PET_NNODES": str(replicas),
    }


def with_templates(rendered: Rendered, templates: Mapping[str, JsonObject]) -> Rendered:
    """The same with these pods, by role."""
    roles = tuple(
        dataclasses.replace(role, owner=_with_template(role.owner, templates[role.name]))
        for role in rendered.roles
    )
    return dataclasses.replace(rendered, roots=tuple(r.owner for r in roles), roles=roles)


def _with_template(owner: JsonObject, template: JsonObject) -> JsonObject:
    spec = json_object(owner["spec"])
    worker = {**json_object(json_object(spec[_SPECS])[_WORKER]), "template": template}
    return {**owner, "spec": {**spec, _SPECS: {_WORKER: worker}}}


def as_job(owner: Json) -> JsonObject:
    """With each field of its policy and of its replicas by its path, so that one more shows."""
    spec = json_object(owner.get("spec"))
    policy, specs = json_object(spec.get("runPolicy")), json_object(spec.get(_SPECS))
    worker = json_object(specs.get(_WORKER))
    found: JsonObject = {k: v for k, v in spec.items() if k not in ("runPolicy", _SPECS)}
    found |= {f"runPolicy.{k}": v for k, v in policy.items() if k != "suspend"}
    found |= {f"{_SPECS}.{kind}": v for kind, v in specs.items() if kind != _WORKER}
    found |= {f"{_SPECS}.{_WORKER}.{k}": v for k, v in worker.items() if k != "template"}
    found |= {"suspend": is_suspended(owner), "template": worker.get("template")}
    return {**owner, "spec": found}


def root_names(job: str, owners: Sequence[tuple[str, str]]) -> tuple[str, ...]:  # noqa: ARG001
    """Each PyTorchJob is a root."""
    return tuple(name for _, name in owners)


def added(role: BoundRole) -> Marks:
    """What the operator writes on the pods."""
    labels = {
        **KUBEFLOW_PYTORCHJOBS,
        f"{KUBEFLOW}job-name": role.object_name,
        f"{KUBEFLOW}replica-type": _WORKER.lower(),
    }
    first = {f"{KUBEFLOW}job-role": "master"}
    pods = OwnPods(KUBEFLOW_INDEX, f"{role.object_name}-{_WORKER.lower()}-", first)
    return Marks(labels, env=_written(role.template, role.replicas), pods=pods)


def root_changes(wanted: Json, live: Json) -> Iterator[tuple[str, JsonValue, JsonValue]]:  # noqa: ARG001
    """Nothing: a PyTorchJob owns its pods."""
    yield from ()


def observe(role: str, replicas: int, owner: Json) -> RoleStatus:
    """Pod counts as the operator reports them. It counts a pod as active once its trainer runs."""
    counts = _counts(owner)

    def count(field: str) -> int:
        value = counts.get(field)
        return value if isinstance(value, int) else 0

    return RoleStatus(
        name=role,
        replicas=replicas,
        active=count("active"),
        ready=count("active"),
        succeeded=count("succeeded"),
        failed=count("failed"),
    )


def _counts(owner: Json) -> JsonObject:
    status = json_object(owner.get("status"))
    return json_object(json_object(status.get("replicaStatuses")).get(_WORKER))


def outcome(root: Json) -> tuple[str, str] | None:
    """``("Complete" | "Failed", message)`` once the PyTorchJob has ended, else None."""
    for condition in json_objects(json_object(root.get("status")).get("conditions")):
        if condition.get("type") in _ENDS and condition.get("status") == "True":
            return _ENDS[str(condition["type"])], str(condition.get("message", ""))
    return None


def is_suspended(root: Json) -> bool:
    """Whether it is to have no pods."""
    return bool(json_object(json_object(root.get("spec")).get("runPolicy")).get("suspend"))


def running(root: JsonObject) -> JsonObject | None:  # noqa: ARG001
    """None: for its operator a pod that was refused is a step of the job that failed."""
    return None


def suspension(suspended: bool) -> JsonObject:
    """A merge patch."""
    return {"spec": {"runPolicy": {"suspend": suspended}}}


def is_idle(owner: Json) -> bool:
    """Whether it is suspended and the operator has seen so, and counts no pod any more."""
    stopped = jobs.has_stopped(json_object(owner.get("status")))
    return is_suspended(owner) and stopped and not _counts(owner).get("active")


def is_ending(owner: Json) -> bool:
    """Whether it has ended: its status says so before the operator deletes a pod."""
    return outcome(owner) is not None


def pods_at(obj: Json, role: str) -> str:  # noqa: ARG001
    """It has one template."""
    return f"/spec/{_SPECS}/{_WORKER}/template/spec"
