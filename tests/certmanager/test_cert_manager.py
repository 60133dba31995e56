"""The chart with certificates by cert-manager: its own issuer, one of the cluster's, and back.

`make cert-manager` runs it: it builds cert-manager's controllers first. They run beside the cluster
with the rights that cert-manager's chart gives their service accounts, or narrower ones. The tests
are the steps of one release's life, each begins where the one before it has left it.
"""

from __future__ import annotations

import base64
import copy
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from tests.cluster import Cluster, CommandError, tools
from tests.cluster.pins import PROGRAMS
from tests.images import build_operator_image
from tests.stage.chart import JUDGED, TEAM, Object, Release, eventually
from tests.stage.jobs import SHORT_CODE, short_job
from tests.stage.people import with_cosign_key, with_openssl_key
from tests.stage.policies import policy
from tests.stage.release import NAMESPACE
from tests.stage.signing import push_tree, sign_image, signed, write_tree

#: What the how-to says.
WITH_CERT_MANAGER = ("--set", "certManager.enabled=true")
OF_THE_CLUSTER = (
    *WITH_CERT_MANAGER,
    *("--set", "certManager.issuerRef.group=cert-manager.io"),
    *("--set", "certManager.issuerRef.kind=ClusterIssuer"),
    *("--set", "certManager.issuerRef.name=internal-ca"),
)
MANAGER = "cert-manager"
INJECTOR = f"system:serviceaccount:{MANAGER}:cert-manager-cainjector"
CONFIGURATIONS = ("mutatingwebhookconfiguration", "validatingwebhookconfiguration")
SECRET = ("secret", "trainseal-webhook-tls", "-n", NAMESPACE)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    found = Cluster.up("certmanager")
    try:
        yield found
    finally:
        found.down()


@pytest.fixture(scope="module")
def manager(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """cert-manager, as its chart would install it but for its webhook, which judges its kinds."""
    program, folder = tools((MANAGER,))[MANAGER], tmp_path_factory.mktemp(MANAGER)
    for crd in sorted(_module().glob("deploy/crds/*.yaml")):
        cluster.kubectl("apply", "--server-side", "-f", str(crd))
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    cluster.kubectl("create", "namespace", MANAGER)
    running = []
    try:
        for part, account in (("controller", MANAGER), ("cainjector", INJECTOR.split(":")[-1])):
            cluster.kubectl("apply", "-f", "-", input=json.dumps(_account(account, _RULES[part])))
            kubeconfig = _kubeconfig(cluster, account, folder)
            with (folder / f"{part}.log").open("wb") as log:
                argv = [str(program), part, str(kubeconfig)]
                running.append(subprocess.Popen(argv, stdout=log, stderr=log))
        yield
        ended = [one.args for one in running if one.poll() is not None]
        assert ended == [], f"see {folder}"
    finally:
        for one in running:
            one.terminate()
        for one in running:
            one.wait(30)


def _module() -> Path:
    """cert-manager's sources, as go.mod pins them."""
    argv = ["go", "mod", "download", "-json", "github.com/cert-manager/cert-manager"]
    found = subprocess.run(argv, cwd=PROGRAMS[MANAGER].source, stdout=subprocess.PIPE, check=True)
    return Path(json.loads(found.stdout)["Dir"])


_ALL = ["get", "list", "watch", "create", "update", "patch", "delete"]
_RULES: dict[str, list[Object]] = {
    "controller": [
        {"apiGroups": ["cert-manager.io"], "resources": ["*"], "verbs": [*_ALL, "approve"]},
        {"apiGroups": ["cert-manager.io"], "resources": ["signers"], "verbs": ["approve"]},
        {"apiGroups": [""], "resources": ["secrets", "events"], "verbs": _ALL},
    ],
    "cainjector": [
        {
            "apiGroups": ["cert-manager.io"],
            "resources": ["certificates"],
            "verbs": ["get", "list", "watch"],
        },
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
        {
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"],
            "verbs": ["get", "list", "watch", "update", "patch"],
        },
        {
            "apiGroups": ["apiextensions.k8s.io"],
            "resources": ["customresourcedefinitions"],
            "verbs": ["get", "list", "watch"],
        },
    ],
}


def _account(name: str, rules: list[Object]) -> Object:
    place = {"name": name, "namespace": MANAGER}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    rbac = "rbac.authorization.k8s.io/v1"
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": place},
            {"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules},
            {
                "apiVersion": rbac,
                "kind": "ClusterRoleBinding",
                "metadata": {"name": name},
                "roleRef": role,
                "subjects": [{"kind": "ServiceAccount", **place}],
            },
        ],
    }


