"""A TrainingJob that starts from a template, as a manifest; judged before anybody sends it.

The judge is the webhook's own (``provenance.templates``). What only the cluster knows (who asks,
how many run, whether the template's signatures satisfy the policies) is not judged here.
"""

from __future__ import annotations

from collections.abc import Mapping

from trainseal.api.model import API_VERSION, InvalidObjectError, JsonObject, json_object
from trainseal.cli.failures import Failure
from trainseal.cli.jobfiles import JobFile, canonical
from trainseal.cli.jobsigning import unresolved
from trainseal.cli.overrides import Value
from trainseal.provenance.canonical import KIND, digest_of_bytes
from trainseal.provenance.jobrules import MAX_NAME
from trainseal.provenance.templates import FaultyLaunchError, made_from

#: What the API server appends to a generateName.
_SUFFIX = 5


def launched(template: JobFile, parameters: Mapping[str, Value]) -> JsonObject:
    """The TrainingJob that runs a template with these parameters. Raises Failure for each that
    the template does not allow.
    """
    manifest = template.manifest
    metadata = json_object(manifest.get("metadata"))
    name = str(metadata.get("name"))
    digest = digest_of_bytes(canonical(template.job, template.job.value, template.namespace))
    job: JsonObject = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"generateName": _generate_name(name), "namespace": metadata.get("namespace")},
        "spec": {
            "templateRef": {"name": name, "digest": digest},
            **({"parameters": dict(parameters)} if parameters else {}),
        },
    }
    try:
        made_from(manifest, job)
    except FaultyLaunchError as error:
        lines = [f"{f.place}: found {f.found}, expected {f.wanted}" for f in error.faults]
        remedies = dict.fromkeys(f.remedy for f in error.faults)
        raise Failure("\n  ".join(lines[:20]), remedy="; ".join(remedies)) from None
    except InvalidObjectError as error:
        raise Failure(str(error), remedy="correct the template and sign it again") from None
    return job


def notes(template: JobFile) -> list[str]:
    """Why the template's digest may not be the one that it will have in the cluster."""
    spec = json_object(template.job.value.get("spec"))
    found = []
    if not spec.get("signatures"):
        found.append("note: the template carries no signature: the cluster will refuse it")
    if tags := unresolved(template, {}):
        found.append(f"note: signing resolves {', '.join(tags[:4])}: the digest will be another")
    if spec.get("revoked"):
        found.append("note: the template is revoked: nothing starts from it")
    return found


def _generate_name(template: str) -> str:
    """A start of a run's name: it begins with a letter, and leaves room for the rest."""
    named = template if template[:1].isalpha() else f"run-{template}"
    return named[: MAX_NAME - _SUFFIX - 1].rstrip("-") + "-"
