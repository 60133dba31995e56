"""Volumes become roles of mounts: what a directory is for, told from how it is used, or guessed.

A TrainingJob has each mount once, for all its containers: code, config, data, checkpoints and
scratch. What has none of these roles is left out, and said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from trainseal.api.model import JsonObject
from trainseal.cli.wrapping.fields import Field
from trainseal.cli.wrapping.ledger import Ledger, Outcome
from trainseal.cli.wrapping.surroundings import Surroundings, parameters_of
from trainseal.cli.wrapping.words import Rename, programs, whole_word
from trainseal.provenance.document import FieldPath

_MOUNT_FIELDS = ("name", "mountPath", "readOnly", "subPath")
_SOURCE_FIELDS = {
    "configMap": ("name", "items", "defaultMode", "optional"),
    "emptyDir": ("medium", "sizeLimit"),
    "hostPath": ("path", "type"),
    "persistentVolumeClaim": ("claimName", "readOnly"),
}
#: What `trainseal sign code` and `submit` put the repository in place of; no reference at all.
UNKNOWN_CODE = "TODO"
_OUT = re.compile(
    r"ckpts?|checkpoints?|outputs?|out|models?|results?|saved?|runs?|logs?|artifacts?|exp\w*"
)
_IN = re.compile(r"data\w*|dsets?|corpus|corpora|inputs?|tokens|tokenized|imagenet\w*|train|raw")
_CODE = re.compile(r"code|src|source|scripts?|repo\w*|app|workspace")
_NO_LABEL = re.compile(r"[^a-z0-9]+")
_CODE_REMEDY = (
    "`trainseal sign code DIR --push REPOSITORY` pushes and signs it; write what it prints in place"
    f" of {UNKNOWN_CODE}"
)
_LEFT_VOLUMES = {
    "secret": (
        "files from a Secret have no place among the mounts",
        "hand each key to the trainer under env, by valueFrom.secretKeyRef",
    ),
    "hostPath": (
        "a directory of the node is outside the seal",
        "use a claim, or a scratch directory where it is only for temporary files",
    ),
    "nfs": (
        "a server's directory is not named in a job",
        "have a PersistentVolume and a claim made for it, and mount the claim",
    ),
    "configMap": ("files from a ConfigMap", "see the note on its mount"),
}
_OTHER_VOLUME = (
    "a volume of this kind has no role",
    "use a claim or a scratch directory; what a platform adds by itself, a policy may allow",
)


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount of one container; the volume is None where the pod has none of its name."""

    mount: Field
    volume: Field | None
    container: str

    @property
    def path(self) -> str:
        """Where the container finds it."""
        return self.mount.text("mountPath").rstrip("/") or "/"

    @property
    def read_only(self) -> bool:
        """Whether the container cannot write to it."""
        claim = self.volume.get("persistentVolumeClaim") if self.volume else None
        return self.mount.true("readOnly") or bool(claim and claim.true("readOnly"))

    @property
    def source(self) -> JsonObject:
        """What is mounted, for telling whether two are one."""
        value = self.volume.value if self.volume else None
        held = {k: v for k, v in value.items() if k != "name"} if isinstance(value, dict) else {}
        return {**held, "subPath": self.mount.text("subPath")}


@dataclass(slots=True)
class Roles:
    """The mounts of a job, by their roles; and what a config's file is called now."""

    code: list[JsonObject] = field(default_factory=list)
    config: JsonObject | None = None
    data: list[JsonObject] = field(default_factory=list)
    checkpoints: JsonObject | None = None
    scratch: list[JsonObject] = field(default_factory=list)
    renames: list[Rename] = field(default_factory=list)

    def spec(self) -> JsonObject:
        """As fields of a TrainingJob's spec."""
        parts: dict[str, JsonObject | list[JsonObject] | None] = {
            "code": self.code, "config": self.config, "data": self.data,
            "checkpoints": self.checkpoints, "scratch": self.scratch,
        }  # fmt: skip
        return {name: part for name, part in parts.items() if part}  # type: ignore[misc]


def roles_of(
    mounts: Sequence[Mount], runs: Sequence[str], around: Surroundings, ledger: Ledger
) -> Roles:
    """The roles of all mounts of all containers; ``runs`` are the programs that they run."""
    roles = Roles()
    kept: dict[str, Mount] = {}
    for mount in mounts:
        before = kept.get(mount.path)
        if _extras(mount, ledger):
            continue
        if before is None:
            kept[mount.path] = mount
        elif before.source != mount.source:
            _leave(
                mount, ledger, f"{mount.path} is something else in container {before.container}",
                "a mount is for all containers of the job: give one of them another path",
            )  # fmt: skip
        else:
            kept[mount.path] = mount if before.read_only else before
            for other in (mount, before):
                _taken(other, ledger)
    for mount in kept.values():
        _place(mount, roles, around, ledger)
    claims = [m for m in kept.values() if _kind(m) == "persistentVolumeClaim"]
    _claims(claims, runs, roles, ledger)
    _parted([*kept.values()], ledger)
    return roles


