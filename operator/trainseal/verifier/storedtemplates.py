"""Reads the template that a TrainingJob names, as the cluster has it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from pydantic import JsonValue

from trainseal.api.model import API_VERSION, InvalidObjectError, json_object
from trainseal.api.trainingtemplate import PLURAL
from trainseal.cluster.api import Kube, KubeError, NotFoundError, path_of
from trainseal.provenance.launches import template_ref
from trainseal.provenance.templates import StoredTemplate


async def stored_template(
    kube: Kube, job: Mapping[str, JsonValue], seconds: float = 5.0
) -> StoredTemplate | None:
    """The template; None for a job that names none, or none that can be read.

    A template that cannot be read is no absent one: ``why`` says so.
    """
    try:
        ref = template_ref(job)
    except InvalidObjectError:
        return None  # whoever verifies it says why
    if ref is None:
        return None
    where = str(json_object(job.get("metadata")).get("namespace"))
    try:
        path = path_of(API_VERSION, PLURAL, where, ref.name)
        async with asyncio.timeout(seconds):
            return StoredTemplate(await kube.get(path))
    except NotFoundError:
        return StoredTemplate(None)
    except (KubeError, TimeoutError) as error:
        what = f"TrainingTemplate {where}/{ref.name}"
        return StoredTemplate(None, f"{what} could not be read: {error or 'no answer in time'}")
