"""The chart, installed as the README says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.cluster import Target

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


def install(target: Target, image: str, plain_registries: Sequence[str]) -> None:
    """`helm upgrade --install`, until webhook and controller are ready; raises CommandError."""
    target.helm(*install_command(image, plain_registries))


def uninstall(target: Target) -> None:
    """`helm uninstall`; seals, keys and kinds stay, as the chart promises."""
    target.helm("uninstall", "trainseal", "--namespace", NAMESPACE, "--wait")