def _extras(mount: Mount, ledger: Ledger) -> bool:
    """Whether a mount is one that no role has, whatever its volume."""
    for name, why in (
        ("subPathExpr", "a directory that a variable names"),
        ("mountPropagation", "mounts that pass between the node and the container"),
    ):
        found = mount.mount.get(name)
        if found is not None and found.content not in ("", "None"):
            _leave(mount, ledger, f"{mount.path}: {why}", "mount a directory by its own name")
            return True
    return False


def _kind(mount: Mount) -> str:
    volume = mount.volume
    return next((k for k, _ in volume.entries() if k != "name"), "emptyDir") if volume else ""


def _place(mount: Mount, roles: Roles, around: Surroundings, ledger: Ledger) -> None:
    kind = _kind(mount)
    if mount.volume is None:
        ledger.left(
            mount.mount, f"there is no volume {mount.mount.text('name')}",
            "see what the workload's controller or a webhook would have added",
        )  # fmt: skip
    elif kind == "emptyDir":
        _scratch(mount, roles, ledger)
    elif kind == "configMap":
        _config(mount, roles, around, ledger)
    elif kind == "hostPath" and mount.path == "/dev/shm":  # noqa: S108 - a name
        at: FieldPath = ("spec", "scratch", len(roles.scratch))
        roles.scratch.append({"mountPath": mount.path, "medium": "Memory"})
        _guess(mount, ledger, "the node's shared memory became the pod's own", "see its size", at)
    elif kind != "persistentVolumeClaim":
        why, remedy = _LEFT_VOLUMES.get(kind, _OTHER_VOLUME)
        _leave(mount, ledger, f"{kind} at {mount.path}: {why}", remedy)


def _scratch(mount: Mount, roles: Roles, ledger: Ledger) -> None:
    volume, at = mount.volume, ("spec", "scratch", len(roles.scratch))
    if volume is None or mount.mount.text("subPath") or mount.mount.text("subPathExpr"):
        _leave(
            mount, ledger, f"a part of an emptyDir at {mount.path}",
            "mount the whole of it, or give the part a scratch directory of its own",
        )  # fmt: skip
        return
    entry: JsonObject = {"mountPath": mount.path}
    for name in ("medium", "sizeLimit"):
        found = volume.at("emptyDir", name)
        if found is not None:
            entry[name] = found.value if isinstance(found.content, str) else str(found.content)
    roles.scratch.append(entry)
    _taken(mount, ledger)
    ledger.came_from(at, volume)


def _parted(mounts: Sequence[Mount], ledger: Ledger) -> None:
    """Of one emptyDir at several paths come several directories."""
    paths: dict[FieldPath, list[Mount]] = {}
    for mount in mounts:
        if mount.volume is not None and _kind(mount) == "emptyDir":
            paths.setdefault(mount.volume.path, []).append(mount)
    for found in paths.values():
        if len(found) > 1:
            ledger.left(
                found[0].mount,
                f"{' and '.join(m.path for m in found)} were one directory, and are one each now",
                "mount it at one path in all containers",
            )


def _config(mount: Mount, roles: Roles, around: Surroundings, ledger: Ledger) -> None:
    """A ConfigMap: the run's config where it is one file with a mapping, code where it is none."""
    volume = mount.volume
    source = volume.get("configMap") if volume else None
    name = source.text("name") if source else ""
    files = around.config_map(name)
    if files is None:
        _leave(
            mount, ledger, f"ConfigMap {name} at {mount.path}, which is not in the file",
            "put it into the same file; or write its values into spec.config.parameters",
        )  # fmt: skip
        return
    items = source.get("items") if source else None
    if items is not None:
        named = {i.text("key"): i.text("path") for i in items.items()}
        files = {named[key]: text for key, text in files.items() if key in named}
    config_map = around.find("ConfigMap", name)
    if config_map is not None and config_map.get("binaryData") is not None:
        files = {**files, "binaryData": ""}
    sub_path = mount.mount.text("subPath")
    if any(programs([key]) for key in files if key.endswith((".py", ".sh"))):
        _add_code(mount, roles, ledger, f"ConfigMap {name} holds code")
        return
    parameters = [p for file, text in files.items() if (p := parameters_of(text, file))]
    if sub_path or len(files) != 1 or not parameters or roles.config is not None:
        what = (
            "one file of it over another directory" if sub_path
            else "a second config" if roles.config is not None
            else f"{len(files)} files" if len(files) != 1
            else f"{next(iter(files))}, which is no mapping in YAML or JSON"
        )  # fmt: skip
        _leave(
            mount, ledger, f"ConfigMap {name} at {mount.path}: {what}",
            "write what the trainer reads into spec.config.parameters, or put the files into the"
            " code tree; the config files are config.yaml and config.json",
        )  # fmt: skip
        return
    file = next(iter(files))
    roles.config = {"mountPath": mount.path, "parameters": parameters[0]}
    old = f"{mount.path}/{file}"
    new = f"{mount.path}/config.{'json' if file.endswith('.json') else 'yaml'}"
    if old != new:
        roles.renames.append(Rename(whole_word(re.escape(old)), lambda _: new))
    at: FieldPath = ("spec", "config")
    _taken(mount, ledger)
    why = f"ConfigMap {name} is the run's config, and signed; it is {new}"
    ledger.changed(mount.mount, why, at, settles=False)


