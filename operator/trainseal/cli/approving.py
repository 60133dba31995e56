"""``trainseal approve``: what a job that waits would run, and signing it where it is.

Rules:

1. What is shown is what is signed: the canonical form of the job as the cluster has it.
2. Compared is with the last run of its name that was sealed under the operator's key, by the job
   whose digest stands in that seal.
3. A signature is added to the job that was shown, or to none: the job's UID and digest are looked
   at again, and the API server takes the change for the version that was looked at alone.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue
from rich.console import Console, Group, RenderableType
from rich.text import Text

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.api.trainingjob import TrainingJob
from trainseal.cli.changesview import changes_by_weight, claimed, described
from trainseal.cli.clusters import follow, job_path, phase_of, runs_of
from trainseal.cli.failures import REFUTED, UNDETERMINED, Failure
from trainseal.cli.jobsigning import (
    MAX_SIGNATURES,
    is_signed_by,
    present_signatures,
    signature_of,
)
from trainseal.cli.sealtrust import SealTrust, seal_trust
from trainseal.cli.statusview import job_of
from trainseal.cli.terminaltext import plain
from trainseal.cli.yamltext import written
from trainseal.cluster.api import JSON_PATCH, Kube, KubeError, path_of
from trainseal.cluster.keys import read_keyring
from trainseal.cluster.settings import KEYRING_CONFIG_MAP
from trainseal.provenance.bundles import MAX_BUNDLE_BYTES, BundleError
from trainseal.provenance.canonical import KIND, CanonicalError, canonical_job
from trainseal.provenance.claims import claims, is_over
from trainseal.provenance.judgement import Signed, read_bundle
from trainseal.provenance.keyrings import UntrustedError
from trainseal.provenance.keys import PrivateKey
from trainseal.provenance.launches import template_ref
from trainseal.provenance.sealedjobs import sealed_job
from trainseal.provenance.templatechanges import Change, job_changes
from trainseal.provenance.tickets import TICKET_ANNOTATION, read_ticket

#: Seals of the name that are looked at for one to compare with, the newest first.
_MOST_SEALS = 50
_TRIES = 5
_REFUSED_PATCH = (409, 422)


@dataclass(frozen=True, slots=True)
class Previous:
    """An approved run of the name: its seal, and what was signed of its job."""

    seal: JsonObject
    trust: SealTrust
    spec: JsonObject

    @property
    def words(self) -> str:
        """Which run it was, and who approved it."""
        spec = json_object(self.seal.get("spec"))
        signers = dict.fromkeys(
            str(signer.get("person"))
            for artifact in json_objects(spec.get("artifacts"))
            if artifact.get("artifact") in ("job", "template")
            for signer in json_objects(artifact.get("signers"))
        )
        name = json_object(self.seal.get("metadata")).get("name")
        doubt = "" if self.trust.outcome == "verified" else "; its seal could not be verified here"
        return (
            f"run {name}, sealed {spec.get('sealedAt')}, approved by "
            f"{', '.join(signers) or 'nobody'}{doubt}"
        )


@dataclass(frozen=True, slots=True)
class Proposal:
    """A job as the cluster has it, what its approvers sign, and what differs from before.

    ``requester`` is empty where it cannot be told here. ``previous`` None: no approved run of the
    name is known.
    """

    job: JsonObject
    signed: Signed
    requester: str
    previous: Previous | None
    changes: tuple[Change, ...]

    @property
    def uid(self) -> str:
        """The object's."""
        return str(json_object(self.job.get("metadata")).get("uid"))

    @property
    def spec(self) -> JsonObject:
        """What is signed of its spec."""
        return json_object(json_object(json.loads(self.signed.canonical)).get("spec"))

    @property
    def missing(self) -> str:
        """Who has yet to sign, by the controller's word."""
        return str(json_object(self.job.get("status")).get("missing") or "")


