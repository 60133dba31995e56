"""Whether somebody may get into a sealed pod: the policies of its namespace, as they are now.

Not those that the seal names: who tightens a policy means the runs that are on, too. Decided in
memory, for the recorder of accesses and for the pods' own webhook, which is asked about debug
containers as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trainseal.admission.reviews import ALLOWED, Request, Response, deny
from trainseal.provenance.accessrules import UNNAMED, Way
from trainseal.provenance.policies import CompiledPolicy
from trainseal.verifier.policystore import BrokenPolicy

_HELP = {
    "Exec": "use `kubectl logs` for output, `trainseal debug JOB --stacks` for a run that hangs",
    "Attach": "use `kubectl logs` for its output",
    "PortForward": "have the run write what you want to see to its log or to a volume",
    "Proxy": "have the run write what you want to see to its log or to a volume",
    "EphemeralContainer": "use `trainseal debug JOB --stacks` for a run that hangs",
}


@dataclass(frozen=True, slots=True)
class WaysIn:
    """What is asked about each way in, as of now."""

    policies: Callable[[str], tuple[CompiledPolicy, ...]]
    broken: Callable[[], tuple[BrokenPolicy, ...]]
    excluded_namespaces: frozenset[str]

    def judge(self, way: Way, request: Request, seal: str) -> Response:
        """Yes; yes with a warning, where policies that say no only audit; or no, and by whom.

        ``seal`` is the name of the SealedRun that the pod belongs to.
        """
        policies = self.policies(request.namespace)
        said = self._refusals(way, request, policies)
        # A policy that cannot be used may be one that denies here.
        broken = self.broken()
        firm = [why for policy, why in said if policy is None or policy.mode == "Enforce"]
        if not firm and broken:
            firm = [f"ProvenancePolicy {broken[0].name} cannot be used: {broken[0].why:.300}"]
        words = (
            f"{way} by {request.username!r:.300} into a pod that is sealed by SealedRun "
            f"{request.namespace}/{seal}"
        )
        if firm:
            return deny(f"{words} is denied: {'; '.join(firm)}; {_HELP[way]}")
        if said:
            why = "; ".join(why for _, why in said)
            return Response(True, warnings=(f"would be denied under Enforce: {words}: {why}",))
        return ALLOWED

    def _refusals(
        self, way: Way, request: Request, policies: Sequence[CompiledPolicy]
    ) -> list[tuple[CompiledPolicy | None, str]]:
        """The policies that say no, and their rule; None for what holds without any."""
        if not policies:
            why = UNNAMED.refusal(way, request.username, self.excluded_namespaces)
            return [(None, f"no ProvenancePolicy names the namespace, and {why}")] if why else []
        found = (
            (p, p.access.refusal(way, request.username, self.excluded_namespaces)) for p in policies
        )
        return [(p, f"of ProvenancePolicy {p.name}, {why}") for p, why in found if why]
