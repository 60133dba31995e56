"""StackRequests go an hour after they were made, and not before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

from trainseal.cluster.api import Kube
from trainseal.controller.stackexpiry import StackExpiry

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
PATH = "/apis/trainseal.dev/v1alpha1/stackrequests"


def request(name: str, minutes: int, **changed: Any) -> dict[str, Any]:
    made = NOW - timedelta(minutes=minutes)
    return {
        "metadata": {
            "name": name,
            "namespace": "research",
            "uid": f"uid-of-{name}",
            "creationTimestamp": made.isoformat(),
        },
        "spec": {"sealedRun": "char-lm-1", "user": "ann"},
    } | changed


class Server:
    """Pages of requests; keeps what was deleted."""

    def __init__(self, *pages: list[dict[str, Any]]) -> None:
        self.pages = list(pages)
        self.deleted: list[tuple[str, str]] = []

    async def request(self, _: str, path: str, *, query: dict[str, str]) -> Any:
        assert path == PATH
        number = int(query.get("continue", "0"))
        more = {"continue": str(number + 1)} if number + 1 < len(self.pages) else {}
        return {"items": self.pages[number], "metadata": more}

    async def delete(self, path: str, *, uid: str) -> None:
        self.deleted.append((path.rpartition("/")[2], uid))


async def look(*pages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    server = Server(*pages)
    await StackExpiry(cast("Kube", server), lambda: NOW).look()
    return server.deleted


async def test_what_is_more_than_an_hour_old_goes_and_nothing_else() -> None:
    found = await look([request("old", 61), request("young", 59)], [request("older", 600)])
    assert found == [("old", "uid-of-old"), ("older", "uid-of-older")]


async def test_one_that_cannot_be_read_does_not_keep_the_others() -> None:
    broken = request("broken", 99, spec={"sealedRun": 3})
    assert await look([broken, request("old", 61)]) == [("old", "uid-of-old")]
