"""Group *Around the gate*: ways to a GPU, or into a sealed pod, past what was signed."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable

from tests.attacks.case import Attack, Case, NotTried, Refused, Told
from tests.attacks.cases_api import GATE, kubectl, on_record, pod
from tests.attacks.scene import Scene
from tests.attacks.submitting import refused, submit
from tests.cluster import CommandError
from tests.e2e.lab import TEAM, Lab, Object, changed
from tests.stage.jobs import trainer
from tests.stage.signing import signed
from tests.stage.waiting import eventually

_ROBOT = f"system:serviceaccount:{TEAM}:robot"
_GPU: Object = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
_ACCEL = "accel.example/card"


# Pods and what makes them ------------------------------------------------------------------------


def _bare(lab: Lab, **spec: object) -> Object:
    """A pod without a GPU; the keywords go into its spec."""
    made = pod(lab, 0)
    made["spec"] |= spec
    return made


def _init(lab: Lab) -> Object:
    return _bare(lab, initContainers=[{"name": "init", "image": lab.image, **_GPU}])


def _limit_alone(lab: Lab) -> Object:
    made = pod(lab, 1)
    made["spec"]["containers"][0]["resources"]["requests"] = {"cpu": "10m"}
    return made


def _claim(lab: Lab) -> Object:
    claims = [{"name": "gpu", "resourceClaimTemplateName": "single-gpu"}]
    return _bare(lab, resourceClaims=claims)


def _of_a_class(lab: Lab) -> Object:
    """By the name that a DeviceClass gives its devices."""
    made = pod(lab, 0)
    made["spec"]["containers"][0]["resources"] = {"limits": {_ACCEL: 1}}
    return made


def _device_class(scene: Scene) -> None:
    """The administrator's class; then the editor's pod."""
    obj: Object = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "DeviceClass",
        "metadata": {"name": "accel.example"},
        "spec": {"extendedResourceName": _ACCEL},
    }
    scene.lab.admin("apply", "-f", "-", stdin=obj)
    asks = _of_a_class(scene.lab)
    eventually(lambda: bool(scene.lab.answer(asks)), "the floor knows the class's name")
    submit(scene.lab, asks)


def _another_resource(lab: Lab) -> Object:
    made = _of_a_class(lab)
    made["spec"]["containers"][0]["resources"] = {"limits": {"disk.example/ssd": 1}}
    return made


def _job(lab: Lab, gpus: int, metadata: Object | None = None) -> Object:
    template = {"spec": {**pod(lab, gpus)["spec"], "restartPolicy": "Never"}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "mallory", "namespace": TEAM, **(metadata or {})},
        "spec": {"template": template, "suspend": True},
    }


def _owned(scene: Scene) -> None:
    """A Job for a GPU that says it belongs to the run's TrainingJob."""
    job = scene.lab.get("trainingjob", scene.job["metadata"]["name"], scene.namespace)
    owner = {k: job[k] for k in ("apiVersion", "kind")} | {"controller": True}
    owner |= {k: job["metadata"][k] for k in ("name", "uid")}
    submit(scene.lab, _job(scene.lab, 1, {"ownerReferences": [owner]}))


# Copies of a sealed pod ---------------------------------------------------------------------------


def _copy(scene: Scene, *kept: str) -> Object:
    """The worker once more, under another name, with these parts of its metadata."""
    made = {k: copy.deepcopy(scene.pod[k]) for k in ("apiVersion", "kind", "spec")}
    made["spec"].pop("nodeName", None)
    metadata = {k: copy.deepcopy(scene.pod["metadata"][k]) for k in kept}
    for owner in metadata.get("ownerReferences", ()):
        owner["blockOwnerDeletion"] = False
    made["metadata"] = {"name": "mallory", "namespace": scene.namespace, **metadata}
    found: Object = made
    return found


def _copied(*kept: str) -> Attack:
    def do(scene: Scene) -> None:
        submit(scene.lab, _copy(scene, *kept))

    return do


# Ways in ------------------------------------------------------------------------------------------


