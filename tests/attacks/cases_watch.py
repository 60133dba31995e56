"""Group *The watch itself*: blinding it, flooding it, and taking its evidence away."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.attacks.case import Attack, Case, Finding, NotTried, Told
from tests.attacks.scene import AGENTS, TORCH, Scene, agent_process, open_scene, signal_agent
from tests.cluster import Cluster, CommandError
from tests.e2e.lab import EDITOR, Object
from tests.stage.jobs import FINISH
from tests.stage.release import NAMESPACE
from tests.stage.waiting import eventually

GROUP = "The watch itself"
ARCHIVE = "/var/lib/trainseal/archive"
_ROUNDS = 12

_WRITES = """
import os, time
began = time.time()
for number in range(100_000):
    with open(f"/tmp/{number % 500}.log", "a") as log:
        log.write("x")
    if number == 50_000:
        print("at", time.time(), flush=True)
        {bad}
print("seconds", time.time() - began)
"""

_FILES = """
import os, time
os.makedirs("/var/cache/flood", exist_ok=True)
for number in range(20_000):
    with open(f"/var/cache/flood/{number}", "w") as file:
        file.write("x")
    if number == 10_000:
        print("at", time.time(), flush=True)
        open("TORCH/functional.py", "a").write("# mallory")
""".replace("TORCH", TORCH)

_CACHE = """
import os
os.makedirs("/tmp/torchinductor_root/flood", exist_ok=True)
for number in range(20_000):
    with open(f"/tmp/torchinductor_root/flood/{number}.py", "w") as file:
        file.write("x")
"""

_BAD = f"open('{TORCH}/serialization.py', 'a').write('# mallory')"


def _flood(script: str) -> Attack:
    def do(scene: Scene) -> float:
        said = scene.says(f"python3 - <<'EOF'\n{script}\nEOF", 600)
        return next(float(w.split()[1]) for w in said.splitlines() if w.startswith("at"))

    return do


@contextlib.contextmanager
def _stopped_agent(scene: Scene) -> Iterator[float]:
    """Root on the node stops the agent: it is there, and does nothing."""
    signal_agent(scene, signal.SIGSTOP)
    try:
        yield time.time()
    finally:
        signal_agent(scene, signal.SIGCONT)


def _edited_while_stopped(scene: Scene) -> float:
    """What is done meanwhile waits in the kernel's queue."""
    signal_agent(scene, signal.SIGSTOP)
    try:
        return scene.sh(f"echo '# mallory' >> {TORCH}/hub.py")
    finally:
        signal_agent(scene, signal.SIGCONT)


def _files(scene: Scene, count: int) -> list[str]:
    listed = scene.says(f"ls {TORCH}/nn/modules/*.py").split()
    assert len(listed) >= count, listed
    return listed[:count]


def _agent_killed_again_and_again(scene: Scene) -> float:
    """Edits go on while root on the node kills the agent; each is one finding in the end."""
    files = _files(scene, _ROUNDS)
    node = scene.pod["spec"]["nodeName"]
    for number, path in enumerate(files):
        if number % 4 == 1:
            with contextlib.suppress(AssertionError, ProcessLookupError):
                signal_agent(scene, signal.SIGKILL)
        scene.sh(f"echo '# mallory' >> {path}")
    done = time.time()

    def found(path: str) -> int:
        return sum(s.finding.get("path") == path for s in scene.agent_findings())

    every = scene.sightings.wait(lambda: all(found(p) for p in files), 180)
    assert every, f"not found: {[p for p in files if not found(p)]}"
    assert agent_process(node)
    assert {p: found(p) for p in files} == dict.fromkeys(files, 1)
    return done


