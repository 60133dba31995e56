"""Evidence against requirements: the verdict on one artifact. Pure; no evidence is fetched here.

The rules, in order:

1. Each piece of evidence is checked against each authority the requirement names.
2. A signature counts only for the artifact it names: a job by its digest, namespace and name; an
   image by the digest the job refers to, under the predicate type of an image signature (judged
   before the content, CVE-2022-35930); a tree by its files, their names and their digests.
3. A threshold counts persons, not keys or signatures; and one signer, known by key or by identity
   and issuer, stands for one person, however many of the policy's authorities it fits.
4. Where fewer persons signed than wanted, but evidence that could not be judged might make up the
   number, the verdict is ``undetermined``; otherwise ``refuted``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from trainseal.api.trainingjob import ArtifactKind
from trainseal.provenance.authorities import (
    Authority,
    Checked,
    KeyAuthority,
    KubernetesAuthority,
    refuted,
)
from trainseal.provenance.bundles import Bundle, BundleError, parse_bundle
from trainseal.provenance.canonical import KIND, SignedKind, digest_of_bytes
from trainseal.provenance.checks import (
    check_blob,
    check_simple_signing,
    check_statement,
)
from trainseal.provenance.dsse import Envelope
from trainseal.provenance.manifests import PREDICATE_TYPE as TREE_PREDICATE
from trainseal.provenance.manifests import ManifestError, parse_statement
from trainseal.provenance.policies import Requirement, UnavailableAuthority
from trainseal.provenance.requesters import Requester
from trainseal.provenance.statements import (
    COSIGN_SIGN_PREDICATE,
    is_job_statement,
    job_subject,
    subject_digests,
)
from trainseal.provenance.verdicts import Lack, Outcome, Signer, Unusable, Verdict

#: Refusals that say only that a signature is somebody else's.
_ANOTHERS = frozenset({"OtherKey", "SignedByKey", "SignedByCertificate"})
#: Reasons that say only that somebody else signed.
_BY_ANOTHER = frozenset({"OtherKey", "InvalidSignature", "SignedByCertificate", "SignedByKey"})

#: Reasons that say only that somebody else asked.
_ASKED_BY_ANOTHER = frozenset({"OtherRequester", "PersonUnknown"})

#: Pieces of evidence that one verdict tells of in words.
_MOST_SAID = 3

#: A Sigstore bundle, or why the bytes are none.
Piece = Bundle | BundleError


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a verdict is on: kind, place in the job, and the digest or reference judged."""

    kind: ArtifactKind
    name: str
    subject: str


def read_bundle(data: bytes | Mapping[str, JsonValue], max_bytes: int) -> Piece:
    """A parsed bundle, or the error as a value: one bad bundle hides no good one."""
    try:
        return parse_bundle(data, max_bytes=max_bytes)
    except BundleError as error:
        return error


def judge(
    artifact: Artifact,
    requirement: Requirement,
    policy: str,
    pieces: int,
    check: Callable[[Authority], Sequence[Checked]],
    remedy: str,
    unusable: Sequence[Unusable] = (),
) -> Verdict:
    """The verdict on one artifact.

    ``check`` gives what one authority says of each of the ``pieces`` of evidence; ``unusable`` is
    what nobody could be asked about.
    """
    verified: list[Signer] = []
    uncertain: dict[str, str] = {}
    refusals: list[Checked] = []
    for authority in requirement.authorities:
        if isinstance(authority, UnavailableAuthority):
            if pieces:
                uncertain[authority.person] = authority.why
            continue
        for checked in check(authority):
            if checked.outcome is Outcome.VERIFIED and checked.signer:
                verified.append(checked.signer)
            elif checked.outcome is Outcome.UNDETERMINED:
                uncertain.setdefault(authority.person, checked.words)
            else:
                refusals.append(checked)
    found = count_persons(verified)
    if len(found) >= requirement.threshold:
        names = ", ".join(s.person for s in found)
        return Verdict(
            artifact.kind,
            artifact.name,
            artifact.subject,
            Outcome.VERIFIED,
            "Verified",
            f"signed by {names}",
            requirement.wanted,
            signers=found,
            policy=policy,
        )
    missing = requirement.threshold - len(found)
    counted = {signer.person for signer in found}
    doubts = [why for person, why in uncertain.items() if person not in counted]
    doubts += [piece.words for piece in unusable if piece.outcome is Outcome.UNDETERMINED]
    outcome = Outcome.UNDETERMINED if len(doubts) >= missing else Outcome.REFUTED
    reason, words = _shortfall(pieces, found, doubts, refusals, outcome)
    if outcome is Outcome.REFUTED and unusable:
        some = "; ".join(piece.words for piece in unusable[:_MOST_SAID])
        words = f"{words}; {len(unusable)} that could not be used: {some}"
    uncounted = sorted({signer.person for signer in verified} - counted)
    if uncounted:
        words = (
            f"{words}; {', '.join(uncounted)} not counted: the same key or identity already "
            "stands for another person"
        )
    return Verdict(
        artifact.kind,
        artifact.name,
        artifact.subject,
        outcome,
        reason,
        words,
        requirement.wanted,
        remedy,
        found,
        policy,
        _lack(requirement, missing, counted, refusals, unusable)
        if outcome is Outcome.REFUTED
        else None,
    )


