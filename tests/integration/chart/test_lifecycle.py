"""What Helm leaves and what it takes: install, upgrade, uninstall, reinstall."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pytest

from tests.cluster import CommandError
from tests.integration.chart.conftest import (
    CHART,
    NAMESPACE,
    ApiServer,
    Helm,
    Object,
    configuration,
    ours,
)
from tests.sample_objects import sealed_run, training_job
from trainseal.provenance.installedrules import CONFIG_MAP, PLURALS, read

CLUSTER_WIDE = (
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "clusterroles",
    "clusterrolebindings",
)

GPU_POD: Object = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "gpu", "namespace": "default"},
    "spec": {
        "containers": [
            {"name": "main", "image": "x", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
        ]
    },
}


def seal_key(server: ApiServer) -> Object:
    """The Secret as the controller makes it: not Helm's."""
    return server.create(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "trainseal-seal-key", "namespace": NAMESPACE},
            "data": {"key": base64.b64encode(b"a key").decode()},
        }
    )


def trust(server: ApiServer, bundle: bytes) -> None:
    """Fills in caBundle as the controller does."""
    for kind in ("mutating", "validating"):
        patch = [
            {"name": rule["name"], "clientConfig": {"caBundle": base64.b64encode(bundle).decode()}}
            for rule in server.get(configuration(kind))["webhooks"]
        ]
        server.kubectl(
            "patch", f"{kind}webhookconfiguration", "trainseal", "--type=strategic",
            "--field-manager=trainseal-controller", "-p", json.dumps({"webhooks": patch}),
        )  # fmt: skip


def trusted(server: ApiServer) -> set[bytes]:
    """Every caBundle of our webhooks."""
    bundles = set()
    for kind in ("mutating", "validating"):
        for rule in server.get(configuration(kind))["webhooks"]:
            bundles.add(base64.b64decode(rule["clientConfig"].get("caBundle", "")))
    return bundles


def test_from_the_moment_of_the_install_gpu_pods_and_jobs_are_denied_and_other_pods_are_not(
    chart: Helm, server: ApiServer
) -> None:
    chart.install("--set", "floor.enabled=false")
    server.until_refused(GPU_POD, "failed calling webhook")
    server.until_refused(training_job(), "failed calling webhook")
    ordinary = {**GPU_POD, "spec": {"containers": [{"name": "main", "image": "x"}]}}
    server.create(ordinary, "--dry-run=server")


@pytest.fixture(scope="class")
def uninstalled(server: ApiServer, helm: Path) -> None:
    """Where it was in force."""
    chart = Helm(server, helm)
    chart.install()
    server.until_refused(GPU_POD)
    server.kubectl("get", "namespace", "trainseal-agent")
    chart.uninstall()


@pytest.mark.usefixtures("uninstalled")
class TestAfterAnUninstall:
    def test_nothing_is_left_that_blocks_the_cluster(self, server: ApiServer) -> None:
        for resource in CLUSTER_WIDE:
            left = [name for name in ours(server, resource) if name != "trainseal-parameters"]
            assert left == [], resource
        server.until_accepted(GPU_POD)
        # The kinds stay, and what is of them can be written and deleted without us.
        job = server.create(training_job())
        server.delete(job)

    def test_the_agents_namespace_is_gone(self, server: ApiServer) -> None:
        server.kubectl("wait", "--for=delete", "namespace/trainseal-agent", "--timeout=60s")

    def test_a_namespace_of_jobs_can_be_deleted(self, server: ApiServer) -> None:
        server.kubectl("create", "namespace", "team")
        job = training_job()
        job["metadata"]["namespace"] = "team"
        seal = sealed_run()
        seal["metadata"]["namespace"] = "team"
        server.until_accepted(job)
        server.create(job)
        server.create(seal)
        server.kubectl("delete", "namespace", "team", "--wait", "--timeout=60s")


def test_an_uninstall_keeps_seals_and_the_seal_key_and_a_reinstall_finds_them(
    chart: Helm, server: ApiServer
) -> None:
    chart.install()
    key = seal_key(server)
    chart.uninstall()
    server.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
    seal = server.create(sealed_run())
    chart.install()
    assert server.get(key)["data"] == key["data"]
    assert server.get(seal)["metadata"]["uid"] == seal["metadata"]["uid"]
    chart.uninstall()
    server.until_accepted(sealed_run() | {"metadata": {"name": "x", "namespace": "default"}})
    server.delete(seal)


def test_a_namespace_with_seals_can_be_deleted_while_the_webhook_is_away(
    chart: Helm, server: ApiServer
) -> None:
    chart.install()
    chart.uninstall()
    server.kubectl("create", "namespace", "ending")
    seal = sealed_run()
    seal["metadata"]["namespace"] = "ending"
    server.until_accepted(seal)
    server.create(seal)
    chart.install()
    server.until_refused(seal | {"metadata": seal["metadata"] | {"name": "another"}})
    with pytest.raises(CommandError, match="failed calling webhook"):
        server.delete(seal)
    server.kubectl("delete", "namespace", "ending", "--wait", "--timeout=60s")


