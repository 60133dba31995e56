"""Pods in lanes: given their label, their end and their images' digests; then judged as a whole.

The mutating step makes a notebook fit that says nothing of lanes: an owner's template can name no
deadline, and names its image by tag. It judges nothing. Another webhook may change the pod after
it, and anybody may write our label: so the validating step takes only the final pod's word. There
the pod is judged by the same rules as at the pods' own webhook, its images are verified, and its
place is counted. What could not be verified is refused as such, within seconds.

Registries: only those that every policy of the lane allows are asked, by tag only for the digest.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prometheus_client import Counter

from trainseal.admission.lanebook import CrowdedError, LaneBook, Place
from trainseal.admission.pods import PodRulesContext, decide
from trainseal.admission.reviews import ALLOWED, FORBIDDEN, TRY_AGAIN, Request, Response, deny, meta
from trainseal.api.model import JsonObject, json_object
from trainseal.api.policylanes import LABEL_LANE
from trainseal.cluster.api import KubeError
from trainseal.provenance.jobrules import by_digest
from trainseal.provenance.lanes import Lane, admitted, chosen, gpus, images, lane_of
from trainseal.provenance.verdicts import Outcome, Verdict, worst
from trainseal.registry.allowlist import InvalidPattern, allowed
from trainseal.registry.client import RegistryClient
from trainseal.registry.errors import RegistryError
from trainseal.registry.references import InvalidReference, Reference
from trainseal.verifier.artifacts import ArtifactVerifier

_log = logging.getLogger(__name__)
_DECIDED = Counter("trainseal_lane_pods_total", "Pods that asked to run in a lane.", ["answer"])
#: Of the 10 s that the chart gives.
_RESOLVE_SECONDS = 6.0
_VERIFY_SECONDS = 6.0
_MOST_IMAGES = 32
_AT_ONCE = 8
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Images:
    """What knows of images: the registries, and what was verified before."""

    registry: RegistryClient
    verifier: ArtifactVerifier


class LanePods:
    """Answers what is asked at /mutate-lane and /validate-lane: pods that are made."""

    def __init__(
        self, rules: PodRulesContext, images: Images, book: LaneBook, missing: Callable[[], str]
    ) -> None:
        self._rules = rules
        self._images = images
        self._book = book
        self._missing = missing
        self._asking = asyncio.Semaphore(_AT_ONCE)

    async def mutate(self, request: Request) -> Response:
        """What makes the pod one of a lane; nothing for a pod that no lane takes."""
        if request.namespace in self._rules.excluded_namespaces:
            return ALLOWED
        if missing := self._missing():
            return deny(f"TrainSeal's webhook is starting and waits for {missing}", TRY_AGAIN)
        pod = request.object
        lane = chosen(pod, self._rules.lanes(request.namespace))
        if lane is None:
            return ALLOWED
        found = images(pod)
        if len(set(found.values())) > _MOST_IMAGES:
            return deny(_too_many(request, len(found)))
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                digests = dict(
                    await asyncio.gather(
                        *(self._resolved(r, lane) for r in sorted(set(found.values())))
                    )
                )
        except (RegistryError, TimeoutError) as error:
            return deny(
                f"pod {_name(request)} asks to run in lane {lane.name}, and the digest of an image "
                "is undetermined: found "
                f"{str(error) or f'no answer within {_RESOLVE_SECONDS:.0f} s'}; try again, or name "
                "the image by its digest",
                TRY_AGAIN,
            )
        changed = {p: digests[text] for p, text in found.items() if digests[text] != text}
        return Response(True, patch=_patch(pod, admitted(pod, lane), changed))

    async def _resolved(self, text: str, lane: Lane) -> tuple[str, str]:
        """An image and what it is by digest; itself where nobody is to be asked about it."""
        reference = _may_ask(text, lane)
        if reference is None:
            return text, text
        if reference.digest is not None:
            return text, str(reference.at(reference.digest))
        async with self._asking:
            manifest = await self._images.registry.manifest(reference)
        return text, str(reference.at(manifest.digest))

    async def validate(self, request: Request) -> Response:
        """Whether a pod that bears a lane's label may be made."""
        if request.namespace in self._rules.excluded_namespaces:
            return ALLOWED
        if missing := self._missing():
            return deny(f"TrainSeal's webhook is starting and waits for {missing}", TRY_AGAIN)
        answer = await self._judged(request)
        _DECIDED.labels("admitted" if answer.allowed else "denied").inc()
        return answer

    async def _judged(self, request: Request) -> Response:
        decided = decide(request, self._rules, final=True)
        lane = self._rules.lanes(request.namespace).get(lane_of(request.object) or "")
        if not decided.allowed or lane is None:
            return decided
        found = sorted(set(images(request.object).values()))
        if len(found) > _MOST_IMAGES:
            return deny(_too_many(request, len(found)))
        unasked = [
            _unasked(r, lane) for r in found if not by_digest(r) or _may_ask(r, lane) is None
        ]
        if unasked:
            return _refused(request, lane, unasked, FORBIDDEN)
        bad = await self._unverified(found, lane)
        if bad:
            undetermined = worst(v.outcome for v in bad) is Outcome.UNDETERMINED
            code = TRY_AGAIN if undetermined else FORBIDDEN
            refused = _refused(request, lane, [v.sentence() for v in bad], code)
            return dataclasses.replace(refused, reasons=[v.reason for v in bad])
        return await self._counted(request, lane)

    async def _unverified(self, references: Sequence[str], lane: Lane) -> list[Verdict]:
        until = asyncio.get_running_loop().time() + _VERIFY_SECONDS
        results = await asyncio.gather(
            *(self._images.verifier.image(r, r, lane.policies, until) for r in references)
        )
        return [
            verdict
            for result in results
            for verdict in result.verdicts
            if verdict.outcome is not Outcome.VERIFIED
        ]

    async def _counted(self, request: Request, lane: Lane) -> Response:
        # Named by the API server before it asks here; else the request's own name will do.
        name = str(meta(request.object).get("name") or request.uid)
        place = Place(request.namespace, name, gpus(request.object, self._rules.gpus.is_gpu))
        try:
            said = await self._book.take(place, lane, dry_run=request.dry_run)
        except (KubeError, CrowdedError, ValueError) as error:
            _log.warning("counting lane %s of %s: %s", lane.name, request.namespace, error)
            return deny(
                f"pod {_name(request)} may not run in lane {lane.name} now: how many run in it "
                f"could not be counted: found {error!s:.300}; try again, and if it lasts tell "
                "those who run TrainSeal",
                TRY_AGAIN,
            )
        if said:
            return deny(
                f"lane {lane.name} of namespace {request.namespace} has no place for pod "
                f"{_name(request)}: {said}; end another, or try again when one has ended"
            )
        return ALLOWED


