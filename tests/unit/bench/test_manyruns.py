"""Runs that a bench makes by itself are such as webhook and controller take for sealed ones."""

from __future__ import annotations

import asyncio
import copy
from collections import defaultdict
from itertools import count
from typing import Any

from bench.manyruns import PODS_A_NODE, make_runs
from bench.rig import Rig
from tests.unit import world
from trainseal.admission.sealindex import SealIndex
from trainseal.provenance.additions import Additions
from trainseal.provenance.livepods import image_differences, known_images, live_differences
from trainseal.provenance.podmatch import compare_pod

Object = dict[str, Any]


class Store:
    """Keeps what is created, by plural, and what is then said of it in its status."""

    def __init__(self) -> None:
        self.objects: dict[str, list[Object]] = defaultdict(list)
        self._numbers = count(1)

    async def create(self, path: str, obj: Object) -> Object:
        made = copy.deepcopy(obj)
        number = next(self._numbers)
        metadata = made["metadata"]
        metadata |= {"uid": f"00000000-0000-4000-8000-{number:012d}", "resourceVersion": "1"}
        metadata.setdefault("name", f"{metadata.get('generateName')}{number}")
        metadata.setdefault("namespace", "research")
        self.objects[path.rpartition("/")[2]].append(made)
        return made

    async def patch(self, path: str, patch: Object, _content_type: str = "") -> None:
        *_, plural, name, _status = path.split("/")
        (found,) = (o for o in self.objects[plural] if o["metadata"]["name"] == name)
        found["status"] = found.get("status", {}) | patch["status"]


def made(runs: int, workers: int) -> tuple[Store, list[Object]]:
    """What stands in the API afterwards, and the pods to be admitted."""
    store = Store()
    ground = Rig.__new__(Rig)
    for name, value in (
        ("kube", store),
        ("seal_key", world.SEAL_KEY),
        ("cluster_uid", world.CLUSTER),
    ):
        object.__setattr__(ground, name, value)
    pods = asyncio.run(make_runs(ground, world.policy("bench"), runs, workers))
    return store, list(pods)


def index_of(store: Store) -> SealIndex:
    """As the webhook has it."""
    found = SealIndex(world.CLUSTER)
    found.use_keyring(world.keyring())
    for seal in store.objects["sealedruns"]:
        found.on_seal("ADDED", ("research", seal["metadata"]["name"]), seal)
    return found


def test_every_pod_is_what_its_seal_says() -> None:
    store, waiting = made(runs=3, workers=5)
    index = index_of(store)
    seals = {s["metadata"]["name"]: s for s in store.objects["sealedruns"]}
    assert len(store.objects["pods"]) == 15
    for pod in store.objects["pods"]:
        sealed = index.find(pod["metadata"]["ownerReferences"][0]["uid"])
        assert sealed is not None
        assert live_differences(sealed.expected, pod, Additions()) == ()
        assert image_differences(pod, known_images(seals[sealed.seal]["spec"])) == ()
    assert len(waiting) == 3
    for pod in waiting:
        sealed = index.find(pod["metadata"]["ownerReferences"][0]["uid"])
        assert sealed is not None
        assert compare_pod(sealed.expected, pod, Additions()) == ()


def test_each_run_has_all_that_it_leans_on_and_each_pod_its_agents_report() -> None:
    store, _ = made(runs=2, workers=3)
    for plural in ("trainingjobs", "jobs", "configmaps", "services", "networkpolicies"):
        assert len(store.objects[plural]) == 2, plural
    assert len(store.objects["driftreports"]) == 6
    assert all(job["status"]["ready"] == 3 for job in store.objects["jobs"])
    assert not any(job["spec"]["suspend"] for job in store.objects["jobs"])


def test_a_node_has_as_many_pods_as_it_has_gpus() -> None:
    store, _ = made(runs=4, workers=5)
    nodes = [pod["spec"]["nodeName"] for pod in store.objects["pods"]]
    assert max(map(nodes.count, nodes)) == PODS_A_NODE
