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


# Kueue ------------------------------------------------------------------------------------------


def kueue(pod: Object) -> None:
    """What re-admission writes into the Job's pods: where they go, and whose they are."""
    pod["metadata"]["labels"]["kueue.x-k8s.io/podset"] = "main"
    pod["metadata"]["annotations"]["kueue.x-k8s.io/workload"] = "job-char-lm-5f9d8"
    pod["spec"]["nodeSelector"] = {"cloud.example/pool": "a100"}
    pod["spec"]["tolerations"].append({"key": "nvidia.com/gpu", "operator": "Exists"})


def kueue_addition() -> Object:
    return {
        "name": "kueue",
        "reason": "the queue",
        "labels": ["kueue.x-k8s.io/podset"],
        "annotations": ["kueue.x-k8s.io/workload"],
    }


# Others that change what is there, and add no container -------------------------------------------


def multus(pod: Object) -> None:
    """A second network for RDMA: Multus reads the annotation, the device plugin does the rest."""
    annotations = pod["metadata"]["annotations"]
    annotations["k8s.v1.cni.cncf.io/networks"] = "rdma-net"
    pod["spec"]["volumes"].append(
        volume(
            "podnetinfo",
            "downwardAPI",
            {"items": [{"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}}]},
        )
    )
    pod["spec"]["containers"][0]["volumeMounts"].append(mount("podnetinfo", "/etc/podnetinfo"))


def multus_addition() -> Object:
    return {
        "name": "rdma",
        "reason": "the fast network",
        "annotations": ["k8s.v1.cni.cncf.io/networks"],
        "volumes": [{"name": "podnetinfo", "kind": "downwardAPI"}],
        "mounts": [{"volume": "podnetinfo", "path": "/etc/podnetinfo"}],
    }


def cdi(pod: Object) -> None:
    """Devices by the Container Device Interface, as an older device plugin asks for them."""
    pod["metadata"]["annotations"]["cdi.k8s.io/nvidia-device-plugin_0"] = "nvidia.com/gpu=0"


def cdi_addition() -> Object:
    name = "cdi.k8s.io/nvidia-device-plugin_0"
    return {"name": "cdi", "reason": "devices", "annotations": [name]}


def tracing(pod: Object) -> None:
    """Datadog's variables: where its agent listens, and whose the metrics are."""
    field = {"apiVersion": "v1", "fieldPath": "status.hostIP"}
    pod["spec"]["containers"][0]["env"] += [
        {"name": "DD_AGENT_HOST", "valueFrom": {"fieldRef": field}},
        {"name": "DD_ENTITY_ID", "valueFrom": {"fieldRef": {**field, "fieldPath": "metadata.uid"}}},
        {"name": "DD_EXTERNAL_ENV", "value": "it-false,cn-trainer,pu-5f9d8d8e"},
    ]


def tracing_addition() -> Object:
    return {
        "name": "datadog",
        "reason": "metrics",
        "env": [{"name": "DD_EXTERNAL_ENV", "valuePrefix": "it-false,"}],
        "fields": ["DD_AGENT_HOST", "DD_ENTITY_ID"],
    }


def buckets(pod: Object) -> None:
    """GKE's sidecar that mounts buckets, for a volume which the signed template has."""
    pod["metadata"]["annotations"]["gke-gcsfuse/volumes"] = "true"
    pod["spec"]["initContainers"].insert(
        0,
        {
            "name": "gke-gcsfuse-sidecar",
            "image": FUSE,
            "restartPolicy": "Always",
            "args": ["--v=5", "--grace-period=30"],
            "env": [{"name": "NATIVE_SIDECAR", "value": "TRUE"}],
            "resources": {"requests": {"cpu": "250m", "memory": "256Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["all"]},
                "readOnlyRootFilesystem": True,
                "runAsUser": 65534,
                "runAsGroup": 65534,
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumeMounts": [mount(name, path) for name, path in _FUSE.items()],
        },
    )
    pod["spec"]["volumes"] += [volume(name, "emptyDir", {}) for name in _FUSE]


FUSE = "registry.example/gke/gcs-fuse-csi-driver-sidecar-mounter@sha256:" + "3" * 64
_FUSE = {
    "gke-gcsfuse-tmp": "/gcsfuse-tmp",
    "gke-gcsfuse-buffer": "/gcsfuse-buffer",
    "gke-gcsfuse-cache": "/gcsfuse-cache",
}


def buckets_addition() -> Object:
    return {
        "name": "gcsfuse",
        "reason": "buckets",
        "annotations": ["gke-gcsfuse/volumes"],
        "containers": [
            {
                "name": "gke-gcsfuse-sidecar",
                "init": True,
                "images": [FUSE],
                "args": ["--v=5", "--grace-period=30"],
                "env": [{"name": "NATIVE_SIDECAR", "valuePrefix": "TRUE"}],
                "mounts": [{"volume": "gke-gcsfuse-*", "path": path} for path in _FUSE.values()],
            }
        ],
        "volumes": [{"name": "gke-gcsfuse-*", "kind": "emptyDir"}],
    }


PLATFORMS = {
    "Istio": (istio, istio_addition),
    "Vault": (vault, vault_addition),
    "pod identity": (identity, identity_addition),
    "Kueue": (kueue, kueue_addition),
    "RDMA by Multus": (multus, multus_addition),
    "CDI by annotation": (cdi, cdi_addition),
    "Datadog": (tracing, tracing_addition),
    "GKE buckets": (buckets, buckets_addition),
}

#: What container runtimes and their hooks act on is proposed to nobody: a person names it.
BY_HAND = frozenset({"RDMA by Multus", "CDI by annotation"})


# What no policy lets a platform do ----------------------------------------------------------------


def instrumentation(pod: Object) -> None:
    """OpenTelemetry's operator: a path from which Python loads first."""
    path = {"name": "PYTHONPATH", "value": "/otel-auto-instrumentation-python"}
    pod["spec"]["containers"][0]["env"].append(path)


def network_resources(pod: Object) -> None:
    """The network resources injector: devices that the signed template did not ask for."""
    resources = pod["spec"]["containers"][0]["resources"]
    for amounts in ("limits", "requests"):
        resources[amounts]["rdma/hca"] = "1"


def agents_socket(pod: Object) -> None:
    """Datadog in its socket mode: a directory of the node."""
    pod["spec"]["volumes"].append(volume("datadog", "hostPath", {"path": "/var/run/datadog"}))
    pod["spec"]["containers"][0]["volumeMounts"].append(mount("datadog", "/var/run/datadog"))


#: Each with what a team does instead.
REFUSED = {
    "OpenTelemetry's Python": (instrumentation, "instrument in the signed code"),
    "network resources injector": (network_resources, "ask for the device in the signed template"),
    "Datadog's socket": (agents_socket, "use its port: DD_AGENT_HOST"),
}
