"""Who gets into sealed pods: the chart's rules, a real API server, and the webhook itself."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from tests.cluster import CommandError
from tests.cluster.ports import free_port
from tests.integration.chart.conftest import CONTROLLER, NAMESPACE, WEBHOOK, ApiServer, Helm, Object
from tests.sample_objects import access_record, break_glass
from tests.stage.waiting import eventually
from tests.unit import world as signed
from trainseal.cluster.api import connect
from trainseal.cluster.keys import new_key_pem
from trainseal.controller.alerts import Alert
from trainseal.controller.certificate_rotation import ServingCertificate, issue
from trainseal.controller.ruleswatch import RulesWatch

TEAM = "accesses"
ANN = ("--as=ann@example.org", "--as-group=team", "--as-group=system:authenticated")
ROOT = "--as-group=system:masters"
PROGRAM = "from trainseal.cli.main import main; main()"
#: One sealed pod for each test that looks at what is on record of it.
PODS = (
    "exec", "attach", "forward", "proxy", "rehearsed", "deleted", "forced", "swept", "evicted",
    "debugged", "unwritten", "unanswered", "collected", "shut", "watched", "borrowed", "helped",
    "broken", "kept", "labelled",
)  # fmt: skip
#: Likewise, of those that are resized: they ask for a processor, and wait for a node.
RESIZED = ("sized", "grown", "hired", "stretched", "unsized")


@dataclass
class Webhook:
    """The webhook's process, with the rights that the chart gives it."""

    server: ApiServer
    config: Path
    log: Path
    port: int
    metrics_port: int
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Returns once it is ready."""
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}")
        kubeconfig = self.server.cluster.user_kubeconfig(WEBHOOK, groups)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-c", PROGRAM, "webhook", "--namespace", NAMESPACE),
                    *("--config", str(self.config), "--kubeconfig", str(kubeconfig)),
                    *("--port", str(self.port), "--metrics-port", str(self.metrics_port)),
                ],
                stdout=log,
                stderr=log,
            )
        eventually(self._ready, f"the webhook is ready: {self.log}")

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError):
            return self._read("readyz") == "ok\n"
        return False

    def metric(self, name: str) -> float:
        """One sample, by its name and labels as Prometheus reads them; 0 where there is none."""
        for line in self._read("metrics").splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        return 0

    def _read(self, path: str) -> str:
        url = f"http://127.0.0.1:{self.metrics_port}/{path}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            text: str = answer.read().decode()
        return text

    def stop(self) -> None:
        """Gone when this returns."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True)
class Team:
    """A namespace with sealed pods, one of nobody's, and ann, who may edit there."""

    server: ApiServer
    webhook: Webhook
    seal: str

    def kubectl(self, *args: str, stdin: str | None = None, by: tuple[str, ...] = ANN) -> str:
        """kubectl as ann, in her namespace."""
        return self.server.kubectl("-n", TEAM, *by, *args, stdin=stdin)

    def connect(self, pod: str, what: str, *, by: tuple[str, ...] = ANN) -> str:
        """One request to a pod's subresource: what is answered. No kubelet is behind it."""
        path = f"/api/v1/namespaces/{TEAM}/pods/{pod}/{what}"
        with pytest.raises(CommandError) as answered:
            self.server.kubectl(*by, "create", "--raw", path, "-f", "-", stdin="")
        return answered.value.stderr

    def records(self, pod: str) -> list[Object]:
        """What is on record of a pod."""
        items = json.loads(self.kubectl("get", "accessrecords", "-o", "json"))["items"]
        return [i for i in items if i["spec"].get("pod", {}).get("name") == pod]


def _sealed_pod(name: str, owner: Object, labels: Object) -> Object:
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "controller": True}
    reference |= {k: owner["metadata"][k] for k in ("name", "uid")}
    metadata: Object = {"name": name, "namespace": TEAM, "labels": labels}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**metadata, "ownerReferences": [reference]},
        "spec": {
            "nodeName": "node-7",
            "containers": [{"name": "trainer", "image": "registry.example/x"}],
        },
    }


def _seal(server: ApiServer, owner: Object) -> Object:
    """A seal that is bound to the owner; stored as the controller stores it."""
    system = server.get(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system"}}
    )

    def elsewhere(job: Object) -> None:
        job["metadata"]["namespace"] = TEAM

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signed, "CLUSTER", system["metadata"]["uid"])
        seal = signed.sealed_world(elsewhere).seal
        binding = signed.binding(seal, signed.SEAL_KEY, owner["metadata"]["uid"])
    as_controller = f"--as={CONTROLLER}"
    stored = server.create({k: v for k, v in seal.items() if k != "status"}, as_controller)
    status = json.dumps({"status": {"binding": binding, "phase": "Bound"}})
    server.kubectl(
        "patch", "sealedrun", stored["metadata"]["name"], "-n", TEAM, "--subresource=status",
        "--type=merge", "-p", status, as_controller, ROOT,
    )  # fmt: skip
    return stored


def _secrets(server: ApiServer, serving: ServingCertificate) -> None:
    """What the controller makes: keyring, ticket key and certificate."""

    def encoded(value: bytes) -> str:
        return base64.b64encode(value).decode()

    keys = [
        {"keyID": key.public.id, "purpose": purpose, "publicKey": key.public.pem,
         "notBefore": "2020-01-01T00:00:00Z"}
        for purpose, key in (("seal", signed.SEAL_KEY), ("ticket", signed.TICKET_KEY))
    ]  # fmt: skip
    pair = {"tls.crt": encoded(serving.certificate), "tls.key": encoded(serving.private_key)}
    for kind, name, data in (
        ("ConfigMap", "trainseal-keyring", {"keys.yaml": yaml.safe_dump(keys)}),
        ("Secret", "trainseal-ticket-key", {"key.pem": encoded(new_key_pem())}),
        ("Secret", "trainseal-webhook-tls", pair),
    ):
        metadata = {"name": name, "namespace": NAMESPACE}
        server.create({"apiVersion": "v1", "kind": kind, "metadata": metadata, "data": data})


