"""Where the demo plays: the cluster, a namespace of its own, and how all of it is removed."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import Cluster, CommandError, Target, connect
from tests.cluster.cluster import remove
from tests.cluster.places import held_alone, state_root
from tests.cluster.volumes import CLASS
from tests.demo.actors import Actor, DemoError
from tests.demo.show import Show
from tests.stage.people import signing_environment
from tests.stage.release import NAMESPACE as RELEASE_NAMESPACE
from tests.stage.release import uninstall

#: The team's namespace, the policy's name, and where things lie in the registry.
TEAM = "trainseal-demo"
ROOT = Path(__file__).parents[2]

_OWNER = {"app.kubernetes.io/managed-by": "trainseal-demo"}
_NEEDED_GPUS = 2
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


@dataclass(frozen=True, slots=True)
class Before:
    """What was there before the demo, and so stays."""

    release: bool
    release_namespace: bool
    kinds: frozenset[str]


class World:
    """The cluster and what the demo puts into it. `open` first; `close` always."""

    def __init__(self, show: Show, name: str, *, keep: bool = False) -> None:
        self.show = show
        self.name = name
        self._keep = keep
        # Gone with this process, however it ends: two demos would take away each other's things.
        self._alone = ExitStack()
        if not self._alone.enter_context(held_alone(state_root() / f".{name}.demo.lock")):
            raise DemoError(
                f"a demo on the cluster {name} is under way",
                expected="one at a time",
                action="wait for its end, or give this one another --name",
            )
        self.folder = Path(tempfile.mkdtemp(prefix="trainseal-demo-"))
        self._variables: dict[str, str] = {}
        self._target: Target | None = None
        self._before: Before | None = None
        #: Why no claim can be made for checkpoints; empty where one can.
        self.no_claims = ""
        # Decided before anything is started, so that an interrupted start is cleared up too.
        self.foreign = bool(os.environ.get("TRAINSEAL_KUBECONFIG"))
        found = None if self.foreign else Cluster.find(name)
        #: Whether the demo ends the cluster: if it starts it, or a demo did that was killed.
        self.ours = not self.foreign and (found is None or found.state.temporary)

    # Life ---------------------------------------------------------------------------------------

    def open(self) -> None:
        """The cluster is up, and free of what an earlier demo left."""
        self._target = connect(self.name, temporary=self.ours and not self._keep)
        self._require_gpus()
        self.no_claims = self._why_no_claims()
        before = Before(
            release=self._succeeds(
                self.target.helm, "status", "trainseal", "-n", RELEASE_NAMESPACE
            ),
            release_namespace=self._exists("namespace", RELEASE_NAMESPACE),
            kinds=self._kinds(),
        )
        self._remove_leftovers()
        if not self.foreign:
            self._free_volumes()
        self._before = before

    @property
    def target(self) -> Target:
        """The cluster; DemoError before `open`."""
        if self._target is None:
            raise DemoError("there is no cluster yet")
        return self._target

    @property
    def installs(self) -> bool:
        """Whether TrainSeal is to be installed: what a user installed is used as it is."""
        assert self._before is not None
        return not self.foreign or not self._before.release

    def keep(self) -> None:
        """Leaves it all up, also when a later demo ends that finds it."""
        if isinstance(self._target, Cluster) and self._target.state.temporary:
            self._target.keep()

    def close(self) -> None:
        """Removes all that the demo made; what was there before stays."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.ours:
            remove(self.name)
        elif self._before is not None:
            self._remove_objects()
            if not self._before.release:
                self._remove_release(self._before)
        self._alone.close()

    # People -------------------------------------------------------------------------------------

    def administrator(self, folder: Path = ROOT) -> Actor:
        """Whoever administers the cluster."""
        environment = self._environment(self.target.kubeconfig)
        return Actor("admin", folder, environment, self._variables, self.show)

    def member(self, name: str) -> Actor:
        """Somebody with the namespace's edit role, and a folder."""
        folder = self.folder / name
        folder.mkdir()
        kubeconfig = folder / "kubeconfig"
        shutil.copy(self.target.user_kubeconfig(f"{name}@example.org"), kubeconfig)
        self.target.kubectl(
            "config", "set-context", "--current", f"--namespace={TEAM}", kubeconfig=kubeconfig
        )
        environment = self._environment(kubeconfig)
        return Actor(name, folder, environment, self._variables, self.show)

    def namespace(self, members: list[str]) -> list[dict[str, object]]:
        """The namespace, and the edit role in it for these people."""
        subjects = [
            {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"{m}@example.org"}
            for m in members
        ]
        return [
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": TEAM, "labels": dict(_OWNER)},
            },
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": "team", "namespace": TEAM},
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io",
                    "kind": "ClusterRole",
                    "name": "edit",
                },
                "subjects": subjects,
            },
        ]

    def on_host(self, reference: str) -> str:
        """A reference as this machine calls it."""
        return reference.replace(self.target.registry, self.target.registry_from_host, 1)

    def in_cluster(self, reference: str) -> str:
        """A reference as nodes and pods call it."""
        return reference.replace(self.target.registry_from_host, self.target.registry, 1)

    def variables(self) -> str:
        """What was exported, for a shell."""
        path = self._environment(self.target.kubeconfig)["PATH"]
        found = self._variables | signing_environment() | {"PATH": path}
        return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in found.items())

    def _environment(self, kubeconfig: Path) -> Mapping[str, str]:
        found = self.target.environment(kubeconfig) | signing_environment()
        scripts = _scripts()
        if not (scripts / "trainseal").exists():
            raise DemoError(
                f"there is no `trainseal` in {scripts}", action="`make venv`, then `make demo`"
            )
        # The width of help and status, where there is no terminal to ask.
        return found | {"PATH": f"{scripts}:{found['PATH']}", "COLUMNS": "100"}

    # What is there ------------------------------------------------------------------------------

    def _require_gpus(self) -> None:
        nodes = self._items("nodes")
        found = sum(int(n["status"]["allocatable"].get("nvidia.com/gpu", 0)) for n in nodes)
        if found < _NEEDED_GPUS:
            raise DemoError(
                f"the cluster's nodes offer {found} nvidia.com/gpu",
                expected=f"{_NEEDED_GPUS}, one for each worker (the demo does not compute on them)",
                action="let a test node say it has some: kubectl patch node NODE "
                "--subresource=status --type=merge -p "
                '\'{"status": {"capacity": {"nvidia.com/gpu": "8"}}}\'',
            )

    def _why_no_claims(self) -> str:
        """Both workers write to one volume: most classes' are on one node only."""
        if len(nodes := self._items("nodes")) > 1:
            return f"the cluster has {len(nodes)} nodes, and a volume may be on one of them only"
        for known in self._items("storageclasses"):
            if (known["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true":
                return ""
        return "the cluster has no default StorageClass"

    def _free_volumes(self) -> None:
        """Empties volumes that no claim holds any more: on clusters of ours nothing else does."""
        for volume in self._items("persistentvolumes"):
            spec = volume["spec"]
            if (spec.get("storageClassName"), volume["status"]["phase"]) != (CLASS, "Released"):
                continue
            for path in Path(spec["local"]["path"]).iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            free = json.dumps([{"op": "remove", "path": "/spec/claimRef"}])
            name = volume["metadata"]["name"]
            self.target.kubectl("patch", "persistentvolume", name, "--type=json", "-p", free)

    def _items(self, resource: str) -> list[Any]:
        found: list[Any] = json.loads(self.target.kubectl("get", resource, "-o", "json"))["items"]
        return found

    def _remove_leftovers(self) -> None:
        if not self._exists("namespace", TEAM):
            return
        live = json.loads(self.target.kubectl("get", "namespace", TEAM, "-o", "json"))
        if not (_OWNER.items() <= live["metadata"].get("labels", {}).items()):
            raise DemoError(
                f"there is a namespace {TEAM} that the demo has not made",
                expected="no such namespace",
                action=f"remove it, if nobody needs it: kubectl delete namespace {TEAM}",
            )
        self.show.note("What an earlier demo left is removed first.")
        self._remove_objects()

    def _remove_objects(self) -> None:
        kubectl = self.target.kubectl
        if "trainingjobs.trainseal.dev" in self._kinds() and self._exists("namespace", TEAM):
            # With the controller still there: runs end, seals say so.
            kubectl(
                "delete", "trainingjobs", "--all", "-n", TEAM, "--timeout=60s", "--ignore-not-found"
            )
        kubectl("delete", "namespace", TEAM, "--ignore-not-found", "--timeout=90s")
        if "provenancepolicies.trainseal.dev" in self._kinds():
            kubectl("delete", "provenancepolicy", TEAM, "--ignore-not-found")

    def _remove_release(self, before: Before) -> None:
        if self._succeeds(self.target.helm, "status", "trainseal", "-n", RELEASE_NAMESPACE):
            uninstall(self.target)
        if new := self._kinds() - before.kinds:
            self.target.kubectl("delete", "crd", *sorted(new), "--timeout=60s")
        if not before.release_namespace:
            self.target.kubectl(
                "delete", "namespace", RELEASE_NAMESPACE, "--ignore-not-found", "--timeout=90s"
            )

    def _kinds(self) -> frozenset[str]:
        names = self.target.kubectl("get", "crd", "-o", "name").split()
        kinds = (name.rpartition("/")[2] for name in names)
        return frozenset(kind for kind in kinds if kind.endswith(".trainseal.dev"))

    def _exists(self, resource: str, name: str) -> bool:
        return bool(
            self.target.kubectl("get", resource, name, "--ignore-not-found", "-o", "name").strip()
        )

    def _succeeds(self, command: Callable[..., str], *arguments: str) -> bool:
        try:
            command(*arguments)
        except CommandError:
            return False
        return True


def _scripts() -> Path:
    """Where this environment's commands lie."""
    return Path(sys.executable).parent
