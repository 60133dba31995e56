"""etcd, the API server and the controllers: their command lines and how to tell they work."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.addresses import API_SERVICE_IP, CLUSTER_DOMAIN, SERVICE_CIDR
from tests.cluster.launch import Launcher
from tests.cluster.pki import Authority, Pair, service_account_key
from tests.cluster.toolchain import Tools

ADMIN = "trainseal-admin"

_API_ONLY_CONTROLLERS = (
    # Without the first, `edit`, `view` and `admin` have no rules; the others make and remove
    # what tests expect to come and go by itself. Nothing here creates pods.
    "clusterrole-aggregation-controller",
    "serviceaccount-controller",
    "namespace-controller",
    "garbage-collector-controller",
)


@dataclass(frozen=True)
class ControlPlane:
    """One control plane; `host` and the ports are where it listens."""

    launcher: Launcher
    tools: Tools
    host: str
    port: int
    etcd_port: int
    etcd_peer_port: int
    api_only: bool

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://{self.host}:{self.port}"

    @property
    def authority(self) -> Authority:
        """The cluster's certificate authority."""
        return Authority(self.launcher.run.pki)

    def start(self) -> None:
        """Start all of it and wait until the API server serves."""
        authority = self.authority
        self._start_etcd()
        self._start_apiserver(authority)
        admin = self.launcher.run.kubeconfig
        authority.kubeconfig(admin, self.server, ADMIN, ["system:masters"])
        self._wait_until_it_serves()
        self._start_controller_manager(authority)

    def start_api_server(self) -> None:
        """Start it again, with all it had; returns when it serves."""
        self._start_apiserver(self.authority)
        self._wait_until_it_serves()

    def _wait_until_it_serves(self) -> None:
        # No wait for etcd of its own: the API server waits for it, and fails if it ends.
        self.launcher.wait("kube-apiserver", "/readyz to answer 200", self.client().ready)

    def client(self) -> ApiClient:
        """A client with the administrator's certificate."""
        pki = self.launcher.run.pki
        pair = Pair(pki / f"user-{ADMIN}.crt", pki / f"user-{ADMIN}.key")
        return ApiClient(self.host, self.port, pki / "ca.crt", pair)

    def _start_etcd(self) -> None:
        client = f"http://127.0.0.1:{self.etcd_port}"
        peer = f"http://127.0.0.1:{self.etcd_peer_port}"
        self.launcher.start(
            "etcd",
            [
                self.tools["etcd"],
                f"--data-dir={self.launcher.run.root / 'etcd'}",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
                # The data need not survive a power cut, and each fsync costs milliseconds.
                "--unsafe-no-fsync",
                "--log-level=warn",
            ],
        )

    def _start_apiserver(self, authority: Authority) -> None:
        names = ["127.0.0.1", "localhost", API_SERVICE_IP, self.host]
        names += ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        names.append(f"kubernetes.default.svc.{CLUSTER_DOMAIN}")
        serving = authority.issue("apiserver", "kube-apiserver", names=names)
        to_kubelet = authority.issue(
            "apiserver-kubelet", "kube-apiserver-kubelet", groups=["system:masters"]
        )
        tokens = service_account_key(authority.folder)
        argv: list[str | Path] = [
            self.tools["kube-apiserver"],
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            f"--bind-address={self.host}",
            f"--advertise-address={self.host}",
            f"--secure-port={self.port}",
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            f"--client-ca-file={authority.pair.cert}",
            f"--tls-cert-file={serving.cert}",
            f"--tls-private-key-file={serving.key}",
            f"--kubelet-certificate-authority={authority.pair.cert}",
            f"--kubelet-client-certificate={to_kubelet.cert}",
            f"--kubelet-client-key={to_kubelet.key}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-issuer=https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
            f"--service-account-key-file={tokens.cert}",
            f"--service-account-signing-key-file={tokens.key}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            # Webhooks behind Services are called at their endpoints, no proxy in between.
            "--enable-aggregator-routing=true",
            "--profiling=false",
        ]
        if self.api_only:
            # Endpoints must not be loopback addresses: nothing to reconcile here.
            argv.append("--endpoint-reconciler-type=none")
        self.launcher.start("kube-apiserver", argv)

    def _start_controller_manager(self, authority: Authority) -> None:
        config = authority.kubeconfig(
            self.launcher.run.conf / "controller-manager.kubeconfig",
            self.server,
            "system:kube-controller-manager",
        )
        argv: list[str | Path] = [
            self.tools["kube-controller-manager"],
            f"--kubeconfig={config}",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={authority.folder / 'sa.key'}",
            f"--root-ca-file={authority.pair.cert}",
            f"--cluster-signing-cert-file={authority.pair.cert}",
            f"--cluster-signing-key-file={authority.pair.key}",
            "--leader-elect=false",
            "--secure-port=0",
        ]
        if self.api_only:
            argv.append(f"--controllers={','.join(_API_ONLY_CONTROLLERS)}")
        self.launcher.start("kube-controller-manager", argv)

    def start_scheduler(self) -> None:
        """Start the scheduler; it needs no waiting for."""
        config = self.authority.kubeconfig(
            self.launcher.run.conf / "scheduler.kubeconfig", self.server, "system:kube-scheduler"
        )
        self.launcher.start(
            "kube-scheduler",
            [
                self.tools["kube-scheduler"],
                f"--kubeconfig={config}",
                "--leader-elect=false",
                "--secure-port=0",
            ],
        )


@dataclass(frozen=True)
class ApiClient:
    """The few API calls that bringing a cluster up needs, without a process for each."""

    host: str
    port: int
    ca: Path
    pair: Pair

    def request(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> tuple[int, Any]:
        """Status and decoded answer; (0, None) while the server cannot be reached."""
        try:
            context = ssl.create_default_context(cafile=str(self.ca))
            context.load_cert_chain(self.pair.cert, self.pair.key)
            connection = http.client.HTTPSConnection(
                self.host, self.port, context=context, timeout=5
            )
            try:
                payload = None if body is None else json.dumps(body)
                connection.request(method, path, payload, {"Content-Type": content_type})
                response = connection.getresponse()
                text = response.read().decode(errors="replace")
            finally:
                connection.close()
        except (OSError, http.client.HTTPException):
            return 0, None
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, text

    def ready(self) -> bool:
        """Whether the API server says that it is ready."""
        return self.request("GET", "/readyz")[0] == 200

    def exists(self, path: str) -> bool:
        """Whether there is an object at the path."""
        return self.request("GET", path)[0] == 200
