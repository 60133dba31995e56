"""Whether a seal is the operator's: its signature, under the keyring that the cluster publishes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from trainseal.api.model import json_object
from trainseal.cluster.api import Kube, KubeError, path_of
from trainseal.cluster.keys import read_keyring
from trainseal.cluster.settings import KEYRING_CONFIG_MAP
from trainseal.provenance.canonical import CanonicalError, job_digest
from trainseal.provenance.keyrings import Keyring, UntrustedError
from trainseal.provenance.sealedjobs import asked_digest
from trainseal.provenance.seals import SEAL_ANNOTATION, verify_binding, verify_seal

Json = Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class SealTrust:
    """``unverified``: keyring or cluster UID could not be read. ``message`` says why."""

    outcome: Literal["verified", "refuted", "unverified"]
    message: str = ""


async def seal_trust(kube: Kube, release_namespace: str, job: Json | None, seal: Json) -> SealTrust:
    """Verifies the seal of a job; of one that is gone, that it is the operator's."""
    try:
        path = path_of("v1", "configmaps", release_namespace, KEYRING_CONFIG_MAP)
        keyring = read_keyring(await kube.get(path), "seal")
        cluster = await kube.get(path_of("v1", "namespaces", None, "kube-system"))
    except KubeError as error:
        return SealTrust("unverified", error.message)
    except UntrustedError as error:
        return SealTrust("unverified", str(error))
    uid = str(json_object(cluster.get("metadata")).get("uid"))
    try:
        verify(keyring, uid, job, seal)
    except (UntrustedError, CanonicalError) as error:
        return SealTrust("refuted", str(error))
    return SealTrust("verified")


def verify(keyring: Keyring, cluster: str, job: Json | None, seal: Json) -> None:
    """Raises UntrustedError or CanonicalError unless this is the operator's seal, of this job if
    one is given.
    """
    metadata, spec = json_object(seal.get("metadata")), json_object(seal.get("spec"))
    namespace, name = str(metadata.get("namespace")), str(metadata.get("name"))
    binding = json_object(seal.get("status")).get("binding")
    if isinstance(binding, dict):
        verify_binding(
            keyring, cluster=cluster, namespace=namespace, name=name, spec=spec, binding=binding
        )
    else:
        mark = str(json_object(metadata.get("annotations")).get(SEAL_ANNOTATION, ""))
        verify_seal(keyring, mark, namespace=namespace, name=name, spec=spec)
    if job is None:
        return
    uid = json_object(job.get("metadata")).get("uid")
    sealed = (json_object(spec.get("job")).get("uid"), asked_digest(spec))
    if sealed != (uid, job_digest(job)):
        raise UntrustedError(f"SealedRun {namespace}/{name} is of another job")
