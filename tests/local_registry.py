"""OCI registries as processes on loopback: with the referrers API, without, and a private one."""

from __future__ import annotations

import base64
import json
import os
import secrets
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.cluster import ClusterError
from tests.cluster.ports import free_port
from trainseal.registry.client import RegistryClient
from trainseal.registry.credentials import DockerConfig, from_config
from trainseal.registry.references import Reference
from trainseal.registry.transport import Options

STARTING_SECONDS = 30.0
USER, PASSWORD = "reader", "correct horse"
#: Of PASSWORD, at the lowest cost.
_PASSWORD_BCRYPT = "$2b$04$JkQuJjixs4wtfpEUzbdqIe7GqKgj1Lv3yTQMQe5aKynogv6LTx8sq"


@dataclass(frozen=True)
class Registry:
    """A running registry; ``blobs`` is where it keeps them, for tests that alter them."""

    address: str
    has_referrers: bool
    blobs: Path

    def repository(self, name: str = "research") -> Reference:
        """A repository nobody used before."""
        return Reference(self.address, f"{name}/{secrets.token_hex(6)}")

    def blob_file(self, digest: str) -> Path:
        """The file from which the blob is served."""
        encoded = digest.removeprefix("sha256:")
        if self.has_referrers:
            return self.blobs / "sha256" / encoded
        return self.blobs / "sha256" / encoded[:2] / encoded / "data"


@contextmanager
def registry_with_referrers(program: Path, folder: Path) -> Iterator[Registry]:
    """The pinned tool ``registry``, with its blobs in ``folder``, until the block ends."""
    address = f"127.0.0.1:{free_port()}"
    command = [str(program), "-listen", address, "-dir", str(folder)]
    with running(command, address, folder / "log"):
        yield Registry(address, has_referrers=True, blobs=folder / "blobs")


@contextmanager
def registry_without_referrers(program: Path, folder: Path) -> Iterator[Registry]:
    """The pinned tool ``distribution``, with its data in ``folder``, until the block ends."""
    address = f"127.0.0.1:{free_port()}"
    config = _distribution_config(folder, {"addr": address})
    with running([str(program), "serve", str(config)], address, folder / "log"):
        yield Registry(address, has_referrers=False, blobs=folder / "data/docker/registry/v2/blobs")


@dataclass(frozen=True)
class PrivateRegistry:
    """A registry that wants TLS by an authority of its own, and a password."""

    address: str
    ca_file: Path

    def docker_config(self, password: str = PASSWORD) -> bytes:
        """A docker config, as a pull secret has it, with USER's entry for this registry."""
        auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
        return json.dumps({"auths": {self.address: {"auth": auth}}}).encode()

    def client(self) -> RegistryClient:
        """A client that may push."""
        lookup = from_config(DockerConfig.parse(self.docker_config()))
        return RegistryClient(Options(ca_file=self.ca_file), lookup)


@contextmanager
def private_registry(
    program: Path, folder: Path, host: str = "127.0.0.1"
) -> Iterator[PrivateRegistry]:
    """``distribution`` with TLS and one user, on an address of this machine."""
    address = f"{host}:{free_port(host)}"
    folder.mkdir(parents=True, exist_ok=True)
    ca, key = _certificate(folder, host)
    passwords = folder / "htpasswd"
    passwords.write_text(f"{USER}:{_PASSWORD_BCRYPT}\n")
    config = _distribution_config(
        folder,
        {"addr": address, "tls": {"certificate": str(ca), "key": str(key)}},
        {"htpasswd": {"realm": "private", "path": str(passwords)}},
    )
    with running([str(program), "serve", str(config)], address, folder / "log", ca):
        yield PrivateRegistry(address, ca)


def _distribution_config(
    folder: Path, http: Mapping[str, object], auth: Mapping[str, object] | None = None
) -> Path:
    config = folder / "config.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "version": "0.1",
                "log": {"level": "warn", "accesslog": {"disabled": True}},
                "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
                "http": dict(http),
                **({"auth": dict(auth)} if auth else {}),
            }
        )
    )
    return config


def _certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """The files of a certificate for ``host`` that is its own authority, and of its key."""
    ca, key = folder / "ca.crt", folder / "tls.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "36500", "-subj", "/CN=private registry"),
            *("-addext", f"subjectAltName=IP:{host}", "-keyout", str(key), "-out", str(ca)),
        ],
        check=True,
        capture_output=True,
    )
    return ca, key


@contextmanager
def running(
    command: list[str], address: str, log: Path, ca_file: Path | None = None
) -> Iterator[None]:
    """The program, from when it answers until it is stopped. Raises ClusterError."""
    with log.open("wb") as output:
        environment = os.environ | {"OTEL_TRACES_EXPORTER": "none"}
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        until = time.monotonic() + STARTING_SECONDS
        while not answers(address, ca_file):
            if process.poll() is not None or time.monotonic() > until:
                raise ClusterError(f"{command[0]} did not start", detail=log.read_text()[-2000:])
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(address: str, ca_file: Path | None = None) -> bool:
    """Whether a registry answers there, be it that it wants a password; with a CA, over TLS."""
    url = f"http://{address}/v2/" if ca_file is None else f"https://{address}/v2/"
    tls = None if ca_file is None else ssl.create_default_context(cafile=str(ca_file))
    try:
        with urllib.request.urlopen(url, timeout=2, context=tls) as answer:  # noqa: S310 - ours
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        return error.code == 401
    except (OSError, urllib.error.URLError):
        return False
