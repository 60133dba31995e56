"""Engines of others on a cluster: each as its own module installs it, of an image built here.

Programs, charts (or manifests) and kinds are of one pinned Go module each. A controller runs in a
pod, with the account, the rights, the webhooks and the certificates that these give it; only what
it asks of the node is less, since all of them share one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import CommandError, Target
from tests.cluster.pause import binary_archive
from tests.cluster.pins import PROGRAMS
from tests.cluster.toolchain import module_files, tools

Object = dict[str, Any]
#: Charts want one that is not root.
_USER = 65532


@dataclass(frozen=True, slots=True)
class Engine:
    """A controller: how its program is called here, and where its module has the chart.

    ``image`` and ``resources`` are the chart's values for them.
    """

    name: str
    module: str
    chart: str
    namespace: str
    image: str
    resources: str
    values: Sequence[str] = ()


JOBSET = Engine(
    name="jobset",
    module="sigs.k8s.io/jobset",
    chart="charts/jobset",
    namespace="jobset-system",
    image="image",
    resources="controller.resources",
)
KUEUE = Engine(
    name="kueue",
    module="sigs.k8s.io/kueue",
    chart="charts/kueue",
    namespace="kueue-system",
    image="controllerManager.manager.image",
    resources="controllerManager.manager.resources",
)

#: It makes JobSets, whose controller it does not bring.
TRAINER = Engine(
    name="trainer",
    module="github.com/kubeflow/trainer/v2",
    chart="charts/kubeflow-trainer",
    namespace="kubeflow-system",
    image="image",
    resources="manager.resources",
    values=("image.registry=docker.io", "jobset.install=false"),
)
#: It has manifests for kustomize, and no chart.
_OPERATOR, _OPERATOR_MODULE = "training-operator", "github.com/kubeflow/training-operator"


def install_engine(target: Target, engine: Engine) -> None:
    """Returns once the controller is ready, its webhooks included; one that is there is left alone.

    Its chart would else overwrite the certificates that it made for itself.
    """
    with contextlib.suppress(CommandError):
        target.helm("status", engine.name, "--namespace", engine.namespace)
        return
    repository, _, tag = push_program(target, engine.name).rpartition(":")
    values = [
        f"{engine.image}.repository={repository}",
        f"{engine.image}.tag={tag}",
        f"{engine.image}.pullPolicy=IfNotPresent",
        f"{engine.resources}.requests.cpu=20m",
        f"{engine.resources}.requests.memory=64Mi",
        *engine.values,
    ]
    with _chart(engine) as chart:
        target.helm(
            *("upgrade", "--install", engine.name, str(chart)),
            *("--namespace", engine.namespace, "--create-namespace"),
            *(word for value in values for word in ("--set", value)),
            *("--wait", "--timeout", "4m"),
        )


def install_training_operator(target: Target) -> None:
    """PyTorchJobs and their like; returns once the controller is ready, its webhooks included."""
    overlay = module_files(_OPERATOR, _OPERATOR_MODULE) / "manifests" / "overlays" / "standalone"
    images = {"kubeflow/training-operator": push_program(target, _OPERATOR)}
    apply_kustomized(target, [overlay], images=images)
    wait_for_deployment(target, "kubeflow", _OPERATOR)


def apply_kustomized(
    target: Target,
    folders: Sequence[Path],
    *,
    images: Mapping[str, str],
    namespace: str = "",
    patches: Mapping[str, Sequence[Object]] | None = None,
    objects: Sequence[Object] = (),
) -> None:
    """Applies what kustomize makes of the folders and these objects; ``patches`` by Deployment."""
    with tempfile.TemporaryDirectory() as folder:
        # kustomize takes no absolute path.
        bases = [os.path.relpath(base, Path(folder).resolve()) for base in folders]
        names = [f"object-{number}.yaml" for number, _ in enumerate(objects)]
        for name, obj in zip(names, objects, strict=True):
            Path(folder, name).write_text(yaml.safe_dump(obj))
        kustomization: Object = {
            "resources": [*bases, *names],
            "images": [_renamed(name, image) for name, image in images.items()],
            "patches": [
                {"target": {"kind": "Deployment", "name": name}, "patch": json.dumps(changes)}
                for name, changes in (patches or {}).items()
            ],
        }
        if namespace:
            kustomization["namespace"] = namespace
        Path(folder, "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        target.kubectl("apply", "--server-side", "-k", folder)


def _renamed(name: str, image: str) -> Object:
    repository, _, tag = image.rpartition(":")
    return {"name": name, "newName": repository, "newTag": tag}


def wait_for_deployment(target: Target, namespace: str, name: str) -> None:
    """Returns once its pods are ready."""
    words = ("rollout", "status", f"deployment/{name}", "-n", namespace, "--timeout=4m")
    target.kubectl(*words, timeout=300)


@contextlib.contextmanager
def _chart(engine: Engine) -> Iterator[Path]:
    """The chart without the charts that it would bring along, which its module does not have."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, engine.name)
        shutil.copytree(
            module_files(engine.name, engine.module) / engine.chart,
            found,
            copy_function=shutil.copyfile,
        )
        found.chmod(0o755)
        about = yaml.safe_load((found / "Chart.yaml").read_text())
        about.pop("dependencies", None)
        (found / "Chart.yaml").write_text(yaml.safe_dump(about))
        yield found


def push_program(target: Target, name: str, place: str = "/manager") -> str:
    """The image of a program as pods name it: under a tag, another with every other pin."""
    program = tools([name])[name]
    tagged = f"engines/{name}:{PROGRAMS[name].key()[:16]}"
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "image.tar")
        binary_archive(archive, tagged, program, [place], place=place, user=_USER)
        repository = target.push_image(archive, tagged).partition("@")[0]
    return f"{repository}:{tagged.rpartition(':')[2]}"
