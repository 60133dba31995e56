"""What a node's agent may write with its own token, and nobody else: reports and a Lease."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from tests.cluster import CommandError
from tests.integration.chart.conftest import (
    CONTROLLER,
    NAMESPACE,
    ApiServer,
    Helm,
    Object,
    render,
)
from trainseal.agent.evidenceitems import Taken, TakenProcess
from trainseal.agent.evidencekeeping import EvidenceKeeper
from trainseal.agent.files import Content
from trainseal.agent.lease import NodeLease
from trainseal.agent.ledger import Person
from trainseal.agent.observed import Lineage, Observation, Process
from trainseal.agent.reports import Reports, Subject
from trainseal.api.evidenceitem import name_of
from trainseal.api.findings import FindingId
from trainseal.cluster.api import Kube, KubeError, connect, path_of

AGENTS = "trainseal-agent"
TEAM = "watched"
NODE, OTHER = "node-1", "node-2"
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
POD = Subject(TEAM, "char-lm-worker-0-abcde", "0aa3b1c2-1111-2222-3333-444455556666", "char-lm-1")
SHELL = Process(4711, 1, NOW, "/usr/bin/sed", ("sed", "-i", "s/a/b/"), 1000, "c" * 64)
EDIT = Observation(
    FindingId.FILE_CHANGED,
    "it was written",
    path="/usr/lib/python3/torch/optim/sgd.py",
    lineage=Lineage((SHELL,), session=SHELL),
    evidence={"digest": "sha256:" + "0" * 64},
    content=Content("sha256:" + "0" * 64, 7, 0o644, b"lr = 0\n", steady=True),
)
KEY = "0123456789abcdef"
EVIDENCE = path_of("trainseal.dev/v1alpha1", "evidenceitems", TEAM)


@dataclass(frozen=True)
class Agents:
    """An installed chart, and tokens as kubelets ask for them: bound to a pod on a node."""

    server: ApiServer
    folder: Path

    def kubeconfig(self, node: str) -> Path:
        """For the agent of a node."""
        pod = self.server.get(_pod(node))
        token = self.server.kubectl(
            "create", "token", AGENTS, "-n", AGENTS, "--bound-object-kind=Pod",
            f"--bound-object-name={pod['metadata']['name']}",
            f"--bound-object-uid={pod['metadata']['uid']}",
        )  # fmt: skip
        config = yaml.safe_load(self.server.cluster.kubeconfig.read_text())
        for user in config["users"]:
            user["user"] = {"token": token.strip()}
        file = self.folder / f"{node}.yaml"
        file.write_text(json.dumps(config))
        return file

    @asynccontextmanager
    async def of(self, node: str) -> AsyncIterator[Kube]:
        """The agent's own connection."""
        async with connect(str(self.kubeconfig(node))) as kube:
            yield kube

    def delete_reports(self) -> None:
        """As the controller may."""
        self.server.kubectl(
            "delete", "driftreports,evidenceitems", "--all", "-n", TEAM,
            "--as", CONTROLLER, "--as-group=system:masters",
        )  # fmt: skip

    def items(self) -> list[Object]:
        """What evidence there is."""
        listed = self.server.kubectl("get", "evidenceitems", "-n", TEAM, "-o", "json")
        found: list[Object] = json.loads(listed)["items"]
        return found

    def report(self) -> Object:
        """The pod's report as it is stored."""
        return self.server.get(_report(NODE))


def _pod(node: str) -> Object:
    container = {"name": "agent", "image": "registry.example/none"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"agent-{node}", "namespace": AGENTS},
        "spec": {"serviceAccountName": AGENTS, "nodeName": node, "containers": [container]},
    }


def _report(node: str) -> Object:
    return {
        "apiVersion": "trainseal.dev/v1alpha1",
        "kind": "DriftReport",
        "metadata": {"name": POD.report, "namespace": TEAM},
        "spec": {
            "reporter": "Agent",
            "sealedRun": POD.seal,
            "node": node,
            "pod": {"name": POD.pod, "uid": POD.uid},
        },
    }


def _evidence(node: str) -> Object:
    return {
        "apiVersion": "trainseal.dev/v1alpha1",
        "kind": "EvidenceItem",
        "metadata": {"name": name_of(POD.pod, POD.uid, KEY), "namespace": TEAM},
        "spec": {
            "sealedRun": POD.seal,
            "node": node,
            "pod": {"name": POD.pod, "uid": POD.uid},
            "finding": {"id": "file.changed", "key": KEY},
            "takenAt": NOW.isoformat(),
        },
    }


