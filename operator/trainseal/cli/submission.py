"""Code pushed, signed and written into the job; the job signed, applied and followed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from trainseal.api.model import API_VERSION, JsonObject, json_object
from trainseal.cli import jobsigning
from trainseal.cli.clusters import JOBS, follow, job_path, phase_of
from trainseal.cli.codesigning import sign_code
from trainseal.cli.failures import REFUTED, Failure
from trainseal.cli.jobfiles import STDIN, JobFile, in_namespace, whole_job
from trainseal.cli.statusview import ENDED, one_line
from trainseal.cluster.api import ConflictError, Kube, NotFoundError, path_of
from trainseal.provenance.canonical import CanonicalError, job_digest
from trainseal.provenance.keys import PrivateKey
from trainseal.provenance.yamlreader import read_documents
from trainseal.registry.client import RegistryClient
from trainseal.registry.references import InvalidReference, Reference

#: Phases in which nothing of a run is there any more, or ever was.
_OVER = ENDED | {"Refused"}


@dataclass(frozen=True, slots=True)
class Tree:
    """A code mount's tree: where it lies, and where it goes."""

    name: str
    directory: Path
    push: Reference


def trees(job: JobFile, code: Sequence[str], push: Sequence[str]) -> tuple[Tree, ...]:
    """``--code`` and ``--push`` put together with the job's code mounts. Raises Failure."""
    mounts = {c.name: c.oci.reference for c in whole_job(job.job, job.manifest).spec.code or ()}
    directories, targets = _by_name("--code", code, mounts), _by_name("--push", push, mounts)
    for name in targets.keys() - directories.keys():
        raise Failure(f"--push for {name} without --code", remedy=f"give --code {name}=DIR as well")
    return tuple(
        Tree(name, Path(directory), _target(name, targets.get(name), mounts[name]))
        for name, directory in directories.items()
    )


