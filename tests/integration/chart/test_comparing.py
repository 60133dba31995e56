"""What the controller finds in the API about runs, on a real API server with the chart's rights.

Nothing runs the pods: tests write what a Job controller, a kubelet, a webhook and people would. The
webhook is not there, as on the day when somebody has taken it away.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.integration.chart.conftest import Object
from tests.integration.chart.test_drift import TEAM, Stage, has, stage, team, until
from tests.unit import world
from trainseal.api import accessrecord, driftreport
from trainseal.api.model import API_VERSION
from trainseal.cluster.api import NotFoundError, path_of
from trainseal.cluster.informer import Informer
from trainseal.cluster.settings import Settings
from trainseal.controller.byseal import BySeal
from trainseal.controller.comparing import Comparing
from trainseal.controller.ownreport import OwnReports
from trainseal.controller.world import World
from trainseal.engines.podtemplate import LABEL_SEAL
from trainseal.verifier.jobs import JobVerifier

__all__ = ["stage", "team"]  # fixtures
Go = Callable[..., None]
INDEX = "batch.kubernetes.io/job-completion-index"


@contextlib.asynccontextmanager
async def compared(s: Stage) -> AsyncIterator[Comparing]:
    """The comparing part of the controller, until the end of the block."""
    parts = World(
        kube=s.controller,
        settings=Settings(gate_image=world.GATE_IMAGE),
        cluster=world.CLUSTER,
        seal_key=world.SEAL_KEY,
        ticket_keyring=lambda: world.keyring(world.TICKET_KEY),
        seal_keyring=lambda: world.keyring(world.SEAL_KEY),
        policies=lambda _: tuple(s.policies),
        broken_policies=lambda: (),
        verifier=JobVerifier(s.evidence, s.clock),  # type: ignore[arg-type]
        clock=s.clock,
    )
    comparing, listed = Comparing(parts), asyncio.Event()
    reports = BySeal(lambda _: None)
    informers = (
        Informer(
            s.controller,
            path_of("v1", "pods"),
            listener=comparing.book.listen,
            query={"labelSelector": LABEL_SEAL},
            shape=comparing.book.shape,
        ),
        Informer(s.controller, path_of(API_VERSION, driftreport.PLURAL), listener=reports.listen),
    )
    own = OwnReports(s.controller, s.clock)
    tasks = [asyncio.ensure_future(i.run()) for i in informers]
    try:
        for informer in informers:
            await informer.synced.wait()
        listed.set()
        tasks.append(asyncio.ensure_future(comparing.run(own, reports, listed)))
        yield comparing
        for task in tasks:
            assert not task.done() or task.exception() is None, task.exception()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def findings(s: Stage) -> list[Object]:
    """What is in the controller's own report."""
    name = (await s.status())["sealedRun"]
    path = path_of(API_VERSION, driftreport.PLURAL, TEAM, name)
    with contextlib.suppress(NotFoundError):
        report: Any = await s.kube.get(path)
        found: list[Object] = report.get("status", {}).get("findings", [])
        return found
    return []


async def finds(s: Stage, id_: str) -> Object:
    """Waits for the one finding of this id."""
    found: list[Object] = []

    async def there() -> bool:
        found[:] = [f for f in await findings(s) if f["id"] == id_]
        return bool(found)

    await until(there)
    (one,) = found
    return one


async def pods(s: Stage) -> list[Any]:
    """The pods of both indexes; made, as by the Job controller, where one has none at work."""
    engine: Any = await s.engine()
    at_work = {p["metadata"]["annotations"][INDEX] for p in await standing(s)}
    for index in (0, 1):
        if str(index) not in at_work:
            made = world.pod(engine, index)
            del made["metadata"]["finalizers"], made["status"]  # nobody is there to take it off
            await s.kube.create(path_of("v1", "pods", TEAM), made)
    return await standing(s)


async def standing(s: Stage) -> list[Any]:
    listed: Any = await s.kube.request(
        "GET", path_of("v1", "pods", TEAM), query={"labelSelector": f"trainseal.dev/job={s.name}"}
    )
    found = [
        p
        for p in listed["items"]
        if INDEX in p["metadata"].get("annotations", {})
        and "deletionTimestamp" not in p["metadata"]
        and p["status"].get("phase") not in ("Failed", "Succeeded")
    ]
    return sorted(found, key=lambda p: str(p["metadata"]["annotations"][INDEX]))


