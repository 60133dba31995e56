"""Verifies a job with the webhook's own verifier, and shows the verdicts."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue
from rich.console import Console
from rich.text import Text

from trainseal.api.model import InvalidObjectError, JsonObject
from trainseal.cli.failures import DONE, REFUTED, UNDETERMINED, Failure
from trainseal.cli.jobfiles import JobFile
from trainseal.provenance.canonical import TEMPLATE_KIND
from trainseal.provenance.document import Document
from trainseal.provenance.helppages import REASONS, of_reasons, see
from trainseal.provenance.jobrules import RunFacts
from trainseal.provenance.policies import CompiledPolicy, PolicyError
from trainseal.provenance.requesters import Requester
from trainseal.provenance.templates import StoredTemplate
from trainseal.provenance.trustroots import TrustedRoot
from trainseal.provenance.verdicts import Outcome, Verdict
from trainseal.provenance.yamlreader import read_documents
from trainseal.registry.client import RegistryClient
from trainseal.verifier.artifacts import ArtifactVerifier
from trainseal.verifier.jobs import JobVerification, JobVerifier
from trainseal.verifier.policystore import BrokenPolicy, compile_checked, load_root
from trainseal.verifier.templates import verify_template

#: Seconds for all registries together: a person waits longer than an API server.
DEADLINE = 60.0
#: The variable that says where people read the documents; a cluster has the chart's value.
DOCUMENTS = "TRAINSEAL_DOCUMENTATION_URL"

_MARKS = {
    Outcome.VERIFIED: ("✓", "green"),
    Outcome.REFUTED: ("✗", "red"),
    Outcome.UNDETERMINED: ("?", "yellow"),
}


@dataclass(frozen=True, slots=True)
class Policies:
    """Policies ready for use, and those that are not."""

    compiled: tuple[CompiledPolicy, ...]
    broken: tuple[BrokenPolicy, ...]


@dataclass(frozen=True, slots=True)
class Verification:
    """A job, and what was found."""

    namespace: str
    name: str
    result: JobVerification
    #: What a cluster would judge besides.
    not_judged: tuple[str, ...]


def read_policies(files: Sequence[Path]) -> Policies:
    """The policies of these files, with the trust roots of these files.

    A policy that cannot be used is kept as such, as the webhook keeps it. Raises ManifestError for
    a file that is none, Failure where there is no policy in them at all.
    """
    policies: list[Document] = []
    roots: dict[str, tuple[str, TrustedRoot | str]] = {}
    for file in files:
        for document in read_documents(file.read_bytes(), str(file)):
            kind = document.value.get("kind")
            if kind == "ProvenancePolicy":
                policies.append(document)
            elif kind == "TrustRoot":
                roots[_name(document.value)] = load_root(document.value)
    if not policies:
        raise Failure(
            f"no ProvenancePolicy in {', '.join(map(str, files))}",
            expected="at least one",
            remedy="`kubectl get provenancepolicies -o yaml` prints a cluster's",
        )
    compiled: list[CompiledPolicy] = []
    broken: list[BrokenPolicy] = []
    for document in policies:
        try:
            compiled.append(compile_checked(document.value, roots))
        except (InvalidObjectError, PolicyError) as error:
            broken.append(BrokenPolicy(_name(document.value), f"{document.where()}: {error}"))
    return Policies(tuple(sorted(compiled, key=lambda p: p.name)), tuple(broken))


def facts(template: JobFile | None, user: str | None, groups: Sequence[str]) -> RunFacts:
    """What a cluster would know, as far as somebody says it."""
    return RunFacts(
        requester=Requester(user, frozenset(groups)) if user else None,
        template=StoredTemplate(template.manifest) if template else None,
    )


async def verify(
    job: JobFile, policies: Policies, client: RegistryClient, known: RunFacts
) -> Verification:
    """The verdicts on a job, or a template, under the policies that name its namespace."""
    manifest = job.manifest
    metadata = manifest["metadata"]
    identity = metadata if isinstance(metadata, dict) else {}
    namespace = str(identity.get("namespace", ""))
    name = str(identity.get("name") or identity.get("generateName") or "")
    those = [p for p in policies.compiled if p.applies_to(namespace)]
    now = datetime.now(UTC)
    if job.kind == TEMPLATE_KIND:
        result = verify_template(manifest, those, policies.broken, known, now)
        words = "images and code, which are judged with each job that starts from it"
        return Verification(namespace, name, result, (words,))
    verifier = JobVerifier(ArtifactVerifier(client, time.monotonic), lambda: now)
    result = await verifier.verify(
        manifest, those, known, deadline=DEADLINE, broken=policies.broken
    )
    return Verification(namespace, name, result, _not_judged(manifest))


def exit_code(found: Verification) -> int:
    """0, 1 or 2, for the three outcomes."""
    codes = {Outcome.VERIFIED: DONE, Outcome.REFUTED: REFUTED, Outcome.UNDETERMINED: UNDETERMINED}
    return codes[found.result.outcome]


def print_json(found: Verification) -> None:
    """The verdicts for programs, on stdout."""
    result = found.result
    value: JsonObject = {
        "namespace": found.namespace,
        "name": found.name,
        "digest": result.digest or None,
        "outcome": result.outcome.value,
        "policies": [{"name": p.name, "digest": p.digest, "mode": p.mode} for p in result.policies],
        "verdicts": [_json(v) for v in result.verdicts],
        "audited": [_json(v) for v in result.audited],
        "warnings": list(result.warnings),
        "awaited": [str(v.lack) for v in result.awaited],
        "notJudged": list(found.not_judged),
    }
    print(json.dumps(value, indent=2, ensure_ascii=False))  # noqa: T201


def print_text(found: Verification) -> None:
    """The verdicts for people, on stdout."""
    console = Console(highlight=False, soft_wrap=True)
    result = found.result
    _, color = _MARKS[result.outcome]
    head = Text(f"{found.namespace}/{found.name} ")
    head.append(str(result.outcome), f"bold {color}")
    if result.digest:
        head.append(f" {result.digest}", "dim")
    console.print(head)
    for verdict in result.verdicts:
        console.print(_lines(verdict))
    if result.audited:
        console.print(Text("policies in Audit mode, which deny nothing:", "dim"))
        for verdict in result.audited:
            console.print(_lines(verdict))
    for verdict in result.awaited:
        words = f"policy {verdict.policy} lets it be created, and wait for {verdict.lack}"
        console.print(Text(words, "yellow"))
    places = of_reasons(v.reason for v in result.denials)
    if words := see(places, os.environ.get(DOCUMENTS, "")):
        console.print(words)
    for words in result.warnings:
        console.print(Text(f"warning: {words}", "yellow"))
    for words in found.not_judged:
        console.print(Text(f"not judged here: {words}", "dim"))


def _lines(verdict: Verdict) -> Text:
    mark, color = _MARKS[verdict.outcome]
    text = Text(f"{mark} ", color)
    text.append(f"{verdict.artifact} {verdict.name}", "bold")
    text.append(f" {verdict.outcome}: {verdict.found}", "")
    if verdict.policy:
        text.append(f" (policy {verdict.policy})", "dim")
    if verdict.subject and verdict.artifact in ("image", "code"):
        text.append(f"\n    {verdict.subject}", "dim")
    if verdict.outcome is not Outcome.VERIFIED:
        if verdict.wanted:
            text.append(f"\n    wanted: {verdict.wanted}")
        if verdict.remedy:
            text.append(f"\n    to do: {verdict.remedy}")
    return text


def _json(verdict: Verdict) -> JsonObject:
    return {
        "artifact": verdict.artifact,
        "name": verdict.name,
        "subject": verdict.subject,
        "outcome": verdict.outcome.value,
        "reason": verdict.reason,
        "found": verdict.found,
        "wanted": verdict.wanted,
        "remedy": verdict.remedy,
        "help": see([REASONS[verdict.reason]], os.environ.get(DOCUMENTS, "")).removeprefix("see ")
        if verdict.reason in REASONS
        else None,
        "policy": verdict.policy,
        "signers": [
            {
                "authority": s.authority,
                "person": s.person,
                "identity": s.identity,
                "issuer": s.issuer,
                "signedAt": s.signed_at.isoformat() if s.signed_at else None,
            }
            for s in verdict.signers
        ],
    }


def _not_judged(manifest: JsonObject) -> tuple[str, ...]:
    spec = manifest.get("spec")
    validity = spec.get("validity") if isinstance(spec, dict) else None
    bounds = validity if isinstance(validity, dict) else {}
    words = {
        "maxRuns": "how often it has run (validity.maxRuns)",
        "cluster": "which cluster it is (validity.cluster)",
    }
    return tuple(text for field, text in words.items() if field in bounds)


def _name(obj: Mapping[str, JsonValue]) -> str:
    metadata = obj.get("metadata")
    return str(metadata.get("name", "")) if isinstance(metadata, Mapping) else ""
