"""OCI registries as processes on loopback: one with the referrers API, one without."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.cluster import ClusterError
from trainseal.registry.references import Reference

STARTING_SECONDS = 30.0


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
    config = folder / "config.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "version": "0.1",
                "log": {"level": "warn", "accesslog": {"disabled": True}},
                "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
                "http": {"addr": address},
            }
        )
    )
    with running([str(program), "serve", str(config)], address, folder / "log"):
        yield Registry(address, has_referrers=False, blobs=folder / "data/docker/registry/v2/blobs")


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], address: str, log: Path) -> Iterator[None]:
    """The program, from when it answers until it is stopped. Raises ClusterError."""
    with log.open("wb") as output:
        environment = os.environ | {"OTEL_TRACES_EXPORTER": "none"}
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        until = time.monotonic() + STARTING_SECONDS
        while not answers(address):
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


def answers(address: str) -> bool:
    """Whether a registry answers there."""
    try:
        with urllib.request.urlopen(f"http://{address}/v2/", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