class Submission:
    """One job's way into the cluster."""

    def __init__(self, job: JobFile, key: PrivateKey, client: RegistryClient, kube: Kube) -> None:
        self._job = job
        self._key = key
        self._client = client
        self._kube = kube
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        metadata = job.manifest["metadata"]
        identity = metadata if isinstance(metadata, dict) else {}
        self._namespace, self._name = str(identity["namespace"]), str(identity["name"])

    async def submit(self, trees: Sequence[Tree], *, replace: bool) -> JsonObject:
        """Pushes, signs and applies. The TrainingJob as the cluster has it. Raises Failure."""
        # First what takes no time: a run in the way makes all else vain.
        standing = await self._standing()
        if standing is not None and phase_of(standing) in _OVER and not replace:
            raise Failure(
                f"{self._namespace}/{self._name} is there already: {one_line(standing)}",
                remedy="give --replace to delete it and run anew (its seal stays), or another name",
                code=REFUTED,
            )
        references = {}
        for tree in trees:
            signed = await sign_code(
                self._client, tree.directory, tree.push, self._key, self._console
            )
            self._say(*signed.describe(self._key.public.id), f"  {signed.reference}")
            references[tree.name] = str(signed.reference)
        manifest = await self._sign(references)
        path = path_of(API_VERSION, JOBS, self._namespace)
        if standing is not None:
            if phase_of(standing) not in _OVER:
                return self._going_on(standing, manifest)
            # Admission comes before the name is looked at: what would be refused deletes nothing.
            with contextlib.suppress(ConflictError):
                await self._kube.create(path, manifest, dry_run=True, strict=True)
            await self._delete(standing)
        try:
            made = await self._kube.create(path, manifest, strict=True)
        except ConflictError:
            raise Failure(
                f"{self._namespace}/{self._name} was made by somebody else just now",
                remedy="look at it with `trainseal status`",
                code=REFUTED,
            ) from None
        print(f"trainingjob.trainseal.dev/{self._name} created")  # noqa: T201
        return made

    async def follow(self, job: JsonObject, *, to_the_end: bool) -> None:
        """Says each step until the run is there, or is over. Raises Failure where it is refused."""
        shown = ""
        uid = _uid(job)
        try:
            async with contextlib.aclosing(follow(self._kube, self._namespace, self._name)) as now:
                async for state in now:
                    if _uid(state) != uid:
                        raise NotFoundError(404, "NotFound", "it was deleted and made anew")
                    if (line := one_line(state)) != shown:
                        self._say(shown := line)
                    if self._arrived(state, to_the_end=to_the_end):
                        return
        except NotFoundError as error:
            raise Failure(f"the job is gone: {error.message}", code=REFUTED) from None

    def _arrived(self, state: JsonObject, *, to_the_end: bool) -> bool:
        phase = phase_of(state)
        if phase in ("Failed", "Refused"):
            raise Failure(
                f"{self._namespace}/{self._name}: {one_line(state)}",
                remedy=f"`trainseal status {self._name} -n {self._namespace}` says more",
                code=REFUTED,
            )
        status = json_object(state.get("status"))
        if phase == "Pending" and status.get("verified") == "pending":
            return True  # for a person, perhaps for days
        if phase == "Succeeded" or (phase == "Running" and not to_the_end):
            return True
        spec = state.get("spec")
        return phase == "Suspended" and isinstance(spec, dict) and bool(spec.get("suspend"))

    async def _standing(self) -> JsonObject | None:
        try:
            return await self._kube.get(job_path(self._namespace, self._name))
        except NotFoundError:
            return None

    async def _sign(self, code: Mapping[str, str]) -> JsonObject:
        """Signs the file; the object to send."""
        job = self._job
        resolved = await jobsigning.resolve_references(job, self._client, code)
        prepared = jobsigning.prepare(job, resolved, code)
        self._say(*prepared.describe())
        signed = jobsigning.sign_job(prepared, self._key, anew=job.file == STDIN)
        self._say(*signed.describe(self._key.public.id))
        if signed.text != job.text and job.file != STDIN:
            jobsigning.write_text(signed.text, job.file)
        others = sorted({str(d.value["kind"]) for d in job.documents} - {"TrainingJob"})
        if others:
            self._say(f"note: {', '.join(others)} in the same file: not applied, use kubectl")
        document = read_documents(signed.text, job.job.source)[job.index]
        return in_namespace(document.value, job.namespace)

    def _going_on(self, standing: JsonObject, manifest: JsonObject) -> JsonObject:
        place = f"{self._namespace}/{self._name}"
        if _digest(standing) == _digest(manifest):
            self._say(f"{place} is there already, with this digest: nothing was applied")
            return standing
        raise Failure(
            f"a run of {place} is going on ({one_line(standing)}), and is another than this",
            remedy=f"wait for its end, or `kubectl delete trainingjob {self._name}"
            f" -n {self._namespace}`; or give this one another name",
            code=REFUTED,
        )

    async def _delete(self, standing: JsonObject) -> None:
        """Deletes a job that is over, and waits until its objects are gone: names are reused."""
        path = job_path(self._namespace, self._name)
        self._say(f"deleting the run before: {one_line(standing)}")
        with contextlib.suppress(NotFoundError):
            await self._kube.request(
                "DELETE",
                path,
                body={
                    "apiVersion": "v1",
                    "kind": "DeleteOptions",
                    "propagationPolicy": "Foreground",
                    "preconditions": {"uid": _uid(standing)},
                },
            )
            async with contextlib.aclosing(
                follow(self._kube, self._namespace, self._name, every=1)
            ) as states:
                async for state in states:
                    if _uid(state) != _uid(standing):
                        break

    @staticmethod
    def _say(*lines: str) -> None:
        for line in lines:
            print(line, file=sys.stderr)  # noqa: T201


def _by_name(option: str, texts: Sequence[str], mounts: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            if len(mounts) != 1:
                raise Failure(
                    f"{option} {text}: the job has {len(mounts)} code mounts",
                    expected=f"{option} NAME={text}",
                    remedy=f"NAME is one of: {', '.join(mounts) or 'none; add spec.code first'}",
                )
            name, value = next(iter(mounts)), text
        if name not in mounts:
            raise Failure(
                f"{option} {text}: the job has no code mount {name}",
                expected=f"one of {', '.join(mounts) or 'none'}",
                remedy="correct the name, or add the mount to spec.code",
            )
        if name in found:
            raise Failure(f"{option} {text}: {name} is given twice", remedy="give it once")
        found[name] = value
    return found


def _target(name: str, push: str | None, reference: str) -> Reference:
    """Where a tree goes: where it is told to, else where the job's own is."""
    if push is not None:
        return Reference.parse(push)
    try:
        found = Reference.parse(reference)
    except InvalidReference:
        raise Failure(
            f"spec.code[{name}] names no repository yet: {reference[:80]!r}",
            remedy=f"give --push {name}=REGISTRY/REPOSITORY",
        ) from None
    return Reference(found.registry, found.repository)


def _digest(manifest: JsonObject) -> str:
    try:
        return job_digest(manifest)
    except CanonicalError:
        return ""


def _uid(obj: JsonObject) -> str:
    metadata = obj.get("metadata")
    return str(metadata.get("uid", "")) if isinstance(metadata, dict) else ""
