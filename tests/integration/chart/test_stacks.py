"""Who asks for the stacks of a run, how often, and who answers: decided by the API server alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cluster import CommandError
from tests.integration.chart.conftest import CONTROLLER, ApiServer, Helm, Object, render
from tests.integration.chart.test_agent import AGENTS, NODE, OTHER, Agents
from tests.sample_objects import training_job
from trainseal.agent.containers import SealedPod
from trainseal.agent.stackdumps import StackDumps
from trainseal.agent.stacktaking import Taken
from trainseal.api.model import API_VERSION
from trainseal.api.stackdump import Frame, ProcessStacks, ThreadStack, name_of
from trainseal.cli.stacks import RunStacks, ask
from trainseal.cluster.api import Kube, KubeError, connect, path_of
from trainseal.cluster.informer import Informer
from trainseal.controller.stackexpiry import LIFE, StackExpiry

TEAM = "debugged"
SEAL = "char-lm-01234567-89abcdef"
POD, UID = "char-lm-worker-0-x", "0aa3b1c2-1111-2222-3333-444455556666"
DUMPS = path_of(API_VERSION, "stackdumps", TEAM)
DEV, VIEWER = "dev@example.org", "viewer@example.org"
READ = ProcessStacks(
    pid=7,
    parent=1,
    container="trainer",
    executable="/usr/bin/python3",
    threads=[ThreadStack(main=True, frames=[Frame(name="f", file="/w/train.py", line=3)])],
)


def request(user: str, name: str | None = None, **metadata: object) -> Object:
    """Of this minute, if no other name is given."""
    stamp = f"{SEAL}-{datetime.now(UTC):%Y%m%d%H%M}"
    return {
        "apiVersion": API_VERSION,
        "kind": "StackRequest",
        "metadata": {"name": name or stamp, "namespace": TEAM, **metadata},
        "spec": {"sealedRun": SEAL, "user": user},
    }


def stack_dump(node: str) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "StackDump",
        "metadata": {"name": name_of(POD, UID), "namespace": TEAM},
        "spec": {"sealedRun": SEAL, "node": node, "pod": {"name": POD, "uid": UID}},
    }


def pod(name: str, namespace: str, node: str, **spec: object) -> Object:
    container = {"name": "trainer", "image": "registry.example/none"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"nodeName": node, "containers": [container], **spec},
    }


@pytest.fixture(scope="module")
def installed(server: ApiServer, helm: Path) -> Iterator[ApiServer]:
    """The chart without its webhooks; two nodes with an agent's pod each; an editor, a viewer."""
    chart = Helm(server, helm)
    chart.install("--set", "floor.enabled=false")
    for kind in ("mutatingwebhookconfiguration", "validatingwebhookconfiguration"):
        server.kubectl("delete", kind, "-l", "app.kubernetes.io/part-of=trainseal")
    server.kubectl("create", "namespace", TEAM)
    for role, user in (("edit", DEV), ("view", VIEWER)):
        server.kubectl(
            "create", "rolebinding", role, "-n", TEAM, f"--clusterrole={role}", f"--user={user}"
        )
    server.kubectl("wait", "--for=create", f"serviceaccount/{AGENTS}", "-n", AGENTS)
    server.kubectl("wait", "--for=create", "serviceaccount/default", "-n", TEAM)
    for node in (NODE, OTHER):
        server.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
        server.create(pod(f"agent-{node}", AGENTS, node, serviceAccountName=AGENTS))
    server.until_refused(request("somebody@example.org"), "found spec.user", "--as", DEV)
    server.until_refused(stack_dump(NODE), "found writer")
    yield server
    for node in (NODE, OTHER):
        server.kubectl("delete", "pod", f"agent-{node}", "-n", AGENTS, "--force")
        server.kubectl("delete", "node", node)
    chart.uninstall()
    server.kubectl("delete", "namespace", TEAM, "--wait")


@pytest.fixture
def agents(installed: ApiServer, tmp_path: Path) -> Iterator[Agents]:
    """No request and no dump is there before and after."""
    yield Agents(installed, tmp_path)
    installed.kubectl(
        "delete", "stackrequests,stackdumps", "--all", "-n", TEAM,
        "--as", CONTROLLER, "--as-group=system:masters",
    )  # fmt: skip


def asked(server: ApiServer, *flags: str, user: str = DEV, namespace: str = TEAM) -> Object:
    """A request as it is stored; made once more where the minute has just turned."""
    for left in (1, 0):
        obj = request(user)
        obj["metadata"]["namespace"] = namespace
        try:
            return server.create(obj, *flags)
        except CommandError as error:
            if not left or "expected the name" not in error.stderr:
                raise
    raise AssertionError


