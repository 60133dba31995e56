"""What each kind of workload comes down to: roles of pods, and what its controller told them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from trainseal.api.model import JsonObject
from trainseal.api.trainingjob import EngineName
from trainseal.cli.wrapping.fields import Field
from trainseal.cli.wrapping.ledger import Ledger
from trainseal.cli.wrapping.words import Rename
from trainseal.engines import jobset
from trainseal.engines.podtemplate import INDEX_PATH, object_name, service_name
from trainseal.provenance.enginemarks import KUBEFLOW_INDEX

_PYTORCHJOB: EngineName = "PyTorchJob"
#: Stands in ``facts`` for the index.
INDEX = "\0index"


@dataclass(frozen=True, slots=True)
class SourceRole:
    """Pods of one kind. ``name`` is that of the role in the TrainingJob.

    ``added`` are variables that the old controller set by itself. ``facts`` are labels and
    annotations that it put on the pods, with what they say in the TrainingJob.
    """

    name: str
    replicas: JsonValue
    template: Field
    added: tuple[JsonObject, ...] = ()
    facts: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """One workload. ``hosts`` are the old names of its pods, with the new ones."""

    roles: tuple[SourceRole, ...]
    hosts: tuple[Rename, ...] = ()
    suspend: Field | None = None
    priority_class: Field | None = None
    #: Labels that the pods' controller was told beside those of the workload itself.
    labels: tuple[Field, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """What a converter reads, and by what name and engine its job goes.

    ``roles``: names of all of its roles, once they are known; some engines' names of pods hold
    more than their own.
    """

    root: Field
    name: str
    namespace: str
    ledger: Ledger
    engine: EngineName = "Job"
    roles: tuple[str, ...] = ()

    @property
    def by_the_operator(self) -> bool:
        """Whether Kubeflow's training operator goes on making the pods."""
        return self.engine == _PYTORCHJOB

    @property
    def index_path(self) -> str:
        """Under it a pod finds its index within its role."""
        return f"metadata.labels['{KUBEFLOW_INDEX}']" if self.by_the_operator else INDEX_PATH

    @property
    def spec(self) -> Field:
        """The workload's spec; the whole object where it has none, so that nothing is found."""
        return self.root.get("spec") or self.root

    def first_host(self, role: str) -> str:
        """The name by which pods of this namespace find the first pod of the first role."""
        return service_name(self.name) if self.by_the_operator else self.host(role, 0)

    def host(self, role: str, index: int) -> str:
        """The name by which pods of this namespace find a pod of a role."""
        owner = object_name(self.name, role)
        if self.by_the_operator:
            return f"{owner}-worker-{index}"
        if self.engine != "Job":
            owner = jobset.child_name(jobset.jobset_name(self.name, self.roles), role)
        return f"{owner}-{index}.{service_name(self.name)}"

    def in_namespace(self) -> str:
        """A pattern for what may follow a Service's name."""
        namespace = re.escape(self.namespace) if self.namespace else r"[a-z0-9-]+"
        return rf"(?:\.{namespace}(?:\.svc(?:\.cluster\.local)?)?)?"


def added(entries: Mapping[str, JsonValue], index: str) -> tuple[JsonObject, ...]:
    """Variables by name: texts, and INDEX for the pod's index, which is at that field path."""
    return tuple(
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": index}}}
        if value == INDEX
        else {"name": name, "value": str(value)}
        for name, value in entries.items()
    )
