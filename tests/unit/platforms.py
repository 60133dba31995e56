"""What platforms make of a pod, and the additions by which a policy lets them.

Written down after what the injectors' templates render (Istio 1.2x with an image by digest, the
Vault agent injector 1.x, the pod identity webhook of EKS), shortened to what differs in kind.
"""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

PROXY = "registry.example/istio/proxyv2@sha256:" + "1" * 64
VAULT = "registry.example/hashicorp/vault@sha256:" + "2" * 64
AGENT = ["/bin/sh", "-ec"]
AGENT_ARGS = ["echo ${VAULT_CONFIG?} | base64 -d > /home/vault/config.json && vault agent"]


def volume(name: str, kind: str, content: Object) -> Object:
    return {"name": name, kind: content}


def mount(volume_name: str, path: str, **more: Any) -> Object:
    return {"name": volume_name, "mountPath": path, **more}


def token_source(audience: str) -> Object:
    return {"serviceAccountToken": {"audience": audience, "expirationSeconds": 3600, "path": "t"}}


# Istio ------------------------------------------------------------------------------------------


def istio(pod: Object) -> None:
    """An init container that turns traffic, a native sidecar, volumes of its own."""
    spec, metadata = pod["spec"], pod["metadata"]
    metadata["labels"]["security.istio.io/tlsMode"] = "istio"
    metadata["annotations"]["sidecar.istio.io/status"] = '{"revision":"default"}'
    turning = {
        "name": "istio-init",
        "image": PROXY,
        "imagePullPolicy": "IfNotPresent",
        "args": ["istio-iptables", "-p", "15001"],
        "resources": {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "10m"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": False,
            "runAsUser": 0,
            "runAsNonRoot": False,
            "runAsGroup": 0,
        },
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    }
    proxy = {
        "name": "istio-proxy",
        "image": PROXY,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "args": ["proxy", "sidecar", "--domain", "$(POD_NAMESPACE).svc.cluster.local"],
        "ports": [{"name": "http-envoy-prom", "containerPort": 15090, "protocol": "TCP"}],
        "env": [
            {"name": "PILOT_CERT_PROVIDER", "value": "istiod"},
            {
                "name": "POD_NAMESPACE",
                "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}},
            },
            {
                "name": "ISTIO_CPU_LIMIT",
                "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "0"}},
            },
        ],
        "resources": {"limits": {"cpu": "2", "memory": "1Gi"}},
        "securityContext": {"runAsUser": 1337, "capabilities": {"drop": ["ALL"]}},
        "startupProbe": {"httpGet": {"path": "/healthz/ready", "port": 15021, "scheme": "HTTP"}},
        "lifecycle": {"preStop": {"exec": {"command": ["pilot-agent", "request", "drain"]}}},
        "volumeMounts": [
            mount("istio-envoy", "/etc/istio/proxy"),
            mount("istio-token", "/var/run/secrets/tokens"),
            mount("istiod-ca-cert", "/var/run/secrets/istio"),
            mount("istio-podinfo", "/etc/istio/pod"),
        ],
    }
    spec["initContainers"] = [turning, proxy, *spec["initContainers"]]
    spec["volumes"] += [
        volume("istio-envoy", "emptyDir", {"medium": "Memory"}),
        volume("istio-token", "projected", {"sources": [token_source("istio-ca")]}),
        volume("istiod-ca-cert", "configMap", {"name": "istio-ca-root-cert", "defaultMode": 420}),
        volume(
            "istio-podinfo",
            "downwardAPI",
            {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]},
        ),
    ]


