"""A real API server with the CRDs, brought up once for all integration tests."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.cluster import Cluster
from tests.cluster.cluster import remove
from tests.cluster.places import state_root
from tests.stage.reading import asked, collection_path, object_path, proxy

CRDS = Path(__file__).parents[2] / "crds"

Object = dict[str, Any]


class RefusedError(Exception):
    """The API server's answer to a request that it did not accept (a metav1.Status)."""

    def __init__(self, code: int, status: Object) -> None:
        self.code = code
        self.message = str(status.get("message"))
        causes = status.get("details", {}).get("causes", [])
        self.causes = {cause["field"]: cause["message"] for cause in causes if "field" in cause}
        super().__init__(f"{code}: {self.message}")


@dataclass(frozen=True)
class ApiServer:
    """An API server and its words; nothing runs behind it but the controller manager.

    Requests ask for no field validation (``fieldValidation=Ignore``), as many clients do: what a
    schema does not refuse is then dropped in silence. kubectl asks for strict validation.
    """

    cluster: Cluster
    proxy_port: int

    @property
    def kubeconfig(self) -> Path:
        """For a cluster administrator."""
        return self.cluster.kubeconfig

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        """kubectl's standard output; CommandError where it fails."""
        return self.cluster.kubectl(*args, input=stdin)

    def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        """The object as it is stored; RefusedError."""
        return self._send("POST", collection_path(obj), obj, dry_run=dry_run)

    def replace(self, obj: Object, *, dry_run: bool = False) -> Object:
        """The object after an update with PUT; RefusedError."""
        return self._send("PUT", object_path(obj), obj, dry_run=dry_run)

    def patch(
        self, obj: Object, patch: Object, *, subresource: str = "", dry_run: bool = False
    ) -> Object:
        """The object after a merge patch, in which None takes a field away; RefusedError."""
        path = object_path(obj) + (f"/{subresource}" if subresource else "")
        return self._send("PATCH", path, patch, "application/merge-patch+json", dry_run=dry_run)

    def get(self, obj: Object) -> Object:
        """The live object of the same kind and name; RefusedError with 404 where there is none."""
        return self._send("GET", object_path(obj))

    def delete(self, obj: Object) -> None:
        """Gone when this returns; nothing happens where it was not there."""
        try:
            self._send("DELETE", object_path(obj))
        except RefusedError as error:
            if error.code != 404:
                raise

    @contextlib.contextmanager
    def refuses(self, *words: str) -> Iterator[None]:
        """What is done within must be refused, and all of the words be in the answer."""
        with pytest.raises(RefusedError) as caught:
            yield
        for word in words:
            assert word in caught.value.message

    def _send(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        content_type: str = "application/json",
        *,
        dry_run: bool = False,
    ) -> Object:
        query = {} if method in ("GET", "DELETE") else {"fieldValidation": "Ignore"}
        if dry_run:
            query["dryRun"] = "All"
        address = f"{path}?{urlencode(query)}"
        status, answer = asked(
            self.proxy_port, method, address, body, {"Content-Type": content_type}
        )
        if status >= 300:
            raise RefusedError(status, answer)
        return answer


def _remove_leftovers() -> None:
    """Takes down what test runs left that were killed: their name holds their process id."""
    for folder in state_root().glob("api-*"):
        owner = re.fullmatch(r"api-(\d+)", folder.name)
        if owner and not Path("/proc", owner[1]).exists():
            remove(folder.name)


@pytest.fixture(scope="session")
def api_server() -> Iterator[ApiServer]:
    """An API server of this test run's own, with the CRDs established.

    Raises ClusterError with what to do where the machine lacks something: nothing is skipped.
    """
    _remove_leftovers()
    cluster = Cluster.up(f"api-{os.getpid()}", api_only=True)
    try:
        cluster.kubectl("apply", "-f", str(CRDS))
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
        cluster.kubectl("wait", "--for=create", "--timeout=30s", "namespace/default")
        with proxy(cluster) as port:
            yield ApiServer(cluster, port)
    finally:
        cluster.down()
