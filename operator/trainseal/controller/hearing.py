"""What is new in what a watch tells. Much of it is not: a run that starts is heard of ten times,
and most of that is what was just done for it.

1. An object at the version at which our own write left it, and that says what it said then, is
   ``NOTHING``: who writes knows already what became of it. So is one that is as it was.
2. One of which nothing has changed but its status is ``STATUS``.
3. All else is ``CHANGE``; so is an object that is heard of for the first time, or that is gone.

What another wrote between two of our writes makes a difference in the second one's answer, or in
its event: it is a change, also where the watch tells only of the last version.

A watch often tells of a write before that is answered. So what is heard of an object while one of
our writes to it is under way is sorted once that has ended.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum

import orjson
from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object
from trainseal.cluster.api import Method
from trainseal.controller.objects import uid_of

#: Objects that are known: 350 bytes each. One that was forgotten is heard of as if it were new.
_KNOWN = 50_000
#: Events of one object that wait for the end of a write: beyond that they are sorted at once.
_HELD = 8
#: Of the metadata, what says nothing of the object.
_PASSING = ("resourceVersion", "managedFields")
#: Namespace and name.
_Place = tuple[str, str]


class News(Enum):
    """What somebody has to look at."""

    NOTHING = "nothing"
    STATUS = "status"
    CHANGE = "change"


@dataclass(frozen=True, slots=True)
class _Known:
    """Digests of what an object says and of its status; at which version our write left it so."""

    said: bytes
    status: bytes
    written: str = ""


class Hearing:
    """Fed with what is written, by ``writing``, and with what a watch tells, by ``hear``."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, _Known] = OrderedDict()
        #: How many writes are under way, by namespace and name, and what was heard meanwhile.
        self._writes: Counter[_Place] = Counter()
        self._held: dict[_Place, list[Callable[[], None]]] = defaultdict(list)

    @contextmanager
    def writing(
        self, method: Method, path: str, body: JsonValue
    ) -> Iterator[Callable[[JsonObject], None]]:
        """Around a write of ours; called with the API server's answer."""
        place = _place(method, path, body)
        self._writes[place] += 1
        try:
            yield lambda answer: self._wrote(method, answer)
        finally:
            self._writes[place] -= 1
            if not self._writes[place]:
                del self._writes[place]
                for sort in self._held.pop(place, ()):
                    sort()

    def hear(self, obj: JsonObject, *, gone: bool, then: Callable[[News], None]) -> None:
        """Calls ``then`` with what an event tells: at once, unless a write of ours is under way."""
        metadata = json_object(obj.get("metadata"))
        place = (str(metadata.get("namespace")), str(metadata.get("name")))

        def sort() -> None:
            then(self._of(obj, gone=gone))

        if place in self._writes and len(self._held[place]) < _HELD:
            self._held[place].append(sort)
        else:
            sort()

    def _wrote(self, method: Method, obj: JsonObject) -> None:
        """The API server's answer to a write of ours."""
        known = self._known.get(uid_of(obj))
        said = _said(obj)
        # Of one that we changed, and of which nothing was known, nobody can tell what else changed.
        if known.said == said if known else method == "POST":
            self._keep(uid_of(obj), _Known(said, _status(obj), _version(obj)))

    def _of(self, obj: JsonObject, *, gone: bool) -> News:
        uid, said = uid_of(obj), _said(obj)
        known = self._known.get(uid)
        if gone:
            self._known.pop(uid, None)
            return News.CHANGE
        status = _status(obj)
        if known is None or known.said != said:
            self._keep(uid, _Known(said, status))
            return News.CHANGE
        if known.written == _version(obj) or known.status == status:
            return News.NOTHING
        self._keep(uid, replace(known, status=status))
        return News.STATUS

    def _keep(self, uid: str, known: _Known) -> None:
        self._known[uid] = known
        self._known.move_to_end(uid)
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)


def _place(method: Method, path: str, body: JsonValue) -> _Place:
    """Namespace and name of what is written; one that is made is named by the body."""
    _, found, within = path.partition("/namespaces/")
    if not found:
        return "", ""
    namespace, _, rest = within.partition("/")
    _, _, name = rest.partition("/")
    if method == "POST" and isinstance(body, dict):
        name = str(json_object(body.get("metadata")).get("name"))
    return namespace, name.partition("/")[0]


def _said(obj: JsonObject) -> bytes:
    """All that it says but how it stands."""
    metadata = {k: v for k, v in json_object(obj.get("metadata")).items() if k not in _PASSING}
    rest = {k: v for k, v in obj.items() if k not in ("metadata", "status")}
    return _digest([metadata, rest])


def _status(obj: JsonObject) -> bytes:
    return _digest(json_object(obj.get("status")))


def _digest(value: JsonValue) -> bytes:
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(text, digest_size=16).digest()


def _version(obj: JsonObject) -> str:
    return str(json_object(obj.get("metadata")).get("resourceVersion"))
