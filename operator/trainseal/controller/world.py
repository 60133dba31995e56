"""What reconciling works with: the connection, the keys, the policies; and events for people."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import JsonValue

from trainseal.api.model import API_VERSION, JsonObject
from trainseal.cluster.api import ConflictError, Kube, KubeError, path_of
from trainseal.cluster.settings import Settings
from trainseal.controller.taintedvolumes import TaintedVolumes
from trainseal.provenance.keyrings import Keyring, rfc3339
from trainseal.provenance.keys import PrivateKey
from trainseal.provenance.policies import CompiledPolicy
from trainseal.verifier.jobs import JobVerifier
from trainseal.verifier.policystore import BrokenPolicy

_log = logging.getLogger(__name__)


async def no_queue(_namespace: str, _uid: str) -> str:
    """Where no queue asks us before it lets an object go."""
    return ""


@dataclass(frozen=True, slots=True)
class World:
    """Everything around a reconciliation; ``policies`` gives those of a namespace as of now.

    ``registry_ca`` is PEM text of the registries' authorities, for gates. ``volumes`` is fed by the
    watch of Checkpoints. ``kept_by`` says, of the object of a UID in a namespace, which queue's
    label it may bear though it must not run (``queueing``).
    """

    kube: Kube
    settings: Settings
    cluster: str
    seal_key: PrivateKey
    ticket_keyring: Callable[[], Keyring]
    seal_keyring: Callable[[], Keyring]
    policies: Callable[[str], tuple[CompiledPolicy, ...]]
    broken_policies: Callable[[], tuple[BrokenPolicy, ...]]
    verifier: JobVerifier
    clock: Callable[[], datetime]
    registry_ca: str = ""
    volumes: TaintedVolumes = field(default_factory=TaintedVolumes)
    kept_by: Callable[[str, str], Awaitable[str]] = no_queue

    async def event(
        self,
        job: Mapping[str, JsonValue],
        *,
        warning: bool,
        reason: str,
        message: str,
        occasion: str = "",
    ) -> None:
        """Tells of something in ``kubectl describe``; a courtesy, never evidence.

        The name follows from what is told, and on which occasion, so that telling it again tells
        it once.
        """
        metadata = job.get("metadata")
        meta: JsonObject = dict(metadata) if isinstance(metadata, dict) else {}
        namespace, name, uid = (str(meta.get(f, "")) for f in ("namespace", "name", "uid"))
        told = f"{uid}/{reason}/{message}/{occasion}"
        mark = hashlib.sha256(told.encode()).hexdigest()[:16]
        now = rfc3339(self.clock())
        body: JsonObject = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{name[:200]}.{mark}", "namespace": namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": "TrainingJob",
                "name": name,
                "namespace": namespace,
                "uid": uid,
            },
            "reason": reason,
            "message": message[:1024],
            "type": "Warning" if warning else "Normal",
            "source": {"component": "trainseal-controller"},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self.kube.create(path_of("v1", "events", namespace), body)
        except ConflictError:
            return
        except KubeError as error:
            _log.warning("event %s for %s/%s: %s", reason, namespace, name, error)