def text(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


async def ended(s: Stage, pod: Any, code: int, reason: str = "Error") -> None:
    """The kubelet says that the trainer ended, just now."""
    now = text(datetime.now(UTC).replace(microsecond=0))
    state = {"terminated": {"exitCode": code, "reason": reason, "finishedAt": now}}
    status: Any = {
        "phase": "Failed",
        "containerStatuses": [
            {
                "name": "trainer", "image": "x", "imageID": "", "ready": False, "restartCount": 0,
                "state": state,
            }
        ],
    }  # fmt: skip
    path = path_of("v1", "pods", TEAM, f"{pod['metadata']['name']}/status")
    await s.kube.patch(path, {"status": status})


async def recorded(
    s: Stage,
    pod: Any,
    action: str,
    user: str,
    glass: str = "",
    later: timedelta = timedelta(),
    resized: Any = None,
) -> None:
    """What the webhook writes before it lets somebody through, to a pod or to the end of another
    object; by a BreakGlass if one is named.
    """
    seal = (await s.status())["sealedRun"]
    metadata: Any = {
        "generateName": "record-",
        "namespace": TEAM,
        "labels": {
            accessrecord.LABEL_SEAL: seal,
            accessrecord.LABEL_ACTION: action,
            accessrecord.LABEL_POD: pod["metadata"]["uid"],
        },
    }
    spec: Any = {
        "pod": {"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]},
        "sealedRun": seal,
        "action": action,
        "username": user,
        "allowed": True,
        "time": text(datetime.now(UTC).replace(microsecond=0) + later),
    }
    if (kind := pod.get("kind", "Pod")) != "Pod":
        spec["object"] = {"kind": kind, **spec.pop("pod")}
    if resized:
        spec["resized"] = resized
        metadata["labels"][accessrecord.LABEL_RESIZED] = "true"
    if glass:
        spec["breakGlass"] = glass
        metadata["labels"][accessrecord.LABEL_BREAK_GLASS] = "true"
    await s.kube.create(
        path_of(API_VERSION, accessrecord.PLURAL, TEAM),
        {"apiVersion": API_VERSION, "kind": "AccessRecord", "metadata": metadata, "spec": spec},
        strict=True,
    )


async def deleted(s: Stage, pod: Any) -> None:
    """As by a kubelet that is done at once; the Job controller then lets it go."""
    path = path_of("v1", "pods", TEAM, pod["metadata"]["name"])
    await s.kube.request("DELETE", path, body={"gracePeriodSeconds": 0})


async def killed_as_marker(s: Stage) -> None:
    """A kill, whose finding tells that all before it was judged."""
    (pod, *_) = await pods(s)
    await ended(s, pod, 137)
    await finds(s, "pod.killed")


def play_with(stage: Go, act: Callable[[Stage, Comparing], Awaitable[None]]) -> None:
    """A run that goes on, both parts of the controller with it."""

    async def play(s: Stage) -> None:
        async with s.controlled(), compared(s) as comparing:
            await s.runs()
            await pods(s)
            await act(s, comparing)

    stage(play)


def test_a_run_that_nobody_touches_is_silent_and_a_killed_worker_is_not(stage: Go) -> None:
    async def act(s: Stage, comparing: Comparing) -> None:
        comparing.job_changed(TEAM, s.name)
        await killed_as_marker(s)
        (seen,) = await findings(s)
        assert "user" not in seen
        assert seen["evidence"]["signal"] == "SIGKILL"
        assert "unexplained within 24 h: " in seen["message"]

    play_with(stage, act)


def test_ends_with_a_cause_are_silent(stage: Go) -> None:
    """Out of memory; a program's own fault; suspended and resumed."""

    async def act(s: Stage, comparing: Comparing) -> None:
        one, other = await pods(s)
        await ended(s, one, 137, "OOMKilled")
        await ended(s, other, 139)
        await s.kube.patch(s.job_path, {"spec": {"suspend": True}})
        await until(s.suspended)
        for pod in await pods(s):
            await deleted(s, pod)
        await s.kube.patch(s.job_path, {"spec": {"suspend": None}})

        async def resumed() -> bool:
            return not await s.suspended()

        await until(resumed)
        started = text(datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1))
        path = path_of("batch/v1", "jobs", TEAM, f"{s.name}-worker", "status")
        await s.kube.patch(path, {"status": {"startTime": started}})
        await killed_as_marker(s)
        assert [f["id"] for f in await findings(s)] == ["pod.killed"]

    play_with(stage, act)


def test_who_deleted_a_worker_while_no_controller_ran_is_named_once(stage: Go) -> None:
    async def play(s: Stage) -> None:
        async with s.controlled(), compared(s):
            await s.runs()
            one, other = await pods(s)
        await recorded(s, one, "Delete", "mallory@example.org")
        await deleted(s, one)
        await recorded(s, other, "Delete", "bob@example.org")
        await deleted(s, other)
        for _ in range(2):
            async with s.controlled(), compared(s):
                seen = await finds(s, "pod.deleted")
                assert seen["user"] == "mallory@example.org"
                assert seen["count"] == 1
                own = await finds(s, "pod.deleted-by-requester")
                assert (own["user"], own["severity"]) == ("bob@example.org", "Info")
        async with s.controlled(), compared(s):
            await killed_as_marker(s)
            assert sorted(f["id"] for f in await findings(s)) == [
                "pod.deleted",
                "pod.deleted-by-requester",
                "pod.killed",
            ]

    stage(play)


def test_a_deletion_past_the_record_is_found(stage: Go) -> None:
    async def act(s: Stage, comparing: Comparing) -> None:
        one, _ = await pods(s)
        await deleted(s, one)
        seen = await finds(s, "pod.unrecorded")
        assert seen["evidence"]["podUID"] == one["metadata"]["uid"]

    play_with(stage, act)


def test_a_kill_names_the_one_person_who_had_a_session(stage: Go) -> None:
    async def act(s: Stage, comparing: Comparing) -> None:
        one, _ = await pods(s)
        await recorded(s, one, "Exec", "mallory@example.org")
        await ended(s, one, 143)
        assert (await finds(s, "pod.killed"))["user"] == "mallory@example.org"

    play_with(stage, act)


def test_what_got_past_the_webhook_is_found_on_the_live_pods(stage: Go) -> None:
    async def act(s: Stage, comparing: Comparing) -> None:
        one, other = await pods(s)
        image = json.dumps({"spec": {"containers": [{"name": "trainer", "image": "evil"}]}})
        s.server.kubectl("patch", "pod", one["metadata"]["name"], "-n", TEAM, "-p", image)
        seen = await finds(s, "pod.changed")
        assert seen["evidence"]["index"] == "0"
        assert "evil" in seen["message"]

        debug: Any = {"spec": {"ephemeralContainers": [{"name": "debugger", "image": "busybox"}]}}
        path = path_of("v1", "pods", TEAM, f"{other['metadata']['name']}/ephemeralcontainers")
        await s.kube.patch(path, debug, "application/strategic-merge-patch+json")
        assert "busybox" in (await finds(s, "pod.ephemeral"))["message"]

        owned = await s.pod(f"{s.name}-0")
        assert owned["metadata"]
        labels = {LABEL_SEAL: (await s.status())["sealedRun"]}
        await s.kube.create(
            path_of("v1", "pods", TEAM),
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"{s.name}-guest", "namespace": TEAM, "labels": labels},
                "spec": {"containers": [{"name": "x", "image": "x"}]},
            },
        )
        assert f"{s.name}-guest" in (await finds(s, "pod.foreign"))["message"]

    play_with(stage, act)


