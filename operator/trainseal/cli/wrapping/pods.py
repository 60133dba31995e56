"""A pod template of a workload becomes that of a role: what is known to be safe, and no mounts."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from posixpath import join, normpath

from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object
from trainseal.cli.wrapping.environment import Reading, variables
from trainseal.cli.wrapping.fields import Field
from trainseal.cli.wrapping.ledger import Ledger
from trainseal.cli.wrapping.mounts import Mount
from trainseal.cli.wrapping.selectors import check_selectors
from trainseal.cli.wrapping.words import fetched, programs, renamed
from trainseal.engines.podtemplate import PLACED
from trainseal.provenance.document import FieldPath
from trainseal.provenance.jobrules import by_digest
from trainseal.provenance.podrules import CONTAINER_FIELDS, POD_FIELDS, WHY_FORBIDDEN

KINDS = ("initContainers", "containers")
_CHANGED_DIRECTORY = re.compile(r"(?:^|[\s;&|(])cd\s+([^\s;&|)]+)")
#: Annotations that only JobSet's controller heeds.
FOR_JOBSET = "alpha.jobset.sigs.k8s.io/"
WITHOUT_JOBSET = (
    "only JobSet's controller heeds it",
    "say where the pods go by affinity or topologySpreadConstraints in spec.scheduling",
)
#: What the cluster writes into the templates of objects, and no person.
_CLUSTERS = frozenset(
    {
        "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "controller-uid",
        "job-name",
    }
)  # fmt: skip
_POD_REMEDY = {
    "hostNetwork": "remove it; where the network cards need it, see which device plugin gives them",
    "subdomain": "",
}


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod template, and what is found in its containers."""

    template: Field

    @property
    def spec(self) -> Field | None:
        """The pod's spec."""
        return self.template.get("spec")

    def containers(self) -> Iterator[tuple[str, int, Field]]:
        """Each container, with the list it stands in and its place there."""
        for kind in KINDS:
            found = self.template.at("spec", kind)
            for index, container in enumerate(found.items() if found else ()):
                yield kind, index, container

    def mounts(self) -> Iterator[Mount]:
        """Each mount of each container."""
        listed = self.template.at("spec", "volumes")
        volumes = {v.text("name"): v for v in (listed.items() if listed else ())}
        for _, _, container in self.containers():
            found = container.get("volumeMounts")
            for mount in found.items() if found else ():
                yield Mount(mount, volumes.get(mount.text("name")), container.text("name"))

    def runs(self) -> Iterator[str]:
        """The programs that its containers run, as absolute paths where that can be told."""
        for _, _, container in self.containers():
            words = command_words(container)
            directories = [container.text("workingDir") or "/"]
            directories += [m[1] for w in words for m in _CHANGED_DIRECTORY.finditer(w)]
            for program in programs(words):
                for directory in directories:
                    yield normpath(join("/", directory, program))


def command_words(container: Field) -> list[str]:
    """The words of a container's command and arguments."""
    parts = (container.get("command"), container.get("args"))
    return [str(w.content) for part in parts if part for w in part.items()]


def role_template(
    pod: Pod, at: FieldPath, reading: Reading, elsewhere: Collection[str]
) -> JsonObject:
    """The template of a role; ``elsewhere`` are fields of placement that the job has."""
    ledger, spec = reading.ledger, pod.spec
    template: JsonObject = {}
    if metadata := _metadata(pod.template.get("metadata"), (*at, "metadata"), ledger):
        template["metadata"] = metadata
    found: JsonObject = {}
    template["spec"] = found
    if spec is None:
        return template
    ledger.came_from((*at, "spec"), spec)
    check_selectors(spec, json_object(metadata.get("labels")), ledger)
    for name, field in spec.entries():
        if name in KINDS:
            found[name] = [
                _container(c, (*at, "spec", name, i), reading, trains=name == "containers")
                for i, c in enumerate(field.items())
            ]
        elif name == "volumes" or name in elsewhere:
            continue
        else:
            _pod_field(name, field, (*at, "spec"), found, ledger)
    if "serviceAccountName" in found and "automountServiceAccountToken" not in found:
        account = spec.get("serviceAccountName")
        if account is not None:
            ledger.changed(
                account, "the pods get no token of the account; for one, write"
                " automountServiceAccountToken: true", (*at, "spec", "serviceAccountName"),
            )  # fmt: skip
    return template


def _metadata(metadata: Field | None, at: FieldPath, ledger: Ledger) -> JsonObject:
    found: JsonObject = {}
    for name in ("labels", "annotations"):
        part = metadata.get(name) if metadata else None
        kept: JsonObject = {}
        for key, field in part.entries() if part else ():
            if key in _CLUSTERS:
                ledger.settle(field)
            elif key.startswith(FOR_JOBSET):
                ledger.left(field, *WITHOUT_JOBSET)
            else:
                kept[key] = ledger.carry(field, (*at, name, key))
        if kept:
            found[name] = kept
        elif part is not None and not [*part.entries()]:
            ledger.settle(part)
    return found


