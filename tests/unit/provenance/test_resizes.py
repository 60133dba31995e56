"""What a resize changes of a pod: cpu and memory of its containers; and whether that is all."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from trainseal.api.accessrecord import ContainerSize
from trainseal.provenance.resizes import Size, resized, sizes, with_sealed_sizes, without_sizes

Object = dict[str, Any]
AMOUNTS = st.dictionaries(
    st.sampled_from(["cpu", "memory", "ephemeral-storage", "nvidia.com/gpu"]),
    st.sampled_from(["1", "2", "500m", "4Gi"]),
)
RESOURCES = st.fixed_dictionaries(
    {}, optional={"limits": AMOUNTS, "requests": AMOUNTS, "claims": st.just([{"name": "gpu"}])}
)


def pod(*resources: Object, **spec: Any) -> Object:
    """A trainer, then a sidecar; with these resources in order."""
    trainer, sidecar = (
        {"name": name, "image": "x", "resources": copy.deepcopy(asked)}
        for name, asked in zip(("trainer", "proxy"), (*resources, {}, {}), strict=False)
    )
    return {"spec": {"containers": [trainer], "initContainers": [sidecar], **spec}}


def test_each_container_that_asks_for_another_amount_is_told_with_all_of_its_amounts() -> None:
    had = {"limits": {"nvidia.com/gpu": "1", "memory": "4Gi"}, "requests": {"cpu": "1"}}
    wants = {"limits": {"nvidia.com/gpu": "1", "memory": "4Gi"}, "requests": {"cpu": "2"}}
    (size,) = resized(pod(had), pod(wants))
    assert size.wire() == {
        "container": "trainer",
        "limits": {"memory": "4Gi"},
        "requests": {"cpu": "2"},
    }
    assert [s.container for s in resized(pod(had), pod(wants, wants))] == ["proxy", "trainer"]
    assert resized(pod(had), pod(had)) == ()


def test_another_amount_of_anything_else_is_no_resize() -> None:
    one, two = ({"limits": {"nvidia.com/gpu": n}} for n in ("1", "2"))
    assert resized(pod(one), pod(two)) == ()
    assert without_sizes(pod(one)) != without_sizes(pod(two))


@given(RESOURCES)
def test_a_record_has_a_size_as_it_is(resources: Object) -> None:
    size = Size.of("trainer", resources)
    stored = ContainerSize.model_validate(size.wire()).wire()
    assert stored == size.wire()
    assert Size.of("trainer", stored) == size


@given(RESOURCES, RESOURCES)
def test_without_sizes_pods_are_the_same_that_differ_in_cpu_and_memory_alone(
    one: Object, other: Object
) -> None:
    def rest(resources: Object) -> Object:
        kept = {
            part: {k: v for k, v in resources.get(part, {}).items() if k not in ("cpu", "memory")}
            for part in ("limits", "requests")
        }
        return {"claims": resources.get("claims"), **kept}

    same = without_sizes(pod(one)) == without_sizes(pod(other))
    assert same is (rest(one) == rest(other))


@given(RESOURCES, RESOURCES)
def test_what_was_let_is_as_sealed_and_nothing_else_of_the_pod_changes(
    sealed: Object, now: Object
) -> None:
    before, live = sizes(pod(sealed)), pod(now, now, hostname="h")
    own = sizes(live)["trainer"]
    found = with_sealed_sizes(live, before, [own])
    assert sizes(found) == {"trainer": before["trainer"], "proxy": sizes(live)["proxy"]}
    assert without_sizes(found) == without_sizes(live)
    assert with_sealed_sizes(live, before, []) == live


def test_a_size_that_another_container_was_let_have_is_none_of_this_ones() -> None:
    sealed, live = sizes(pod()), pod({"limits": {"cpu": "2"}})
    other = Size.of("proxy", {"limits": {"cpu": "2"}})
    assert with_sealed_sizes(live, sealed, [other]) == live


def test_no_pod_that_is_asked_about_is_changed_itself() -> None:
    live = pod({"limits": {"cpu": "2"}})
    before = copy.deepcopy(live)
    without_sizes(live)
    with_sealed_sizes(live, sizes(pod()), [*sizes(live).values()])
    assert live == before
