"""Proposed additions, shown: as YAML for a policy with comments for people, or as JSON."""

from __future__ import annotations

from collections.abc import Iterator

from trainseal.api.model import JsonObject
from trainseal.cli.additionslearning import Proposal
from trainseal.cli.terminaltext import plain

_SHOWN = 20


def as_json(proposal: Proposal, *, verified: bool) -> JsonObject:
    """For programs."""
    return {
        "additions": [a.wire() for a in proposal.additions],
        "left": [{"place": x.place, "why": x.why, "count": x.count} for x in proposal.left],
        "pods": proposal.pods,
        "sealsVerified": verified,
    }


def as_yaml(proposal: Proposal, *, verified: bool) -> Iterator[str]:
    """For people, line by line: a list to be put into ``spec.pods.additions``, and comments."""
    import yaml

    yield "# For spec.pods.additions of a ProvenancePolicy, learnt from what stands in"
    yield f"# {proposal.pods} sealed pods beside what was signed."
    if not verified:
        yield "# The seals were read from files: nobody looked at their signatures."
    yield "# Nothing is in force before who may change policies has applied it. Read each line,"
    yield "# write into each reason who adds it and why that is trusted, and leave out the rest."
    additions = [a.wire() for a in proposal.additions]
    text = yaml.safe_dump(additions, sort_keys=False, allow_unicode=True, width=10_000)
    yield from text.splitlines()
    if proposal.left:
        yield "# Not proposed:"
    for item in proposal.left[:_SHOWN]:
        yield f"# - {plain(item.place)} (pods: {item.count}): {plain(item.why)}"
    if len(proposal.left) > _SHOWN:
        yield f"#   and {len(proposal.left) - _SHOWN} more"
