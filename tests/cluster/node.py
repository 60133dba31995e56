"""The node: containerd, kubelet, kube-proxy and cluster DNS, with their configuration."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import firewall, volumes
from tests.cluster.addresses import CLUSTER_DOMAIN, POD_CIDR, AddressPlan
from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import ClusterError
from tests.cluster.launch import Launcher
from tests.cluster.pause import PAUSE_IMAGE, pause_archive
from tests.cluster.processes import Process, daemon_environment, kill_all, tail
from tests.cluster.roles import role
from tests.cluster.toolchain import Tools

CNI_PLUGINS = Path("/usr/lib/cni")

_KUBELET_TRIES = 5
_CONTAINERD = """\
version = 2
root = "{root}/containerd/root"
state = "{root}/containerd/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
oom_score = 0

[grpc]
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Without it runc wants to lower oom_score_adj, which a root without CAP_SYS_RESOURCE
  # (a sandbox) may not, and dies with "can't get final child's PID from pipe".
  restrict_oom_score_adj = true
  # Otherwise pod namespaces of all clusters would mix in /run/netns.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{root}/conf/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{root}/conf/certs.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "{root}/containerd/runc"
        SystemdCgroup = false
"""

_COREFILE = """\
{domain}:53 in-addr.arpa:53 ip6.arpa:53 {{
    bind {address}
    errors
    kubernetes {domain} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 1
    }}
}}
.:53 {{
    bind {address}
    errors
    # There is no world outside: say so at once instead of letting clients time out.
    template ANY ANY . {{
        rcode NXDOMAIN
    }}
}}
"""

_DNS_USER = "trainseal:dns"
_DNS_ROLE = role(
    "trainseal-test-dns",
    _DNS_USER,
    [
        {
            "apiGroups": ["", "discovery.k8s.io"],
            "resources": ["services", "pods", "namespaces", "endpointslices"],
            "verbs": ["list", "watch"],
        }
    ],
)


@dataclass(frozen=True)
class Node:
    """The one node of a cluster."""

    name: str
    launcher: Launcher
    tools: Tools
    plan: AddressPlan
    control_plane: ControlPlane
    cgroup_path: str
    gpus: int

    @property
    def root(self) -> Path:
        """The run directory."""
        return self.launcher.run.root

    @property
    def containerd_socket(self) -> Path:
        """containerd's socket."""
        return self.root / "containerd.sock"

    def start_containerd(self) -> None:
        """Start containerd; needs no API server, so it can start beside it."""
        conf = self.launcher.run.conf
        _write_json(
            conf / "cni/10-trainseal.conflist",
            {
                "cniVersion": "0.4.0",
                "name": "trainseal",
                "plugins": [
                    {
                        # Point to point and not a bridge: traffic between two pods is then
                        # routed, so Service addresses work without br_netfilter.
                        "type": "ptp",
                        "ipMasq": False,
                        "ipam": {
                            "type": "host-local",
                            "dataDir": str(self.root / "cni"),
                            "ranges": [[{"subnet": POD_CIDR}]],
                            "routes": [{"dst": "0.0.0.0/0"}],
                        },
                    }
                ],
            },
        )
        for address in (self.plan.registry, self.plan.registry_plain):
            self.trust_registry(address)
        config = conf / "containerd.toml"
        config.write_text(
            _CONTAINERD.format(
                root=self.root, socket=self.containerd_socket, pause=PAUSE_IMAGE, cni=CNI_PLUGINS
            )
        )
        self.launcher.start("containerd", ["containerd", "--config", config])

    def trust_registry(self, address: str) -> None:
        """Let containerd speak plain HTTP to a registry; takes effect at the next pull."""
        folder = self.launcher.run.conf / "certs.d" / address
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hosts.toml").write_text(
            f'server = "http://{address}"\n\n[host."http://{address}"]\n'
            '  capabilities = ["pull", "resolve"]\n'
        )

    def start(self) -> None:
        """Start the rest, once API server and containerd work, and wait for `Ready`."""
        self._import_pause()
        client = self.control_plane.client()
        rbac = "/apis/rbac.authorization.k8s.io/v1"
        objects = [
            (f"{rbac}/{item['kind'].lower()}s", item) for item in (*_DNS_ROLE, *firewall.ROLE)
        ]
        for path, item in (*objects, *volumes.make(self.root, self.name)):
            status, answer = client.request("POST", path, item)
            if status not in (201, 409):
                raise ClusterError(f"cannot create {item['kind']} at {path}: {status} {answer}")
        self._start_kubelet()
        self._start_kube_proxy()
        self._start_dns()
        self._until_ready()
        self._start_firewall()
        self.launcher.wait("kubelet", "the node's GPUs to be accepted", self.patch_gpus)
        # A pod made before this account exists is refused.
        self.launcher.wait(
            "kube-controller-manager",
            "service account default/default",
            lambda: client.exists("/api/v1/namespaces/default/serviceaccounts/default"),
        )
        self.launcher.wait("coredns", "cluster DNS to answer", self._dns_answers)

    def cut_off(self) -> None:
        """As by a power cut: kubelet, runtime and every process of a pod are gone at once.

        What they had on disk stays. ClusterError where one of them does not die.
        """
        self.launcher.stop("kubelet")
        self.launcher.stop("containerd")
        left = kill_all(self._of_pods())
        if left:
            raise ClusterError(f"{len(left)} processes of pods do not die")

    def power_on(self) -> None:
        """Starts runtime and kubelet after `cut_off`; returns once the node is ready again."""
        self.start_containerd()
        self.launcher.wait("containerd", "containerd to answer on its socket", self._serving)
        self._start_kubelet()
        self._until_ready()
        self.launcher.wait("kubelet", "the node's GPUs to be accepted", self.patch_gpus)

    def _until_ready(self) -> None:
        """Waits for `Ready`. Two kubelets that start in one moment meet at the socket of the device
        plugins, whose path is one for the whole machine: the one that ends of it starts again.
        """
        for _ in range(_KUBELET_TRIES):
            try:
                self.launcher.wait(
                    "kubelet", f"node {self.name} to be Ready", self.ready, timeout=90
                )
            except ClusterError:
                taken = "address already in use" in tail(self.launcher.log("kubelet"))
                if self.launcher.alive("kubelet") or not taken:
                    raise
                self._start_kubelet()
            else:
                return
        self.launcher.wait("kubelet", f"node {self.name} to be Ready", self.ready, timeout=90)

    def _of_pods(self) -> list[Process]:
        """The processes of all pods, and the shims of the runtime that hold them."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                groups = (folder / "cgroup").read_text()
                words = (folder / "cmdline").read_bytes()
                in_pod = self.cgroup_path in groups and "/kubepods" in groups
                if in_pod or (b"shim" in words and str(self.containerd_socket).encode() in words):
                    process = Process.running(int(folder.name))
                    if process is not None:
                        found.append(process)
        return found

    def ready(self) -> bool:
        """Whether the node reports `Ready`."""
        status, node = self.control_plane.client().request("GET", f"/api/v1/nodes/{self.name}")
        if status != 200:
            return False
        conditions = node.get("status", {}).get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def gpus_present(self) -> bool:
        """Whether the node still offers its GPUs (a kubelet that restarts drops them)."""
        _, node = self.control_plane.client().request("GET", f"/api/v1/nodes/{self.name}")
        offered = (node or {}).get("status", {}).get("allocatable", {}).get("nvidia.com/gpu", "0")
        return bool(offered == str(self.gpus))

    def patch_gpus(self) -> bool:
        """Offer GPUs that do not exist; scheduler and kubelet only count them."""
        amount = {"nvidia.com/gpu": str(self.gpus)}
        status, _ = self.control_plane.client().request(
            "PATCH",
            f"/api/v1/nodes/{self.name}/status",
            {"status": {"capacity": amount, "allocatable": amount}},
            "application/strategic-merge-patch+json",
        )
        return status == 200

    def _dns_answers(self) -> bool:
        """Ask for the API server's name; CoreDNS answers once it has read the services."""
        name = f"kubernetes.default.svc.{CLUSTER_DOMAIN}"
        labels = b"".join(bytes([len(x)]) + x.encode() for x in name.split("."))
        query = struct.pack(">6H", 1, 0x0100, 1, 0, 0, 0) + labels + b"\0" + b"\0\1\0\1"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(1)
            try:
                s.sendto(query, (self.plan.node, 53))
                answer = s.recv(512)
            except OSError:
                return False
        return len(answer) > 12 and bool(struct.unpack(">H", answer[6:8])[0])

    def _serving(self) -> bool:
        return self.containerd_socket.exists() and self._ctr("version").returncode == 0

    def _import_pause(self) -> None:
        self.launcher.wait("containerd", "containerd to answer on its socket", self._serving)
        archive = pause_archive(self.root / "pause.tar")
        result = self._ctr("-n", "k8s.io", "images", "import", str(archive))
        if result.returncode != 0:
            raise ClusterError("the pause image cannot be imported", detail=result.stderr)

    def _ctr(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ctr", "--address", str(self.containerd_socket), *args],
            capture_output=True,
            text=True,
            check=False,
            env=daemon_environment(),
        )

    def _start_kubelet(self) -> None:
        authority, conf = self.control_plane.authority, self.launcher.run.conf
        serving = authority.issue("kubelet", self.name, names=[self.name, self.plan.node])
        resolv = conf / "resolv.conf"
        resolv.write_text("# pods get cluster DNS and nothing of the host's\n")
        config = conf / "kubelet.yaml"
        _write_yaml(
            config,
            {
                "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "kind": "KubeletConfiguration",
                "address": self.plan.node,
                "authentication": {
                    "anonymous": {"enabled": False},
                    "webhook": {"enabled": True},
                    "x509": {"clientCAFile": str(authority.pair.cert)},
                },
                "authorization": {"mode": "Webhook"},
                "tlsCertFile": str(serving.cert),
                "tlsPrivateKeyFile": str(serving.key),
                "containerRuntimeEndpoint": f"unix://{self.containerd_socket}",
                "cgroupDriver": "cgroupfs",
                "cgroupRoot": self.cgroup_path,
                "failCgroupV1": False,
                "failSwapOn": False,
                "enforceNodeAllocatable": [],
                "localStorageCapacityIsolation": False,
                "makeIPTablesUtilChains": False,
                "clusterDNS": [self.plan.node],
                "clusterDomain": CLUSTER_DOMAIN,
                "resolvConf": str(resolv),
                "podLogsDir": str(self.root / "pod-logs"),
                "volumePluginDir": str(self.root / "kubelet/volume-plugins"),
                # The disk is the machine's own: how full it is says nothing about the tests.
                "evictionHard": {
                    "imagefs.available": "0%",
                    "nodefs.available": "0%",
                    "nodefs.inodesFree": "0%",
                },
                "imageGCHighThresholdPercent": 100,
                "serializeImagePulls": False,
                # The defaults (5 and 10 a second) make a test that starts many pods wait.
                "kubeAPIQPS": 50,
                "kubeAPIBurst": 100,
                "registryPullQPS": 0,
                "readOnlyPort": 0,
            },
        )
        kubeconfig = authority.kubeconfig(
            conf / "kubelet.kubeconfig",
            self.control_plane.server,
            f"system:node:{self.name}",
            ["system:nodes"],
        )
        self.launcher.start(
            "kubelet",
            [
                self.tools["kubelet"],
                f"--config={config}",
                f"--kubeconfig={kubeconfig}",
                f"--root-dir={self.root / 'kubelet'}",
                f"--hostname-override={self.name}",
                f"--node-ip={self.plan.node}",
            ],
        )

    def _start_kube_proxy(self) -> None:
        conf = self.launcher.run.conf
        kubeconfig = self.control_plane.authority.kubeconfig(
            conf / "kube-proxy.kubeconfig", self.control_plane.server, "system:kube-proxy"
        )
        config = conf / "kube-proxy.yaml"
        _write_yaml(
            config,
            {
                "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                "kind": "KubeProxyConfiguration",
                "mode": "nftables",
                "clusterCIDR": POD_CIDR,
                "hostnameOverride": self.name,
                "clientConnection": {"kubeconfig": str(kubeconfig)},
                # The limits are the machine's, not the namespace's: leave them alone.
                "conntrack": {"maxPerCore": 0, "min": 0},
                "nftables": {"minSyncPeriod": "100ms"},
            },
        )
        self.launcher.start("kube-proxy", [self.tools["kube-proxy"], f"--config={config}"])

    def _start_firewall(self) -> None:
        kubeconfig = self.control_plane.authority.kubeconfig(
            self.launcher.run.conf / "firewall.kubeconfig", self.control_plane.server, firewall.USER
        )
        firewall.start(self.launcher, self.tools[firewall.NAME], kubeconfig, self.name)

    def _start_dns(self) -> None:
        conf = self.launcher.run.conf
        kubeconfig = self.control_plane.authority.kubeconfig(
            conf / "dns.kubeconfig", self.control_plane.server, _DNS_USER
        )
        corefile = conf / "Corefile"
        corefile.write_text(
            _COREFILE.format(domain=CLUSTER_DOMAIN, address=self.plan.node, kubeconfig=kubeconfig)
        )
        self.launcher.start("coredns", [self.tools["coredns"], "-conf", corefile])


def _write_yaml(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(value, sort_keys=False))


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2))