def _point_at(server: ApiServer, webhook: Webhook, authority: bytes) -> None:
    """The chart's rules, asked of our process instead of the Service."""
    for kind, name in (
        ("ValidatingWebhookConfiguration", "trainseal"),
        ("ValidatingWebhookConfiguration", "trainseal-access"),
        ("MutatingWebhookConfiguration", "trainseal"),
    ):
        api = "admissionregistration.k8s.io/v1"
        live = server.get({"apiVersion": api, "kind": kind, "metadata": {"name": name}})
        for rule in live["webhooks"]:
            path = rule["clientConfig"]["service"]["path"]
            rule["clientConfig"] = {
                "url": f"https://localhost:{webhook.port}{path}",
                "caBundle": base64.b64encode(authority).decode(),
            }
        server.replace(live)


@pytest.fixture(scope="module")
def team(server: ApiServer, helm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("access")
    server.kubectl("create", "namespace", TEAM)
    server.kubectl("wait", "--for=create", "serviceaccount/default", "-n", TEAM)
    metadata = {"name": "job", "namespace": TEAM}
    owner = server.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    # Made before anything of ours is there: no Job controller runs here that could make them.
    labels = {"trainseal.dev/job": "char-lm"}
    for name in PODS:
        server.create(
            _sealed_pod(name, owner, labels | {"sweep": str(name == "collected").lower()})
        )
    for name in RESIZED:
        waiting = _sealed_pod(name, owner, labels)
        del waiting["spec"]["nodeName"]
        waiting["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1"}}
        server.create(waiting)
    bare = _sealed_pod("bare", owner, {})
    del bare["metadata"]["ownerReferences"]
    server.create(bare)
    chart = Helm(server, helm)
    chart.install()
    server.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
    server.kubectl("create", "rolebinding", "ann", "-n", TEAM, "--clusterrole=edit", "--group=team")
    # Debug containers and resizes are in no role of a team's own.
    server.kubectl(
        "create", "role", "debug", "-n", TEAM, "--verb=get", "--verb=patch",
        "--resource=pods/ephemeralcontainers", "--resource=pods/resize",
    )  # fmt: skip
    server.kubectl("create", "rolebinding", "debug", "-n", TEAM, "--role=debug", "--group=team")
    seal = _seal(server, owner)
    serving = issue(["localhost"], datetime.now(UTC))
    _secrets(server, serving)
    config = folder / "config.yaml"
    config.write_text(f"excludedNamespaces: [kube-system, {NAMESPACE}]\n")
    webhook = Webhook(server, config, folder / "webhook.log", free_port(), free_port())
    try:
        webhook.start()
        _point_at(server, webhook, serving.authority)
        made = Team(server, webhook, seal["metadata"]["name"])
        probe = "exec?command=true&container=trainer&stdout=true"
        eventually(
            lambda: (
                "failed calling webhook" not in made.connect("bare", probe)
                and "denied" not in made.connect("bare", probe)
            ),
            "the API server asks our process",
        )
        yield made
    finally:
        webhook.stop()
        chart.uninstall()
        server.kubectl("delete", "namespace", TEAM, "--wait=false")


EXEC = "exec?command=cat&command=/etc/hostname&container=trainer&stdout=true"


def test_an_exec_into_a_sealed_pod_is_on_record_with_who_and_what(team: Team) -> None:
    answer = team.connect("exec", EXEC)
    assert "denied" not in answer
    (found,) = team.records("exec")
    spec = found["spec"]
    assert spec["username"] == "ann@example.org"
    assert {"team", "system:authenticated"} <= set(spec["groups"])
    assert spec["command"] == ["cat", "/etc/hostname"]
    assert (spec["action"], spec["container"], spec["allowed"]) == ("Exec", "trainer", True)
    assert (spec["sealedRun"], spec["node"]) == (team.seal, "node-7")
    assert found["metadata"]["labels"]["trainseal.dev/node"] == "node-7"
    assert team.webhook.metric(
        'trainseal_access_records_total{action="Exec",allowed="true"}'
    ) >= 1  # fmt: skip
    shown = team.kubectl("get", "access")
    assert "ann@example.org" in shown
    assert '["cat","/etc/hostname"]' in shown


def test_an_exec_into_any_other_pod_is_not(team: Team) -> None:
    assert "denied" not in team.connect("bare", EXEC)
    assert team.records("bare") == []


@pytest.mark.parametrize(
    ("pod", "what", "action", "fields"),
    [
        ("attach", "attach?container=trainer&stdin=true&tty=true", "Attach",
         {"container": "trainer", "stdin": True, "tty": True}),
        ("forward", "portforward?ports=29500", "PortForward", {"ports": [29500]}),
        ("http:proxy:8080", "proxy/metrics?token=hunter2", "Proxy", {"path": "/metrics"}),
    ],
)  # fmt: skip
def test_so_is_every_other_way_in(
    team: Team, pod: str, what: str, action: str, fields: Object
) -> None:
    assert "denied" not in team.connect(pod, what)
    (found,) = team.records(pod.split(":")[1] if ":" in pod else pod)
    assert found["spec"]["action"] == action
    assert {k: found["spec"].get(k) for k in fields} == fields
    assert "hunter2" not in json.dumps(found)


def test_a_deletion_is_on_record_but_not_its_dry_run(team: Team) -> None:
    team.kubectl("delete", "pod", "rehearsed", "--dry-run=server")
    assert team.records("rehearsed") == []
    team.kubectl("delete", "pod", "deleted", "--wait=false")
    (found,) = team.records("deleted")
    assert (found["spec"]["action"], found["spec"]["username"]) == ("Delete", "ann@example.org")
    team.kubectl("delete", "pod", "bare", "--dry-run=server")
    assert team.records("bare") == []