def _kubeconfig(cluster: Cluster, account: str, folder: Path) -> Path:
    token = cluster.kubectl("create", "token", account, "-n", MANAGER, "--duration=2h").strip()
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    for user in config["users"]:
        user["user"] = {"token": token}
    path = folder / f"{account}.kubeconfig"
    path.touch(0o600)
    path.write_text(yaml.safe_dump(config))
    return path


@dataclass(frozen=True)
class World:
    """A release that is not installed yet, and a job that was signed for its cluster."""

    release: Release
    job: Object
    unsigned: Object

    def secret(self) -> dict[str, bytes]:
        """What lies in the webhook's Secret."""
        data = json.loads(self.release.kubectl("get", *SECRET, "-o", "json"))["data"]
        return {name: base64.b64decode(value) for name, value in data.items()}

    def secret_or_nothing(self) -> dict[str, bytes]:
        """Empty where it is not there."""
        try:
            return self.secret()
        except CommandError:
            return {}

    def leaves(self) -> list[x509.Certificate]:
        """The certificates in the webhook's Secret."""
        return x509.load_pem_x509_certificates(self.secret()["tls.crt"])

    def issuers(self) -> str:
        """Names of what the release has of cert-manager's kinds."""
        kinds = "issuers.cert-manager.io,certificates.cert-manager.io"
        return self.release.kubectl("get", kinds, "-n", NAMESPACE, "-o", "name")

    def trusted(self) -> set[bytes]:
        """What the API server trusts the webhooks of all configurations by."""
        return {
            base64.b64decode(webhook["clientConfig"].get("caBundle", ""))
            for kind in CONFIGURATIONS
            for configuration in self.configurations(kind)
            for webhook in configuration["webhooks"]
        }

    def configurations(self, kind: str) -> list[Object]:
        """Ours, of that kind."""
        listed = json.loads(self.release.kubectl("get", kind, "-o", "json"))["items"]
        return [c for c in listed if c["metadata"]["name"].startswith("trainseal")]

    def works(self) -> bool:
        """The webhook is asked, accepts what is signed and refuses what is not."""
        refusal = self.release.refusal(self.unsigned)
        return not self.release.refusal(self.job) and JUDGED in refusal

    def issued_by_cert_manager(self) -> bool:
        """Each webhook's authority is that of the Secret; an earlier one may stay beside it."""
        authority = self.secret().get("ca.crt", b"").strip()
        return bool(authority) and all(authority in trusted for trusted in self.trusted())

    def loaded(self) -> dict[str, int]:
        """How often each replica, by name and restarts, has loaded a certificate."""
        words = ("-n", NAMESPACE, "-l", "app.kubernetes.io/component=webhook")
        pods = json.loads(self.release.kubectl("get", "pods", *words, "-o", "json"))["items"]
        found = {}
        for pod in pods:
            name, (status,) = pod["metadata"]["name"], pod["status"]["containerStatuses"]
            log = self.release.kubectl("logs", name, "-n", NAMESPACE)
            found[f"{name} {status['restartCount']}"] = log.count("serving certificate loaded")
        return found


@pytest.fixture(scope="module")
def world(cluster: Cluster, manager: None, tmp_path_factory: pytest.TempPathFactory) -> World:
    image = cluster.push_image(build_operator_image(), "trainseal")
    release, folder = Release(cluster, image), tmp_path_factory.mktemp("world")
    for name in (NAMESPACE, TEAM):
        release.kubectl("create", "namespace", name)
    release.put("install", *WITH_CERT_MANAGER)
    alice = with_openssl_key(folder, "alice")
    platform = with_cosign_key(cluster, folder, "platform")
    rules = policy(
        TEAM, TEAM, signers=[alice], image_signers=[platform], registries=[cluster.registry]
    )
    eventually(lambda: not release.refusal(rules), "cert-manager has injected its authority")
    release.kubectl("apply", "-f", "-", stdin=json.dumps(rules))
    sign_image(cluster, image, platform)
    code = push_tree(cluster.registry, write_tree(folder / "tree", SHORT_CODE), "code", alice)
    unsigned = short_job("by-cert-manager", TEAM, image, code)
    return World(release, signed(unsigned, alice), unsigned)


def test_with_an_issuer_of_its_own_the_webhook_is_asked_and_judges(world: World) -> None:
    eventually(world.issued_by_cert_manager, "cert-manager's authority is trusted")
    eventually(world.works, "what is signed is accepted, and nothing else")
    leaf = world.leaves()[0]
    assert leaf.issuer.rfc4514_string() == "CN=trainseal-ca"


