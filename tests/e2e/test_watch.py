"""The watch, for real: who edits the installed PyTorch of a running worker is named at once."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import json
from collections.abc import Callable, Iterator

import pytest

from tests.cluster import CommandError
from tests.e2e.lab import EDITOR, TEAM, Lab, Object
from tests.e2e.refusals import refused_to_us
from tests.e2e.reports import answered_by, condition, report
from tests.guides.ground import ADMIN, Ground
from tests.stage.jobs import FINISH
from tests.stage.release import NAMESPACE
from tests.stage.waiting import eventually

ARCHIVE = "/var/lib/trainseal/archive"
OPTIMIZER = "/usr/lib/python3/dist-packages/torch/optim/sgd.py"


@pytest.fixture
def worker(lab: Lab, apply: Callable[[Object], Object]) -> tuple[Object, Object]:
    """A running job, and its pod, which is watched."""
    job = apply(lab.signed_job("char-lm"))
    lab.wait_for_phase(job, "Running")
    (pod,) = lab.pods(job)
    eventually(lambda: condition(lab, pod, "Watching") == "True", "the pod is watched")
    return job, pod


def findings(lab: Lab, pod: Object) -> list[Object]:
    """What was found on the pod, without what only says that somebody came in."""
    found: list[Object] = report(lab, pod).get("status", {}).get("findings", [])
    return [f for f in found if f["severity"] != "Info"]


def test_who_edits_the_installed_optimizer_is_named_with_the_difference(
    lab: Lab, worker: tuple[Object, Object]
) -> None:
    _, pod = worker
    script = f"echo 'lr = 0  # mallory' >> {OPTIMIZER}"
    lab.kubectl("exec", pod["metadata"]["name"], "--", "sh", "-c", script)

    eventually(lambda: bool(findings(lab, pod)), "the edit is found", seconds=10)
    eventually(
        lambda: all(f.get("user") for f in findings(lab, pod)), "the editor is named", seconds=10
    )
    (found,) = [f for f in findings(lab, pod) if f["path"] == OPTIMIZER]
    assert found["id"] == "file.changed"
    assert found["severity"] == "Critical"
    assert found["user"] == EDITOR
    assert found["accessRecord"].startswith(pod["metadata"]["name"])
    assert "+lr = 0  # mallory" in found["difference"]
    assert found["evidence"]["signed digest"] != found["evidence"]["digest"]


def test_evidence_of_an_edit_is_kept_and_outlives_what_it_is_about(
    lab: Lab, ground: Ground, worker: tuple[Object, Object]
) -> None:
    """Read as how-to/keep-evidence.md says."""
    _, pod = worker
    name = pod["metadata"]["name"]
    secret = "not-for-evidence"
    # It stays a moment, so that its environment and maps can be read.
    script = f"export API_TOKEN={secret}; echo 'lr = 0  # mallory' >> {OPTIMIZER}; sleep 2"
    lab.kubectl("exec", name, "--", "sh", "-c", script)
    eventually(
        lambda: any(f.get("evidenceItem") for f in findings(lab, pod)), "evidence is kept", 10
    )
    (found,) = [f for f in findings(lab, pod) if f["path"] == OPTIMIZER]
    live = lab.get("evidenceitem", found["evidenceItem"])
    file = live["spec"]["file"]
    assert (file["path"], file["state"]) == (OPTIMIZER, "Kept")
    assert file["digest"] == found["evidence"]["digest"]
    assert file["signedDigest"] == found["evidence"]["signed digest"]
    kept = gzip.decompress(base64.b64decode(file["content"]))
    assert kept.endswith(b"lr = 0  # mallory\n")
    assert f"sha256:{hashlib.sha256(kept).hexdigest()}" == file["digest"]
    # Who did it, its shell, and the trainer beside them; nobody's secret.
    assert secret not in json.dumps(live)
    commands = [" ".join(p.get("command", ())) for p in live["spec"]["processes"]]
    assert any("mallory" in command for command in commands)
    assert any("wait.py" in command for command in commands)
    acting = live["spec"]["processes"][0]
    assert any(v["name"] == "PATH" for v in acting["environment"])
    assert any("x" in m["rights"] for m in acting["maps"])

    # The team's editor may neither read nor delete it; what its namespace's end takes, stays.
    for verb in ("get", "delete"):
        with pytest.raises(CommandError):
            lab.kubectl(verb, "evidenceitem", found["evidenceItem"])
    show = (
        *("exec", "-n", NAMESPACE, "deploy/trainseal-archive", "--"),
        *("trainseal", "evidence", "show", ARCHIVE, found["evidenceItem"]),
    )
    eventually(lambda: answers(lab, *show), "the archive has it")
    read_and_proved(ground, found["evidenceItem"], kept)
    lab.admin(
        "delete", "evidenceitem", found["evidenceItem"], "-n", TEAM,
        "--as=system:serviceaccount:kube-system:namespace-controller",
    )  # fmt: skip
    assert json.loads(lab.admin(*show, "-o", "json"))["spec"] == live["spec"]
    assert "lr = 0  # mallory" in lab.admin(*show, "--extract", "-")


def read_and_proved(ground: Ground, item: str, kept: bytes) -> None:
    """By whoever administers the cluster."""
    walk = ground.walk("how-to/keep-evidence.md", ADMIN)
    walk.known["char-lm-worker-0-x7kq2-0aa3b1c2-0123456789abcdef"] = item
    walk.instead["archive list"] = f"EvidenceItem research {item} sha256:4f2a"

    def noted() -> None:
        """The head that somebody wrote down before the volume was copied."""
        asked = ("configmap", "trainseal-evidence-head", "-o", "jsonpath={.data.head}")
        walk.known["1200@sha256:…"] = ground.lab.admin("get", "-n", NAMESPACE, *asked)
        (walk.folder / "adam.py").unlink()

    def changed() -> None:
        assert (walk.folder / "adam.py").read_bytes() == kept
        (walk.folder / "adam.py").unlink()

    walk.before("archive show /var/lib/trainseal/archive char-lm", changed)
    walk.before("kubectl -n trainseal-system exec", noted)
    walk.go()


def answers(lab: Lab, *command: str) -> bool:
    """Whether kubectl succeeds."""
    try:
        lab.admin(*command)
    except CommandError:
        return False
    return True


def test_a_job_that_nobody_touches_has_no_finding(lab: Lab, worker: tuple[Object, Object]) -> None:
    job, pod = worker
    # Its own way out: a checkpoint, a log and the word to finish, as trainers have them.
    name = pod["metadata"]["name"]
    lab.kubectl("exec", name, "--", "sh", "-c", "echo weights > /checkpoints/step-1; date > /tmp/x")
    with contextlib.suppress(CommandError):  # it may end before the session does
        lab.kubectl("exec", name, "--", *FINISH)
    lab.wait_for_phase(job, "Succeeded")
    eventually(
        lambda: condition(lab, pod, "Watching") == "False", "the watch has ended with the pod"
    )
    assert findings(lab, pod) == []


def test_an_agent_that_is_replaced_loses_no_finding_and_repeats_none(
    lab: Lab, worker: tuple[Object, Object]
) -> None:
    _, pod = worker
    name = pod["metadata"]["name"]
    lab.kubectl("exec", name, "--", "sh", "-c", f"echo '#' >> {OPTIMIZER}")
    eventually(lambda: bool(findings(lab, pod)), "the edit is found", seconds=10)
    before = {f["key"]: f["firstTime"] for f in findings(lab, pod)}
    assert refused_to_us(lab) == []  # its log goes with it
    lab.admin("rollout", "restart", "daemonset/trainseal-agent", "-n", "trainseal-agent")
    lab.admin(
        "rollout", "status", "daemonset/trainseal-agent", "-n", "trainseal-agent", "--timeout=240s"
    )
    other = OPTIMIZER.replace("sgd", "adam")
    lab.kubectl("exec", name, "--", "sh", "-c", f"echo '#' >> {other}")
    eventually(
        lambda: other in {f.get("path") for f in findings(lab, pod)}, "the next edit is found"
    )
    after = {f["key"]: f["firstTime"] for f in findings(lab, pod)}
    assert before.items() <= after.items()
    paths = [(f["id"], f.get("path")) for f in findings(lab, pod)]
    assert len(paths) == len(set(paths))


@pytest.fixture
def freezing(lab: Lab) -> Iterator[None]:
    """The team's policy answers critical findings with a freeze."""
    with answered_by(lab, "Freeze"):
        yield


@pytest.mark.usefixtures("freezing")
def test_a_pod_is_frozen_at_once_and_can_still_be_deleted(
    lab: Lab, worker: tuple[Object, Object]
) -> None:
    job, pod = worker
    name = pod["metadata"]["name"]
    lab.kubectl("exec", name, "--", "sh", "-c", f"echo '#' >> {OPTIMIZER}")
    eventually(lambda: condition(lab, pod, "Frozen") == "True", "the pod is frozen", seconds=10)
    # Nobody gets in: to the runtime its container is paused.
    with pytest.raises(CommandError):
        lab.kubectl("exec", name, "--", "true")
    lab.delete(job)
    lab.admin("wait", "--for=delete", f"pod/{name}", "-n", TEAM, "--timeout=60s")