def istio_addition() -> Object:
    return {
        "name": "istio",
        "reason": "the mesh",
        "labels": ["security.istio.io/tlsMode"],
        "annotations": ["sidecar.istio.io/status"],
        "containers": [
            {
                "name": "istio-init",
                "init": True,
                "images": [PROXY],
                "args": ["istio-iptables", "-p", "15001"],
                "capabilities": ["NET_ADMIN", "NET_RAW"],
            },
            {
                "name": "istio-proxy",
                "init": True,
                "images": [PROXY],
                "args": ["proxy", "sidecar", "--domain", "$(POD_NAMESPACE).svc.cluster.local"],
                "env": [{"name": "PILOT_CERT_PROVIDER", "valuePrefix": "istiod"}],
                "fields": ["ISTIO_CPU_LIMIT", "POD_NAMESPACE"],
                "hooks": [["pilot-agent", "request", "drain"]],
                "mounts": [
                    {"volume": "istio-*", "path": "/etc/istio"},
                    {"volume": "istio-token", "path": "/var/run/secrets/tokens"},
                    {"volume": "istiod-ca-cert", "path": "/var/run/secrets/istio"},
                ],
            },
        ],
        "volumes": [
            {"name": "istio-envoy", "kind": "emptyDir"},
            {"name": "istio-token", "kind": "projected", "audiences": ["istio-ca"]},
            {"name": "istiod-ca-cert", "kind": "configMap", "configMaps": ["istio-ca-root-cert"]},
            {"name": "istio-podinfo", "kind": "downwardAPI"},
        ],
    }


# Vault ------------------------------------------------------------------------------------------


def vault(pod: Object) -> None:
    """An agent beside the trainer, and secrets in memory that the trainer reads."""
    spec = pod["spec"]
    pod["metadata"]["annotations"]["vault.hashicorp.com/agent-inject-status"] = "injected"
    agent = {
        "name": "vault-agent",
        "image": VAULT,
        "command": AGENT,
        "args": AGENT_ARGS,
        "env": [
            {"name": "VAULT_LOG_LEVEL", "value": "info"},
            {"name": "VAULT_CONFIG", "value": "eyJhdXRvX2F1dGgi"},
        ],
        "resources": {"limits": {"cpu": "500m", "memory": "128Mi"}},
        "securityContext": {"runAsUser": 100, "runAsNonRoot": True},
        "volumeMounts": [mount("home-sidecar", "/home/vault"), mount("vault-secrets", "/vault/s")],
    }
    spec["containers"].append(agent)
    spec["containers"][0]["volumeMounts"].append(mount("vault-secrets", "/vault/s"))
    spec["volumes"] += [
        volume("home-sidecar", "emptyDir", {"medium": "Memory"}),
        volume("vault-secrets", "emptyDir", {"medium": "Memory"}),
    ]


def vault_addition() -> Object:
    return {
        "name": "vault",
        "reason": "secrets",
        "annotations": ["vault.hashicorp.com/agent-inject-status"],
        "containers": [
            {
                "name": "vault-agent",
                "images": [VAULT],
                "command": AGENT,
                "args": AGENT_ARGS,
                "env": [
                    {"name": "VAULT_LOG_LEVEL"},
                    {"name": "VAULT_CONFIG", "valuePrefix": "eyJ"},
                ],
                "mounts": [
                    {"volume": "home-sidecar", "path": "/home/vault"},
                    {"volume": "vault-secrets", "path": "/vault"},
                ],
            }
        ],
        "volumes": [
            {"name": "home-sidecar", "kind": "emptyDir"},
            {"name": "vault-secrets", "kind": "emptyDir"},
        ],
        "mounts": [{"volume": "vault-secrets", "path": "/vault"}],
    }


# Pod identity -----------------------------------------------------------------------------------


def identity(pod: Object) -> None:
    """Variables and a token for the cloud, in each container."""
    spec = pod["spec"]
    path = "/var/run/secrets/eks.amazonaws.com/serviceaccount"
    for container in (*spec["initContainers"], *spec["containers"]):
        container.setdefault("env", []).append(
            {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": f"{path}/token"}
        )
        container.setdefault("volumeMounts", []).append(mount("aws-iam-token", path, readOnly=True))
    spec["volumes"].append(
        volume("aws-iam-token", "projected", {"sources": [token_source("sts.amazonaws.com")]})
    )


def identity_addition() -> Object:
    path = "/var/run/secrets/eks.amazonaws.com/serviceaccount"
    return {
        "name": "pod-identity",
        "reason": "the cloud's credentials",
        "env": [{"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "valuePrefix": path}],
        "volumes": [
            {"name": "aws-iam-token", "kind": "projected", "audiences": ["sts.amazonaws.com"]}
        ],
        "mounts": [{"volume": "aws-iam-token", "path": path, "readOnly": True}],
    }


PLATFORMS = {
    "Istio": (istio, istio_addition),
    "Vault": (vault, vault_addition),
    "pod identity": (identity, identity_addition),
}
