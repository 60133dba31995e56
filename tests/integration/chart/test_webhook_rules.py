"""Which requests the chart's webhook rules send to the webhook, decided by a real API server."""

from __future__ import annotations

import base64
import contextlib
import copy
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import CommandError
from tests.integration.chart.conftest import CONTROLLER, NAMESPACE, ApiServer, Helm, Object
from tests.sample_objects import sealed_run
from tests.stage.waiting import eventually
from trainseal.controller.certificate_rotation import issue

GPU = {"limits": {"nvidia.com/gpu": "1"}}


@dataclass
class RecordingWebhook:
    """Says yes to everything and remembers what it was asked about."""

    port: int = 0
    certificate_authority: bytes = b""
    asked: list[tuple[str, str]] = field(default_factory=list)

    def paths(self, name: str) -> list[str]:
        """The paths at which an object of that name was judged, in order: not by who looks on, or
        makes it fit a lane."""
        aside = ("/witness", "/mutate-lane")
        return [path for path, asked in self.asked if asked == name and path not in aside]

    def fitted(self, name: str) -> bool:
        """Whether it was asked what a lane would give an object of that name."""
        return ("/mutate-lane", name) in self.asked

    def witnessed(self, name: str) -> bool:
        """Whether who looks on was shown an object of that name."""
        return ("/witness", name) in self.asked


@pytest.fixture(scope="module")
def webhook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecordingWebhook]:
    recording = RecordingWebhook()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            request = review["request"]
            path = self.path.partition("?")[0]
            recording.asked.append((path, request["name"]))
            review["response"] = {"uid": request["uid"], "allowed": True}
            answer = json.dumps(review).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its own word
            pass

    serving = issue(["localhost"], datetime.now(UTC))
    chain = tmp_path_factory.mktemp("webhook") / "chain.pem"
    chain.write_bytes(serving.private_key + serving.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    recording.port = server.server_address[1]
    recording.certificate_authority = serving.authority
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield recording
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def world(server: ApiServer, helm: Path, webhook: RecordingWebhook) -> Iterator[ApiServer]:
    """The chart, its rules sent to the recording webhook; a team's namespace."""
    chart = Helm(server, helm)
    # Without the floor, which would answer first.
    chart.install(
        "--set", "gpuResources={nvidia.com/*,google.com/tpu}", "--set", "floor.enabled=false"
    )
    server.kubectl("create", "namespace", "research")
    for namespace in ("research", NAMESPACE, "kube-system"):
        server.kubectl("wait", "--for=create", "serviceaccount/default", "-n", namespace)
    for kind in ("Mutating", "Validating"):
        configuration = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": f"{kind}WebhookConfiguration",
            "metadata": {"name": "trainseal"},
        }
        server.replace(_sent_to(webhook, server.get(configuration)))
    _until_rules_hold(server, webhook)
    yield server
    chart.uninstall()
    server.kubectl("delete", "namespace", "research", "--wait=false")


def _sent_to(webhook: RecordingWebhook, configuration: Object) -> Object:
    sent = copy.deepcopy(configuration)
    for rule in sent["webhooks"]:
        path = rule["clientConfig"]["service"]["path"]
        rule["clientConfig"] = {
            "url": f"https://localhost:{webhook.port}{path}",
            "caBundle": _base64(webhook.certificate_authority),
        }
    return sent


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _until_rules_hold(server: ApiServer, webhook: RecordingWebhook) -> None:
    """API servers learn of configurations by watch: ask until the first request arrives."""

    def called() -> bool:
        server.refusal(pod("probe", resources=GPU))  # it may be still without trust
        return bool(webhook.asked)

    eventually(called, "the API server calls the webhook")


