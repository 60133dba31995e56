"""What a platform may add to sealed pods, as policies name it.

Variables, labels and annotations are allowed by name; containers, volumes and mounts each by a rule
that says the whole of it. Whether one found in a pod is what a rule says: ``additionmatch``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from trainseal.api.policyadditions import Addition, ContainerAddition, EnvAddition, MountAddition
from trainseal.provenance.commandlines import loads_code
from trainseal.provenance.systempaths import holds_programs

#: Names that no added container may have.
_RESERVED = frozenset({"trainseal-gate"})
#: Where platforms put credentials of theirs; jobs have no mounts there.
_CREDENTIALS = ("/run/secrets/", "/var/run/secrets/")
_TOKENS = "kubernetes.io"

T = TypeVar("T")
#: Rules of each policy: one of each set must fit.
Rules = frozenset[frozenset[T]]


class AdditionError(ValueError):
    """An addition that no policy may name; the words say what and why."""


@dataclass(frozen=True, slots=True)
class AddedMount:
    """A mount of a volume whose name fits ``volume``, at ``path`` or below."""

    volume: str
    path: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class AddedVolume:
    """A volume whose name fits ``name``; what it may hold."""

    name: str
    kind: str
    config_maps: frozenset[str]
    audiences: frozenset[str]
    drivers: frozenset[str]


@dataclass(frozen=True, slots=True)
class AddedContainer:
    """A container, the whole of it. ``env`` are names with the start of the value; ``command`` and
    ``args`` None where it must have none of its own.
    """

    name: str
    init: bool
    images: frozenset[str]
    command: tuple[str, ...] | None
    args: tuple[str, ...] | None
    env: frozenset[tuple[str, str]]
    fields: frozenset[str]
    mounts: frozenset[AddedMount]
    hooks: frozenset[tuple[str, ...]]
    capabilities: frozenset[str]


@dataclass(frozen=True, slots=True)
class Additions:
    """What named platform additions allow: variables by the start of their value (it fits if its
    value starts with any of its prefixes) or, as ``fields``, taken from the pod itself; labels,
    annotations.

    Of ``containers``, ``volumes`` and ``mounts`` (those in signed containers) each policy has a set
    of rules, and one in every set must fit: by default there is one set, and nothing in it.
    """

    env: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    labels: frozenset[str] = frozenset()
    annotations: frozenset[str] = frozenset()
    containers: Rules[AddedContainer] = frozenset({frozenset()})
    volumes: Rules[AddedVolume] = frozenset({frozenset()})
    mounts: Rules[AddedMount] = frozenset({frozenset()})
    fields: frozenset[str] = frozenset()

    def both(self, other: Additions) -> Additions:
        """What both allow."""
        return Additions(
            {
                name: tuple(
                    dict.fromkeys(
                        max(a, b, key=len)
                        for a in prefixes
                        for b in other.env[name]
                        if a.startswith(b) or b.startswith(a)
                    )
                )
                for name, prefixes in self.env.items()
                if name in other.env
            },
            self.labels & other.labels,
            self.annotations & other.annotations,
            self.containers | other.containers,
            self.volumes | other.volumes,
            self.mounts | other.mounts,
            self.fields & other.fields,
        )

    @property
    def places(self) -> tuple[str, ...]:
        """Directories in signed containers at or below which something may be mounted."""
        return tuple(sorted({rule.path for rules in self.mounts for rule in rules}))


def compile_additions(named: Iterable[Addition]) -> Additions:
    """What one policy's additions allow. Raises AdditionError."""
    env: dict[str, tuple[str, ...]] = {}
    fields: set[str] = set()
    labels: set[str] = set()
    annotations: set[str] = set()
    containers: set[AddedContainer] = set()
    volumes: set[AddedVolume] = set()
    mounts: set[AddedMount] = set()
    for addition in named:
        for name, prefix in _variables(addition.name, addition.env):
            env[name] = (*env.get(name, ()), prefix)
        for name in addition.fields or ():
            _loads_no_code(addition.name, name)
            fields.add(name)
        labels.update(addition.labels or ())
        annotations.update(addition.annotations or ())
        containers.update(_container(addition.name, c) for c in addition.containers or ())
        for volume in addition.volumes or ():
            if volume.kind == "configMap" and not volume.config_maps:
                raise AdditionError(
                    f"addition {addition.name}: volume {volume.name} is a ConfigMap and names none;"
                    " list those that it may hold under configMaps"
                )
            if volume.kind == "csi" and not volume.drivers:
                raise AdditionError(
                    f"addition {addition.name}: volume {volume.name} is of a CSI driver and names "
                    "none; list those that it may be of under drivers"
                )
            volumes.add(
                AddedVolume(
                    volume.name,
                    volume.kind,
                    frozenset(volume.config_maps or ()),
                    frozenset(volume.audiences or ()),
                    frozenset(volume.drivers or ()),
                )
            )
        for mount in addition.mounts or ():
            if is_systems(mount.path):
                raise AdditionError(
                    f"addition {addition.name}: mount path {mount.path} is the system's, where an "
                    "image has its programs; a platform may mount nothing over them in a signed "
                    "container, give a directory of the platform's own"
                )
            mounts.add(_mount(mount))
    return Additions(
        env,
        frozenset(labels),
        frozenset(annotations),
        frozenset({frozenset(containers)}),
        frozenset({frozenset(volumes)}),
        frozenset({frozenset(mounts)}),
        frozenset(fields),
    )


def is_systems(path: str) -> bool:
    """Whether nothing may be added at this path of a signed container."""
    for top in _CREDENTIALS:
        if path.startswith(top):
            return path.removeprefix(top).partition("/")[0] == _TOKENS
    return holds_programs(path)


def _variables(addition: str, env: Iterable[EnvAddition] | None) -> Iterable[tuple[str, str]]:
    for variable in env or ():
        _loads_no_code(addition, variable.name)
        yield variable.name, variable.value_prefix or ""


def _loads_no_code(addition: str, variable: str) -> None:
    if loads_code(variable):
        raise AdditionError(
            f"addition {addition}: variable {variable} decides which code a process loads; a "
            "platform may not add it, put it into the signed template"
        )


def _container(addition: str, container: ContainerAddition) -> AddedContainer:
    if container.name in _RESERVED:
        raise AdditionError(
            f"addition {addition}: container {container.name} has a name of TrainSeal's; a "
            "platform's container has another"
        )
    for name in container.fields or ():
        _loads_no_code(addition, name)
    return AddedContainer(
        name=container.name,
        init=bool(container.init),
        images=frozenset(container.images),
        command=_words(container.command),
        args=_words(container.args),
        env=frozenset(_variables(addition, container.env)),
        fields=frozenset(container.fields or ()),
        mounts=frozenset(_mount(m) for m in container.mounts or ()),
        hooks=frozenset(tuple(hook) for hook in container.hooks or ()),
        capabilities=frozenset(container.capabilities or ()),
    )


def _words(words: Iterable[str] | None) -> tuple[str, ...] | None:
    return tuple(words or ()) or None


def _mount(mount: MountAddition) -> AddedMount:
    return AddedMount(mount.volume, mount.path, bool(mount.read_only))