@pytest.fixture(scope="module")
def installed(server: ApiServer, helm: Path) -> Iterator[ApiServer]:
    """The chart, two nodes with an agent's pod each, and a team's namespace."""
    chart = Helm(server, helm)
    chart.install()
    server.kubectl("create", "namespace", TEAM)
    server.kubectl("wait", "--for=create", f"serviceaccount/{AGENTS}", "-n", AGENTS)
    for node in (NODE, OTHER):
        server.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
        server.create(_pod(node))
    yield server
    for node in (NODE, OTHER):
        server.kubectl("delete", "pod", f"agent-{node}", "-n", AGENTS, "--force")
        server.kubectl("delete", "node", node)
    chart.uninstall()
    server.kubectl("delete", "namespace", TEAM, "--wait")


@pytest.fixture
def agents(installed: ApiServer, tmp_path: Path) -> Iterator[Agents]:
    """No report is there before and after."""
    found = Agents(installed, tmp_path)
    _until_in_force(found)
    yield found
    found.delete_reports()


def _until_in_force(agents: Agents) -> None:
    """Admission policies reach the API server by watch, a moment after they exist."""
    for guarded in (_report(NODE), _evidence(NODE)):
        agents.server.until_refused(guarded, "expected")


async def watch(kube: Kube, act: Callable[[Reports], None], node: str = NODE) -> None:
    """One agent's life: the watch of a pod begins, something is seen, all is written."""
    process = TakenProcess(SHELL, acting=True, environment=[("HF_TOKEN", "hunter2")])
    keeper = EvidenceKeeper(
        kube,
        node,
        lambda _pod, _container, seen: Taken(NOW, "Kept", seen.content, [process]),
        lambda: NOW,
    )
    reports = Reports(
        kube,
        node,
        policies=lambda _: (),
        join=lambda *_: Person("mallory@example.org", "exec-1"),
        freeze=lambda *_: None,
        clock=lambda: NOW,
        evidence=keeper,
    )
    keeper.connect(reports)
    keeping = asyncio.ensure_future(keeper.run())
    reports.begin(POD)
    reports.say(POD.uid, "Watching", "True", "Watching", "Everything is seen.")
    act(reports)
    await keeper.close(10)
    await reports.close(10)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


def test_an_agent_writes_what_it_found_with_the_rights_it_has(agents: Agents) -> None:
    async def live() -> None:
        async with agents.of(NODE) as kube:
            await watch(kube, lambda reports: reports.see(POD.uid, "trainer", EDIT))

    asyncio.run(live())
    status = agents.report()["status"]
    (finding,) = status["findings"]
    assert finding["id"] == "file.changed"
    assert finding["severity"] == "Critical"
    assert finding["path"] == EDIT.path
    assert finding["user"] == "mallory@example.org"
    assert finding["processes"][0]["executable"] == "/usr/bin/sed"
    (condition,) = status["conditions"]
    assert (condition["type"], condition["status"]) == ("Watching", "True")


def test_a_restarted_agent_loses_no_finding_and_repeats_none(agents: Agents) -> None:
    async def live(*paths: str) -> None:
        def edit(reports: Reports) -> None:
            for path in paths:
                seen = Observation(FindingId.FILE_CHANGED, "x", path)
                reports.see(POD.uid, "trainer", seen)

        async with agents.of(NODE) as kube:
            await watch(kube, edit)

    asyncio.run(live("/a", "/b"))
    asyncio.run(live("/b", "/c"))
    found = agents.report()["status"]["findings"]
    assert [(f["path"], f["count"]) for f in found] == [("/a", 1), ("/b", 2), ("/c", 1)]


def test_a_report_that_somebody_took_away_is_made_again(agents: Agents) -> None:
    async def live() -> None:
        async with agents.of(NODE) as kube:
            await watch(kube, lambda reports: reports.see(POD.uid, "trainer", EDIT))

    asyncio.run(live())
    agents.delete_reports()
    asyncio.run(live())
    assert len(agents.report()["status"]["findings"]) == 1


