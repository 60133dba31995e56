"""What the webhook knows: policies, seals, keys and certificate, kept current by watches."""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import ssl
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from cryptography import x509
from prometheus_client import Gauge

from trainseal.admission.bindingwaits import BindingWaits
from trainseal.admission.permits import Permits, kept
from trainseal.admission.sealindex import SealIndex, what_counts
from trainseal.api import breakglass
from trainseal.api.model import API_VERSION, JsonObject
from trainseal.cluster.api import Kube, KubeError, NotFoundError, path_of
from trainseal.cluster.informer import Event, Informer, Listener
from trainseal.cluster.keys import private_key_of, read_keyring
from trainseal.cluster.settings import KEYRING_CONFIG_MAP, TICKET_KEY_SECRET
from trainseal.provenance.keyrings import Keyring, UntrustedError
from trainseal.provenance.keys import KeyFormatError, PrivateKey
from trainseal.verifier.policystore import PolicyStore

_EXPIRY = Gauge(
    "trainseal_certificate_expiry_timestamp_seconds",
    "When the certificate that this replica serves with ends, as Unix time.",
)
_log = logging.getLogger(__name__)
#: A seal is read for a pod at most this often, and so many at once: a flood reads little.
_LOOK_AGAIN_SECONDS = 0.5
_LOOK_SECONDS = 2.0
_MOST_LOOKS = 8
_NAME = re.compile(r"[a-z0-9][-.a-z0-9]{0,252}")


class State:
    """Everything the answers depend on; ``run`` keeps it current until cancelled."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        tls_secret: str,
        cluster: str,
        now: Callable[[], datetime],
    ) -> None:
        self._kube = kube
        self.policies = PolicyStore()
        self.permits = Permits(now)
        self.seals = SealIndex(cluster)
        self.bindings = BindingWaits(self.seals, self.look)
        self.ticket_key: PrivateKey | None = None
        self.tickets: Keyring = {}
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self.draining = False
        self._has_certificate = False
        self._has_keyring = False
        self._looks: dict[tuple[str, str], asyncio.Task[bool]] = {}
        self._looked: dict[tuple[str, str], tuple[float, bool]] = {}
        secrets = path_of("v1", "secrets", namespace)

        def named(path: str, name: str, listener: Listener) -> Informer:
            return Informer(
                kube,
                path,
                listener=listener,
                query={"fieldSelector": f"metadata.name={name}"},
            )

        self._informers = {
            "trust roots": Informer(
                kube, path_of(API_VERSION, "trustroots"), listener=self.policies.on_trust_root
            ),
            "policies": Informer(
                kube, path_of(API_VERSION, "provenancepolicies"), listener=self.policies.on_policy
            ),
            "seals": Informer(
                kube,
                path_of(API_VERSION, "sealedruns"),
                listener=self.bindings.on_seal,
                shape=what_counts,
            ),
            "break glasses": Informer(
                kube,
                path_of(API_VERSION, breakglass.PLURAL),
                listener=self.permits.listen,
                shape=kept,
            ),
            "keyring": named(
                path_of("v1", "configmaps", namespace), KEYRING_CONFIG_MAP, self._on_keyring
            ),
            "ticket key": named(secrets, TICKET_KEY_SECRET, self._on_ticket_key),
            "certificate": named(secrets, tls_secret, self._on_certificate),
        }

    async def run(self) -> None:
        """Watches for ever."""
        async with asyncio.TaskGroup() as group:
            for name, informer in self._informers.items():
                group.create_task(informer.run() if name != "seals" else self._follow_seals())

    async def _follow_seals(self) -> None:
        """Once the keyring was read: seals that came first would all be verified twice."""
        await self._informers["keyring"].synced.wait()
        await self._informers["seals"].run()

    def missing(self) -> str:
        """What the webhook still waits for, in words; empty when it can answer."""
        if self.draining:
            return "draining"
        waiting = [name for name, i in self._informers.items() if not i.synced.is_set()]
        if not self._has_certificate:
            waiting.append("a serving certificate")
        if self.ticket_key is None:
            waiting.append("the ticket key")
        if not self._has_keyring:
            waiting.append("the keyring")
        return ", ".join(dict.fromkeys(waiting))

    async def look(self, namespace: str, name: str) -> bool:
        """Reads one seal, for a pod that was faster than the watch; whether that is known now.

        The name is the pod's own word and decides only what is read: a seal counts by its binding.
        One read at a time for a seal, not more often than twice a second, eight at once, within
        2 s; beyond that nothing is read.
        """
        if not (_NAME.fullmatch(namespace) and _NAME.fullmatch(name)):
            return True
        key = (namespace, name)
        task = self._looks.get(key)
        if task is None:
            last, known = self._looked.get(key, (None, False))
            if last is not None and time.monotonic() - last < _LOOK_AGAIN_SECONDS:
                return known
            if len(self._looks) >= _MOST_LOOKS:
                return False
            task = asyncio.ensure_future(self._read(key))
            self._looks[key] = task
            task.add_done_callback(lambda _: self._looks.pop(key, None))
        return await asyncio.shield(task)

    async def _read(self, key: tuple[str, str]) -> bool:
        namespace, name = key
        known = False
        try:
            seal = await self._kube.get(
                path_of(API_VERSION, "sealedruns", namespace, name), seconds=_LOOK_SECONDS
            )
            self.bindings.on_seal("MODIFIED", key, what_counts(seal))
            known = True
        except NotFoundError:
            known = True
        except KubeError as error:
            _log.warning("looking for SealedRun %s/%s: %s", namespace, name, error)
        finally:
            if len(self._looked) > 10_000:
                self._looked.clear()
            self._looked[key] = (time.monotonic(), known)
        return known

    def _on_keyring(self, event: Event, _key: tuple[str, str], obj: JsonObject) -> None:
        if event == "DELETED":
            return  # the last known keyring stands: losing it would stop every run
        try:
            self.tickets = read_keyring(obj, "ticket")
            self.seals.use_keyring(read_keyring(obj, "seal"))
            self._has_keyring = True
        except UntrustedError as error:
            _log.error("keyring: %s", error)

    def _on_ticket_key(self, event: Event, _key: tuple[str, str], obj: JsonObject) -> None:
        if event == "DELETED":
            return
        try:
            self.ticket_key = private_key_of(obj)
        except (KeyFormatError, ValueError) as error:
            _log.error("ticket key: %s", error)

    def _on_certificate(self, event: Event, _key: tuple[str, str], obj: JsonObject) -> None:
        if event == "DELETED":
            return
        data = obj.get("data")
        try:
            if not isinstance(data, dict):
                raise ValueError("the Secret is empty")
            chain = base64.b64decode(str(data["tls.crt"]), validate=True)
            key = base64.b64decode(str(data["tls.key"]), validate=True)
            _load(self.tls, chain, key)
            _EXPIRY.set(x509.load_pem_x509_certificate(chain).not_valid_after_utc.timestamp())
            self._has_certificate = True
            _log.info("serving certificate loaded")
        except (ssl.SSLError, KeyError, ValueError) as error:
            _log.error("serving certificate: %s: %s", type(error).__name__, error)


def _load(context: ssl.SSLContext, chain: bytes, key: bytes) -> None:
    """Takes a new certificate into a living context: connections made from now on use it.

    The standard library reads certificates from files only; the file lives in memory (/tmp is an
    emptyDir, or memory) for the length of this call, readable by this process alone.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pair.pem"
        path.touch(mode=0o600)
        path.write_bytes(chain + b"\n" + key)
        # Loaded into a probe first: a bad pair must not spoil the context that serves.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path)
        context.load_cert_chain(path)