def _add_code(mount: Mount, roles: Roles, ledger: Ledger, why: str) -> None:
    at: FieldPath = ("spec", "code", len(roles.code))
    name = _name(mount.mount.text("name") or "code", roles.code)
    roles.code.append({"name": name, "mountPath": mount.path, "oci": {"reference": UNKNOWN_CODE}})
    _taken(mount, ledger)
    why = f"{why}: nobody signed what stands there"
    ledger.left(mount.mount, why, _CODE_REMEDY, at, settles=False)


def _claims(mounts: Sequence[Mount], runs: Sequence[str], roles: Roles, ledger: Ledger) -> None:
    """Code where something is run from it, data where it is only read, else the checkpoints."""
    writable: list[Mount] = []
    for mount in mounts:
        if program := _runs_from(mount, runs):
            _add_code(mount, roles, ledger, f"{program} is run from a claim")
        elif not mount.read_only and _hints(mount, _CODE) and not _hints(mount, _OUT):
            _add_code(mount, roles, ledger, "by its name it is code on a claim")
        elif mount.read_only or (_hints(mount, _IN) and not _hints(mount, _OUT)):
            _data(mount, roles, ledger)
        else:
            writable.append(mount)
    chosen = next((m for m in writable if _hints(m, _OUT)), next(iter(writable), None))
    for mount in writable:
        if mount is not chosen:
            _leave(
                mount, ledger,
                f"a second claim that is written to, at {mount.path}; {chosen and chosen.path} is"
                " taken for the checkpoints",
                "a job has one place that is kept: write below it, or to a scratch directory",
            )  # fmt: skip
            continue
        at: FieldPath = ("spec", "checkpoints")
        roles.checkpoints = _on_claim(mount)
        _guess(
            mount, ledger, f"{mount.path} is taken for the checkpoints: it is written to",
            "if it holds code, it is spec.code; if it is only read, spec.data", at,
        )  # fmt: skip


def _data(mount: Mount, roles: Roles, ledger: Ledger) -> None:
    at: FieldPath = ("spec", "data", len(roles.data))
    name = _name(mount.mount.text("name"), roles.data)
    roles.data.append({"name": name, **_on_claim(mount)})
    ledger.came_from(("spec", "data", name), mount.mount)
    why = "it is mounted read-only" if mount.read_only else "by its name; it cannot be written now"
    _guess(
        mount, ledger, f"{mount.path} is taken for data: {why}",
        "if it holds code, it is spec.code; if the run writes there, spec.checkpoints", at,
    )  # fmt: skip


def _on_claim(mount: Mount) -> JsonObject:
    claim = mount.volume.text("persistentVolumeClaim", "claimName") if mount.volume else ""
    entry: JsonObject = {
        "mountPath": mount.path,
        "volume": {"persistentVolumeClaim": {"claimName": claim}},
    }
    path = mount.mount.text("subPath").strip("/")
    return {**entry, "path": path} if path else entry


def _runs_from(mount: Mount, runs: Sequence[str]) -> str:
    """The first program below the mount."""
    return next((p for p in runs if p.startswith(f"{mount.path}/")), "")


def _hints(mount: Mount, pattern: re.Pattern[str]) -> bool:
    claim = mount.volume.text("persistentVolumeClaim", "claimName") if mount.volume else ""
    names = (mount.mount.text("name"), claim, mount.path, mount.mount.text("subPath"))
    return any(pattern.fullmatch(w) for n in names for w in _NO_LABEL.split(n.lower()) if w)


def _guess(mount: Mount, ledger: Ledger, why: str, remedy: str, at: FieldPath) -> None:
    _taken(mount, ledger)
    ledger.note(Outcome.GUESSED, mount.mount, why, remedy, at, settles=False)


def _taken(mount: Mount, ledger: Ledger) -> None:
    """What is known of a mount and its volume stands in a role; of the rest nobody has heard."""
    ledger.settle(*(mount.mount.get(name) for name in _MOUNT_FIELDS))
    if mount.volume is None:
        return
    ledger.settle(mount.volume.get("name"))
    kind = _kind(mount)
    source = mount.volume.get(kind)
    if source is not None:
        known = [source.get(name) for name in _SOURCE_FIELDS.get(kind, ())]
        ledger.settle(*(known if [*source.entries()] else [source]))


def _leave(mount: Mount, ledger: Ledger, why: str, remedy: str) -> None:
    if mount.volume is not None:
        ledger.settle(mount.volume)
    ledger.left(mount.mount, why, remedy)


def _name(text: str, others: Sequence[JsonObject]) -> str:
    """A DNS label that none of the others has."""
    base = _NO_LABEL.sub("-", text.lower()).strip("-")[:50].strip("-") or "volume"
    taken = {str(o["name"]) for o in others}
    return next(n for n in _names(base) if n not in taken)


def _names(base: str) -> Iterator[str]:
    yield base
    number = 2
    while True:
        yield f"{base}-{number}"
        number += 1