@pytest.mark.parametrize("reporter", ["Agent", "Controller"])
def test_an_agent_writes_about_its_own_node_alone(agents: Agents, reporter: str) -> None:
    forged = _report(OTHER)
    if reporter == "Controller":
        forged["spec"] = {"reporter": reporter, "sealedRun": POD.seal}

    async def forge() -> str:
        async with agents.of(NODE) as kube:
            with pytest.raises(KubeError) as refused:
                await kube.create(path_of("trainseal.dev/v1alpha1", "driftreports", TEAM), forged)
            return refused.value.message

    said = asyncio.run(forge())
    assert "found writer" in said
    assert AGENTS in said


RUN = "char-lm-01234567-89abcdef"


@pytest.mark.parametrize(
    ("name", "pod", "uid"),
    [
        (RUN, POD.pod, POD.uid),
        (RUN, "char-lm-01234567", "89abcdef"),
        (RUN, "char-lm-01234567", "89abcdef-1111-2222-3333-444455556666"),
        (f"{POD.pod}-11111111", POD.pod, POD.uid),
        (f"{POD.pod}-0aa3b1c", POD.pod, "0aa3b1c"),
        ("another-pod-0aa3b1c2", POD.pod, POD.uid),
    ],
    ids=["a seal's name", "uid", "seal as pod and uid", "another uid", "short uid", "another pod"],
)
def test_an_agent_takes_no_other_name_for_its_report(
    agents: Agents, name: str, pod: str, uid: str
) -> None:
    """A report under a seal's name would keep the controller from writing its own."""
    forged = _report(NODE)
    forged["metadata"]["name"] = name
    forged["spec"]["pod"] = {"name": pod, "uid": uid}

    async def forge() -> None:
        async with agents.of(NODE) as kube:
            with pytest.raises(KubeError, match="expected the name POD-UID8"):
                await kube.create(path_of("trainseal.dev/v1alpha1", "driftreports", TEAM), forged)

    asyncio.run(forge())


@pytest.mark.parametrize("pod", [POD.pod, "a" * 253, f"{'a' * 243}.{'b' * 9}", "x"])
def test_an_agents_report_bears_its_pods_name_however_long(agents: Agents, pod: str) -> None:
    subject = Subject(TEAM, pod, POD.uid, POD.seal)
    made = _report(NODE)
    made["metadata"]["name"] = subject.report
    made["spec"]["pod"]["name"] = pod

    async def live() -> None:
        async with agents.of(NODE) as kube:
            await kube.create(path_of("trainseal.dev/v1alpha1", "driftreports", TEAM), made)

    asyncio.run(live())


def test_an_agent_does_not_change_what_another_node_found(agents: Agents) -> None:
    async def live() -> None:
        async with agents.of(NODE) as kube:
            await watch(kube, lambda reports: reports.see(POD.uid, "trainer", EDIT))
        path = path_of("trainseal.dev/v1alpha1", "driftreports", TEAM, POD.report)
        async with agents.of(OTHER) as kube:
            with pytest.raises(KubeError, match="found writer"):
                await kube.patch(f"{path}/status", {"status": {"findings": []}})
            with pytest.raises(KubeError, match="forbidden"):
                await kube.request("DELETE", path)

    asyncio.run(live())
    assert len(agents.report()["status"]["findings"]) == 1


@pytest.mark.parametrize("reporter", ["Agent", "Controller"])
def test_nobody_else_writes_reports_not_even_an_administrator(
    agents: Agents, reporter: str
) -> None:
    forged = _report(NODE)
    if reporter == "Controller":
        forged["spec"] = {"reporter": reporter, "sealedRun": POD.seal}
    with pytest.raises(CommandError) as refused:
        agents.server.create(forged)
    assert "found writer" in refused.value.stderr


def test_a_token_that_is_bound_to_no_pod_writes_nothing(agents: Agents) -> None:
    with pytest.raises(CommandError) as refused:
        agents.server.create(_report(NODE), "--as", f"system:serviceaccount:{AGENTS}:{AGENTS}")
    assert "found writer" in refused.value.stderr


def test_the_controller_writes_its_own_reports_while_the_webhook_is_away(agents: Agents) -> None:
    report = _report(NODE)
    report["metadata"]["name"] = POD.seal
    report["spec"] = {"reporter": "Controller", "sealedRun": POD.seal}
    agents.server.create(report, "--as", CONTROLLER, "--as-group=system:masters")


# Evidence -----------------------------------------------------------------------------------------


