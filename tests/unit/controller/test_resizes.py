"""Which resizes of a run's pods are found: those that are not on record as let through."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from tests.unit import world
from tests.unit.provenance.test_livepods import EXPECTED, IMAGES, larger, running, trainer
from trainseal.api.findings import FindingId
from trainseal.cluster.api import KubeError
from trainseal.controller.podfindings import Sealed
from trainseal.controller.resizes import Resizes
from trainseal.provenance.additions import Additions
from trainseal.provenance.resizes import sizes

Object = dict[str, Any]
KEY = ("research", "char-lm-1")
SEALED = Sealed({world.OBJECT_UID: EXPECTED}, IMAGES)


def record(pod: Object, **changed: Any) -> Object:
    """Of a resize of the trainer to what the pod asks for."""
    spec = {
        "pod": {"name": "p", "uid": pod["metadata"]["uid"]},
        "action": "Resize",
        "username": "ann",
        "resized": [sizes(pod)["trainer"].wire()],
        "allowed": True,
        "time": "2026-11-23T12:00:00Z",
    }
    return {"metadata": {"name": "r"}, "spec": spec | changed}


@dataclass
class Server:
    """Has these records, or cannot be asked."""

    records: Sequence[Object] = ()
    fails: KubeError | None = None
    asked: list[str] = field(default_factory=list)

    async def request(self, _method: str, _path: str, *, query: Mapping[str, str]) -> Object:
        self.asked.append(query["labelSelector"])
        if self.fails:
            raise self.fails
        return {"metadata": {}, "items": [*self.records]}


def ids(resizes: Resizes, pod: Object) -> list[FindingId]:
    found = asyncio.run(resizes.findings_on(KEY, pod, SEALED, Additions()))
    return [seen.id for seen in found]


def judge(server: Server, pod: Object) -> list[FindingId]:
    return ids(Resizes(cast("Any", server)), pod)


def test_a_resize_that_is_on_record_is_no_finding() -> None:
    server = Server([record(larger(running()))])
    assert judge(server, larger(running())) == []
    assert server.asked == [
        "trainseal.dev/seal=char-lm-1,trainseal.dev/pod-uid=pod-0,trainseal.dev/resized"
    ]


def test_one_past_the_record_is_found() -> None:
    assert judge(Server(), larger(running())) == [FindingId.POD_CHANGED]


def test_so_is_one_to_another_size_than_was_let_through() -> None:
    smaller = larger(running())
    trainer(smaller)["resources"]["requests"]["cpu"] = "1m"
    assert judge(Server([record(larger(running()))]), smaller) == [FindingId.POD_CHANGED]


def test_one_that_was_denied_lets_nothing() -> None:
    denied = record(larger(running()), allowed=False)
    assert judge(Server([denied]), larger(running())) == [FindingId.POD_CHANGED]


def test_of_several_that_were_let_through_each_counts() -> None:
    other = larger(running())
    trainer(other)["resources"]["requests"]["cpu"] = "8"
    server = Server([record(other), record(larger(running()))])
    assert judge(server, other) == []
    assert judge(server, larger(running())) == []


def test_what_else_was_changed_is_found_beside_it() -> None:
    pod = larger(running())
    server = Server([record(pod)])
    trainer(pod)["image"] = "x"
    assert judge(server, pod) == [FindingId.POD_CHANGED]


def test_no_record_is_asked_for_of_a_pod_as_sealed_or_changed_otherwise() -> None:
    server, changed = Server(), running()
    assert judge(server, running()) == []
    trainer(changed)["image"] = "x"
    assert judge(server, changed) == [FindingId.POD_CHANGED]
    defaulted = running()  # by a LimitRange: the template asks for no such limit
    trainer(defaulted)["resources"]["limits"]["cpu"] = "4"
    assert judge(server, defaulted) == []
    foreign = larger(running())
    del foreign["metadata"]["ownerReferences"]
    assert judge(server, foreign) == [FindingId.POD_FOREIGN]
    assert server.asked == []


def test_what_is_known_of_a_pod_is_not_asked_again_while_it_lives() -> None:
    server = Server([record(larger(running()))])
    resizes = Resizes(cast("Any", server))
    for _ in range(3):
        assert ids(resizes, larger(running())) == []
    assert len(server.asked) == 1
    resizes.keep({"pod-0"})
    assert ids(resizes, larger(running())) == []
    assert len(server.asked) == 1
    resizes.keep(set())
    assert ids(resizes, larger(running())) == []
    assert len(server.asked) == 2


def test_a_resize_after_one_that_is_known_is_asked_about() -> None:
    server = Server([record(larger(running()))])
    resizes = Resizes(cast("Any", server))
    assert ids(resizes, larger(running())) == []
    again = larger(running())
    trainer(again)["resources"]["requests"]["cpu"] = "8"
    server.records = [*server.records, record(again)]
    assert ids(resizes, again) == []
    assert ids(resizes, larger(running())) == []
    assert len(server.asked) == 2


def test_where_records_cannot_be_read_nothing_is_said_of_the_pod() -> None:
    server = Server(fails=KubeError(500, "InternalError", "no"))
    with pytest.raises(KubeError):
        judge(server, larger(running()))
