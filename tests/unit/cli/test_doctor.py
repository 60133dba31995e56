"""`trainseal doctor`: each piece that can be missing, and what to do about it."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from tests.unit import world
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_kube import FakeKube, connecting_to
from trainseal.api import crd
from trainseal.api.crd import all_crds
from trainseal.cli.checkup import JOB_CONTROLLER, KINDS, SHARED_IDENTITY
from trainseal.cluster import api
from trainseal.cluster.api import KubeError
from trainseal.controller.certificate_rotation import issue

GROUP = "/apis/trainseal.dev/v1alpha1"
HOOKS = "/apis/admissionregistration.k8s.io/v1"
VALIDATING = f"{HOOKS}/validatingwebhookconfigurations/trainseal"
SYSTEM = "/api/v1/namespaces/trainseal-system/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/trainseal-system/deployments"
ACCOUNT = "/api/v1/namespaces/kube-system/serviceaccounts/job-controller"


NAMESPACES, PODS = "/api/v1/namespaces", "/api/v1/pods"
DAEMONSETS = "/apis/apps/v1/daemonsets"
QUEUE = "system:serviceaccount:kueue-system:kueue-controller-manager"
QUEUE_ACCOUNT = "/api/v1/namespaces/kueue-system/serviceaccounts/kueue-controller-manager"
FLOOR = f"{HOOKS}/validatingadmissionpolicies/trainseal-pods"
BINDING = f"{HOOKS}/validatingadmissionpolicybindings/trainseal-pods"
RULES: list[Any] = [
    {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "trainseal-floor"}},
    {
        "kind": "ValidatingWebhookConfiguration",
        "apiVersion": "admissionregistration.k8s.io/v1",
        "metadata": {"name": "trainseal"},
        "webhooks": [{"name": "x", "clientConfig": {}, "failurePolicy": "Fail"}],
    },
    {
        "kind": "ValidatingAdmissionPolicy",
        "apiVersion": "admissionregistration.k8s.io/v1",
        "metadata": {"name": "trainseal-pods"},
        "spec": {"failurePolicy": "Fail", "matchConstraints": {"resourceRules": [{"a": ["b"]}]}},
    },
    {
        "kind": "ValidatingAdmissionPolicyBinding",
        "apiVersion": "admissionregistration.k8s.io/v1",
        "metadata": {"name": "trainseal-pods"},
        "spec": {"validationActions": ["Deny"]},
    },
    {
        "kind": "Role",
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": "trainseal-controller", "namespace": "trainseal-system"},
        "rules": [{"verbs": ["get"]}],
    },
]
ROLE = "/apis/rbac.authorization.k8s.io/v1/namespaces/trainseal-system/roles/trainseal-controller"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
#: As the API server shows the same: with its defaults.
LIVE = {
    "resourceRules": [{"a": ["b"], "scope": "*"}],
    "matchPolicy": "Equivalent",
    "namespaceSelector": {},
    "objectSelector": {},
}


def floor(**constraints: Any) -> Any:
    return {"spec": {"failurePolicy": "Fail", "matchConstraints": LIVE | constraints}}


#: The API server's clock, and the webhook's authority, which is trusted for three months.
AT = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
AUTHORITY = base64.b64encode(issue(["localhost"], AT).authority).decode()
REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/trainseal-system/leases"
DENIED = 'admission webhook "trainingjobs.trainseal.dev" denied the request: no signature found'


def hook(**fields: Any) -> Any:
    client = {"caBundle": AUTHORITY}
    return {"name": "x", "clientConfig": client, "failurePolicy": "Fail"} | fields


def lease(node: str = "node-1", ago: float = 1) -> Any:
    renewed = (AT - timedelta(seconds=ago)).isoformat().replace("+00:00", "Z")
    return {"metadata": {"name": f"trainseal-agent-{node}"}, "spec": {"renewTime": renewed}}


def gpu_pod(namespace: str = "research", node: str = "node-1") -> Any:
    limits = {"limits": {"nvidia.com/gpu": "1"}}
    return {
        "metadata": {"name": "p", "namespace": namespace},
        "spec": {"nodeName": node, "containers": [{"resources": limits}]},
    }


def namespace(name: str = "research", labels: Any = None, **more: Any) -> Any:
    secure = {"pod-security.kubernetes.io/enforce": "baseline"}
    metadata = {"name": name, "labels": secure if labels is None else labels}
    return {"metadata": metadata | more.pop("metadata", {}), **more}


def daemon_set(name: str = "driver", namespace: str = "gpu-operator") -> Any:
    """A GPU operator's: it has the runtime hand it the devices."""
    env = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]
    pod = {"spec": {"containers": [{"name": "driver", "env": env}]}}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"template": pod}}


