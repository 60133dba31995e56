"""Proves on this machine that the clusters are real ones: `make cluster-smoke`.

Uses clusters of its own, `smoke-api`, `smoke-a` and `smoke-b`, and takes about two minutes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import yaml

from tests.cluster.cgroups import Cgroup
from tests.cluster.cleanup import mounts_below, node_traces
from tests.cluster.cluster import Cluster, remove, system_name
from tests.cluster.images import push
from tests.cluster.launch import FOLDER_VARIABLE
from tests.cluster.pause import binary_archive
from tests.cluster.places import RunDir
from tests.cluster.processes import Process, having
from tests.cluster.progress import say
from tests.cluster.target import CommandError

API_ONLY = ("--api-only",)
API_ONLY_SECONDS = 10

_BUSYBOX = Path("/bin/busybox")
_T = TypeVar("_T")


def main() -> int:
    """Run every check; the first that fails raises."""
    begin = time.monotonic()
    try:
        _check("`up --api-only` killed after 2 s", lambda: _kill_up("smoke-api", 2.0, API_ONLY))
        api = _api_only()
        _check("the API server serves, without a node", lambda: _serves(api))
        _timed("down smoke-api", api.down)
        _check("smoke-api left nothing", lambda: _gone("smoke-api", None))
        a = _timed("up smoke-a", lambda: Cluster.up("smoke-a"))
        image = _pushed_image(a)
        _check("pods run, by digest, from the local registry", lambda: _pods_run(a, image))
        _check("two pods find each other by name", lambda: _names_resolve(a))
        _check("kubectl logs and exec", lambda: _logs_and_exec(a))
        _check("a Service is reached by its address", lambda: _service_answers(a))
        _check("pods get GPUs, and no more than there are", lambda: _gpus(a, image))
        _check("a certificate user is bound by RBAC", lambda: _users(a))
        _check("a stopped registry comes back with its images", lambda: _registry_returns(a))
        _check("changed bytes in the registry are served", lambda: _blobs_are_files(a))
        b = _timed("up smoke-b beside it", lambda: Cluster.up("smoke-b"))
        _check("two clusters do not meet", lambda: _apart(a, b))
        _timed("down smoke-b", b.down)
        _check("smoke-b left nothing, smoke-a still works", lambda: _gone("smoke-b", a))
        _check("kill -9 of everything", lambda: _kill_everything("smoke-a"))
        a = _timed("up smoke-a heals", lambda: Cluster.up("smoke-a"))
        image = _pushed_image(a)
        _check("and pods run again", lambda: _pods_run(a, image))
        _timed("down smoke-a", a.down)
        for seconds in (1.5, 4.0, 7.0):
            _check(
                f"`up` killed after {seconds} s", functools.partial(_kill_up, "smoke-b", seconds)
            )
        b = _timed("up smoke-b heals", lambda: Cluster.up("smoke-b"))
        _check("kill -9 of the daemons, pods left alone", lambda: _kill_daemons(b))
        _timed("down smoke-b", b.down)
        _check("smoke-b left nothing", lambda: _gone("smoke-b", None))
        _check("smoke-a left nothing", lambda: _gone("smoke-a", None))
    finally:
        for name in ("smoke-api", "smoke-a", "smoke-b"):
            remove(name)
    say(f"all is well ({time.monotonic() - begin:.0f} s)")
    return 0


def _api_only() -> Cluster:
    """The second of two starts: the first heals, and reads the programs from disk."""
    Cluster.up("smoke-api", api_only=True).down()
    begin = time.monotonic()
    cluster = Cluster.up("smoke-api", api_only=True)
    took = time.monotonic() - begin
    say(f"up --api-only smoke-api: {took:.1f} s (promised: less than {API_ONLY_SECONDS} s)")
    assert took < API_ONLY_SECONDS
    return cluster


def _serves(cluster: Cluster) -> None:
    cluster.kubectl("wait", "--for=create", "--timeout=30s", "serviceaccount/default")
    cluster.kubectl("create", "configmap", "smoke")
    assert not cluster.kubectl("get", "nodes", "-o", "name")


def _pushed_image(cluster: Cluster) -> str:
    with tempfile.TemporaryDirectory() as folder:
        applets = ("sh", "sleep", "nslookup", "wget", "httpd", "echo", "hostname", "cat")
        archive = binary_archive(
            Path(folder) / "busybox.tar", "busybox:1", _BUSYBOX, ["/bin/sh"], applets
        )
        # Both registries take it; pods pull from the first.
        push(archive, f"{cluster.registry_plain}/smoke/busybox:1")
        return cluster.push_image(archive, "smoke/busybox:1")


def _pod(name: str, image: str, script: str, **spec: object) -> dict[str, object]:
    limits = spec.pop("limits", {})
    container = {
        "name": "main",
        "image": image,
        "command": ["/bin/sh", "-c", script],
        "resources": {"limits": limits},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "smoke"}},
        "spec": {
            "containers": [container],
            "terminationGracePeriodSeconds": 0,
            "enableServiceLinks": False,
            **spec,
        },
    }


def _apply(cluster: Cluster, *objects: dict[str, object]) -> None:
    cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(objects))


def _pods_run(cluster: Cluster, image: str) -> None:
    services: list[dict[str, object]] = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"selector": {"app": "smoke"}, "ports": [{"port": 8080}], **more},
        }
        for name, more in (("peers", {"clusterIP": "None"}), ("web", {}))
    ]
    server = "echo started; echo hello > /index.html; httpd -f -p 8080 -h /"
    pods = [_pod(f"pod-{n}", image, server, hostname=f"pod-{n}", subdomain="peers") for n in (0, 1)]
    _apply(cluster, *services, *pods)
    cluster.kubectl("wait", "--for=condition=Ready", "pod", "-l", "app=smoke", "--timeout=60s")


def _names_resolve(cluster: Cluster) -> None:
    peer = "http://pod-1.peers.default.svc.cluster.local:8080/"
    _until(lambda: "hello" in _exec(cluster, "pod-0", f"wget -qO- {peer}"))
    assert "hello" in _exec(cluster, "pod-1", "wget -qO- http://pod-0.peers:8080/")
    begin = time.monotonic()
    try:
        _exec(cluster, "pod-0", "wget -qO- http://nowhere.example.org/")
    except CommandError as error:
        assert "bad address" in error.stderr, error.stderr  # noqa: PT017
    else:
        raise AssertionError("a name outside the cluster resolved")
    assert time.monotonic() - begin < 5, "a name outside must fail at once"


def _logs_and_exec(cluster: Cluster) -> None:
    assert "started" in cluster.kubectl("logs", "pod-0")
    assert _exec(cluster, "pod-1", "hostname").strip() == "pod-1"


def _service_answers(cluster: Cluster) -> None:
    address = cluster.kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
    # Several times, so that a pod also reaches itself through the Service.
    for _ in range(6):
        assert "hello" in _exec(cluster, "pod-0", f"wget -qO- http://{address}:8080/")
    # The API server calls the webhooks of Services in the same way.
    path = "/api/v1/namespaces/default/services/web:8080/proxy/"
    assert "hello" in cluster.kubectl("get", "--raw", path)
    node = cluster.node_command("busybox", "wget", "-qO-", f"http://{address}:8080/")
    assert "hello" in cluster.run(node)


def _gpus(cluster: Cluster, image: str) -> None:
    for name, count in (("gpu-fits", 8), ("gpu-waits", 1)):
        _apply(cluster, _pod(name, image, "sleep 600", limits={"nvidia.com/gpu": str(count)}))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/gpu-fits", "--timeout=60s")

    def refused() -> bool:
        return "Insufficient nvidia.com/gpu" in cluster.kubectl("get", "pod", "gpu-waits", "-oyaml")

    _until(refused)
    cluster.kubectl("delete", "pod", "gpu-fits", "gpu-waits", "--wait=false")


def _users(cluster: Cluster) -> None:
    config = cluster.user_kubeconfig("mallory@example.org", ["research"])
    cluster.kubectl(
        "create", "rolebinding", "mallory", "--clusterrole=edit", "--user=mallory@example.org"
    )
    assert "yes" in cluster.kubectl("auth", "can-i", "create", "pods", kubeconfig=config)
    try:
        cluster.kubectl("get", "nodes", kubeconfig=config)
    except CommandError as error:
        assert "mallory@example.org" in error.stderr, error.stderr  # noqa: PT017
    else:
        raise AssertionError("an editor of a namespace listed nodes")


def _registry_returns(cluster: Cluster) -> None:
    name = f"{cluster.registry}/smoke/busybox:1"
    before = cluster.run([str(cluster.tools.crane), "digest", name])
    cluster.stop_registry()
    try:
        cluster.run([str(cluster.tools.crane), "digest", name])
    except CommandError as error:
        assert "refused" in error.stderr, error.stderr  # noqa: PT017
    else:
        raise AssertionError("a stopped registry answered")
    cluster.start_registry()
    assert cluster.run([str(cluster.tools.crane), "digest", name]) == before


def _blobs_are_files(cluster: Cluster) -> None:
    crane = str(cluster.tools.crane)
    name = f"{cluster.registry}/smoke/busybox"
    digest = yaml.safe_load(cluster.run([crane, "manifest", f"{name}:1"]))["config"]["digest"]
    blob = cluster.registry_blobs / digest.replace(":", "/")
    genuine = blob.read_bytes()
    blob.write_bytes(genuine.replace(b"linux", b"LINUX"))
    try:
        served = cluster.run(["busybox", "wget", "-qO-", f"http://{_blob_url(name, digest)}"])
    finally:
        blob.write_bytes(genuine)
    assert "LINUX" in served


def _blob_url(name: str, digest: str) -> str:
    host, _, repository = name.partition("/")
    return f"{host}/v2/{repository}/blobs/{digest}"


def _apart(a: Cluster, b: Cluster) -> None:
    assert a.registry != b.registry
    assert "smoke-a-node" in a.kubectl("get", "nodes")
    assert "smoke-b-node" in b.kubectl("get", "nodes")
    assert "pod-0" not in b.kubectl("get", "pods")
    image = _pushed_image(b)
    _pods_run(b, image)
    _names_resolve(b)
    _names_resolve(a)


def _gone(name: str, other: Cluster | None) -> None:
    assert not having(FOLDER_VARIABLE, str(RunDir.of(name).root))
    assert not node_traces(system_name(name))
    assert not mounts_below(RunDir.of(name).root)
    assert Cluster.find(name) is None
    if other is not None:
        assert other.healthy()
        _logs_and_exec(other)


def _kill_everything(name: str) -> None:
    """What a machine's out-of-memory killer, or a person, would do: no order, no goodbye."""
    for process in Cgroup(system_name(name)).processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    cluster = Cluster.find(name)
    assert cluster is not None
    assert not cluster.healthy()