def test_a_pod_that_is_killed_at_once_is_one_record(team: Team) -> None:
    """The API server asks twice about it."""
    team.kubectl("delete", "pod", "forced", "--grace-period=0", "--force")
    (found,) = team.records("forced")
    assert found["spec"]["gracePeriodSeconds"] == 0


def test_a_pod_that_goes_with_its_collection_is_on_record_by_its_name(team: Team) -> None:
    team.kubectl("delete", "pods", "-l", "sweep=true", "--wait=false")
    (found,) = team.records("collected")
    assert found["spec"]["action"] == "Delete"


@pytest.mark.parametrize(
    "who",
    [
        "system:serviceaccount:kube-system:generic-garbage-collector",
        "system:node:node-7",
        CONTROLLER,
    ],
)
def test_who_ends_pods_by_trade_is_not_asked(team: Team, who: str) -> None:
    team.kubectl("delete", "pod", "swept", "--wait=false", by=(f"--as={who}", ROOT))
    assert team.records("swept") == []


def test_an_eviction_is_on_record_but_not_its_dry_run(team: Team) -> None:
    def evict(**options: object) -> None:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "deleteOptions": options}
        body["metadata"] = {"name": "evicted", "namespace": TEAM}
        path = f"/api/v1/namespaces/{TEAM}/pods/evicted/eviction"
        team.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))

    evict(dryRun=["All"])
    assert team.records("evicted") == []
    evict()
    (found,) = team.records("evicted")
    assert (found["spec"]["action"], found["spec"]["username"]) == ("Evict", "ann@example.org")


def test_a_debug_container_is_refused_and_on_record(team: Team) -> None:
    with pytest.raises(CommandError, match=r"access\.ephemeralContainers is Deny"):
        team.kubectl(
            "debug", "debugged", "--image=busybox", "--quiet", "--attach=false", "--", "sh", "-i"
        )
    (found,) = team.records("debugged")
    assert (found["spec"]["action"], found["spec"]["allowed"]) == ("EphemeralContainer", False)
    assert (found["spec"]["image"], found["spec"]["command"]) == ("busybox", ["sh", "-i"])


# What a policy says -----------------------------------------------------------------------------


@pytest.fixture
def policy(team: Team) -> Iterator[Callable[..., Object]]:
    """Applies a policy of the namespace that says this of ways in."""
    made: list[Object] = []

    def apply(mode: str = "Enforce", **access: object) -> Object:
        here = {"include": [TEAM]}
        made.append(signed.policy_object("ways-in", mode=mode, namespaces=here, access=access))
        return team.server.create(made[-1])

    yield apply
    for obj in made:
        team.server.delete(obj)


def test_an_exec_that_a_policy_denies_is_refused_and_on_record(
    team: Team, policy: Callable[..., Object]
) -> None:
    policy(exec="Deny")
    eventually(lambda: "is Deny" in team.connect("shut", EXEC), "the policy counts")
    answer = team.connect("shut", EXEC)
    assert "of ProvenancePolicy ways-in, access.exec is Deny" in answer
    assert f"SealedRun {TEAM}/{team.seal}" in answer
    last = team.records("shut")[-1]["spec"]
    assert (last["action"], last["username"]) == ("Exec", "ann@example.org")
    assert False in {r["spec"]["allowed"] for r in team.records("shut")}
    assert "denied" not in team.connect("shut", "attach?container=trainer&stdin=true")
    assert "denied" not in team.connect("bare", EXEC)


def test_a_policy_that_audits_warns_who_gets_in(team: Team, policy: Callable[..., Object]) -> None:
    policy("Audit", exec="Deny")
    path = f"/api/v1/namespaces/{TEAM}/pods/watched/{EXEC}"

    def warned() -> bool:
        with pytest.raises(CommandError) as answered:
            team.server.kubectl(*ANN, "create", "--raw", path, "-f", "-", stdin="")
        return "Warning: would be denied under Enforce" in answered.value.stderr

    eventually(warned, "the policy counts")
    assert {r["spec"]["allowed"] for r in team.records("watched")} == {True}


def _with_token(server: ApiServer, token: str, path: Path) -> Path:
    text = server.kubectl("config", "view", "--raw", "--minify", "--flatten")
    config = yaml.safe_load(text)
    for entry in config["users"]:
        entry["user"] = {"token": token}
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
    return path


def test_nobody_gets_in_as_a_service_account_by_impersonation_or_by_its_token(
    team: Team, policy: Callable[..., Object], tmp_path: Path
) -> None:
    """An editor may take on any of the namespace: what it does would bear no person's name."""
    robot = f"system:serviceaccount:{TEAM}:default"
    team.server.kubectl(
        "create", "rolebinding", "robot", "-n", TEAM, "--clusterrole=edit",
        f"--serviceaccount={TEAM}:default",
    )  # fmt: skip
    as_robot = (f"--as={robot}",)
    eventually(
        lambda: "does not name this service account" in team.connect(
            "borrowed", EXEC, by=as_robot
        ),
        "the account may exec as far as RBAC goes",
    )  # fmt: skip
    path = f"/api/v1/namespaces/{TEAM}/pods/borrowed/{EXEC}"
    token = team.kubectl("create", "token", "default").strip()
    with pytest.raises(CommandError, match="does not name this service account"):
        team.server.cluster.kubectl(
            *("create", "--raw", path, "-f", "-"),
            input="",
            kubeconfig=_with_token(team.server, token, tmp_path / "robot.kubeconfig"),
        )
    assert {r["spec"]["username"] for r in team.records("borrowed")} == {robot}
    assert {r["spec"]["allowed"] for r in team.records("borrowed")} == {False}
    assert "denied" not in team.connect("bare", EXEC, by=as_robot)
    # The twin: one that a policy names.
    policy(serviceAccounts=[robot])
    eventually(
        lambda: "denied" not in team.connect("borrowed", EXEC, by=as_robot), "the policy counts"
    )


