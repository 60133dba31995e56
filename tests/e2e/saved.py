"""Jobs that keep checkpoints on a volume: what they run, what is signed of it, who looks at it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import TEAM, Lab, Object
from tests.e2e.reports import condition
from tests.stage.jobs import EXAMPLE
from tests.stage.signing import signed
from tests.stage.waiting import eventually

CLAIM = "kept"
RESPONDER = "oncall@example.org"
#: Writes a checkpoint as trainers do, when it starts and each time it is told to (SIGUSR1); one
#: more, and at once the end, when it is told to finish (SIGUSR2).
SAVE = """\
import os, pathlib, signal, sys

told = {signal.SIGUSR1, signal.SIGUSR2}
signal.pthread_sigmask(signal.SIG_BLOCK, told)
signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
folder = pathlib.Path("/checkpoints")


def save():
    step = 1 + max([int(p.stem.partition("-")[2]) for p in folder.glob("step-*.bin")], default=0)
    part = folder / f"step-{step}.bin.part"
    part.write_bytes(os.urandom(1 << 20))
    part.rename(folder / f"step-{step}.bin")
    print("saved step", step, flush=True)


save()
while True:
    info = signal.sigwaitinfo(told)
    save()
    if info.si_signo == signal.SIGUSR2:
        break
"""
ANOTHER = ("python3", "-c", "import os, signal; os.kill(1, signal.SIGUSR1)")
LAST = ("python3", "-c", "import os, signal; os.kill(1, signal.SIGUSR2)")


@contextlib.contextmanager
def kept(lab: Lab, name: str = CLAIM) -> Iterator[Path]:
    """A claim with a directory of the node behind it; a responder of the namespace.

    Each file has a ``name`` of its own: a claim goes late, once no pod mounts it any more.
    """
    if not lab.target.owned:
        pytest.skip("needs a volume on the node, which a cluster of yours may not have")
    folder = lab.folder / name
    volume = f"e2e-{name}"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    claim: Object = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": TEAM},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "",
            "volumeName": volume,
        },
    }
    persistent: Object = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "capacity": {"storage": "1Gi"},
            "hostPath": {"path": str(folder), "type": "Directory"},
            "claimRef": {"name": name, "namespace": TEAM},
            "storageClassName": "",
        },
    }
    oncall: Object = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "oncall", "namespace": TEAM},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "trainseal-responder",
        },
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": RESPONDER}],
    }
    for obj in (persistent, claim, oncall):
        lab.admin("apply", "-f", "-", stdin=obj)
    yield folder
    for obj in (claim, persistent, oncall):
        lab.delete(obj)


def saving(lab: Lab, code: str, name: str, path: str, claim: str = CLAIM) -> Object:
    """A job that keeps its checkpoints on the claim, signed by alice."""
    job = lab.job(name, "save.py")
    job["spec"]["code"][0]["oci"]["reference"] = code
    source = {"persistentVolumeClaim": {"claimName": claim}}
    job["spec"]["checkpoints"] = {"mountPath": "/checkpoints", "volume": source, "path": path}
    return signed(job, lab.alice)


def runs(lab: Lab, job: Object) -> str:
    """Waits until it trains and is watched; its pod's name."""
    lab.wait_for_phase(job, "Running")
    pods = [p for p in lab.pods(job) if "deletionTimestamp" not in p["metadata"]]
    eventually(lambda: condition(lab, pods[0], "Watching") == "True", "the pod is watched")
    return str(pods[0]["metadata"]["name"])


def manifests(lab: Lab, seal: str) -> dict[str, Object]:
    """A run's files, each with its digest and the status of its manifest."""
    items = lab.listed("checkpoints")
    return {
        file["path"]: {**file, "status": item.get("status", {})}
        for item in sorted(items, key=lambda i: i["spec"]["completed"])
        if item["spec"]["sealedRun"] == seal
        for file in item["spec"]["files"]
    }


def signed_as(lab: Lab, seal: str, path: str) -> Object:
    """Waits until the file has a signed manifest; it."""
    found: Object = {}

    def there() -> bool:
        nonlocal found
        found = manifests(lab, seal).get(path, {})
        return bool(found.get("status", {}).get("signature"))

    eventually(there, f"{path} has a signed manifest")
    return found


def trainseal(lab: Lab, *args: str, user: str) -> str:
    """The command line of this checkout."""
    program = "import sys; from trainseal.cli.main import main; sys.exit(main())"
    return lab.target.run(
        [sys.executable, "-c", program, *args, "-n", TEAM],
        kubeconfig=lab.target.user_kubeconfig(user),
        extra={"PYTHONPATH": str(EXAMPLE.parents[1] / "operator"), "COLUMNS": "200"},
    )


def keyring(lab: Lab) -> str:
    """The operator's public keys in a file, as the platform team gives them away."""
    file = lab.folder / "keyring.yaml"
    file.write_text(
        lab.admin("get", "configmap", "trainseal-keyring", "-n", "trainseal-system", "-o", "yaml")
    )
    return str(file)
