"""Two hundred runs of one template, beside as many bare Jobs that train the same.

On a whole cluster with TrainSeal installed, alternately, by one `kubectl create -f FILE` each. No
node fits them, so that pods come to be and wait: what is timed is admission, seal, Job and pod, as
on a cluster whose nodes have cores of their own. Here the one node shares those of the API server,
and two hundred trainings on it would be another measurement.

A bare Job is all there is of its run: its code and configuration lie in one ConfigMap for all, and
it asks for no GPU, so that no webhook is asked about it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.figures import ratio, spread
from bench.section import Section, paragraphs, table
from tests.cluster import Cluster, CommandError
from tests.images import build_operator_image, build_training_image
from tests.stage.jobs import SHORT_CODE, Object, short_job
from tests.stage.people import with_cosign_key, with_openssl_key
from tests.stage.policies import policy
from tests.stage.release import install
from tests.stage.signing import push_tree, sign_image, signed, write_tree
from tests.stage.templates import job_from, template_of
from tests.stage.waiting import eventually
from trainseal.cluster.api import Kube, connect, path_of

SEALED, BARE = "research", "bare"
_NOWHERE = {"bench.example/nowhere": "true"}
_SECONDS = 900.0
_GPUS = 1000


@dataclass(frozen=True, slots=True)
class Contender:
    """``make`` gives so many runs."""

    namespace: str
    kind: str
    make: Callable[[int], Sequence[Object]]


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds from the start of `kubectl create`: to its end, and until all pods are there."""

    created: float
    pods: float


def measure(rounds: int, count: int) -> Section:
    """``count`` runs a round."""
    cluster = Cluster.up("bench", gpus=_GPUS)
    try:
        with tempfile.TemporaryDirectory() as folder:
            contenders = prepare(cluster, Path(folder))
        return asyncio.run(_measure(cluster, contenders, rounds, count))
    finally:
        cluster.down()


async def _measure(
    cluster: Cluster, contenders: Mapping[str, Contender], rounds: int, count: int
) -> Section:
    found: dict[str, list[Times]] = {name: [] for name in contenders}
    async with connect(str(cluster.kubeconfig)) as kube:
        for number in range(rounds + 1):
            for name, contender in contenders.items():
                # The first round warms up, and need not be a whole one.
                took = await _take(
                    kube, cluster, contender, contender.make(count if number else 20)
                )
                print(f"round {number} of {rounds}, {name}: {took}", file=sys.stderr, flush=True)
                if number:
                    found[name].append(took)
    return section(found, count)


def prepare(cluster: Cluster, folder: Path) -> Mapping[str, Contender]:
    """Installs TrainSeal, signs the template and applies it."""
    operator = cluster.push_image(build_operator_image(), "trainseal")
    image = cluster.push_image(build_training_image(), f"{SEALED}/pytorch")
    install(cluster, operator, [cluster.registry])
    for namespace in (SEALED, BARE):
        cluster.kubectl("create", "namespace", namespace)
    alice = with_openssl_key(folder, "alice")
    platform = with_cosign_key(cluster, folder, "platform")
    rules = policy(
        SEALED, SEALED, signers=[alice], image_signers=[platform], registries=[cluster.registry]
    )
    _put(cluster, "apply", [rules])
    sign_image(cluster, image, platform)
    tree = write_tree(folder / "tree", SHORT_CODE)
    code = push_tree(cluster.registry, tree, f"{SEALED}/short", alice)
    whole = short_job("unused", SEALED, image, code, "finish.py")
    user = cluster.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")
    made = template_of(whole, "sweep", user.strip())
    # No authority of that name is needed: no run brings newer code.
    del made["spec"]["code"]
    template = signed(made, alice)
    dry_run = ("create", "--dry-run=server", "-f", "-")
    eventually(
        lambda: _can(cluster.kubectl, *dry_run, input=json.dumps(template)),
        "the webhook knows the policy",
    )
    _put(cluster, "create", [template, _shared(whole)])

    def sealed(count: int) -> list[Object]:
        where: Object = {"nodeSelector": _NOWHERE}
        return [
            job_from(template, parameters={"steps": number + 1}, scheduling=where)
            for number in range(count)
        ]

    def bare(count: int) -> list[Object]:
        return [_bare(whole) for _ in range(count)]

    return {
        "bare Jobs": Contender(BARE, "jobs", bare),
        "template runs": Contender(SEALED, "trainingjobs", sealed),
    }


