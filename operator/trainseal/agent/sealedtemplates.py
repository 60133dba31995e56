"""What a seal says of a container that the watch needs: its mounts by role, its variables.

Pure. Roles go by the names that the operator itself gives to volumes when it renders a pod
(``trainseal.engines.podtemplate``); a template is read from a verified seal alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from trainseal.agent.observed import Role, RoleMount
from trainseal.agent.sessions import Command, own_commands
from trainseal.api.gateplan import PlannedConfig
from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.engines.podtemplate import GATE_CONTAINER

_PREFIXES: tuple[tuple[str, Role], ...] = (
    ("code-", "code"),
    ("data-", "data"),
    ("scratch-", "scratch"),
)
_NAMES: Mapping[str, Role] = {"config": "config", "checkpoints": "checkpoints"}


@dataclass(frozen=True, slots=True)
class SealedContainer:
    """One container of a sealed template.

    ``env`` has None where the value is known at run time only. ``message_path`` is where the
    kubelet mounts the file by which a container is recognised; ``own_commands`` are those that the
    kubelet itself runs in it, for probes and hooks. ``added``: it is none of the template's.
    """

    name: str
    mounts: tuple[RoleMount, ...]
    env: Mapping[str, str | None]
    message_path: str
    own_commands: frozenset[Command] = frozenset()
    added: bool = False


@dataclass(frozen=True, slots=True)
class SealedPart:
    """What of a pod the template says: the containers to watch, without the gate; the names of all
    containers, and of all volumes.
    """

    containers: Mapping[str, SealedContainer] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    volumes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class SealedTrees:
    """What the signed mounts of a pod hold.

    ``code``: the sealed digest of each code mount's tree, by volume name. ``config``: the digest
    of each config file (``sha256:…``), by name; empty where nobody can say.
    """

    code: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)


def sealed_part(template: JsonObject) -> SealedPart:
    """What the template says. The gate is not watched: it writes the code mounts."""
    spec = json_object(template.get("spec"))
    found = [*json_objects(spec.get("initContainers")), *json_objects(spec.get("containers"))]
    volumes = frozenset(str(v.get("name")) for v in json_objects(spec.get("volumes")))
    return SealedPart(
        {
            str(c.get("name")): sealed_container(c, volumes)
            for c in found
            if c.get("name") != GATE_CONTAINER
        },
        frozenset(str(c.get("name")) for c in found),
        volumes,
    )


def config_digests(template: JsonObject) -> Mapping[str, str]:
    """The digest of each config file, by name, as the gate's sealed arguments have it.

    Empty where the pod has no config, and where the arguments cannot be read. Of the gate's plan
    nothing but this part is read: the rest may be of another version than ours.
    """
    for container in json_objects(json_object(template.get("spec")).get("initContainers")):
        args = container.get("args")
        if container.get("name") != GATE_CONTAINER or not isinstance(args, list):
            continue
        try:
            plan = json.loads(str(args[args.index("--plan") + 1]))
            return PlannedConfig.model_validate(plan["config"]).files
        except (ValueError, IndexError, KeyError, TypeError, RecursionError, ValidationError):
            return {}
    return {}


def role_of(volume: str) -> Role | None:
    """What a volume of this name is for; None for one that is not ours."""
    if volume in _NAMES:
        return _NAMES[volume]
    return next((role for prefix, role in _PREFIXES if volume.startswith(prefix)), None)


def sealed_container(
    container: JsonObject, volumes: frozenset[str], *, added: bool = False
) -> SealedContainer:
    """One container; ``volumes`` are the template's: no others have a role."""
    env = _env(container)
    return SealedContainer(
        name=str(container.get("name")),
        mounts=_mounts(container, volumes),
        env=env,
        message_path=str(container.get("terminationMessagePath") or "/dev/termination-log"),
        own_commands=own_commands(container, env),
        added=added,
    )


def _mounts(container: JsonObject, volumes: frozenset[str]) -> tuple[RoleMount, ...]:
    found = []
    for mount in json_objects(container.get("volumeMounts")):
        volume, path = str(mount.get("name")), str(mount.get("mountPath"))
        role = role_of(volume) if volume in volumes else None
        if role is not None:
            found.append(RoleMount(path=path.rstrip("/") or "/", role=role, name=volume))
    return tuple(found)


def _env(container: JsonObject) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for item in json_objects(container.get("env")):
        value = item.get("value")
        text = value if isinstance(value, str) else ""
        # $(NAME) is the kubelet's to expand.
        known = "valueFrom" not in item and "$(" not in text
        found[str(item.get("name"))] = text if known else None
    return found
