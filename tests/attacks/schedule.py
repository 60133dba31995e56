"""What is done when, by dice: acts of attackers, and disturbances of what watches them. Pure.

A seed gives one schedule, always the same. The rules:

1. Each target is killed, stopped and restarted at least once; two disturbances of one target never
   overlap, those of different targets may.
2. Each act has a target of its own (a file, a program, an object), so that each must be a finding
   of its own. Some acts fall into each disturbance, the rest anywhere.
3. While the API server is away nobody gets into a pod: what can be done from the node is done so
   then. What cannot waits until it answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from tests.stage import ending

Target = Literal["agent", "controller", "API server"]
How = Literal["killed", "stopped", "restarted"]
#: A signed file is edited; a `.pth` file is dropped; a program is run from scratch, and stays; an
#: object of the run is deleted.
Kind = Literal["edit", "hook", "program", "object"]
By = Literal["exec", "node"]

TARGETS: tuple[Target, ...] = get_args(Target)
HOWS: tuple[How, ...] = get_args(How)
#: What root on the node does without entering the pod.
FROM_NODE: frozenset[Kind] = frozenset({"edit", "hook"})
#: How long a stop lasts, and how long a killed API server stays away; seconds.
_STOPPED, _AWAY = (4.0, 12.0), (2.0, 6.0)
#: What a killed or restarted process needs to come back, and an API server that went on; seconds.
RECOVERY = 6.0
_KINDS: Sequence[Kind] = ("edit", "edit", "edit", "hook", "program")
_FROM_NODE_ANYWAY = 0.2
Disturbance = ending.Disturbance[Target, How]


@dataclass(frozen=True, slots=True, order=True)
class Act:
    """``at`` seconds after the beginning; ``number`` counts the acts of its kind from 0."""

    at: float
    kind: Kind
    number: int
    by: By

    def __str__(self) -> str:
        return f"{self.kind} {self.number} by {self.by}"


@dataclass(frozen=True, slots=True)
class Schedule:
    """Acts and disturbances, each in the order of their times."""

    seed: int
    seconds: float
    acts: tuple[Act, ...]
    disturbances: tuple[Disturbance, ...]

    def of(self, target: Target) -> tuple[Disturbance, ...]:
        """The disturbances of one target."""
        return tuple(d for d in self.disturbances if d.target == target)


def make(
    seed: int, *, seconds: float = 180.0, acts: int = 48, times: int = 5, objects: int = 3
) -> Schedule:
    """``times``: how often each target is disturbed. ``objects``: how many can be deleted.

    Raises ValueError where there are fewer disturbances than ways to disturb, fewer acts than
    disturbances and objects, or too little time.
    """
    if times < len(HOWS) or acts < times * len(TARGETS) + objects:
        raise ValueError(f"found {times} times and {acts} acts, expected more of them")
    if seconds / times < _STOPPED[1] + 2 * RECOVERY:
        raise ValueError(f"found {seconds} s for {times} disturbances, expected more time")
    dice = Random(seed)
    disturbances = [d for target in TARGETS for d in _disturb(dice, target, seconds, times)]
    moments = [_within(dice, d, seconds) for d in disturbances]
    moments += [dice.uniform(0, seconds) for _ in range(acts - len(moments))]
    dice.shuffle(moments)
    kinds: list[Kind] = ["object"] * objects
    kinds += [dice.choice(_KINDS) for _ in range(acts - objects)]
    away = [d for d in disturbances if d.target == "API server"]
    numbers = dict.fromkeys(get_args(Kind), 0)
    found = []
    for at, kind in sorted(zip(moments, kinds, strict=True)):
        found.append(Act(at, kind, numbers[kind], _by(dice, at, kind, away)))
        numbers[kind] += 1
    return Schedule(seed, seconds, tuple(found), tuple(sorted(disturbances)))


def is_away(at: float, disturbances: Sequence[Disturbance]) -> bool:
    """Whether the API server, so disturbed, may not answer just then."""
    return any(
        d.target == "API server" and d.at - 1.0 <= at <= d.end + RECOVERY for d in disturbances
    )


def _disturb(dice: Random, target: Target, seconds: float, times: int) -> Iterator[Disturbance]:
    """One in each of as many spans of time, with its recovery."""
    hows = [*HOWS, *(dice.choice(HOWS) for _ in range(times - len(HOWS)))]
    dice.shuffle(hows)
    span = seconds / times
    for number, how in enumerate(hows):
        lasts = 0.0
        if how == "stopped":
            lasts = dice.uniform(*_STOPPED)
        elif how == "killed" and target == "API server":
            lasts = dice.uniform(*_AWAY)
        at = number * span + dice.uniform(0, span - lasts - RECOVERY)
        yield Disturbance(at, target, how, lasts)


def _within(dice: Random, disturbance: Disturbance, seconds: float) -> float:
    end = disturbance.at + max(disturbance.seconds, RECOVERY)
    return min(dice.uniform(disturbance.at, end), seconds)


def _by(dice: Random, at: float, kind: Kind, away: Sequence[Disturbance]) -> By:
    anyway = dice.random() < _FROM_NODE_ANYWAY
    return "node" if kind in FROM_NODE and (anyway or is_away(at, away)) else "exec"
