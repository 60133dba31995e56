"""The chart, installed as the README says."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.cluster import Target
from tests.local_registry import PrivateRegistry

NAMESPACE = "trainseal-system"
CHART = Path(__file__).parents[2] / "charts" / "trainseal"


def install_command(image: str, plain_registries: Sequence[str]) -> list[str]:
    """The arguments of helm: returns once webhook and controller are ready."""
    return [
        "upgrade", "--install", "trainseal", str(CHART),
        "--namespace", NAMESPACE, "--create-namespace",
        "--set", f"image.reference={image}",
        "--set", f"registries.plainHTTP={{{','.join(plain_registries)}}}",
        "--wait", "--timeout", "4m",
    ]  # fmt: skip


def install(
    target: Target,
    image: str,
    plain_registries: Sequence[str],
    private: PrivateRegistry | None = None,
    alerts: str = "",
    values: Sequence[str] = (),
) -> None:
    """`helm upgrade --install`, until webhook and controller are ready; raises CommandError.

    With ``private`` they know that registry's authority and have an account there; ``alerts`` is
    the base URL of an Alertmanager; ``values`` are further ones of the chart.
    """
    more = [] if private is None else _private_registry(target, private)
    more += ["--set", f"alerts.alertmanagerURL={alerts}"] if alerts else []
    more += [word for value in values for word in ("--set", value)]
    target.helm(*install_command(image, plain_registries), *more)


def _private_registry(target: Target, private: PrivateRegistry) -> list[str]:
    """What the how-to on registries says, under names of their own for each registry."""
    name = f"registry-{private.address.rpartition(':')[2]}"
    for obj in (
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "data": {"ca.crt": private.ca_file.read_text()},
        },
        pull_secret(name, NAMESPACE, private.docker_config()),
    ):
        target.kubectl("apply", "-f", "-", input=json.dumps(obj))
    return [
        *("--set", f"registries.caConfigMap={name}"),
        *("--set", f"registries.credentialsSecret={name}"),
    ]


def pull_secret(name: str, namespace: str, docker_config: bytes) -> dict[str, Any]:
    """A Secret as `kubectl create secret docker-registry` makes it."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": name, "namespace": namespace},
        "data": {".dockerconfigjson": base64.b64encode(docker_config).decode()},
    }


def uninstall(target: Target) -> None:
    """`helm uninstall`; seals, keys and kinds stay, as the chart promises."""
    target.helm("uninstall", "trainseal", "--namespace", NAMESPACE, "--wait")
