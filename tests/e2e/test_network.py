"""The NetworkPolicy of a run, enforced: ranks reach each other, and nobody else reaches one."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.cluster import Cluster, CommandError
from tests.cluster.addresses import API_SERVICE_IP
from tests.e2e.lab import EDITOR, TEAM, Lab, Object
from tests.e2e.reports import answered_by, condition
from tests.e2e.test_outages import processes_of
from tests.e2e.test_responses import edit
from tests.stage.jobs import SHORT_CODE
from tests.stage.signing import signed
from tests.stage.waiting import eventually
from trainseal.api.accessrecord import LABEL_SEAL

PORT = 29500
#: Listens as a rendezvous does, and otherwise waits as wait.py.
LISTEN = f"""\
import socket, threading

listening = socket.create_server(("0.0.0.0", {PORT}))


def take():
    while True:
        listening.accept()[0].close()


threading.Thread(target=take, daemon=True).start()
""" + SHORT_CODE["wait.py"]
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()"


@pytest.fixture
def ranks(lab: Lab, cluster: Cluster, apply: Callable[[Object], Object]) -> list[Object]:
    """The two pods of a run that listen."""
    del cluster  # only ours is known to enforce policies
    return _listening(lab, apply, _name())


def _name(beginning: str = "listens") -> str:
    """Another one each time: one of the same name may still be on its way out."""
    return f"{beginning}-{secrets.token_hex(2)}"


def _listening(lab: Lab, apply: Callable[[Object], Object], name: str) -> list[Object]:
    code = lab.push_tree("listens", {"listen.py": LISTEN}, lab.alice)
    job = lab.job(name, "listen.py")
    job["spec"]["code"][0]["oci"]["reference"] = code
    job["spec"]["roles"][0]["replicas"] = 2
    job = apply(signed(job, lab.alice))

    def addressed() -> list[Object]:
        return [pod for pod in lab.pods(job) if pod["status"]["phase"] == "Running"]

    eventually(lambda: len(addressed()) == 2, "both run")
    return sorted(addressed(), key=lambda pod: str(pod["metadata"]["name"]))


@pytest.fixture
def stranger(lab: Lab, apply: Callable[[Object], Object]) -> Object:
    """A pod of the editor's in the same namespace, without a GPU."""
    container = {"name": "main", "image": lab.image, "command": ["sleep", "infinity"]}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    metadata = {"name": _name("stranger"), "namespace": TEAM}
    made = apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    pod = f"pod/{metadata['name']}"
    lab.admin("wait", pod, "-n", TEAM, "--for=condition=Ready", "--timeout=240s")
    return made


def test_ranks_reach_each_other_and_nobody_else_reaches_one(
    lab: Lab, ranks: list[Object], stranger: Object
) -> None:
    first, second = ranks
    eventually(lambda: _reaches(lab, second, _address(first)), "the second reaches the first")
    eventually(lambda: _reaches(lab, first, _address(second)), "and the first the second")
    eventually(lambda: _reaches(lab, stranger, API_SERVICE_IP, 443), "a stranger has a network")
    eventually(lambda: not _reaches(lab, stranger, _address(first)), "and does not reach a rank")
    assert not _reaches(lab, stranger, _address(second))


def test_who_lets_a_stranger_into_a_run_to_come_is_found_and_into_one_that_lives_refused(
    lab: Lab, cluster: Cluster, apply: Callable[[Object], Object], stranger: Object
) -> None:
    del cluster
    name = _name()
    theirs = apply(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": TEAM},
            "spec": {
                "podSelector": {"matchLabels": {"trainseal.dev/job": name}},
                "ingress": [{"from": [{"podSelector": {}}]}],
            },
        }
    )
    first, _ = _listening(lab, apply, name)
    eventually(lambda: _reaches(lab, stranger, _address(first)), "the stranger is in")

    def found() -> list[str]:
        """Who opened the run, as its report has it."""
        reports = lab.listed("driftreports", labels=f"{LABEL_SEAL}={_seal(first)}")
        findings = [f for r in reports for f in r.get("status", {}).get("findings", [])]
        return [f.get("user") for f in findings if f["id"] == "network.opened"]

    eventually(lambda: found() == [EDITOR], "it is found, with who made it")
    lab.kubectl("delete", "networkpolicy", name)
    eventually(lambda: not _reaches(lab, stranger, _address(first)), "the stranger is out")
    assert f"sealed by SealedRun {TEAM}/{_seal(first)}" in lab.refusal(theirs)


def test_in_quarantine_not_even_its_own_ranks_reach_one(lab: Lab, ranks: list[Object]) -> None:
    first, second = ranks
    for pod in ranks:
        eventually(lambda pod=pod: condition(lab, pod, "Watching") == "True", "it is watched")  # type: ignore[misc]
    (process,) = processes_of(second["metadata"]["uid"], b"/workspace/listen.py")
    eventually(lambda: _enters(process, _address(first)), "the second reaches the first")
    with answered_by(lab, "Quarantine"):
        edit(lab, second)
        seal = _seal(second)
        eventually(
            lambda: "isolatedSince" in lab.get("sealedrun", seal).get("status", {}),
            "it is isolated",
        )
        # What listens is frozen; the kernel would take the connection all the same.
        eventually(lambda: not _enters(process, _address(first)), "nobody reaches it any more")


def _seal(pod: Object) -> str:
    return str(pod["metadata"]["labels"][LABEL_SEAL])


def _address(pod: Object) -> str:
    return str(pod["status"]["podIP"])


def _reaches(lab: Lab, pod: Object, address: str, port: int = PORT) -> bool:
    """Whether a program in the pod gets a connection."""
    container = pod["spec"]["containers"][0]["name"]
    words = ("exec", pod["metadata"]["name"], "-c", container, "--", "python3", "-c", CONNECT)
    try:
        lab.kubectl(*words, address, str(port))
    except CommandError as error:
        if "in create_connection" not in error.stderr:
            raise
        return False
    return True


def _enters(process: int, address: str) -> bool:
    """The same by root on the node, from the network namespace of a process: it may be frozen."""
    words = ("nsenter", "-t", str(process), "-n", sys.executable, "-c", CONNECT, address, str(PORT))
    return subprocess.run(words, capture_output=True, timeout=60, check=False).returncode == 0
