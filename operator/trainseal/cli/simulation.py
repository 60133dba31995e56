"""What would be refused of a set of objects, judged by the webhook's own code.

The rules, in order:

1. What a controller made that is looked at itself (the pods of a Deployment) is not looked at
   again; what belongs to a sealed run is counted.
2. Whatever makes pods is judged by the pod that it would make, at the hand of its controller; a pod
   by itself.
3. A TrainingJob is verified as by ``trainseal verify``.

The floor, which the API server decides, says the same of these, and says it of Jobs themselves.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from rich.console import Console
from rich.text import Text

from trainseal.admission.podmakers import BY_KIND, judged
from trainseal.admission.pods import LABEL_SEAL, PodRulesContext
from trainseal.admission.waysin import WaysIn
from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.cli.failures import DONE, REFUTED, UNDETERMINED
from trainseal.cli.terminaltext import plain
from trainseal.cluster.settings import Settings
from trainseal.provenance.jobrules import RunFacts
from trainseal.provenance.policies import CompiledPolicy
from trainseal.provenance.verdicts import Outcome
from trainseal.registry.client import RegistryClient
from trainseal.verifier.artifacts import ArtifactVerifier
from trainseal.verifier.jobs import JobVerifier
from trainseal.verifier.policystore import BrokenPolicy

TRAINING_JOB = "TrainingJob"
_SECONDS = 60.0
_SHOWN = 20


class Answer(StrEnum):
    """What would become of an object if it were made now."""

    PASSES = "passes"
    WARNED = "warned"
    REFUSED = "refused"
    UNDETERMINED = "undetermined"
    SEALED = "sealed"


_MARKS = {
    Answer.REFUSED: ("✗", "red"),
    Answer.UNDETERMINED: ("?", "yellow"),
    Answer.WARNED: ("!", "yellow"),
}


@dataclass(frozen=True, slots=True)
class World:
    """What is judged, and by what. ``devices`` are resource names that DeviceClasses give."""

    objects: tuple[JsonObject, ...]
    policies: tuple[CompiledPolicy, ...]
    broken: tuple[BrokenPolicy, ...] = ()
    settings: Settings = field(default_factory=Settings)
    excluded: frozenset[str] = frozenset({"kube-system", "trainseal-system", "trainseal-agent"})
    devices: frozenset[str] = frozenset()

    def enforced(self) -> World:
        """The same, where every policy enforces."""
        strict = tuple(dataclasses.replace(p, mode="Enforce") for p in self.policies)
        return dataclasses.replace(self, policies=strict)

    def of(self, namespace: str) -> tuple[CompiledPolicy, ...]:
        """The policies that name a namespace."""
        return tuple(p for p in self.policies if p.applies_to(namespace))


@dataclass(frozen=True, slots=True)
class Judged:
    """One object and what would become of it."""

    namespace: str
    kind: str
    name: str
    answer: Answer
    why: str = ""


@dataclass(frozen=True, slots=True)
class Simulation:
    """All of them, by namespace, kind and name."""

    judged: tuple[Judged, ...]
    policies: tuple[CompiledPolicy, ...]
    broken: tuple[BrokenPolicy, ...]

    @property
    def exit_code(self) -> int:
        """0 nothing would be refused; 1 something would; 2 something could not be judged."""
        answers = {j.answer for j in self.judged}
        if Answer.REFUSED in answers:
            return REFUTED
        return UNDETERMINED if Answer.UNDETERMINED in answers or self.broken else DONE


async def run(
    world: World, namespaces: Collection[str], client: RegistryClient | None
) -> Simulation:
    """Judges everything in these namespaces, or in all; without a client no TrainingJob."""
    judged: list[Judged] = []
    for obj in _roots(world.objects):
        namespace = _namespace(obj)
        if namespaces and namespace not in namespaces:
            continue
        if obj.get("kind") == TRAINING_JOB:
            judged.append(await _job(world, obj, client))
        else:
            judged.append(_workload(world, obj))
    judged.sort(key=lambda j: (j.namespace, j.kind, j.name))
    return Simulation(tuple(judged), world.policies, world.broken)


def _roots(objects: Sequence[JsonObject]) -> Iterator[JsonObject]:
    """Those that nothing else here controls; each once, though a dump may have it twice."""
    there = {(_namespace(o), str(o.get("kind")), _name(o)) for o in objects if _looked_at(o)}
    seen: set[tuple[str, str, str]] = set()
    for obj in objects:
        key = (_namespace(obj), str(obj.get("kind")), _name(obj))
        owner = _controller(obj)
        if not _looked_at(obj) or key in seen:
            continue
        if owner and (key[0], owner[0], owner[1]) in there:
            continue
        seen.add(key)
        yield obj


def _looked_at(obj: JsonObject) -> bool:
    return obj.get("kind") in BY_KIND or obj.get("kind") == TRAINING_JOB


def _workload(world: World, obj: JsonObject) -> Judged:
    namespace, kind, name = _namespace(obj), str(obj.get("kind")), _name(obj)
    if LABEL_SEAL in json_object(_metadata(obj).get("labels")):
        return Judged(namespace, kind, name, Answer.SEALED)
    maker = BY_KIND[kind]
    answer = judged(maker, maker.template(obj), namespace, name, _context(world))
    if not answer.allowed:
        return Judged(namespace, kind, name, Answer.REFUSED, answer.message)
    if answer.warnings:
        return Judged(namespace, kind, name, Answer.WARNED, answer.warnings[0])
    return Judged(namespace, kind, name, Answer.PASSES)


def _context(world: World) -> PodRulesContext:
    def broken() -> tuple[BrokenPolicy, ...]:
        return world.broken

    return PodRulesContext(
        gpus=dataclasses.replace(
            world.settings.gpus, is_gpu=lambda r: world.settings.is_gpu(r) or r in world.devices
        ),
        find=lambda _: None,
        policies=world.of,
        broken=broken,
        # Who made the object itself is not known: it is judged as at the hand of one of these.
        pod_creators=frozenset(world.settings.pod_creators),
        excluded_namespaces=world.excluded,
        ways_in=WaysIn(world.of, broken, lambda *_: (), world.excluded, lambda: datetime.now(UTC)),
    )


async def _job(world: World, obj: JsonObject, client: RegistryClient | None) -> Judged:
    namespace, name = _namespace(obj), _name(obj)
    if client is None:
        words = "not judged offline; `trainseal verify` judges one job"
        return Judged(namespace, TRAINING_JOB, name, Answer.UNDETERMINED, words)
    verifier = JobVerifier(ArtifactVerifier(client, time.monotonic), lambda: datetime.now(UTC))
    result = await verifier.verify(
        obj, world.of(namespace), RunFacts(), deadline=_SECONDS, broken=world.broken
    )
    if result.outcome is Outcome.VERIFIED:
        audited = "; ".join(v.sentence() for v in result.audited if v.outcome is Outcome.REFUTED)
        answer = Answer.WARNED if audited else Answer.PASSES
        return Judged(namespace, TRAINING_JOB, name, answer, audited)
    why = "; ".join(v.sentence() for v in result.denials)
    if result.awaited:
        return Judged(namespace, TRAINING_JOB, name, Answer.WARNED, f"waits for signatures: {why}")
    refuted = result.outcome is Outcome.REFUTED
    answer = Answer.REFUSED if refuted else Answer.UNDETERMINED
    return Judged(namespace, TRAINING_JOB, name, answer, why)


def print_json(found: Simulation) -> None:
    """For programs, on stdout."""
    value: JsonObject = {
        "policies": [{"name": p.name, "mode": p.mode} for p in found.policies],
        "brokenPolicies": [{"name": b.name, "why": b.why} for b in found.broken],
        "counts": dict(Counter(j.answer.value for j in found.judged)),
        "objects": [
            {
                "namespace": j.namespace,
                "kind": j.kind,
                "name": j.name,
                "answer": j.answer.value,
                "why": j.why or None,
            }
            for j in found.judged
        ],
    }
    print(json.dumps(value, indent=2, ensure_ascii=False))  # noqa: T201


def print_text(found: Simulation) -> None:
    """For people, on stdout."""
    console = Console(highlight=False, soft_wrap=True)
    for policy in found.broken:
        words = f"? ProvenancePolicy {policy.name} cannot be used: {plain(policy.why)}"
        console.print(Text(words, style="yellow"))
    for namespace in dict.fromkeys(j.namespace for j in found.judged):
        here = [j for j in found.judged if j.namespace == namespace]
        named = ", ".join(f"{p.name} ({p.mode})" for p in found.policies if p.applies_to(namespace))
        counts = Counter(j.answer for j in here)
        told = ", ".join(f"{counts[a]} {a.value}" for a in Answer if counts[a])
        head = Text(f"{namespace}: {told}", style="bold")
        head.append(f"; policies: {named or 'none'}", style="dim")
        console.print(head)
        shown = [j for j in here if j.answer in _MARKS]
        for item in shown[:_SHOWN]:
            mark, color = _MARKS[item.answer]
            line = Text(f"  {mark} ", style=color)
            line.append(f"{item.kind} {item.name}", style="bold")
            line.append(f": {plain(item.why)}")
            console.print(line)
        if len(shown) > _SHOWN:
            more = f"  and {len(shown) - _SHOWN} more; `-o json` has all"
            console.print(Text(more, style="dim"))
    refused = sum(j.answer is Answer.REFUSED for j in found.judged)
    total = len(found.judged)
    console.print(Text(f"{refused} of {total} objects would be refused if they were made now"))


def _metadata(obj: JsonObject) -> JsonObject:
    return json_object(obj.get("metadata"))


def _namespace(obj: JsonObject) -> str:
    return str(_metadata(obj).get("namespace") or "default")


def _name(obj: JsonObject) -> str:
    metadata = _metadata(obj)
    return str(metadata.get("name") or metadata.get("generateName") or "")


def _controller(obj: JsonObject) -> tuple[str, str] | None:
    """Kind and name of what controls the object."""
    for owner in json_objects(_metadata(obj).get("ownerReferences")):
        if owner.get("controller") is True:
            return str(owner.get("kind")), str(owner.get("name"))
    return None
