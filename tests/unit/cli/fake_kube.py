"""An API server in memory, as far as the command line looks at one."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from trainseal.cluster.api import ConflictError, KubeError, NotFoundError

Object = dict[str, Any]


@dataclass
class FakeKube:
    """Objects by path. ``states`` are what a job's status becomes, one at each look at it.

    ``events`` is what watches see; a deletion takes the job away. ``refusal`` is raised on each
    create; ``failures`` on each look at a path.
    """

    objects: dict[str, Object] = field(default_factory=dict)
    states: list[Object] = field(default_factory=list)
    refusal: KubeError | None = None
    failures: dict[str, KubeError] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    events: list[tuple[str, Object]] = field(default_factory=list)
    made: int = 0

    async def get(self, path: str) -> Object:
        return await self.request("GET", path)

    async def request(self, method: str, path: str, **_: Any) -> Object:
        self.calls.append(f"{method} {path}")
        if path in self.failures:
            raise self.failures[path]
        if path not in self.objects:
            raise NotFoundError(404, "NotFound", f"{path} not found")
        if method == "DELETE":
            return self.objects.pop(path)
        found = self.objects[path]
        if "/trainingjobs/" in path and self.states:
            found["status"] = self.states.pop(0)
        return copy.deepcopy(found)

    async def create(
        self, path: str, obj: Object, *, dry_run: bool = False, strict: bool = False
    ) -> Object:
        assert strict, "a misspelt field would be dropped in silence"
        self.calls.append(f"{'TRY' if dry_run else 'POST'} {path}")
        if self.refusal is not None:
            raise self.refusal
        place = f"{path}/{obj['metadata']['name']}"
        if place in self.objects:
            raise ConflictError(409, "AlreadyExists", "exists")
        if not dry_run:
            self.made += 1
            stored = copy.deepcopy(obj)
            stored["metadata"]["uid"] = f"uid-{self.made}"
            self.objects[place] = stored
        return copy.deepcopy(obj) if dry_run else copy.deepcopy(self.objects[place])

    async def patch(self, path: str, patch: list[Object], content_type: str) -> Object:
        """A JSON patch of tests and additions (RFC 6902)."""
        assert content_type == "application/json-patch+json"
        self.calls.append(f"PATCH {path}")
        found = self.objects[path]
        for operation in patch:
            *way, last = operation["path"].strip("/").split("/")
            at = found
            for part in way:
                at = at[part]
            if operation["op"] == "test":
                if at.get(last) != operation["value"]:
                    raise KubeError(422, "Invalid", f"testing value {operation['path']} failed")
            else:
                at[last] = operation["value"]
        return copy.deepcopy(found)

    async def watch(self, *_: Any, **__: Any) -> AsyncIterator[tuple[str, Object]]:
        while self.events:
            kind, obj = self.events.pop(0)
            if kind == "DELETED":
                self.objects = {p: o for p, o in self.objects.items() if "/trainingjobs/" not in p}
            yield kind, obj


def connecting_to(
    kube: FakeKube,
) -> Callable[..., contextlib.AbstractAsyncContextManager[FakeKube]]:
    """Stands in for ``cluster.api.connect``."""

    @contextlib.asynccontextmanager
    async def connect(*_: Any) -> AsyncIterator[FakeKube]:
        yield kube

    return connect
