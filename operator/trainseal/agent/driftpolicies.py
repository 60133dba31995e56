"""The part of ProvenancePolicies that is about drift, compiled whenever one changes.

Only that part: whether a trust root can be read changes nothing about exceptions, and the code
that reads them would cost each node a fifth of the agent's memory. A policy that cannot be read
excepts nothing, and as it may mean any namespace, nothing is excepted anywhere until it is mended.
"""

from __future__ import annotations

import fnmatch
import logging
from dataclasses import dataclass

from pydantic import ValidationError

from trainseal.api.model import JsonObject, json_object
from trainseal.api.policy import DriftRules, Namespaces
from trainseal.cluster.informer import Event
from trainseal.provenance.drift import CompiledDrift, PatternError, compile_drift

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Rules:
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    drift: CompiledDrift

    def mean(self, namespace: str) -> bool:
        return any(fnmatch.fnmatchcase(namespace, p) for p in self.include) and not any(
            fnmatch.fnmatchcase(namespace, p) for p in self.exclude
        )


_UNREADABLE = _Rules(("*",), (), CompiledDrift())


class DriftPolicies:
    """By namespace, always as of the last event."""

    def __init__(self) -> None:
        self._rules: dict[str, _Rules] = {}

    def on_policy(self, event: Event, key: tuple[str, str], obj: JsonObject) -> None:
        """Listener for ProvenancePolicies."""
        name = key[1]
        if event == "DELETED":
            self._rules.pop(name, None)
            return
        try:
            self._rules[name] = _read(json_object(obj.get("spec")))
        except (ValidationError, PatternError) as error:
            _log.error("ProvenancePolicy %s: nothing is excepted: %s", name, error)
            self._rules[name] = _UNREADABLE

    def for_namespace(self, namespace: str) -> tuple[CompiledDrift, ...]:
        """What the policies that mean a namespace say, in order of name."""
        return tuple(r.drift for _, r in sorted(self._rules.items()) if r.mean(namespace))


def what_is_needed_of_a_policy(policy: JsonObject) -> JsonObject:
    """Shape for the informer."""
    metadata, spec = json_object(policy.get("metadata")), json_object(policy.get("spec"))
    return {
        "metadata": {k: metadata.get(k) for k in ("name", "resourceVersion")},
        "spec": {k: spec[k] for k in ("namespaces", "drift") if k in spec},
    }


def _read(spec: JsonObject) -> _Rules:
    given = spec.get("namespaces")
    namespaces = None if given is None else Namespaces.model_validate(given)
    rules = None if spec.get("drift") is None else DriftRules.model_validate(spec["drift"])
    return _Rules(
        include=tuple((namespaces and namespaces.include) or ("*",)),
        exclude=tuple((namespaces and namespaces.exclude) or ()),
        drift=compile_drift(rules),
    )