def _lack(
    requirement: Requirement,
    missing: int,
    counted: set[str],
    refusals: Sequence[Checked],
    unusable: Sequence[Unusable],
) -> Lack | None:
    """Who could still sign; None where that would not be enough, or something else is wrong."""
    if unusable or any(c.reason not in _BY_ANOTHER | _ASKED_BY_ANOTHER for c in refusals):
        return None
    # Who asks has asked: nobody becomes the requester later.
    persons = dict.fromkeys(
        a.person
        for a in requirement.authorities
        if a.person not in counted and not isinstance(a, KubernetesAuthority)
    )
    return Lack(missing, tuple(persons)) if len(persons) >= missing else None


def count_persons(verified: Sequence[Signer]) -> tuple[Signer, ...]:
    """One signature each of as many persons as can be told apart, each by a signer of their own.

    Authorities overlap: one key under two names, one identity that fits two patterns. So persons
    and signers are matched with each other (Kuhn's augmenting paths); the order of ``verified``
    decides where several matchings are as large.
    """
    offers: dict[str, dict[tuple[str, str | None], Signer]] = {}
    for signer in verified:
        offers.setdefault(signer.person, {}).setdefault((signer.identity, signer.issuer), signer)
    taken: dict[tuple[str, str | None], str] = {}

    def place(person: str, tried: set[tuple[str, str | None]]) -> bool:
        for identity in offers[person]:
            if identity not in tried:
                tried.add(identity)
                if identity not in taken or place(taken[identity], tried):
                    taken[identity] = person
                    return True
        return False

    for person in offers:
        place(person, set())
    matched = {person: offers[person][identity] for identity, person in taken.items()}
    return tuple(matched[person] for person in offers if person in matched)


def _shortfall(
    pieces: int,
    found: tuple[Signer, ...],
    doubts: Sequence[str],
    refusals: Sequence[Checked],
    outcome: Outcome,
) -> tuple[str, str]:
    if outcome is Outcome.UNDETERMINED:
        return "EvidenceNotJudged", "; ".join(list(dict.fromkeys(doubts))[:_MOST_SAID])
    if not pieces and not refusals:
        return "NoSignature", "no signature found"
    # What says most comes first: a signature over something else beats "by another key".
    telling = [c for c in refusals if c.reason not in _BY_ANOTHER]
    words = list(dict.fromkeys(c.words for c in (telling or refusals)))[:3]
    text = "; ".join(words) or "no named authority signed"
    if found:
        names = ", ".join(s.person for s in found)
        return "NotEnoughSigners", f"signed by {names} only" + (f" ({text})" if telling else "")
    plural = "signature" if pieces == 1 else "signatures"
    return (telling or refusals)[0].reason if refusals else "NoAuthority", (
        f"{pieces} {plural}, none that counts: {text}"
    )


@dataclass(frozen=True, slots=True)
class Signed:
    """A job or a template that people sign: its canonical bytes, their digest, and its name."""

    kind: SignedKind
    namespace: str
    name: str
    canonical: bytes
    #: ``sha256:…`` of the canonical bytes.
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", digest_of_bytes(self.canonical))


def check_signed(pieces: Sequence[Piece], signed: Signed) -> Callable[[Authority], list[Checked]]:
    """Bundles over a job or template: a statement about its digest, or a bare signature over it."""
    hexadecimal = signed.digest.removeprefix("sha256:")
    place = (signed.namespace, signed.name, hexadecimal, signed.kind)

    def one(piece: Piece, authority: Authority) -> Checked:
        if isinstance(piece, BundleError):
            return refuted("MalformedBundle", str(piece))
        if not isinstance(piece.content, Envelope):
            return check_blob(piece, authority, signed.canonical)
        checked, statement = check_statement(piece, authority)
        if statement is None or is_job_statement(statement, *place):
            return checked
        what = "job" if signed.kind == KIND else "template"
        subjects = ", ".join(f"{s.name}@{s.digests.get('sha256')}" for s in statement.subjects)
        return refuted(
            "OtherJob",
            f"{checked.signer.person if checked.signer else 'somebody'} signed {subjects:.300} "
            f"({statement.predicate_type:.100}), this {what} is "
            f"{job_subject(signed.namespace, signed.name, signed.kind)}@{hexadecimal}: it was "
            f"changed after signing, or the signature belongs to another {what}",
        )

    return lambda authority: [one(piece, authority) for piece in pieces]


