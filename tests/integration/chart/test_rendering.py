"""What the chart makes of its values, and which values it refuses."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.chart.conftest import CHART, IMAGE, NAMESPACE, Object, one, render
from trainseal.api.crd import KINDS
from trainseal.provenance.helppages import see
from trainseal.provenance.installedrules import PLURALS, read

DIGEST = "sha256:" + "0" * 64
FLOOR = (
    "trainseal-pods",
    "trainseal-devices",
    "trainseal-jobs",
    "trainseal-run-objects",
    "trainseal-workloads",
    "trainseal-secrets",
    "trainseal-configurations",
)


def values() -> Any:
    """The chart's own."""
    return yaml.safe_load((CHART / "values.yaml").read_text())


def config(objects: list[Object]) -> Any:
    """The configuration of both processes."""
    return yaml.safe_load(one(objects, "ConfigMap", "trainseal-config")["data"]["config.yaml"])


def rules_of(objects: list[Object], kind: str, name: str) -> list[Any]:
    """RBAC rules."""
    rules: list[Any] = one(objects, kind, name)["rules"]
    return rules


def test_both_processes_read_one_configuration(helm: Path) -> None:
    objects = render(helm, "--set", "registries.plainHTTP={registry.example:5000}")
    assert config(objects) == {
        "gpuResources": [
            "nvidia.com/*",
            "amd.com/*",
            "gpu.intel.com/*",
            "habana.ai/*",
            "aws.amazon.com/neuron*",
            "google.com/tpu",
            "deviceclass.resource.kubernetes.io/*",
        ],
        "gpuRuntimeClasses": [],
        "excludedNamespaces": ["kube-system", NAMESPACE, "trainseal-agent"],
        "agentNamespace": "trainseal-agent",
        "agents": {"enabled": True},
        "alerts": {"alertmanagerURL": ""},
        "podCreators": [
            "system:serviceaccount:kube-system:job-controller",
            "system:kube-controller-manager",
        ],
        "registries": {"plainHTTP": ["registry.example:5000"]},
        "gateImage": IMAGE,
        "kueue": False,
        "floor": True,
        "jobParents": [],
        "engines": values()["engines"],
        "disruptors": values()["access"]["disruptors"],
        "followedSecrets": [],
        "documentationURL": "",
        "webhookDeadlineSeconds": 8,
        "manageCertificates": True,
    }