def names(*of: str) -> Any:
    return {"items": [{"metadata": {"name": name}} for name in of]}


@pytest.fixture
def kube(monkeypatch: pytest.MonkeyPatch) -> FakeKube:
    """A cluster in which all is well."""
    deployment = {"spec": {"replicas": 2}, "status": {"readyReplicas": 2}}
    config = yaml.safe_dump(
        {
            "podCreators": [JOB_CONTROLLER, SHARED_IDENTITY],
            "agents": {"enabled": True},
            "jobParents": [QUEUE],
            "disruptors": [QUEUE, JOB_CONTROLLER, SHARED_IDENTITY],
        }
    )
    ready = {
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "InForce",
                "message": "read and valid",
                "lastTransitionTime": "2026-11-23T12:00:00Z",
            }
        ]
    }
    rules = "\n---\n".join(yaml.safe_dump(rule) for rule in RULES)
    found = FakeKube(
        {
            f"{SYSTEM}/trainseal-rules": {"data": {"rules.yaml": rules}},
            FLOOR: {"spec": {"failurePolicy": "Fail", "matchConstraints": LIVE}},
            BINDING: {"spec": {"validationActions": ["Deny"]}},
            ROLE: {"rules": [{"verbs": ["get"]}]},
            **{f"{CRDS}/{name}": crd for name, crd in all_crds().items()},
            "/version": {"gitVersion": "v1.36.3"},
            GROUP: {"resources": [{"name": kind} for kind in KINDS]},
            f"{HOOKS}/mutatingwebhookconfigurations/trainseal": {"webhooks": [hook()]},
            VALIDATING: {"webhooks": [hook()]},
            f"{VALIDATING}-access": {
                "webhooks": [
                    hook(),
                    hook(name="evictions.access.trainseal.dev", failurePolicy="Ignore"),
                ]
            },
            f"{DEPLOYMENTS}/trainseal-webhook": deployment,
            f"{DEPLOYMENTS}/trainseal-controller": deployment,
            f"{SYSTEM}/trainseal-keyring": {},
            f"{SYSTEM}/trainseal-config": {"data": {"config.yaml": config}},
            f"{GROUP}/provenancepolicies": {"items": [world.policy_object() | {"status": ready}]},
            ACCOUNT: {},
            REVIEWS: {"metadata": {"creationTimestamp": "2026-11-23T12:00:00Z"}},
            f"{GROUP}/trustroots": {"items": []},
            NAMESPACES: {"items": [namespace(), namespace("kube-system", {})]},
            DAEMONSETS: {"items": [daemon_set(namespace="kube-system")]},
            QUEUE_ACCOUNT: {},
            PODS: {"items": [gpu_pod()]},
            LEASES: {"items": [lease()]},
        }
    )
    found.refusal = KubeError(403, "Forbidden", DENIED)
    monkeypatch.setattr(api, "connect", connecting_to(found))
    return found


def test_a_cluster_in_which_all_is_well(trainseal: Run, kube: FakeKube) -> None:
    answer = trainseal("doctor")
    assert answer.code == 0
    assert "✗" not in answer.out
    assert {f["health"] for f in json.loads(trainseal("doctor", "-o", "json").out)} == {"good"}


def put(path: str, value: Any) -> Callable[[FakeKube], None]:
    return lambda kube: kube.objects.update({path: value})


def remove(path: str) -> Callable[[FakeKube], None]:
    return lambda kube: kube.objects.__delitem__(path)


def at(time: datetime) -> Callable[[FakeKube], None]:
    return put(REVIEWS, {"metadata": {"creationTimestamp": time.isoformat()}})


def refused(words: str) -> Callable[[FakeKube], None]:
    def do(kube: FakeKube) -> None:
        kube.refusal = KubeError(500, "InternalError", words)

    return do


def loosened(name: str) -> Callable[[FakeKube], None]:
    """The kind without the rules of its spec."""

    def do(kube: FakeKube) -> None:
        crd: Any = copy.deepcopy(kube.objects[f"{CRDS}/{name}"])
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        del schema["properties"]["spec"]["x-kubernetes-validations"]
        kube.objects[f"{CRDS}/{name}"] = crd

    return do


UNREADY = {"conditions": [{"type": "Ready", "status": "False", "message": "no such key"}]}
POLICIES = f"{GROUP}/provenancepolicies"


