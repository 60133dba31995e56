"""What a NetworkPolicy opens, and to whom. Pure.

NetworkPolicies add up: a pod that any of them isolates gets what any of them allows. A run's own
allows its pods each other; so whatever another one allows is beside it. One without rules allows
nothing, and so takes nothing away from a run that its own does not.

Source: k8s.io/api/networking/v1, NetworkPolicySpec; pkg/apis/networking/v1/defaults.go.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainseal.provenance.differences import Json, mapping, objects, short
from trainseal.provenance.selectors import Selector, label_selector


@dataclass(frozen=True, slots=True)
class Opening:
    """Whose network a NetworkPolicy opens. ``inward`` and ``outward`` are its rules, in words and
    short; empty: it has none."""

    selector: Selector
    inward: str
    outward: str

    def opens(self, *, isolated: bool) -> str:
        """The rules that a sealed run does not have itself. Nothing keeps a run's pods from
        reaching others, but in quarantine (``isolated``)."""
        return "; ".join(r for r in (self.inward, self.outward if isolated else "") if r)


def opening(spec: Json) -> Opening | None:
    """What a NetworkPolicy's spec opens; None where it allows nothing."""
    inward, outward = _rules(spec, "Ingress"), _rules(spec, "Egress")
    if not (inward or outward):
        return None
    return Opening(label_selector(mapping(spec.get("podSelector"))), inward, outward)


def _rules(spec: Json, kind: str) -> str:
    types, rules = spec.get("policyTypes"), spec.get(kind.lower())
    # Absent it is Ingress, and Egress where there are rules of it: the API server fills that in.
    meant = kind in types if isinstance(types, list) and types else True
    return f"{kind.lower()} {short(rules)}" if meant and objects(rules) else ""
