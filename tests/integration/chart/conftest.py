"""The chart as Helm puts it on a real API server; nothing runs the pods."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import Cluster, CommandError, tools
from tests.cluster.cluster import remove
from tests.cluster.places import state_root

Object = dict[str, Any]

CHART = Path(__file__).parents[3] / "charts" / "trainseal"
NAMESPACE = "trainseal-system"
IMAGE = "registry.example/trainseal@sha256:" + "0" * 64
CONTROLLER = f"system:serviceaccount:{NAMESPACE}:trainseal-controller"
#: Clusters of these tests are named so, and no others: leftovers are taken away by it.
_NAME = "helm"
WEBHOOK = f"system:serviceaccount:{NAMESPACE}:trainseal-webhook"


@dataclass(frozen=True)
class ApiServer:
    """An API server as kubectl shows it; CommandError wherever it refuses."""

    cluster: Cluster

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        """kubectl's standard output."""
        return self.cluster.kubectl(*args, input=stdin)

    def create(self, obj: Object, *flags: str) -> Object:
        """The object as it is stored."""
        text = self.kubectl("create", "-f", "-", "-o", "json", *flags, stdin=json.dumps(obj))
        stored: Object = json.loads(text)
        return stored

    def get(self, obj: Object) -> Object:
        """The live object of the same kind and name."""
        read: Object = json.loads(self.kubectl("get", *_address(obj), "-o", "json"))
        return read

    def replace(self, obj: Object) -> None:
        """An update of the whole object."""
        self.kubectl("replace", "-f", "-", stdin=json.dumps(obj))

    def patch(self, obj: Object, patch: Object) -> None:
        """A merge patch, in which None takes a field away."""
        self.kubectl("patch", *_address(obj), "--type=merge", "-p", json.dumps(patch))

    def delete(self, obj: Object) -> None:
        """Gone when this returns; nothing happens where it was not there."""
        self.kubectl("delete", "--ignore-not-found", "--wait", *_address(obj))


def _address(obj: Object) -> list[str]:
    metadata = obj["metadata"]
    place = ["-n", metadata["namespace"]] if "namespace" in metadata else []
    group = obj["apiVersion"].rpartition("/")[0]
    return [*place, f"{obj['kind']}.{group}" if group else obj["kind"], metadata["name"]]


@dataclass(frozen=True)
class Helm:
    """Helm, with the chart of this checkout unless a test names another."""

    server: ApiServer
    program: Path

    def run(self, *args: str) -> str:
        """Helm's standard output; CommandError where it fails."""
        return self.server.cluster.run([str(self.program), *args])

    def install(self, *flags: str, chart: Path = CHART, image: str = IMAGE) -> str:
        """`helm install` as the README has it."""
        return self._put("install", "--create-namespace", *flags, chart=chart, image=image)

    def upgrade(self, *flags: str, chart: Path = CHART, image: str = IMAGE) -> str:
        """`helm upgrade` with the same values but for the flags."""
        return self._put("upgrade", *flags, chart=chart, image=image)

    def uninstall(self) -> str:
        """`helm uninstall`."""
        return self.run("uninstall", "trainseal", "--namespace", NAMESPACE, "--wait")

    def _put(self, verb: str, *flags: str, chart: Path, image: str) -> str:
        values = ["--set", f"image.reference={image}"]
        return self.run(verb, "trainseal", str(chart), "--namespace", NAMESPACE, *values, *flags)


@pytest.fixture(scope="session")
def helm() -> Path:
    """The pinned Helm."""
    return tools(("helm",)).helm


@pytest.fixture(scope="session")
def server() -> Iterator[ApiServer]:
    """An API server of its own: Helm must find no CRDs but those it made."""
    for folder in state_root().glob(f"{_NAME}-*"):  # of test runs that were killed
        if not Path("/proc", folder.name.removeprefix(f"{_NAME}-")).exists():
            remove(folder.name)
    cluster = Cluster.up(f"{_NAME}-{os.getpid()}", api_only=True)
    try:
        server = ApiServer(cluster)
        server.kubectl("wait", "--for=create", "--timeout=30s", "namespace/default")
        yield server
    finally:
        cluster.down()


@pytest.fixture
def chart(server: ApiServer, helm: Path) -> Iterator[Helm]:
    """Helm on an API server where nothing of ours is installed, before and after."""
    helm_on_server = Helm(server, helm)
    # Modules share the server in any order, and some make these by hand.
    _remove_keys(server)
    yield helm_on_server
    with contextlib.suppress(CommandError):  # where the test did it already
        helm_on_server.uninstall()
    # Namespace and kinds stay, to save time: Helm finds its own again.
    _remove_keys(server)


def _remove_keys(server: ApiServer) -> None:
    keys = ("secrets", "configmaps")
    server.kubectl("delete", ",".join(keys), "--all", "-n", NAMESPACE, "--ignore-not-found")


def ours(server: ApiServer, resource: str, *flags: str) -> list[str]:
    """Names of what there is of a resource, with our name in theirs."""
    found = json.loads(server.kubectl("get", resource, "-o", "json", *flags))
    names = [item["metadata"]["name"] for item in found["items"]]
    return sorted(name for name in names if "trainseal" in name)


def render(helm: Path, *flags: str, image: str = IMAGE, namespace: str = NAMESPACE) -> list[Object]:
    """What the chart makes, without a server. CalledProcessError holds Helm's refusal."""
    command = [str(helm), "template", "trainseal", str(CHART), "--namespace", namespace]
    values = ["--set", f"image.reference={image}", *flags]
    text = subprocess.run([*command, *values], check=True, capture_output=True, text=True).stdout
    return [obj for obj in yaml.safe_load_all(text) if obj]


def one(objects: list[Object], kind: str, name: str) -> Any:
    """The one object of that kind and name."""
    (found,) = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]
    return found