def test_a_debug_container_gets_in_where_a_policy_says_so_and_is_on_record(
    team: Team, policy: Callable[..., Object]
) -> None:
    policy(ephemeralContainers="Record")
    debug = ("debug", "helped", "--image=busybox", "--quiet", "--attach=false", "--", "id")

    def gets_in() -> bool:
        with contextlib.suppress(CommandError):
            team.kubectl(*debug)
            return True
        return False

    eventually(gets_in, "the policy counts")
    last = team.records("helped")[-1]["spec"]
    assert (last["action"], last["image"]) == ("EphemeralContainer", "busybox")
    assert True in {r["spec"]["allowed"] for r in team.records("helped")}


def _open_to(team: Team, user: str, approved_by: str, way: str = "Exec") -> str:
    """Makes a BreakGlass; its name."""
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=30)
    obj = break_glass()
    obj["metadata"] = {"generateName": "glass-", "namespace": TEAM}
    obj["spec"] |= {"sealedRun": team.seal, "user": user, "approvedBy": approved_by}
    obj["spec"] |= {"ways": [way], "notAfter": until.isoformat().replace("+00:00", "Z")}
    made = team.server.create(obj, f"--as={approved_by}", ROOT)
    name: str = made["metadata"]["name"]
    return name


def test_where_a_policy_asks_for_a_break_glass_nobody_gets_in_without_one(
    team: Team, policy: Callable[..., Object]
) -> None:
    policy(exec="BreakGlass", breakGlass={"selfApproval": {"groups": ["oncall"]}})
    eventually(lambda: "is BreakGlass" in team.connect("broken", EXEC), "the policy counts")
    assert "found no BreakGlass for this user and run" in team.connect("broken", EXEC)

    ann = "ann@example.org"
    _open_to(team, ann, ann)
    eventually(lambda: "was approved by who uses it" in team.connect("broken", EXEC), "it is known")
    on_call = (*ANN, "--as-group=oncall")
    assert "denied" not in team.connect("broken", EXEC, by=on_call)
    name = _open_to(team, ann, "carol@example.org")
    eventually(lambda: "denied" not in team.connect("broken", EXEC), "it counts")
    by_it = [r for r in team.records("broken") if r["spec"].get("breakGlass") == name]
    assert {(r["spec"]["username"], r["spec"]["allowed"]) for r in by_it} == {(ann, True)}
    assert by_it[0]["metadata"]["labels"]["trainseal.dev/break-glass"] == "true"
    # It is for one person, and for the way that it names.
    bob = ("--as=bob@example.org", "--as-group=team", "--as-group=system:authenticated")
    assert "found no BreakGlass" in team.connect("broken", EXEC, by=bob)


# Resizes ----------------------------------------------------------------------------------------


def _resize(team: Team, pod: str, cpu: str, *, by: tuple[str, ...] = ANN, **beside: object) -> str:
    """What is said where it is refused; nothing where it is not."""
    trainer = {"name": "trainer", "resources": {"requests": {"cpu": cpu}}, **beside}
    patch = json.dumps({"spec": {"containers": [trainer]}})
    try:
        team.kubectl("patch", "pod", pod, "--subresource=resize", "-p", patch, by=by)
    except CommandError as error:
        return error.stderr
    return ""


def _asks_for(team: Team, pod: str) -> str:
    """Processor, of the trainer."""
    (trainer,) = json.loads(team.kubectl("get", "pod", pod, "-o", "json"))["spec"]["containers"]
    found: str = trainer["resources"]["requests"]["cpu"]
    return found


def test_a_resize_is_refused_and_on_record_where_no_policy_says_otherwise(team: Team) -> None:
    said = _resize(team, "sized", "2")
    assert f"Resize by 'ann@example.org' of a pod that is sealed by SealedRun {TEAM}/" in said
    assert "access.resize is Deny" in said
    assert _asks_for(team, "sized") == "1"
    (found,) = team.records("sized")
    assert (found["spec"]["action"], found["spec"]["allowed"]) == ("Resize", False)
    assert found["spec"]["resized"] == [{"container": "trainer", "requests": {"cpu": "2"}}]
    assert _of_objects(team, "sized") == [], "one record of one act"


def test_where_a_policy_says_so_it_passes_once_it_is_on_record_and_nothing_passes_with_it(
    team: Team, policy: Callable[..., Object]
) -> None:
    policy(resize="Record")
    before = json.loads(team.kubectl("get", "pod", "grown", "-o", "json"))
    eventually(lambda: not _resize(team, "grown", "1500m"), "the policy counts")
    assert _asks_for(team, "grown") == "1500m"
    (last,) = [r for r in team.records("grown") if r["spec"]["allowed"]]
    assert last["spec"]["username"] == "ann@example.org"
    assert last["spec"]["resized"] == [{"container": "trainer", "requests": {"cpu": "1500m"}}]
    assert last["metadata"]["labels"]["trainseal.dev/resized"] == "true"
    # As the API server writes it, so that the live pod can be compared with it.
    assert not _resize(team, "grown", "2000m")
    sizes = [r["spec"]["resized"][0]["requests"]["cpu"] for r in team.records("grown")]
    assert _asks_for(team, "grown") == "2"
    assert "2" in sizes
    # Kubernetes drops what else comes by this way, or refuses it.
    assert not _resize(team, "grown", "3", image="busybox")
    policies = [{"resourceName": "cpu", "restartPolicy": "NotRequired"}]
    refused = "only cpu and memory resources are mutable"
    assert refused in _resize(team, "grown", "4", resizePolicy=policies)
    devices = {"requests": {"cpu": "4"}, "limits": {"nvidia.com/gpu": "1"}}
    assert refused in _resize(team, "grown", "4", resources=devices)
    after = json.loads(team.kubectl("get", "pod", "grown", "-o", "json"))
    for pod in (before, after):
        del pod["spec"]["containers"][0]["resources"]
        for name in ("generation", "resourceVersion"):
            del pod["metadata"][name]
    assert after == before


