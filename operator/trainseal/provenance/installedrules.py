"""What guards a cluster beside what the chart made of it: what somebody changed.

Webhook configurations, the policies of the floor, the roles of our processes and of people, and the
schemas of our kinds, with the rules in them. No admission guards the policies of the floor, and the
cluster's owner may change all of them; a change must at least show. The chart keeps a copy of what
it made in a ConfigMap; the schemas are those of the models.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import yaml
from pydantic import JsonValue

from trainseal.api.crd import all_crds
from trainseal.api.model import JsonObject, json_object

CONFIG_MAP = "trainseal-rules"
KEY = "rules.yaml"
CRD = "CustomResourceDefinition"
#: The kinds compared: their group, and their plural.
PLURALS = {
    "MutatingWebhookConfiguration": "mutatingwebhookconfigurations",
    "ValidatingWebhookConfiguration": "validatingwebhookconfigurations",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    CRD: "customresourcedefinitions",
}
_GROUPS = ("admissionregistration.k8s.io/", "rbac.authorization.k8s.io/", "apiextensions.k8s.io/")
#: Where such an object has its rules.
_PARTS = ("spec", "webhooks", "rules", "subjects", "roleRef")
#: What the API server adds where the chart says nothing, and that changes no rule.
_DEFAULTS: tuple[tuple[str, JsonValue], ...] = (
    ("matchPolicy", "Equivalent"),
    ("scope", "*"),
    ("conversion", {"strategy": "None"}),
)
_LONGEST = 80


@dataclass(frozen=True, slots=True)
class Rules:
    """One object, as the chart made it; ``namespace`` is None for one of the whole cluster."""

    kind: str
    name: str
    namespace: str | None
    api_version: str
    obj: JsonObject

    def differences(self, live: JsonObject) -> tuple[str, ...]:
        """What of its rules is otherwise: found and expected, in words."""
        return tuple(
            words
            for part in _PARTS
            for words in _differences(self.obj.get(part), live.get(part), part)
        )


def read(text: str) -> tuple[Rules, ...]:
    """The rules in the ConfigMap's text, and the kinds of this release. Raises yaml.YAMLError.

    Takes a third of a second the first time: nothing for an event loop.
    """
    objects = [json_object(document) for document in yaml.safe_load_all(text)]
    return tuple(
        _rules(obj)
        for obj in (*objects, *_kinds())
        if str(obj.get("apiVersion", "")).startswith(_GROUPS) and obj.get("kind") in PLURALS
    )


@functools.cache
def _kinds() -> tuple[JsonObject, ...]:
    """When first asked for: most of our processes' starts need no schemas."""
    return tuple(all_crds().values())


def _rules(obj: JsonObject) -> Rules:
    metadata = json_object(obj.get("metadata"))
    namespace = metadata.get("namespace")
    return Rules(
        str(obj.get("kind")),
        str(metadata.get("name", "")),
        namespace if isinstance(namespace, str) else None,
        str(obj.get("apiVersion", "")),
        obj,
    )


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
