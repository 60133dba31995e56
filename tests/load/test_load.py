"""Under load nothing is let in that is not sealed, and nothing sealed is refused, whatever ends.

Two webhook replicas on one address, the chart's own rules, an API server and etcd of our own. Who
asks tries again what nobody judged, and it is counted: a connection that broke, a webhook that
could not be asked. What was judged must be right the first time.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from bench.pods import CREATOR, PATH
from bench.rig import until
from bench.sealed import NAMESPACE, Object, bare_pod, encode
from bench.signedjobs import COLLECTION, Artifacts, until_asked
from tests.cluster import Cluster
from tests.cluster.places import own_name
from tests.cluster.processes import kill_all
from tests.load.asking import Ask, Counts, ask_all
from tests.load.ground import JOBS, PODS, REPLICAS, Ground, asked, compact, ground
from trainseal.api.model import API_VERSION
from trainseal.cluster.api import MERGE_PATCH, path_of

_CONFIGURATION = path_of(
    "admissionregistration.k8s.io/v1", "validatingwebhookconfigurations", None, "bench"
)
#: How many requests are under way while something is ended.
_UNDER_WAY = 100


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """The loop of all tests: what it serves, it serves while one of them runs."""
    with asyncio.Runner() as found:
        yield found


@pytest.fixture(scope="module")
def opened(runner: asyncio.Runner, request: pytest.FixtureRequest) -> Iterator[Ground]:
    """The ground that the tests share; one that was named by `--cluster` stays up."""
    named = request.config.getoption("--cluster")
    name = named or own_name("load", Path(__file__).resolve())
    cluster = Cluster.up(name, api_only=True, temporary=not named)
    context = ground(cluster)
    try:
        found = runner.run(context.__aenter__())
        try:
            yield found
        finally:
            runner.run(context.__aexit__(None, None, None))
    finally:
        if not named:
            cluster.down()


def _report(capsys: pytest.CaptureFixture[str], what: str, counts: Counts) -> None:
    with capsys.disabled():
        print(f"\n{what}: {counts.words()}", flush=True)


@pytest.mark.parametrize("concurrency", [20, 100, 500])
def test_so_many_at_once_are_judged_rightly(
    runner: asyncio.Runner, opened: Ground, concurrency: int, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = Counts()
    asks = itertools.islice(opened.pods(), 2000)
    runner.run(ask_all(opened.rig.client, asks, concurrency, counts))
    _report(capsys, f"{concurrency} at once", counts)
    assert not counts.wrong()
    assert (counts.admitted, counts.refused) == (1000, 1000)


async def _meanwhile(opened: Ground, counts: Counts, act: Callable[[], Awaitable[None]]) -> None:
    """Asks about pods for as long as the act takes."""
    over = False
    async with asyncio.TaskGroup() as group:
        load = ask_all(opened.rig.client, opened.pods(), _UNDER_WAY, counts, lambda: over)
        group.create_task(load)
        try:
            await act()
        finally:
            over = True


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_replicas_end_one_by_one_and_all_is_judged_rightly(
    runner: asyncio.Runner,
    opened: Ground,
    how: signal.Signals,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def each_in_turn() -> None:
        for _ in range(2):
            for number in range(REPLICAS):
                await opened.end(number, how)

    counts = Counts()
    runner.run(_meanwhile(opened, counts, each_in_turn))
    _report(capsys, f"each replica ended twice by {how.name}", counts)
    assert not counts.wrong()


def test_the_api_server_is_restarted_and_etcd_compacted_and_all_is_judged_rightly(
    runner: asyncio.Runner, opened: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = opened.rig.cluster

    def restart() -> None:
        assert not kill_all([cluster.api_server()])
        compact(cluster)
        cluster.start_api_server()

    async def twice() -> None:
        for _ in range(2):
            await asyncio.to_thread(compact, cluster)
            await asyncio.to_thread(restart)

    counts = Counts()
    runner.run(_meanwhile(opened, counts, twice))
    _report(capsys, "API server killed twice, etcd compacted", counts)
    assert not counts.wrong()


def test_a_slow_registry_lets_no_job_in_unjudged_and_holds_no_pod_up(
    runner: asyncio.Runner, opened: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs, pods = Counts(), Counts()

    async def through_it() -> None:
        asks = await _jobs(opened, 20)
        await asked(opened, PODS, *JOBS)
        await until_asked(opened.rig, opened.shop, await _slow(opened, "probe"))
        await _meanwhile(opened, pods, lambda: ask_all(opened.rig.client, asks, 20, jobs))

    runner.run(through_it())
    _report(capsys, "TrainingJobs from a slow registry", jobs)
    _report(capsys, "pods meanwhile", pods)
    assert not jobs.wrong()
    assert not pods.wrong()
    assert (jobs.admitted, jobs.refused) == (20, 40)


async def _jobs(opened: Ground, count: int) -> list[Ask]:
    """With artifacts that nobody has seen: signed, unsigned, and changed after it was signed."""
    found = []
    for number in range(count):
        name = f"slow-{number}"
        artifacts = await _slow(opened, name)
        good = opened.shop.job(name, artifacts)
        changed = copy.deepcopy(good)
        changed["spec"]["config"]["parameters"]["steps"] = 81
        unsigned = opened.shop.unsigned(name, artifacts)
        for obj, is_good in ((good, True), (unsigned, False), (changed, False)):
            found.append(Ask(f"{COLLECTION}?dryRun=All", encode(obj), is_good, {}))
    return found


async def _slow(opened: Ground, name: str) -> Artifacts:
    made = await opened.shop.artifacts(name)
    fast = opened.shop.registry.address
    image, code = (one.replace(fast, opened.slow_registry, 1) for one in (made.image, made.code))
    return Artifacts(image, code)


def test_what_is_let_in_is_seen_where_the_webhooks_fail_open(
    runner: asyncio.Runner, opened: Ground
) -> None:
    counts = Counts()

    async def open_the_gate() -> None:
        kube = opened.rig.kube
        live: Object = await kube.get(_CONFIGURATION)
        weak = [webhook | {"failurePolicy": "Ignore"} for webhook in live["webhooks"]]
        await kube.patch(_CONFIGURATION, {"webhooks": weak}, MERGE_PATCH)
        for served in opened.replicas:
            served.process.send(signal.SIGKILL)
        bare = Ask(PATH, encode(bare_pod()), False, CREATOR)

        async def lets_in() -> bool:
            await ask_all(opened.rig.client, [bare], 1, counts)
            return bool(counts.wrongly_admitted)

        await until(lets_in, "a pod that nobody sealed is let in")
        for number in range(REPLICAS):
            opened.start(number)
        await opened.until_ready()
        await asked(opened, PODS)

    runner.run(open_the_gate())
    assert "let in" in counts.wrong()[0]


def test_a_seal_that_went_while_no_watch_was_open_lets_nothing_in_any_more(
    runner: asyncio.Runner, opened: Ground
) -> None:
    """All watches are cut, and etcd has forgotten from where they would go on: they list anew."""
    good = next(ask for ask in opened.pods() if ask.good)
    cluster, kube = opened.rig.cluster, opened.rig.kube
    seals = path_of(API_VERSION, "sealedruns", NAMESPACE)

    async def refused_by_all() -> bool:
        counts = Counts()
        await ask_all(opened.rig.client, [good] * 40, 4, counts)
        return not counts.admitted

    async def cut_all_watches() -> None:
        assert not await refused_by_all()
        for served in opened.replicas:
            served.process.send(signal.SIGSTOP)
        listed: Object = await kube.get(seals)
        (seal,) = listed["items"]
        await kube.delete(f"{seals}/{seal['metadata']['name']}")
        assert not (await kube.get(seals))["items"]
        await asyncio.to_thread(compact, cluster)
        assert not await asyncio.to_thread(kill_all, [cluster.api_server()])
        await asyncio.to_thread(cluster.start_api_server)
        for served in opened.replicas:
            served.process.send(signal.SIGCONT)
        await until(refused_by_all, "pods of the deleted seal are refused")

    runner.run(cut_all_watches())