def test_a_service_account_resizes_where_every_policy_names_it(
    team: Team, policy: Callable[..., Object]
) -> None:
    scaler = f"system:serviceaccount:{TEAM}:scaler"
    account = f"--serviceaccount={TEAM}:scaler"
    team.server.kubectl("create", "rolebinding", "scaler", "-n", TEAM, "--role=debug", account)
    team.server.kubectl(
        "create", "rolebinding", "scaler-view", "-n", TEAM, "--clusterrole=view", account
    )
    by = (f"--as={scaler}",)
    applied = policy(resize="Record")
    denied = "does not name this service account"
    eventually(lambda: denied in _resize(team, "hired", "2", by=by), "the policy counts")
    team.server.delete(applied)
    policy(resize="Record", serviceAccounts=[scaler])
    eventually(lambda: not _resize(team, "hired", "2", by=by), "the policy counts")
    assert scaler in {r["spec"]["username"] for r in team.records("hired") if r["spec"]["allowed"]}


def test_where_a_policy_asks_for_a_break_glass_nobody_resizes_without_one(
    team: Team, policy: Callable[..., Object]
) -> None:
    policy(resize="BreakGlass")
    eventually(lambda: "is BreakGlass" in _resize(team, "stretched", "2"), "the policy counts")
    assert "found no BreakGlass for this user and run" in _resize(team, "stretched", "2")
    name = _open_to(team, "ann@example.org", "carol@example.org", "Resize")
    eventually(lambda: not _resize(team, "stretched", "2"), "it counts")
    by_it = [r for r in team.records("stretched") if r["spec"]["allowed"]]
    assert {r["spec"]["breakGlass"] for r in by_it} == {name}
    assert by_it[0]["metadata"]["labels"]["trainseal.dev/break-glass"] == "true"


@pytest.mark.parametrize("role", ["view", "edit", "admin"])
def test_none_of_kubernetes_own_roles_resizes_nor_gives_others_the_right(
    team: Team, role: str
) -> None:
    by = (f"--as={role}@example.org", "--as-group=system:authenticated")

    def may(*words: str) -> bool:
        with contextlib.suppress(CommandError):
            return team.kubectl("auth", "can-i", *words, by=by).strip() == "yes"
        return False

    team.server.kubectl(
        *("create", "rolebinding", f"of-{role}", "-n", TEAM),
        *(f"--clusterrole={role}", f"--user={role}@example.org"),
    )
    eventually(lambda: may("get", "pods"), "it is bound")
    assert may("patch", "pods") is (role != "view")
    assert not may("patch", "pods", "--subresource=resize")
    with pytest.raises(CommandError, match="orbidden"):
        team.kubectl(*("create", "role", "resize", "--verb=patch", "--resource=pods/resize"), by=by)


# What a run is made of --------------------------------------------------------------------------


def _of_the_run(team: Team, kind: str, **spec: object) -> Object:
    """An object that bears the labels of the run, made as the controller makes it."""
    group = {"Job": "batch/v1", "NetworkPolicy": "networking.k8s.io/v1"}.get(kind, "v1")
    labels = {"trainseal.dev/seal": team.seal, "trainseal.dev/job": "char-lm"}
    metadata: Object = {"name": f"of-{kind.lower()}", "namespace": TEAM, "labels": labels}
    made: Object = {"apiVersion": group, "kind": kind, "metadata": metadata, **spec}
    team.server.create(made, f"--as={CONTROLLER}", ROOT)
    return made


def _of_objects(team: Team, name: str) -> list[Object]:
    items = json.loads(team.kubectl("get", "accessrecords", "-o", "json"))["items"]
    return [i["spec"] for i in items if i["spec"].get("object", {}).get("name") == name]


OBJECTS: dict[str, Object] = {
    "ConfigMap": {"data": {"a": "b"}},
    "Service": {"spec": {"clusterIP": "None", "ports": [{"port": 1}]}},
    "NetworkPolicy": {"spec": {"podSelector": {}}},
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_who_deletes_what_a_run_leans_on_is_on_record(team: Team, kind: str) -> None:
    made = _of_the_run(team, kind, **OBJECTS[kind])
    name = made["metadata"]["name"]
    team.kubectl("delete", kind.lower(), name, "--dry-run=server")
    assert _of_objects(team, name) == []
    team.kubectl("delete", kind.lower(), name)
    (found,) = _of_objects(team, name)
    assert (found["action"], found["username"]) == ("DeleteObject", "ann@example.org")
    assert (found["object"]["kind"], found["sealedRun"]) == (kind, team.seal)


def test_what_is_no_part_of_a_run_is_deleted_without_a_record(team: Team) -> None:
    metadata = {"name": "notes", "namespace": TEAM}
    team.server.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    team.kubectl("delete", "configmap", "notes")
    assert _of_objects(team, "notes") == []


def test_a_claim_that_the_run_mounts_is_on_record_and_another_is_not(team: Team) -> None:
    for name in ("ckpt", "other"):
        team.server.create(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "namespace": TEAM},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": "1Gi"}},
                    "storageClassName": "none",
                },
            }
        )
        team.kubectl("delete", "persistentvolumeclaim", name, "--wait=false")
    assert [r["object"]["kind"] for r in _of_objects(team, "ckpt")] == ["PersistentVolumeClaim"]
    assert _of_objects(team, "other") == []


