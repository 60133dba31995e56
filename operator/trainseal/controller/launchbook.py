"""Runs by the template that they were made from, and who waits for one of them to end.

A template may say how many of its runs there are, in all and at a time. Seals are counted, by a
watch and, from the moment that we make one, by our own word: so never is one too many made. Only we
make seals. To list a template's seals for each of its runs would be work that grows with their
square.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from trainseal.api.model import JsonObject, json_object
from trainseal.cluster.informer import Event
from trainseal.provenance.boundseals import has_ended

Key = tuple[str, str]
#: By which seals of such runs are listed: the digest's hexadecimal digits, less the last.
LABEL_TEMPLATE = "trainseal.dev/template-digest"


def shape(seal: JsonObject) -> JsonObject:
    """What is kept of a seal."""
    metadata, spec = json_object(seal.get("metadata")), json_object(seal.get("spec"))
    phase = json_object(seal.get("status")).get("phase")
    return {
        "metadata": {k: metadata.get(k) for k in ("name", "namespace", "resourceVersion")},
        "spec": {"launch": {"digest": json_object(spec.get("launch")).get("digest")}},
        "status": {"phase": phase} if phase else {},
    }


class LaunchBook:
    """``look`` is called with the key of a TrainingJob for which there is room now."""

    def __init__(self, look: Callable[[Key], None] = lambda _: None) -> None:
        self._look = look
        #: Names of the seals, and of those that live, by namespace and template digest.
        self._all: dict[Key, set[str]] = defaultdict(set)
        self._live: dict[Key, set[str]] = defaultdict(set)
        self._of: dict[Key, str] = {}
        #: Those that wait, the first one first.
        self._waiting: dict[Key, dict[Key, int]] = defaultdict(dict)
        self._locks: dict[Key, asyncio.Lock] = defaultdict(asyncio.Lock)

    def listen(self, event: Event, key: Key, obj: JsonObject) -> None:
        """The informer's listener, of seals with the label."""
        if event == "DELETED":
            place = (key[0], self._of.pop(key, ""))
            _drop(self._all, place, key[1])
        else:
            launch = json_object(json_object(obj.get("spec")).get("launch"))
            place = (key[0], str(launch.get("digest")))
            self._add(key, place)
            if not has_ended(obj):
                return
        _drop(self._live, place, key[1])
        self._wake(place)

    @asynccontextmanager
    async def turn(self, namespace: str, digest: str) -> AsyncGenerator[None]:
        """One at a time counts the runs of a template and adds one."""
        async with self._locks[namespace, digest]:
            yield

    def live(self, namespace: str, digest: str) -> int:
        """Runs of a template that live."""
        return len(self._live.get((namespace, digest), ()))

    def runs(self, namespace: str, digest: str) -> int:
        """Runs of a template, those that have ended too, while their seals are kept."""
        return len(self._all.get((namespace, digest), ()))

    def made(self, seal: Key, digest: str, job: str) -> None:
        """A seal was made just now, of this TrainingJob."""
        self._add(seal, (seal[0], digest))
        self._waiting.get((seal[0], digest), {}).pop((seal[0], job), None)

    def waits(self, job: Key, digest: str, most: int) -> None:
        """A TrainingJob waits until fewer than ``most`` runs of its template live."""
        self._waiting[job[0], digest].setdefault(job, most)

    def gone(self, job: Key) -> None:
        """A TrainingJob that may have waited is not there any more."""
        for place, waiting in self._waiting.items():
            if place[0] == job[0]:
                waiting.pop(job, None)

    def _add(self, seal: Key, place: Key) -> None:
        self._of[seal] = place[1]
        self._all[place].add(seal[1])
        self._live[place].add(seal[1])

    def _wake(self, place: Key) -> None:
        waiting = self._waiting.get(place, {})
        live = len(self._live.get(place, ()))
        for at, (job, most) in enumerate(list(waiting.items())):
            if live + at >= most:
                return
            self._look(job)
        if not waiting:
            self._waiting.pop(place, None)


def _drop(names: dict[Key, set[str]], place: Key, name: str) -> None:
    there = names.get(place, set())
    there.discard(name)
    if not there:
        names.pop(place, None)
