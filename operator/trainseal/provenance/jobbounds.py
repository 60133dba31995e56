"""How large a job may be where neither its schema nor its digest says so. Pure; bytes are counted.

What is signed is bounded by its canonical form. What is not (``scheduling``, ``signatures``) may be
changed while a job lives by whoever may edit it, is stored with the job, and of ``scheduling`` a
copy goes into the pod template of each role and so into the seal. The schema sees no more of it
than how many keys it has.

Which size of an elastic role is chosen, unsigned, is held to the signed range here as well.

These bounds hold whatever a policy says, also in Audit. Nothing is verified and nobody is asked:
a registry that is down, a policy that changed or a key that is gone stands in no update's way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue

from trainseal.api.model import FieldProblem, InvalidObjectError, json_object, json_objects
from trainseal.api.sealedrun import MAX_IMAGES
from trainseal.api.trainingjob import MAX_SIGNATURES, TrainingJob
from trainseal.provenance import strictjson
from trainseal.provenance.bundles import MAX_BUNDLE_BYTES, BundleError, parse_bundle
from trainseal.provenance.jobrules import image_references
from trainseal.provenance.memberships import (
    SignedSizes,
    asked_replicas,
    choice_faults,
    sizes_of_job,
)

#: Of ``spec.scheduling`` as JSON; at most eight roles have a copy of it in one seal.
MAX_SCHEDULING_BYTES = 32 * 1024
#: An affinity's terms are ten levels down, ``scheduling`` itself counted.
MAX_SCHEDULING_DEPTH = 16
#: Of all bundles of a job together, as JSON: two at their own bound.
MAX_SIGNATURES_BYTES = 2 * MAX_BUNDLE_BYTES

Json = Mapping[str, JsonValue]


def check_bounds(job: TrainingJob, spec: Json) -> None:
    """Raises InvalidObjectError where a job is too large; ``spec`` is its own, as it was sent.

    A bundle that is none is no concern of this, as long as it is not too large or too deep: it is
    evidence that does not count, and hides none that does.
    """
    problems = [
        *_scheduling(spec.get("scheduling")),
        *choice_faults(asked_replicas(spec), sizes_of_job(spec)),
        *_bytes_of(_bundles(spec)),
    ]
    images = len(image_references(job))
    if images > MAX_IMAGES:
        problems.append(
            FieldProblem("spec.roles", f"{images} different images", f"at most {MAX_IMAGES}")
        )
    if problems:
        raise InvalidObjectError("TrainingJob", problems)


def changes_beyond_bounds(
    spec: Json, before: Json, signed: SignedSizes | None = None
) -> tuple[FieldProblem, ...]:
    """What an update of the unsigned parts must not bring; none for a harmless one. ``signed``:
    the job's sizes; None of what is no job.

    Only what it changes is judged: what is stored already, from before there was a bound, stands
    in no other update's way. A bundle that is new must be one that can be read.
    """
    return tuple(_changes(spec, before, signed))


def _changes(spec: Json, before: Json, signed: SignedSizes | None) -> Iterator[FieldProblem]:
    if spec.get("scheduling") != before.get("scheduling"):
        yield from _scheduling(spec.get("scheduling"))
    if signed is not None and asked_replicas(spec) != asked_replicas(before):
        yield from choice_faults(asked_replicas(spec), signed)
    if spec.get("signatures") == before.get("signatures"):
        return
    bundles, known = _bundles(spec), _bundles(before)
    if len(bundles) > MAX_SIGNATURES:
        yield FieldProblem(
            "spec.signatures", f"{len(bundles)} signatures", f"at most {MAX_SIGNATURES}"
        )
        return
    too_large = tuple(_bytes_of(bundles))
    yield from too_large
    if too_large:
        return
    for index, bundle in enumerate(bundles):
        if bundle not in known:
            try:
                parse_bundle(bundle)
            except BundleError as error:
                yield FieldProblem(
                    f"spec.signatures[{index}].bundle",
                    f"what cannot be read ({error})",
                    "a Sigstore bundle, as `trainseal sign job` adds it",
                )


def _scheduling(scheduling: JsonValue) -> Iterator[FieldProblem]:
    try:
        strictjson.from_mapping(
            json_object(scheduling), max_bytes=MAX_SCHEDULING_BYTES, max_depth=MAX_SCHEDULING_DEPTH
        )
    except strictjson.JSONError as error:
        yield FieldProblem(
            "spec.scheduling",
            _found(error),
            f"at most {MAX_SCHEDULING_BYTES} bytes of JSON in {MAX_SCHEDULING_DEPTH} levels",
        )


def _bytes_of(bundles: Sequence[Json]) -> Iterator[FieldProblem]:
    size = 0
    for index, bundle in enumerate(bundles):
        try:
            _, text = strictjson.from_mapping(bundle, max_bytes=MAX_SIGNATURES_BYTES)
        except strictjson.JSONError as error:
            yield FieldProblem(
                f"spec.signatures[{index}].bundle",
                _found(error),
                f"at most {MAX_BUNDLE_BYTES} bytes of JSON in {strictjson.MAX_DEPTH} levels",
            )
            return
        size += len(text)
    if size > MAX_SIGNATURES_BYTES:
        yield FieldProblem(
            "spec.signatures", f"{size} bytes", f"at most {MAX_SIGNATURES_BYTES} bytes in all"
        )


def _bundles(spec: Json) -> list[Json]:
    return [json_object(entry.get("bundle")) for entry in json_objects(spec.get("signatures"))]


def _found(error: strictjson.JSONError) -> str:
    return str(error).removeprefix("found ").partition(", expected")[0]
