"""The chart with a real cert-manager: its certificates, its injector, and the way there and back.

The tests are the steps of one life, as in tests/e2e/test_chart.py: run them as a whole and in their
order.
"""

from __future__ import annotations

import base64
import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from tests.certmanager.installed import CONTROLLER, INJECTOR
from tests.certmanager.installed import NAMESPACE as CERT_MANAGER
from tests.cluster import Cluster, CommandError
from tests.stage.lifecycle import FLOOR, JUDGED, Asking, Object, Release, pod, signed_job
from tests.stage.release import NAMESPACE
from tests.stage.waiting import eventually

CONFIGURATIONS = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")
OURS = ("-l", "app.kubernetes.io/part-of=trainseal")
TLS = "trainseal-webhook-tls"
ENABLED = ("--set", "certManager.enabled=true")
DEV = "--as=dev@example.org"

ISSUER = "internal-ca"
ISSUER_REF = {"group": "cert-manager.io", "kind": "ClusterIssuer", "name": ISSUER}
#: The platform's own authority, as an administrator sets one up.
CLUSTER_ISSUER = f"""
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: {{name: from-nothing}}
spec: {{selfSigned: {{}}}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {{name: {ISSUER}, namespace: {CERT_MANAGER}}}
spec:
  isCA: true
  commonName: {ISSUER}
  secretName: {ISSUER}
  issuerRef: {{group: cert-manager.io, kind: ClusterIssuer, name: from-nothing}}
---
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: {{name: {ISSUER}}}
spec: {{ca: {{secretName: {ISSUER}}}}}
"""


# What there is to be seen --------------------------------------------------------------------


def secret(release: Release, name: str = TLS, namespace: str = NAMESPACE) -> dict[str, bytes]:
    """What a Secret holds."""
    data = release.get("secret", name, namespace)["data"]
    return {key: base64.b64decode(value) for key, value in data.items()}


def configurations(release: Release) -> list[Object]:
    """Every webhook configuration of ours."""
    fields = "--show-managed-fields"
    found = release.kubectl("get", ",".join(CONFIGURATIONS), *OURS, "-o", "json", fields)
    items: list[Object] = json.loads(found)["items"]
    return items


def trusted(release: Release) -> dict[str, bytes]:
    """Whom the API server trusts, by configuration and webhook."""
    return {
        f"{c['kind']} {c['metadata']['name']} {w['name']}": base64.b64decode(
            w["clientConfig"].get("caBundle", "")
        )
        for c in configurations(release)
        for w in c["webhooks"]
    }


def webhook_pods(release: Release) -> list[Object]:
    """Those that stay."""
    label = "app.kubernetes.io/component=webhook"
    found = release.kubectl("get", "pods", "-n", NAMESPACE, "-l", label, "-o", "json")
    return [p for p in json.loads(found)["items"] if "deletionTimestamp" not in p["metadata"]]


def served(release: Release) -> set[bytes]:
    """The certificates (PEM) that the replicas serve."""
    cluster = release.target
    assert isinstance(cluster, Cluster)
    ask = "import ssl, sys; print(ssl.get_server_certificate((sys.argv[1], 8443)), end='')"
    return {
        subprocess.run(
            cluster.node_command(sys.executable, "-c", ask, p["status"]["podIP"]),
            check=True,
            capture_output=True,
        ).stdout
        for p in webhook_pods(release)
    }


def issuer_of(certificate: bytes) -> str:
    """The common name of whoever signed it."""
    return x509.load_pem_x509_certificate(certificate).issuer.rfc4514_string()