def _shared(whole: Object) -> Object:
    """Code and configuration of all bare Jobs."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "shared", "namespace": BARE},
        "data": {
            **SHORT_CODE,
            "config.json": json.dumps(whole["spec"]["config"]["parameters"]),
        },
    }


def _bare(whole: Object) -> Object:
    (trainer,) = whole["spec"]["roles"][0]["template"]["spec"]["containers"]
    container = {
        "name": "trainer",
        "image": trainer["image"],
        "command": trainer["command"],
        "env": trainer["env"],
        "volumeMounts": [
            {"name": "shared", "mountPath": "/workspace"},
            {"name": "shared", "mountPath": "/etc/training"},
        ],
    }
    pod: Object = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 5,
        "automountServiceAccountToken": False,
        "nodeSelector": _NOWHERE,
        "containers": [container],
        "volumes": [{"name": "shared", "configMap": {"name": "shared"}}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"generateName": "sweep-", "namespace": BARE},
        "spec": {"completionMode": "Indexed", "completions": 1, "template": {"spec": pod}},
    }


async def _take(
    kube: Kube, cluster: Cluster, contender: Contender, runs: Sequence[Object]
) -> Times:
    """Starts them, times them, and takes them away."""
    pods = path_of("v1", "pods", contender.namespace)

    async def are() -> int:
        return len([one async for one in kube.metadata(pods, {})])

    async def have_begun() -> bool:
        return await are() >= len(runs)

    async def are_gone() -> bool:
        return await are() == 0

    begun = time.perf_counter()
    await asyncio.to_thread(_put, cluster, "create", runs)
    created = time.perf_counter() - begun
    await until(have_begun, "every run has a pod")
    there = time.perf_counter() - begun
    cluster.kubectl("delete", contender.kind, "-n", contender.namespace, "--all", timeout=_SECONDS)
    await until(are_gone, "all pods are gone")
    return Times(created, there)


async def until(
    condition: Callable[[], Awaitable[bool]], what: str, seconds: float = _SECONDS
) -> None:
    """Looks each second, so that looking costs next to nothing."""
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds:.0f} s: {what}")
        await asyncio.sleep(1.0)


def _can(do: Callable[..., object], *words: str, **more: str) -> bool:
    """Whether it is let happen."""
    try:
        do(*words, **more)
    except CommandError:
        return False
    return True


def _put(cluster: Cluster, verb: str, objects: Sequence[Object]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    cluster.kubectl(verb, "-f", "-", input=text, timeout=_SECONDS)


def section(found: Mapping[str, Sequence[Times]], count: int) -> Section:
    """What is told of the times, by contender."""
    bare, ours = found["bare Jobs"], found["template runs"]
    rows = []
    for field, words, goal in (
        ("created", "`kubectl create` ends", ""),
        ("pods", "every run has its pod", "1.1"),
    ):
        one, other = ([getattr(times, field) for times in side] for side in (ours, bare))
        rows.append([words, spread(other, 1), spread(one, 1), ratio(one, other).text(), goal])
    markdown = paragraphs(
        f"{len(bare)} rounds; {count} runs of one worker each.",
        table(["seconds until", "bare Jobs", "template runs", "ratio", "goal"], rows),
    )
    return Section(
        markdown, {name: [dataclasses.asdict(t) for t in side] for name, side in found.items()}
    )