def _pods_of_ours_deleted(scene: Scene) -> float:
    """The agent's and the controller's pods are deleted while edits go on."""
    files = [
        f"{TORCH}/distributed/{name}.py" for name in ("rendezvous", "run", "launch", "rpc/api")
    ]
    began = time.time()
    for number, path in enumerate(files):
        if number == 1:
            scene.lab.admin("delete", "pods", "--all", "-n", AGENTS, "--wait=false")
        if number == 2:
            scene.lab.admin(
                "delete", "pods", "-n", NAMESPACE, "--wait=false",
                "-l", "app.kubernetes.io/component=controller",
            )  # fmt: skip
        began = scene.sh(f"echo '# mallory' >> {path}")

    def found(path: str) -> int:
        return sum(s.finding.get("path") == path for s in scene.agent_findings())

    every = scene.sightings.wait(lambda: all(found(p) for p in files), 180)
    assert every, f"not found: {[p for p in files if not found(p)]}"
    assert {p: found(p) for p in files} == dict.fromkeys(files, 1)
    eventually(lambda: bool(scene.lab.status(scene.job).get("drifted")), "the job shows it", 120)
    return began


def _cut_off(scene: Scene) -> float:
    """The API server stands still while somebody comes in from the node."""
    path = f"{TORCH}/random.py"
    assert isinstance(scene.lab.target, Cluster), "found a cluster of the user's, expected our own"
    server = scene.lab.target.api_server().pid
    os.kill(server, signal.SIGSTOP)
    try:
        scene.nsenter("sh", "-c", f"echo '# mallory' >> {path}")
        time.sleep(5)  # the attack itself: so long nothing can be written
    finally:
        began = time.time()
        os.kill(server, signal.SIGCONT)

    def found() -> int:
        return sum(s.finding.get("path") == path for s in scene.agent_findings())

    assert scene.sightings.wait(lambda: found() > 0, 120), f"{path} is not found"
    assert found() == 1
    return began


def _renew_certificate(scene: Scene) -> None:
    """As an administrator who withdraws it; until the webhook answers with the new one."""
    words = ("secret", "trainseal-webhook-tls", "-n", NAMESPACE)

    def uid() -> str:
        return scene.lab.admin(
            "get", *words, "-o", "jsonpath={.metadata.uid}", "--ignore-not-found"
        )

    before = uid()
    scene.lab.admin("delete", *words)
    eventually(lambda: uid() not in ("", before), "the certificate is made anew", 60)
    gpu = {"name": "x", "image": "x", "resources": {"limits": {"nvidia.com/gpu": 1}}}
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [gpu]}}
    asking = pod | {"metadata": {"name": "asking", "namespace": scene.namespace}}
    eventually(lambda: "asks for" in scene.lab.answer(asking), "the webhook answers by it", 180)


def _tidied(scene: Scene) -> None:
    """With its pods and its ConfigMap, while another run of the namespace goes on."""
    job = scene.lab.signed_job("tidied")
    space = job["metadata"]["namespace"]
    scene.lab.admin("apply", "-f", "-", stdin=job)
    scene.lab.wait_for_phase(job, "Running")
    (pod,) = scene.lab.pods(job)
    words = ("exec", pod["metadata"]["name"], "-c", "trainer", "-n", space, "--", *FINISH)
    scene.lab.admin(*words)
    scene.lab.wait_for_phase(job, "Succeeded")
    scene.lab.admin("delete", "trainingjob", "tidied", "-n", space)


def replace_agents(scene: Scene) -> None:
    """An administrator restarts them, as an upgrade does."""
    scene.lab.admin("rollout", "restart", "daemonset/trainseal-agent", "-n", AGENTS)
    scene.lab.admin(
        "rollout", "status", "daemonset/trainseal-agent", "-n", AGENTS, "--timeout=180s"
    )  # fmt: skip


def _refused(scene: Scene, *words: str) -> None:
    with pytest.raises(CommandError, match=r"orbidden|denied"):
        scene.lab.kubectl(*words, namespace=scene.namespace)