def _robot(lab: Lab) -> None:
    """A workload's account that may do what an editor may."""
    words = ("create", "serviceaccount", "robot", "-n", TEAM, "--dry-run=client", "-o", "json")
    lab.admin("apply", "-f", "-", stdin=json.loads(lab.admin(*words)))
    binding = (
        *("create", "rolebinding", "robot", "-n", TEAM, "--clusterrole=edit"),
        *(f"--serviceaccount={TEAM}:robot", "--dry-run=client", "-o", "json"),
    )
    lab.admin("apply", "-f", "-", stdin=json.loads(lab.admin(*binding)))


def _exec_as(scene: Scene, *flags: str) -> None:
    words = ("exec", scene.name, "-c", "trainer", "--", "true")

    def judged() -> bool:
        """RBAC reaches the API server by watch."""
        try:
            scene.lab.kubectl(*flags, *words, namespace=scene.namespace)
        except CommandError as error:
            return "cannot create resource" not in error.stderr
        return True

    eventually(judged, "the account may exec, as far as RBAC goes")
    scene.lab.kubectl(*flags, *words, namespace=scene.namespace)


def _impersonates(scene: Scene) -> None:
    _robot(scene.lab)
    _exec_as(scene, f"--as={_ROBOT}")


def _mints_a_token(scene: Scene) -> None:
    """The editor asks for a token of the account, and comes with nothing else."""
    _robot(scene.lab)
    token = scene.lab.kubectl("create", "token", "robot", namespace=scene.namespace).strip()
    target = scene.lab.target
    text = target.kubectl(
        "config", "view", "--raw", "--minify", "--flatten", "-o", "json",
        kubeconfig=scene.lab.editor,
    )  # fmt: skip
    config = json.loads(text)
    for entry in config["users"]:
        entry["user"] = {"token": token}
    path = scene.lab.folder / "robot.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(json.dumps(config))
    words = ("-n", scene.namespace, "exec", scene.name, "-c", "trainer", "--", "true")
    target.kubectl(*words, kubeconfig=path)


def _exec(scene: Scene) -> float:
    scene.lab.kubectl(
        *("exec", scene.name, "-c", "trainer", "--", "true"), namespace=scene.namespace
    )
    assert on_record(scene, "Exec")
    return 0.0


def _with_the_right(name: str, resource: str, ask: Attack) -> Attack:
    """With the right to: no team's role has it by itself."""

    def do(scene: Scene) -> None:
        words = (
            *("create", "role", name, "-n", TEAM, "--verb=get", "--verb=patch"),
            *(f"--resource={resource}", "--dry-run=client", "-o", "json"),
        )
        scene.lab.admin("apply", "-f", "-", stdin=json.loads(scene.lab.admin(*words)))
        binding = (
            *("create", "rolebinding", name, "-n", TEAM, f"--role={name}"),
            *("--user=mallory@example.org", "--dry-run=client", "-o", "json"),
        )
        scene.lab.admin("apply", "-f", "-", stdin=json.loads(scene.lab.admin(*binding)))

        def judged() -> bool:
            try:
                ask(scene)
            except CommandError as error:
                # kubectl reads a subresource before it patches it.
                return not re.search(r"cannot (get|patch) resource", error.stderr)
            return True

        eventually(judged, f"the editor may patch {resource}, as far as RBAC goes")
        ask(scene)

    return do


def _resizes(name: str, container: str) -> Attack:
    """To a hundredth of a processor: the worker crawls, and all others wait for it."""
    tiny = {"name": container, "resources": {"requests": {"cpu": "10m"}, "limits": {"cpu": "10m"}}}
    words = ("patch", "pod", name, "--subresource=resize")
    return kubectl(*words, "-p", json.dumps({"spec": {"containers": [tiny]}}))


