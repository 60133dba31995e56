"""``trainseal template diff``: the two templates, read; what changed between them, shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.text import Text

from trainseal.api.model import API_VERSION, JsonObject, json_object
from trainseal.api.trainingtemplate import PLURAL
from trainseal.cli.changesview import changes_by_weight, claimed, described
from trainseal.cli.failures import UNDETERMINED, Failure
from trainseal.cli.jobfiles import JobFile, canonical, read_manifest
from trainseal.cli.terminaltext import plain
from trainseal.cluster.api import Kube, KubeError, NotFoundError, path_of
from trainseal.provenance.canonical import TEMPLATE_KIND, CanonicalError, canonical_form
from trainseal.provenance.claims import Claim, claims
from trainseal.provenance.judgement import Signed
from trainseal.provenance.templatechanges import Change, changes


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: where it was read, what its approvers sign, and what beside that it says."""

    source: str
    signed: Signed
    claims: tuple[Claim, ...]
    revoked: str

    @property
    def form(self) -> JsonObject:
        """The canonical form, as a value."""
        return json_object(json.loads(self.signed.canonical))


@dataclass(frozen=True, slots=True)
class Difference:
    """Two templates, and what changed from the one to the other, the weightiest first.

    No changes: what people sign is the same.
    """

    old: Side
    new: Side
    changes: tuple[Change, ...]


def compare(old: Side, new: Side) -> Difference:
    """What changed."""
    return Difference(old, new, changes(old.form, new.form))


def of_file(file: JobFile) -> Side:
    """The template in a file. Raises Failure."""
    data = canonical(file.job, file.job.value, file.namespace)
    return _side(file.job.source, file.manifest, data)


def from_file(file: str, namespace: str | None) -> Side:
    """An older template: today's rules need not accept it. Raises Failure, ManifestError."""
    return of_file(read_manifest(file, namespace, (TEMPLATE_KIND,)))


async def from_cluster(kube: Kube, namespace: str, name: str) -> Side:
    """The template that the cluster has. Raises Failure."""
    try:
        obj = await kube.get(path_of(API_VERSION, PLURAL, namespace, name))
        data = canonical_form(obj, TEMPLATE_KIND)
    except NotFoundError:
        raise Failure(
            f"no TrainingTemplate {name} in namespace {namespace}",
            expected="one to compare with",
            remedy="`kubectl get trainingtemplates` lists them; --against NAME names another",
            code=UNDETERMINED,
        ) from None
    except (KubeError, CanonicalError) as error:
        message = (error.message or error.reason) if isinstance(error, KubeError) else str(error)
        raise Failure(
            f"TrainingTemplate {namespace}/{name} could not be read: {plain(message)}",
            remedy="ask for the rights of `view`, or give two files",
            code=UNDETERMINED,
        ) from None
    return _side("the cluster", obj, data)


def _side(source: str, manifest: JsonObject, data: bytes) -> Side:
    metadata, spec = json_object(manifest.get("metadata")), json_object(manifest.get("spec"))
    namespace, name = str(metadata.get("namespace")), str(metadata.get("name"))
    entries = spec.get("signatures")
    signed = Signed(TEMPLATE_KIND, namespace, name, data)
    said = claims(entries if isinstance(entries, list) else [], signed)
    revoked = str(json_object(spec.get("revoked")).get("reason", ""))
    return Side(source, signed, said, revoked)


def print_json(found: Difference) -> None:
    """For programs, on stdout."""
    value = {
        "old": _described(found.old),
        "new": _described(found.new),
        "signaturesVerified": False,
        "changes": [described(c) for c in found.changes],
    }
    print(json.dumps(value, indent=2, ensure_ascii=False))  # noqa: T201


def _described(side: Side) -> JsonObject:
    return {
        "source": side.source,
        "namespace": side.signed.namespace,
        "name": side.signed.name,
        "digest": side.signed.digest,
        "revoked": side.revoked or None,
        "signatures": [
            {"kind": c.kind, "who": c.who, "issuer": c.issuer or None, "over": c.over}
            for c in side.claims
        ],
    }


def print_text(found: Difference) -> None:
    """For people, on stdout."""
    Console(highlight=False, soft_wrap=True).print(render(found))


def render(found: Difference) -> RenderableType:
    """The two, who says to have signed the first, and the changes by their weight."""
    parts: list[RenderableType] = [
        *_head("before", found.old),
        *(Text(f"        {line}", "dim") for line in claimed(found.old.claims)),
        *_head("after", found.new),
    ]
    if not found.changes:
        parts.append(Text("no difference: what people sign is the same", "green"))
    return Group(*parts, *changes_by_weight(found.changes))


def _head(word: str, side: Side) -> Iterator[Text]:
    yield Text(
        f"{word:<7} {plain(side.signed.namespace)}/{plain(side.signed.name)} {side.signed.digest}"
        f" ({plain(side.source)})"
    )
    if side.revoked:
        yield Text(f"        is revoked: {plain(side.revoked)}", "yellow")