def check_asked(
    check: Callable[[Authority], list[Checked]], requester: Requester | None, threshold: int
) -> Callable[[Authority], list[Checked]]:
    """``check``, and of an authority that asks for jobs whether it is who asks for this one."""

    def either(authority: Authority) -> list[Checked]:
        if isinstance(authority, KubernetesAuthority):
            return [authority.check(requester, alone=threshold == 1)]
        return check(authority)

    return either


def check_image(
    pieces: Sequence[Piece], simple_signings: Sequence[tuple[bytes, str]], digest: str
) -> Callable[[Authority], list[Checked]]:
    """cosign's signatures of an image: bundles with a statement, and the older simple signing."""

    def one(piece: Piece, authority: Authority) -> Checked:
        if isinstance(piece, BundleError):
            return refuted("MalformedBundle", str(piece))
        checked, statement = check_statement(piece, authority)
        if statement is None:
            return checked
        if statement.predicate_type != COSIGN_SIGN_PREDICATE:
            return refuted(
                "OtherPredicate",
                f"the statement is a {statement.predicate_type:.200}, not an image signature "
                f"({COSIGN_SIGN_PREDICATE})",
            )
        if digest not in subject_digests(statement):
            return refuted("OtherImage", f"the signature is for another image than {digest}")
        return checked

    def every(authority: Authority) -> list[Checked]:
        found = [one(piece, authority) for piece in pieces]
        if isinstance(authority, KeyAuthority):
            found += [
                check_simple_signing(payload, signature, authority, digest)
                for payload, signature in simple_signings
            ]
        return found

    return every


@dataclass(frozen=True, slots=True)
class SignedTree:
    """A tree that somebody signed: its files by path, and the blob digests of the bundles.

    Two trees may share a root digest and differ in their names, so trees are told apart by both.
    """

    files: frozenset[tuple[str, str]]
    bundles: tuple[str, ...]


class TreeSignatures:
    """OpenSSF Model Signing bundles of a tree, as pairs of a bundle's blob digest and the bundle.

    Signers count together only where they signed the same files under the same names.
    """

    def __init__(self, pieces: Sequence[tuple[str, Piece]], tree_digest: str | None) -> None:
        self._pieces = pieces
        self._tree_digest = tree_digest
        # By identity: an authority with a trust root has no hash.
        self._known: dict[tuple[str, int], tuple[Checked, frozenset[tuple[str, str]]]] = {}

    def __len__(self) -> int:
        return len(self._pieces)

    def trees(self, authorities: Iterable[Authority]) -> tuple[SignedTree, ...]:
        """The trees that these authorities signed; those of most bundles first."""
        bundles: dict[frozenset[tuple[str, str]], set[str]] = {}
        for authority in authorities:
            for blob, piece in self._pieces:
                checked, files = self._check(blob, piece, authority)
                if checked.outcome is Outcome.VERIFIED:
                    bundles.setdefault(files, set()).add(blob)
        found = [SignedTree(files, tuple(sorted(blobs))) for files, blobs in bundles.items()]
        return tuple(sorted(found, key=lambda tree: (-len(tree.bundles), tree.bundles)))

    def check(self, tree: SignedTree | None) -> Callable[[Authority], list[Checked]]:
        """What an authority says of each bundle; only a signature of ``tree`` is verified."""

        def one(blob: str, piece: Piece, authority: Authority) -> Checked:
            checked, files = self._check(blob, piece, authority)
            if checked.outcome is Outcome.VERIFIED and (tree is None or files != tree.files):
                return refuted(
                    "OtherTree", f"{authority.name} signed the same contents under other names"
                )
            return checked

        return lambda authority: [one(blob, piece, authority) for blob, piece in self._pieces]

    def _check(
        self, blob: str, piece: Piece, authority: Authority
    ) -> tuple[Checked, frozenset[tuple[str, str]]]:
        key = (blob, id(authority))
        if key not in self._known:
            self._known[key] = self._judge(piece, authority)
        return self._known[key]

    def _judge(
        self, piece: Piece, authority: Authority
    ) -> tuple[Checked, frozenset[tuple[str, str]]]:
        none: frozenset[tuple[str, str]] = frozenset()
        if isinstance(piece, BundleError):
            return refuted("MalformedBundle", str(piece)), none
        checked, statement = check_statement(piece, authority)
        if statement is None:
            return checked, none
        if statement.predicate_type != TREE_PREDICATE:
            return refuted(
                "OtherPredicate",
                f"the statement is a {statement.predicate_type:.200}, not a signed tree "
                f"({TREE_PREDICATE})",
            ), none
        try:
            manifest = parse_statement(_payload(piece))
        except ManifestError as error:
            return refuted("MalformedManifest", str(error)), none
        if manifest.root_digest != self._tree_digest:
            return refuted(
                "OtherTree",
                f"the signature is for a tree with digest {manifest.root_digest}, the artifact "
                f"says it holds {self._tree_digest}",
            ), none
        return checked, frozenset((e.path, e.sha256) for e in manifest.entries)


def _payload(bundle: Bundle) -> bytes:
    content = bundle.content
    return content.payload if isinstance(content, Envelope) else b""
