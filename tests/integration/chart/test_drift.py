"""What the controller makes of DriftReports, on a real API server with the chart's own rights.

The controller's parts run here, as the identity that the chart gives it; registries are answered
from memory, nothing runs the pods, and tests write what a Job controller, a kubelet and an agent
would. The webhook is not there: what an editor cannot do here, RBAC and the API server refuse.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.cluster import CommandError
from tests.integration.chart.conftest import CONTROLLER, NAMESPACE, ApiServer, Helm, Object
from tests.sample_objects import drift_report
from tests.unit import world
from trainseal.api.model import API_VERSION
from trainseal.cluster.api import Kube, NotFoundError, connect, path_of
from trainseal.cluster.informer import Informer
from trainseal.cluster.settings import Settings
from trainseal.controller import heartbeats
from trainseal.controller.runs import Runs
from trainseal.controller.watching import Watching
from trainseal.controller.workqueue import WorkQueue
from trainseal.controller.world import World
from trainseal.provenance.canonical import job_digest
from trainseal.provenance.freezeorders import read_order
from trainseal.provenance.policies import CompiledPolicy
from trainseal.provenance.tickets import TICKET_ANNOTATION, Ticket, issue_ticket
from trainseal.provenance.verdicts import Outcome
from trainseal.verifier.jobs import JobVerifier

TEAM = "drifting"
EDITOR = "--as=dev@example.org"
RESPONDER = "--as=oncall@example.org"
NODE = "node-1"
SECONDS = 20.0


@pytest.fixture(scope="module")
def team(server: ApiServer, helm: Path) -> Iterator[ApiServer]:
    """The chart's rights and rules; an editor of the namespace, and one who may lift holds."""
    chart = Helm(server, helm)
    chart.install("--set", "floor.enabled=false")
    for kind in ("mutatingwebhookconfiguration", "validatingwebhookconfiguration"):
        server.kubectl("delete", kind, "-l", "app.kubernetes.io/part-of=trainseal")
    # Tests write what agents would; who may is tested where agents' bounds are.
    server.kubectl(
        "delete", "validatingadmissionpolicybinding", "trainseal-reports", "--ignore-not-found"
    )
    # Several modules use it, one after the other: its end would take minutes, for the finalizers
    # in it that no kubelet takes away.
    if TEAM not in server.kubectl("get", "namespaces", "-o", "name"):
        server.kubectl("create", "namespace", TEAM)
        server.kubectl("wait", "--for=create", "serviceaccount/default", "-n", TEAM)
        for name, role, user in (
            ("dev", "edit", "dev@example.org"),
            ("oncall", "trainseal-responder", "oncall@example.org"),
        ):
            server.kubectl(
                "create", "rolebinding", name, "-n", TEAM, f"--clusterrole={role}", f"--user={user}"
            )
    _until_anybody_may_report(server)
    yield server
    kinds = "trainingjobs,sealedruns,driftreports,accessrecords,holdreleases"
    server.kubectl("delete", kinds, "--all", "-n", TEAM, "--wait=false")
    chart.uninstall()


def _until_anybody_may_report(server: ApiServer) -> None:
    """API servers learn by watch that a policy is bound no more."""
    report = drift_report("anybodys")
    report["metadata"]["namespace"] = TEAM
    server.until_accepted(report)


@dataclass
class Clock:
    """Ours: it goes only when told."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    def __call__(self) -> datetime:
        return self.now


def settings(**more: Object) -> Settings:
    """What the chart's ConfigMap says."""
    return Settings.model_validate({"gateImage": world.GATE_IMAGE, **more})


