"""Whom a policy trusts to sign, and what one authority says of one bundle."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from trainseal.provenance.keys import PublicKey
from trainseal.provenance.requesters import Requester
from trainseal.provenance.trustroots import TrustedRoot
from trainseal.provenance.verdicts import Outcome, Signer

MAX_IDENTITY = 512
"""Characters of a certificate's identity that a pattern is matched against."""
_MAX_PATTERN = 512
_MAX_REPEATS = 8
_MAX_WILD_REPEATS = 3


class AuthorityError(ValueError):
    """The policy's words for an authority make no sense; the text says which and why."""


@dataclass(frozen=True, slots=True)
class KeyAuthority:
    """A person's public key. ``person`` is what thresholds count."""

    name: str
    person: str
    public_key: PublicKey


@dataclass(frozen=True, slots=True)
class KeylessAuthority:
    """A person or workload by the identity that an OIDC issuer gave, in a Fulcio certificate.

    Exactly one of ``subject`` (the whole identity, compared as text) and ``subject_regexp`` (must
    match the whole identity) is set. ``issuer`` is the issuer's URL, compared as text. Raises
    AuthorityError otherwise.

    A pattern is RE2's common subset, without repeated groups: Python's matcher takes exponential
    time on those, and the identity is chosen by whoever signs.
    """

    name: str
    person: str
    issuer: str
    subject: str | None
    subject_regexp: str | None
    trust_root: TrustedRoot
    pattern: re.Pattern[str] | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if not self.issuer:
            raise AuthorityError(f"authority {self.name}: expected an issuer")
        if bool(self.subject) == bool(self.subject_regexp):
            raise AuthorityError(
                f"authority {self.name}: expected exactly one of subject and subjectRegExp"
            )
        if self.subject_regexp:
            object.__setattr__(self, "pattern", _compile(self.name, self.subject_regexp))

    def accepts(self, identity: str) -> bool:
        """Whether this is the identity that the policy means."""
        if self.pattern is not None:
            return len(identity) <= MAX_IDENTITY and self.pattern.fullmatch(identity) is not None
        return identity == self.subject

    @property
    def wanted(self) -> str:
        """The identity for a message."""
        return self.subject or f"one matching {self.subject_regexp}"


@dataclass(frozen=True, slots=True)
class KubernetesAuthority:
    """A person as the API server knows them: whoever of these users or groups asks for a run.

    Service accounts never count: whoever can make pods of theirs can act as them. ``persons`` are
    those whom the policy's authorities name by user name.
    """

    name: str
    person: str
    users: frozenset[str]
    groups: frozenset[str]
    persons: Mapping[str, str] = field(default_factory=dict, compare=False)

    def admits(self, requester: Requester) -> bool:
        """Whether this is one whom the policy means."""
        return not requester.is_account and requester.is_named(self.users, self.groups)

    def check(self, requester: Requester | None, *, alone: bool) -> Checked:
        """Whether who asks for a run counts as one of this authority.

        ``alone``: nobody else has to sign. Otherwise a member of a group counts only where the
        policy says who that is: they may have signed with a key, too.
        """
        if requester is None:
            return undetermined(
                "RequesterUnknown", f"{self.name} is who asks for the run, which is not known here"
            )
        if not self.admits(requester):
            return refuted("OtherRequester", f"{requester.username} asked, who is not {self.name}")
        person = self.person
        if requester.username not in self.users:
            person = self.persons.get(requester.username, "" if not alone else requester.username)
        if not person:
            return refuted(
                "PersonUnknown",
                f"{requester.username} asked, of a group that is {self.name}, and no authority "
                "says by kubernetes.users which person that is",
            )
        signer = Signer(self.name, person, requester.username, "kubernetes")
        return verified(signer, f"{requester.username} asked for it")


Authority = KeyAuthority | KeylessAuthority | KubernetesAuthority


@dataclass(frozen=True, slots=True)
class Checked:
    """What one authority says of one bundle.

    ``reason`` is PascalCase and stable, ``words`` are for a person. ``signer`` is set if and only
    if the outcome is ``verified``.
    """

    outcome: Outcome
    reason: str
    words: str
    signer: Signer | None = None


def verified(signer: Signer, words: str) -> Checked:
    """The bundle holds this signer's signature."""
    return Checked(Outcome.VERIFIED, "Verified", words, signer)


def refuted(reason: str, words: str) -> Checked:
    """The evidence was read and is not what this authority would have signed."""
    return Checked(Outcome.REFUTED, reason, words)


def undetermined(reason: str, words: str) -> Checked:
    """The evidence could not be judged."""
    return Checked(Outcome.UNDETERMINED, reason, words)


def _compile(name: str, text: str) -> re.Pattern[str]:
    where = f"authority {name}: subjectRegExp"
    if len(text) > _MAX_PATTERN:
        raise AuthorityError(
            f"{where}: found {len(text)} characters, expected at most {_MAX_PATTERN}"
        )
    bare = _without_classes(text)
    if re.search(r"\(\?(?!:)", bare) or re.search(r"\\[1-9A-Za-z](?<!\\[dDwWsSbB])", text):
        raise AuthorityError(
            f"{where}: found lookaround, flags, named groups or backreferences in {text!r}; "
            "expected plain patterns, groups as (…) or (?:…)"
        )
    if re.search(r"\)[*+{]", bare):
        raise AuthorityError(
            f"{where}: found a repeated group in {text!r}, which can take exponential time; "
            "expected repeats of single characters or classes, such as [a-z0-9-]+"
        )
    repeats = re.findall(r".[*+]|.\{\d*,\d*\}|.\{\d+\}", bare)
    wild = [repeat for repeat in repeats if repeat.startswith(".")]
    if len(repeats) > _MAX_REPEATS or len(wild) > _MAX_WILD_REPEATS:
        raise AuthorityError(
            f"{where}: found {len(repeats)} repeats, {len(wild)} of them of '.', in {text!r}; "
            f"expected at most {_MAX_REPEATS} and {_MAX_WILD_REPEATS}"
        )
    try:
        return re.compile(text, re.ASCII | re.DOTALL)
    except (re.error, RecursionError, OverflowError) as error:
        raise AuthorityError(f"{where}: {error}") from None


def _without_classes(text: str) -> str:
    """The pattern with each escape and each character class as one letter, for counting."""
    return re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "C", text, flags=re.DOTALL)