@pytest.mark.parametrize(
    ("selector", "leads"), [({"trainseal.dev/job": "char-lm"}, True), ({"app": "web"}, False)]
)
def test_a_service_that_leads_into_a_run_is_a_way_in(
    team: Team, policy: Callable[..., Object], selector: Object, leads: bool
) -> None:
    name = f"leads-{leads}".lower()
    metadata = {"name": name, "namespace": TEAM}
    spec = {"selector": selector, "ports": [{"port": 80}]}
    made = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
    team.server.create(made, "--as=ann@example.org", "--as-group=team")

    def through() -> str:
        path = f"/api/v1/namespaces/{TEAM}/services/{name}:80/proxy/page?token=hunter2"
        with pytest.raises(CommandError) as answered:
            team.server.kubectl(*ANN, "get", "--raw", path)
        return answered.value.stderr

    assert "denied" not in through()  # nothing answers behind it
    found = {(r["action"], r.get("path")) for r in _of_objects(team, name)}
    assert found == ({("Create", None), ("ServiceProxy", "/page")} if leads else set())
    policy(exec="Deny", proxy="Deny")
    eventually(lambda: "is Deny" in team.connect("kept", EXEC), "the policy counts")
    assert ("access.proxy is Deny" in through()) is leads


def test_a_policy_names_who_may_delete(team: Team, policy: Callable[..., Object]) -> None:
    made = _of_the_run(team, "ConfigMap", **OBJECTS["ConfigMap"])
    policy(exec="Deny", deletion={"groups": ["leads"]})

    eventually(lambda: "is Deny" in team.connect("kept", EXEC), "the policy counts")
    assert "access.deletion names neither this user" in _refused(team, "pod", "kept")
    assert "access.deletion names neither" in _refused(team, "configmap", made["metadata"]["name"])
    lead = (*ANN, "--as-group=leads")
    team.kubectl("delete", "configmap", made["metadata"]["name"], by=lead)
    allowed = {r["allowed"] for r in _of_objects(team, made["metadata"]["name"])}
    assert allowed == {True, False}


def _refused(team: Team, *what: str) -> str:
    try:
        team.kubectl("delete", *what, "--wait=false")
    except CommandError as error:
        return error.stderr
    return ""


# Networks of others -----------------------------------------------------------------------------


def _network_policy(name: str, selector: Object, **spec: object) -> Object:
    spec = {"podSelector": selector, "policyTypes": ["Ingress"], "ingress": [{}]} | spec
    metadata = {"name": name, "namespace": TEAM}
    api = "networking.k8s.io/v1"
    return {"apiVersion": api, "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


BY_ANN = ("--as=ann@example.org", "--as-group=team")
NO_SEALED_POD = {"matchExpressions": [{"key": "trainseal.dev/seal", "operator": "DoesNotExist"}]}


def test_who_opens_the_network_of_a_run_is_refused_and_on_record(
    team: Team, policy: Callable[..., Object]
) -> None:
    policy()
    team.server.until_refused(_network_policy("opens", {}), "opens the network", *BY_ANN)
    with pytest.raises(CommandError, match="opens the network of pods that are sealed by") as error:
        team.server.create(_network_policy("opens", {"matchLabels": {"team": "research"}}), *BY_ANN)
    assert f"SealedRun {TEAM}/{team.seal}: found ingress [{{}}]" in error.value.stderr
    (found,) = _of_objects(team, "opens")
    assert (found["username"], found["action"]) == ("ann@example.org", "Create")
    assert (found["allowed"], found["sealedRun"]) == (False, team.seal)
    # One that is there is not opened later, either.
    closed = _network_policy("closes", {}, ingress=[])
    team.server.create(closed, *BY_ANN)
    with pytest.raises(CommandError, match="opens the network"):
        team.server.patch(closed, {"spec": {"ingress": [{}]}}, *BY_ANN)
    assert [r["action"] for r in _of_objects(team, "closes")] == ["Change"]
    team.server.delete(closed)


def test_who_lets_something_in_to_others_is_on_record_for_runs_to_come(
    team: Team, policy: Callable[..., Object]
) -> None:
    policy()
    eventually(lambda: _recorded_for_others(team), "the policy names the namespace")
    live = team.server.get(_network_policy("for-others", {}))
    listed = team.kubectl(
        *("get", "accessrecords", "-o", "json"),
        *("-l", f"trainseal.dev/object-uid={live['metadata']['uid']}"),
    )
    (found,) = json.loads(listed)["items"]
    assert found["spec"]["object"]["uid"] == live["metadata"]["uid"]
    assert (found["spec"]["allowed"], found["spec"]["username"]) == (True, "ann@example.org")
    assert "sealedRun" not in found["spec"]
    team.server.delete(live)


def _recorded_for_others(team: Team) -> bool:
    made = _network_policy("for-others", NO_SEALED_POD)
    team.server.delete(made)
    team.server.create(made, *BY_ANN)
    return bool(_of_objects(team, "for-others"))


def test_while_no_webhook_answers_networks_are_closed_and_none_is_opened(team: Team) -> None:
    opens, closes = _network_policy("opens", {}), _network_policy("shuts", {}, ingress=[])
    team.webhook.stop()
    try:
        with pytest.raises(CommandError, match="failed calling webhook"):
            team.server.create(opens, *BY_ANN)
        team.server.create(closes, *BY_ANN)
        team.server.patch(closes, {"metadata": {"labels": {"note": "x"}}}, *BY_ANN)
        team.server.delete(closes)
        platform = f"--as=system:serviceaccount:{NAMESPACE}:anything"
        team.server.create(opens, platform, ROOT)
        team.server.delete(opens)
        service = {"selector": {"team": "research"}, "ports": [{"port": 80}]}
        metadata = {"name": "unanswered", "namespace": TEAM}
        made = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service}
        team.server.create(made, *BY_ANN)
        team.server.delete(made)
    finally:
        team.webhook.start()
    assert _of_objects(team, "unanswered") == []


def test_a_service_of_others_that_chooses_pods_of_a_run_is_on_record(team: Team) -> None:
    for name, selector in (("chooses", {"team": "research"}), ("chooses-not", {"app": "web"})):
        metadata = {"name": name, "namespace": TEAM}
        spec = {"selector": selector, "ports": [{"port": 80}]}
        made = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
        team.server.create(made, *BY_ANN)
    (found,) = _of_objects(team, "chooses")
    assert (found["action"], found["username"]) == ("Create", "ann@example.org")
    assert (found["sealedRun"], found["allowed"]) == (team.seal, True)
    assert _of_objects(team, "chooses-not") == []