def test_a_renewal_is_served_without_a_restart(world: World) -> None:
    before, loaded = world.secret(), world.loaded()
    world.release.kubectl("delete", *SECRET)
    eventually(lambda: "tls.crt" in world.secret_or_nothing(), "it is issued again")
    assert world.secret()["tls.crt"] != before["tls.crt"]
    eventually(
        lambda: (
            world.loaded().keys() == loaded.keys()
            and all(count > loaded[name] for name, count in world.loaded().items())
        ),
        "each replica has loaded it",
        seconds=150,
    )
    assert world.issued_by_cert_manager()
    assert world.works()


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_nobody_but_the_injector_changes_what_is_trusted(world: World, kind: str) -> None:
    """Though roles let them write webhook configurations, as many an operator's do."""
    world.release.kubectl("apply", "-f", "-", stdin=json.dumps(_writers()))
    for found in world.configurations(kind):
        changed = copy.deepcopy(found)
        for webhook in changed["webhooks"]:
            webhook["clientConfig"]["caBundle"] = base64.b64encode(b"mallory's").decode()
        for user in _OTHERS:
            with pytest.raises(CommandError) as refused:
                world.release.kubectl(
                    "replace", "--dry-run=server", "-f", "-", f"--as={user}",
                    stdin=json.dumps(changed),
                )  # fmt: skip
            assert f"certificate authority changed by {user}" in refused.value.stderr


def test_with_an_issuer_of_the_clusters_its_authority_is_trusted(world: World) -> None:
    world.release.kubectl("apply", "-f", "-", stdin=json.dumps(_internal_ca()))
    before = world.trusted()
    world.release.put("upgrade", *OF_THE_CLUSTER)
    eventually(lambda: world.trusted() != before, "the trust is another", seconds=150)
    eventually(world.issued_by_cert_manager, "the other authority is trusted")
    eventually(world.works, "what is signed is accepted, and nothing else", seconds=150)
    leaf = world.leaves()[0]
    assert leaf.issuer.rfc4514_string() == "CN=internal-ca"


def test_back_to_certificates_of_the_release_it_goes_on(world: World) -> None:
    world.release.put("upgrade")
    eventually(lambda: not world.issuers(), "cert-manager's objects of ours are gone")
    eventually(
        lambda: world.leaves()[0].issuer.rfc4514_string() != "CN=internal-ca",
        "the controller has issued one",
        seconds=150,
    )
    eventually(world.works, "what is signed is accepted, and nothing else", seconds=150)


def test_and_from_there_to_cert_manager(world: World) -> None:
    world.release.put("upgrade", *WITH_CERT_MANAGER)
    eventually(world.issued_by_cert_manager, "cert-manager's authority is trusted", seconds=150)
    eventually(world.works, "what is signed is accepted, and nothing else", seconds=150)


def test_an_uninstall_leaves_nothing_that_cert_manager_would_renew(world: World) -> None:
    world.release.helm("uninstall", "trainseal", "--wait")
    assert world.issuers() == ""
    assert [c for kind in CONFIGURATIONS for c in world.configurations(kind)] == []


_OTHERS = (
    f"system:serviceaccount:{NAMESPACE}:trainseal-controller",
    "system:serviceaccount:cert-manager:cert-manager",
    "mallory@example.org",
)


def _writers() -> Object:
    rbac, name = "rbac.authorization.k8s.io", {"name": "writes-webhook-configurations"}
    rule = _RULES["cainjector"][3]
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": name, "rules": [rule]},
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": name,
                "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", **name},
                "subjects": [{"apiGroup": rbac, "kind": "User", "name": u} for u in _OTHERS],
            },
        ],
    }


def _internal_ca() -> Object:
    """An authority of the cluster's, as a platform team has one."""
    group = {"group": "cert-manager.io"}
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {
                "apiVersion": "cert-manager.io/v1",
                "kind": "ClusterIssuer",
                "metadata": {"name": "self-signed"},
                "spec": {"selfSigned": {}},
            },
            {
                "apiVersion": "cert-manager.io/v1",
                "kind": "Certificate",
                "metadata": {"name": "internal-ca", "namespace": MANAGER},
                "spec": {
                    "isCA": True,
                    "commonName": "internal-ca",
                    "secretName": "internal-ca",
                    "privateKey": {"algorithm": "ECDSA", "size": 256},
                    "issuerRef": {**group, "kind": "ClusterIssuer", "name": "self-signed"},
                },
            },
            {
                "apiVersion": "cert-manager.io/v1",
                "kind": "ClusterIssuer",
                "metadata": {"name": "internal-ca"},
                "spec": {"ca": {"secretName": "internal-ca"}},
            },
        ],
    }
