"""What enforces NetworkPolicies on the node: kube-router's firewall, and nothing else of it.

Its packet rules lie in the cluster's network namespace, in tables of their own beside kube-proxy's.
What the node itself sends to its pods passes, as the kubelet's probes must.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.cluster.addresses import SERVICE_CIDR
from tests.cluster.launch import Launcher

NAME = "kube-router"
USER = "trainseal:kube-router"
ROLE: list[dict[str, Any]] = [
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "trainseal-test-firewall"},
        "rules": [
            {
                "apiGroups": [""],
                "resources": ["services", "endpoints", "pods", "namespaces", "nodes"],
                "verbs": ["get", "list", "watch"],
            },
            {
                "apiGroups": ["discovery.k8s.io"],
                "resources": ["endpointslices"],
                "verbs": ["list", "watch"],
            },
            {
                "apiGroups": ["networking.k8s.io"],
                "resources": ["networkpolicies"],
                "verbs": ["list", "watch"],
            },
        ],
    },
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "trainseal-test-firewall"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "trainseal-test-firewall",
        },
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}],
    },
]


def start(launcher: Launcher, program: Path, kubeconfig: Path, node: str) -> None:
    """Starts it in the background; it ends by itself where the kernel does not take its rules."""
    launcher.start(
        NAME,
        [
            program,
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={node}",
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            "--run-firewall=true",
            "--run-router=false",
            "--run-service-proxy=false",
            "--run-loadbalancer=false",
            "--enable-cni=false",
            "--health-port=0",
        ],
    )