def test_an_agent_keeps_evidence_of_what_it_found_with_the_rights_it_has(agents: Agents) -> None:
    async def live() -> None:
        async with agents.of(NODE) as kube:
            await watch(kube, lambda reports: reports.see(POD.uid, "trainer", EDIT))

    asyncio.run(live())
    (finding,) = agents.report()["status"]["findings"]
    (item,) = agents.items()
    assert item["metadata"]["name"] == finding["evidenceItem"]
    assert item["spec"]["finding"] == {"id": "file.changed", "key": finding["key"]}
    assert item["spec"]["file"]["path"] == EDIT.path
    (process,) = item["spec"]["processes"]
    assert process["environment"] == [{"name": "HF_TOKEN", "value": "(7 characters)"}]
    asyncio.run(live())
    assert agents.items() == [item]


def test_an_agent_keeps_evidence_of_its_own_node_alone(agents: Agents) -> None:
    async def forge() -> str:
        async with agents.of(NODE) as kube:
            with pytest.raises(KubeError) as refused:
                await kube.create(EVIDENCE, _evidence(OTHER))
            return refused.value.message

    assert "found writer" in asyncio.run(forge())


@pytest.mark.parametrize(
    ("name", "pod", "uid", "key"),
    [
        (name_of(POD.pod, POD.uid, "1" * 16), POD.pod, POD.uid, KEY),
        (name_of("another-pod", POD.uid, KEY), POD.pod, POD.uid, KEY),
        (name_of(POD.pod, "1" * 36, KEY), POD.pod, POD.uid, KEY),
        (name_of(POD.pod, "0aa3b1c2", KEY), POD.pod, "0aa3b1c2", KEY),
        ("mine", POD.pod, POD.uid, KEY),
    ],
    ids=["another finding", "another pod", "another uid", "short uid", "any name"],
)
def test_an_agent_takes_no_other_name_for_evidence(
    agents: Agents, name: str, pod: str, uid: str, key: str
) -> None:
    """Else it could keep the evidence of another finding from being written."""
    forged = _evidence(NODE)
    forged["metadata"]["name"] = name
    forged["spec"] |= {"pod": {"name": pod, "uid": uid}}
    forged["spec"]["finding"]["key"] = key

    async def forge() -> None:
        async with agents.of(NODE) as kube:
            with pytest.raises(KubeError, match="expected the name POD-UID8-KEY"):
                await kube.create(EVIDENCE, forged)

    asyncio.run(forge())


@pytest.mark.parametrize("pod", [POD.pod, "a" * 253, f"{'a' * 226}.{'b' * 20}", "x"])
def test_evidence_bears_its_pods_name_however_long(agents: Agents, pod: str) -> None:
    made = _evidence(NODE)
    made["metadata"]["name"] = name_of(pod, POD.uid, KEY)
    made["spec"]["pod"]["name"] = pod

    async def live() -> None:
        async with agents.of(NODE) as kube:
            await kube.create(EVIDENCE, made)

    asyncio.run(live())


def test_evidence_is_changed_and_deleted_by_nobody(agents: Agents) -> None:
    async def live() -> None:
        async with agents.of(NODE) as kube:
            await kube.create(EVIDENCE, _evidence(NODE))
            place = f"{EVIDENCE}/{_evidence(NODE)['metadata']['name']}"
            with pytest.raises(KubeError, match="forbidden"):
                await kube.patch(place, {"spec": {"sealedRun": "another"}})
            with pytest.raises(KubeError, match="forbidden"):
                await kube.request("DELETE", place)

    asyncio.run(live())
    with pytest.raises(CommandError) as refused:
        agents.server.patch(_evidence(NODE), {"spec": {"sealedRun": "another"}})
    assert "found writer" in refused.value.stderr or "written once" in refused.value.stderr
    with pytest.raises(CommandError) as refused:
        agents.server.kubectl("delete", "evidenceitems", "--all", "-n", TEAM)
    assert "seals.trainseal.dev" in refused.value.stderr
    assert len(agents.items()) == 1


def test_nobody_else_makes_evidence_not_even_an_administrator(agents: Agents) -> None:
    account = f"system:serviceaccount:{AGENTS}:{AGENTS}"
    for flags in ((), ("--as", account), ("--as", CONTROLLER, "--as-group=system:masters")):
        with pytest.raises(CommandError) as refused:
            agents.server.create(_evidence(NODE), *flags)
        assert "found writer" in refused.value.stderr


