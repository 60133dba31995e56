"""What enforces NetworkPolicies on the node: kube-router's firewall, and nothing else of it.

Its packet rules lie in the cluster's network namespace, in tables of their own beside kube-proxy's.
What the node itself sends to its pods passes, as the kubelet's probes must.
"""

from __future__ import annotations

from pathlib import Path

from tests.cluster.addresses import SERVICE_CIDR
from tests.cluster.launch import Launcher
from tests.cluster.roles import role

NAME = "kube-router"
USER = "trainseal:kube-router"
ROLE = role(
    "trainseal-test-firewall",
    USER,
    [
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
)


def start(launcher: Launcher, program: Path, kubeconfig: Path, node: str) -> None:
    """Starts it in the background, once the node is there: it ends where it finds none."""
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
