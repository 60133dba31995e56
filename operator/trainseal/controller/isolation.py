"""The run's NetworkPolicy: the ordinary one, or in quarantine one that allows nothing.

The seal says in ``status.isolatedSince`` which of the two it is. That is written once the policy
has become so: in between either counts as ours, and whatever is found is replaced. After that what
differs was done by somebody else; it is told and left as it is, for it is evidence.

What is not promised: NetworkPolicies add up, so another one may allow what this one does not, and
not every cluster enforces them. That nothing is sent rests on the pods being frozen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime

from pydantic import JsonValue

from trainseal.api.model import API_VERSION, JsonObject, json_object
from trainseal.api.sealedrun import Hold, SealedRun
from trainseal.cluster.api import KubeError, path_of
from trainseal.controller import objects
from trainseal.controller.driftstatus import hold_of
from trainseal.controller.world import World
from trainseal.engines.engine import Rendered
from trainseal.engines.surroundings import isolated
from trainseal.provenance.keyrings import rfc3339

Json = Mapping[str, JsonValue]
#: Answers that mean no, not now.
_REFUSALS = frozenset({400, 403, 422})


def is_wanted(hold: Hold | None, *, is_so: bool) -> bool:
    """Whether the run is to be isolated. One that is terminated out of quarantine stays so: its
    pods are thawed to be killed.
    """
    if hold is None:
        return False
    return hold.response == "Quarantine" or (hold.response == "Terminate" and is_so)


def ours(ordinary: JsonObject, seal: Json) -> tuple[JsonObject, ...]:
    """The policies that the run's may be as the seal stands: one, or both while it changes."""
    is_so = bool(json_object(seal.get("status")).get("isolatedSince"))
    wanted = is_wanted(hold_of(seal), is_so=is_so)
    forms = {is_so: isolated(ordinary) if is_so else ordinary}
    forms[wanted] = isolated(ordinary) if wanted else ordinary
    return tuple(forms.values())


async def bring_about(
    world: World, job: JsonObject, sealed: SealedRun, hold: Hold | None, rendered: Rendered
) -> tuple[Rendered, list[str]]:
    """What the run leans on as it is to be now, its NetworkPolicy changed where it is not so yet;
    with words for a change that the API server refused. Raises ForeignObjectError and KubeError.
    """
    since = sealed.status.isolated_since if sealed.status else None
    wanted = is_wanted(hold, is_so=since is not None)
    if wanted:
        policy = isolated(rendered.network_policy)
        rendered = dataclasses.replace(rendered, network_policy=policy)
    if wanted == (since is not None):
        return rendered, []
    name = f"NetworkPolicy {json_object(rendered.network_policy['metadata'])['name']}"
    try:
        await objects.replace_spec(world.kube, rendered.network_policy, sealed.spec.job.uid)
    except KubeError as error:
        if error.status not in _REFUSALS:
            raise
        return rendered, [f"{name} could not be changed: {error.message}"]
    await _tell(world, job, name, hold if wanted else None, since)
    path = path_of(
        API_VERSION, "sealedruns", sealed.metadata.namespace, f"{sealed.metadata.name}/status"
    )
    now = rfc3339(world.clock()) if wanted else None
    await world.kube.patch(path, {"status": {"isolatedSince": now}})
    return rendered, []


async def _tell(
    world: World, job: JsonObject, name: str, hold: Hold | None, since: datetime | None
) -> None:
    if hold is not None:
        await world.event(
            job,
            warning=True,
            reason="Isolated",
            message=f"{name} allows nothing in or out: the run is quarantined",
            occasion=f"{hold.id}/{hold.since}",
        )
    else:
        await world.event(
            job,
            warning=False,
            reason="IsolationEnded",
            message=f"{name} allows again what it did before the quarantine",
            occasion=str(since),
        )
