"""One cluster, one installation, and trainings that the cases share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks import cases_ranks, cases_reads
from tests.attacks.cases_ranks import make_ranks_namespace, open_rank_scenes
from tests.attacks.ledger import Ledger
from tests.attacks.scene import Scene, open_scene
from tests.attacks.sightings import Sightings
from tests.attacks.training import CODE
from tests.cluster.places import own_name
from tests.e2e.lab import TEAM, Lab, make_namespace
from tests.e2e.world import (
    alerts,
    apply,
    cluster,
    lab,
    private,
    pytest_runtest_makereport,
    reader,
    target,
)
from tests.stage.policies import policy

__all__ = [
    "alerts",
    "apply",
    "cluster",
    "lab",
    "private",
    "pytest_runtest_makereport",
    "reader",
    "target",
]

#: Trainings by what is done to them. Nobody attacks the quiet ones.
TRAININGS = ("attacked", "killed", "flooded", "probed", "quiet", "quiet-killed")
_ERASED = "research-erased"


@pytest.fixture(scope="session")
def cluster_name() -> str:
    """How the cluster is called that is made for these tests."""
    return own_name("attacks", Path(__file__).parent.resolve())


@pytest.fixture(scope="session")
def scenes(lab: Lab) -> Iterator[dict[str, Scene]]:
    """All trainings, begun at once."""
    code = lab.push_tree("attacked-code", CODE, lab.alice)
    _erased_namespace(lab)
    make_ranks_namespace(lab)
    sightings = Sightings(lab.target)
    opened = {
        name: open_scene(lab, sightings, code, name, TEAM, probed="killed" not in name)
        for name in TRAININGS
    }
    opened |= open_rank_scenes(opened["quiet"])
    try:
        for scene in opened.values():
            scene.renew()
        yield opened
    finally:
        sightings.close()
        for scene in opened.values():
            lab.delete(scene.job)
        for name in (_ERASED, cases_ranks.NAMESPACE, cases_reads.NAMESPACE):
            for kind in ("namespace", "provenancepolicy"):
                lab.admin("delete", kind, name, "--ignore-not-found", "--wait=false")


def _erased_namespace(lab: Lab) -> None:
    """One more, to be deleted with all that is in it."""
    make_namespace(lab, _ERASED)
    registries = list(lab.registries)
    signers = [lab.alice]
    made = policy(
        _ERASED, _ERASED, signers=signers, image_signers=[lab.platform], registries=registries
    )
    lab.admin("apply", "-f", "-", stdin=made)


@pytest.fixture(scope="session")
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    """What came of each case; written as a page where `--detection` says so."""
    kept = Ledger()
    yield kept
    if page := request.config.getoption("--detection"):
        kept.write(Path(page))
