"""The cluster's two OCI registries, both on plain HTTP at the node's address."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.cluster.addresses import AddressPlan
from tests.cluster.launch import Launcher
from tests.cluster.toolchain import Tools

WITH_REFERRERS = "registry"
WITHOUT_REFERRERS = "registry-plain"


@dataclass(frozen=True)
class Registries:
    """One that has the referrers API, one that has not."""

    launcher: Launcher
    tools: Tools
    plan: AddressPlan

    @property
    def blobs(self) -> Path:
        """The first one's blobs, as files `sha256/HEX`; it serves what they hold."""
        return self.launcher.run.root / "registry/blobs"

    def start(self, name: str) -> None:
        """Start one of them, with all it had before; returns when it answers."""
        if self.launcher.alive(name):
            return
        if name == WITH_REFERRERS:
            address = self.plan.registry
            argv: list[str | Path] = [self.tools["registry"], "-listen", address]
            argv += ["-dir", self.launcher.run.sub("registry")]
        else:
            address = self.plan.registry_plain
            argv = [self.tools["distribution"], "serve", self._distribution_config()]
        self.launcher.start(name, argv)
        self.launcher.wait(name, f"http://{address}/v2/ to answer 200", lambda: _answers(address))

    def stop(self, name: str) -> None:
        """Stop one of them: connections are refused from then on."""
        self.launcher.stop(name)

    def _distribution_config(self) -> Path:
        path = self.launcher.run.conf / "distribution.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        config = {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.launcher.run.sub("registry-plain"))},
                "delete": {"enabled": True},
            },
            "http": {"addr": self.plan.registry_plain},
        }
        path.write_text(yaml.safe_dump(config))
        return path


def _answers(address: str) -> bool:
    connection = http.client.HTTPConnection(address, timeout=2)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