@dataclass
class Stage:
    """One run, bound, with a pod of it on NODE. ``kube`` is an administrator's."""

    server: ApiServer
    kube: Kube
    controller: Kube
    policies: list[CompiledPolicy]
    clock: Clock
    name: str
    evidence: world.Evidence = field(default_factory=world.Evidence)
    settings: Settings = field(default_factory=settings)

    @property
    def job_path(self) -> str:
        return path_of(API_VERSION, "trainingjobs", TEAM, self.name)

    async def job(self) -> Object:
        return await self.kube.get(self.job_path)

    async def status(self) -> Object:
        found: Object = (await self.job()).get("status") or {}
        return found

    async def seal(self) -> Object:
        name = (await self.status())["sealedRun"]
        return await self.kube.get(path_of(API_VERSION, "sealedruns", TEAM, name))

    async def engine(self) -> Object:
        return await self.kube.get(path_of("batch/v1", "jobs", TEAM, f"{self.name}-worker"))

    async def suspended(self) -> bool:
        found: Any = await self.engine()
        return bool(found["spec"]["suspend"])

    def world(self, kube: Kube | None = None) -> World:
        """What the controller works with; over another connection if one is given."""
        return World(
            kube=kube or self.controller,
            settings=self.settings,
            cluster=world.CLUSTER,
            seal_key=world.SEAL_KEY,
            ticket_keyring=lambda: world.keyring(world.TICKET_KEY),
            seal_keyring=lambda: world.keyring(world.SEAL_KEY),
            policies=lambda _: tuple(self.policies),
            broken_policies=lambda: (),
            verifier=JobVerifier(self.evidence, self.clock),  # type: ignore[arg-type]
            clock=self.clock,
        )

    @contextlib.asynccontextmanager
    async def controlled(self) -> AsyncIterator[None]:
        """The controller, until the end of the block."""
        parts = self.world()
        watching, queue = Watching(parts, NAMESPACE), WorkQueue(Runs(parts).reconcile)

        def changed(_: str, key: tuple[str, str], obj: Any) -> None:
            name = key[1] if obj["kind"] == "TrainingJob" else None
            if obj["kind"] == "SealedRun":
                name = obj["spec"]["job"]["name"]
            elif obj["kind"] == "Job":
                name = obj["metadata"]["labels"].get("trainseal.dev/job")
            if name:
                queue.add((key[0], name))

        def informer(api: str, plural: str, kind: str) -> Informer:
            # Lists leave out the kind of their items.
            return Informer(
                self.controller,
                path_of(api, plural),
                listener=changed,
                shape=lambda obj: {**obj, "kind": kind},
            )

        informers = [
            informer(API_VERSION, "trainingjobs", "TrainingJob"),
            informer(API_VERSION, "sealedruns", "SealedRun"),
            informer("batch/v1", "jobs", "Job"),
        ]
        tasks = [
            asyncio.ensure_future(part)
            for part in (queue.run(), watching.run(), *(i.run() for i in informers))
        ]
        try:
            yield
            for task in tasks:
                assert not task.done() or task.exception() is None, task.exception()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def submit(self, change: Callable[[Object], object] | None = None) -> None:
        """The job, as the webhook would let it in; ``change`` is made before it is signed."""
        job = world.job_object()
        job["metadata"] = {"name": self.name, "namespace": TEAM}
        if change is not None:
            change(job)
        world.sign_job(job, world.ALICE)
        ticket = Ticket("bob@example.org", "uid-bob", job_digest(job), self.clock())
        job["metadata"]["annotations"] = {TICKET_ANNOTATION: issue_ticket(world.TICKET_KEY, ticket)}
        await self.kube.create(path_of(API_VERSION, "trainingjobs", TEAM), job, strict=True)

    async def runs(self) -> None:
        """Waits until it is bound and resumed."""

        async def resumed() -> bool:
            with contextlib.suppress(NotFoundError, KeyError):
                return bool((await self.seal())["status"]["binding"]) and not await self.suspended()
            return False

        await until(resumed)

    async def pod(self, name: str, node: str = NODE) -> Object:
        """One of the run's pods, as the Job controller and the scheduler make it."""
        engine, seal = await self.engine(), await self.seal()
        owner: Any = engine["metadata"]
        return await self.kube.create(
            path_of("v1", "pods", TEAM),
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": TEAM,
                    "labels": {"trainseal.dev/seal": seal["metadata"]["name"]},
                    "ownerReferences": [
                        {
                            "apiVersion": "batch/v1",
                            "kind": "Job",
                            "name": owner["name"],
                            "uid": owner["uid"],
                            "controller": True,
                        }
                    ],
                },
                "spec": {"nodeName": node, "containers": [{"name": "trainer", "image": "x"}]},
            },
        )

    async def report(self, pod: Object, node: str = NODE, **found: Any) -> str:
        """A report as an agent writes it; ``found`` replaces fields of its one finding."""
        name = f"{pod['metadata']['name']}-{pod['metadata']['uid'][:8]}"
        collection = path_of(API_VERSION, "driftreports", TEAM)
        await self.kube.create(
            collection,
            {
                "apiVersion": API_VERSION,
                "kind": "DriftReport",
                "metadata": {"name": name, "namespace": TEAM},
                "spec": {
                    "reporter": "Agent",
                    "node": node,
                    "sealedRun": (await self.seal())["metadata"]["name"],
                    "pod": {"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]},
                },
            },
            strict=True,
        )
        time = self.clock().isoformat().replace("+00:00", "Z")
        finding: Object = {
            "id": "file.changed",
            "key": "0123456789abcdef",
            "severity": "Critical",
            "firstTime": time,
            "notBefore": time,
            "lastTime": time,
            "count": 1,
            "container": "trainer",
            "path": "/usr/lib/python3/torch/optim/adam.py",
            "message": "written while the job runs",
            "user": "mallory@example.org",
        } | found
        await self.kube.patch(f"{collection}/{name}/status", {"status": {"findings": [finding]}})
        return name

    def release(self, hold: str, user: str, by: str) -> None:
        """kubectl as ``by``; CommandError where it is refused."""
        self.server.create(
            {
                "apiVersion": API_VERSION,
                "kind": "HoldRelease",
                "metadata": {"generateName": f"{self.name}-", "namespace": TEAM},
                "spec": {
                    "sealedRun": json.loads(
                        self.server.kubectl("get", "tj", self.name, "-n", TEAM, "-o", "json")
                    )["status"]["sealedRun"],
                    "hold": hold,
                    "user": user,
                    "reason": "seen, harmless",
                },
            },
            by,
        )

    async def events(self, reason: str) -> list[Object]:
        listed: Any = await self.kube.get(path_of("v1", "events", TEAM))
        return [
            e
            for e in listed["items"]
            if e["reason"] == reason and e["involvedObject"]["name"] == self.name
        ]


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = SECONDS) -> None:
    """Waits for a condition."""
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 - what changes is the API server's
            await asyncio.sleep(0.05)


