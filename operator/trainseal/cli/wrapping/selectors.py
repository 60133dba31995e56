"""Placement that names pods by their labels: whether a run's pods still carry them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from trainseal.cli.wrapping.fields import Field
from trainseal.cli.wrapping.ledger import Ledger
from trainseal.engines.podtemplate import LABEL_JOB, LABEL_ROLE, LABEL_SEAL

_OF_EACH_RUN = frozenset(
    {LABEL_JOB, LABEL_ROLE, LABEL_SEAL, "batch.kubernetes.io/job-completion-index"}
)
_NAMED = ("labelSelector", "matchLabelKeys", "mismatchLabelKeys")


def check_selectors(spec: Field, labels: Collection[str], ledger: Ledger) -> None:
    """Says which labels a pod's placement asks of pods, and its own pods do not have."""
    for name in ("affinity", "topologySpreadConstraints"):
        found = spec.get(name)
        keys = dict.fromkeys(key for f in _selectors(found) for key in _keys(f)) if found else {}
        missing = [key for key in keys if key not in labels and key not in _OF_EACH_RUN]
        if missing and found is not None:
            ledger.guessed(
                found, f"{name} asks for pods with {', '.join(missing)}, which these do not have",
                f"if it means the run's own, ask for {LABEL_JOB} or {LABEL_ROLE}",
            )  # fmt: skip


def _selectors(field: Field) -> Iterator[Field]:
    for name, inner in field.entries():
        # Of namespaces and nodes the labels are others' to set.
        if name in _NAMED:
            yield inner
        elif name not in ("namespaceSelector", "nodeAffinity"):
            yield from _selectors(inner)
    for item in field.items():
        yield from _selectors(item)


def _keys(selector: Field) -> Iterator[str]:
    for item in selector.items():
        yield str(item.content)
    matched = selector.get("matchLabels")
    for key, _ in matched.entries() if matched else ():
        yield key
    expressions = selector.get("matchExpressions")
    for expression in expressions.items() if expressions else ():
        yield expression.text("key")
