"""The operator's keys as the cluster keeps them: private halves in Secrets, a public keyring.

The controller makes what is missing and never replaces what is there; so a restart, a second
replica or a reinstall keep the keys. The keyring (a ConfigMap outside workload namespaces) lists
public halves with their validity; the webhook reads it, and nobody but the controller writes it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Literal

import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import JsonValue

from trainseal.api.model import JsonObject
from trainseal.cluster.api import ConflictError, Kube, NotFoundError, path_of
from trainseal.cluster.settings import KEYRING_CONFIG_MAP
from trainseal.provenance.keyfiles import load_private_key
from trainseal.provenance.keyrings import Keyring, KeyringEntry, UntrustedError, read_time, rfc3339
from trainseal.provenance.keys import KeyFormatError, PrivateKey, load_public_key

Purpose = Literal["seal", "ticket", "output"]
KEY_FIELD = "key.pem"
_KEYS_FIELD = "keys.yaml"
MAX_KEYS = 256
#: The webhook's clock may be behind the controller's, which writes when a key begins to count.
CLOCK_SKEW = timedelta(minutes=10)


def new_key_pem() -> bytes:
    """A new Ed25519 private key as PKCS#8 PEM."""
    return Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )


def new_output_key_pem() -> bytes:
    """A new ECDSA P-256 private key as PKCS#8 PEM: of a kind that ``model_signing`` reads."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )


def private_key_of(secret: Mapping[str, JsonValue]) -> PrivateKey:
    """The key in a Secret; raises KeyFormatError without showing a byte of it."""
    data = secret.get("data")
    encoded = data.get(KEY_FIELD) if isinstance(data, Mapping) else None
    if not isinstance(encoded, str):
        raise KeyFormatError(f"the Secret has no {KEY_FIELD}")
    return load_private_key(base64.b64decode(encoded))


async def ensure_private_key(
    kube: Kube, namespace: str, name: str, make: Callable[[], bytes] = new_key_pem
) -> PrivateKey:
    """The key in a Secret of ours, made if it is missing; whoever is first wins."""
    path = path_of("v1", "secrets", namespace)
    try:
        return private_key_of(await kube.get(f"{path}/{name}"))
    except NotFoundError:
        pass
    secret: JsonObject = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/part-of": "trainseal"},
        },
        "type": "Opaque",
        "data": {KEY_FIELD: base64.b64encode(make()).decode()},
    }
    try:
        return private_key_of(await kube.create(path, secret))
    except ConflictError:
        return private_key_of(await kube.get(f"{path}/{name}"))


def read_keyring(config_map: Mapping[str, JsonValue], purpose: Purpose | None = None) -> Keyring:
    """The public keys of one purpose; raises UntrustedError where the ConfigMap is malformed.

    Purposes are kept apart, so that whoever holds the webhook's ticket key cannot sign a seal.
    """
    data = config_map.get("data")
    text = data.get(_KEYS_FIELD, "") if isinstance(data, Mapping) else ""
    try:
        entries = yaml.safe_load(str(text)) or []
    except yaml.YAMLError as error:
        raise UntrustedError(f"the keyring is not YAML: {error}") from None
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise UntrustedError(f"the keyring is not a list of at most {MAX_KEYS} keys")
    ring: dict[str, KeyringEntry] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            raise UntrustedError("an entry of the keyring is not an object")
        if purpose is not None and entry.get("purpose") != purpose:
            continue
        try:
            key = load_public_key(str(entry.get("publicKey")))
        except KeyFormatError as error:
            raise UntrustedError(f"the keyring holds a key that cannot be read: {error}") from None
        until = entry.get("notAfter")
        ring[key.id] = KeyringEntry(
            key,
            read_time(str(entry.get("notBefore"))),
            read_time(str(until)) if until else None,
        )
    return ring


async def ensure_in_keyring(
    kube: Kube, namespace: str, keys: Mapping[Purpose, PrivateKey], now: datetime
) -> Keyring:
    """Adds the public halves (by purpose) that are missing; keeps the rest. Returns all."""
    collection = path_of("v1", "configmaps", namespace)
    path = f"{collection}/{KEYRING_CONFIG_MAP}"
    while True:
        try:
            found = await kube.get(path)
        except NotFoundError:
            found = {}
        ring = read_keyring(found)
        missing = {purpose: key for purpose, key in keys.items() if key.public.id not in ring}
        if not missing:
            return ring
        data = found.get("data")
        text = str(data.get(_KEYS_FIELD, "")) if isinstance(data, dict) else ""
        entries = yaml.safe_load(text) or []
        entries += [
            {
                "keyID": key.public.id,
                "purpose": purpose,
                "notBefore": rfc3339(now - CLOCK_SKEW),
                "publicKey": key.public.pem,
            }
            for purpose, key in missing.items()
        ]
        metadata = found.get("metadata")
        wanted: JsonObject = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata
            if isinstance(metadata, dict)
            else {
                "name": KEYRING_CONFIG_MAP,
                "namespace": namespace,
                "labels": {"app.kubernetes.io/part-of": "trainseal"},
            },
            "data": {_KEYS_FIELD: yaml.safe_dump(entries, sort_keys=False)},
        }
        try:
            if found:
                await kube.replace(path, wanted)
            else:
                await kube.create(collection, wanted)
        except ConflictError:
            continue