async def proposal(kube: Kube, namespace: str, name: str, release_namespace: str) -> Proposal:
    """What there is to approve. Raises Failure, KubeError."""
    job = await job_of(kube, namespace, name)
    signed = _signed(job, namespace, name)
    previous = await _previous(kube, namespace, name, release_namespace)
    found = Proposal(job, signed, await _requester(kube, release_namespace, job, signed), None, ())
    if previous is None:
        return found
    changes = job_changes(previous.spec, found.spec)
    return Proposal(job, signed, found.requester, previous, changes)


def _signed(job: JsonObject, namespace: str, name: str) -> Signed:
    if (ref := template_ref(job)) is not None:
        raise Failure(
            f"TrainingJob {namespace}/{name} is made from template {ref.name}",
            expected="a job that is signed itself",
            remedy="nobody signs it: its template is signed",
            code=REFUTED,
        )
    try:
        TrainingJob.parse(job)
        return Signed(KIND, namespace, name, canonical_job(job))
    except (CanonicalError, ValueError) as error:
        raise Failure(
            f"TrainingJob {namespace}/{name} cannot be signed: {plain(str(error))}",
            remedy="have it deleted and applied again",
            code=REFUTED,
        ) from None


async def _previous(
    kube: Kube, namespace: str, name: str, release_namespace: str
) -> Previous | None:
    for seal in reversed((await runs_of(kube, namespace, name))[-_MOST_SEALS:]):
        spec = sealed_job(seal)
        if spec is None or "binding" not in json_object(seal.get("status")):
            continue
        trust = await seal_trust(kube, release_namespace, None, seal)
        if trust.outcome != "refuted":
            return Previous(seal, trust, spec)
    return None


async def _requester(kube: Kube, release_namespace: str, job: JsonObject, signed: Signed) -> str:
    annotations = json_object(json_object(job.get("metadata")).get("annotations"))
    path = path_of("v1", "configmaps", release_namespace, KEYRING_CONFIG_MAP)
    with contextlib.suppress(KubeError, UntrustedError):
        keyring = read_keyring(await kube.get(path), "ticket")
        text = str(annotations.get(TICKET_ANNOTATION, ""))
        return read_ticket(keyring, text, signed.digest).username
    return ""


def bundle_in(path: Path, signed: Signed) -> JsonObject:
    """A bundle that another tool made over this job. Raises Failure."""
    with path.open("rb") as file:
        data = file.read(MAX_BUNDLE_BYTES + 1)
    piece = read_bundle(data, MAX_BUNDLE_BYTES)
    if isinstance(piece, BundleError):
        raise Failure(
            f"{path}: no Sigstore bundle: {plain(str(piece))}",
            expected="what `cosign sign-blob --bundle` writes",
            remedy="sign the bytes that `trainseal canonical` prints",
        )
    if is_over(piece.content, signed) is False:
        raise Failure(
            f"{path}: a signature over something else",
            expected=f"one over {signed.namespace}/{signed.name}, {signed.digest}",
            remedy=f"`kubectl get tj {signed.name} -n {signed.namespace} -o json | trainseal "
            "canonical -f -` prints the bytes to sign",
            code=REFUTED,
        )
    return json_object(json.loads(data))


async def approve(kube: Kube, found: Proposal, signature: PrivateKey | JsonObject) -> bool:
    """Adds a key's signature, or a bundle; False where it is there already. Raises Failure,
    KubeError.
    """
    if isinstance(signature, dict):
        entry: JsonObject = {"bundle": signature}
    else:
        entry = signature_of(found.signed, signature)
    namespace, name = found.signed.namespace, found.signed.name
    path, refusal = job_path(namespace, name), None
    for _ in range(_TRIES):
        job = await job_of(kube, namespace, name)
        if (
            str(json_object(job.get("metadata")).get("uid")) != found.uid
            or _signed(job, namespace, name).digest != found.signed.digest
        ):
            raise Failure(
                f"TrainingJob {namespace}/{name} is another one by now than what was shown",
                expected=f"the job {found.signed.digest}",
                remedy="nothing was signed; look at it again",
                code=REFUTED,
            )
        present = present_signatures(job)
        if any(_is(one, signature, found.signed) for one in present):
            return False
        if len(present) >= MAX_SIGNATURES:
            raise Failure(
                f"{len(present)} signatures already",
                expected=f"at most {MAX_SIGNATURES}",
                remedy=f"`kubectl edit trainingjob {name} -n {namespace}`: remove what does not"
                " count from spec.signatures",
                code=REFUTED,
            )
        version = json_object(job.get("metadata")).get("resourceVersion")
        patch: list[JsonValue] = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": version},
            {"op": "add", "path": "/spec/signatures", "value": [*present, entry]},
        ]
        try:
            await kube.patch(path, patch, JSON_PATCH)
        except KubeError as error:
            if error.status not in _REFUSED_PATCH:
                raise
            refusal = error  # the controller has written its status meanwhile: again
            continue
        return True
    raise Failure(
        f"the signature could not be added to TrainingJob {namespace}/{name}: "
        f"{plain(refusal.message if refusal else '')}",
        remedy="try again",
        code=UNDETERMINED,
    )