def _resizes_its_own(scene: Scene) -> None:
    own = pod(scene.lab, 0)
    own["metadata"]["name"] = "resized"
    own["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "20m"}}
    scene.lab.kubectl("create", "-f", "-", stdin=own)
    try:
        _with_the_right("resize", "pods/resize", _resizes("resized", "main"))(scene)
    finally:
        scene.lab.kubectl("delete", "pod", "resized", "--grace-period=1", "--wait=false")


def _forges(scene: Scene) -> None:
    """As the cluster's administrator: an editor has no right to try."""
    seal = scene.lab.get("sealedrun", scene.seal, scene.namespace)
    forged = {k: seal[k] for k in ("apiVersion", "kind", "spec")}
    forged["metadata"] = {"name": "forged", "namespace": scene.namespace}
    scene.lab.admin("create", "-f", "-", stdin=forged)


def _edits_the_seal(scene: Scene) -> None:
    scene.lab.admin(
        "patch", "sealedrun", scene.seal, "-n", scene.namespace, "--type=merge",
        "-p", '{"spec": {"run": 7}}',
    )  # fmt: skip


# Jobs that lead elsewhere -------------------------------------------------------------------------


def _signed_with(change: Callable[[Object], None]) -> Callable[[Lab], Object]:
    return lambda lab: signed(changed(lab.job("gate"), change), lab.alice)


def _script_elsewhere(job: Object) -> None:
    trainer(job)["command"] = ["bash", "/checkpoints/run.sh"]


def _script_in_code(job: Object) -> None:
    trainer(job)["command"] = ["bash", "/workspace/run.sh"]


def _inner_address(job: Object) -> None:
    trainer(job)["image"] = "169.254.169.254/latest/meta-data@sha256:" + "0" * 64


def _nothing(job: Object) -> None:
    del job


def _case(name: str, field: str, says: str, bad: Attack, good: Attack, good_name: str) -> Case:
    return Case(GATE, name, field, Refused(says), bad, good, good_name)


CASES = (
    refused(
        GATE, "GPU asked for by an init container", "T1610", "asks for nvidia.com/gpu",
        _init, lambda lab: _bare(lab, initContainers=[{"name": "init", "image": lab.image}]),
        "an init container without a GPU",
    ),
    refused(
        GATE, "GPU asked for by a limit alone", "T1610", "asks for nvidia.com/gpu",
        _limit_alone, _another_resource, "another extended resource",
    ),
    refused(
        GATE, "GPU by a resource claim", "T1610", "claims a device", _claim,
        lambda lab: pod(lab, 0), "a pod that claims nothing",
    ),
    _case(
        "GPU by a DeviceClass's extended-resource name", "T1610", "a device by its DeviceClass",
        _device_class, lambda s: submit(s.lab, _another_resource(s.lab)), "a resource of no class",
    ),
    refused(
        GATE, "GPU Job", "T1610", "make it a TrainingJob",
        lambda lab: _job(lab, 1), lambda lab: _job(lab, 0), "a Job without a GPU",
    ),
    _case(
        "GPU Job with the owner reference of a run's", "T1036", "make it a TrainingJob",
        _owned, lambda s: submit(s.lab, _job(s.lab, 0)), "a Job of the team's own",
    ),
    _case(
        "pod with a sealed pod's owner reference", "T1036", "expected the Job controller",
        _copied("ownerReferences"), lambda s: submit(s.lab, pod(s.lab, 0)), "one without an owner",
    ),
    _case(
        "second pod with the same index", "T1036", "expected the Job controller",
        _copied("labels", "annotations", "ownerReferences"),
        lambda s: submit(s.lab, pod(s.lab, 0, {"app": "notebook"})), "one of the team's own",
    ),
    _case(
        "Job of a run scaled to nothing", "T1489", "a change of its spec",
        kubectl("patch", "job", "@JOB-worker", "--type=merge",
                "-p", '{"spec": {"parallelism": 0}}'),
        kubectl("annotate", "job", "@JOB-worker", "example.org/note=harmless"), "an annotation",
    ),
    _case(
        "Job of a run suspended past its TrainingJob", "T1489", "a change of its spec",
        kubectl("patch", "job", "@JOB-worker", "--type=merge", "-p", '{"spec": {"suspend": true}}'),
        kubectl("get", "job", "@JOB-worker", "-o", "yaml"), "it is read",
    ),
    _case(
        "label of a run's Job changed", "T1036", "a change of its labels",
        kubectl("label", "job", "@JOB-worker", "trainseal.dev/seal=other", "--overwrite"),
        kubectl("label", "job", "@JOB-worker", "team=blue", "--overwrite"), "another label",
    ),
    Case(
        GATE, "kubectl exec", "T1609", Told("access record: Exec, by name"), _exec,
        kubectl("logs", "@POD", "-c", "trainer", "--tail=1"), "the last line of the log",
    ),
    _case(
        "exec as a workload's service account, by impersonation", "T1078.004",
        "does not name this service account", _impersonates,
        kubectl("auth", "can-i", "get", "pods"), "asked what one may do",
    ),
    _case(
        "exec as a workload's service account, by a minted token", "T1078.004",
        "does not name this service account", _mints_a_token,
        kubectl("auth", "whoami"), "asked who one is",
    ),
    _case(
        "debug container (kubectl debug), with the right to it", "T1609",
        "access.ephemeralContainers is Deny",
        _with_the_right(
            "debug", "pods/ephemeralcontainers",
            kubectl("debug", "@POD", "--image=@IMAGE", "-c", "mallory", "--", "sleep", "1"),
        ),
        kubectl("describe", "pod", "@POD"), "the pod described",
    ),
    _case(
        "worker resized in place, with the right to it", "T1489", "access.resize is Deny",
        _with_the_right("resize", "pods/resize", _resizes("@POD", "trainer")),
        _resizes_its_own, "a pod of the team's own resized",
    ),
    _case(
        "kubectl debug of the node", "T1611", "orbidden",
        lambda s: s.lab.kubectl("debug", f"node/{s.pod['spec']['nodeName']}", "--image=busybox",
                                namespace=s.namespace),
        kubectl("get", "pods", "-o", "wide"), "pods listed with their nodes",
    ),
    _case(
        "ConfigMap of a run edited", "T1565", "mmutable",
        kubectl("patch", "configmap", "@SEAL-config", "--type=merge",
                "-p", '{"data": {"config.json": "{}"}}'),
        kubectl("get", "configmap", "@SEAL-config"), "it is read",
    ),
    _case(
        "NetworkPolicy of a run opened", "T1562", "a change of what it says",
        kubectl("patch", "networkpolicy", "@SEAL", "--type=merge",
                "-p", '{"spec": {"ingress": [{}]}}'),
        kubectl("get", "networkpolicy", "@SEAL"), "it is read",
    ),
    _case(
        "forged seal, by an administrator", "T1562", "evidence is written", _forges,
        kubectl("get", "sealedruns"), "seals listed",
    ),
    _case(
        "seal edited, by an administrator", "T1562", "written once", _edits_the_seal,
        kubectl("get", "sealedrun", "@SEAL", "-o", "yaml"), "the seal read",
    ),
    refused(
        GATE, "bash of a file on a writable mount, signed once", "T1059", "in a writable mount",
        _signed_with(_script_elsewhere), _signed_with(_script_in_code), "of a file in signed code",
    ),
    refused(
        GATE, "registry chosen to have an inner address called", "T1090", "was not contacted",
        _signed_with(_inner_address), _signed_with(_nothing), "a registry that the policy allows",
    ),
    _case(
        "webhook scaled to zero", "T1562.001", "orbidden",
        lambda s: s.lab.kubectl("scale", "deployment", "trainseal-webhook", "--replicas=0",
                                namespace="trainseal-system"),
        kubectl("get", "deployments"), "deployments of one's own listed",
    ),
    _case(
        "webhook configuration edited", "T1562.001", "orbidden",
        kubectl("delete", "validatingwebhookconfiguration", "trainseal"),
        kubectl("api-resources", "--api-group=trainseal.dev"), "kinds listed",
    ),
    Case(
        GATE, "NVIDIA_VISIBLE_DEVICES in the image's environment", "T1610",
        NotTried("NVIDIA's container toolkit; the threat model says what guards it"),
    ),
    Case(
        GATE, "CPU-only pod joining the rendezvous", "T1557",
        NotTried("trainings that listen: tests/e2e/test_network.py has some, and tries it"),
    ),
    Case(
        GATE, "static pod", "T1610", NotTried("a kubelet that reads manifests from its disk"),
    ),
)  # fmt: skip