def renew(release: Release, name: str, namespace: str = NAMESPACE) -> None:
    """What `cmctl renew` does; returns when the new certificate is there."""
    holder = release.get("certificate", name, namespace)["spec"]["secretName"]
    before = secret(release, holder, namespace)["tls.crt"]
    condition = {
        "type": "Issuing",
        "status": "True",
        "reason": "ManuallyTriggered",
        "message": "Certificate re-issuance manually triggered",
        "lastTransitionTime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    change = [{"op": "add", "path": "/status/conditions/-", "value": condition}]
    release.kubectl(
        "patch", "certificate", name, "-n", namespace,
        "--subresource=status", "--type=json", "-p", json.dumps(change),
    )  # fmt: skip

    def renewed() -> bool:
        status = release.get("certificate", name, namespace)["status"]
        issuing = any(c["type"] == "Issuing" for c in status["conditions"])
        return not issuing and secret(release, holder, namespace)["tls.crt"] != before

    eventually(renewed, f"cert-manager renews {name}")


def put(release: Release, verb: str, *flags: str) -> None:
    """Helm's `--wait` ends when our own parts are ready; then until the API server asks them."""
    release.put(verb, *flags)
    eventually(lambda: JUDGED in release.judgement(), "the webhook is asked")


def uninstall(release: Release) -> None:
    """Until no pod is left."""
    release.helm("uninstall", "trainseal", "--wait")
    release.kubectl("wait", "pod", "--all", "-n", NAMESPACE, "--for=delete", "--timeout=90s")


def assert_served_and_trusted(release: Release, issuer: str) -> None:
    """Every replica serves what cert-manager made, and every webhook of ours is trusted by it."""
    held = secret(release)
    live = release.get("secret", TLS, NAMESPACE)["metadata"]["annotations"]
    assert live["cert-manager.io/certificate-name"] == "trainseal-webhook"
    assert issuer_of(held["tls.crt"]) == f"CN={issuer}"
    leaf = x509.load_pem_x509_certificate(held["tls.crt"])
    eventually(
        lambda: {x509.load_pem_x509_certificate(c) for c in served(release)} == {leaf},
        "every replica serves the certificate of the Secret",
    )
    eventually(
        lambda: all(held["ca.crt"] in bundle for bundle in trusted(release).values()),
        "every webhook has the authority in its caBundle",
    )
    assert {name.rsplit(" ", 1)[0] for name in trusted(release)} == {
        "MutatingWebhookConfiguration trainseal",
        "ValidatingWebhookConfiguration trainseal",
        "ValidatingWebhookConfiguration trainseal-access",
    }


def assert_signed_in_unsigned_out(release: Release, job: Object) -> None:
    """By the webhook itself."""
    eventually(lambda: release.refusal(job) == "", "the webhook knows the policy")
    unsigned = copy.deepcopy(job)
    del unsigned["spec"]["signatures"]
    assert JUDGED in release.refusal(unsigned)


def assert_nothing_is_left(release: Release) -> None:
    """Of ours that acts: what stays holds keys, evidence and kinds, as the chart's page says."""
    for resource in (
        *CONFIGURATIONS,
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "clusterroles",
        "clusterrolebindings",
    ):
        left = release.kubectl("get", resource, *OURS, "-o", "name").split()
        assert [name for name in left if "/trainseal-parameters" not in name] == [], resource
    of_cert_manager = "issuers,certificates,certificaterequests"
    assert release.kubectl("get", of_cert_manager, "-n", NAMESPACE, "-o", "name") == ""
    eventually(lambda: release.refusal(pod(release.team, gpus=1)) == "", "GPU pods are accepted")


@pytest.fixture(scope="module")
def job(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Object:
    """A signed job; its policy stays from here on."""
    return signed_job(release, tmp_path_factory.mktemp("job"), "certified", "finish.py")


@pytest.fixture(scope="module")
def dev(release: Release) -> Iterator[str]:
    """Who may write every webhook configuration, and no policy."""
    verbs, kinds = "--verb=*", f"--resource={','.join(CONFIGURATIONS)}"
    release.kubectl("create", "clusterrole", "webhook-writer", verbs, kinds)
    user = DEV.removeprefix("--as=")
    release.kubectl(
        "create", "clusterrolebinding", "webhook-writer",
        "--clusterrole=webhook-writer", f"--user={user}",
    )  # fmt: skip
    yield DEV
    release.kubectl("delete", "clusterrole,clusterrolebinding", "webhook-writer")


# With an authority of the release's own -----------------------------------------------------------


def test_an_install_is_served_by_cert_managers_certificate_and_trusted_by_its_injector(
    release: Release,
) -> None:
    put(release, "install", *ENABLED)
    assert_served_and_trusted(release, "trainseal-ca")


@pytest.mark.usefixtures("job")
def test_it_passes_helms_test_and_the_doctors(release: Release) -> None:
    assert "Succeeded" in release.helm("test", "trainseal")
    told = release.target.run([sys.executable, "-m", "trainseal.cli.main", "doctor"])
    assert "fail closed, with a caBundle" in told


def test_the_injector_wrote_the_authority_and_not_our_controller(release: Release) -> None:
    for configuration in configurations(release):
        owners = {
            entry["manager"]
            for entry in configuration["metadata"]["managedFields"]
            if "f:caBundle" in json.dumps(entry["fieldsV1"])
        }
        assert len(owners) == 1, owners
        assert "cainjector" in owners.pop()


def test_a_signed_job_is_admitted_and_trains_and_an_unsigned_one_is_refused(
    release: Release, job: Object
) -> None:
    assert_signed_in_unsigned_out(release, job)
    release.kubectl("apply", "-f", "-", stdin=json.dumps(job))
    release.wait_for_phase(job, "Succeeded")
    release.kubectl("delete", "trainingjob", job["metadata"]["name"], "-n", release.team)


def test_a_renewal_is_served_without_a_restart_and_no_request_goes_without_an_answer(
    release: Release, job: Object
) -> None:
    before, pods = secret(release), {p["metadata"]["uid"] for p in webhook_pods(release)}
    with Asking(release) as asking:
        renew(release, "trainseal-webhook")
        assert secret(release)["tls.crt"] != before["tls.crt"]
        assert_served_and_trusted(release, "trainseal-ca")
    assert [answer for answer in asking.answers if JUDGED not in answer] == []
    now = webhook_pods(release)
    assert {p["metadata"]["uid"] for p in now} == pods
    assert {c["restartCount"] for p in now for c in p["status"]["containerStatuses"]} == {0}
    assert_signed_in_unsigned_out(release, job)


def test_the_renewal_of_the_authority_leaves_no_request_without_an_answer_either(
    release: Release,
) -> None:
    before = secret(release)
    with Asking(release) as asking:
        renew(release, "trainseal-ca")
        renew(release, "trainseal-webhook")
        assert secret(release)["ca.crt"] != before["ca.crt"]
        assert_served_and_trusted(release, "trainseal-ca")
    assert [answer for answer in asking.answers if JUDGED not in answer] == []


def test_a_certificate_that_somebody_deleted_is_made_anew(release: Release) -> None:
    before = secret(release)
    release.kubectl("delete", "secret", TLS, "-n", NAMESPACE)

    def there() -> bool:
        names = release.kubectl("get", "secrets", "-n", NAMESPACE, "-o", "name").split()
        return f"secret/{TLS}" in names and secret(release)["tls.crt"] != before["tls.crt"]

    eventually(there, "cert-manager makes it anew")
    assert_served_and_trusted(release, "trainseal-ca")
    assert JUDGED in release.judgement()


def test_trust_that_the_owner_emptied_comes_back_by_the_injector(release: Release) -> None:
    for live in configurations(release):
        for webhook in live["webhooks"]:
            del webhook["clientConfig"]["caBundle"]
        del live["metadata"]["resourceVersion"], live["metadata"]["managedFields"]
        release.kubectl("replace", "-f", "-", stdin=json.dumps(live))
    assert_served_and_trusted(release, "trainseal-ca")
    eventually(lambda: JUDGED in release.judgement(), "the webhook is asked again")


def test_nobody_else_changes_whom_the_api_server_trusts_nor_whom_it_asks(
    release: Release, dev: str
) -> None:
    for live in configurations(release):
        for change in _takeovers(live):
            for who in (dev, f"--as={INJECTOR}"):
                if who != dev and change.get("only-trust"):
                    continue  # that is its trade
                said = _refused(release, live, change["patch"], who)
                assert "expected its owner" in said, change
            said = _refused(release, live, change["patch"], f"--as={CONTROLLER}")
            assert "forbidden" in said.lower(), change
            ours = f"--as=system:serviceaccount:{NAMESPACE}:trainseal-controller"
            assert "forbidden" in _refused(release, live, change["patch"], ours).lower(), change
        # Where rules and trust are as they were, it is nobody's business.
        assert _refused(release, live, {"metadata": {"labels": {"seen": "yes"}}}, dev) == ""


def _takeovers(live: Object) -> Iterator[Object]:
    """Patches by which a webhook would be opened, led elsewhere, or trusted as somebody else's."""
    opened, redirected, trusting = (copy.deepcopy(live["webhooks"]) for _ in range(3))
    opened[0]["failurePolicy"] = "Ignore" if opened[0]["failurePolicy"] == "Fail" else "Fail"
    redirected[0]["clientConfig"]["service"]["namespace"] = "elsewhere"
    trusting[0]["clientConfig"]["caBundle"] = "QQ=="
    yield {"patch": {"webhooks": opened}}
    yield {"patch": {"webhooks": redirected}}
    yield {"patch": {"webhooks": trusting}, "only-trust": True}
    for name in ("inject-ca-from", "inject-ca-from-secret", "inject-apiserver-ca"):
        annotation = {f"cert-manager.io/{name}": "elsewhere/theirs"}
        yield {"patch": {"metadata": {"annotations": annotation}}}
    for change in ({"inject-ca-from": None}, {"inject-ca-from-secret": ""}):
        annotations = {f"cert-manager.io/{name}": value for name, value in change.items()}
        yield {"patch": {"metadata": {"annotations": annotations}}}


def _refused(release: Release, live: Object, change: Object, who: str) -> str:
    """Why a patch is not accepted (on trial); empty where it is."""
    try:
        release.kubectl(
            "patch", live["kind"].lower(), live["metadata"]["name"],
            "--type=merge", "--dry-run=server", "-p", json.dumps(change), who,
        )  # fmt: skip
    except CommandError as error:
        return error.stderr
    return ""


def test_an_uninstall_leaves_nothing_that_acts(release: Release) -> None:
    uninstall(release)
    assert_nothing_is_left(release)


# With the platform's authority, and the way back and forth ---------------------------------------


@pytest.fixture(scope="module")
def platforms(release: Release, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of values that names the platform's ClusterIssuer, which is ready."""
    release.kubectl("apply", "-f", "-", stdin=CLUSTER_ISSUER)
    release.kubectl("wait", f"clusterissuer/{ISSUER}", "--for=condition=Ready", "--timeout=60s")
    path: Path = tmp_path_factory.mktemp("values") / "values.yaml"
    values: Any = {"certManager": {"enabled": True, "issuerRef": ISSUER_REF}}
    path.write_text(yaml.safe_dump(values))
    return f"--values={path}"


def test_an_install_with_the_platforms_issuer_is_served_and_trusted_by_that(
    release: Release, platforms: str, job: Object
) -> None:
    # As on a cluster that never had it.
    for name in (TLS, "trainseal-ca"):
        release.kubectl("delete", "secret", name, "-n", NAMESPACE)
    put(release, "install", platforms)
    assert_served_and_trusted(release, ISSUER)
    issuers = release.kubectl("get", "issuers", "-n", NAMESPACE, "-o", "name")
    assert issuers == "", "no authority of the release's own"
    assert "Succeeded" in release.helm("test", "trainseal")
    assert_signed_in_unsigned_out(release, job)


def test_a_renewal_by_the_platforms_issuer_leaves_no_request_without_an_answer(
    release: Release,
) -> None:
    with Asking(release) as asking:
        renew(release, "trainseal-webhook")
        assert_served_and_trusted(release, ISSUER)
    assert [answer for answer in asking.answers if JUDGED not in answer] == []


def test_an_upgrade_to_the_controllers_own_certificate_leaves_no_request_without_an_answer(
    release: Release, job: Object
) -> None:
    with Asking(release) as asking:
        put(release, "upgrade")
        # What cert-manager made is served until everybody trusts the controller's own as well.
        eventually(lambda: "next-ca.crt" in secret(release), "the controller stages its own")
        held = secret(release)
        eventually(
            lambda: all(held["next-ca.crt"] in bundle for bundle in trusted(release).values()),
            "every webhook has both authorities in its caBundle",
        )
    assert [answer for answer in asking.answers if JUDGED not in answer] == []
    assert {issuer_of(certificate) for certificate in served(release)} == {f"CN={ISSUER}"}
    assert "Succeeded" in release.helm("test", "trainseal")
    assert_signed_in_unsigned_out(release, job)
    for configuration in configurations(release):
        annotations = configuration["metadata"].get("annotations", {})
        assert not [name for name in annotations if name.startswith("cert-manager.io/")]


def test_an_upgrade_to_cert_manager_leaves_admission_working(release: Release, job: Object) -> None:
    put(release, "upgrade", *ENABLED)
    eventually(
        lambda: issuer_of(secret(release)["tls.crt"]) == "CN=trainseal-ca",
        "cert-manager takes the Secret over",
    )
    assert_served_and_trusted(release, "trainseal-ca")
    assert "Succeeded" in release.helm("test", "trainseal")
    assert_signed_in_unsigned_out(release, job)
    assert FLOOR in release.refusal(pod(release.team, gpus=1))


def test_another_uninstall_leaves_nothing_that_acts_either(release: Release) -> None:
    uninstall(release)
    assert_nothing_is_left(release)