@pytest.mark.parametrize(
    ("breaks", "words"),
    [
        (remove(GROUP), "has no trainseal.dev/v1alpha1"),
        (put(GROUP, {"resources": [{"name": "trainingjobs"}]}), "missing: accessrecords"),
        (remove(VALIDATING), "nothing is enforced"),
        (put(VALIDATING, {"webhooks": [hook(clientConfig={})]}), "x: no caBundle"),
        (put(VALIDATING, {"webhooks": [hook(failurePolicy="Ignore")]}), "fails open"),
        (
            put(VALIDATING, {"webhooks": [hook(objectSelector={"a": "b"})]}),
            "[0].objectSelector: found",
        ),
        (put(VALIDATING, {"webhooks": []}), "webhooks: found [], expected"),
        (remove(FLOOR), "ValidatingAdmissionPolicy trainseal-pods it is gone"),
        (remove(BINDING), "ValidatingAdmissionPolicyBinding trainseal-pods it is gone"),
        (put(BINDING, {"spec": {"validationActions": ["Warn"]}}), "found Warn, expected Deny"),
        (
            put(BINDING, {"spec": {"validationActions": ["Deny"], "matchResources": {"a": "b"}}}),
            "spec.matchResources: found {'a': 'b'}, expected nothing",
        ),
        (put(FLOOR, floor(resourceRules=[{"a": ["c"]}])), "found c, expected b"),
        (put(FLOOR, floor(excludeResourceRules=[{"a": ["b"]}])), "excludeResourceRules: found"),
        (
            put(ROLE, {"rules": [{"verbs": ["get", "list"]}]}),
            "rules[0].verbs: found ['get', '",
        ),
        (remove(f"{CRDS}/driftreports.trainseal.dev"), "driftreports.trainseal.dev it is gone"),
        (loosened("driftreports.trainseal.dev"), "x-kubernetes-validations: found nothing, exp"),
        (remove(f"{SYSTEM}/trainseal-rules"), "no ConfigMap trainseal-rules"),
        (remove(f"{DEPLOYMENTS}/trainseal-webhook"), "no Deployment"),
        (put(f"{DEPLOYMENTS}/trainseal-webhook", {"spec": {"replicas": 2}}), "0 of 2 ready"),
        (remove(f"{SYSTEM}/trainseal-keyring"), "no seal can be read"),
        (put(POLICIES, {"items": []}), "every TrainingJob is denied"),
        (put(POLICIES, {"items": [world.policy_object() | {"status": UNREADY}]}), "no such key"),
        (
            put(f"{SYSTEM}/trainseal-config", {"data": {"config.yaml": "podCreators: [me]"}}),
            "no sealed pod would be admitted",
        ),
        (
            put(VALIDATING, {"webhooks": [hook(clientConfig={"caBundle": "QQ=="})]}),
            "no certificate",
        ),
        (at(AT + timedelta(days=400)), "is trusted until 2027-"),
        (refused("failed calling webhook: connection refused"), "does not reach it: failed"),
        (put(LEASES, {"items": []}), "silent on nodes with sealed pods: node-1"),
        (put(LEASES, {"items": [lease(ago=31)]}), "silent on nodes with sealed pods: node-1"),
        (
            put(LEASES, {"items": [lease(), lease("node-2", ago=-61)]}),
            "more than a minute ahead of the API server: node-2",
        ),
        (
            put(DAEMONSETS, {"items": [daemon_set()]}),
            "whose pods ask for GPUs, and are refused: gpu-operator/driver",
        ),
    ],
)
def test_what_is_wrong_is_named(
    trainseal: Run, kube: FakeKube, breaks: Callable[[FakeKube], None], words: str
) -> None:
    breaks(kube)
    answer = trainseal("doctor")
    assert answer.code == 1
    assert words in answer.out
    assert "to do:" in answer.out


def test_the_shared_identity_of_the_controller_manager_is_known_by_the_missing_account(
    trainseal: Run, kube: FakeKube
) -> None:
    del kube.objects[ACCOUNT]
    assert f"{SHARED_IDENTITY} may create sealed pods" in trainseal("doctor").out


@pytest.mark.parametrize("engine", ["jobSet", "pyTorchJob"])
def test_the_account_of_an_engine_that_is_switched_on_is_told_where_it_is_missing(
    trainseal: Run, kube: FakeKube, engine: str
) -> None:
    """Whoever may make service accounts there could be who makes a run's pods, or its Jobs."""
    config: Any = kube.objects[f"{SYSTEM}/trainseal-config"]
    said = yaml.safe_load(config["data"]["config.yaml"])
    named = {"enabled": True, "controller": "system:serviceaccount:others:operator"}
    config["data"]["config.yaml"] = yaml.safe_dump({**said, "engines": {engine: named}})
    assert "and not there: others/operator (engines)" in trainseal("doctor").out
    kube.objects["/api/v1/namespaces/others/serviceaccounts/operator"] = {}
    assert "and not there" not in trainseal("doctor").out