def _may_ask(text: str, lane: Lane) -> Reference | None:
    """The reference, where every policy of the lane lets its registry be contacted."""
    try:
        reference = Reference.parse(text)
        if all(allowed(reference, policy.registries) for policy in lane.policies):
            return reference
    except (InvalidReference, InvalidPattern):
        pass
    return None


def _unasked(text: str, lane: Lane) -> str:
    if _may_ask(text, lane) is None:
        return f"image {text}: outside the repositories that every policy allows; not contacted"
    return f"image {text}: found a tag, expected a digest, which TrainSeal gives when it is made"


def _refused(request: Request, lane: Lane, found: Sequence[str], code: int) -> Response:
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return deny(
        f"pod {_name(request)} may not run in lane {lane.name}: {'; '.join(found[:_SHOWN])}{more}",
        code,
    )


def _too_many(request: Request, found: int) -> str:
    return f"pod {_name(request)}: found {found} images, expected at most {_MOST_IMAGES} in a lane"


def _patch(pod: JsonObject, wanted: JsonObject, changed: dict[str, str]) -> list[JsonObject]:
    """RFC 6902: the label, the end, and the images by their places."""
    labels = json_object(meta(wanted).get("labels"))
    key = LABEL_LANE.replace("~", "~0").replace("/", "~1")
    found: list[JsonObject] = []
    if not isinstance(meta(pod).get("labels"), dict):
        found.append({"op": "add", "path": "/metadata/labels", "value": {}})
    found.append({"op": "add", "path": f"/metadata/labels/{key}", "value": labels[LABEL_LANE]})
    seconds = json_object(wanted.get("spec"))["activeDeadlineSeconds"]
    found.append({"op": "add", "path": "/spec/activeDeadlineSeconds", "value": seconds})
    found += [{"op": "replace", "path": place, "value": ref} for place, ref in changed.items()]
    return found


def _name(request: Request) -> str:
    name = meta(request.object).get("name") or meta(request.object).get("generateName") or ""
    return f"{request.namespace}/{request.name or name}"