def test_a_sealed_pod_gets_no_label_by_which_a_service_could_choose_it(team: Team) -> None:
    with pytest.raises(CommandError, match=r"found label app given by 'ann@example\.org'"):
        team.kubectl("label", "pod", "labelled", "app=mallory")
    team.kubectl("annotate", "pod", "labelled", "app=mallory")


# Past the pods' own doors -----------------------------------------------------------------------


def _by_node(team: Team, path: str) -> str:
    """A request through a node's proxy, by an administrator: what is answered."""
    with pytest.raises(CommandError) as answered:  # there is no node
        team.server.kubectl(
            *("--as=root@example.org", ROOT, "get", "--raw"),
            f"/api/v1/nodes/node-7/proxy{path}",
        )
    return answered.value.stderr


def _through_nodes(team: Team) -> list[Object]:
    text = team.server.kubectl("get", "accessrecords", "-n", NAMESPACE, "-o", "json")
    found = [item["spec"] for item in json.loads(text)["items"]]
    return [spec for spec in found if spec["action"] == "NodeProxy"]


def test_a_way_into_containers_by_a_nodes_proxy_is_on_record_and_what_only_reads_is_not(
    team: Team, policy: Callable[..., Object]
) -> None:
    reads = ("", "/", "/metrics", "/metrics/cadvisor", "/stats/summary", "/pods", "/configz",
             "/healthz", "/containerLogs/accesses/kept/trainer", "/logs/syslog")  # fmt: skip
    for path in reads:
        assert "denied" not in _by_node(team, path)
    assert _through_nodes(team) == []
    ways = ("/exec/accesses/kept/trainer?command=id", "/run/accesses/kept/trainer",
            "/attach/accesses/kept/trainer", "/portForward/accesses/kept", "/cri/exec/abc",
            "/metricsexec")  # fmt: skip
    for path in ways:
        assert "denied" not in _by_node(team, path)
    found = _through_nodes(team)
    assert sorted(r["path"] for r in found) == sorted(path.partition("?")[0] for path in ways)
    assert {(r["username"], r["object"]["name"], r["allowed"]) for r in found} == {
        ("root@example.org", "node-7", True)
    }
    policy(exec="Deny")
    denied = "of ProvenancePolicy ways-in, access.exec is Deny"
    eventually(lambda: denied in _by_node(team, ways[0]), "the policy counts")
    assert "denied" not in _by_node(team, "/metrics")


def test_nor_does_a_path_with_dots_lead_past_it(team: Team, tmp_path: Path) -> None:
    """It would be cleaned after admission, on its way to the kubelet. kubectl cleans it itself."""
    text = team.server.kubectl("config", "view", "--raw", "--minify", "--flatten")
    config = yaml.safe_load(text)
    user, cluster = config["users"][0]["user"], config["clusters"][0]["cluster"]
    for name in ("client-certificate", "client-key"):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_bytes(base64.b64decode(user[f"{name}-data"]))
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    tls = ssl.create_default_context(cadata=authority)
    tls.load_cert_chain(tmp_path / "client-certificate", tmp_path / "client-key")
    place = urlsplit(cluster["server"])
    paths = ("/metrics/../exec/a/dots", "/metrics/%2e%2e/exec/a/written", "/./metrics/x/../run/a")
    for path in paths:
        connection = http.client.HTTPSConnection(str(place.hostname), place.port, context=tls)
        with contextlib.closing(connection):
            connection.request("GET", f"/api/v1/nodes/node-8/proxy{path}")
            assert connection.getresponse().status in (404, 500, 502, 503), path
    found = [r["path"] for r in _through_nodes(team) if r["object"]["name"] == "node-8"]
    assert sorted(found) == sorted(path.replace("%2e", ".") for path in paths)


# Past the gate ----------------------------------------------------------------------------------


def _asking(kind: str, name: str) -> Object:
    """An object whose pods ask for a GPU, or such a pod."""
    resources = {"limits": {"nvidia.com/gpu": "1"}}
    pod: Object = {
        "containers": [{"name": "main", "image": "registry.example/x", "resources": resources}]
    }
    metadata: Object = {"name": name, "namespace": TEAM}
    template: Object = {"metadata": {"labels": {"app": name}}, "spec": pod}
    selector = {"matchLabels": {"app": name}}
    specs: dict[str, tuple[str, Object]] = {
        "Pod": ("v1", pod),
        "Job": ("batch/v1", {"template": {"spec": {**pod, "restartPolicy": "Never"}}}),
        "Deployment": ("apps/v1", {"selector": selector, "template": template}),
        "StatefulSet": ("apps/v1", {"selector": selector, "template": template}),
    }
    version, spec = specs[kind]
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


@pytest.mark.parametrize("kind", ["Pod", "Job", "Deployment", "StatefulSet"])
def test_who_asks_for_a_gpu_past_the_gate_is_on_record(team: Team, kind: str) -> None:
    name = f"past-{kind.lower()}"
    refused = ""
    try:
        team.server.create(_asking(kind, name), "--as=ann@example.org", "--as-group=team")
    except CommandError as error:
        refused = error.stderr
    assert "not part of a sealed run" in refused
    (found,) = _of_objects(team, name)
    assert (found["username"], found["object"]["kind"]) == ("ann@example.org", kind)
    assert (found["action"], found["allowed"]) == ("Create", False)
    assert "asks for nvidia.com/gpu and is not part of a sealed run" in found["message"]
    assert "sealedRun" not in found
    assert team.webhook.metric(
        f'trainseal_attempts_total{{allowed="false",kind="{kind}"}}'
    ) >= 1  # fmt: skip


