"""`trainseal debug --stacks`: asks in one's own name, waits for nodes, shows who stands where."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tests.unit import world
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_kube import FakeKube, connecting_to
from trainseal.cli import stacks
from trainseal.cluster import api
from trainseal.cluster.api import Kube, KubeError, NotFoundError

NAMESPACE = "/apis/trainseal.dev/v1alpha1/namespaces/research"
REQUESTS, DUMPS = f"{NAMESPACE}/stackrequests", f"{NAMESPACE}/stackdumps"
PODS = "/api/v1/namespaces/research/pods"
REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
ARGUMENTS = ("--stacks", "-n", "research", "--kubeconfig", "unused")
MINUTE = "202611231200"


def pod(seal: str, index: int, role: str = "worker", phase: str = "Running") -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"char-lm-{role}-{index}-x",
            "uid": f"uid-{role}-{index}",
            "labels": {"trainseal.dev/seal": seal, "trainseal.dev/role": role},
            "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
        },
        "spec": {"nodeName": f"node-{index}"},
        "status": {"phase": phase},
    }


def dump(seal: str, index: int, function: str = "all_reduce", **status: Any) -> dict[str, Any]:
    frames = [{"name": function, "file": "/workspace/train.py", "line": 7}]
    main = {"name": "MainThread", "main": True, "frames": frames}
    process = {
        "pid": 100 + index,
        "parent": 1,
        "container": "trainer",
        "executable": "/usr/bin/python3.11",
        "threads": [main],
    }
    return {
        "metadata": {"name": f"dump-{index}", "namespace": "research"},
        "spec": {
            "sealedRun": seal,
            "node": f"node-{index}",
            "pod": {"name": f"char-lm-worker-{index}-x", "uid": f"uid-worker-{index}"},
        },
        "status": {
            "request": f"{seal}-{MINUTE}",
            "takenAt": "2026-11-23T12:00:31Z",
            "processes": [process],
        }
        | status,
    }


class Stage:
    """A run of four ranks that all stand at the same place, and answer at once."""

    def __init__(self) -> None:
        sealed = world.sealed_world()
        self.job = sealed.job
        self.seal = sealed.seal["metadata"]["name"]
        self.job["status"] = {"phase": "Running", "sealedRun": self.seal}
        self.pods = [pod(self.seal, n) for n in range(4)]
        self.dumps = [dump(self.seal, n) for n in range(4)]
        self.review = {
            "metadata": {"creationTimestamp": "2026-11-23T12:00:30Z"},
            "status": {"userInfo": {"username": "ann@example.org"}},
        }
        self.kube = FakeKube(
            {
                f"{NAMESPACE}/trainingjobs/char-lm": self.job,
                PODS: {"items": self.pods},
                DUMPS: {"items": self.dumps, "metadata": {"resourceVersion": "7"}},
                REVIEWS: self.review,
            }
        )

    @property
    def requests(self) -> dict[str, Any]:
        return {
            path.rpartition("/")[2]: obj["spec"]
            for path, obj in self.kube.objects.items()
            if path.startswith(f"{REQUESTS}/")
        }


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    found = Stage()
    monkeypatch.setattr(api, "connect", connecting_to(found.kube))
    monkeypatch.setattr(stacks, "_PAUSE", 0.01)
    ask = stacks.ask

    async def impatiently(
        kube: Kube, namespace: str, job: str, rank: str | None, _: float, *told: Any
    ) -> stacks.RunStacks:
        return await ask(kube, namespace, job, rank, 0.2, *told)

    monkeypatch.setattr(stacks, "ask", impatiently)
    return found


def test_ranks_that_stand_at_the_same_place_are_shown_once(trainseal: Run, stage: Stage) -> None:
    answer = trainseal("debug", "char-lm", *ARGUMENTS)
    assert (answer.code, answer.err) == (0, "")
    assert "4 of 4 ranks answered, asked for by ann@example.org" in answer.out
    assert "main threads: all alike\n  ranks 0-3  MainThread\n" in answer.out
    assert answer.out.count("all_reduce  /workspace/train.py:7") == 1


def test_the_odd_one_out_is_shown_by_itself(trainseal: Run, stage: Stage) -> None:
    stage.dumps[2] = dump(stage.seal, 2, "__getitem__")
    answer = trainseal("debug", "char-lm", *ARGUMENTS)
    assert "main threads: 2 different" in answer.out
    assert answer.out.index("ranks 0-1, 3") < answer.out.index("rank 2")
    assert answer.out.count("__getitem__") == 1


def test_the_request_is_in_the_name_of_who_asks_and_of_the_servers_minute(
    trainseal: Run, stage: Stage
) -> None:
    trainseal("debug", "char-lm", *ARGUMENTS)
    assert stage.requests == {
        f"{stage.seal}-{MINUTE}": {"sealedRun": stage.seal, "user": "ann@example.org"}
    }


def test_who_asks_in_the_same_minute_gets_the_same_answer(trainseal: Run, stage: Stage) -> None:
    name = f"{stage.seal}-{MINUTE}"
    stage.kube.objects[f"{REQUESTS}/{name}"] = {
        "metadata": {"name": name, "creationTimestamp": "2026-11-23T12:00:02Z"},
        "spec": {"sealedRun": stage.seal, "user": "bob@example.org"},
    }
    answer = trainseal("debug", "char-lm", *ARGUMENTS)
    assert answer.code == 0
    assert "asked for by bob@example.org at 2026-11-23T12:00:02Z" in answer.out


def test_a_minute_that_turns_meanwhile_is_asked_for_anew(
    trainseal: Run, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = stage.kube.create
    refused: list[str] = []

    async def once(path: str, obj: Any, **flags: Any) -> Any:
        if not refused:
            refused.append(obj["metadata"]["name"])
            stage.review["metadata"] = {"creationTimestamp": "2026-11-23T12:01:00Z"}
            raise KubeError(
                403,
                "Forbidden",
                "ValidatingAdmissionPolicy 'trainseal-stack-requests' denied request: "
                "StackRequest research/x: expected the name y",
            )
        return await create(path, obj, **flags)

    monkeypatch.setattr(stage.kube, "create", once)
    for number in range(4):
        stage.dumps[number]["status"]["request"] = f"{stage.seal}-202611231201"
    assert trainseal("debug", "char-lm", *ARGUMENTS).code == 0
    assert refused == [f"{stage.seal}-{MINUTE}"]
    assert list(stage.requests) == [f"{stage.seal}-202611231201"]


def test_answers_are_waited_for(trainseal: Run, stage: Stage) -> None:
    late = [stage.dumps.pop(), stage.dumps.pop()]
    stage.kube.events = [("ADDED", late[0]), ("BOOKMARK", {}), ("MODIFIED", late[1])]
    answer = trainseal("debug", "char-lm", *ARGUMENTS)
    assert answer.code == 0
    assert "4 of 4 ranks answered" in answer.out


@pytest.mark.parametrize(
    "changed",
    [
        {"status": {"request": "{seal}-202611231159"}},
        {"status": {"request": "other-01234567-89abcdef-202611231200"}},
        {"status": {"request": "zzz"}},
        {"status": None},
        {"spec": {"sealedRun": "other"}},
        {"spec": {"node": "node-9"}},
    ],
    ids=["an earlier one", "another run's", "none", "not written yet", "another seal", "node"],
)
def test_what_is_no_answer_to_this_request_is_not_shown(
    trainseal: Run, stage: Stage, changed: dict[str, Any]
) -> None:
    ((part, fields),) = changed.items()
    odd = stage.dumps[3]
    if fields is None:
        del odd[part]
    else:
        odd[part] |= {k: v.format(seal=stage.seal) for k, v in fields.items()}
    answer = trainseal("debug", "char-lm", *ARGUMENTS)
    assert answer.code == 2
    assert "3 of 4 ranks answered" in answer.out
    assert "ranks 0-2" in answer.out
    assert "rank 3 (char-lm-worker-3-x on node-3): no answer within" in answer.out


def test_an_answer_to_a_later_request_is_as_good(trainseal: Run, stage: Stage) -> None:
    """It was read after we asked; the agents keep the last one only."""
    stage.dumps[1]["status"]["request"] = f"{stage.seal}-202611231201"
    assert trainseal("debug", "char-lm", *ARGUMENTS).code == 0


def test_a_node_that_speaks_of_another_nodes_pod_is_named(trainseal: Run, stage: Stage) -> None:
    stage.dumps[3]["spec"]["node"] = "node-9"
    answer = trainseal("debug", "char-lm", *ARGUMENTS)
    assert "node node-9 spoke of a pod of node node-3" in answer.out


def test_one_rank_is_shown_and_waited_for_alone(trainseal: Run, stage: Stage) -> None:
    del stage.dumps[:2]
    stage.dumps[0] = dump(stage.seal, 2, "__getitem__")
    answer = trainseal("debug", "char-lm", "--rank", "2", *ARGUMENTS)
    assert answer.code == 0
    assert "1 of 1 ranks answered" in answer.out
    assert "all_reduce" not in answer.out


def test_with_several_roles_ranks_bear_their_roles_names(trainseal: Run, stage: Stage) -> None:
    stage.job["spec"]["roles"].append(copy.deepcopy(stage.job["spec"]["roles"][0]))
    stage.job["spec"]["roles"][1]["name"] = "launcher"
    answer = trainseal("debug", "char-lm", "--rank", "worker/2", *ARGUMENTS)
    assert answer.code == 0
    assert "rank worker/2" in answer.out


def test_a_rank_that_is_not_there_is_refused_with_those_that_are(
    trainseal: Run, stage: Stage
) -> None:
    answer = trainseal("debug", "char-lm", "--rank", "9", *ARGUMENTS)
    assert answer.code == 64
    assert "no rank 9 of research/char-lm runs" in answer.err
    assert "0-3" in answer.err
    assert stage.requests == {}


def test_a_rank_that_does_not_run_is_told_and_not_waited_for(trainseal: Run, stage: Stage) -> None:
    stage.pods[3]["status"]["phase"] = "Pending"
    stage.dumps.pop()
    answer = trainseal("debug", "char-lm", *ARGUMENTS)
    assert answer.code == 0
    assert "rank 3 (char-lm-worker-3-x) does not run: Pending" in answer.out


def test_a_pod_without_stacks_says_why_and_the_command_ends_with_2(
    trainseal: Run, stage: Stage
) -> None:
    words = "no Python stacks: no process of the pod's containers is Python"
    stage.dumps[3]["status"] |= {"processes": None, "message": words}
    answer = trainseal("debug", "char-lm", *ARGUMENTS)
    assert answer.code == 2
    assert f"rank 3 (char-lm-worker-3-x): {words}" in answer.out


def test_a_process_without_stacks_says_why_beside_those_that_have_some(
    trainseal: Run, stage: Stage
) -> None:
    processes = stage.dumps[3]["status"]["processes"]
    processes.append(processes[0] | {"pid": 9, "threads": None, "problem": "no Python stacks: x"})
    answer = trainseal("debug", "char-lm", *ARGUMENTS)
    assert answer.code == 0
    assert "rank 3, process 9 (/usr/bin/python3.11): no Python stacks: x" in answer.out


def test_what_was_left_out_is_counted(trainseal: Run, stage: Stage) -> None:
    status = stage.dumps[3]["status"]
    status["processesOmitted"] = 2
    status["processes"][0]["threadsOmitted"] = 3
    status["processes"][0]["threads"][0]["framesOmitted"] = 4
    answer = trainseal("debug", "char-lm", *ARGUMENTS)
    for words in ("2 more Python processes", "3 more threads", "4 more calls"):
        assert words in answer.out


def test_names_that_a_process_chose_are_made_fit_for_the_terminal(
    trainseal: Run, stage: Stage
) -> None:
    thread = stage.dumps[3]["status"]["processes"][0]["threads"][0]
    thread["name"] = "\x1b[31mred"
    thread["frames"][0] |= {"name": "\x1b]0;f", "file": "\x1b[2Jx"}
    answer = trainseal("debug", "char-lm", *ARGUMENTS)
    assert "\x1b" not in answer.out
    assert "\\x1b[31mred" in answer.out


def test_programs_get_ranks_groups_and_what_is_missing(trainseal: Run, stage: Stage) -> None:
    stage.dumps.pop()
    answer = trainseal("debug", "char-lm", *ARGUMENTS, "-o", "json")
    found = json.loads(answer.out)
    assert (answer.code, found["user"]) == (2, "ann@example.org")
    assert [r["rank"] for r in found["ranks"]] == ["0", "1", "2"]
    (group,) = found["groups"]
    assert (group["main"], group["ranks"]) == (True, ["0", "1", "2"])
    assert group["frames"] == [{"name": "all_reduce", "file": "/workspace/train.py", "line": 7}]
    (missing,) = found["unanswered"]
    assert (missing["rank"], missing["node"]) == ("3", "node-3")


def test_who_may_not_ask_is_told_which_right_it_takes(trainseal: Run, stage: Stage) -> None:
    stage.kube.refusal = KubeError(403, "Forbidden", "cannot create stackrequests")
    answer = trainseal("debug", "char-lm", *ARGUMENTS)
    assert answer.code == 1
    assert "cannot create stackrequests" in answer.err
    assert "trainseal-debugger" in answer.err


def test_a_cluster_without_the_kind_is_told_to_be_upgraded(trainseal: Run, stage: Stage) -> None:
    stage.kube.refusal = NotFoundError(404, "NotFound", "no such resource")
    answer = trainseal("debug", "char-lm", *ARGUMENTS)
    assert answer.code == 2
    assert "upgrade the chart" in answer.err


def test_without_a_run_or_running_pods_nothing_is_asked(trainseal: Run, stage: Stage) -> None:
    for item in stage.pods:
        item["status"]["phase"] = "Succeeded"
    answer = trainseal("debug", "char-lm", *ARGUMENTS)
    assert (answer.code, "found 4 that are Succeeded" in answer.err) == (2, True)
    stage.job["status"] = {"phase": "Refused"}
    answer = trainseal("debug", "char-lm", *ARGUMENTS)
    assert (answer.code, "has no run" in answer.err) == (2, True)
    assert "no TrainingJob" in trainseal("debug", "other", *ARGUMENTS).err
    assert stage.requests == {}


def test_what_to_look_at_has_to_be_said(trainseal: Run, stage: Stage) -> None:
    answer = trainseal("debug", "char-lm", "-n", "research")
    assert answer.code == 64
    assert "--stacks" in answer.err
