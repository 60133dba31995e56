"""What a run's objects, as they are read, explain of the ends of its pods."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.sample_objects import sealed_run
from trainseal.api.sealedrun import SealedRun
from trainseal.cluster.api import NotFoundError
from trainseal.controller.disturbances import LEAVING
from trainseal.controller.runstate import read_run, state_of
from trainseal.provenance.boundseals import BoundRole

Object = dict[str, Any]
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SEAL = sealed_run()
SEALED = SealedRun.parse(SEAL)
JOB = SEALED.spec.job
ROLE = BoundRole("worker", "char-lm-worker", "engine-uid", 2, {})


def text(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


class Server:
    """The TrainingJob and its Job, as a run that goes on has them."""

    def __init__(self) -> None:
        self.job: Object | None = {"metadata": {"name": JOB.name, "uid": JOB.uid}}
        self.engine: Object | None = {
            "metadata": {"uid": ROLE.object_uid},
            "spec": {},
            "status": {"startTime": text(NOW)},
        }

    async def get(self, path: str) -> Object:
        found = self.job if "/trainingjobs/" in path else self.engine
        if found is None:
            raise NotFoundError(404, "NotFound", path)
        return found

    async def explains(self, at: datetime) -> bool:
        key = ("research", SEAL["metadata"]["name"])
        run = await read_run(self, key, SEAL, SEALED, (ROLE,))  # type: ignore[arg-type]
        return state_of(run, ROLE.object_uid).explains(at)


@pytest.fixture
def server() -> Server:
    return Server()


async def test_a_run_that_goes_on_explains_no_deletion(server: Server) -> None:
    assert not await server.explains(NOW)


async def test_a_job_that_was_resumed_and_has_not_started_again_still_explains_deletions(
    server: Server,
) -> None:
    assert server.engine is not None
    server.engine["status"] = {"conditions": [{"type": "Suspended", "status": "True"}]}
    assert await server.explains(NOW)


async def test_a_job_that_nobody_suspended_explains_no_deletion_before_its_start_is_told(
    server: Server,
) -> None:
    assert server.engine is not None
    server.engine["status"] = {}
    assert not await server.explains(NOW)


async def test_a_job_that_has_started_again_explains_no_deletion(server: Server) -> None:
    assert server.engine is not None
    server.engine["status"]["conditions"] = [{"type": "Suspended", "status": "False"}]
    assert not await server.explains(NOW)


@pytest.mark.parametrize("which", ["job", "engine"])
async def test_what_is_being_deleted_explains_deletions_for_a_while_and_not_for_ever(
    server: Server, which: str
) -> None:
    """A finalizer keeps an object for as long as whoever put it there likes."""
    obj: Object = getattr(server, which)
    obj["metadata"] |= {"deletionTimestamp": text(NOW), "finalizers": ["example.org/kept"]}
    assert await server.explains(NOW + LEAVING)
    assert not await server.explains(NOW + LEAVING + timedelta(seconds=1))


@pytest.mark.parametrize("which", ["job", "engine"])
async def test_what_is_gone_explains_deletions(server: Server, which: str) -> None:
    setattr(server, which, None)
    assert await server.explains(NOW + LEAVING * 2)


@pytest.mark.parametrize("which", ["job", "engine"])
async def test_what_was_made_anew_is_another_and_ours_is_gone(server: Server, which: str) -> None:
    getattr(server, which)["metadata"] |= {"uid": "new", "deletionTimestamp": text(NOW)}
    assert await server.explains(NOW + LEAVING * 2)
