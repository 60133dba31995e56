"""A container's variables. What its pod was told by others is written out, as it is signed then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trainseal.api.model import JsonObject
from trainseal.cli.wrapping.fields import Field
from trainseal.cli.wrapping.ledger import Ledger
from trainseal.cli.wrapping.surroundings import Surroundings
from trainseal.cli.wrapping.words import Rename, renamed
from trainseal.cli.wrapping.workload import INDEX, SourceRole
from trainseal.provenance.document import FieldPath
from trainseal.provenance.downward import key_of

_FIRST = "MASTER_ADDR"


@dataclass(frozen=True, slots=True)
class Reading:
    """What is needed to tell what a variable means. ``first`` is the new name of the first pod,
    ``index`` the field path of a pod's index.
    """

    role: SourceRole
    renames: tuple[Rename, ...]
    first: str
    index: str
    around: Surroundings
    ledger: Ledger


@dataclass(frozen=True, slots=True)
class _Variable:
    entry: JsonObject
    source: Field

    @property
    def name(self) -> str:
        return str(self.entry.get("name", ""))


def variables(
    container: Field, at: FieldPath, reading: Reading, *, trains: bool
) -> list[JsonObject]:
    """The variables of a container; ``trains``: it is none that runs before."""
    brought: dict[str, _Variable] = {}
    for source in (container.get("envFrom") or container).items():
        for variable in _from_object(source, reading):
            brought[variable.name] = variable
    env = container.get("env")
    # What TrainSeal sets comes last: no variable can be made of it.
    drops = trains and not any(
        f"$({_FIRST})" in e.text("value") for e in (env.items() if env else ())
    )
    # What is no variable is nobody's here, and so is left.
    written = [e for e in (env.items() if env else ()) if [*e.entries()]]
    listed = [_one(field, reading, drops=drops) for field in written]
    own = [variable for variable in listed if variable is not None]
    names = {variable.name for variable in own}
    # One that stands here hides one of that name that an object brings.
    found = [v for v in brought.values() if v.name not in names] + own
    for index, variable in enumerate(found):
        reading.ledger.came_from((*at, "env", index), variable.source)
    entries = [variable.entry for variable in found]
    if trains:
        names |= brought.keys()
        entries += [dict(a) for a in reading.role.added if a["name"] not in names]
    return entries


def _from_object(source: Field, reading: Reading) -> Iterator[_Variable]:
    """What ``envFrom`` brings."""
    ledger, prefix = reading.ledger, source.text("prefix")
    name = source.text("configMapRef", "name")
    if name:
        values = reading.around.config_map(name)
        if values is None:
            ledger.left(
                source, f"variables from ConfigMap {name}, which is not in the file",
                "put the ConfigMap into the same file, or list the variables under env",
            )  # fmt: skip
            return
        ledger.changed(
            source, f"the values of ConfigMap {name} stand under env now, and are signed"
        )
        for key, value in values.items():
            yield _Variable({"name": prefix + key, "value": _literal(value)}, source)
        return
    name = source.text("secretRef", "name")
    keys = reading.around.secret_keys(name) if name else None
    if keys is None:
        ledger.left(
            source, f"variables from Secret {name}" if name else "variables from another object",
            "list each under env, by valueFrom.secretKeyRef; the policy's pods.allowedSecrets must"
            " name the Secret",
        )  # fmt: skip
        return
    ledger.changed(source, f"each key of Secret {name} is a variable of its own now")
    for key in keys:
        reference: JsonObject = {"secretKeyRef": {"name": name, "key": key}}
        yield _Variable({"name": prefix + key, "valueFrom": reference}, source)


def _one(field: Field, reading: Reading, *, drops: bool) -> _Variable | None:
    """A variable as it is to be signed; None for one that TrainSeal sets by itself."""
    ledger, name, source = reading.ledger, field.text("name"), field.get("valueFrom")
    if source is None:
        return _given(field, name, reading, drops=drops)
    reference = source.get("configMapKeyRef")
    if reference is not None:
        config_map, key = reference.text("name"), reference.text("key")
        value = (reading.around.config_map(config_map) or {}).get(key)
        if value is None:
            ledger.left(
                field, f"{name} is a value of ConfigMap {config_map}, which is not in the file",
                "write the value itself under env, or put the ConfigMap into the same file",
            )  # fmt: skip
            return None
        ledger.changed(field, f"{name} has the value that ConfigMap {config_map} has for {key}")
        return _Variable({"name": name, "value": _literal(value)}, field)
    key_name = key_of(source.text("fieldRef", "fieldPath"))
    fact = (reading.role.facts or {}).get(key_name.name) if key_name else None
    if fact == INDEX and source.text("fieldRef", "fieldPath") != reading.index:
        ledger.changed(field, f"{name} is the pod's index within its role, as Kubernetes tells it")
        at_index: JsonObject = {"fieldRef": {"fieldPath": reading.index}}
        return _Variable({"name": name, "valueFrom": at_index}, field)
    if fact is not None and fact != INDEX:
        ledger.changed(field, f"{name} was told by the workload's controller; it is {fact!r}")
        return _Variable({"name": name, "value": _literal(fact)}, field)
    entry = field.value
    ledger.settle(field)
    return _Variable(entry if isinstance(entry, dict) else {"name": name}, field)


def _given(field: Field, name: str, reading: Reading, *, drops: bool) -> _Variable | None:
    """A variable whose value stands in the manifest."""
    ledger, value = reading.ledger, field.text("value")
    entry = field.value
    found: JsonObject = dict(entry) if isinstance(entry, dict) else {"name": name}
    new, changes = renamed(value, reading.renames)
    if name == _FIRST:
        if new == reading.first and drops:
            ledger.changed(field, "TrainSeal sets MASTER_ADDR to the first worker by itself")
            return None
        if not changes and value not in ("localhost", "127.0.0.1"):
            ledger.guessed(
                field, f"MASTER_ADDR stays {value!r}, which is none of this job's pods",
                f"leave it out, and TrainSeal sets it to {reading.first}",
            )  # fmt: skip
    if changes:
        ledger.changed(field, f"{name}: {'; '.join(changes)}")
        found["value"] = new
    ledger.settle(field)
    return _Variable(found, field)


def _literal(value: str) -> str:
    """A value as the kubelet gives it: what stands under env it expands, what comes by reference
    it does not.
    """
    return value.replace("$", "$$") if "$(" in value or "$$" in value else value
