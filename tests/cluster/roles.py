"""Rights of the cluster's own helpers, which are users like others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Object = dict[str, Any]
_GROUP = "rbac.authorization.k8s.io"
_API_VERSION = f"{_GROUP}/v1"


def role(name: str, user: str, rules: Sequence[Object]) -> list[Object]:
    """A ClusterRole of these rules, and its binding to a user."""
    reference = {"apiGroup": _GROUP, "kind": "ClusterRole", "name": name}
    subjects = [{"apiGroup": _GROUP, "kind": "User", "name": user}]
    return [
        {
            "apiVersion": _API_VERSION,
            "kind": "ClusterRole",
            "metadata": {"name": name},
            "rules": [*rules],
        },
        {
            "apiVersion": _API_VERSION,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": reference,
            "subjects": subjects,
        },
    ]