def _erased(scene: Scene) -> float:
    """An editor edits the optimizer and then takes away what tells of it; at last the namespace
    goes. The archive has the seal, the finding and the record of who was in the pod.
    """
    path = f"{TORCH}/optim/sgd.py"
    erased = open_scene(scene.lab, scene.sightings, scene.code, "erased", "research-erased")
    erased.renew()
    erased.sh(f"echo '# mallory' >> {path}")

    def finding() -> list[str]:
        return [s.finding["key"] for s in erased.agent_findings() if s.finding.get("path") == path]

    assert erased.sightings.wait(lambda: bool(finding()), 60), "the edit is not found"
    report = f"{erased.name}-{erased.uid[:8]}"
    began = time.time()
    _refused(erased, "delete", "driftreport", report)
    _refused(erased, "patch", "driftreport", report, "--type=merge", "-p", '{"status": null}')
    _refused(erased, "delete", "sealedrun", erased.seal)
    _refused(erased, "delete", "accessrecords", "--all")
    space = erased.namespace
    erased.lab.kubectl("delete", "trainingjob", "erased", "--wait=false", namespace=space)
    with contextlib.suppress(CommandError):
        erased.lab.kubectl("delete", "events", "--all", namespace=space)
    assert erased.lab.get("driftreport", report, erased.namespace)
    erased.lab.admin("delete", "namespace", erased.namespace, "--timeout=180s", seconds=200)

    def kept(name: str, kind: str, *words: str) -> bool:
        text = json.dumps(archived(erased, name, kind))
        return all(word in text for word in words)

    eventually(lambda: kept(report, "DriftReport", path, EDITOR), "the finding is kept")
    eventually(lambda: kept(erased.seal, "SealedRun", '"binding"'), "the seal is kept")
    assert _archive(erased, "verify", ARCHIVE).startswith("whole: ")
    return began


def archived(scene: Scene, name: str, kind: str) -> Object:
    """The last version of an object that the archive has; empty where it has none."""
    lines = _archive(scene, "list", ARCHIVE, "--name", name, "--kind", kind, "-o", "json")
    entries = [entry for line in lines.splitlines() if (entry := json.loads(line)).get("digest")]
    mine = [entry for entry in entries if entry["name"] == name]
    found: Object = json.loads(_archive(scene, "show", ARCHIVE, mine[-1]["digest"])) if mine else {}
    return found


def _archive(scene: Scene, *words: str) -> str:
    return scene.lab.admin(
        "exec", "-n", NAMESPACE, "deploy/trainseal-archive", "--", "trainseal", "evidence", *words
    )


CASES = (
    Case(
        GROUP, "one bad write among 100,000 to scratch", "T1562",
        Finding("file.changed", f"{TORCH}/serialization.py"),
        _flood(_WRITES.replace("{bad}", _BAD)),
        _flood(_WRITES.replace("{bad}", "pass")),
        "the 100,000 writes alone",
    ),
    Case(
        GROUP, "one bad write among 20,000 new files in the root", "T1562",
        Finding("file.changed", f"{TORCH}/functional.py"),
        _flood(_FILES),
        lambda s: s.py(_CACHE),
        "a compiler's cache of 20,000 files in scratch",
        on="flooded",
    ),
    Case(
        GROUP, "the agent stopped while a file is edited", "T1562",
        Finding("file.changed", f"{TORCH}/hub.py"),
        _edited_while_stopped,
        lambda s: s.sh("cat /checkpoints/*.pt > /tmp/all.pt; split -b 4096 /tmp/all.pt /tmp/part-"),
        "checkpoints read, joined and cut",
    ),
    Case(
        GROUP, "the agent killed again and again, 12 edits meanwhile", "T1562",
        Told("a finding for each edit, once"),
        _agent_killed_again_and_again,
        replace_agents, "the agent restarted",
    ),
    Case(
        GROUP, "agent and controller deleted, 4 edits meanwhile", "T1562",
        Told("a finding for each edit, once; the job's summary"),
        _pods_of_ours_deleted,
        _renew_certificate,
        "the webhook's certificate renewed",
    ),
    Case(
        GROUP, "the API server stopped while a file is edited from the node", "T1562",
        Told("the finding, once, when it answers again"),
        _cut_off,
    ),
    Case(
        GROUP, "the agent stopped for good", "T1562",
        Finding("watch.silent", by="", seconds=120),
        _stopped_agent,
    ),
    Case(
        GROUP, "evidence erased: job, events, report, seal, namespace", "T1070",
        Told("reports, records and seals refused; all in the archive"),
        _erased,
        _tidied,
        "a run that has ended deleted by who started it",
    ),
    Case(
        GROUP, "one node's agent reports on another's pods", "T1562",
        NotTried("two nodes; tests/integration/chart has the rules with two made-up nodes"),
    ),
    Case(GROUP, "clocks moved", "T1562", NotTried("a clock of its own")),
)  # fmt: skip
