"""Time from `kubectl apply` to the first training step, beside the bare Job of the same training.

On a real cluster with TrainSeal installed, alternately, with all images on the node: admission,
seal, Job, gate and rendezvous against Job and rendezvous. Times are those of the lines in the
pods' logs, as the container runtime wrote them down, so that looking for them costs no time.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.barejob import Object, bare_job
from bench.figures import ratio, spread
from bench.section import Section, paragraphs, table
from tests.cluster import Cluster, CommandError, Target
from tests.images import build_operator_image, build_training_image
from tests.stage.jobs import EXAMPLE, char_lm
from tests.stage.people import with_cosign_key, with_openssl_key
from tests.stage.policies import policy
from tests.stage.release import install
from tests.stage.signing import push_tree, sign_image, signed

SEALED, BARE = "research", "bare"
_SECONDS = 180.0
_FIRST_STEP = "] step 1 loss "


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds from the start of `kubectl apply`: to its end, the trainer's first line, a step."""

    applied: float
    trainer: float
    step: float


@dataclass(frozen=True, slots=True)
class Contender:
    """What is applied, and the label of the pods that train in the end."""

    objects: Sequence[Object]
    namespace: str
    selector: str


def measure(rounds: int) -> Section:
    """One after the other, ``rounds`` times."""
    cluster = Cluster.up("bench")
    try:
        with tempfile.TemporaryDirectory() as folder:
            contenders = _prepare(cluster, Path(folder))
        found: dict[str, list[Start]] = {name: [] for name in contenders}
        for number in range(rounds + 1):
            for name, contender in contenders.items():
                start = _measure(cluster, contender)
                if number:  # the first round warms up
                    found[name].append(start)
            print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
        return section(found)
    finally:
        cluster.down()


def _prepare(cluster: Cluster, folder: Path) -> dict[str, Contender]:
    """Installs TrainSeal and signs everything."""
    operator = cluster.push_image(build_operator_image(), "trainseal")
    image = cluster.push_image(build_training_image(), f"{SEALED}/pytorch")
    install(cluster, operator, [cluster.registry])
    for namespace in (SEALED, BARE):
        cluster.kubectl("create", "namespace", namespace)
    alice, platform = (
        with_openssl_key(folder, "alice"),
        with_cosign_key(cluster, folder, "platform"),
    )
    rules = policy(
        SEALED, SEALED, signers=[alice], image_signers=[platform], registries=[cluster.registry]
    )
    _apply(cluster, [rules])
    sign_image(cluster, image, platform)
    code = push_tree(cluster.registry, EXAMPLE, f"{SEALED}/char-lm", alice)
    job = signed(char_lm(SEALED, image, code), alice)
    _until_known(cluster, job)
    name = job["metadata"]["name"]
    bare = f"batch.kubernetes.io/job-name={name}"
    return {
        "bare Job": Contender(bare_job(job, name, BARE, EXAMPLE), BARE, bare),
        "TrainingJob": Contender([job], SEALED, f"trainseal.dev/job={name}"),
    }


def _measure(target: Target, contender: Contender) -> Start:
    begun = time.time()
    _apply(target, contender.objects)
    applied = time.time() - begun
    selector = contender.selector
    first = f"{selector},batch.kubernetes.io/job-completion-index=0"
    lines = _lines_until_step(target, contender.namespace, first)
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": contender.objects})
    target.kubectl("delete", "-f", "-", "--wait", "--cascade=foreground", input=text)
    target.kubectl(
        "wait", "pod", "-n", contender.namespace, "-l", selector, "--for=delete", "--timeout=90s"
    )
    step = next(when for when, line in lines if _FIRST_STEP in line)
    return Start(applied, lines[0][0] - begun, step - begun)


def _lines_until_step(target: Target, namespace: str, selector: str) -> list[tuple[float, str]]:
    """The trainer's lines with their times, as soon as the first step is among them."""
    deadline = time.monotonic() + _SECONDS
    text = ""
    while _FIRST_STEP not in text:
        if time.monotonic() > deadline:
            state = target.kubectl("get", "trainingjobs,jobs,pods", "-n", namespace, "-o", "wide")
            raise RuntimeError(f"no step within {_SECONDS:.0f} s:\n{state}\n{text}")
        time.sleep(1.0)
        with suppress(CommandError):  # not there yet, or has not started
            text = target.kubectl(
                "logs", "-n", namespace, "-l", selector, "-c", "trainer", "--timestamps",
                "--tail=-1",
            )  # fmt: skip
    return [(_time(line.partition(" ")[0]), line) for line in text.splitlines()]


def _time(text: str) -> float:
    """Seconds since the epoch, of RFC 3339 with nanoseconds in UTC."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    moment = datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    return moment.timestamp() + float(f"0.{fraction or 0}")


def _apply(target: Target, objects: Sequence[Object]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    target.kubectl("apply", "-f", "-", input=text)


def _until_known(target: Target, job: Object) -> None:
    """Waits until the webhook has the policy, which reaches it by watch."""
    deadline = time.monotonic() + 60.0
    while True:
        try:
            target.kubectl("create", "--dry-run=server", "-f", "-", input=json.dumps(job))
            return
        except CommandError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def section(found: dict[str, list[Start]]) -> Section:
    """What is told of the starts, by contender."""
    rows = [
        [
            name,
            spread((s.applied for s in starts), 1),
            spread((s.trainer for s in starts), 1),
            spread((s.step for s in starts), 1),
        ]
        for name, starts in found.items()
    ]
    ours, bare = ([s.step for s in found[name]] for name in ("TrainingJob", "bare Job"))
    more = spread((a - b for a, b in zip(ours, bare, strict=True)), 1)
    header = ["seconds from `kubectl apply`", "to its end", "the trainer starts", "first step"]
    markdown = paragraphs(
        f"{len(bare)} rounds; two workers, all images on the node.",
        table(header, rows),
        f"The TrainingJob's first step comes {more} s after the bare Job's, at "
        f"{ratio(ours, bare).text()} times its time.",
    )
    values = {name: [dataclasses.asdict(s) for s in starts] for name, starts in found.items()}
    return Section(markdown, values)
