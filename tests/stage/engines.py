"""Engines of others on a cluster: each as its own chart installs it, of an image built here.

Programs, charts and kinds are of one pinned Go module each. A controller runs in a pod, with the
account, the rights, the webhooks and the certificates that its chart gives it; only what it asks of
the node is less, since all of them share one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import Target
from tests.cluster.pause import binary_archive
from tests.cluster.pins import PROGRAMS
from tests.cluster.toolchain import module_files, tools

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


def install_engine(target: Target, engine: Engine) -> None:
    """Returns once the controller is ready, its webhooks included."""
    registry, _, repository = _push(target, engine).partition("/")
    values = [
        f"{engine.image}.repository={registry}/{repository}",
        f"{engine.image}.tag={_tag(engine)}",
        f"{engine.image}.pullPolicy=IfNotPresent",
        f"{engine.resources}.requests.cpu=20m",
        f"{engine.resources}.requests.memory=64Mi",
        *engine.values,
    ]
    chart = module_files(engine.name, engine.module) / engine.chart
    target.helm(
        *("upgrade", "--install", engine.name, str(chart)),
        *("--namespace", engine.namespace, "--create-namespace"),
        *(word for value in values for word in ("--set", value)),
        *("--wait", "--timeout", "4m"),
    )


def _tag(engine: Engine) -> str:
    """Another with every other pin: the node keeps an image by its tag."""
    return PROGRAMS[engine.name].key()[:16]


def _push(target: Target, engine: Engine) -> str:
    """The repository, as the cluster's pods name it, with the controller's image under a tag."""
    program = tools([engine.name])[engine.name]
    tagged = f"engines/{engine.name}:{_tag(engine)}"
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "image.tar")
        binary_archive(archive, tagged, program, ["/manager"], place="/manager", user=_USER)
        return target.push_image(archive, tagged).partition("@")[0]
