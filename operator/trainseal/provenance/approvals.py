"""What may become of the signatures of a job that waits for more of them. Pure.

Anybody who may edit the job can write them. Rules:

1. What is added counts for somebody whom a policy names, and says what no other bundle says: a job
   has few places for signatures, and a bundle over another job would have it told as changed.
2. What counts stays: ``kubectl apply`` of a file that lacks it would take it away without a word.
   The same person's new signature may stand in its place.
3. What counts for nobody may always go.

The order of bundles changes nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from trainseal.provenance.authorities import KubernetesAuthority
from trainseal.provenance.judgement import Piece, Signed, check_signed
from trainseal.provenance.policies import CompiledPolicy, UnavailableAuthority
from trainseal.provenance.verdicts import Outcome

_SHOWN = 4

#: A key, or an identity with its issuer.
_Who = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class Fault:
    """What keeps a change out; ``undetermined``: it could not be judged."""

    words: str
    undetermined: bool = False


def change_fault(
    before: Sequence[tuple[JsonValue, Piece]],
    after: Sequence[tuple[JsonValue, Piece]],
    signed: Signed,
    policies: Sequence[CompiledPolicy],
) -> Fault | None:
    """Why the entries of ``spec.signatures`` may not change like this; each with what was read."""
    known = Counter(json.dumps(entry, sort_keys=True) for entry, _ in before)
    added = []
    for at, (entry, _) in enumerate(after):
        key = json.dumps(entry, sort_keys=True)
        if known[key]:
            known[key] -= 1
        else:
            added.append(at)
    pieces = [piece for _, piece in after]
    if fault := next(faults(added, pieces, signed, policies), None):
        return fault
    lost = _everybody([p for _, p in before], signed, policies)
    for who in _everybody(pieces, signed, policies):
        lost.pop(who, None)
    if not lost:
        return None
    return Fault(
        f"found the signature of {_some(sorted(set(lost.values())))} taken away, expected each "
        "that counts to stay while the job waits; apply the job with all of them (`kubectl get tj` "
        "-o yaml shows them), or delete it: then nothing of it runs"
    )


def faults(
    added: Iterable[int],
    pieces: Sequence[Piece],
    signed: Signed,
    policies: Sequence[CompiledPolicy],
) -> Iterator[Fault]:
    """Of the ``pieces`` that were ``added``, those that count for nobody, or for nobody new."""
    new = set(added)
    seen: set[_Who] = set()
    for at, piece in enumerate(pieces):
        if at not in new:
            seen |= _signers(piece, signed, policies).keys()
    for at in sorted(new):
        place = f"spec.signatures[{at}]"
        signers = _signers(pieces[at], signed, policies)
        if not signers:
            yield _no_signer(place, pieces[at], signed, policies)
        elif signers.keys() <= seen:
            who = _some(sorted(set(signers.values())))
            yield Fault(f"{place}: found a second signature of {who}, expected one; leave it out")
        seen |= signers.keys()


def _no_signer(
    place: str, piece: Piece, signed: Signed, policies: Sequence[CompiledPolicy]
) -> Fault:
    check = check_signed([piece], signed)
    said = []
    for policy in policies:
        if policy.mode != "Enforce":
            continue
        for authority in policy.job.authorities:
            if isinstance(authority, UnavailableAuthority):
                return Fault(f"{place} cannot be judged: {authority.why}", undetermined=True)
            if not isinstance(authority, KubernetesAuthority):
                said += check(authority)
    for checked in said:
        if checked.outcome is Outcome.UNDETERMINED:
            return Fault(f"{place} cannot be judged: {checked.words}", undetermined=True)
    # What says most comes first: a signature over something else beats "by another key".
    telling = [c.words for c in said if c.reason in ("OtherJob", "OtherContent")]
    words = (telling or [c.words for c in said] or ["no authority signs jobs here"])[0]
    return Fault(
        f"{place}: found a signature that does not count: {words}; expected one of this job, by "
        "somebody whom the policy names; leave it out"
    )


def _everybody(
    pieces: Iterable[Piece], signed: Signed, policies: Sequence[CompiledPolicy]
) -> dict[_Who, str]:
    found: dict[_Who, str] = {}
    for piece in pieces:
        found |= _signers(piece, signed, policies)
    return found


def _signers(piece: Piece, signed: Signed, policies: Sequence[CompiledPolicy]) -> dict[_Who, str]:
    """Who signed this bundle, for the policies that enforce: each with the person's name."""
    check = check_signed([piece], signed)
    found: dict[_Who, str] = {}
    for policy in policies:
        if policy.mode != "Enforce":
            continue
        for authority in policy.job.authorities:
            if isinstance(authority, KubernetesAuthority | UnavailableAuthority):
                continue
            for checked in check(authority):
                if checked.outcome is Outcome.VERIFIED and checked.signer:
                    signer = checked.signer
                    found.setdefault((signer.identity, signer.issuer), signer.person)
    return found


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} others" if more > 0 else "")
