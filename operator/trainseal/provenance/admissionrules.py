"""The admission rules of a cluster beside those that the chart made: what somebody changed.

No admission guards the policies of the floor, and the owner of the webhook configurations may
change them; a change must at least show. The chart keeps a copy of what it made in a ConfigMap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import yaml
from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object

GROUP = "admissionregistration.k8s.io/"
CONFIG_MAP = "trainseal-admission"
KEY = "rules.yaml"
PLURALS = {
    "MutatingWebhookConfiguration": "mutatingwebhookconfigurations",
    "ValidatingWebhookConfiguration": "validatingwebhookconfigurations",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}
#: What the API server adds where the chart says nothing, and that changes no rule.
_DEFAULTS: tuple[tuple[str, JsonValue], ...] = (("matchPolicy", "Equivalent"), ("scope", "*"))
_LONGEST = 80


@dataclass(frozen=True, slots=True)
class Rules:
    """One object of the admissionregistration group, as the chart made it."""

    kind: str
    name: str
    api_version: str
    obj: JsonObject

    def differences(self, live: JsonObject) -> tuple[str, ...]:
        """What of its rules is otherwise: found and expected, in words."""
        return tuple(
            words
            for part in ("spec", "webhooks")
            for words in _differences(self.obj.get(part), live.get(part), part)
        )


def read(text: str) -> tuple[Rules, ...]:
    """The rules in the ConfigMap's text. Raises yaml.YAMLError."""
    found = []
    for document in yaml.safe_load_all(text):
        obj = json_object(document)
        api_version, kind = str(obj.get("apiVersion", "")), str(obj.get("kind", ""))
        if api_version.startswith(GROUP) and kind in PLURALS:
            name = str(json_object(obj.get("metadata")).get("name", ""))
            found.append(Rules(kind, name, api_version, obj))
    return tuple(found)


def _differences(wanted: JsonValue, found: JsonValue, path: str) -> Iterator[str]:
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key, value in wanted.items():
            yield from _differences(value, found.get(key), f"{path}.{key}")
        for key in sorted(found.keys() - wanted.keys()):
            # A certificate authority is the controller's to fill in.
            if key != "caBundle" and found[key] and (key, found[key]) not in _DEFAULTS:
                yield f"{path}.{key}: found {_short(found[key])}, expected nothing"
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for number, (one, other) in enumerate(zip(wanted, found, strict=True)):
            yield from _differences(one, other, f"{path}[{number}]")
    elif wanted != found and (wanted or found):
        yield f"{path}: found {_short(found)}, expected {_short(wanted)}"


def _short(value: JsonValue) -> str:
    if value is None:
        return "nothing"
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