@pytest.mark.parametrize("apply", ["--server-side=true", "--server-side=false"])
def test_an_upgrade_does_not_take_the_webhooks_trust_away(
    chart: Helm, server: ApiServer, apply: str
) -> None:
    chart.install(apply)
    assert trusted(server) == {b""}
    trust(server, b"an authority")
    chart.upgrade(apply, "--set", "webhook.deadlineSeconds=9")
    assert trusted(server) == {b"an authority"}
    chart.upgrade(apply, "--set", "gpuResources={nvidia.com/*}")
    assert trusted(server) == {b"an authority"}


@pytest.mark.parametrize("apply", ["--server-side=true", "--server-side=false"])
def test_an_upgrade_does_not_make_the_floor_forget_the_policies(
    chart: Helm, server: ApiServer, apply: str
) -> None:
    def known() -> str:
        return server.kubectl(
            "get", "configmap", "trainseal-floor", "-n", NAMESPACE, "-o", "jsonpath={.data}"
        )

    chart.install(apply)
    assert known() == ""
    data = {"data": {"looks": "Audit\n^(.*)$\n^()$"}}
    server.kubectl(
        "patch", "configmap", "trainseal-floor", "-n", NAMESPACE,
        "--field-manager=trainseal-controller", "-p", json.dumps(data),
    )  # fmt: skip
    before = known()
    chart.upgrade(apply, "--set", "webhook.deadlineSeconds=9")
    assert known() == before != ""


def test_what_the_doctor_compares_with_is_what_the_api_server_shows(
    chart: Helm, server: ApiServer
) -> None:
    chart.install()
    trust(server, b"an authority")
    text = server.kubectl(
        "get", "configmap", CONFIG_MAP, "-n", NAMESPACE, "-o", r"jsonpath={.data.rules\.yaml}"
    )
    rules = read(text)
    assert {rule.kind for rule in rules} == PLURALS.keys()

    def differences() -> list[str]:
        return [words for rule in rules for words in rule.differences(server.get(rule.obj))]

    assert differences() == []
    server.kubectl(
        "patch", "validatingadmissionpolicybinding", "trainseal-pods", "--type=merge",
        "-p", '{"spec": {"validationActions": ["Audit"]}}',
    )  # fmt: skip
    narrower = {"op": "add", "path": "/webhooks/1/objectSelector/matchLabels", "value": {"a": "b"}}
    server.kubectl(
        "patch", "validatingwebhookconfiguration", "trainseal", "--type=json",
        "-p", json.dumps([narrower]),
    )  # fmt: skip
    found = differences()
    assert len(found) == 2
    assert "webhooks[1].objectSelector: found {'matchLabels': {'a': 'b'}}" in found[0]
    assert found[1] == "spec.validationActions: found ['Audit'], expected ['Deny', 'Audit']"


def test_a_changed_configuration_rolls_both_deployments(chart: Helm, server: ApiServer) -> None:
    def checksums() -> list[str]:
        return server.kubectl(
            "get", "deployments", "-n", NAMESPACE,
            "-o", r"jsonpath={.items[*].spec.template.metadata.annotations.checksum/config}",
        ).split()  # fmt: skip

    chart.install()
    before = checksums()
    chart.upgrade("--set", "registries.plainHTTP={registry.example:5000}")
    assert len(before) == 2
    assert not set(before) & set(checksums())


def test_an_upgrade_brings_the_kinds_up_to_date(
    chart: Helm, server: ApiServer, tmp_path: Path
) -> None:
    """What Helm's own crds/ folder would never do."""
    chart.install()
    newer = tmp_path / "trainseal"
    shutil.copytree(CHART, newer)
    (crd,) = newer.glob("files/crds/*_trainingjobs.yaml")
    text = crd.read_text()
    assert "shortNames:\n    - tj\n" in text
    crd.write_text(text.replace("shortNames:\n    - tj\n", "shortNames:\n    - tj\n    - newer\n"))
    chart.upgrade(chart=newer)
    names = server.kubectl(
        "get", "crd", "trainingjobs.trainseal.dev", "-o", "jsonpath={.spec.names.shortNames}"
    )
    assert json.loads(names) == ["tj", "newer"]


def test_the_cluster_roles_of_a_team_gain_jobs_but_never_evidence(
    chart: Helm, server: ApiServer
) -> None:
    chart.install()
    server.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
    server.kubectl(
        "create", "rolebinding", "dev", "-n", "default", "--clusterrole=edit", "--user=dev"
    )
    server.kubectl(
        "create", "rolebinding", "guest", "-n", "default", "--clusterrole=view", "--user=guest"
    )

    def may(user: str, verb: str, resource: str) -> bool:
        try:
            server.kubectl("auth", "can-i", verb, f"{resource}.trainseal.dev", f"--as={user}")
        except CommandError:
            return False
        return True

    for _ in range(100):  # aggregation is a controller's work
        if may("dev", "create", "trainingjobs") and may("guest", "get", "trainingjobs"):
            break
    assert may("dev", "create", "trainingjobs")
    assert may("dev", "get", "sealedruns")
    assert may("guest", "get", "sealedruns")
    assert not may("guest", "create", "trainingjobs")
    written = ("sealedruns", "driftreports", "accessrecords", "evidenceitems", "provenancepolicies")
    for kind in written:
        for verb in ("create", "update", "delete"):
            assert not may("dev", verb, kind), (verb, kind)
    # The bytes of files are for who looks into findings.
    assert not may("dev", "get", "evidenceitems")
    server.kubectl("delete", "rolebinding", "dev", "guest", "-n", "default")