def _pod_field(name: str, field: Field, at: FieldPath, found: JsonObject, ledger: Ledger) -> None:
    """One field of a pod's spec that is neither containers, volumes nor placement."""
    if name == "restartPolicy":
        if field.content == "Never":
            ledger.settle(field)
        else:
            ledger.changed(
                field, f"{field.content}: TrainSeal starts a worker that failed anew, three times,"
                " in a new pod",
            )  # fmt: skip
    elif name in ("subdomain", "hostname"):
        ledger.changed(field, "TrainSeal names the pods itself, under a Service of the job's name")
    elif name == "enableServiceLinks" and field.content is True:
        ledger.changed(field, "the pods get no variables for the Services of the namespace")
    elif name in POD_FIELDS:
        found[name] = ledger.carry(field, (*at, name))
    elif field.content is False:
        ledger.settle(field)
    else:
        ledger.left(field, _forbidden(name), _POD_REMEDY.get(name, "see whether the run needs it"))


def _forbidden(name: str) -> str:
    return WHY_FORBIDDEN.get(name, "not a field that sealed pods may use")


def _container(container: Field, at: FieldPath, reading: Reading, *, trains: bool) -> JsonObject:
    """A container: fields known to be safe, in their order; variables and words by themselves."""
    ledger = reading.ledger
    ledger.came_from(at, container)
    found: JsonObject = {}
    for name, field in container.entries():
        if name in ("env", "envFrom", "volumeMounts"):
            continue
        if name in ("command", "args") and field.items():
            found[name] = _words(field, (*at, name), reading)
        elif name == "securityContext":
            found |= _security(field, (*at, name), ledger)
        elif name in CONTAINER_FIELDS:
            found[name] = ledger.carry(field, (*at, name))
        elif field.content is False:
            ledger.settle(field)
        else:
            ledger.left(field, _forbidden(name), "see whether the run needs it", at)
    env = variables(container, at, reading, trains=trains)
    if env:
        found["env"] = list(env)
    _image(container, (*at, "image"), ledger)
    _fetches(container, at, ledger)
    return found


def _words(field: Field, at: FieldPath, reading: Reading) -> list[JsonValue]:
    words: list[JsonValue] = []
    for index, word in enumerate(field.items()):
        new, changes = renamed(str(word.content), reading.renames)
        if changes:
            reading.ledger.changed(word, "; ".join(changes), (*at, index))
        words.append(new if changes else reading.ledger.carry(word, (*at, index)))
    reading.ledger.carry(field, at)
    return words


def _security(field: Field, at: FieldPath, ledger: Ledger) -> JsonObject:
    """Without what no signature makes safe."""
    kept: JsonObject = {}
    for name, inner in field.entries():
        if name == "privileged" and inner.content is True:
            ledger.left(
                inner, "a privileged container reaches the node",
                "remove it; devices come from a device plugin, capabilities by name", at[:-1],
            )  # fmt: skip
        else:
            kept[name] = ledger.carry(inner, (*at, name))
    return {"securityContext": kept} if kept else {}


def _image(container: Field, at: FieldPath, ledger: Ledger) -> None:
    image = container.get("image")
    if image is not None and not by_digest(container.text("image")):
        ledger.changed(
            image, f"{container.text('image')} stands by a tag: `trainseal sign job` puts its"
            " digest in", at,
        )  # fmt: skip


def _fetches(container: Field, at: FieldPath, ledger: Ledger) -> None:
    """What nobody signs because it comes when the container starts; what the image has."""
    words = command_words(container)
    place = container.get("command") or container.get("args") or container
    for what in fetched(words):
        ledger.left(
            place, f"`{what}` fetches what nobody signed when the container starts",
            "build it into the image; or put it into a tree, `trainseal sign code DIR --push"
            " REPOSITORY`, and mount that as spec.code", at, settles=False,
        )  # fmt: skip


def in_image(pods: Sequence[Pod], mounted: Sequence[str], ledger: Ledger) -> None:
    """Says of programs that no mount has that the image's signature is the one they have."""
    for pod in pods:
        for _, _, container in pod.containers():
            for program in programs(command_words(container)):
                below = any(program.startswith(f"{path}/") for path in mounted)
                place = container.get("command") or container.get("args")
                if program.startswith("/") and not below and place is not None:
                    ledger.changed(
                        place, f"{program} is code in the image: it is signed with the image; as"
                        " spec.code it has signers of its own", settles=False,
                    )  # fmt: skip


def placement(pods: Sequence[Pod]) -> Mapping[str, Field]:
    """The fields of placement that all pods have alike, and so are the job's."""
    specs = [pod.spec for pod in pods]
    found: dict[str, Field] = {}
    for name in PLACED:
        fields = [spec.get(name) for spec in specs if spec]
        first = fields[0] if fields else None
        if first is not None and all(f is not None and f.value == first.value for f in fields):
            found[name] = first
    return found
