"""What changed in a template: all of it, the weightiest first, and bounds with their direction."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit import world
from tests.unit.leaves import leaves, place
from trainseal.api.trainingtemplate import Parameter
from trainseal.provenance.canonical import TEMPLATE_KIND, canonical_form
from trainseal.provenance.templatechanges import WEIGHTS, Change, changes
from trainseal.provenance.templates import admits

Object = dict[str, Any]
Do = Callable[[Object], object]
CONTAINER = "spec.job.roles[worker].template.spec.containers[trainer]"


def form(template: Object) -> Object:
    found: Object = json.loads(canonical_form(template, TEMPLATE_KIND))
    return found


def changed(change: Do) -> tuple[Change, ...]:
    old, new = world.template_object(), world.template_object()
    change(new)
    return changes(form(old), form(new))


def container(template: Object) -> Object:
    found: Object = template["spec"]["job"]["roles"][0]["template"]["spec"]["containers"][0]
    return found


def one(change: Do) -> tuple[str, str, str | None]:
    (found,) = changed(change)
    return found.weight, found.path, found.effect


def test_the_same_template_has_no_changes() -> None:
    assert changed(lambda _: None) == ()


def test_what_is_not_signed_is_no_change() -> None:
    def other(template: Object) -> None:
        world.sign_template(template, world.ALICE)
        template["spec"]["revoked"] = {"reason": "over"}
        template["metadata"]["labels"] = {"team": "research"}

    assert changed(other) == ()


def test_order_of_keys_and_spelling_of_numbers_are_no_change() -> None:
    def other(template: Object) -> None:
        spec = template["spec"]
        spec["job"] = dict(reversed(spec["job"].items()))
        spec["job"]["config"]["parameters"]["steps"] = 2000.0

    assert changed(other) == ()


@pytest.mark.parametrize(
    ("change", "weight", "path", "effect"),
    [
        (lambda t: t["spec"]["launch"]["requesters"].append({"user": "mallory"}),
         "launch", "spec.launch.requesters", "wider"),
        (lambda t: t["spec"]["launch"]["requesters"].pop(),
         "launch", "spec.launch.requesters", "narrower"),
        (lambda t: t["spec"]["launch"]["requesters"].reverse(),
         "launch", "spec.launch.requesters", "same"),
        (lambda t: t["spec"]["launch"].update(maxConcurrent=4),
         "launch", "spec.launch.maxConcurrent", "narrower"),
        (lambda t: t["spec"]["launch"].update(notAfter="2027-01-01T00:00:00Z"),
         "launch", "spec.launch.notAfter", "narrower"),
        (lambda t: t["spec"]["job"].update(validity={"cluster": "uid"}),
         "launch", "spec.job.validity.cluster", "narrower"),
        (lambda t: t["spec"]["parameters"].pop("amp"),
         "bounds", "spec.parameters[amp]", "narrower"),
        (lambda t: t["spec"]["parameters"].update(steps={"type": "integer", "enum": [2000]}),
         "bounds", "spec.parameters[steps]", "wider"),
        (lambda t: t["spec"]["replicas"].update(worker={"min": 1, "max": 9}),
         "bounds", "spec.replicas[worker]", "wider"),
        (lambda t: t["spec"]["replicas"].update(worker={"min": 2, "max": 8}),
         "bounds", "spec.replicas[worker]", "narrower"),
        (lambda t: t["spec"]["replicas"].update(worker={"min": 2, "max": 9}),
         "bounds", "spec.replicas[worker]", "different"),
        (lambda t: t["spec"].pop("replicas"), "bounds", "spec.replicas[worker]", "narrower"),
        (lambda t: t["spec"].update(resume={"mountPath": "/resumed"}),
         "bounds", "spec.resume", "wider"),
        (lambda t: t["spec"].pop("code"), "bounds", "spec.code[trainer]", "narrower"),
        (lambda t: t["spec"]["code"]["trainer"].update(authority="mallory"),
         "bounds", "spec.code[trainer]", "different"),
        (lambda t: t["spec"]["job"]["code"][0]["oci"].update(reference="x"),
         "references", "spec.job.code[trainer].oci.reference", None),
        (lambda t: container(t).update(image="x"), "references", f"{CONTAINER}.image", None),
        (lambda t: container(t)["command"].append("--debug"),
         "commands", f"{CONTAINER}.command", None),
        (lambda t: container(t)["args"].pop(), "commands", f"{CONTAINER}.args", None),
        (lambda t: container(t).update(lifecycle={"preStop": {"exec": {"command": ["x"]}}}),
         "commands", f"{CONTAINER}.lifecycle.preStop.exec.command", None),
        (lambda t: container(t)["env"][0].update(value="8"),
         "environment", f"{CONTAINER}.env[OMP_NUM_THREADS].value", None),
        (lambda t: container(t)["env"].reverse(), "environment", f"{CONTAINER}.env", None),
        (lambda t: t["spec"]["job"]["config"]["parameters"].update(steps=1),
         "rest", "spec.job.config.parameters.steps", None),
        (lambda t: t["metadata"].update(name="pretrain-v8"), "rest", "metadata.name", None),
        (lambda t: container(t).update(tty=True), "rest", f"{CONTAINER}.tty", None),
        (lambda t: container(t).update(stdin={}), "rest", f"{CONTAINER}.stdin", None),
    ],
)  # fmt: skip
def test_a_change_has_its_weight_its_place_and_its_direction(
    change: Do, weight: str, path: str, effect: str | None
) -> None:
    assert one(change) == (weight, path, effect)


@pytest.mark.parametrize(
    ("before", "after", "effect"),
    [
        ("2027-01-01T00:00:00Z", "2027-01-02T00:00:00Z", "wider"),
        ("2027-01-02T00:00:00Z", "2027-01-01T00:00:00Z", "narrower"),
        ("2027-01-01T00:00:00Z", "2027-01-01T01:00:00+01:00", "same"),
        ("2027-01-01T00:00:00Z", "soon", "different"),
    ],
)
def test_an_end_that_is_later_is_wider(before: str, after: str, effect: str) -> None:
    old, new = world.template_object(), world.template_object()
    old["spec"]["launch"]["notAfter"], new["spec"]["launch"]["notAfter"] = before, after
    assert [c.effect for c in changes(form(old), form(new))] == [effect]


def test_a_requester_that_takes_anothers_place_is_one_more_and_one_less() -> None:
    found = changed(lambda t: t["spec"]["launch"]["requesters"][0].update(user="mallory"))
    assert [(c.effect, c.before, c.after) for c in found] == [
        ("narrower", {"user": "bob@example.org"}, None),
        ("wider", None, {"user": "mallory"}),
    ]


def test_a_container_that_is_added_is_told_by_its_parts() -> None:
    def other(template: Object) -> None:
        pod = template["spec"]["job"]["roles"][0]["template"]["spec"]
        env = [{"name": "X", "value": "1"}]
        pod["containers"].append({"name": "side", "image": "x", "command": ["y"], "env": env})

    at = CONTAINER.replace("trainer", "side")
    assert [(c.weight, c.path, c.before, c.after) for c in changed(other)] == [
        ("references", f"{at}.image", None, "x"),
        ("commands", f"{at}.command", None, ["y"]),
        ("environment", f"{at}.env[X].name", None, "X"),
        ("environment", f"{at}.env[X].value", None, "1"),
        ("rest", f"{at}.name", None, "side"),
    ]


def test_the_weightiest_come_first() -> None:
    def other(template: Object) -> None:
        container(template).update(tty=True, image="x", command=["y"], env=[])
        template["spec"]["replicas"]["worker"]["max"] = 9
        template["spec"]["launch"]["requesters"].append({"user": "mallory"})

    found = [WEIGHTS.index(c.weight) for c in changed(other)]
    assert found == sorted(found)
    assert set(found) == set(range(len(WEIGHTS)))


def other_value(value: Any) -> Any:
    if isinstance(value, bool):
        return 1 if value else 0
    return f"{value}x" if isinstance(value, str) else value + 1 if value != [] else [1]


SIGNED = [p for p in leaves(form(world.template_object())) if p[0] in ("spec", "metadata")]


@pytest.mark.parametrize("path", SIGNED, ids=str)
def test_no_field_changes_unseen(path: Any) -> None:
    old = form(world.template_object())
    new = copy.deepcopy(old)
    at = place(new, path)
    at[path[-1]] = other_value(at[path[-1]])
    assert changes(old, new)
    assert changes(new, old)
    del at[path[-1]]
    assert changes(old, new)
    assert changes(new, old)


JSON = st.recursive(
    st.booleans() | st.integers(0, 2) | st.sampled_from(["", "a", "name"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "mountPath", "env", "spec"]), inner, max_size=3)
    ),
    max_leaves=8,
)
WAYS = st.sampled_from(
    ["spec", "launch", "requesters", "parameters", "job", "roles", "containers", "validity", "code",
     "notAfter", "maxConcurrent", "replicas", "cluster"]
)  # fmt: skip
TREES = st.recursive(JSON, lambda inner: st.dictionaries(WAYS, inner, max_size=3), max_leaves=8)


@given(st.dictionaries(WAYS, TREES, max_size=3), st.dictionaries(WAYS, TREES, max_size=3))
def test_there_is_a_change_exactly_where_two_differ(old: Object, new: Object) -> None:
    differ = json.dumps(old, sort_keys=True) != json.dumps(new, sort_keys=True)
    assert bool(changes(old, new)) == differ
    assert not changes(old, copy.deepcopy(old))


# Which way a parameter's bounds went -----------------------------------------------------------

NUMBERS = st.integers(-4, 70) | st.sampled_from([0.5, 1.5, -0.25])
PARAMETERS = st.one_of(
    st.just({"type": "boolean"}),
    st.builds(lambda e: {"type": "boolean", "enum": e}, st.lists(st.booleans(), min_size=1)),
    st.builds(
        lambda kind, pair: {"type": kind, "minimum": min(pair), "maximum": max(pair)},
        st.sampled_from(["integer", "number"]),
        st.tuples(NUMBERS, NUMBERS),
    ),
    st.builds(lambda e: {"type": "integer", "enum": e}, st.lists(st.integers(-4, 4), min_size=1)),
    st.builds(lambda e: {"type": "number", "enum": e}, st.lists(NUMBERS, min_size=1)),
    st.builds(lambda n: {"type": "string", "maxLength": n}, st.integers(1, 4)),
    st.builds(
        lambda e: {"type": "string", "enum": e},
        st.lists(st.sampled_from(["a", "ab", "a/b", "abcde"]), min_size=1),
    ),
)
#: Of each set that differs from another above, one value at least by which it does.
WITNESSES: list[Any] = [
    True, False, "a", "ab", "a/b", "abcde", "z", "zz", "zzz", "zzzz", *range(-5, 72),
    *(n + f for n in range(-5, 72) for f in (0.01, 0.25, 0.5, 0.75, 0.9)),
]  # fmt: skip


@given(PARAMETERS, PARAMETERS)
@example(
    {"type": "integer", "minimum": -0.25, "maximum": 70.5},
    {"type": "integer", "minimum": 0, "maximum": 70},
)
@example({"type": "integer", "minimum": 1, "maximum": 3}, {"type": "integer", "enum": [3, 2, 1]})
def test_wider_is_what_admits_all_that_it_did_and_more(old: Object, new: Object) -> None:
    found = changes({"spec": {"parameters": {"p": old}}}, {"spec": {"parameters": {"p": new}}})
    if json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True):
        assert found == ()
        return
    before, after = Parameter.model_validate(old), Parameter.model_validate(new)
    # By their places: Python holds True and 1 for equal.
    was, now = ({n for n, w in enumerate(WITNESSES) if admits(p, w)} for p in (before, after))
    kept, added = was <= now, now <= was
    words = {(True, True): "same", (True, False): "wider", (False, True): "narrower"}
    assert [c.effect for c in found] == [words.get((kept, added), "different")]
