"""How long the tutorial's commands take, from the first to a first sealed run.

On a whole cluster on which TrainSeal is installed, as `make demo` has one: what is run are the
page's own commands as they are printed. Nobody reads or types in between.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.figures import spread
from bench.section import Section, paragraphs, table
from tests.cluster import Cluster
from tests.e2e.lab import TEAM, open_lab
from tests.guides.ground import prepared
from tests.guides.tutorial import SEALED, tutorial
from tests.stage.reading import Reader, proxy


def measure(rounds: int) -> Section:
    """From the start each time: what a round made is removed before the next."""
    cluster = Cluster.up("bench")
    found = []
    try:
        with tempfile.TemporaryDirectory() as folder, proxy(cluster) as port:
            place = Path(folder)
            ground = prepared(open_lab(cluster, place, Reader(port)), place)
            for number in range(rounds):
                found.append(tutorial(ground).go(SEALED))
                cluster.kubectl("delete", "trainingjob", "--all", "-n", TEAM)
                print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        return section(found)
    finally:
        cluster.down()


def section(found: Sequence[float]) -> Section:
    """What is told of the rounds."""
    markdown = paragraphs(
        f"{len(found)} rounds; all images in the cluster's registry, the first round's not yet on "
        "the node.",
        table(
            ["", "seconds"],
            [["from the first command to `kubectl get tj` with a sealed run", spread(found, 1)]],
        ),
    )
    return Section(markdown, {"seconds": list(found)})
