"""Registries: which are asked at all, and what is said while one does not answer."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.cluster import Cluster
from tests.e2e.lab import TEAM, Lab, Object
from tests.stage.jobs import SHORT_CODE, trainer
from tests.stage.policies import policy
from tests.stage.signing import signed
from tests.stage.waiting import eventually

NOWHERE = "@sha256:" + "0" * 64


@dataclass
class Listener:
    """Something that pods can reach, and that counts who connects."""

    address: str
    connections: int = 0


@pytest.fixture
def listen(cluster: Cluster) -> Iterator[Callable[[], Listener]]:
    """Opens ports of this machine, on its side of the cluster's network."""
    assert cluster.plan is not None
    host = cluster.plan.host
    with contextlib.ExitStack() as stack:

        def opened() -> Listener:
            server = stack.enter_context(socket.create_server((host, 0)))
            found = Listener(f"{host}:{server.getsockname()[1]}")

            def count() -> None:
                with contextlib.suppress(OSError):  # closed: the test is over
                    while True:
                        connection, _ = server.accept()
                        connection.close()
                        found.connections += 1

            threading.Thread(target=count, daemon=True).start()
            return found

        yield opened


def with_image(lab: Lab, name: str, image: str) -> Object:
    job = lab.job(name)
    trainer(job)["image"] = image
    return signed(job, lab.alice)


@pytest.fixture
def allow(lab: Lab) -> Iterator[Callable[[Listener], None]]:
    """Lets the team's policy allow one registry more, until the test is over."""

    def put(*more: str) -> None:
        made = policy(
            TEAM,
            TEAM,
            signers=[lab.alice, lab.bob],
            image_signers=[lab.platform],
            registries=[*lab.registries, *more],
        )
        lab.admin("apply", "-f", "-", stdin=made)

    yield lambda registry: put(registry.address)
    put()


def test_a_registry_outside_the_allow_list_is_not_contacted(
    lab: Lab, listen: Callable[[], Listener], allow: Callable[[Listener], None]
) -> None:
    registry = listen()
    image = f"{registry.address}/research/pytorch{NOWHERE}"
    code = lab.job("outside-code")
    code["spec"]["code"][0]["oci"]["reference"] = image
    for job in (with_image(lab, "outside", image), signed(code, lab.alice)):
        said = lab.refusal(job)
        assert "is outside the allowed repositories, and was not contacted" in said
    assert registry.connections == 0
    # The twin: the same job, once the policy allows it, is looked up there.
    allow(registry)
    job = with_image(lab, "outside", image)
    eventually(lambda: "not contacted" not in lab.answer(job), "the policy is known")
    assert registry.connections > 0


def test_an_unsigned_job_makes_nobody_contact_its_registry(
    lab: Lab, listen: Callable[[], Listener], allow: Callable[[Listener], None]
) -> None:
    registry = listen()
    allow(registry)
    known = with_image(lab, "known", f"{registry.address}/research/pytorch")
    eventually(lambda: "not contacted" not in lab.answer(known), "the policy is known")
    assert registry.connections == 0
    job = with_image(lab, "unsigned-outside", f"{registry.address}/research/pytorch{NOWHERE}")
    unsigned = {**job, "spec": {k: v for k, v in job["spec"].items() if k != "signatures"}}
    assert "no signature found" in lab.refusal(unsigned)
    assert registry.connections == 0
    lab.refusal(job)
    assert registry.connections > 0


@pytest.fixture
def registry_down(cluster: Cluster) -> Iterator[Callable[[], None]]:
    """Stops the registry when called; it is back after the test."""
    yield cluster.stop_registry
    cluster.start_registry()


def test_while_the_registry_is_down_nothing_is_called_unsigned(
    lab: Lab,
    cluster: Cluster,
    apply: Callable[[Object], Object],
    registry_down: Callable[[], None],
) -> None:
    running = apply(lab.signed_job("before-the-outage"))
    lab.wait_for_phase(running, "Running")
    code = lab.push_tree("outage", {**SHORT_CODE, "outage": ""}, lab.alice)
    job = lab.job("in-the-outage")
    job["spec"]["code"][0]["oci"]["reference"] = code
    job = signed(job, lab.alice)
    registry_down()
    said = lab.refusal(job)
    assert "could not be verified (undetermined)" in said
    assert "not the same as a bad signature" in said
    assert "refuted" not in said
    # What runs goes on, and can be held and deleted.
    lab.kubectl(
        "patch", "trainingjob", "before-the-outage", "--type=merge", "-p",
        '{"spec": {"suspend": true}}',
    )  # fmt: skip
    lab.wait_for_phase(running, "Suspended")
    lab.kubectl("delete", "trainingjob", "before-the-outage", "--timeout=30s")
    cluster.start_registry()
    eventually(lambda: not lab.answer(job), "the job is accepted once the registry is back")
