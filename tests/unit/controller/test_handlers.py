"""What the controller watches tells its queues, in the loop that they belong to."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import cast

import kopf
import pytest

from trainseal.controller.handlers import OWNED, registry, roots, settings


def test_every_handler_is_called_in_our_own_loop() -> None:
    """kopf calls a plain function in a thread, from which no queue may be touched."""

    def tell(namespace: str, name: str, obj: object, *, gone: bool) -> None:
        raise AssertionError(namespace, name, obj, gone)

    handlers = list(registry(tell)._watching.get_all_handlers())
    assert len(handlers) == 6
    for handler in handlers:
        assert inspect.iscoroutinefunction(handler.fn), handler.id


@pytest.mark.parametrize("kind", OWNED)
def test_the_api_server_is_asked_only_for_the_objects_that_bear_our_label(
    kind: tuple[str, str, str],
) -> None:
    """Else every ConfigMap of the cluster is streamed, and a label's end is heard by nobody."""
    selectors = settings().watching.label_selectors
    assert selectors.collect(kopf.Resource(*kind)) == ["trainseal.dev/job"]


@pytest.mark.parametrize("plural", ["trainingjobs", "sealedruns"])
def test_our_own_kinds_are_watched_whatever_their_labels(plural: str) -> None:
    found = settings().watching.label_selectors.collect(
        kopf.Resource("trainseal.dev", "v1alpha1", plural)
    )
    assert found == []


def test_an_object_that_lost_its_label_is_one_that_is_gone() -> None:
    """As the API server then tells it: DELETED, with the label that it had."""
    told: list[tuple[str, str, bool]] = []

    def tell(namespace: str, name: str, obj: object, *, gone: bool) -> None:
        assert obj == {}
        told.append((namespace, name, gone))

    handlers = registry(tell)
    (heard,) = [
        h.fn for h in handlers._watching.get_all_handlers() if "networkpolicies" in str(h.selector)
    ]
    labels = {"trainseal.dev/job": "char-lm"}
    call = cast("Callable[..., Coroutine[None, None, None]]", heard)
    event = {"type": "DELETED", "object": {}}
    asyncio.run(call(namespace="research", labels=labels, event=event))
    assert told == [("research", "char-lm", True)]


def test_what_there_is_at_the_start_is_listed_in_pages() -> None:
    """kopf would hold thousands of seals and Jobs at once, whole."""
    chunk = settings().watching.chunk_size
    assert chunk is not None
    assert chunk <= 100


def test_what_another_engine_runs_is_watched_only_where_it_is_enabled() -> None:
    """kopf would look for a kind that is not there."""
    kind = ("jobset.x-k8s.io", "v1alpha2", "jobsets")
    assert roots(("Job",)) == ()
    assert roots(("Job", "JobSet")) == (kind,)
    selectors = settings(("Job", "JobSet")).watching.label_selectors
    assert selectors.collect(kopf.Resource(*kind)) == ["trainseal.dev/job"]
    assert settings().watching.label_selectors.collect(kopf.Resource(*kind)) == []
    assert roots(("Job", "PyTorchJob")) == (("kubeflow.org", "v1", "pytorchjobs"),)
