"""Label selectors as Kubernetes matches them: which pods does one choose, or may it choose. Pure.

The rules, in order:

1. A selector is its requirements, all of which must hold. One without any chooses everything.
2. ``In`` and ``Exists`` want the label to be there. ``NotIn`` and ``DoesNotExist`` hold of whoever
   does not have it.
3. A label whose value is not known (whoever has it may give it to a pod, or the cluster will) holds
   any requirement: who asks what may be chosen must not be told no by a guess. An operator that is
   none of the four is taken likewise.

Laws: with nothing unknown, a pod is chosen where ``kubectl get -l`` shows it; what is chosen with
labels known is chosen with any of them unknown.

Sources: k8s.io/apimachinery pkg/labels/selector.go (Requirement.Matches), pkg/apis/meta/v1
helpers.go (LabelSelectorAsSelector).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from trainseal.provenance.differences import Json, mapping, objects, strings

#: Whether a label's value is not known.
Unknown = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Requirement:
    """One of a selector's; ``values`` is empty where the operator takes none."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether it does of these labels."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels
        return True


def _known(_: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Selector:
    """All of its requirements together."""

    requirements: tuple[Requirement, ...] = ()

    def chooses(self, labels: Mapping[str, str], unknown: Unknown = _known) -> bool:
        """Whether it chooses, or may choose, what has these labels."""
        return all(unknown(r.key) or r.holds(labels) for r in self.requirements)


EVERYTHING = Selector()


def equal_to(labels: JsonValue) -> Selector:
    """A Service's selector, or ``matchLabels``: each label with its value."""
    return Selector(
        tuple(
            Requirement(key, "In", frozenset({value}))
            for key, value in sorted(strings(labels).items())
        )
    )


def label_selector(selector: Json) -> Selector:
    """A LabelSelector (meta/v1): ``matchLabels`` and ``matchExpressions``."""
    expressions = (
        Requirement(
            str(e.get("key")),
            str(e.get("operator")),
            frozenset(str(v) for v in values) if isinstance(values, list) else frozenset(),
        )
        for e in objects(mapping(selector).get("matchExpressions"))
        for values in (e.get("values"),)
    )
    return Selector((*equal_to(mapping(selector).get("matchLabels")).requirements, *expressions))
