"""Every act becomes exactly one finding, whoever is killed, stopped and restarted meanwhile.

The agent, the controller and the API server are disturbed by dice while files are edited, programs
run and objects deleted. `--seed NUMBER` does again what a run did that printed it. It comes last
of these tests: what was killed often is started by the kubelet later and later.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Callable, Iterator

import pytest

from tests.attacks.at_random import AtRandom, Expected
from tests.attacks.cases_watch import archived, replace_agents
from tests.attacks.ledger import Ledger, Random
from tests.attacks.scene import Scene, open_ranks, open_scene
from tests.attacks.schedule import Act, make
from tests.attacks.sightings import Sightings
from tests.attacks.training import CODE
from tests.cluster import Cluster, CommandError
from tests.e2e.lab import TEAM, Lab, Object
from tests.stage.release import NAMESPACE
from tests.stage.waiting import eventually

#: Seconds after the last act in which all must be found: a kubelet waits minutes before it starts
#: again what was killed several times.
_IN_THE_END = 420.0


@pytest.fixture(scope="module")
def sightings(lab: Lab) -> Iterator[Sightings]:
    found = Sightings(lab.target)
    yield found
    found.close()


@pytest.fixture(scope="module")
def chased(lab: Lab, cluster_of_ours: Cluster, sightings: Sightings) -> Iterator[Scene]:
    """A training that is attacked."""
    code = lab.push_tree("attacked-code", CODE, lab.alice)
    scene = open_scene(lab, sightings, code, "chased", TEAM, probed=False)
    yield from _running(lab, scene)


@pytest.fixture(scope="module")
def left_alone(lab: Lab, sightings: Sightings) -> Iterator[Scene]:
    """A run that nobody attacks, on the same node."""
    yield from _running(lab, open_ranks(lab, sightings, "left-alone", TEAM, ranks=1))


def _running(lab: Lab, scene: Scene) -> Iterator[Scene]:
    try:
        scene.renew()
        yield scene
    finally:
        lab.delete(scene.job)


@pytest.fixture(scope="module")
def cluster_of_ours(lab: Lab) -> Cluster:
    if not isinstance(lab.target, Cluster):
        pytest.skip("TRAINSEAL_KUBECONFIG names a cluster that is not ours to break")
    return lab.target


@pytest.fixture(scope="module")
def seed(request: pytest.FixtureRequest) -> int:
    given: int | None = request.config.getoption("--seed")
    return secrets.randbelow(2**32) if given is None else given


def test_every_act_is_one_finding_whatever_is_disturbed(
    cluster_of_ours: Cluster,
    chased: Scene,
    left_alone: Scene,
    ledger: Ledger,
    seed: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    schedule = make(seed)
    doing = AtRandom(cluster_of_ours, chased, schedule)
    ledger.random = outcome = Random(schedule)
    try:
        doing.run()
    finally:
        with capsys.disabled():
            print(f"\n--seed {seed}", *doing.done.lines(doing.began), sep="\n")
    assert not (left := doing.without_a_trace()), f"not carried out: {left}"
    wanted = {act: doing.expected(act) for act in schedule.acts}

    def all_found() -> bool:
        found = [s.finding for s in chased.findings()]
        return all(any(_is(f, one) for f in found) for one in wanted.values())

    chased.sightings.wait(all_found, _IN_THE_END)
    outcome.after = _latencies(chased, wanted, doing.done.acts)
    _all_is_back(chased)
    # Who starts anew looks at everything anew, and must say nothing twice.
    replace_agents(chased)
    chased.swept()
    reports = _reports(chased)
    serious = [f for r in reports for f in _findings(r) if f["severity"] != "Info"]
    times = {str(act): sum(_about(f, one) for f in serious) for act, one in wanted.items()}
    outcome.lost = [words for words, count in times.items() if count == 0]
    outcome.doubled = [words for words, count in times.items() if count > 1]
    outcome.otherwise = [
        f"{f['id']} {f.get('path') or f['message']}"
        for f in serious
        if not any(_is(f, one) for one in wanted.values()) and not _expected_besides(f)
    ]
    outcome.alarms = [
        f"{f['id']}: {f['message']}"
        for r in _reports(left_alone)
        for f in _findings(r)
        if f["severity"] != "Info" and f["id"] != "watch.silent"
    ]
    kept = [f for report in reports for f in _findings(_archived(chased, report))]
    outcome.archived = sum(any(_is(f, one) for f in kept) for one in wanted.values())
    outcome.came_to_its_end = True
    told = "\n".join([f"--seed {seed}", *doing.done.lines(doing.began)])
    assert not outcome.failures(), f"{outcome.failures()}\n{told}\n{json.dumps(serious, indent=1)}"


def _about(finding: Object, wanted: Expected) -> bool:
    """Whether the finding is about what was done, whatever it calls it."""
    if wanted.path:
        return bool(finding.get("path") == wanted.path)
    return bool(finding.get("evidence", {}).get("object") == wanted.object)


def _is(finding: Object, wanted: Expected) -> bool:
    return bool(finding["id"] == wanted.id) and _about(finding, wanted)


def _expected_besides(finding: Object) -> bool:
    """An agent that was stopped is silent; a sweep is waited for by a variable of its own."""
    return finding["id"] == "watch.silent" or "/tmp/sweep-" in json.dumps(finding)


def _latencies(
    scene: Scene, wanted: dict[Act, Expected], began: dict[Act, float]
) -> dict[Act, float]:
    """Seconds from each act that was found to its finding, as a watcher of the API saw it."""
    first: dict[Act, float] = {}
    for act, one in wanted.items():
        seen = [s.at for s in scene.findings() if _is(s.finding, one)]
        if seen:
            first[act] = max(0.0, min(seen) - began[act])
    return first


def _all_is_back(scene: Scene) -> None:
    def ready(namespace: str) -> Callable[[], bool]:
        def all_ready() -> bool:
            items = json.loads(scene.lab.admin("get", "pods", "-n", namespace, "-o", "json"))
            statuses = [s for p in items["items"] for s in p["status"].get("containerStatuses", ())]
            return bool(statuses) and all(s["ready"] for s in statuses)

        return all_ready

    for namespace in (NAMESPACE, "trainseal-agent"):
        eventually(ready(namespace), f"all pods of {namespace} are ready again", 420)


def _reports(scene: Scene) -> list[Object]:
    """All reports on a run, as the API server has them."""
    found = scene.lab.admin("get", "driftreports", "-n", scene.namespace, "-o", "json")
    return [r for r in json.loads(found)["items"] if r["spec"]["sealedRun"] == scene.seal]


def _findings(report: Object) -> list[Object]:
    found: list[Object] = report.get("status", {}).get("findings", [])
    return found


def _archived(scene: Scene, report: Object) -> Object:
    """The report's last version in the archive, once that has all its findings."""
    keys, kept = {f["key"] for f in _findings(report)}, report

    def has_all() -> bool:
        nonlocal kept
        with contextlib.suppress(CommandError):  # a line is being written just now
            kept = archived(scene, report["metadata"]["name"], "DriftReport")
            return keys <= {f["key"] for f in _findings(kept)}
        return False

    eventually(has_all, f"the archive has all of {report['metadata']['name']}", 120)
    return kept