def pod(name: str, *, namespace: str = "research", **container: Any) -> Object:
    """A pod that nobody would ask about; the keywords go into its container."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "trainer"}},
        "spec": {"containers": [{"name": "main", "image": "registry.example/x", **container}]},
    }


def _in_an_init_container(p: Object) -> None:
    p["spec"]["initContainers"] = [{"name": "init", "image": "x", "resources": GPU}]


def _in_a_sidecar(p: Object) -> None:
    p["spec"]["initContainers"] = [
        {"name": "init", "image": "x", "restartPolicy": "Always", "resources": GPU}
    ]


def _in_the_second_container(p: Object) -> None:
    p["spec"]["containers"].append({"name": "second", "image": "x", "resources": GPU})


def _by_a_limit(p: Object) -> None:
    p["spec"]["containers"][0]["resources"] = GPU


def _by_a_request_and_its_limit(p: Object) -> None:
    p["spec"]["containers"][0]["resources"] = GPU | {"requests": GPU["limits"]}


def _by_a_slice_of_a_gpu(p: Object) -> None:
    p["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/mig-1g.5gb": "1"}}


def _by_an_exact_name(p: Object) -> None:
    p["spec"]["containers"][0]["resources"] = {"limits": {"google.com/tpu": "4"}}


def _by_an_implicit_device_class(p: Object) -> None:
    name = "deviceclass.resource.kubernetes.io/gpu"
    p["spec"]["containers"][0]["resources"] = {"limits": {name: "1"}}


def _by_a_resource_claim(p: Object) -> None:
    p["spec"]["resourceClaims"] = [{"name": "gpu", "resourceClaimName": "shared"}]


def _by_a_label_of_ours(p: Object) -> None:
    p["metadata"]["labels"]["trainseal.dev/seal"] = "stolen"


def _by_an_annotation_for_the_runtime(p: Object) -> None:
    p["metadata"]["annotations"] = {"cdi.k8s.io/mine": "nvidia.com/gpu=all"}


ASKING = [value for name, value in sorted(globals().items()) if name.startswith(("_in_", "_by_"))]


@pytest.mark.parametrize("asks", ASKING, ids=lambda function: function.__name__.strip("_"))
def test_a_pod_that_asks_for_a_gpu_or_claims_a_seal_is_asked_about(
    world: ApiServer, webhook: RecordingWebhook, asks: Any
) -> None:
    name = "asks-" + asks.__name__.strip("_").replace("_", "-")
    wanting = pod(name)
    asks(wanting)
    world.create(wanting, "--dry-run=server")
    assert webhook.paths(name) == ["/validate-pod"]
    assert webhook.witnessed(name)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("cpu", {"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}),
        ("bare", {}),
        ("other-vendor", {"resources": {"limits": {"example.com/fpga": "1"}}}),
        ("longer-than-an-exact-name", {"resources": {"limits": {"google.com/tpu-not": "1"}}}),
        ("domain-inside-another", {"resources": {"limits": {"not-nvidia.com/gpu": "1"}}}),
        ("environment-only", {"env": [{"name": "nvidia.com/gpu", "value": "1"}]}),
    ],
)
def test_any_other_pod_costs_the_webhook_nothing(
    world: ApiServer, webhook: RecordingWebhook, name: str, change: dict[str, Any]
) -> None:
    world.create(pod(name, **change), "--dry-run=server")
    assert webhook.paths(name) == []


def test_lanes_are_asked_about_gpu_pods_and_images_about_pods_that_name_one(
    world: ApiServer, webhook: RecordingWebhook
) -> None:
    world.create(pod("lane-gpu", resources=GPU))
    assert webhook.fitted("lane-gpu")
    assert webhook.paths("lane-gpu") == ["/validate-pod"]
    named = pod("lane-named")
    named["metadata"]["labels"]["trainseal.dev/lane"] = "nb"
    world.create(named)
    assert webhook.fitted("lane-named")
    assert sorted(webhook.paths("lane-named")) == ["/validate-lane", "/validate-pod"]
    # Nobody asks a registry for a sealed pod, nor for anybody's.
    sealed = pod("lane-sealed", resources=GPU)
    sealed["metadata"]["labels"]["trainseal.dev/seal"] = "x"
    for other in (pod("lane-cpu"), sealed):
        world.create(other)
        assert not webhook.fitted(other["metadata"]["name"])


def test_a_label_that_only_looks_like_ours_is_not_asked_about(
    world: ApiServer, webhook: RecordingWebhook
) -> None:
    similar = pod("similar")
    similar["metadata"]["labels"] = {"trainseal.dev.example/x": "y", "not-trainseal.dev/x": "y"}
    world.create(similar, "--dry-run=server")
    assert webhook.paths("similar") == []


def test_taking_our_label_off_is_asked_about(world: ApiServer, webhook: RecordingWebhook) -> None:
    sealed = pod("opts-out")
    sealed["metadata"]["labels"]["trainseal.dev/seal"] = "char-lm-1"
    world.create(sealed)
    world.patch(sealed, {"metadata": {"labels": {"trainseal.dev/seal": None}}})
    assert webhook.paths("opts-out") == ["/validate-pod"] * 2
    # From now on it is a pod like any other.
    world.patch(sealed, {"metadata": {"labels": {"app": "other"}}})
    assert webhook.paths("opts-out") == ["/validate-pod"] * 2


def _of_a_job(name: str) -> Object:
    """A CPU pod with the labels and the owner that the Job controller gives its pods."""
    found = pod(name)
    found["metadata"]["labels"]["batch.kubernetes.io/controller-uid"] = "a-uid"
    found["metadata"]["ownerReferences"] = [
        {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "a-uid", "controller": True}
    ]
    return found


def test_a_pod_that_is_passed_off_as_a_jobs_is_asked_about_but_not_a_jobs_own(
    world: ApiServer, webhook: RecordingWebhook
) -> None:
    world.create(_of_a_job("forged-worker"), "--dry-run=server")
    assert webhook.paths("forged-worker") == ["/validate-pod"]
    job_controller = "--as=system:serviceaccount:kube-system:job-controller"
    masters = "--as-group=system:masters"
    world.create(_of_a_job("real-worker"), "--dry-run=server", job_controller, masters)
    assert webhook.paths("real-worker") == []


def _kept(obj: Object) -> Object:
    """Stays there: the garbage collector takes away whose owner does not exist."""
    obj["metadata"]["finalizers"] = ["tests.trainseal.dev/kept"]
    return obj


def test_a_pod_that_the_job_controller_adopts_is_asked_about(
    world: ApiServer, webhook: RecordingWebhook
) -> None:
    orphan = _kept(pod("orphan"))
    world.create(orphan)
    labels = {"batch.kubernetes.io/controller-uid": "a-uid"}
    world.patch(orphan, {"metadata": {"labels": labels}})
    assert webhook.paths("orphan") == ["/validate-pod"]
    # Whatever else happens to it, as to any Job's pod, costs nothing.
    world.patch(orphan, {"metadata": {"annotations": {"x": "y"}}})
    assert webhook.paths("orphan") == ["/validate-pod"]
    owners = _of_a_job("orphan")["metadata"]["ownerReferences"]
    world.patch(orphan, {"metadata": {"ownerReferences": owners}})
    assert webhook.paths("orphan") == ["/validate-pod"] * 2
    # To be given up, by the garbage collector say, is no way into a run.
    world.patch(orphan, {"metadata": {"ownerReferences": None}})
    assert webhook.paths("orphan") == ["/validate-pod"] * 2


def test_a_pod_that_changes_its_job_is_asked_about(
    world: ApiServer, webhook: RecordingWebhook
) -> None:
    moved = _kept(_of_a_job("moved"))
    world.create(moved)
    eventually(lambda: "deletionTimestamp" in world.get(moved)["metadata"], "it is collected")
    owner = moved["metadata"]["ownerReferences"][0] | {"uid": "another-uid"}
    for change in (
        {"labels": {"batch.kubernetes.io/controller-uid": "another-uid"}},
        {"ownerReferences": [owner]},
    ):
        before = webhook.paths("moved")
        world.patch(moved, {"metadata": change})
        # More than once where the patch met one of the garbage collector's, and was tried anew.
        asked = webhook.paths("moved")[len(before) :]
        assert asked
        assert {*asked} == {"/validate-pod"}


@pytest.mark.parametrize(
    "change",
    [
        {"labels": {"trainseal.dev/seal": "x"}},
        {"annotations": {"cdi.k8s.io/mine": "nvidia.com/gpu=all"}},
    ],
    ids=["label", "annotation"],
)
def test_a_cpu_pod_that_gets_a_label_of_ours_or_devices_later_is_asked_about(
    world: ApiServer, webhook: RecordingWebhook, change: Object
) -> None:
    name = f"later-{next(iter(change))}"
    ordinary = pod(name)
    world.create(ordinary)
    assert webhook.paths(name) == []
    world.patch(ordinary, {"metadata": change})
    assert webhook.paths(name) == ["/validate-pod"]


JOB_CONTROLLER = (
    "--as=system:serviceaccount:kube-system:job-controller",
    "--as-group=system:masters",
)


@pytest.mark.parametrize(
    ("name", "flags", "change", "asked"),
    [
        ("ended", JOB_CONTROLLER, {"finalizers": None}, False),
        ("let-go", (), {"finalizers": None}, True),
        ("relabelled-job", JOB_CONTROLLER, {"finalizers": None, "labels": {"app": None}}, True),
        ("annotated-job", JOB_CONTROLLER, {"annotations": {"x": "y"}}, True),
        ("disowned-job", JOB_CONTROLLER, {"ownerReferences": None}, True),
    ],
)
def test_a_job_comes_to_its_end_without_the_webhook_but_nothing_else_is_done_to_its_pods(
    world: ApiServer,
    webhook: RecordingWebhook,
    name: str,
    flags: tuple[str, ...],
    change: Object,
    asked: bool,
) -> None:
    sealed = _of_a_job(name)
    sealed["metadata"]["labels"]["trainseal.dev/seal"] = "char-lm-1"
    sealed["metadata"]["finalizers"] = ["batch.kubernetes.io/job-tracking"]
    world.create(sealed)
    patch = json.dumps({"metadata": change})
    world.kubectl("patch", "pod", name, "-n", "research", "--type=merge", "-p", patch, *flags)
    assert webhook.paths(name) == ["/validate-pod"] * (2 if asked else 1)
    with contextlib.suppress(CommandError):  # it may be gone: it never had an owner
        world.patch(sealed, {"metadata": {"finalizers": None}})


def test_a_debug_container_in_a_gpu_pod_is_asked_about(
    world: ApiServer, webhook: RecordingWebhook
) -> None:
    world.create(pod("debugged", resources=GPU))
    world.kubectl("debug", "debugged", "-n", "research", "--image=x", "--quiet", "--attach=false")
    assert webhook.paths("debugged") == ["/validate-pod"] * 2


def test_a_debug_container_in_any_other_pod_is_not(
    world: ApiServer, webhook: RecordingWebhook
) -> None:
    world.create(pod("debugged-cpu"))
    world.kubectl(
        "debug", "debugged-cpu", "-n", "research", "--image=x", "--quiet", "--attach=false"
    )
    assert webhook.paths("debugged-cpu") == []


def test_a_resized_gpu_pod_is_asked_about(world: ApiServer, webhook: RecordingWebhook) -> None:
    resized = pod("resized", resources=GPU | {"requests": {"cpu": "1"}})
    world.create(resized)
    bigger = {"containers": [{"name": "main", "resources": {"requests": {"cpu": "2"}}}]}
    world.kubectl(
        "patch", "pod", "resized", "-n", "research", "--subresource=resize",
        "-p", json.dumps({"spec": bigger}),
    )  # fmt: skip
    assert webhook.paths("resized") == ["/validate-pod"] * 2


def test_deleting_a_gpu_pod_is_not_asked_about(world: ApiServer, webhook: RecordingWebhook) -> None:
    doomed = pod("doomed", resources=GPU)
    world.create(doomed)
    world.delete(doomed)
    assert webhook.paths("doomed") == ["/validate-pod"]


@pytest.mark.parametrize("namespace", ["kube-system", NAMESPACE])
def test_the_clusters_own_namespaces_are_left_alone(
    world: ApiServer, webhook: RecordingWebhook, namespace: str
) -> None:
    name = f"excluded-{namespace}"
    world.create(pod(name, namespace=namespace, resources=GPU), "--dry-run=server")
    assert webhook.paths(name) == []


def test_a_namespaces_owner_cannot_leave_by_a_label(
    world: ApiServer, webhook: RecordingWebhook
) -> None:
    world.kubectl(
        "label", "namespace", "research", "kubernetes.io/metadata.name=kube-system", "--overwrite"
    )
    world.create(pod("relabelled", resources=GPU), "--dry-run=server")
    assert webhook.paths("relabelled") == ["/validate-pod"]


def test_the_largest_pod_stays_within_the_cost_of_a_match_condition(
    world: ApiServer, webhook: RecordingWebhook
) -> None:
    """A condition that costs too much denies: an honest pod must never come near."""
    large = pod("large")
    amounts = {f"vendor-{n}.example/device-{n}": "1" for n in range(20)} | {"cpu": "1"}
    large["spec"]["containers"] = [
        {"name": f"c{n}", "image": "x", "resources": {"limits": amounts, "requests": amounts}}
        for n in range(100)
    ]
    large["metadata"]["labels"] = {f"team.example/label-{n}": "x" for n in range(100)}
    large["metadata"]["annotations"] = {f"team.example/note-{n}": "x" for n in range(1000)}
    world.create(large, "--dry-run=server")
    assert webhook.paths("large") == []
    assert not webhook.witnessed("large")
    large["metadata"]["name"] = "large-gpu"
    large["spec"]["containers"][-1]["resources"] = GPU
    world.create(large, "--dry-run=server")
    assert webhook.paths("large-gpu") == ["/validate-pod"]


def test_a_seal_is_asked_about_when_a_person_writes_it_but_not_when_our_controller_does(
    world: ApiServer, webhook: RecordingWebhook
) -> None:
    forged, real = sealed_run(), sealed_run()
    forged["metadata"] = {"name": "forged", "namespace": "research"}
    real["metadata"] = {"name": "real", "namespace": "research"}
    world.create(forged, "--dry-run=server")
    assert webhook.paths("forged") == ["/validate-seal"]
    world.create(real, "--dry-run=server", f"--as={CONTROLLER}")
    assert webhook.paths("real") == []