def _kill_up(name: str, seconds: float, options: Sequence[str] = ()) -> None:
    """Each time further on; and each next `up` begins with what the last one left."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster", "up", "--name", name, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.kill()
    process.wait()


def _kill_daemons(cluster: Cluster) -> None:
    """containerd's shims and the pods go on, one of them frozen, and `down` finds them."""
    _pods_run(cluster, _pushed_image(cluster))
    freeze = [
        state
        for folder in Cgroup(system_name(cluster.name)).folders()
        for state in folder.rglob("kubepods/**/freezer.state")
    ]
    for state in freeze:
        state.write_text("FROZEN")
    for name in cluster.status()["components"]:
        process = Process.load(cluster.run_dir.pids / f"{name}.json")
        if process is not None:
            os.kill(process.pid, signal.SIGKILL)


def _exec(cluster: Cluster, pod: str, script: str) -> str:
    return cluster.kubectl("exec", pod, "--", "/bin/sh", "-c", script)


def _until(condition: Callable[[], bool], timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while True:
        with contextlib.suppress(CommandError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise AssertionError("not in time")
        time.sleep(0.2)


def _timed(title: str, action: Callable[[], _T]) -> _T:
    begin = time.monotonic()
    result = action()
    say(f"{title}: {time.monotonic() - begin:.1f} s")
    return result


def _check(title: str, action: Callable[[], None]) -> None:
    _timed(f"ok   {title}", action)


if __name__ == "__main__":
    sys.exit(main())
