"""A real single-node Kubernetes, from nothing to `Ready` and back to nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tests.cluster import cleanup, pins, readiness
from tests.cluster.addresses import AddressPlan, choose_plan
from tests.cluster.cgroups import Cgroup
from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import ClusterError
from tests.cluster.launch import Launcher
from tests.cluster.network import Network, namespaces, subnets_in_use
from tests.cluster.node import Node
from tests.cluster.places import CHECKOUT, RunDir, locked, state_root
from tests.cluster.ports import free_ports
from tests.cluster.processes import Process
from tests.cluster.progress import step
from tests.cluster.registries import WITH_REFERRERS, WITHOUT_REFERRERS, Registries
from tests.cluster.target import Target
from tests.cluster.toolchain import Tools, located, tools

DEFAULT_NAME = "trainseal"

_SYSTEM_PREFIX = "trainseal."
_CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager")
_NODE = ("kube-scheduler", "containerd", "kubelet", "kube-proxy", "kube-router", "coredns")
_REGISTRIES = (WITH_REFERRERS, WITHOUT_REFERRERS)


@dataclass(frozen=True)
class State:
    """What `up` decided, as kept in state.json."""

    name: str
    api_only: bool
    subnet: int | None
    api_port: int
    etcd_port: int
    etcd_peer_port: int
    gpus: int
    pins: str
    #: The checkout whose `up` made it: what `down --checkout` goes by.
    checkout: str = ""
    #: Whoever started it ends it. If that was killed, the next of its kind does.
    temporary: bool = False
    #: Its `up` came to its end. Where all components run, the last things may be missing still.
    started: bool = False

    @classmethod
    def load(cls, run: RunDir) -> State | None:
        """None if there is no cluster, or its record was cut off while being written."""
        try:
            return cls(**json.loads(run.state_file.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def save(self, run: RunDir) -> None:
        """`load` gives an equal value back, or what was there before if this is cut off."""
        run.root.mkdir(parents=True, exist_ok=True)
        new = run.state_file.with_suffix(".new")
        new.write_text(json.dumps(asdict(self), indent=2))
        new.replace(run.state_file)


class Cluster(Target):
    """A cluster of ours. Get one with `Cluster.up` or `Cluster.find`."""

    owned = True

    def __init__(self, run: RunDir, state: State, built: Tools) -> None:
        self.name = state.name
        self.state = state
        self.run_dir = run
        self.tools = built
        self.kubeconfig = run.kubeconfig
        self.plan = None if state.subnet is None else AddressPlan(state.subnet)
        # The API-server-only mode has no registry: nothing pulls.
        self.registry = self.registry_from_host = self.plan.registry if self.plan else ""
        self.registry_plain = self.plan.registry_plain if self.plan else ""

    # --- life -------------------------------------------------------------------------------

    @classmethod
    def up(
        cls,
        name: str = DEFAULT_NAME,
        *,
        api_only: bool = False,
        gpus: int = 8,
        temporary: bool = False,
    ) -> Cluster:
        """A healthy cluster of that name: the running one, or a new one.

        What a killed cluster left behind is removed first. Raises ClusterError with the reason
        if the machine lacks something or a component does not come up. A new one that is
        `temporary` says so in its state, from before anything of it runs: see `keep`.
        """
        run = RunDir.of(name)
        (readiness.require_for_api_server if api_only else readiness.require_for_cluster)()
        built = tools(pins.API_ONLY if api_only else pins.CLUSTER)
        with run.lock():
            state = State.load(run)
            if state is not None:
                existing = cls(run, state, built)
                if existing._usable(api_only=api_only):
                    return existing
            cls._remove(run, state)
            state = cls._decide(run, name, api_only=api_only, gpus=gpus, temporary=temporary)
            cluster = cls(run, state, built)
            cluster._start()
            cluster.state = replace(state, started=True)
            cluster.state.save(run)
            return cluster

    @classmethod
    def find(cls, name: str = DEFAULT_NAME) -> Cluster | None:
        """The cluster of that name, healthy or not; None if there is none."""
        run = RunDir.of(name)
        state = State.load(run)
        if state is None:
            return None
        return cls(run, state, located(pins.API_ONLY if state.api_only else pins.CLUSTER))

    def down(self) -> None:
        """End it and remove everything it made."""
        remove(self.name)

    def keep(self) -> None:
        """Not temporary from now on: it stays until somebody asks for its end."""
        with self.run_dir.lock():
            self.state = replace(self.state, temporary=False)
            self.state.save(self.run_dir)

    @classmethod
    def _remove(cls, run: RunDir, state: State | None) -> None:
        name = run.root.name
        traces = cleanup.node_traces(system_name(name))
        if not run.root.exists() and not traces:
            return
        with step(f"removing what there is of {name}", expected=5):
            cleanup.remove_processes(run)
            subnet = state.subnet if state else None
            if traces or subnet is not None:
                plan = None if subnet is None else AddressPlan(subnet)
                cleanup.remove_node(run, system_name(name), plan)
            cleanup.remove_folder(run)

    @staticmethod
    def _decide(run: RunDir, name: str, *, api_only: bool, gpus: int, temporary: bool) -> State:
        """Choose addresses and write them down before anybody else chooses."""
        whose = (str(CHECKOUT), temporary)
        if api_only:
            api, etcd, peer = free_ports(3)
            state = State(name, True, None, api, etcd, peer, 0, _pins(api_only=True), *whose)
            state.save(run)
            return state
        with locked(state_root() / ".addresses.lock"):
            others = (State.load(RunDir(f.parent)) for f in state_root().glob("*/state.json"))
            taken = {s.subnet for s in others if s and s.subnet is not None}
            plan = choose_plan(name, taken | subnets_in_use())
            built_of = _pins(api_only=False)
            state = State(name, False, plan.subnet, 6443, 2379, 2380, gpus, built_of, *whose)
            state.save(run)
        return state

    def _start(self) -> None:
        kind = "API server" if self.state.api_only else "cluster"
        with step(f"starting {kind} {self.name}", expected=8 if self.state.api_only else 30):
            if self.plan is None:
                self._control_plane().start()
                self._launcher().require_alive(_CONTROL_PLANE)
                return
            Network(system_name(self.name), self.plan).create()
            Cgroup(system_name(self.name)).create()
            node = self._node()
            node.start_containerd()
            self._control_plane().start()
            self._control_plane().start_scheduler()
            for name in _REGISTRIES:
                self._registries().start(name)
            node.start()
            # Some of them nothing has waited for: the scheduler, kube-proxy.
            self._launcher().require_alive((*_CONTROL_PLANE, *_NODE, *_REGISTRIES))

    def _usable(self, *, api_only: bool) -> bool:
        if not self.state.started or not self.healthy():
            return False
        if self.state.api_only != api_only:
            raise ClusterError(
                f"{self.name} runs {'without' if self.state.api_only else 'with'} a node",
                expected="another name for another kind of cluster",
                action=f"choose another --name, or run `down --name {self.name}` first",
            )
        if self.state.pins != _pins(api_only=api_only):
            return False  # it runs what other pins built
        if not self.state.api_only:
            for name in _REGISTRIES:
                self._registries().start(name)  # a test may have stopped one
            node = self._node()
            if not node.gpus_present():
                node.patch_gpus()
        return True

    # --- state ------------------------------------------------------------------------------

    def healthy(self) -> bool:
        """Whether all components run, the API server is ready, and so is the node."""
        launcher = self._launcher()
        expected = _CONTROL_PLANE if self.state.api_only else (*_CONTROL_PLANE, *_NODE)
        if not all(launcher.alive(name) for name in expected):
            return False
        if not self._control_plane().client().ready():
            return False
        return self.state.api_only or self._node().ready()

    def status(self) -> dict[str, Any]:
        """Everything a person or a script wants to know, in plain values."""
        launcher = self._launcher()
        components = {}
        for name, alive in launcher.components().items():
            process = Process.load(launcher.pidfile(name))
            components[name] = {
                "running": alive,
                "pid": process.pid if process else None,
                "log": str(launcher.log(name)),
            }
        return {
            "name": self.name,
            "mode": "api-only" if self.state.api_only else "cluster",
            "healthy": self.healthy(),
            "server": self._control_plane().server,
            "kubeconfig": str(self.kubeconfig),
            "registry": self.registry or None,
            "registryWithoutReferrers": self.registry_plain or None,
            "hostAddress": self.plan.host if self.plan else None,
            "gpus": self.state.gpus,
            "runDir": str(self.run_dir.root),
            "components": components,
        }

    # --- use --------------------------------------------------------------------------------

    def user_kubeconfig(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig for a user known by client certificate; RBAC decides what they may."""
        file = "".join(c if c.isalnum() else "-" for c in user)
        path = self.run_dir.sub("users") / f"{file}.kubeconfig"
        control_plane = self._control_plane()
        return control_plane.authority.kubeconfig(path, control_plane.server, user, groups)

    @property
    def registry_blobs(self) -> Path:
        """Blobs of the registry with referrers, as files `sha256/HEX`: it serves what they hold."""
        return self._registries().blobs

    def stop_registry(self, *, plain: bool = False) -> None:
        """Stop a registry: connections are refused until `start_registry`."""
        self._registries().stop(WITHOUT_REFERRERS if plain else WITH_REFERRERS)

    def start_registry(self, *, plain: bool = False) -> None:
        """Start it again with all it had; returns when it answers."""
        self._registries().start(WITHOUT_REFERRERS if plain else WITH_REFERRERS)

    def api_server(self) -> Process:
        """Its process, for tests that stop or kill it. ClusterError where there is none."""
        launcher = self._launcher()
        launcher.require_alive(["kube-apiserver"])
        found = Process.load(launcher.pidfile("kube-apiserver"))
        assert found is not None
        return found

    def start_api_server(self) -> None:
        """Start it again, with all it had, where it does not run; returns when it serves."""
        if not self._launcher().alive("kube-apiserver"):
            self._control_plane().start_api_server()

    def cut_node_off(self) -> None:
        """As by a power cut of the one node; `start_node` brings it back."""
        self._node().cut_off()

    def start_node(self) -> None:
        """Returns once the node is ready again, with what it had on disk."""
        self._node().power_on()

    def trust_registry(self, address: str) -> None:
        """Let the node pull by plain HTTP from another registry, one that a test runs."""
        self._node().trust_registry(address)

    def node_command(self, *argv: str) -> list[str]:
        """The command as it runs on the node: in the cluster's network namespace."""
        return [*Network(system_name(self.name), self._plan()).enter_command(), *argv]

    def runtime_socket(self) -> Path:
        """The container runtime's, for `ctr --address`."""
        return self._node().containerd_socket

    # --- parts ------------------------------------------------------------------------------

    def _plan(self) -> AddressPlan:
        if self.plan is None:
            raise ClusterError(
                f"{self.name} has neither node nor registry",
                expected="a cluster started without --api-only",
            )
        return self.plan

    def _launcher(self) -> Launcher:
        if self.plan is None:
            return Launcher(self.run_dir)
        system = system_name(self.name)
        prefix = [*Cgroup(system).enter_command(), *Network(system, self.plan).enter_command()]
        return Launcher(self.run_dir, prefix)

    def _control_plane(self) -> ControlPlane:
        state = self.state
        return ControlPlane(
            self._launcher(),
            self.tools,
            self.plan.node if self.plan else "127.0.0.1",
            state.api_port,
            state.etcd_port,
            state.etcd_peer_port,
            state.api_only,
        )

    def _registries(self) -> Registries:
        return Registries(self._launcher(), self.tools, self._plan())

    def _node(self) -> Node:
        return Node(
            f"{self.name}-node",
            self._launcher(),
            self.tools,
            self._plan(),
            self._control_plane(),
            Cgroup(system_name(self.name)).path,
            self.state.gpus,
        )


def remove(name: str) -> bool:
    """Remove the cluster of that name, in whatever state; False if there was nothing."""
    run = RunDir.of(name)
    with run.lock():
        if not run.root.exists() and not cleanup.node_traces(system_name(name)):
            return False
        Cluster._remove(run, State.load(run))
    return True


def names() -> list[str]:
    """Every cluster of this machine, also one whose folder is lost."""
    # Hidden ones are not clusters: what is being tried out, say.
    folders = {d.name for d in state_root().glob("[!.]*") if d.is_dir()}
    return sorted(folders | {n.removeprefix(_SYSTEM_PREFIX) for n in namespaces(_SYSTEM_PREFIX)})


def names_of_this_checkout() -> list[str]:
    """Every cluster that says in its state that this checkout made it."""
    states = (State.load(RunDir(f.parent)) for f in sorted(state_root().glob("*/state.json")))
    return [state.name for state in states if state and state.checkout == str(CHECKOUT)]


def _pins(*, api_only: bool) -> str:
    return pins.fingerprint(pins.API_ONLY if api_only else pins.CLUSTER)


def system_name(name: str) -> str:
    """The name of a cluster's network namespace and cgroup."""
    return f"{_SYSTEM_PREFIX}{name}"
