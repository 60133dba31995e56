"""Who gets into a running worker, or ends it, is on record by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.cluster import CommandError
from tests.e2e.lab import EDITOR, TEAM, Lab, Object, make_namespace
from tests.e2e.test_training import trainseal
from tests.stage.jobs import FINISH
from tests.stage.policies import policy
from tests.stage.signing import signed
from tests.stage.waiting import eventually


@pytest.fixture
def worker(lab: Lab, apply: Callable[[Object], Object], request: pytest.FixtureRequest) -> Object:
    """The one pod of a job that runs; under a name of its own."""
    name = "access-" + request.node.name.removeprefix("test_").replace("_", "-")
    job = apply(lab.signed_job(name[:30].rstrip("-")))
    lab.wait_for_phase(job, "Running")
    (pod,) = lab.pods(job)
    return pod


def records(lab: Lab, pod: Object) -> list[Object]:
    """What is on record of a pod, as its editor may read it."""
    items = json.loads(lab.kubectl("get", "accessrecords", "-o", "json"))["items"]
    uid = pod["metadata"]["uid"]
    return [item["spec"] for item in items if item["spec"].get("pod", {}).get("uid") == uid]


def name_of(pod: Object) -> str:
    found: str = pod["metadata"]["name"]
    return found


def test_an_exec_works_and_names_who_ran_what(lab: Lab, worker: Object) -> None:
    said = lab.kubectl("exec", name_of(worker), "-c", "trainer", "--", "cat", "/etc/hostname")
    assert said.strip() == worker["spec"]["hostname"]
    (found,) = records(lab, worker)
    assert found["username"] == EDITOR
    assert "system:authenticated" in found["groups"]
    assert found["command"] == ["cat", "/etc/hostname"]
    assert (found["action"], found["container"], found["allowed"]) == ("Exec", "trainer", True)
    assert found["node"] == worker["spec"]["nodeName"]
    assert found["sealedRun"] == worker["metadata"]["labels"]["trainseal.dev/seal"]


def test_a_worker_that_is_deleted_is_one_record(lab: Lab, worker: Object) -> None:
    """The kubelet deletes it once more when its containers have ended: that is none."""
    lab.kubectl("delete", "pod", name_of(worker), "--timeout=60s")
    (found,) = records(lab, worker)
    assert (found["action"], found["username"]) == ("Delete", EDITOR)


def test_a_worker_that_ends_well_leaves_no_record_but_that_of_who_told_it_to(
    lab: Lab, worker: Object
) -> None:
    lab.kubectl("exec", name_of(worker), "-c", "trainer", "--", *FINISH)
    job = worker["metadata"]["labels"]["trainseal.dev/job"]
    lab.wait_for_phase({"metadata": {"name": job, "namespace": TEAM}}, "Succeeded")
    lab.kubectl("delete", "trainingjob", job, "--timeout=60s")

    def gone() -> bool:
        return not lab.admin(
            "get", "pods", "-n", TEAM, "-l", f"trainseal.dev/job={job}", "-o", "name"
        )

    eventually(gone, "its pods are gone")
    assert [r["action"] for r in records(lab, worker)] == ["Exec"]


def test_a_pod_of_nobodys_is_left_alone(lab: Lab, apply: Callable[[Object], Object]) -> None:
    pod = apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "access-bare", "namespace": TEAM},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {"name": "main", "image": lab.image, "command": ["sleep", "infinity"]}
                ],
            },
        }
    )
    lab.admin("wait", "pod/access-bare", "-n", TEAM, "--for=condition=Ready", "--timeout=240s")
    assert lab.kubectl("exec", "access-bare", "--", "echo", "in") == "in\n"
    assert records(lab, lab.get("pod", name_of(pod))) == []


def test_the_record_is_nobodys_to_change_or_take_away(lab: Lab, worker: Object) -> None:
    lab.kubectl("exec", name_of(worker), "-c", "trainer", "--", "true")
    selector = f"trainseal.dev/seal={worker['metadata']['labels']['trainseal.dev/seal']}"
    (line,) = lab.kubectl("get", "access", "-l", selector, "-o", "name").splitlines()
    for by in (lab.kubectl, lambda *args: lab.admin("-n", TEAM, *args)):
        with pytest.raises(CommandError, match=r"Forbidden|forbidden|denied"):
            by("delete", line)
        with pytest.raises(CommandError, match=r"Forbidden|forbidden|denied|cannot be changed"):
            by("patch", line, "--type=merge", "-p", '{"spec": {"username": "bob"}}')


# Shut by policy ---------------------------------------------------------------------------------

SHUT = "research-shut"
ONCALL = "oncall@example.org"


@pytest.fixture
def shut(lab: Lab, apply: Callable[[Object], Object]) -> Iterator[Object]:
    """The pod of a job that runs in a namespace whose policy asks for a BreakGlass; on call may
    give one, and review it.
    """
    make_namespace(lab, SHUT)
    made = policy(
        SHUT,
        SHUT,
        signers=[lab.alice],
        image_signers=[lab.platform],
        registries=lab.registries,
    )
    made["spec"]["access"] = {"exec": "BreakGlass", "attach": "Deny"}
    lab.admin("apply", "-f", "-", stdin=made)
    for role in ("trainseal-approver", "trainseal-responder", "view"):
        lab.admin(
            "create", "rolebinding", role, "-n", SHUT, f"--clusterrole={role}", f"--user={ONCALL}"
        )
    job = signed(lab.job("shut", namespace=SHUT), lab.alice)
    eventually(lambda: not lab.answer(job), "the webhook knows the policy")
    apply(job)
    lab.wait_for_phase(job, "Running")
    (pod,) = lab.pods(job)
    yield pod
    lab.delete(job)
    lab.admin("delete", "provenancepolicy", SHUT, "--ignore-not-found")
    lab.admin("delete", "namespace", SHUT, "--wait=false")


def test_nobody_gets_in_where_a_policy_says_so_but_by_a_break_glass_that_is_reviewed(
    lab: Lab, shut: Object
) -> None:
    pod, on_call = name_of(shut), lab.target.user_kubeconfig(ONCALL)

    def enter(*words: str) -> str:
        return lab.kubectl("exec", pod, "-c", "trainer", "--", *words, namespace=SHUT)

    def waiting() -> list[Object]:
        seal = shut["metadata"]["labels"]["trainseal.dev/seal"]
        found: list[Object] = lab.get("sealedrun", seal, SHUT)["status"].get("brokenGlass") or []
        return found

    def break_glass(*words: str) -> str:
        return trainseal(lab, "break-glass", *words, "-n", SHUT, kubeconfig=on_call)

    with pytest.raises(CommandError, match="found no BreakGlass for this user and run"):
        enter("true")
    with pytest.raises(CommandError, match=r"access\.attach is Deny"):
        lab.kubectl("attach", pod, "-c", "trainer", namespace=SHUT)
    # `kubectl cp` is an exec; what needs no way in goes on.
    with pytest.raises(CommandError, match="is BreakGlass"):
        lab.kubectl("cp", f"{pod}:/etc/hostname", "/dev/null", "-c", "trainer", namespace=SHUT)
    lab.kubectl("logs", pod, "-c", "trainer", namespace=SHUT)

    said = break_glass("shut", "--user", EDITOR, "--for", "10m", "--reason", "it hangs")
    assert f"{EDITOR} may get into the pods of {SHUT}/shut" in said
    eventually(lambda: _said(lambda: enter("echo", "in")) == "in\n", "it counts")
    items = json.loads(lab.kubectl("get", "accessrecords", "-o", "json", namespace=SHUT))["items"]
    by_it = [i["spec"] for i in items if "breakGlass" in i["spec"]]
    assert {(r["action"], r["username"], r["allowed"]) for r in by_it} == {("Exec", EDITOR, True)}
    refused = [i["spec"]["action"] for i in items if not i["spec"]["allowed"]]
    assert {"Exec", "Attach"} <= set(refused)

    eventually(lambda: bool(waiting()), "the run waits for review")
    assert [glass["user"] for glass in waiting()] == [EDITOR]
    with pytest.raises(CommandError) as listed:  # its exit code says that something waits
        break_glass("list", "shut", "-o", "json")
    (glass,) = json.loads(listed.value.stdout)["breakGlasses"]
    assert (glass["approvedBy"], glass["waits"]["user"]) == (ONCALL, EDITOR)
    assert "reviewed" in break_glass("review", "shut", "--reason", "nothing found")
    assert waiting() == []


def _said(ask: Callable[[], str]) -> str:
    """The answer; what is said where it is refused."""
    try:
        return ask()
    except CommandError as error:
        return str(error)
