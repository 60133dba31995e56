"""TrainJobs, runtimes and JobSets of runs, kept by the API server alone: no webhook answers.

The kinds are stand-ins that take any field, so that what the schemas of one version refuse does not
hide what the floor does. Nothing reconciles them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import CommandError
from tests.integration.chart.conftest import CONTROLLER, ApiServer, Object
from tests.integration.chart.floored import DEV, floored

TEAM, AUDITED = "trainer-team", "trainer-audited"
TRAINER = "system:serviceaccount:kubeflow-system:trainer"
JOBSET = "system:serviceaccount:jobset-system:jobset"
QUEUE = "system:serviceaccount:kueue-system:kueue-controller-manager"
OURS = f"--as={CONTROLLER}"
KINDS = {
    "JobSet": ("jobset.x-k8s.io", "v1alpha2", "jobsets", "Namespaced"),
    "TrainJob": ("trainer.kubeflow.org", "v1alpha1", "trainjobs", "Namespaced"),
    "TrainingRuntime": ("trainer.kubeflow.org", "v1alpha1", "trainingruntimes", "Namespaced"),
    "ClusterTrainingRuntime": (
        "trainer.kubeflow.org", "v1alpha1", "clustertrainingruntimes", "Cluster",
    ),
}  # fmt: skip
LABELS = {"trainseal.dev/job": "char-lm", "trainseal.dev/seal": "char-lm-1"}
GPU = {"limits": {"nvidia.com/gpu": "1"}}
VALUES = (
    "engines.jobSet.enabled=true",
    f"engines.jobSet.controller={JOBSET}",
    "engines.trainJob.enabled=true",
    f"engines.trainJob.controller={TRAINER}",
    f"floor.jobParents={{{QUEUE}}}",
)
Send = Callable[[], object]


@pytest.fixture(scope="module")
def world(server: ApiServer, helm: Path) -> Iterator[ApiServer]:
    """A team, and another whose policy only audits; all of them may do all with these kinds."""
    told = {"team": "Enforce\n^(trainer-team)$\n^()$", "all": "Audit\n^(.*)$\n^(trainer-team)$"}
    group = "rbac.authorization.k8s.io"
    groups = ["jobset.x-k8s.io", "trainer.kubeflow.org"]
    users = [DEV.removeprefix("--as="), TRAINER, JOBSET, QUEUE]
    made: list[Object] = [
        *(definition(kind) for kind in KINDS),
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "trainer-kinds"},
            "rules": [{"apiGroups": groups, "resources": ["*"], "verbs": ["*"]}],
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "trainer-kinds"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "trainer-kinds"},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user} for user in users],
        },
    ]
    kinds = json.dumps({"apiVersion": "v1", "kind": "List", "items": made})
    server.kubectl("apply", "-f", "-", stdin=kinds)
    for kind in KINDS:
        name = f"crd/{definition(kind)['metadata']['name']}"
        server.kubectl("wait", name, "--for=condition=Established", "--timeout=30s")
    try:
        with floored(server, helm, (TEAM, AUDITED), [QUEUE], told, *VALUES):
            server.until_refused(trainjob("probe", labels=LABELS), "trainseal-trainjobs", DEV)
            server.until_refused(jobset("probe", labels=LABELS), "trainseal-jobsets", DEV)
            server.until_accepted(trainjob("probe", namespace=AUDITED, gpus=1), DEV)
            yield server
    finally:
        server.kubectl("delete", "-f", "-", "--wait=false", stdin=kinds)


def definition(kind: str) -> Object:
    """A kind that takes any field."""
    group, version, plural, scope = KINDS[kind]
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "scope": scope,
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": anything},
                }
            ],
        },
    }


def named(kind: str, name: str, namespace: str, labels: Object | None) -> Object:
    group, version, _, scope = KINDS[kind]
    metadata: Object = {"name": name, "labels": dict(labels or {})}
    if scope == "Namespaced":
        metadata["namespace"] = namespace
    return {"apiVersion": f"{group}/{version}", "kind": kind, "metadata": metadata}


def trainjob(
    name: str,
    runtime: str = "torch",
    namespace: str = TEAM,
    labels: Object | None = None,
    gpus: int = 0,
) -> Object:
    """A TrainJob that names a runtime."""
    spec: Object = {"runtimeRef": {"name": runtime, "kind": "TrainingRuntime"}}
    if gpus:
        spec["trainer"] = {"resourcesPerNode": GPU}
    return named("TrainJob", name, namespace, labels) | {"spec": spec}


def replicated(labels: Object | None = None, gpus: int = 0) -> Object:
    """A Job of a JobSet, as it and runtimes hold one."""
    container = {"name": "main", "image": "x", "resources": GPU if gpus else {}}
    pod = {"metadata": {"labels": dict(labels or {})}, "spec": {"containers": [container]}}
    return {"name": "worker", "template": {"spec": {"template": pod}}}


def runtime(name: str, kind: str = "TrainingRuntime", labels: Object | None = None) -> Object:
    """A runtime; the labels are its own."""
    spec = {"template": {"spec": {"replicatedJobs": [replicated()]}}}
    return named(kind, name, TEAM, labels) | {"spec": spec}


def jobset(name: str, labels: Object | None = None, owner: str = "", gpus: int = 0) -> Object:
    """A JobSet, of a TrainJob of that name where one is given."""
    found = named("JobSet", name, TEAM, labels)
    if owner:
        found["metadata"]["ownerReferences"] = [
            {
                "apiVersion": "trainer.kubeflow.org/v1alpha1",
                "kind": "TrainJob",
                "name": owner,
                "uid": "1",
                "controller": True,
            }
        ]
    return found | {"spec": {"suspend": True, "replicatedJobs": [replicated(labels, gpus)]}}


def _by_its_own_label(made: Object) -> None:
    made["metadata"]["labels"] = LABELS


def _by_labels_of_the_jobset(made: Object) -> None:
    made["spec"]["template"]["metadata"] = {"labels": LABELS}


def _by_labels_of_a_job(made: Object) -> None:
    (part,) = made["spec"]["template"]["spec"]["replicatedJobs"]
    part["template"]["metadata"] = {"labels": LABELS}


def _by_labels_of_pods(made: Object) -> None:
    (part,) = made["spec"]["template"]["spec"]["replicatedJobs"]
    part["template"]["spec"]["template"]["metadata"]["labels"] = LABELS


@pytest.mark.parametrize("kind", ["TrainingRuntime", "ClusterTrainingRuntime"])
@pytest.mark.parametrize(
    "forge",
    [_by_its_own_label, _by_labels_of_the_jobset, _by_labels_of_a_job, _by_labels_of_pods],
)
def test_a_runtime_of_which_what_is_made_would_pass_for_a_runs_is_refused(
    world: ApiServer, forge: Callable[[Object], None], kind: str
) -> None:
    made = runtime("mine", kind)
    assert world.refusal(made, DEV) == ""
    forge(made)
    said = world.refusal(made, DEV)
    assert "trainseal-trainjobs" in said
    assert "found creator dev@example.org" in said
    assert world.refusal(made, f"--as={TRAINER}") != "", "nor does the trainer make one"


def _with_labels_for_the_jobset(spec: Object) -> None:
    spec["labels"] = LABELS


def _with_labels_for_pods_as_later_trainers_take_them(spec: Object) -> None:
    spec["podTemplateOverrides"] = [{"targetJobs": [], "metadata": {"labels": LABELS}}]


def _with_a_runs_runtime(spec: Object) -> None:
    spec["runtimeRef"]["name"] = "trainseal-char-lm"


@pytest.mark.parametrize(
    "forge",
    [
        _with_labels_for_the_jobset,
        _with_labels_for_pods_as_later_trainers_take_them,
        _with_a_runs_runtime,
    ],
)
def test_a_trainjob_of_which_what_is_made_would_pass_for_a_runs_is_refused(
    world: ApiServer, forge: Callable[[Object], None]
) -> None:
    made = trainjob("mine")
    assert world.refusal(made, DEV) == ""
    forge(made["spec"])
    said = world.refusal(made, DEV)
    assert "trainseal-trainjobs" in said
    assert "take the labels trainseal.dev/* off it, name another runtime" in said


def test_a_runtime_of_a_runs_name_is_ours_alone(world: ApiServer) -> None:
    made = runtime("trainseal-char-lm")
    assert "trainseal-trainjobs" in world.refusal(made, DEV)
    assert world.refusal(made, OURS) == ""


def test_a_trainjob_that_asks_for_gpus_is_refused_where_a_policy_enforces(
    world: ApiServer,
) -> None:
    assert "TrainJob trainer-team/mine asks for GPUs" in world.refusal(
        trainjob("mine", gpus=1), DEV
    )
    assert world.refusal(trainjob("mine"), DEV) == ""
    assert world.refusal(trainjob("mine", namespace=AUDITED, gpus=1), DEV) == ""


@pytest.mark.parametrize(
    ("who", "owner", "allowed"),
    [
        (TRAINER, "char-lm", True),
        (TRAINER, "", False),
        (TRAINER, "another", False),
        ("dev@example.org", "char-lm", False),
        (JOBSET, "char-lm", False),
        (CONTROLLER, "", True),
    ],
)
def test_a_runs_jobset_is_made_by_us_or_by_the_trainer_for_a_trainjob_of_its_name(
    world: ApiServer, who: str, owner: str, allowed: bool
) -> None:
    said = world.refusal(jobset("char-lm", LABELS, owner, gpus=1), f"--as={who}")
    assert (said == "") == allowed, said


def test_a_jobset_without_our_labels_that_asks_for_gpus_is_refused_to_the_trainer_too(
    world: ApiServer,
) -> None:
    """So a TrainJob whose runtime asks for them is no way around signatures."""
    trainer = f"--as={TRAINER}"
    assert "asks for GPUs" in world.refusal(jobset("mine", None, "mine", gpus=1), trainer)
    assert world.refusal(jobset("mine", None, "mine"), trainer) == ""


@pytest.fixture
def run(world: ApiServer) -> Iterator[dict[str, Object]]:
    """What a run is made of, by kind."""
    found = {
        "TrainingRuntime": runtime("trainseal-char-lm", labels=LABELS),
        "TrainJob": trainjob("char-lm", "trainseal-char-lm", labels=LABELS),
        "JobSet": jobset("char-lm", LABELS, "char-lm", gpus=1),
    }
    # What it belongs to is there, or the garbage collector takes it.
    whole: Object = {"apiVersion": "v1", "kind": "ConfigMap"}
    whole["metadata"] = {"name": "run", "namespace": TEAM}
    owner = reference(world.create(whole))
    for kind in ("TrainingRuntime", "TrainJob"):
        found[kind]["metadata"]["ownerReferences"] = [owner]
    world.create(found["TrainingRuntime"], OURS)
    made = world.create(found["TrainJob"], OURS)
    found["JobSet"]["metadata"]["ownerReferences"] = [reference(made) | {"controller": True}]
    world.create(found["JobSet"], f"--as={TRAINER}")
    try:
        yield found
    finally:
        for obj in (*found.values(), whole):
            world.delete(obj)


def reference(owner: Object) -> Object:
    """To an object, as an owner reference."""
    metadata = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }


SUSPENDED: Object = {"spec": {"suspend": False}}
CHANGES: dict[str, Object] = {
    "its spec": SUSPENDED,
    "its labels": {"metadata": {"labels": {"trainseal.dev/job": None}}},
    "its owner": {"metadata": {"ownerReferences": None}},
    "another finalizer": {"metadata": {"finalizers": ["example.org/stay"]}},
}


@pytest.mark.parametrize("kind", ["TrainingRuntime", "TrainJob", "JobSet"])
@pytest.mark.parametrize("part", CHANGES)
def test_an_editor_changes_nothing_of_it_but_what_nobody_reads(
    world: ApiServer, run: dict[str, Object], kind: str, part: str
) -> None:
    with pytest.raises(CommandError) as refused:
        world.patch(run[kind], CHANGES[part], DEV)
    assert "belongs to TrainSeal: found a change of" in refused.value.stderr
    assert part in refused.value.stderr
    world.patch(run[kind], {"metadata": {"annotations": {"note": "mine"}}}, DEV)
    if part != "its owner":
        world.patch(run[kind], CHANGES[part], OURS, "--dry-run=server")


@pytest.mark.parametrize(("kind", "writer"), [("TrainJob", TRAINER), ("JobSet", JOBSET)])
def test_how_it_ended_its_controller_alone_says(
    world: ApiServer, run: dict[str, Object], kind: str, writer: str
) -> None:
    ended = {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    for who in {DEV.removeprefix("--as="), TRAINER, JOBSET} - {writer}:
        with pytest.raises(CommandError, match="found a change of its status by"):
            world.patch(run[kind], ended, f"--as={who}", "--subresource=status")
    world.patch(run[kind], ended, f"--as={writer}", "--subresource=status")


def test_the_status_of_a_trainjob_of_others_is_nobodys_business(world: ApiServer) -> None:
    plain = trainjob("plain")
    world.create(plain, DEV)
    ended = {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    world.patch(plain, ended, DEV, "--subresource=status")
    world.delete(plain)


def test_the_trainer_does_its_part_and_no_more(world: ApiServer, run: dict[str, Object]) -> None:
    """It keeps a runtime that is used, and suspends and resumes the JobSet."""
    trainer = f"--as={TRAINER}"
    keeps = {"metadata": {"finalizers": ["trainer.kubeflow.org/resource-in-use"]}}
    world.patch(run["TrainingRuntime"], keeps, trainer)
    written_whole = {"spec": {"template": {"metadata": {"creationTimestamp": "null"}}}}
    world.patch(run["TrainingRuntime"], written_whole, trainer)
    world.patch(run["TrainingRuntime"], {"metadata": {"finalizers": None}}, trainer)
    world.patch(run["JobSet"], SUSPENDED, trainer)
    for kind, change in (
        ("TrainJob", SUSPENDED),
        ("TrainingRuntime", CHANGES["its labels"]),
        ("TrainingRuntime", CHANGES["its owner"]),
        ("JobSet", CHANGES["its labels"]),
    ):
        with pytest.raises(CommandError, match="belongs to TrainSeal"):
            world.patch(run[kind], change, trainer)


def test_a_queue_that_is_named_suspends_and_resumes_the_trainjob(
    world: ApiServer, run: dict[str, Object]
) -> None:
    world.patch(run["TrainJob"], SUSPENDED, f"--as={QUEUE}")
    label = {"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "mine"}}}
    with pytest.raises(CommandError, match="its labels or annotations kueue"):
        world.patch(run["TrainJob"], label, DEV)
    world.patch(run["TrainJob"], label, f"--as={QUEUE}")


def test_a_jobset_of_anothers_does_not_become_a_runs(world: ApiServer) -> None:
    """As an editor would have it, who writes down the run's own before the trainer does."""
    owner = trainjob("first")
    own = jobset("first")
    made = world.create(owner, DEV)
    own["metadata"]["ownerReferences"] = [reference(made) | {"controller": True}]
    world.create(own, DEV)
    try:
        with pytest.raises(CommandError, match="trainseal-jobsets"):
            world.patch(own, {"metadata": {"labels": LABELS}}, f"--as={TRAINER}")
    finally:
        world.delete(own)
        world.delete(owner)


def test_nobody_leaves_behind_what_was_made_of_it(world: ApiServer, run: dict[str, Object]) -> None:
    words = ("delete", "-n", TEAM, "--cascade=orphan", "--wait=false", DEV)
    for kind in run:
        with pytest.raises(CommandError, match="leave --cascade=orphan out"):
            world.kubectl(*words, kind, run[kind]["metadata"]["name"])