def _is(entry: JsonValue, signature: PrivateKey | JsonObject, signed: Signed) -> bool:
    """Whether an entry of ``spec.signatures`` is this signature already."""
    if isinstance(signature, dict):
        return json_object(entry).get("bundle") == signature
    return is_signed_by(entry, signature, signed)


async def outcome(kube: Kube, found: Proposal) -> JsonObject:
    """The job once the controller has looked at it with its signatures. Waits without end."""
    async with contextlib.aclosing(
        follow(kube, found.signed.namespace, found.signed.name)
    ) as states:
        async for job in states:
            generation = json_object(job.get("metadata")).get("generation")
            status = json_object(job.get("status"))
            if status.get("observedGeneration") == generation:
                return job
    raise AssertionError("follow() ends by an error alone")


# For people and programs ----------------------------------------------------------------------


def print_text(found: Proposal) -> None:
    """What would run, and what differs, on stdout."""
    Console(highlight=False, soft_wrap=True).print(render(found))


def render(found: Proposal) -> RenderableType:
    """Whole first; what differs last, next to the question."""
    return Group(*_head(found), Text(), *_whole(found), Text(), *_differences(found))


def _head(found: Proposal) -> Iterator[Text]:
    signed = found.signed
    yield Text(f"job     {plain(signed.namespace)}/{plain(signed.name)} {signed.digest}", "bold")
    who = plain(found.requester) if found.requester else "not known here: no keyring, or no ticket"
    yield Text(f"asked   by {who}")
    for line in claimed(claims(present_signatures(found.job), signed)):
        yield Text(f"        {line}", "dim")
    if found.missing:
        yield Text(f"missing {plain(found.missing)}", "yellow")


def _whole(found: Proposal) -> Iterator[Text]:
    yield Text("What would run", "bold")
    yield from (Text(f"  {plain(line)}") for line in written(found.spec).splitlines())


def _differences(found: Proposal) -> Iterator[RenderableType]:
    if found.previous is None:
        yield Text("No approved run of this name is known: compare nothing, read all", "yellow")
        return
    words = plain(found.previous.words)
    if not found.changes:
        yield Text(f"The same as {words}", "green")
        return
    yield Text(f"What differs from {words}", "bold")
    yield from changes_by_weight(found.changes)


def value(found: Proposal, *, added: bool | None, job: JsonObject | None) -> JsonObject:
    """For programs. ``added`` None: nothing was to be signed; ``job`` as it is afterwards."""
    changes: Sequence[JsonValue] = [described(c) for c in found.changes]
    previous: JsonObject | None = None
    if found.previous is not None:
        previous = {
            "sealedRun": json_object(found.previous.seal.get("metadata")).get("name"),
            "seal": found.previous.trust.outcome,
            "changes": list(changes),
        }
    return {
        "namespace": found.signed.namespace,
        "name": found.signed.name,
        "digest": found.signed.digest,
        "requester": found.requester or None,
        "missing": found.missing or None,
        "spec": found.spec,
        "previous": previous,
        "signed": added is not None,
        "added": bool(added),
        "phase": phase_of(job or found.job),
    }