def test_a_resize_that_is_on_record_is_no_finding_and_one_past_the_record_is(stage: Go) -> None:
    async def act(s: Stage, comparing: Comparing) -> None:
        one, other = await pods(s)
        wanted = {"requests": {"cpu": "3", "memory": "4Gi"}, "limits": {"memory": "4Gi"}}
        await recorded(
            s, one, "Resize", "ann@example.org", resized=[{"container": "trainer", **wanted}]
        )
        resized: Any = {"spec": {"containers": [{"name": "trainer", "resources": wanted}]}}
        for pod in (one, other):
            path = path_of("v1", "pods", TEAM, f"{pod['metadata']['name']}/resize")
            await s.kube.patch(path, resized, "application/strategic-merge-patch+json")
        seen = await finds(s, "pod.changed")
        assert seen["evidence"]["podUID"] == other["metadata"]["uid"]
        assert "spec.containers[0].resources.requests[cpu]: found '3'" in seen["message"]
        await killed_as_marker(s)
        assert sorted(f["id"] for f in await findings(s)) == ["pod.changed", "pod.killed"]

    play_with(stage, act)


def test_edited_and_deleted_objects_of_the_run_are_found(stage: Go) -> None:
    async def play(s: Stage) -> None:
        async with s.controlled():
            await s.runs()
        seal = (await s.status())["sealedRun"]
        rules: Any = {"spec": {"ingress": [{}]}}
        await s.kube.patch(path_of("networking.k8s.io/v1", "networkpolicies", TEAM, seal), rules)
        engine = path_of("batch/v1", "jobs", TEAM, f"{s.name}-worker")
        await s.kube.patch(engine, {"spec": {"activeDeadlineSeconds": 100000}})
        await recorded(s, {"kind": "Service", "metadata": {"name": s.name, "uid": "u"}},
                       "DeleteObject", "mallory@example.org")  # fmt: skip
        await s.kube.delete(path_of("v1", "services", TEAM, s.name))
        async with compared(s):
            gone = await finds(s, "object.deleted")
        assert f"Service {s.name}" in gone["message"]
        assert gone["user"] == "mallory@example.org"
        changed = [f for f in await findings(s) if f["id"] == "object.changed"]
        words = " ".join(str(f["message"]) for f in changed)
        assert "spec.ingress" in words
        assert "spec.activeDeadlineSeconds" in words
        assert len(changed) == 2

    stage(play)


