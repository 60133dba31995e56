"""Whether somebody may get into a sealed pod, resize it, or end it: the policies of its namespace,
as they are now.

Not those that the seal names: who tightens a policy means the runs that are on, too. Decided in
memory, for the recorder of accesses and for the pods' own webhook, which is asked about debug
containers and resizes as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from trainseal.admission.reviews import ALLOWED, Request, Response, deny
from trainseal.api.accessrecord import Way
from trainseal.provenance.accessrules import UNNAMED, Permit, Refusal
from trainseal.provenance.policies import CompiledPolicy
from trainseal.verifier.policystore import BrokenPolicy

#: The audit annotation with the name of the BreakGlass that opened the way.
BREAK_GLASS_KEY = "break-glass"
_HELP = {
    "Exec": "use `kubectl logs` for output, `trainseal debug JOB --stacks` for a run that hangs",
    "Attach": "use `kubectl logs` for its output",
    "PortForward": "have the run write what you want to see to its log or to a volume",
    "Proxy": "have the run write what you want to see to its log or to a volume",
    "EphemeralContainer": "use `trainseal debug JOB --stacks` for a run that hangs",
    "Resize": "have the job ask for other amounts, and sign it anew",
}


@dataclass(frozen=True, slots=True)
class WaysIn:
    """What is asked about each way in, as of now.

    ``permits`` gives the BreakGlasses of a namespace, seal and user.
    """

    policies: Callable[[str], tuple[CompiledPolicy, ...]]
    broken: Callable[[], tuple[BrokenPolicy, ...]]
    permits: Callable[[str, str, str], tuple[Permit, ...]]
    excluded_namespaces: frozenset[str]
    now: Callable[[], datetime]

    def judge(self, way: Way, request: Request, seal: str) -> Response:
        """Yes; yes with a warning, where policies that say no only audit, or by which BreakGlass;
        or no, and by whom.

        ``seal`` is the name of the SealedRun that the pod belongs to.
        """
        policies = self.policies(request.namespace)
        said = self._refusals(way, request, policies)
        binding = [(p, r) for p, r in said if p is None or p.mode == "Enforce"]
        words = (
            f"{way} by {request.username!r:.300} {'of' if way == 'Resize' else 'into'} a pod that "
            f"is sealed by SealedRun {request.namespace}/{seal}"
        )
        firm = [_by(p, r) for p, r in binding if not r.glass]
        # A policy that cannot be used may be one that denies here.
        if not firm and (broken := self.broken()):
            firm = [f"ProvenancePolicy {broken[0].name} cannot be used: {broken[0].why:.300}"]
        if firm:
            return deny(f"{words} is denied: {'; '.join(firm)}; {_HELP[way]}")
        if binding:
            return self._by_glass(way, request, seal, binding, words)
        if said:
            why = "; ".join(_by(p, r) for p, r in said)
            return Response(True, warnings=(f"would be denied under Enforce: {words}: {why}",))
        return ALLOWED

    def judge_deletion(self, request: Request, seal: str, what: str, requester: str) -> Response:
        """Yes, with a warning where policies that say no only audit; or no, and by whom.

        ``requester`` may delete it in any case; empty where nobody may. A policy that cannot be
        used denies no deletion: what is gone runs nothing.
        """
        if request.username == requester:
            return ALLOWED
        denying = [
            p
            for p in self.policies(request.namespace)
            if not p.access.may_delete(request.username, _groups(request))
        ]
        if not denying:
            return ALLOWED
        words = (
            f"deletion of {what} by {request.username!r:.300}, which belongs to SealedRun "
            f"{request.namespace}/{seal}"
        )
        why = "; ".join(
            f"of ProvenancePolicy {p.name}, access.deletion names neither this user nor a group "
            "of theirs"
            for p in denying
        )
        if any(p.mode == "Enforce" for p in denying):
            return deny(
                f"{words}, is denied: {why}; to end a run, whoever asked for it deletes its "
                "TrainingJob"
            )
        return Response(True, warnings=(f"would be denied under Enforce: {words}: {why}",))

    def _refusals(
        self, way: Way, request: Request, policies: Sequence[CompiledPolicy]
    ) -> list[tuple[CompiledPolicy | None, Refusal]]:
        """The policies that say no, and their rule; None for what holds without any."""
        excluded = self.excluded_namespaces
        if not policies:
            found = UNNAMED.refusal(way, request.username, excluded)
            return [(None, found)] if found else []
        asked = ((p, p.access.refusal(way, request.username, excluded)) for p in policies)
        return [(p, refusal) for p, refusal in asked if refusal]

    def _by_glass(
        self,
        way: Way,
        request: Request,
        seal: str,
        binding: Sequence[tuple[CompiledPolicy | None, Refusal]],
        words: str,
    ) -> Response:
        groups = _groups(request)
        obstacles: list[str] = []
        for permit in self.permits(request.namespace, seal, request.username):
            if not permit.opens(way, self.now()):
                continue
            found = [o for p, _ in binding if p and (o := p.access.obstacle(permit, groups))]
            if not found:
                warning = (
                    f"{words} passes by BreakGlass {permit.name}, until {permit.not_after:%H:%M} "
                    "UTC; the run is tainted until somebody else has reviewed it"
                )
                return Response(True, warnings=(warning,), audit={BREAK_GLASS_KEY: permit.name})
            obstacles += found
        why = "; ".join(_by(p, r) for p, r in binding)
        lacks = (
            "; ".join(obstacles[:3]) or "found no BreakGlass for this user and run that is valid"
        )
        return deny(
            f"{words} is denied: {why}; {lacks}; somebody with the role trainseal-approver makes "
            "one (`trainseal break-glass JOB --user USER --reason TEXT`); it counts a moment later"
        )


def _groups(request: Request) -> list[str]:
    given = request.user.get("groups")
    return [g for g in given if isinstance(g, str)] if isinstance(given, list) else []


def _by(policy: CompiledPolicy | None, refusal: Refusal) -> str:
    if policy is None:
        return f"no ProvenancePolicy names the namespace, and {refusal.why}"
    return f"of ProvenancePolicy {policy.name}, {refusal.why}"