def test_who_changes_a_sealed_pod_in_place_is_refused_and_on_record(team: Team) -> None:
    with pytest.raises(CommandError, match="is sealed by SealedRun"):
        team.kubectl("set", "image", "pod/kept", "trainer=busybox")
    found = [r for r in _of_objects(team, "kept") if r["action"] == "Change"]
    assert [(r["username"], r["allowed"]) for r in found] == [("ann@example.org", False)]
    assert found[0]["sealedRun"] == team.seal
    # The twin: a note on it.
    team.kubectl("annotate", "pod", "kept", "example.org/note=harmless")
    assert len([r for r in _of_objects(team, "kept") if r["action"] == "Change"]) == 1


def test_a_pod_without_a_gpu_and_the_clusters_own_controllers_are_not(team: Team) -> None:
    plain = _asking("Pod", "plain")
    del plain["spec"]["containers"][0]["resources"]
    team.server.create(plain, "--as=ann@example.org", "--as-group=team")
    assert _of_objects(team, "plain") == []
    with pytest.raises(CommandError, match="not part of a sealed run"):
        team.server.create(
            _asking("Pod", "of-a-set"),
            "--as=system:serviceaccount:kube-system:replicaset-controller",
            ROOT,
        )
    assert _of_objects(team, "of-a-set") == []


def test_nobody_else_writes_a_record_or_takes_one_away(team: Team) -> None:
    team.connect("exec", EXEC)
    planted = access_record("planted")
    planted["metadata"]["namespace"] = TEAM
    admin = ("--as=root@example.org", ROOT)
    with pytest.raises(CommandError, match="evidence is written and deleted by TrainSeal alone"):
        team.kubectl("create", "-f", "-", stdin=json.dumps(planted), by=admin)
    name = team.records("exec")[0]["metadata"]["name"]
    with pytest.raises(CommandError, match="evidence is written and deleted by TrainSeal alone"):
        team.kubectl("delete", "accessrecord", name, by=admin)


def test_where_the_record_is_refused_so_is_the_access_and_no_other(
    team: Team, policy: Callable[..., Object]
) -> None:
    policy(resize="Record")
    role = json.loads(team.server.kubectl("get", "clusterrole", "trainseal-webhook", "-o", "json"))
    fewer = {**role, "rules": [r for r in role["rules"] if "accessrecords" not in r["resources"]]}
    assert fewer["rules"] != role["rules"]
    role["metadata"].pop("resourceVersion")  # shared by both
    team.server.replace(fewer)
    try:
        eventually(
            lambda: "denied because it could not be recorded" in team.connect("unwritten", EXEC),
            "the right is gone",
        )
        answer = team.connect("unwritten", EXEC)
        assert "Exec on pod accesses/unwritten by 'ann@example.org'" in answer
        assert "accessrecords.trainseal.dev is forbidden" in answer
        with pytest.raises(CommandError, match="could not be recorded"):
            team.kubectl("delete", "pod", "unwritten")
        said = "could not be recorded"
        eventually(lambda: said in _resize(team, "unsized", "2"), "the policy counts")
        assert "denied" not in team.connect("bare", EXEC)
        assert team.webhook.metric('trainseal_access_failures_total{action="Exec",call="write"}')
    finally:
        team.server.replace(role)
    eventually(lambda: "denied" not in team.connect("unwritten", EXEC), "the right is back")


def test_while_no_webhook_answers_nobody_gets_in_and_nothing_else_waits(team: Team) -> None:
    team.webhook.stop()
    try:
        assert "failed calling webhook" in team.connect("unanswered", EXEC)
        with pytest.raises(CommandError, match="failed calling webhook"):
            team.kubectl("delete", "pod", "unanswered")
        assert "failed calling webhook" in _resize(team, "unsized", "2")
        team.kubectl("delete", "pod", "bare", "--dry-run=server")
        gone = ("--as=system:serviceaccount:kube-system:generic-garbage-collector", ROOT)
        team.kubectl("delete", "pod", "unanswered", "--wait=false", by=gone)
    finally:
        team.webhook.start()
    assert team.records("unanswered") == []


def test_who_weakens_a_policy_is_on_record_told_so_and_alerted(team: Team) -> None:
    server, by = team.server, ("--as=root@example.org", ROOT)
    namespaces = {"include": ["nowhere-*"]}
    policy = signed.policy_object("weakened", namespaces=namespaces)
    weaker = signed.policy_object("weakened", namespaces=namespaces, mode="Audit")

    def apply(obj: Object) -> None:
        server.kubectl(*by, "apply", "--warnings-as-errors", "-f", "-", stdin=json.dumps(obj))

    apply(policy)
    with pytest.raises(CommandError, match="weakened is weaker: mode: found Audit"):
        apply(weaker)
    apply(weaker)  # it is so already
    server.kubectl(*by, "delete", "provenancepolicy", "weakened")
    listed = server.kubectl("get", "accessrecords", "-n", NAMESPACE, "-o", "json")
    found = [
        (spec["action"], spec["username"], spec["message"])
        for spec in (item["spec"] for item in json.loads(listed)["items"])
        if spec.get("object", {}).get("name") == "weakened"
    ]
    who = "root@example.org"
    assert sorted(found) == [
        ("Change", who, "mode: found Audit, before it was Enforce"),
        ("Create", who, "it is new"),
        ("DeleteObject", who, "what it demanded is demanded no more"),
    ]

    told: list[Alert] = []

    async def look() -> None:
        async with connect(str(server.cluster.user_kubeconfig(CONTROLLER))) as kube:
            watch = RulesWatch(kube, NAMESPACE, lambda: datetime.now(UTC), told.append)
            await watch.look_at_records()
            await watch.look_at_records()

    asyncio.run(look())
    summaries = [s for s in (json.dumps(a.body) for a in told) if "ProvenancePolicy weakened" in s]
    assert len(summaries) == 2, "each once; what is new weakens nothing"
    assert all("weakened was weakened by root@example.org" in s for s in summaries)
