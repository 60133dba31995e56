"""The chart's floor alone: no webhook answers, and tests say what the controller would tell it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.integration.chart.conftest import NAMESPACE, ApiServer, Helm

DEV = "--as=dev@example.org"
CONFIGURATIONS = ("mutatingwebhookconfiguration", "validatingwebhookconfiguration")


@contextlib.contextmanager
def floored(
    server: ApiServer,
    helm: Path,
    namespaces: Sequence[str],
    administrators: Sequence[str],
    told: Mapping[str, str],
    *values: str,
) -> Iterator[None]:
    """Installed with these values, in namespaces where the developer is an editor; the other users
    administer them. ``told`` is the data of ConfigMap `trainseal-floor`.
    """
    chart = Helm(server, helm)
    chart.install(*(part for value in values for part in ("--set", value)))
    try:
        for namespace in namespaces:
            server.kubectl("create", "namespace", namespace)
            users = {"dev@example.org": "edit", **dict.fromkeys(administrators, "admin")}
            for number, (user, role) in enumerate(users.items()):
                server.kubectl(
                    "create", "rolebinding", f"user-{number}", "-n", namespace,
                    f"--clusterrole={role}", f"--user={user}",
                )  # fmt: skip
        for namespace in (*namespaces, NAMESPACE, "kube-system"):
            server.kubectl("wait", "--for=create", "serviceaccount/default", "-n", namespace)
        for kind in CONFIGURATIONS:
            server.kubectl("delete", kind, "-l", "app.kubernetes.io/part-of=trainseal")
        server.kubectl(
            "patch", "configmap", "trainseal-floor", "-n", NAMESPACE,
            "-p", json.dumps({"data": dict(told)}),
        )  # fmt: skip
        yield
    finally:
        chart.uninstall()
        server.kubectl("delete", "namespace", *namespaces, "--wait=false", "--ignore-not-found")
