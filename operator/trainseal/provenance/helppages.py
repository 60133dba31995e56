"""The page that helps: from the reason of a refusal, or what was asked, to a place in docs/. Pure.

A refusal says where its help is once, where the whole answer is put together, and not in each of
its sentences. Pages are named as they stand in the repository; where people can read them as a
site, the platform says so (``documentation.url`` of the chart).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

PAGE = "how-to/refused"
#: Pages that one answer names at most.
_MOST = 3

#: Sections of the page, and the reasons that each is about.
_SECTIONS: Mapping[str, tuple[str, ...]] = {
    "nobody-signed-it": ("NoSignature",),
    "not-enough-people-signed": ("NotEnoughSigners", "SignaturesMissing"),
    "it-waited-too-long-for-signatures": ("PendingTooLong",),
    "changed-after-it-was-signed": ("OtherJob", "OtherContent"),
    "a-signature-of-another-image-or-tree": ("OtherImage", "OtherTree"),
    "signed-by-somebody-else": ("OtherKey", "OtherIdentity", "OtherIssuer"),
    "a-key-where-an-account-is-wanted": ("SignedByKey", "SignedByCertificate"),
    "the-signature-is-not-valid": ("InvalidSignature", "InvalidEvidence"),
    "not-a-signature-of-this-kind": (
        "NotAStatement",
        "NotABlobSignature",
        "NotAnImageSignature",
        "OtherPredicate",
    ),
    "damaged-evidence": (
        "MalformedBundle",
        "MalformedStatement",
        "MalformedSignature",
        "MalformedManifest",
        "MalformedCertificate",
    ),
    "an-odd-certificate": ("SeveralIdentities", "RootInBundle", "UnsupportedCertificateKey"),
    "code-that-nobody-signed": ("NothingToGate",),
    "evidence-that-cannot-be-judged": (
        "EvidenceNotJudged",
        "NotJudged",
        "TrustRootIncomplete",
        "TrustRootOutdated",
    ),
    "the-policy-cannot-be-used": (
        "NoAuthority",
        "PolicyNotUsable",
        "UnknownAuthority",
        "NotASigner",
    ),
    "no-policy-names-this-namespace": ("NoPolicy",),
    "somebody-else-must-ask": ("OtherRequester", "NotARequester"),
    "who-you-are-is-not-known": ("PersonUnknown", "RequesterUnknown"),
    "no-ticket": ("NoTicket",),
    "the-template-is-not-there-or-another-one": (
        "TemplateNotFound",
        "TemplateReplaced",
        "TemplateNotRead",
    ),
    "the-template-is-over": ("TemplateRevoked", "TemplateExpired"),
    "beyond-what-the-template-leaves-open": (
        "OutOfBounds",
        "UndeclaredParameter",
        "UndeclaredReplicas",
        "UndeclaredCode",
        "UndeclaredResume",
        "ParameterMissing",
        "NotByTheTemplatesAuthority",
    ),
    "a-tag-instead-of-a-digest": ("ImageNotByDigest", "CodeNotByDigest"),
    "this-registry-is-not-allowed": ("RegistryNotAllowed",),
    "it-is-not-in-the-registry": ("NotFound",),
    "the-registry-does-not-answer": (
        "RegistryUnavailable",
        "RegistryMisbehaved",
        "RegistryError",
        "DeadlineExceeded",
    ),
    "the-registry-lets-nobody-in": ("RegistryAccessDenied",),
    "the-bytes-are-not-those-of-the-digest": ("ContentMismatch", "MalformedContent"),
    "too-much-evidence": ("EvidenceTooLarge",),
    "the-job-is-not-well-formed": ("InvalidJob", "InvalidName", "DuplicateName", "InvalidTemplate"),
    "the-approval-has-expired": ("Expired", "MaxRunsReached", "ValidityMissing"),
    "signed-for-another-cluster": ("OtherCluster",),
    "mounts-within-mounts": ("OverlappingMounts",),
    "the-path-of-checkpoints": ("CheckpointsPath",),
    "the-config-is-too-large": ("ConfigTooLarge", "SealTooLarge"),
    "data-that-nobody-verified": ("DataNotVerified", "LaneScratch"),
    "checkpoints-that-are-tainted": ("TaintedCheckpoint",),
    "the-format-of-checkpoints": ("CheckpointFormat",),
    "code-in-a-place-that-anybody-may-write-to": ("WritableCode",),
    "code-made-of-a-secret": ("UnsignedCode",),
    "a-variable-with-a-value-that-nobody-signed": ("UnsignedEnvironment",),
    "a-command-that-is-too-involved": ("CommandTooInvolved",),
    "secrets": ("SecretNotListed", "PullSecret"),
    "more-rights-than-a-trainer-needs": (
        "Privileged",
        "Capability",
        "ProcMount",
        "RestartPolicy",
        "ServiceLinks",
        "TerminationMessagePath",
    ),
    "a-field-that-sealed-pods-may-not-use": (
        "ForbiddenField",
        "UnknownField",
        "Malformed",
        "ReservedName",
    ),
}
#: Reason to place.
REASONS: Mapping[str, str] = {
    reason: f"{PAGE}#{section}" for section, reasons in _SECTIONS.items() for reason in reasons
}
#: What the webhook is asked, by its path, to place: for answers that have no reason.
QUESTIONS: Mapping[str, str] = {
    path: f"{PAGE}#{section}"
    for path, section in {
        "/mutate-trainingjob": "try-again",
        "/validate-trainingjob": "a-job-that-is-in-was-changed",
        "/validate-trainingtemplate": "a-job-that-is-in-was-changed",
        "/validate-pod": "a-pod-that-asks-for-a-gpu",
        "/mutate-lane": "a-notebook",
        "/validate-lane": "a-notebook",
        "/validate-policy": "a-policy-or-trust-root",
        "/validate-seal": "evidence-is-not-edited",
        "/record-access": "a-way-into-a-sealed-pod",
        "/record-node-proxy": "a-way-into-a-sealed-pod",
        "/validate-network": "a-network-policy-or-service",
    }.items()
}
HELP_TO_TRY_AGAIN = f"{PAGE}#try-again"


def see(places: Iterable[str], address: str = "") -> str:
    """``see …``: what an answer ends with; empty where there is no place."""
    found = list(dict.fromkeys(places))[:_MOST]
    return f"see {', '.join(_link(place, address) for place in found)}" if found else ""


def of_reasons(reasons: Iterable[str]) -> list[str]:
    """Their places. A reason that the list lacks leads to the whole page."""
    return [REASONS.get(reason, PAGE) for reason in reasons]


def _link(place: str, address: str) -> str:
    page, _, section = place.partition("#")
    if not address:
        found = f"docs/{page}.md"
    elif "{page}" in address:
        found = address.replace("{page}", page)
    else:
        found = f"{address.rstrip('/')}/{page}/"
    return f"{found}#{section}" if section else found


def ended(message: str, places: Iterable[str], address: str, most: int) -> str:
    """The message, of at most so many characters, with the place at its end."""
    words = see(places, address)
    if not words:
        return message[:most]
    words = ("\n" if "\n" in message else "; ") + words
    return message[: most - len(words)] + words
