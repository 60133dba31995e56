"""A signer whom the policy does not name any more: the same job is refused the next time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.e2e.lab import Lab, Object, make_namespace
from tests.stage.jobs import SHORT_CODE
from tests.stage.people import Person
from tests.stage.policies import policy
from tests.stage.signing import signed
from tests.stage.waiting import eventually

NAMESPACE = "research-revoked"


@pytest.fixture
def name_signers(lab: Lab) -> Iterator[Callable[..., None]]:
    """A namespace of its own, and its policy, which names these people for jobs and code."""
    make_namespace(lab, NAMESPACE)

    def put(*people: Person) -> None:
        made = policy(
            NAMESPACE,
            NAMESPACE,
            signers=people,
            image_signers=[lab.platform],
            registries=lab.registries,
        )
        lab.admin("apply", "-f", "-", stdin=made)

    yield put
    lab.admin("delete", "provenancepolicy", NAMESPACE, "--ignore-not-found")
    lab.admin("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture
def job(lab: Lab) -> Object:
    """A short job whose code bob signed; it is not signed yet."""
    found = lab.job("withdrawn", "finish.py", NAMESPACE)
    code = lab.push_tree("code-by-bob", SHORT_CODE, lab.bob)
    found["spec"]["code"][0]["oci"]["reference"] = code
    return found


def test_a_signer_revoked_between_two_submissions_counts_in_the_first_alone(
    lab: Lab, name_signers: Callable[..., None], job: Object, apply: Callable[[Object], Object]
) -> None:
    name_signers(lab.alice, lab.bob)
    by_alice = signed(job, lab.alice)
    eventually(lambda: not lab.answer(by_alice), "the webhook knows the policy")
    apply(by_alice)
    first = lab.wait_for_phase(by_alice, "Succeeded")
    assert {"alice", "bob"} <= set(first["signers"].split(", "))
    lab.delete(by_alice)

    def gone() -> bool:
        kinds = "trainingjobs,jobs,pods"
        label = f"trainseal.dev/job={job['metadata']['name']}"
        return not lab.admin("get", kinds, "-n", NAMESPACE, "-l", label, "-o", "name")

    eventually(gone, "the first run's objects are gone")

    name_signers(lab.bob)
    eventually(lambda: "none that counts" in lab.answer(by_alice), "the same submission is refused")
    assert "wants a signature by bob" in lab.refusal(by_alice)
    # The twin: the same job, signed by somebody who is still named; and by both.
    assert lab.accepts(signed(job, lab.bob))
    assert lab.accepts(signed(job, lab.alice, lab.bob))
    # What ran stays on record with who signed it then.
    seal = lab.get("sealedrun", first["sealedRun"], NAMESPACE)
    persons = {s["person"] for a in seal["spec"]["artifacts"] for s in a["signers"]}
    assert {"alice", "bob"} <= persons
