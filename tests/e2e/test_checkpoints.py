"""Checkpoints, for real: signed while the job trains, tainted by a finding, barring the next."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import CommandError
from tests.e2e.lab import TEAM, Lab, Object
from tests.e2e.reports import condition
from tests.e2e.test_watch import OPTIMIZER
from tests.stage.jobs import EXAMPLE
from tests.stage.signing import signed
from tests.stage.waiting import eventually

CLAIM, VOLUME = "kept", "e2e-kept"
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


@pytest.fixture(scope="module")
def code(lab: Lab) -> str:
    """The script, signed by alice."""
    return lab.push_tree("saving", {"save.py": SAVE}, lab.alice)


@pytest.fixture(scope="module")
def volume(lab: Lab) -> Iterator[Path]:
    """A claim with a directory of the node behind it; a responder of the namespace."""
    if not lab.target.owned:
        pytest.skip("needs a volume on the node, which a cluster of yours may not have")
    folder = lab.folder / "kept"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    claim: Object = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM, "namespace": TEAM},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "",
            "volumeName": VOLUME,
        },
    }
    persistent: Object = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": VOLUME},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "capacity": {"storage": "1Gi"},
            "hostPath": {"path": str(folder), "type": "Directory"},
            "claimRef": {"name": CLAIM, "namespace": TEAM},
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


def saving(lab: Lab, code: str, name: str, path: str) -> Object:
    """A job that keeps its checkpoints on the claim, signed by alice."""
    job = lab.job(name, "save.py")
    job["spec"]["code"][0]["oci"]["reference"] = code
    source = {"persistentVolumeClaim": {"claimName": CLAIM}}
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

    eventually(there, f"{path} has a signed manifest", 60)
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


def test_what_a_training_completes_is_signed_to_its_last_file_and_can_be_gone_on_from(
    lab: Lab, apply: Callable[[Object], Object], code: str, volume: Path
) -> None:
    job = apply(saving(lab, code, "saving", "clean"))
    pod = runs(lab, job)
    seal = lab.status(job)["sealedRun"]
    first = signed_as(lab, seal, "step-1.bin")
    assert first["writer"] in ("Trainer", "Unwatched")
    assert "tainted" not in first["status"]

    # It writes once more and ends at once: also that file is read.
    with contextlib.suppress(CommandError):  # the container ends with the session
        lab.kubectl("exec", pod, "--", *LAST)
    lab.wait_for_phase(job, "Succeeded")
    assert signed_as(lab, seal, "step-2.bin")["digest"]

    folder = volume / "clean"
    given = ("--job", "saving", "--keyring", keyring(lab))
    words = trainseal(lab, "checkpoints", "verify", str(folder), *given, user=RESPONDER)
    assert "all 2 files are as signed" in words
    (folder / "step-1.bin").write_bytes(b"poisoned")
    with pytest.raises(CommandError) as refused:
        trainseal(lab, "checkpoints", "verify", str(folder), *given, user=RESPONDER)
    assert "step-1.bin" in refused.value.stdout
    (folder / "step-1.bin").unlink()

    # The twin: a job that goes on from it runs.
    again = apply(saving(lab, code, "saving-on", "clean"))
    runs(lab, again)


def test_after_a_finding_checkpoints_are_tainted_and_bar_the_next_job_until_they_are_signed_off(
    lab: Lab, apply: Callable[[Object], Object], code: str, volume: Path
) -> None:
    del volume
    job = apply(saving(lab, code, "poisoned", "tainted"))
    pod = runs(lab, job)
    seal = lab.status(job)["sealedRun"]
    signed_as(lab, seal, "step-1.bin")
    lab.kubectl("exec", pod, "--", "sh", "-c", f"echo '# mallory' >> {OPTIMIZER}")
    eventually(
        lambda: bool(lab.get("sealedrun", seal)["status"].get("taint")), "the run is tainted", 20
    )
    lab.kubectl("exec", pod, "--", *ANOTHER)
    assert signed_as(lab, seal, "step-2.bin")["status"]["tainted"]["finding"] == "file.changed"
    lab.delete(job)
    lab.admin("wait", "--for=delete", f"pod/{pod}", "-n", TEAM, "--timeout=60s")

    # Resumed, under its own name and digest, and by a job that mounts what lies above.
    for name, path in (("poisoned", "tainted"), ("sweeping", "tainted/below")):
        refused = apply(saving(lab, code, name, path))
        status = lab.wait_for_phase(refused, "Refused")
        for words in ("step-2.bin", "file.changed", "accept poisoned", "mallory@example.org"):
            assert words in status["message"]
    elsewhere = apply(saving(lab, code, "elsewhere", "other"))
    lab.wait_for_phase(elsewhere, "Running")

    reason = ("--reason", "compared with a run of our own")
    with pytest.raises(CommandError) as denied:
        trainseal(lab, "checkpoints", "accept", "poisoned", *reason, user="mallory@example.org")
    assert "trainseal-responder" in denied.value.stderr
    trainseal(lab, "checkpoints", "accept", "poisoned", *reason, user=RESPONDER)
    listed = ("checkpoints", "poisoned", "--seal", seal, "-o", "json")
    said: Any = json.loads(trainseal(lab, *listed, user=RESPONDER))
    tainted = [c["status"] for c in said["checkpoints"] if "tainted" in c["status"]]
    assert tainted
    assert all(status["accepted"]["user"] == RESPONDER for status in tainted)
    lab.wait_for_phase(saving(lab, code, "poisoned", "tainted"), "Running", 120)