@asynccontextmanager
async def answering(kube: Kube, node: str, uid: str = UID) -> AsyncIterator[None]:
    """An agent's part of it, with one pod of the run, of which it has read something."""
    dumps = StackDumps(
        kube,
        node,
        pods=lambda: (SealedPod(TEAM, POD, uid, SEAL, {}),),
        containers=lambda _: (),
        take=lambda _: Taken((READ,)),
        clock=lambda: datetime.now(UTC),
    )
    path = path_of(API_VERSION, "stackrequests")
    informer = Informer(kube, path, listener=dumps.on_request, keep=False)
    tasks = [asyncio.ensure_future(work) for work in (informer.run(), dumps.run())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# Asking -------------------------------------------------------------------------------------------


def test_an_editor_asks_in_their_own_name_once_a_minute(agents: Agents) -> None:
    made = asked(agents.server, "--as", DEV)
    with pytest.raises(CommandError) as refused:
        agents.server.create(request(DEV, made["metadata"]["name"]), "--as", DEV)
    # Where the minute has turned, it is not that of the name any more.
    assert "already exists" in refused.value.stderr or "expected the name" in refused.value.stderr


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: request(VIEWER), f"found spec.user {VIEWER}, expected {DEV}"),
        (lambda: request(DEV, f"{SEAL}-202001010000"), "expected the name"),
        (lambda: request(DEV, f"another-{SEAL}"), "expected the name"),
        (lambda: request(DEV, finalizers=["example.org/stay"]), "found a finalizer or an owner"),
        (
            lambda: request(
                DEV,
                ownerReferences=[
                    {"apiVersion": "v1", "kind": "ConfigMap", "name": "none", "uid": "none"}
                ],
            ),
            "found a finalizer or an owner",
        ),
    ],
    ids=["another's name", "another minute", "another name", "a finalizer", "an owner"],
)
def test_a_request_that_would_slip_the_record_or_the_rate_is_refused(
    agents: Agents, made: Callable[[], Object], words: str
) -> None:
    with pytest.raises(CommandError) as refused:
        agents.server.create(made(), "--as", DEV)
    assert words in refused.value.stderr


def test_who_asked_is_neither_changed_nor_taken_away(agents: Agents) -> None:
    server = agents.server
    made = asked(server, "--as", DEV)
    name = made["metadata"]["name"]
    administrator = ("--as=root@example.org", "--as-group=system:masters")
    for flags, words in ((("--as", DEV), "forbidden"), (administrator, "stays on record")):
        with pytest.raises(CommandError) as refused:
            server.kubectl("delete", "stackrequest", name, "-n", TEAM, *flags)
        assert words in refused.value.stderr
    for patch in ({"spec": {"user": "x"}}, {"metadata": {"finalizers": ["example.org/stay"]}}):
        with pytest.raises(CommandError):
            server.patch(made, patch)
    assert server.get(made)["spec"]["user"] == DEV


@pytest.mark.parametrize(
    ("user", "verb", "resource", "may"),
    [
        (DEV, "create", "stackrequests", True),
        (DEV, "list", "stackdumps", True),
        (DEV, "create", "stackdumps", False),
        (DEV, "delete", "stackrequests", False),
        (DEV, "update", "stackrequests", False),
        (VIEWER, "list", "stackrequests", True),
        (VIEWER, "create", "stackrequests", False),
        (VIEWER, "list", "stackdumps", False),
    ],
)
def test_editors_ask_and_read_and_viewers_see_who_asked(
    installed: ApiServer, user: str, verb: str, resource: str, may: bool
) -> None:
    question = ("auth", "can-i", verb, f"{resource}.trainseal.dev", "-n", TEAM, "--as", user)
    if may:
        assert installed.kubectl(*question).strip() == "yes"
    else:
        with pytest.raises(CommandError):
            installed.kubectl(*question)


def test_a_namespace_that_goes_takes_its_requests_along(installed: ApiServer) -> None:
    namespace = f"{TEAM}-gone"
    installed.kubectl("create", "namespace", namespace)
    told = json.loads(installed.kubectl("auth", "whoami", "-o", "json"))
    asked(installed, user=told["status"]["userInfo"]["username"], namespace=namespace)
    installed.kubectl("delete", "namespace", namespace, "--wait", "--timeout=60s")


# Answering ----------------------------------------------------------------------------------------