def test_a_network_policy_of_others_that_opens_the_run_is_found_with_who_made_it(
    stage: Go,
) -> None:
    async def act(s: Stage, comparing: Comparing) -> None:
        one, _ = await pods(s)

        async def made(name: str, selector: Any) -> str:
            spec = {"podSelector": selector, "policyTypes": ["Ingress"], "ingress": [{}]}
            obj: Any = {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": name, "namespace": TEAM},
                "spec": spec,
            }
            uid: Any = await s.kube.create(path_of(obj["apiVersion"], "networkpolicies", TEAM), obj)
            return str(uid["metadata"]["uid"])

        await made("for-others", {"matchLabels": {"app": "web"}})
        await made(f"{s.name}-opens", {"matchLabels": {"trainseal.dev/job": s.name}})
        seen = await finds(s, "network.opened")
        assert f"NetworkPolicy {s.name}-opens" in seen["message"]
        assert one["metadata"]["name"] in seen["evidence"]["pods"]
        assert (seen["severity"], "user" in seen) == ("Critical", False)
        # Another, of which the webhook has a record.
        name = f"{s.name}-recorded"
        thing = {"kind": "NetworkPolicy", "name": name}
        uid = await made(name, {"matchLabels": {"app": "later"}})
        await s.kube.create(
            path_of(API_VERSION, accessrecord.PLURAL, TEAM),
            {
                "apiVersion": API_VERSION,
                "kind": "AccessRecord",
                "metadata": {
                    "generateName": "record-",
                    "namespace": TEAM,
                    "labels": {accessrecord.LABEL_OBJECT: uid},
                },
                "spec": {
                    "object": {**thing, "uid": uid},
                    "action": "Create",
                    "username": "mallory@example.org",
                    "allowed": True,
                    "time": text(datetime.now(UTC).replace(microsecond=0)),
                },
            },
            strict=True,
        )
        # A label got onto a worker past the webhook.
        await s.kube.patch(
            path_of("v1", "pods", TEAM, one["metadata"]["name"]),
            {"metadata": {"labels": {"app": "later"}}},
        )

        async def both() -> bool:
            found = [f for f in await findings(s) if f["id"] == "network.opened"]
            return [f.get("user") for f in found] == [None, "mallory@example.org"]

        await until(both)

    play_with(stage, act)


def test_a_quarantines_own_network_policy_is_no_finding_and_what_is_made_of_it_is(
    stage: Go,
) -> None:
    async def play(s: Stage) -> None:
        async with s.controlled():
            await s.runs()
            seal = (await s.status())["sealedRun"]
            async with compared(s) as comparing:

                async def changed(words: str) -> list[str]:
                    """Waits for a change that is found; what changed, in order."""
                    found: list[str] = []

                    async def there() -> bool:
                        found[:] = [
                            str(f["message"])
                            for f in await findings(s)
                            if f["id"] == "object.changed"
                        ]
                        return words in " ".join(found)

                    await until(there)
                    return found

                await s.report(await s.pod(f"{s.name}-0"))
                await has(s, lambda seal: seal["status"]["isolatedSince"])
                # The Jobs are compared after the policy: whoever finds this has read that.
                engine = path_of("batch/v1", "jobs", TEAM, f"{s.name}-worker")
                await s.kube.patch(engine, {"spec": {"activeDeadlineSeconds": 100000}})
                comparing.job_changed(TEAM, s.name)
                assert len(await changed("spec.activeDeadlineSeconds")) == 1
                rules: Any = {"spec": {"egress": [{}]}}
                policy = path_of("networking.k8s.io/v1", "networkpolicies", TEAM, seal)
                await s.kube.patch(policy, rules)
                comparing.job_changed(TEAM, s.name)
                assert len(await changed("spec.egress")) == 2

    stage(play, "Quarantine")


def test_a_seal_whose_binding_is_forged_is_found(stage: Go) -> None:
    async def act(s: Stage, comparing: Comparing) -> None:
        seal = (await s.status())["sealedRun"]
        forged: Any = {"status": {"binding": {"signature": "Zm9yZ2Vk"}}}
        await s.kube.patch(path_of(API_VERSION, "sealedruns", TEAM, f"{seal}/status"), forged)
        assert (await finds(s, "seal.broken"))["severity"] == "Critical"

        async def told() -> bool:
            return bool(await s.events("SealBroken"))

        await until(told)

    play_with(stage, act)


def test_a_deleted_seal_is_found(stage: Go) -> None:
    async def act(s: Stage, comparing: Comparing) -> None:
        seal = (await s.status())["sealedRun"]
        await s.kube.delete(path_of(API_VERSION, "sealedruns", TEAM, seal))
        assert "deleted" in (await finds(s, "seal.broken"))["message"]

    play_with(stage, act)