async def has(stage: Stage, read: Callable[[Object], Any]) -> Any:
    """Waits for what is read of the seal to be there; returns it."""
    found: Any = None

    async def there() -> bool:
        nonlocal found
        with contextlib.suppress(KeyError, IndexError):
            found = read(await stage.seal())
        return bool(found)

    await until(there)
    return found


@pytest.fixture
def stage(team: ApiServer, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Runs a test's coroutine on a stage; the policy answers critical findings by ``response``."""

    def go(play: Callable[[Stage], Awaitable[None]], response: str = "Alert", **drift: Any) -> None:
        rules = {"responses": {"critical": response}, **drift}

        async def work() -> None:
            admin = team.cluster.kubeconfig
            account = team.cluster.user_kubeconfig(CONTROLLER)
            async with connect(str(admin)) as kube, connect(str(account)) as controller:
                stage = Stage(
                    server=team,
                    kube=kube,
                    controller=controller,
                    policies=[world.policy(drift=rules)],
                    clock=Clock(),
                    name="j-" + format(abs(hash(request.node.name)) % 10**8, "08d"),
                )
                await stage.submit()
                await play(stage)

        asyncio.run(work())

    return go


Go = Callable[..., None]


def condition(obj: Object, type_: str) -> Object:
    (found,) = [c for c in obj["status"]["conditions"] if c["type"] == type_]
    return found  # type: ignore[no-any-return]


def test_a_finding_shows_in_the_seal_and_on_the_job_with_the_person(stage: Go) -> None:
    async def play(s: Stage) -> None:
        async with s.controlled():
            await s.runs()
            await s.report(await s.pod(f"{s.name}-0"))

            async def shown() -> bool:
                return bool((await s.status()).get("drifted"))

            await until(shown)
            job, seal = await s.job(), await s.seal()
        assert job["status"]["drifted"] == "1 critical"
        assert job["status"]["drift"]["critical"] == seal["status"]["drift"]["critical"] == 1
        drifted = condition(job, "Drifted")
        assert (drifted["status"], drifted["reason"]) == ("True", "FileChanged")
        for words in (f"{s.name}-0", "torch/optim/adam.py", "mallory@example.org"):
            assert words in drifted["message"]
        assert len(await s.events("FileChanged")) == 1
        assert "hold" not in seal["status"]
        assert not await s.suspended()

    stage(play)


def test_a_report_from_another_node_than_the_pods_is_dropped_and_told(stage: Go) -> None:
    async def play(s: Stage) -> None:
        async with s.controlled():
            await s.runs()
            name = await s.report(await s.pod(f"{s.name}-0"), node="node-2")
            drift = await has(s, lambda seal: seal["status"]["drift"])
            seal = await s.seal()
            own: Any = await s.kube.get(
                path_of(API_VERSION, "driftreports", TEAM, seal["metadata"]["name"])
            )
        (finding,) = own["status"]["findings"]
        assert finding["id"] == "watch.misreported"
        assert own["spec"]["reporter"] == "Controller"
        for words in (name, "node-2", NODE):
            assert words in finding["message"]
        assert drift["critical"] == 1, "the dropped finding does not count"
        # Whoever has an agent's token cannot stop the runs of other nodes by it.
        assert "hold" not in seal["status"]
        assert not await s.suspended()

    stage(play, "Suspend")


def test_a_held_run_is_let_go_by_who_may_and_by_nobody_else(stage: Go) -> None:
    async def play(s: Stage) -> None:
        async with s.controlled():
            await s.runs()
            await s.report(await s.pod(f"{s.name}-0"))
            hold = await has(s, lambda seal: seal["status"]["hold"])
            await until(s.suspended)

            # An editor says that it runs, resumes the Job, asks for the release.
            s.server.kubectl(
                "patch", "tj", s.name, "-n", TEAM, "--type=merge",
                "-p", '{"spec":{"suspend":false}}', EDITOR,
            )  # fmt: skip
            s.server.kubectl(
                "patch", "job", f"{s.name}-worker", "-n", TEAM, "--type=merge",
                "-p", '{"spec":{"suspend":false}}', EDITOR,
            )  # fmt: skip
            await until(s.suspended)
            seal = (await s.seal())["metadata"]["name"]
            with pytest.raises(CommandError, match="forbidden"):
                s.release(hold["id"], "dev@example.org", EDITOR)
            with pytest.raises(CommandError, match="forbidden"):
                s.server.kubectl(
                    "patch", "sealedrun", seal, "-n", TEAM, "--subresource=status",
                    "--type=merge", "-p", '{"status":{"hold":null}}', EDITOR,
                )  # fmt: skip
            with pytest.raises(CommandError, match=r"expected oncall@example\.org, who creates it"):
                s.release(hold["id"], "boss@example.org", RESPONDER)
            assert await s.suspended()

            async def says_so() -> bool:
                return (await s.status()).get("phase") == "Suspended"

            await until(says_so)
            assert condition(await s.job(), "Held")["reason"] == "FileChanged"

            # Nor does one whose evidence does not hold any more.
            s.evidence.outcomes[world.CODE] = Outcome.REFUTED
            s.release(hold["id"], "oncall@example.org", RESPONDER)
            waiting = await has(s, lambda seal: seal["status"]["hold"]["waiting"])
            assert "refuted" in waiting
            assert await s.suspended()

            s.evidence.outcomes.clear()
            s.release(hold["id"], "oncall@example.org", RESPONDER)
            await has(s, lambda seal: "hold" not in seal["status"])

            async def goes_on() -> bool:
                return not await s.suspended()

            await until(goes_on)
            lifted = (await s.seal())["status"]["lifted"]
            assert (lifted["user"], lifted["reason"]) == ("oncall@example.org", "seen, harmless")

            # The next finding holds it again.
            await s.report(await s.pod(f"{s.name}-1"))
            again = await has(s, lambda seal: seal["status"]["hold"])
            assert again["id"] != hold["id"]
            await until(s.suspended)

    stage(play, "Suspend")


def test_a_terminated_run_has_failed_for_good(stage: Go) -> None:
    async def play(s: Stage) -> None:
        async with s.controlled():
            await s.runs()
            await s.report(await s.pod(f"{s.name}-0"))
            await until(s.suspended)

            async def failed() -> bool:
                return bool((await s.status())["phase"] == "Failed")

            await until(failed)
            hold = (await s.seal())["status"]["hold"]
            s.release(hold["id"], "oncall@example.org", RESPONDER)
            s.server.kubectl(
                "patch", "job", f"{s.name}-worker", "-n", TEAM, "--type=merge",
                "-p", '{"spec":{"suspend":false}}', EDITOR,
            )  # fmt: skip
            await until(s.suspended)
        job = await s.job()
        assert condition(job, "Complete")["reason"] == "Terminated"
        assert "terminated after a finding" in job["status"]["message"]
        assert (await s.seal())["status"]["phase"] == "Failed"

    stage(play, "Terminate")


def test_a_restart_in_the_middle_repeats_nothing_and_forgets_nothing(stage: Go) -> None:
    async def play(s: Stage) -> None:
        async with s.controlled():
            await s.runs()
            pod = await s.pod(f"{s.name}-0")
        await s.report(pod)  # while nobody looks
        async with s.controlled():
            await until(s.suspended)
            await has(s, lambda seal: seal["status"]["told"])
        # The pod goes with the suspension, the finding stays.
        await s.kube.request(
            "DELETE",
            path_of("v1", "pods", TEAM, f"{s.name}-0"),
            body={"gracePeriodSeconds": 0},
        )
        before = (await s.seal())["status"]
        s.clock.now += timedelta(minutes=5)
        async with s.controlled():
            await s.report(await s.pod(f"{s.name}-1"), path="/opt/other.py")
            await has(s, lambda seal: seal["status"]["drift"]["critical"] == 2)
            await has(s, lambda seal: len(seal["status"]["told"]) == 2)
        after = (await s.seal())["status"]
        assert after["hold"]["since"] == before["hold"]["since"]
        assert set(before["hold"]["findings"]) < set(after["hold"]["findings"])
        assert len(await s.events("FileChanged")) == 2

    stage(play, "Suspend")


def test_a_frozen_run_is_ordered_to_stand_still_then_thawed_or_suspended(stage: Go) -> None:
    async def play(s: Stage) -> None:
        async def order() -> Any:
            seal = await s.seal()
            return read_order(
                world.keyring(world.SEAL_KEY),
                seal["status"]["freeze"]["order"],
                cluster=world.CLUSTER,
                namespace=TEAM,
                name=seal["metadata"]["name"],
                spec=seal["spec"],
            )

        async with s.controlled():
            await s.runs()
            await s.report(await s.pod(f"{s.name}-0"))
            hold = await has(s, lambda seal: seal["status"]["hold"])
            await has(s, lambda seal: seal["status"]["freeze"])
            first = await order()
            assert first.state == "Frozen"
            assert first.until - first.since == timedelta(seconds=60)
            assert not await s.suspended()
            s.clock.now += timedelta(seconds=1)
            s.release(hold["id"], "oncall@example.org", RESPONDER)
            await has(s, lambda seal: "hold" not in seal["status"])
            assert (await order()).state == "Thawed"

            await s.report(await s.pod(f"{s.name}-1"))
            await has(s, lambda seal: seal["status"]["freeze"]["state"] == "Frozen")
            assert not await s.suspended()
        s.clock.now += timedelta(seconds=60)
        async with s.controlled():
            await until(s.suspended)
            status = (await s.seal())["status"]
            assert status["hold"]["response"] == "Suspend"
            # What it cost is on record: a second of the first, all that the next may last.
            assert status["heldTime"] == [{"response": "Freeze", "seconds": 61}]
            assert status["hold"]["responseSince"] > status["hold"]["since"]

    stage(play, "Freeze", freeze={"maxDurationSeconds": 60, "then": "Suspend"})


def test_a_quarantined_run_stands_still_and_alone_until_a_person_lets_it_go(stage: Go) -> None:
    async def play(s: Stage) -> None:
        async def rules() -> Any:
            name = (await s.seal())["metadata"]["name"]
            path = path_of("networking.k8s.io/v1", "networkpolicies", TEAM, name)
            found: Any = await s.kube.get(path)
            return found["spec"]

        async with s.controlled():
            await s.runs()
            ordinary = await rules()
            await s.report(await s.pod(f"{s.name}-0"))
            hold = await has(s, lambda seal: seal["status"]["hold"])
            await has(s, lambda seal: seal["status"]["isolatedSince"])
            freeze = (await s.seal())["status"]["freeze"]
            assert freeze["state"] == "Frozen"
            assert "until" not in freeze
            assert await rules() == {
                "podSelector": ordinary["podSelector"],
                "policyTypes": ["Ingress", "Egress"],
            }
            assert len(await s.events("Isolated")) == 1
        # Nothing ends it: no time, no new controller, no user.
        s.clock.now += timedelta(days=3)
        s.server.kubectl(
            "patch", "tj", s.name, "-n", TEAM, "--type=merge", "-p", '{"spec":{"suspend":true}}',
            EDITOR,
        )  # fmt: skip
        async with s.controlled():

            async def told() -> bool:
                return "spec.suspend counts once" in str((await s.status()).get("message"))

            await until(told)
            assert not await s.suspended()
            assert (await s.seal())["status"]["hold"]["response"] == "Quarantine"
            s.server.kubectl(
                "patch", "tj", s.name, "-n", TEAM, "--type=merge", "-p",
                '{"spec":{"suspend":false}}', EDITOR,
            )  # fmt: skip
            s.release(hold["id"], "oncall@example.org", RESPONDER)
            await has(s, lambda seal: "isolatedSince" not in seal["status"])
            assert (await s.seal())["status"]["freeze"]["state"] == "Thawed"
            assert await rules() == ordinary
            assert not await s.suspended()
            assert await s.events("ObjectChanged") == []

    stage(play, "Quarantine")


def test_an_alert_waits_for_its_alertmanager_and_goes_out_once(stage: Go) -> None:
    taken: list[Any] = []
    answers = [503, 503]

    async def post(request: web.Request) -> web.Response:
        status = answers.pop(0) if answers else 200
        if status == 200:
            taken.extend(await request.json())
        return web.Response(status=status)

    async def play(s: Stage) -> None:
        app = web.Application()
        app.router.add_post("/api/v2/alerts", post)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        s.settings = settings(alerts={"alertmanagerURL": url})
        try:
            async with s.controlled():
                await s.runs()
                await s.report(await s.pod(f"{s.name}-0"))
                await has(s, lambda seal: seal["status"]["drift"])
                assert "told" not in (await s.seal())["status"]
                await has(s, lambda seal: seal["status"]["told"])
            async with s.controlled():
                await s.report(await s.pod(f"{s.name}-1"), severity="Info")
                await has(s, lambda seal: len(seal["status"]["told"]) == 2)
        finally:
            await runner.cleanup()
        # The second is only recorded, and the first is not sent again by a new controller.
        (alert,) = [a for a in taken if a["labels"]["job"] == s.name]
        assert alert["labels"]["pod"] == f"{s.name}-0"
        assert alert["labels"]["severity"] == "critical"

    stage(play)


def test_pods_whose_nodes_agent_is_silent_are_a_finding(
    stage: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeats, "SILENT_SECONDS", 1.0)

    async def play(s: Stage) -> None:
        s.settings = settings(agents={"enabled": True})
        async with s.controlled():
            await s.runs()
            await s.pod(f"{s.name}-0")
            path = path_of("v1", "pods", TEAM, f"{s.name}-0", "status")
            await s.kube.patch(path, {"status": {"phase": "Running"}})
            await has(s, lambda seal: seal["status"]["drift"]["critical"] == 1)
            await until(s.suspended)
        drifted = condition(await s.seal(), "Drifted")
        assert drifted["reason"] == "WatchSilent"
        assert f"{s.name}-0" in drifted["message"]

    stage(play, "Suspend")