def test_what_one_may_not_see_is_neither_good_nor_wrong(trainseal: Run, kube: FakeKube) -> None:
    kube.failures[VALIDATING] = KubeError(403, "Forbidden", "not for you")
    answer = trainseal("doctor")
    assert answer.code == 0
    assert "? validatingwebhook cannot be looked at: not for you" in answer.out


def test_a_cluster_that_does_not_answer_is_undetermined(trainseal: Run, kube: FakeKube) -> None:
    kube.failures["/version"] = KubeError(0, "Unreachable", "refused")
    assert trainseal("doctor").code == 2


@pytest.mark.parametrize("plural", [kind.plural for kind in crd.KINDS])
def test_no_kind_of_ours_is_missing_unnoticed(trainseal: Run, kube: FakeKube, plural: str) -> None:
    served = [{"name": kind.plural} for kind in crd.KINDS if kind.plural != plural]
    kube.objects[GROUP] = {"resources": served}
    assert f"missing: {plural}" in trainseal("doctor").out


REMAINS = {
    "type": "NamespaceFinalizersRemaining",
    "status": "True",
    "message": "x/y in 1 resource instances",
}


# What somebody may mean so ----------------------------------------------------------------------


def audits() -> Any:
    return world.policy_object(mode="Audit")


@pytest.mark.parametrize(
    ("breaks", "words"),
    [
        (
            remove(QUEUE_ACCOUNT),
            "and not there: kueue-system/kueue-controller-manager (floor.jobParents), kueue-system",
        ),
        (
            put(NAMESPACES, {"items": [namespace(labels={})]}),
            "privileged pods and hostPath are let in, which reach GPUs by the node: research",
        ),
        (
            put(NAMESPACES, {"items": [namespace(metadata={"deletionTimestamp": "T"})]}),
            "namespace research it is being deleted since T, with 1 sealed pod in it",
        ),
        (
            put(
                NAMESPACES,
                {
                    "items": [
                        namespace(
                            metadata={"deletionTimestamp": "T"}, status={"conditions": [REMAINS]}
                        )
                    ]
                },
            ),
            "in it; it waits: x/y in 1 resource instances",
        ),
        (put(NAMESPACES, names("other")), "policy research it names no namespace that exists"),
        (put(POLICIES, {"items": [audits()]}), "GPU pods run where no policy enforces: research"),
        (put(PODS, {"items": [gpu_pod("other")]}), "where no policy enforces: other"),
        (lambda kube: setattr(kube, "refusal", None), "an unsigned TrainingJob passes"),
        (
            put(
                f"{SYSTEM}/trainseal-config",
                {"data": {"config.yaml": f"podCreators: ['{JOB_CONTROLLER}']"}},
            ),
            "they are off: nobody watches running pods",
        ),
    ],
)
def test_what_may_be_meant_so_is_told_and_is_not_wrong(
    trainseal: Run, kube: FakeKube, breaks: Callable[[FakeKube], None], words: str
) -> None:
    breaks(kube)
    answer = trainseal("doctor")
    assert answer.code == 0, answer.out
    assert f"! {words}" in answer.out or words in answer.out
    assert "✗" not in answer.out


def test_a_gpu_operators_daemon_sets_are_at_home_in_an_excluded_namespace_or_under_audit(
    trainseal: Run, kube: FakeKube
) -> None:
    put(DAEMONSETS, {"items": [daemon_set(namespace="research")]})(kube)
    assert trainseal("doctor").code == 1
    put(POLICIES, {"items": [audits()]})(kube)
    assert trainseal("doctor").code == 0


def test_gpu_pods_of_excluded_namespaces_are_meant_to_be_there(
    trainseal: Run, kube: FakeKube
) -> None:
    kube.objects[PODS] = {"items": [gpu_pod("kube-system")]}
    assert "GPU pods run where" not in trainseal("doctor").out


@pytest.mark.parametrize("path", [NAMESPACES, LEASES])
def test_what_of_it_one_may_not_see_is_said(trainseal: Run, kube: FakeKube, path: str) -> None:
    kube.failures[path] = KubeError(403, "Forbidden", "not for you")
    answer = trainseal("doctor")
    assert answer.code == 0
    assert "cannot be looked at: not for you" in answer.out
