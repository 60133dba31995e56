"""The cluster's policies, compiled once whenever one, or a trust root, changes.

A policy that cannot be compiled still applies: every job of its namespaces is denied with the
policy's error, because a broken lock is not an open door. Fed by two informers' listeners.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from trainseal.api.model import InvalidObjectError, JsonObject
from trainseal.api.trustroot import TrustRoot
from trainseal.cluster.informer import Event
from trainseal.provenance.canonical import CanonicalError, digest
from trainseal.provenance.policies import CompiledPolicy, PolicyError, compile_policy
from trainseal.provenance.trustroots import (
    TrustedRoot,
    TrustRootError,
    load_trusted_root,
    public_good_trusted_root,
)
from trainseal.registry.allowlist import InvalidPattern, Pattern

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BrokenPolicy:
    """A policy that exists and cannot be used, and why."""

    name: str
    why: str


class PolicyStore:
    """Policies by namespace, always as of the last event."""

    def __init__(self, changed: Callable[[], None] | None = None) -> None:
        self._changed = changed
        self._objects: dict[str, JsonObject] = {}
        self._roots: dict[str, tuple[str, TrustedRoot | str]] = {}
        self._compiled: dict[str, CompiledPolicy] = {}
        self._broken: dict[str, BrokenPolicy] = {}

    def on_policy(self, event: Event, key: tuple[str, str], obj: JsonObject) -> None:
        """Listener for ProvenancePolicies."""
        name = key[1]
        if event == "DELETED":
            self._objects.pop(name, None)
            self._compiled.pop(name, None)
            self._broken.pop(name, None)
        elif _spec(self._objects.get(name)) != _spec(obj) or name not in self._objects:
            # What the controller wrote of it decides nothing, nor may it break the policy.
            self._objects[name] = {key: value for key, value in obj.items() if key != "status"}
            self._compile(name)
        else:
            return
        self._tell()

    def on_trust_root(self, event: Event, key: tuple[str, str], obj: JsonObject) -> None:
        """Listener for TrustRoots: every policy is compiled anew."""
        name = key[1]
        if event == "DELETED":
            self._roots.pop(name, None)
        else:
            loaded = load_root(obj)
            if self._roots.get(name, ("", ""))[0] == loaded[0]:
                return
            self._roots[name] = loaded
        for policy in self._objects:
            self._compile(policy)
        self._tell()

    def for_namespace(self, namespace: str) -> tuple[CompiledPolicy, ...]:
        """The policies that apply to a namespace, in order of name."""
        return tuple(p for _, p in sorted(self._compiled.items()) if p.applies_to(namespace))

    @property
    def policies(self) -> tuple[CompiledPolicy, ...]:
        """Every policy that can be used, in order of name."""
        return tuple(p for _, p in sorted(self._compiled.items()))

    @property
    def broken(self) -> tuple[BrokenPolicy, ...]:
        """Policies that cannot be used; which namespaces they mean cannot be told for sure."""
        return tuple(b for _, b in sorted(self._broken.items()))

    @property
    def trust_roots(self) -> Mapping[str, tuple[str, TrustedRoot | str]]:
        """Trust roots by name: digest, and the root or why it cannot be read."""
        return self._roots

    def _compile(self, name: str) -> None:
        try:
            self._compiled[name] = compile_checked(self._objects[name], self._roots)
            self._broken.pop(name, None)
        except Exception as error:  # noqa: BLE001 - whatever it was, the policy still applies
            _log.error("ProvenancePolicy %s cannot be used: %s", name, error)
            self._compiled.pop(name, None)
            self._broken[name] = BrokenPolicy(name, str(error))

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed()


def compile_checked(
    obj: Mapping[str, JsonValue], roots: Mapping[str, tuple[str, TrustedRoot | str]]
) -> CompiledPolicy:
    """Compiles a policy, its allow-list patterns too. Raises InvalidObjectError, PolicyError."""
    policy = compile_policy(obj, roots)
    for index, text in enumerate(policy.registries):
        try:
            Pattern.parse(text)
        except InvalidPattern as error:
            raise PolicyError(f"spec.registries.allow[{index}]: {error}") from None
    return policy


def load_root(obj: Mapping[str, JsonValue]) -> tuple[str, TrustedRoot | str]:
    """A TrustRoot object's digest, and its root or the words why it cannot be read."""
    try:
        root = TrustRoot.parse({key: value for key, value in obj.items() if key != "status"})
        found = digest(obj.get("spec"))
        if root.spec.trusted_root is None:
            return found, public_good_trusted_root()
        return found, load_trusted_root(json.dumps(root.spec.trusted_root))
    except (InvalidObjectError, TrustRootError, CanonicalError) as error:
        metadata = obj.get("metadata")
        name = metadata.get("name") if isinstance(metadata, Mapping) else "?"
        return "", f"TrustRoot {name} cannot be used: {error}"


def _spec(obj: JsonObject | None) -> JsonValue:
    return obj.get("spec") if obj else None