@pytest.fixture
def training(agents: Agents) -> Iterator[str]:
    """A job with a run, and its one pod's UID, as controller, scheduler and kubelet tell them."""
    server, job = agents.server, training_job()
    job["metadata"]["namespace"] = TEAM
    worker = pod(POD, TEAM, NODE)
    worker["metadata"] |= {
        "labels": {"trainseal.dev/seal": SEAL, "trainseal.dev/role": "worker"},
        "annotations": {"batch.kubernetes.io/job-completion-index": "1"},
    }
    server.create(job)
    uid = server.create(worker)["metadata"]["uid"]
    _tell(server, "trainingjob", "char-lm", {"phase": "Running", "sealedRun": SEAL})
    _tell(server, "pod", POD, {"phase": "Running"})
    yield uid
    server.kubectl("delete", "pod", POD, "-n", TEAM, "--force")
    server.kubectl("delete", "trainingjob", "char-lm", "-n", TEAM)


def _tell(server: ApiServer, resource: str, name: str, status: Object) -> None:
    patch = json.dumps({"status": status})
    server.kubectl(
        "patch", resource, name, "-n", TEAM, "--subresource=status", "--type=merge", "-p", patch
    )


def test_the_command_line_gets_the_agents_answer_each_with_its_own_rights(
    agents: Agents, training: str
) -> None:
    editor = str(agents.server.cluster.user_kubeconfig(DEV))

    async def play() -> RunStacks:
        async with (
            agents.of(NODE) as agent,
            connect(editor) as kube,
            answering(agent, NODE, training),
        ):
            return await ask(kube, TEAM, "char-lm", None, 30.0)

    found = asyncio.run(play())
    assert found.exit_code == 0
    assert found.request.spec.user == DEV
    ((worker, status),) = found.answered
    assert (str(worker.rank), worker.node) == ("worker/1", NODE)
    assert status.processes == [READ]


def test_an_agent_answers_for_its_own_node_alone(agents: Agents) -> None:
    written, misnamed = stack_dump(NODE), stack_dump(NODE)
    misnamed["metadata"]["name"] = "another"
    path = f"{DUMPS}/{written['metadata']['name']}"

    async def play() -> None:
        async with agents.of(NODE) as kube:
            with pytest.raises(KubeError, match="found writer"):
                await kube.create(DUMPS, stack_dump(OTHER))
            with pytest.raises(KubeError, match="expected the name POD-UID8"):
                await kube.create(DUMPS, misnamed)
            await kube.create(DUMPS, written)
            with pytest.raises(KubeError, match="forbidden"):
                await kube.request("DELETE", path)
        status: Object = {"request": "x", "takenAt": "2026-11-23T12:00:00Z"}
        async with agents.of(OTHER) as kube:
            with pytest.raises(KubeError, match="found writer"):
                await kube.patch(f"{path}/status", {"status": status})

    asyncio.run(play())


def test_nobody_else_answers_not_even_an_administrator(agents: Agents) -> None:
    with pytest.raises(CommandError) as refused:
        agents.server.create(stack_dump(NODE))
    assert "found writer" in refused.value.stderr


def test_after_an_hour_the_controller_takes_a_request_away_and_its_dump_goes_with_it(
    agents: Agents,
) -> None:
    server = agents.server
    made = asked(server, "--as", DEV)
    controller = str(server.cluster.user_kubeconfig(CONTROLLER))

    async def answered() -> None:
        wait = ("wait", f"stackdump/{name_of(POD, UID)}", "-n", TEAM, "--for=create")
        async with agents.of(NODE) as agent, answering(agent, NODE):
            await asyncio.to_thread(server.kubectl, *wait, "--timeout=30s")

    async def expire(later: timedelta) -> None:
        async with connect(controller) as kube:
            await StackExpiry(kube, lambda: datetime.now(UTC) + later).look()

    asyncio.run(answered())
    asyncio.run(expire(LIFE - timedelta(minutes=1)))
    assert server.get(made)
    asyncio.run(expire(LIFE + timedelta(seconds=2)))
    with pytest.raises(CommandError):
        server.get(made)
    server.kubectl("wait", "--for=delete", "stackdump", "--all", "-n", TEAM, "--timeout=60s")


# The chart ----------------------------------------------------------------------------------------


def test_no_webhook_is_asked_about_stacks(helm: Path) -> None:
    """Who looks into a run that hangs may do so while no webhook answers."""
    hooks = [o for o in render(helm) if o["kind"].endswith("WebhookConfiguration")]
    rules = [rule for hook in hooks for webhook in hook["webhooks"] for rule in webhook["rules"]]
    assert rules
    assert not [r for rule in rules for r in rule["resources"] if r.startswith("stack")]
