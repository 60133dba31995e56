"""The chart as Helm puts it on a real API server; nothing runs the pods."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from tests.cluster import Cluster, CommandError, tools
from tests.cluster.cluster import remove
from tests.cluster.places import state_root
from tests.stage.reading import asked, collection_path, object_path, proxy
from tests.stage.waiting import eventually

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
    """An API server; CommandError wherever it refuses.

    One object at a time goes over HTTP: a kubectl for each takes far longer than what it asks for.
    Flags are kubectl's, and mean what they mean there: who asks, and whether it is only tried.
    """

    cluster: Cluster
    proxy_port: int

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        """kubectl's standard output."""
        return self.cluster.kubectl(*args, input=stdin)

    def create(self, obj: Object, *flags: str) -> Object:
        """The object as it is stored."""
        return self._send("POST", collection_path(obj), obj, flags)

    def get(self, obj: Object) -> Object:
        """The live object of the same kind and name."""
        return self._send("GET", object_path(obj))

    def replace(self, obj: Object) -> None:
        """An update of the whole object."""
        self._send("PUT", object_path(obj), obj)

    def patch(self, obj: Object, patch: Object, *flags: str) -> None:
        """A merge patch, in which None takes a field away."""
        self._send("PATCH", object_path(obj), patch, flags)

    def delete(self, obj: Object, *flags: str) -> None:
        """Gone when this returns; nothing happens where it was not there."""
        path = object_path(obj)
        try:
            self._send("DELETE", path, {"propagationPolicy": "Background"}, flags)
        except CommandError as error:
            if error.returncode != 404:
                raise
        eventually(lambda: self._answer("GET", path)[0] == 404, f"{path} is gone")

    def refusal(self, obj: Object, *flags: str) -> str:
        """Why it may not be created, as the API server says it; nothing where it may."""
        try:
            self.create(obj, "--dry-run=server", *flags)
        except CommandError as error:
            return error.stderr
        return ""

    def until_refused(self, obj: Object, words: str = "", *flags: str) -> None:
        """Until the refusal holds the words: rules reach the API server by watch."""

        def refused() -> bool:
            said = self.refusal(obj, *flags)
            return bool(said) and words in said

        eventually(refused, f"{obj['kind']} is refused with {words!r}")

    def until_accepted(self, obj: Object, *flags: str) -> None:
        """The counterpart."""
        eventually(lambda: not self.refusal(obj, *flags), f"{obj['kind']} is accepted")

    def _send(
        self, method: str, path: str, body: Object | None = None, flags: Sequence[str] = ()
    ) -> Object:
        status, answer = self._answer(method, path, body, flags)
        if status >= 300:
            argv = [method, path, *flags]
            said = str(answer.get("message"))
            raise CommandError(argv, subprocess.CompletedProcess(argv, status, "", said))
        return answer

    def _answer(
        self, method: str, path: str, body: Object | None = None, flags: Sequence[str] = ()
    ) -> tuple[int, Object]:
        kind = "merge-patch+json" if method == "PATCH" else "json"
        said = _FLAGS.parse_args(flags)
        headers = {"Impersonate-User": said.user, "Impersonate-Group": said.group}
        headers = {name: value for name, value in headers.items() if value}
        query = {"fieldValidation": "Strict"} if method in ("POST", "PUT", "PATCH") else {}
        if said.dry_run:
            query["dryRun"] = "All"
        if said.subresource:
            path = f"{path}/{said.subresource}"
        return asked(
            self.proxy_port,
            method,
            f"{path}?{urlencode(query)}",
            body,
            headers | {"Content-Type": f"application/{kind}"},
        )


_FLAGS = argparse.ArgumentParser(allow_abbrev=False)
_FLAGS.add_argument("--as", dest="user")
_FLAGS.add_argument("--as-group", dest="group")
_FLAGS.add_argument("--dry-run", choices=["server"])
_FLAGS.add_argument("--subresource")


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
        with proxy(cluster) as port:
            server = ApiServer(cluster, port)
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


def configuration(kind: str, name: str = "trainseal") -> Object:
    """The address of a webhook configuration; ``kind`` is mutating or validating."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": f"{kind.title()}WebhookConfiguration",
        "metadata": {"name": name},
    }


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
    # By libyaml: the kinds alone are a third of a megabyte.
    return [obj for obj in yaml.load_all(text, Loader=yaml.CSafeLoader) if obj]


def one(objects: list[Object], kind: str, name: str) -> Any:
    """The one object of that kind and name."""
    (found,) = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]
    return found
