"""How kubectl reads manifests: many at once, without a cluster.

``kubectl create --dry-run=client`` asks a server for nothing but which kinds there are; a server
on loopback that knows one kind answers that. A call costs a tenth of a second and a directory of
hundreds of manifests hardly more.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from trainseal.provenance.document import ManifestError
from trainseal.provenance.yamlreader import read_documents

#: Stands for the name of the object in a manifest's text; documents of one manifest share it.
NAME = "NAME"
#: YAML that begins as JSON does.
FLOW = f"{{apiVersion: trainseal.dev/v1alpha1, kind: TrainingJob, metadata: {{name: {NAME}}}}}"
#: What every manifest begins with that is written in YAML; ``spec`` follows.
HEAD = f"""\
apiVersion: trainseal.dev/v1alpha1
kind: TrainingJob
metadata: {{name: {NAME}, namespace: research}}
"""
_GROUP = {
    "name": "trainseal.dev",
    "versions": [{"groupVersion": "trainseal.dev/v1alpha1", "version": "v1alpha1"}],
    "preferredVersion": {"groupVersion": "trainseal.dev/v1alpha1", "version": "v1alpha1"},
}
_KIND = {
    "name": "trainingjobs",
    "singularName": "trainingjob",
    "namespaced": True,
    "kind": "TrainingJob",
    "verbs": ["create", "get"],
}
_ANSWERS: dict[str, Any] = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_GROUP]},
    "/apis/trainseal.dev/v1alpha1": {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": "trainseal.dev/v1alpha1",
        "resources": [_KIND],
    },
}


class _Discovery(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answer = _ANSWERS.get(self.path.partition("?")[0])
        body = json.dumps(answer or {}).encode()
        self.send_response(404 if answer is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def find_kubectl() -> Path | None:
    """Of ``$TRAINSEAL_TOOLS``, else the tests' own build, else of PATH; None if there is none."""
    from tests.cluster.toolchain import located

    own = Path(os.environ.get("TRAINSEAL_TOOLS", "/nowhere"), "kubectl")
    for path in (own, located(["kubectl"])["kubectl"]):
        if path.exists():
            return path
    found = shutil.which("kubectl")
    return Path(found) if found else None


@dataclass(frozen=True)
class KubectlReader:
    """One kubectl, with its discovery server."""

    kubectl: Path
    port: int

    @classmethod
    @contextlib.contextmanager
    def start(cls, kubectl: Path) -> Iterator[KubectlReader]:
        """Answers kubectl's question about kinds while the context lasts."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Discovery)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield cls(kubectl, server.server_port)
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def read(self, manifests: Sequence[bytes]) -> list[list[Any] | None]:
        """The objects of each manifest as kubectl would send them; None where it refuses.

        Each manifest's objects must be called NAME, by which the answers are told apart.
        """
        objects: list[list[Any]] = [[] for _ in manifests]
        with tempfile.TemporaryDirectory() as folder:
            for number, manifest in enumerate(manifests):
                text = manifest.replace(NAME.encode(), f"n{number}".encode())
                Path(folder, f"{number:06}.yaml").write_bytes(text)
            done = self._create(folder)
        decoder = json.JSONDecoder()
        rest = done.stdout.decode().lstrip()
        while rest:
            obj, end = decoder.raw_decode(rest)
            objects[int(obj["metadata"]["name"][1:])].append(obj)
            rest = rest[end:].lstrip()
        complaints = done.stderr.decode(errors="replace")
        refused = {int(number) for number in re.findall(r"/(\d{6})\.yaml", complaints)}
        if done.returncode and not refused and "no objects passed" not in complaints:
            raise AssertionError(f"kubectl failed as a whole: {complaints[:2000]}")
        return [None if at in refused else found for at, found in enumerate(objects)]

    def _create(self, folder: str) -> subprocess.CompletedProcess[bytes]:
        with tempfile.TemporaryDirectory() as home:
            return subprocess.run(
                [
                    *(str(self.kubectl), "create", "--dry-run=client", "--validate=false"),
                    *("--output=json", f"--filename={folder}", f"--cache-dir={home}"),
                    f"--server=http://127.0.0.1:{self.port}",
                ],
                # Nothing of the user's: kuberc and kubeconfig change what kubectl does.
                env={"HOME": home, "KUBECONFIG": os.devnull, "KUBERC": "off"},
                capture_output=True,
                check=False,
                timeout=300,
            )


def as_json(value: object) -> str:
    """For comparison: 1 and 1.0 are one number, 1 and true are not one value."""
    return json.dumps(value, sort_keys=True)


def compare(kubectl: KubectlReader, manifests: list[bytes]) -> tuple[int, list[str]]:
    """How many manifests both readers read alike, and which break a law of ``yamlreader``."""
    alike = 0
    broken = []
    flow_is_yaml = kubectl.read([FLOW.encode()]) != [None]
    for number, (text, theirs) in enumerate(zip(manifests, kubectl.read(manifests), strict=True)):
        try:
            named = text.replace(NAME.encode(), f"n{number}".encode())
            ours = [document.value for document in read_documents(named, "job.yaml")]
        except ManifestError:
            continue
        if theirs is None:
            # kubectl before 1.33 does not try as YAML what begins with a brace.
            if flow_is_yaml or not text.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
                broken.append(f"kubectl refuses, we read {ours}: {text!r}")
        elif as_json(ours) != as_json(theirs):
            broken.append(f"kubectl reads {theirs}, we read {ours}: {text!r}")
        else:
            alike += 1
    return alike, broken
