"""TrainingJobs as people write them, unsigned; a test changes one thing before or after signing."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

EXAMPLE = Path(__file__).parents[2] / "examples" / "char-lm"

Object = dict[str, Any]

#: The code of short jobs: waits until it is told to finish (SIGUSR1), or finishes at once.
SHORT_CODE = {
    "wait.py": (
        "import os, signal, time\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})\n"
        "signal.signal(signal.SIGTERM, lambda *_: exit(143))\n"
        "print('training', flush=True)\n"
        "told = signal.sigwaitinfo({signal.SIGUSR1})\n"
        # Who told it shall end well: with the first process the container kills all others.
        "while os.path.exists(f'/proc/{told.si_pid}'):\n"
        "    time.sleep(0.01)\n"
    ),
    "finish.py": (
        "import json, pathlib\n"
        "config = json.loads(pathlib.Path('/etc/training/config.json').read_text())\n"
        "print('learning rate', config['learning_rate'], flush=True)\n"
    ),
}


def short_job(name: str, namespace: str, image: str, code: str, script: str = "wait.py") -> Object:
    """One worker that asks for a GPU and runs a script of the short code."""
    return {
        "apiVersion": "trainseal.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "engine": "Job",
            "code": [
                {"name": "trainer", "mountPath": "/workspace", "oci": {"reference": code}},
            ],
            "config": {
                "mountPath": "/etc/training",
                "parameters": {"learning_rate": 0.003, "steps": 80},
            },
            "checkpoints": {"mountPath": "/checkpoints", "volume": {"emptyDir": {}}},
            "scratch": [{"mountPath": "/tmp"}],
            "roles": [
                {
                    "name": "worker",
                    "replicas": 1,
                    "template": {
                        "spec": {
                            "terminationGracePeriodSeconds": 5,
                            "containers": [
                                {
                                    "name": "trainer",
                                    "image": image,
                                    "command": ["python3", f"/workspace/{script}"],
                                    "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
                                    "resources": {"limits": {"nvidia.com/gpu": 1}},
                                }
                            ],
                        }
                    },
                }
            ],
        },
    }


def char_lm(namespace: str, image: str, code: str, claim: str | None = None) -> Object:
    """The example's job; with ``claim`` its checkpoints stay on that volume."""
    job: Object = yaml.safe_load((EXAMPLE / "job.yaml").read_text())
    job["metadata"]["namespace"] = namespace
    job["spec"]["code"][0]["oci"]["reference"] = code
    trainer(job)["image"] = image
    if claim is not None:
        volume = {"persistentVolumeClaim": {"claimName": claim}}
        job["spec"]["checkpoints"] |= {"volume": volume, "path": "runs/char-lm"}
    return job


def trainer(job: Object) -> Object:
    """The container that trains."""
    found: Object = job["spec"]["roles"][0]["template"]["spec"]["containers"][0]
    return found


#: Run in the trainer's container, lets wait.py end well.
FINISH = ("python3", "-c", "import os, signal; os.kill(1, signal.SIGUSR1)")


def renamed(job: Object, name: str) -> Object:
    """The same job under another name; what was signed of it does not hold for this one."""
    other = copy.deepcopy(job)
    other["metadata"]["name"] = name
    return other
