"""AccessRecord: one access to a sealed pod or to one in a lane, its resize, the deletion of an
object of its run, an attempt on a GPU past all runs, what leads to its pods by the network, a way
past the API server by a node's proxy, or a change of what is enforced; created by the webhook,
never updated.

It carries the label ``trainseal.dev/node``, so that a node's agent watches its own, and
``trainseal.dev/seal``, ``trainseal.dev/action`` and ``trainseal.dev/pod-uid``, by which the
controller asks. It has no owner reference: evidence outlives the job.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from trainseal.api.driftreport import PodIdentity
from trainseal.api.model import (
    Count32,
    Digest,
    DnsLabel,
    DnsSubdomain,
    Model,
    Resource,
    ShortText,
    Text,
)

PLURAL = "accessrecords"

LABEL_NODE = "trainseal.dev/node"
LABEL_SEAL = "trainseal.dev/seal"
#: What was asked for, so that deletions are found among many sessions; and the pod's UID.
LABEL_ACTION = "trainseal.dev/action"
LABEL_POD = "trainseal.dev/pod-uid"
#: Of a record that stands in the release's namespace, since its own is being deleted.
LABEL_NAMESPACE = "trainseal.dev/namespace"
#: "true" on the record of an access that a BreakGlass opened.
LABEL_BREAK_GLASS = "trainseal.dev/break-glass"
#: "true" on the record of a resize that was let through: no flood of others hides it.
LABEL_RESIZED = "trainseal.dev/resized"
#: "true" on the record of a change by which less is demanded than before.
LABEL_WEAKENS = "trainseal.dev/weakens"
#: UID of a NetworkPolicy or Service that leads to pods: so who made it is found by it.
LABEL_OBJECT = "trainseal.dev/object-uid"
#: A label's value holds no more (Kubernetes, "Labels and selectors").
_LABEL_LENGTH = 63
_WORD = 1024

#: Bounds of the fields that people choose; `truncated` names those that were cut.
MAX_COMMAND = 64
#: Of a command as it is recorded, all words together, in UTF-8.
MAX_COMMAND_BYTES = 8192
MAX_GROUPS = 64
MAX_PORTS = 16
MAX_CREDENTIAL = 8
#: Containers of one pod that one request resizes; one of more is denied.
MAX_RESIZED = 64

Action = Literal[
    "Exec",
    "Attach",
    "PortForward",
    "Proxy",
    "EphemeralContainer",
    "Resize",
    "Delete",
    "Evict",
    "DeleteObject",
    "ServiceProxy",
    "NodeProxy",
    "Create",
    "Change",
]
#: The ways into a pod that runs among them, and to change one in place.
Way = Literal["Exec", "Attach", "PortForward", "Proxy", "EphemeralContainer", "Resize"]
Port = Annotated[int, Field(ge=1, le=65535)]
Amount = Annotated[str, StringConstraints(max_length=64)]
CredentialName = Annotated[str, StringConstraints(max_length=63)]
#: The fields that hold what a person chose, by their names in the record.
CutField = Literal[
    "command", "container", "credential", "groups", "image", "path", "ports", "userUID", "username"
]


#: What a run is made of and leans on beside its pods; pods, and what makes them, of anybody's;
#: nodes, for their proxy; and what says what is enforced.
ObjectKind = Literal[
    "TrainingJob",
    "Job",
    "JobSet",
    "PyTorchJob",
    "TrainJob",
    "TrainingRuntime",
    "ConfigMap",
    "Service",
    "NetworkPolicy",
    "PersistentVolumeClaim",
    "Pod",
    "CronJob",
    "DaemonSet",
    "Deployment",
    "ReplicaSet",
    "ReplicationController",
    "StatefulSet",
    "Node",
    "ProvenancePolicy",
    "TrustRoot",
]


class ObjectIdentity(Model):
    """An object of a run, one that asks for a GPU past all runs, or one that leads to pods by the
    network, in the record's namespace; or a node, policy or trust root, which are the cluster's."""

    kind: ObjectKind
    """Its kind."""
    name: DnsSubdomain
    """`metadata.name`."""
    uid: ShortText
    """`metadata.uid`."""


class Amounts(Model):
    """How much a container asks for, as the API server writes it."""

    cpu: Amount | None = None
    """Processor. Absent: none."""
    memory: Amount | None = None
    """Memory. Absent: none."""


class ContainerSize(Model):
    """What one container was to ask for."""

    container: DnsLabel
    """Its name."""
    limits: Amounts | None = None
    """Absent: none."""
    requests: Amounts | None = None
    """Absent: none."""


class AccessRecordSpec(Model):
    """Who did what to which pod, or object of a run, when: exactly one of `pod` and `object`."""

    pod: PodIdentity | None = None
    """The pod that was reached for."""
    object: ObjectIdentity | None = None
    """The object that was deleted, made or changed, or the Service or Node that led to pods."""
    node: DnsSubdomain | None = None
    """Where the pod runs; absent while it is not scheduled."""
    sealed_run: DnsSubdomain | None = None
    """Name of the pod's or object's seal. Absent: it belongs to none."""
    lane: DnsLabel | None = None
    """The lane that the pod runs in. Absent: none."""
    action: Action
    """What was asked for."""
    username: Text
    """Who asked, as the API server saw them."""
    user_uid: ShortText | None = Field(default=None, alias="userUID")
    """UID of the user, where the authenticator gives one."""
    groups: list[Text] | None = Field(default=None, max_length=MAX_GROUPS)
    """Groups of the user; the first 64."""
    credential: dict[CredentialName, Text] | None = Field(default=None, max_length=MAX_CREDENTIAL)
    """What the API server knows of a token: `pod-name`, `node-name`, `credential-id` and the like.

    The user's `authentication.kubernetes.io/` extra values: which pod a service account spoke from.
    """
    command: list[Text] | None = Field(default=None, max_length=MAX_COMMAND)
    """What exec, or an ephemeral container, was to run: 64 words of 1024 characters, 8 KiB in all.

    It is kept as it was typed, secrets on it included.
    """
    command_digest: Digest | None = None
    """Of the whole command as `/proc/PID/cmdline` holds it, where `command` was cut."""
    container: ShortText | None = None
    """Absent: the pod's default container, or the whole pod."""
    image: Text | None = None
    """Image of an ephemeral container; the first, where one request brings several."""
    resized: list[ContainerSize] | None = Field(default=None, max_length=MAX_RESIZED)
    """Of a resize each container that was to ask for another amount than before, with all of its
    amounts of processor and memory."""
    stdin: bool | None = None
    """Whether input was sent: what was typed is not known."""
    tty: bool | None = None
    """Whether it was at a terminal."""
    ports: list[Port] | None = Field(default=None, max_length=MAX_PORTS)
    """Ports to forward, where the client names them when it asks; kubectl does so later."""
    path: Text | None = None
    """Path of a proxied request, without its query."""
    grace_period_seconds: Count32 | None = None
    """What a deletion or eviction gave the pod to end; absent: the pod's own."""
    allowed: bool
    """Whether TrainSeal let it pass. Others may have refused it all the same."""
    message: Text | None = None
    """Why an attempt was denied, or would be under `Enforce`, or why its pods will be; what an
    object opens; of a policy what it demands no more."""
    break_glass: DnsSubdomain | None = None
    """Name of the BreakGlass that let it pass. Absent: none was needed."""
    time: datetime
    """When it was asked."""
    truncated: list[CutField] | None = Field(default=None, max_length=16)
    """Fields that hold less than was asked."""


class AccessRecord(Resource):
    """An AccessRecord object."""

    spec: AccessRecordSpec


def node_label(node: str) -> str:
    """The value of the label ``trainseal.dev/node``: the node's name, cut where it is too long.

    Two nodes may share a cut value: whoever selects by it compares ``spec.node`` as well.
    """
    return node[:_LABEL_LENGTH].rstrip("-.")


def first_words(command: Sequence[str], most: int) -> list[str]:
    """A command's first words: ``most`` bytes of UTF-8 together, and each within its bound.

    The word that goes over is cut, what follows it is left out.
    """
    kept: list[str] = []
    for word in command[:MAX_COMMAND]:
        whole = word[:_WORD].encode(errors="replace")
        kept.append(whole[:most].decode(errors="ignore"))
        most -= len(whole)
        if most <= 0:
            break
    return kept


def command_digest(command: Sequence[str]) -> str:
    """Of a command as ``/proc/PID/cmdline`` holds it: each word ends with a zero byte."""
    whole = b"".join(word.encode(errors="replace") + b"\0" for word in command)
    return f"sha256:{hashlib.sha256(whole).hexdigest()}"