def test_evidence_at_its_bounds_is_taken(agents: Agents) -> None:
    """The API server's own bounds of the fields are no tighter than the agent's."""
    process: Object = {
        "pid": 1,
        "parent": 0,
        "startedAt": NOW.isoformat(),
        "executable": "x" * 1024,
        "command": ["x" * 100] * 32,
        "environment": [{"name": "X", "value": "(1 characters)"}] * 256,
        "maps": [{"path": "/lib/libc.so", "rights": "r-xp"}] * 256,
    }
    made = _evidence(NODE)
    made["spec"] |= {
        "file": {"path": "/x", "state": "Kept", "content": "A" * 150 * 1024, "contentSize": 1},
        "processes": [process, *([process | {"environment": [], "maps": []}] * 20)],
    }

    async def live() -> None:
        async with agents.of(NODE) as kube:
            await kube.create(EVIDENCE, made, strict=True)

    asyncio.run(live())


# The Lease ----------------------------------------------------------------------------------------


def lease(kube: Kube, node: str) -> NodeLease:
    return NodeLease(kube, NAMESPACE, node, "agent-x", lambda: {"lacking": []}, lambda: NOW)


def test_an_agent_keeps_the_lease_of_its_node_and_no_other(agents: Agents) -> None:
    async def live() -> None:
        async with agents.of(NODE) as kube:
            for _ in range(2):
                await lease(kube, NODE).renew()
            with pytest.raises(KubeError, match="found writer"):
                await lease(kube, OTHER).renew()
            leader: Object = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": "trainseal-controller", "namespace": NAMESPACE},
                "spec": {"holderIdentity": "me"},
            }
            with pytest.raises(KubeError, match="found writer"):
                await kube.create(path_of("coordination.k8s.io/v1", "leases", NAMESPACE), leader)

    asyncio.run(live())
    found = json.loads(
        agents.server.kubectl("get", "lease", f"{AGENTS}-{NODE}", "-n", NAMESPACE, "-o", "json")
    )
    assert found["spec"]["holderIdentity"] == "agent-x"
    # Whose it is: the release's, so that an uninstall takes it along.
    assert found["metadata"]["ownerReferences"][0]["name"] == "trainseal-config"


# The chart ----------------------------------------------------------------------------------------


def test_an_agent_has_the_capabilities_it_is_documented_with_and_no_others(helm: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "agent.md").read_text()
    (daemonset,) = [o for o in render(helm) if o["kind"] == "DaemonSet"]
    spec = daemonset["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    security = container["securityContext"]
    assert security["capabilities"]["drop"] == ["ALL"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["privileged"] is False
    for name in security["capabilities"]["add"]:
        assert f"`{name}`" in page, name
    assert len(security["capabilities"]["add"]) == 3
    assert [v["hostPath"]["path"] for v in spec["volumes"]] == ["/sys/fs/cgroup"]
    assert "hostNetwork" not in spec


@pytest.mark.parametrize(("freeze", "read_only"), [("true", False), ("false", True)])
def test_control_groups_are_writable_only_where_freezing_is_on(
    helm: Path, freeze: str, read_only: bool
) -> None:
    objects = render(helm, "--set", f"agent.freeze={freeze}")
    (daemonset,) = [o for o in objects if o["kind"] == "DaemonSet"]
    (container,) = daemonset["spec"]["template"]["spec"]["containers"]
    (mount,) = container["volumeMounts"]
    assert mount["readOnly"] is read_only


def test_without_agents_nothing_of_theirs_is_there_but_the_bounds(helm: Path) -> None:
    objects = render(helm, "--set", "agent.enabled=false")
    theirs = [
        o["kind"]
        for o in objects
        if o["metadata"].get("labels", {}).get("app.kubernetes.io/component") == "agent"
    ]
    assert set(theirs) == {"ValidatingAdmissionPolicy"}


def test_pods_of_the_agents_namespace_are_not_asked_about(helm: Path) -> None:
    objects = render(helm, "--set", "agent.namespace=eyes")
    (config,) = [o for o in objects if o["metadata"]["name"] == "trainseal-config"]
    settings = yaml.safe_load(config["data"]["config.yaml"])
    assert "eyes" in settings["excludedNamespaces"]
    assert settings["agentNamespace"] == "eyes"
