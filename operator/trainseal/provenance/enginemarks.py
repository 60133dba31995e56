"""What an engine's controllers write on pods beyond the sealed template: by name and content. Pure.

What an engine adds cannot be signed, since it holds UIDs. It needs no trust either: each value
follows from the objects that a seal is bound to, and from the pod's index.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: By labels of this prefix Kubeflow's training operator knows its pods; one says the pod's index.
KUBEFLOW = "training.kubeflow.org/"
KUBEFLOW_INDEX = f"{KUBEFLOW}replica-index"
#: What all pods of PyTorchJobs bear.
KUBEFLOW_PYTORCHJOBS: Mapping[str, str] = {f"{KUBEFLOW}operator-name": "pytorchjob-controller"}


@dataclass(frozen=True, slots=True)
class OwnPods:
    """How a pod that no Job controller makes says which it is.

    ``name``: what its name is before its index. ``first``: labels of the first pod alone.
    """

    index_label: str
    name: str
    first: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Marks:
    """Labels and annotations with the values that they have where they are there.

    ``priority_label``: a label whose value is the pod's own priority. ``env``: variables that each
    container gets, no init container, behind the signed ones. ``pods``: None where the Job
    controller makes the pods.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    priority_label: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    pods: OwnPods | None = None


NO_MARKS = Marks()
