"""Which DriftReports count. Pure: values in, a verdict and its words out.

An agent's report counts where its pod belongs to the seal (the pod's owner is a Job that the
seal is bound to) and runs on the report's node. Once seen so, it counts for good: pods go when a
run is suspended, and the evidence must not go with them. A report whose pod was gone before
anybody could look is *unproved*: it is counted and told, and holds nothing, or whoever has one
agent's token could stop any run of the cluster.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from trainseal.api.driftreport import DriftReport
from trainseal.api.model import JsonObject, json_object, json_objects

Standing = Literal["Believed", "Unproved", "Dropped"]


@dataclass(frozen=True, slots=True)
class PodFact:
    """What the API server says of a pod. ``owners`` are UIDs of its controlling owners;
    ``leaving``: its deletion was asked for.
    """

    name: str
    uid: str
    node: str
    owners: frozenset[str]
    seal: str
    running: bool
    leaving: bool = False

    @classmethod
    def of(cls, pod: JsonObject, seal_label: str) -> PodFact:
        """Read from a Pod object."""
        metadata, spec = json_object(pod.get("metadata")), json_object(pod.get("spec"))
        owners = json_objects(metadata.get("ownerReferences"))
        return cls(
            name=str(metadata.get("name", "")),
            uid=str(metadata.get("uid", "")),
            node=str(spec.get("nodeName") or ""),
            owners=frozenset(str(o.get("uid")) for o in owners if o.get("controller") is True),
            seal=str(json_object(metadata.get("labels")).get(seal_label, "")),
            running=json_object(pod.get("status")).get("phase") == "Running",
            leaving=bool(metadata.get("deletionTimestamp")),
        )


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a report counts; ``why`` says what was found where it does not."""

    standing: Standing
    why: str = ""


def judge(
    report: DriftReport,
    seal: str,
    bound: Collection[str],
    pod: PodFact | None,
    known: Collection[str],
) -> Judgement:
    """One report on a run. ``bound``: UIDs of the seal's Jobs. ``pod``: the pod of that UID, as
    it is or was; None where nobody knows it. ``known``: UIDs of reports believed before.
    """
    spec, name = report.spec, report.metadata.name
    if spec.reporter == "Controller":
        if name == seal and spec.node is None:
            return Judgement("Believed")
        return Judgement("Dropped", "it claims to be the controller's and does not have its name")
    if spec.pod is None or spec.node is None:
        return Judgement("Dropped", "found an agent's report without its pod or its node")
    if report.metadata.uid and report.metadata.uid in known:
        return Judgement("Believed")
    return of_agent(spec.node, spec.pod.name, bound, pod)


def of_agent(node: str, name: str, bound: Collection[str], pod: PodFact | None) -> Judgement:
    """What the agent of ``node`` says of the pod of that name; ``pod`` and ``bound`` as above."""
    if pod is None:
        return Judgement("Unproved", f"pod {name} was gone before it could be looked at")
    if not pod.owners & set(bound):
        return Judgement("Dropped", f"pod {name} is not one of this run's")
    if pod.node != node:
        return Judgement(
            "Dropped", f"it comes from node {node}; pod {name} runs on {pod.node or 'no node'}"
        )
    return Judgement("Believed")
