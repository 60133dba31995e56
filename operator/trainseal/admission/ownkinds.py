"""Our own kinds: policies and trust roots that make sense, evidence that only we write."""

from __future__ import annotations

from collections.abc import Mapping

from trainseal.admission.reviews import ALLOWED, Request, Response, deny, meta
from trainseal.api.model import InvalidObjectError
from trainseal.provenance.policies import PolicyError, UnavailableAuthority
from trainseal.provenance.trustroots import TrustedRoot
from trainseal.verifier.policystore import compile_checked, load_root


def validate_policy(
    request: Request, roots: Mapping[str, tuple[str, TrustedRoot | str]]
) -> Response:
    """ProvenancePolicies and TrustRoots: refused at the edge, with the field that is wrong."""
    if request.operation == "DELETE":
        return ALLOWED
    if request.operation == "UPDATE" and request.object.get("spec") == request.old.get("spec"):
        return ALLOWED
    if request.resource == "trustroots":
        _, root = load_root(request.object)
        return deny(root) if isinstance(root, str) else ALLOWED
    name = meta(request.object).get("name") or request.name
    try:
        policy = compile_checked(request.object, roots)
    except (InvalidObjectError, PolicyError) as error:
        return deny(f"ProvenancePolicy {name}: {error}")
    waiting = {
        a.why
        for r in (policy.job, policy.image, policy.code)
        for a in r.authorities
        if isinstance(a, UnavailableAuthority)
    }
    return Response(
        True, warnings=[f"{why}: its authority's signatures are undetermined" for why in waiting]
    )


def validate_evidence(request: Request, writers: Mapping[str, frozenset[str]]) -> Response:
    """Kinds that are evidence: written and deleted by our identities alone."""
    allowed = writers.get(request.resource, frozenset())
    if request.username in allowed:
        return ALLOWED
    return deny(
        f"{request.operation} of {request.resource} {request.namespace}/{request.name}: found user "
        f"{request.username!r}, expected {' or '.join(sorted(allowed)) or 'nobody'}: evidence is "
        "written and deleted by TrainSeal alone"
    )