def test_the_alertmanagers_token_is_a_file_of_the_controller_alone(helm: Path) -> None:
    url = "https://alerts.example:9093"
    values = ("alerts.tokenSecret=am", f"alerts.alertmanagerURL={url}")
    objects = render(helm, *(part for value in values for part in ("--set", value)))
    told = config(objects)["alerts"]
    assert told == {"alertmanagerURL": url, "tokenFile": "/etc/trainseal-alerts/token"}
    for name, mounted in (("controller", True), ("webhook", False)):
        pod = one(objects, "Deployment", f"trainseal-{name}")["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        paths = [m["mountPath"] for m in container["volumeMounts"]]
        assert ("/etc/trainseal-alerts" in paths) == mounted
        secrets = [v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v]
        assert ("am" in secrets) == mounted


@pytest.mark.parametrize(
    "address", ["", "https://docs.example/t/", "https://git.example/blob/main/docs/{page}.md"]
)
def test_the_floor_names_the_same_page_as_the_webhook(helm: Path, address: str) -> None:
    objects = render(helm, "--set-literal", f"documentation.url={address}")
    assert config(objects)["documentationURL"] == address
    place = see(["how-to/refused#a-pod-that-asks-for-a-gpu"], address)
    for name in ("trainseal-pods", "trainseal-devices", "trainseal-jobs", "trainseal-workloads"):
        rules = one(objects, "ValidatingAdmissionPolicy", name)["spec"]["validations"]
        assert any(f'"; {place}"' in r.get("messageExpression", "") for r in rules), name


#: Of kinds that are not there in every cluster.
OPERATORS = ("PrometheusRule", "PodMonitor")


def test_what_prometheus_and_grafana_read_is_made_when_asked_for(helm: Path) -> None:
    plain = render(helm)
    assert not [o for o in plain if o["kind"] in OPERATORS or "dashboard" in o["metadata"]["name"]]
    parts = ("dashboard", "rules", "podMonitor")
    flags = [f for part in parts for f in ("--set", f"metrics.{part}.enabled=true")]
    objects = render(helm, *flags, "--set", "metrics.rules.labels.release=mon")
    assert len(objects) == len(plain) + 3
    files = CHART / "files" / "monitoring"
    board = one(objects, "ConfigMap", "trainseal-dashboard")
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    file = (files / "dashboard.json").read_text()
    assert json.loads(board["data"]["trainseal.json"]) == json.loads(file)
    rules = one(objects, "PrometheusRule", "trainseal")
    assert rules["metadata"]["labels"]["release"] == "mon"
    assert rules["spec"] == yaml.safe_load((files / "rules.yaml").read_text())


def test_the_monitor_finds_every_process_and_leaves_the_runs_namespace_as_it_is(helm: Path) -> None:
    objects = render(helm, "--set", "metrics.podMonitor.enabled=true")
    spec = one(objects, "PodMonitor", "trainseal")["spec"]
    assert spec["podMetricsEndpoints"] == [{"port": "metrics", "honorLabels": True}]
    templates = [
        (o["metadata"]["namespace"], o["spec"]["template"])
        for o in objects
        if o["kind"] in ("Deployment", "DaemonSet", "StatefulSet")
    ]
    assert len(templates) == 4
    for namespace, template in templates:
        assert namespace in spec["namespaceSelector"]["matchNames"]
        assert spec["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        (container,) = template["spec"]["containers"]
        assert "metrics" in [port["name"] for port in container["ports"]]


def test_pods_of_a_namespace_that_anybody_may_have_are_not_scraped(helm: Path) -> None:
    """Without agents nobody makes theirs; what runs there could say anything of any namespace."""
    flags = ("--set", "metrics.podMonitor.enabled=true", "--set", "agent.enabled=false")
    spec = one(render(helm, *flags), "PodMonitor", "trainseal")["spec"]
    assert spec["namespaceSelector"] == {"matchNames": [NAMESPACE]}


def test_the_rules_and_the_configuration_exclude_the_same_namespaces(helm: Path) -> None:
    objects = render(helm, "--set", "excludedNamespaces={kube-system,gpu-operator}", namespace="x")
    webhooks = one(objects, "ValidatingWebhookConfiguration", "trainseal")["webhooks"]
    (pods,) = [w for w in webhooks if w["name"] == "pods.trainseal.dev"]
    (expression,) = pods["namespaceSelector"]["matchExpressions"]
    assert expression["key"] == "kubernetes.io/metadata.name"
    assert expression["values"] == ["kube-system", "gpu-operator", "x", "trainseal-agent"]
    assert config(objects)["excludedNamespaces"] == expression["values"]


@pytest.mark.parametrize("enabled", [True, False])
def test_a_namespace_of_agents_is_left_alone_only_where_there_are_agents(
    helm: Path, enabled: bool
) -> None:
    """Else whoever may make a namespace made it, and had GPUs there as they like."""
    objects = render(helm, "--set", f"agent.enabled={str(enabled).lower()}")
    excluded = config(objects)["excludedNamespaces"]
    assert excluded == ["kube-system", NAMESPACE, *(["trainseal-agent"] if enabled else [])]
    assert enabled == any(
        o["kind"] == "Namespace" and o["metadata"]["name"] == "trainseal-agent" for o in objects
    )
    found = [
        expression["values"]
        for obj in objects
        for webhook in obj.get("webhooks") or ()
        for expression in (webhook.get("namespaceSelector") or {}).get("matchExpressions") or ()
    ]
    for name in FLOOR[:-1]:
        spec = one(objects, "ValidatingAdmissionPolicy", name)["spec"]
        (expression,) = spec["matchConstraints"]["namespaceSelector"]["matchExpressions"]
        found.append(expression["values"])
    assert len(found) > 2
    assert all(values == excluded for values in found)


def test_the_only_configuration_with_a_selector_is_that_of_pods(helm: Path) -> None:
    """TrainingJobs and seals are judged in every namespace, excluded ones too."""
    objects = render(helm)
    for kind in ("Mutating", "Validating"):
        for webhook in one(objects, f"{kind}WebhookConfiguration", "trainseal")["webhooks"]:
            # One that looks on is no gate.
            looks_on = webhook["name"] == "witness.trainseal.dev"
            fits = webhook["name"] == "notebooks.trainseal.dev"
            open_ = looks_on or fits or webhook["name"] == "removals.trainseal.dev"
            assert webhook["failurePolicy"] == ("Ignore" if open_ else "Fail")
            assert "objectSelector" not in webhook
            named = webhook["name"] in ("pods.trainseal.dev", "lanes.trainseal.dev")
            of_pods = looks_on or fits or named
            assert ("namespaceSelector" in webhook) == of_pods


def test_the_floor_leaves_alone_what_the_webhook_leaves_alone(helm: Path) -> None:
    objects = render(helm, "--set", "excludedNamespaces={gpu-operator}", namespace="x")
    for name in FLOOR[:-1]:
        spec = one(objects, "ValidatingAdmissionPolicy", name)["spec"]
        (expression,) = spec["matchConstraints"]["namespaceSelector"]["matchExpressions"]
        assert expression["key"] == "kubernetes.io/metadata.name"
        assert expression["values"] == config(objects)["excludedNamespaces"]


def test_every_policy_of_the_floor_fails_closed_and_is_bound_to_the_whole_cluster(
    helm: Path,
) -> None:
    objects = render(helm)
    for name in FLOOR:
        policy = one(objects, "ValidatingAdmissionPolicy", name)
        assert policy["spec"]["failurePolicy"] == "Fail"
        bound = one(objects, "ValidatingAdmissionPolicyBinding", name)["spec"]
        assert bound["policyName"] == name
        assert bound["validationActions"] == ["Deny", "Audit"]
        assert "matchResources" not in bound
        for validation in policy["spec"]["validations"]:
            assert validation["messageExpression"]


def test_without_the_floor_there_is_no_policy(helm: Path) -> None:
    objects = render(helm, "--set", "floor.enabled=false")
    policies = [o for o in objects if o["kind"].startswith("ValidatingAdmissionPolicy")]
    assert not {o["metadata"]["name"] for o in policies} & set(FLOOR)


def test_an_identity_does_not_leave_its_place_in_an_expression(helm: Path) -> None:
    objects = render(helm, "--set", "floor.jobParents={a'] || true || ['\"b}")
    spec = one(objects, "ValidatingAdmissionPolicy", "trainseal-jobs")["spec"]
    (stays,) = [v for v in spec["variables"] if v["name"] == "specStays"]
    assert r"""in ["a'] || true || ['\"b"])""" in stays["expression"]


def test_the_image_is_required_with_a_word_on_its_form(helm: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        render(helm, image="")
    assert "by digest" in refused.value.stderr


@pytest.mark.parametrize(
    "value",
    [
        "gpuResources={nvidia.com/*' || true || r == '}",
        "gpuResources={*}",
        "gpuResources={nvidia.com/*/gpu}",
        "gpuRuntimeClasses={nvidia'] || true || ['}",
        "followedSecrets[0].namespace=team",
        "excludedNamespaces={team-*}",
        "webhook.replicas=0",
        "webhook.deadlineSeconds=15",
        "controller.deadlineSeconds=5",
        "webhook.replica=3",
        f"image.reference=registry.example/x y@{DIGEST}",
        "registries.plainHTTP={https://registry.example}",
    ],
)
def test_a_value_that_means_nothing_or_too_much_is_refused(helm: Path, value: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        render(helm, "--set", value)
    assert "values don't meet the specifications of the schema" in refused.value.stderr


@pytest.mark.parametrize("reference", ["x:1.0", "x", f"x@{DIGEST[:-1]}", f"@{DIGEST}"])
def test_an_image_without_a_digest_is_refused_with_what_was_found_and_the_form_expected(
    helm: Path, reference: str
) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        render(helm, image=reference)
    assert f"'{reference}'" in refused.value.stderr
    assert "@sha256:[0-9a-f]{64}" in refused.value.stderr


def test_helms_test_reads_whom_the_api_server_trusts_and_nothing_else(helm: Path) -> None:
    objects = [obj for obj in render(helm) if obj["metadata"]["name"] == "trainseal-test"]
    (rule,) = [rule for obj in objects for rule in obj.get("rules") or []]
    assert rule["verbs"] == ["get"]
    assert set(rule["resourceNames"]) == {"trainseal", "trainseal-access"}
    pod = one(objects, "Pod", "trainseal-test")
    assert pod["spec"]["serviceAccountName"] == "trainseal-test"
    # Only the pod is a hook: Helm leaves what hooks made.
    hooks = [obj["kind"] for obj in objects if "helm.sh/hook" in str(obj["metadata"])]
    assert hooks == ["Pod"]
    (container,) = pod["spec"]["containers"]
    program = container["command"][-1]
    compile(program, "helm test", "exec")
    assert f"https://trainseal-webhook.{NAMESPACE}.svc/readyz" in program


def test_no_role_of_ours_has_a_wildcard(helm: Path) -> None:
    for obj in render(helm):
        if obj["kind"] in ("Role", "ClusterRole"):
            for rule in obj["rules"]:
                assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"], obj


def test_the_webhook_cannot_read_the_key_that_signs_seals(helm: Path) -> None:
    objects = render(helm)
    for kind in ("Role", "ClusterRole"):
        for rule in rules_of(objects, kind, "trainseal-webhook"):
            if "secrets" in rule["resources"]:
                assert set(rule["resourceNames"]) == {
                    "trainseal-webhook-tls",
                    "trainseal-ticket-key",
                }


@pytest.mark.parametrize("kind", sorted(PLURALS))
def test_the_controller_reads_the_rules_that_it_compares_and_no_others(
    helm: Path, kind: str
) -> None:
    objects = render(helm)
    text = one(objects, "ConfigMap", "trainseal-rules")["data"]["rules.yaml"]
    role = "Role" if kind in ("Role", "RoleBinding") else "ClusterRole"
    (rule,) = [
        r
        for r in rules_of(objects, role, "trainseal-controller")
        if PLURALS[kind] in r["resources"]
    ]
    compared = {r.name for r in read(text) if PLURALS[r.kind] in rule["resources"]}
    verbs = {"get", "patch"} if "webhook" in PLURALS[kind] else {"get"}
    assert set(rule["resourceNames"]) == compared
    assert set(rule["verbs"]) == verbs


def test_all_that_the_chart_grants_is_compared(helm: Path) -> None:
    objects = render(helm)
    text = one(objects, "ConfigMap", "trainseal-rules")["data"]["rules.yaml"]
    compared = {(rule.kind, rule.name) for rule in read(text)}
    made = {
        (obj["kind"], obj["metadata"]["name"])
        for obj in objects
        if obj["kind"] in PLURALS and obj["metadata"]["name"] != "trainseal-test"
    }
    assert compared == made


def test_nobody_reads_secrets_but_by_name(helm: Path) -> None:
    for obj in render(helm):
        for rule in obj.get("rules") or []:
            if "secrets" in rule.get("resources", []) and set(rule["verbs"]) - {"create"}:
                assert obj["kind"] == "Role"
                assert rule["resourceNames"]


@pytest.mark.parametrize("enabled", [False, True])
def test_the_controller_gets_at_kueues_objects_only_where_it_shall(
    helm: Path, enabled: bool
) -> None:
    objects = render(helm, "--set", f"kueue.enabled={str(enabled).lower()}")
    assert config(objects)["kueue"] is enabled
    granted = {
        (resource, verb)
        for role in objects
        if role["kind"] in ("Role", "ClusterRole")
        for rule in role["rules"]
        if "kueue.x-k8s.io" in rule.get("apiGroups", ())
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    wanted = {
        (resource, verb)
        for kind in ("workloads", "admissionchecks")
        for resource, verb in (
            *((kind, "list"), (kind, "watch")),
            (f"{kind}/status", "patch"),
        )
    }
    assert granted == (wanted if enabled else set())


def test_with_cert_manager_the_controller_leaves_certificates_alone(helm: Path) -> None:
    objects = render(helm, "--set", "certManager.enabled=true")
    assert config(objects)["manageCertificates"] is False
    for rule in rules_of(objects, "ClusterRole", "trainseal-controller"):
        if "admissionregistration.k8s.io" in rule["apiGroups"]:
            assert rule["verbs"] == ["get"]
    for rule in rules_of(objects, "Role", "trainseal-controller"):
        assert "trainseal-webhook-tls" not in rule.get("resourceNames", [])
    guard = one(objects, "ValidatingAdmissionPolicy", "trainseal-configurations")["spec"]
    assert "cert-manager-cainjector" in guard["validations"][0]["expression"]
    certificate = one(objects, "Certificate", "trainseal-webhook")
    assert certificate["spec"]["secretName"] == "trainseal-webhook-tls"
    for kind in ("Mutating", "Validating"):
        annotations = one(objects, f"{kind}WebhookConfiguration", "trainseal")["metadata"][
            "annotations"
        ]
        assert annotations["cert-manager.io/inject-ca-from"] == f"{NAMESPACE}/trainseal-webhook"


def test_someone_who_manages_the_kinds_otherwise_gets_none(helm: Path) -> None:
    kinds = {obj["kind"] for obj in render(helm, "--set", "crds.install=false")}
    assert "CustomResourceDefinition" not in kinds


def test_every_kind_stays_when_the_release_goes(helm: Path) -> None:
    crds = [obj for obj in render(helm) if obj["kind"] == "CustomResourceDefinition"]
    assert len(crds) == len(KINDS)
    for crd in crds:
        assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_nothing_of_ours_has_a_finalizer(helm: Path) -> None:
    assert not [obj for obj in render(helm) if "finalizers" in obj["metadata"]]


def test_every_pod_is_restricted(helm: Path) -> None:
    objects = render(helm)
    pods = [obj["spec"]["template"] for obj in objects if obj["kind"] == "Deployment"]
    pods += [obj for obj in objects if obj["kind"] == "Pod"]
    assert len(pods) == 4
    for pod in pods:
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["image"] == IMAGE


def test_the_archive_reads_evidence_and_nothing_else(helm: Path) -> None:
    objects = [obj for obj in render(helm) if obj["metadata"]["name"] == "trainseal-archive"]
    rules = [rule for obj in objects for rule in obj.get("rules") or []]
    assert sorted((rule["resources"], rule["verbs"]) for rule in rules) == [
        (["configmaps"], ["create"]),
        (["configmaps"], ["get", "patch"]),
        (["driftreports"], ["get"]),  # what was put off is read again when it is due
        (
            [
                *("sealedruns", "driftreports", "accessrecords"),
                *("holdreleases", "breakglasses", "evidenceitems", "checkpoints"),
                "runstatements",
                "stackrequests",
            ],
            ["list", "watch"],
        ),
    ]


def test_the_archives_volume_stays_when_the_release_goes(helm: Path) -> None:
    (claim,) = [obj for obj in render(helm) if obj["kind"] == "PersistentVolumeClaim"]
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert "storageClassName" not in claim["spec"]
    by_hand = render(helm, "--set", "archive.storage.storageClassName=-")
    (claim,) = [obj for obj in by_hand if obj["kind"] == "PersistentVolumeClaim"]
    assert claim["spec"]["storageClassName"] == ""
    own = render(helm, "--set", "archive.storage.existingClaim=mine")
    assert not [obj for obj in own if obj["kind"] == "PersistentVolumeClaim"]


def test_without_the_archive_nothing_of_it_is_left(helm: Path) -> None:
    objects = render(helm, "--set", "archive.enabled=false")
    assert not [obj for obj in objects if "archive" in obj["metadata"]["name"]]


def _agents_pod(objects: list[Object]) -> Any:
    return one(objects, "DaemonSet", "trainseal-agent")["spec"]["template"]["spec"]


def test_the_agent_gets_at_no_gpu_unless_it_is_asked_to(helm: Path) -> None:
    pod = _agents_pod(render(helm, "--set", "agent.nvidia.runtimeClassName=nvidia"))
    assert "runtimeClassName" not in pod
    assert not [e for e in pod["containers"][0]["env"] if e["name"].startswith("NVIDIA")]


@pytest.mark.parametrize("runtime", ["", "nvidia"])
def test_of_the_gpus_driver_the_agent_gets_what_monitors_and_nothing_more(
    helm: Path, runtime: str
) -> None:
    values = ("agent.nvidia.enabled=true", f"agent.nvidia.runtimeClassName={runtime}")
    pod = _agents_pod(render(helm, *(part for value in values for part in ("--set", value))))
    assert pod.get("runtimeClassName", "") == runtime
    (container,) = pod["containers"]
    given = {e["name"]: e["value"] for e in container["env"] if e["name"].startswith("NVIDIA")}
    assert given == {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "utility"}
    assert container["securityContext"]["privileged"] is False


@pytest.mark.parametrize(
    ("engine", "plural", "about", "floor"),
    [
        ("jobSet", "jobsets", "trainseal-jobs", ("trainseal-jobsets",)),
        (
            "pyTorchJob",
            "pytorchjobs",
            "trainseal-pods",
            ("trainseal-pytorchjobs", "trainseal-pytorchjob-pods"),
        ),
    ],
)
def test_what_another_engine_needs_is_there_only_where_it_is_switched_on(
    helm: Path, engine: str, plural: str, about: str, floor: Sequence[str]
) -> None:
    """A controller of others that nobody uses may change no Job, and ours no object of its kind."""
    account = "system:serviceaccount:others:controller"
    on = (f"engines.{engine}.enabled=true", f"engines.{engine}.controller={account}")
    for values in ((), on):
        objects = render(helm, *(part for value in values for part in ("--set", value)))
        policies = [o for o in objects if o["kind"] == "ValidatingAdmissionPolicy"]
        where = one(objects, "ValidatingAdmissionPolicy", about)
        role = one(objects, "ClusterRole", "trainseal-controller")
        for policy in floor:
            assert any(p["metadata"]["name"] == policy for p in policies) == bool(values)
            read = [rule.get("resourceNames", ()) for rule in role["rules"]]
            assert any(policy in names for names in read) == bool(values)
        assert any(plural in rule["resources"] for rule in role["rules"]) == bool(values)
        assert (account in json.dumps(where)) == bool(values)
        for kind, name in (("Mutating", "trainseal"), ("Validating", "trainseal-access")):
            hooks = one(objects, f"{kind}WebhookConfiguration", name)
            assert (plural in json.dumps(hooks)) == bool(values)
            assert (account in json.dumps(hooks)) == bool(values)


def test_the_trainer_may_make_jobsets_of_runs_only_where_it_is_switched_on(helm: Path) -> None:
    account = "system:serviceaccount:kubeflow-system:trainer"
    jobset = ("engines.jobSet.enabled=true",)
    on = (*jobset, "engines.trainJob.enabled=true", f"engines.trainJob.controller={account}")
    for values in (jobset, on):
        objects = render(helm, *(part for value in values for part in ("--set", value)))
        names = {o["metadata"]["name"] for o in objects if o["kind"] == "ValidatingAdmissionPolicy"}
        assert ("trainseal-trainjobs" in names) == (values == on)
        jobsets = one(objects, "ValidatingAdmissionPolicy", "trainseal-jobsets")
        assert (account in json.dumps(jobsets)) == (values == on)
        # Jobs are JobSet's controller's to make, whose root is the trainer's.
        jobs = one(objects, "ValidatingAdmissionPolicy", "trainseal-jobs")
        assert account not in json.dumps(jobs)
        role = one(objects, "ClusterRole", "trainseal-controller")
        assert any("trainjobs" in rule["resources"] for rule in role["rules"]) == (values == on)
        hooks = one(objects, "ValidatingWebhookConfiguration", "trainseal-access")
        assert ("trainingruntimes" in json.dumps(hooks)) == (values == on)


def test_trainjob_without_jobset_is_refused_in_words(helm: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        render(helm, "--set", "engines.trainJob.enabled=true")
    assert "runs by TrainJob are made of JobSets; enable both" in str(refused.value.stderr)
