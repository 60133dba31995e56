"""What is submitted when, and what is disturbed meanwhile, by dice. Pure.

A seed gives one schedule, always the same. The rules:

1. Each target is disturbed in each of its ways at least once; two disturbances of one target never
   overlap, those of different targets may.
2. Every third job or pod is a bad one, and all ways to be bad come in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import Literal, get_args

from tests.stage import ending

Target = Literal["webhook", "controller", "API server", "registry"]
#: Killed: all its processes by SIGKILL. One killed: one replica of it. Stopped: SIGSTOP, and going
#: on later. Restarted: told to end, and begun anew. Away: gone for a while.
How = Literal["killed", "one killed", "stopped", "restarted", "away"]
#: What is wrong with it. Jobs: nobody signed; signed by a stranger; changed after it was signed; an
#: image that nobody signed. The editor's own: a pod that asks for a GPU; one that says it is
#: sealed; a Job whose pods ask for a GPU.
Bad = Literal["unsigned", "stranger", "changed", "image", "pod", "forged", "job"]

HOWS: Mapping[Target, Sequence[How]] = MappingProxyType(
    {
        "webhook": ("killed", "one killed", "stopped", "restarted"),
        "controller": ("killed", "one killed", "stopped", "restarted"),
        "API server": ("killed", "stopped", "restarted"),
        "registry": ("away", "restarted"),
    }
)
TARGETS: tuple[Target, ...] = get_args(Target)
BAD: tuple[Bad, ...] = get_args(Bad)
#: Of so many submissions one is bad.
_ONE_IN = 3
#: How long a stop or an absence lasts, and what a target needs to come back; seconds.
_LASTING, _RECOVERY = (2.0, 8.0), 8.0
Disturbance = ending.Disturbance[Target, How]


@dataclass(frozen=True, slots=True, order=True)
class Submission:
    """``at`` seconds after the beginning; ``bad`` is empty for one that is in order."""

    at: float
    number: int
    workers: int
    bad: Bad | Literal[""] = ""

    @property
    def name(self) -> str:
        """Of the job or pod. No name of one begins with that of another's pods."""
        return f"{'bad' if self.bad else 'good'}-{self.number:03d}"


@dataclass(frozen=True, slots=True)
class Schedule:
    """Submissions and disturbances, each in the order of their times."""

    seed: int
    seconds: float
    submissions: tuple[Submission, ...]
    disturbances: tuple[Disturbance, ...]

    def of(self, target: Target) -> tuple[Disturbance, ...]:
        """The disturbances of one target."""
        return tuple(d for d in self.disturbances if d.target == target)


def make(seed: int, *, seconds: float = 180.0, apart: float = 5.0, span: float = 40.0) -> Schedule:
    """A submission every ``apart`` seconds or so; each target is disturbed once in a ``span``.

    Spans become shorter where there is no time for all ways to disturb a target. Raises ValueError
    where there is no time even so, or too little for one of each way to be bad.
    """
    submissions = int(seconds / apart)
    if submissions < _ONE_IN * len(BAD):
        raise ValueError(
            f"found {seconds:g} s, expected at least {apart * _ONE_IN * len(BAD):g}: time for "
            "every bad job"
        )
    most = max(map(len, HOWS.values()))
    if seconds / most < _LASTING[1] + _RECOVERY:
        raise ValueError(f"found {seconds:g} s, expected time for {most} disturbances of a target")
    dice = Random(seed)
    disturbances = [d for target in TARGETS for d in _disturb(dice, target, seconds, span)]
    return Schedule(
        seed,
        seconds,
        tuple(_submit(dice, seconds, submissions)),
        tuple(sorted(disturbances)),
    )


def _disturb(dice: Random, target: Target, seconds: float, span: float) -> Iterator[Disturbance]:
    """One in each of as many spans of time, with its recovery."""
    ways = HOWS[target]
    times = max(len(ways), int(seconds / span))
    hows = [*ways, *(dice.choice(ways) for _ in range(times - len(ways)))]
    dice.shuffle(hows)
    for number, how in enumerate(hows):
        lasting = how in ("stopped", "away") or (target, how) == ("API server", "killed")
        lasts = dice.uniform(*_LASTING) if lasting else 0.0
        at = seconds / times * number + dice.uniform(0, seconds / times - lasts - _RECOVERY)
        yield Disturbance(at, target, how, lasts)


def _submit(dice: Random, seconds: float, count: int) -> Iterator[Submission]:
    times = sorted(dice.uniform(0, seconds) for _ in range(count))
    which = [number % _ONE_IN == 0 for number in range(count)]
    dice.shuffle(which)
    turn = 0
    for number, (at, is_bad) in enumerate(zip(times, which, strict=True)):
        if is_bad:
            yield Submission(at, number, 1, BAD[turn % len(BAD)])
            turn += 1
        else:
            yield Submission(at, number, dice.choice((1, 1, 2)))
