"""What is new in what a watch tells. Much of it is not: a run that starts is heard of ten times,
and most of that is what was just done for it.

1. An object at the version at which our own write left it, and that says what it said then, is
   ``OURS``. Who writes knows already what became of it.
2. One of which nothing has changed but its status is ``STATUS``.
3. All else is ``CHANGE``; so is an object that is heard of for the first time, or that is gone.

What another wrote between two of our writes makes a difference in the second one's answer, or in
its event: it is a change, also where the watch tells only of the last version.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum

import orjson

from trainseal.api.model import JsonObject, json_object
from trainseal.cluster.api import Method
from trainseal.controller.objects import uid_of

#: Objects that are known: 250 bytes each. One that was forgotten is heard of as if it were new.
_KNOWN = 50_000
#: Of the metadata, what says nothing of the object.
_PASSING = ("resourceVersion", "managedFields")


class News(Enum):
    """What somebody has to look at."""

    OURS = "ours"
    STATUS = "status"
    CHANGE = "change"


@dataclass(frozen=True, slots=True)
class _Known:
    """A digest of what an object says; at which version our own write left it so."""

    said: bytes
    written: str = ""


class Hearing:
    """Fed with what was written, by ``wrote``, and with what a watch tells, by ``of``."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def wrote(self, method: Method, obj: JsonObject) -> None:
        """The API server's answer to a write of ours."""
        known = self._known.get(uid_of(obj))
        said = _said(obj)
        # Of one that we changed, and of which nothing was known, nobody can tell what else changed.
        if known.said == said if known else method == "POST":
            self._keep(uid_of(obj), _Known(said, _version(obj)))

    def of(self, obj: JsonObject, *, gone: bool) -> News:
        """What an event tells."""
        uid, said = uid_of(obj), _said(obj)
        known = self._known.get(uid)
        if gone:
            self._known.pop(uid, None)
            return News.CHANGE
        if known is None or known.said != said:
            self._keep(uid, _Known(said))
            return News.CHANGE
        return News.OURS if known.written == _version(obj) else News.STATUS

    def _keep(self, uid: str, known: _Known) -> None:
        self._known[uid] = known
        self._known.move_to_end(uid)
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)


def _said(obj: JsonObject) -> bytes:
    """All that it says but how it stands."""
    metadata = {k: v for k, v in json_object(obj.get("metadata")).items() if k not in _PASSING}
    rest = {k: v for k, v in obj.items() if k not in ("metadata", "status")}
    text = orjson.dumps([metadata, rest], option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(text, digest_size=16).digest()


def _version(obj: JsonObject) -> str:
    return str(json_object(obj.get("metadata")).get("resourceVersion"))
