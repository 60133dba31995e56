"""What a request on a pod asks for, and the record that says so."""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit import world
from trainseal.admission.accessrequests import Access, OddRequestError, read_access, record
from trainseal.admission.reviews import Request
from trainseal.api.accessrecord import MAX_RESIZED, AccessRecord, CutField, node_label

Object = dict[str, Any]
POD: Object = {
    "metadata": {"name": "char-lm-worker-0-x7f2p", "namespace": "research", "uid": "pod-uid"},
    "spec": {"nodeName": "node-7"},
}
NAME = POD["metadata"]["name"]
SEAL = "char-lm-1"


def connect(subresource: str = "exec", name: str = NAME, **options: Any) -> Request:
    """ann at a pod's door."""
    asked = world.request({"metadata": {}, **options}, operation="CONNECT", subresource=subresource)
    return dataclasses.replace(
        asked,
        uid="review-1",
        name=name,
        username="ann@example.org",
        user={"username": "ann@example.org", "groups": ["team", "system:authenticated"]},
    )


def deletion(name: str = NAME, **options: Any) -> Request:
    asked = world.request(None, POD, operation="DELETE", user="ann@example.org")
    return dataclasses.replace(asked, name=name, options=options)


def eviction(**options: Any) -> Request:
    body = {"metadata": {"name": NAME}, "deleteOptions": options}
    return world.request(body, user="ann@example.org", subresource="eviction")


def debug(*containers: Object) -> Request:
    old = {**POD, "spec": {"ephemeralContainers": [{"name": "earlier"}]}}
    new = {**POD, "spec": {"ephemeralContainers": [{"name": "earlier"}, *containers]}}
    return world.request(new, old, user="ann@example.org", subresource="ephemeralcontainers")


def resize(count: int = 1) -> Request:
    def pod(cpu: str) -> Object:
        asked = {"limits": {"cpu": cpu, "memory": "4Gi", "nvidia.com/gpu": "1"}}
        containers = [{"name": f"c-{n}", "resources": asked} for n in range(count)]
        return {**POD, "spec": {**POD["spec"], "containers": containers}}

    return world.request(pod("2"), pod("1"), user="ann@example.org", subresource="resize")


def access(request: Request) -> Access:
    found = read_access(request)
    assert found is not None
    return found


def made(request: Request, later: timedelta = timedelta(0), **changes: Any) -> Object:
    """The record of a request, which is valid as the kind has it."""
    pod = {**POD, **changes}
    found: Object = record(
        request, access(request), pod, SEAL, world.NOW + later, allowed=True
    )  # fmt: skip
    assert AccessRecord.parse(found).spec.wire() == found["spec"]
    return found


def test_an_exec_is_recorded_with_who_and_what() -> None:
    request = connect(
        command=["sh", "-c", "id"], container="trainer", stdin=True, tty=True, stdout=True
    )
    found = made(request)
    assert found["spec"] == {
        "pod": {"name": NAME, "uid": "pod-uid"},
        "node": "node-7",
        "sealedRun": SEAL,
        "action": "Exec",
        "username": "ann@example.org",
        "userUID": "uid-1",
        "groups": ["team", "system:authenticated"],
        "command": ["sh", "-c", "id"],
        "container": "trainer",
        "stdin": True,
        "tty": True,
        "allowed": True,
        "time": "2026-11-23T12:00:00Z",
    }
    assert found["metadata"]["namespace"] == "research"
    assert found["metadata"]["labels"] == {
        "trainseal.dev/node": "node-7",
        "trainseal.dev/seal": SEAL,
        "trainseal.dev/action": "Exec",
        "trainseal.dev/pod-uid": "pod-uid",
    }
    assert "ownerReferences" not in found["metadata"]


@pytest.mark.parametrize(
    ("request_", "action", "fields"),
    [
        (connect("attach", container="trainer"), "Attach", {"container": "trainer"}),
        (connect("portforward", ports=[29500]), "PortForward", {"ports": [29500]}),
        (connect("portforward"), "PortForward", {}),
        (connect("proxy", path="/metrics?token=x"), "Proxy", {"path": "/metrics"}),
        (deletion(), "Delete", {}),
        (deletion(gracePeriodSeconds=0), "Delete", {"gracePeriodSeconds": 0}),
        (eviction(gracePeriodSeconds=5), "Evict", {"gracePeriodSeconds": 5}),
        (
            debug({"name": "debugger", "image": "busybox", "command": ["sh"], "args": ["-i"]}),
            "EphemeralContainer",
            {"container": "debugger", "image": "busybox", "command": ["sh", "-i"]},
        ),
        (
            resize(),
            "Resize",
            {"resized": [{"container": "c-0", "limits": {"cpu": "2", "memory": "4Gi"}}]},
        ),
        (resize(0), "Resize", {}),
    ],
)
def test_every_way_to_a_pod_is_an_action(request_: Request, action: str, fields: Object) -> None:
    found = access(request_)
    assert (found.action, found.pod, found.fields) == (action, NAME, fields)
    assert made(request_)["spec"]["action"] == action


def test_a_resize_is_recorded_whole_or_denied() -> None:
    assert len(made(resize(MAX_RESIZED))["spec"]["resized"]) == MAX_RESIZED
    with pytest.raises(OddRequestError, match="found a resize of 65 containers"):
        read_access(resize(MAX_RESIZED + 1))


@pytest.mark.parametrize("name", [f"{NAME}:8080", f"https:{NAME}:8080", f":{NAME}:", NAME])
def test_a_proxied_pod_is_found_behind_its_scheme_and_port(name: str) -> None:
    assert access(connect("proxy", name)).pod == NAME


@pytest.mark.parametrize(
    "request_",
    [
        connect(name="../../secrets/x"),
        connect(name="x?y"),
        connect(name=f"http:{NAME}:80"),
        connect("proxy", f"a:b:{NAME}:80"),
        connect(name=""),
        connect("log"),
        world.request(POD, operation="CREATE"),
    ],
)
def test_a_request_that_names_no_pod_is_none(request_: Request) -> None:
    with pytest.raises(OddRequestError):
        read_access(request_)


def test_a_pod_that_goes_with_its_collection_has_its_own_name() -> None:
    assert access(deletion(name="")).pod == NAME


@pytest.mark.parametrize(
    "request_",
    [
        dataclasses.replace(deletion(), dry_run=True),
        dataclasses.replace(debug({"name": "x"}), dry_run=True),
        eviction(dryRun=["All"]),
    ],
)
def test_a_dry_run_asks_for_nothing(request_: Request) -> None:
    assert read_access(request_) is None


# Bounds -----------------------------------------------------------------------------------------


def test_a_long_command_is_cut_and_known_by_its_digest() -> None:
    command = ["python", "-c", "x" * 2000, *(str(n) for n in range(100))]
    spec = made(connect(command=command))["spec"]
    assert len(spec["command"]) == 64
    assert spec["command"][2] == "x" * 1024
    assert spec["truncated"] == ["command"]
    cmdline = b"".join(word.encode() + b"\0" for word in command)
    assert spec["commandDigest"] == "sha256:" + hashlib.sha256(cmdline).hexdigest()


def test_a_command_at_the_bound_is_whole() -> None:
    for command in (["x" * 1024] * 8, ["x" * 128] * 64, ["é" * 512] * 8):
        spec = made(connect(command=command))["spec"]
        assert spec["command"] == command
        assert not {"truncated", "commandDigest"} & set(spec)


@pytest.mark.parametrize("word", ["x", "é", "𝄞", "\ud800"])
def test_a_command_is_recorded_within_8_kib_and_known_by_its_digest(word: str) -> None:
    """An exec may be asked for with megabytes: each would be kept by the API server, for good."""
    command = [word * 1000] * 64
    spec = made(connect(command=command))["spec"]
    assert 8000 < sum(len(w.encode(errors="replace")) for w in spec["command"]) <= 8192
    assert spec["truncated"] == ["command"]
    cmdline = b"".join(w.encode(errors="replace") + b"\0" for w in command)
    assert spec["commandDigest"] == "sha256:" + hashlib.sha256(cmdline).hexdigest()


def test_what_a_person_can_make_long_is_cut_and_said() -> None:
    request = dataclasses.replace(
        connect("portforward", ports=list(range(1, 100))),
        username="u" * 2000,
        user_uid="i" * 300,
        user={
            "groups": ["g" * 2000, *(f"group-{n}" for n in range(100))],
            "extra": {f"authentication.kubernetes.io/k{'x' * n}": ["v"] for n in range(20)},
        },
    )
    spec = made(request)["spec"]
    assert set(spec["truncated"]) == {"ports", "username", "userUID", "groups", "credential"}
    assert len(spec["groups"]) == 64


def test_what_a_record_can_say_was_cut_is_what_can_be_cut() -> None:
    """The kind has the list; a name that it lacked would have the whole record refused."""
    people: Object = {
        "groups": ["g" * 2000],
        "extra": {"authentication.kubernetes.io/k": ["v" * 2000]},
    }
    requests = [
        dataclasses.replace(
            connect(container="c" * 300, command=["x" * 9000]),
            username="u" * 2000,
            user_uid="i" * 300,
            user=people,
        ),
        connect("portforward", ports=[0]),
        connect("proxy", path="/" * 2000),
        debug({"name": "d", "image": "i" * 2000}),
    ]
    said = {name for request in requests for name in made(request)["spec"].get("truncated", ())}
    assert said == set(get_args(CutField))


def test_a_port_that_is_none_is_left_out_and_said() -> None:
    spec = made(connect("portforward", ports=[-1, 0, 80, 70000]))["spec"]
    assert (spec["ports"], spec["truncated"]) == ([80], ["ports"])


def test_a_service_accounts_token_says_from_which_pod() -> None:
    extra = {
        "authentication.kubernetes.io/pod-name": ["notebook-0"],
        "authentication.kubernetes.io/node-name": ["node-1"],
        "example.org/claim": ["x"],
        "claim": ["x"],
    }
    request = dataclasses.replace(connect(), user={"extra": extra})
    credential = made(request)["spec"]["credential"]
    assert credential == {"pod-name": "notebook-0", "node-name": "node-1"}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(
    command=_JSON, container=_JSON, ports=_JSON, path=_JSON, groups=_JSON, extra=_JSON, node=_JSON,
    subresource=st.sampled_from(["exec", "attach", "portforward", "proxy"]),
)  # fmt: skip
def test_no_odd_object_is_left_without_a_valid_record(subresource: str, **odd: Any) -> None:
    options = {k: odd[k] for k in ("command", "container", "ports", "path")}
    request = dataclasses.replace(
        connect(subresource, **options), user={"groups": odd["groups"], "extra": odd["extra"]}
    )
    made(request, spec={"nodeName": "n"} if odd["node"] else {})


# Which requests are the same act ----------------------------------------------------------------


def name_of(request: Request, later: timedelta = timedelta(0), **changes: Any) -> str:
    name: str = made(request, later, **changes)["metadata"]["name"]
    return name


def again(request: Request, **changes: Any) -> Request:
    """The request as the API server asks it a second time."""
    return dataclasses.replace(request, uid="review-2", **changes)


def test_each_exec_is_a_record_of_its_own_but_not_each_try_of_the_api_server() -> None:
    request = connect(command=["id"])
    assert name_of(request) == name_of(request, timedelta(seconds=1))
    assert name_of(request) != name_of(again(request))


@pytest.mark.parametrize("request_", [deletion(), eviction(), connect("proxy", path="/x?a")])
def test_the_same_act_asked_again_is_one_record(request_: Request) -> None:
    first = name_of(request_)
    assert name_of(again(request_)) == first
    assert name_of(again(request_, username="bob")) != first
    assert name_of(again(request_), timedelta(minutes=10)) != first
    assert name_of(request_, metadata={**POD["metadata"], "uid": "anew"}) != first


def test_a_deletion_at_once_is_another_act_than_a_graceful_one() -> None:
    assert name_of(deletion()) != name_of(deletion(gracePeriodSeconds=0))
    assert name_of(deletion()) != name_of(eviction())


def test_another_path_behind_the_proxy_is_another_act_but_not_another_query() -> None:
    first = name_of(connect("proxy", path="/data?x=1"))
    assert name_of(again(connect("proxy", path="/data?x=2"))) == first
    assert name_of(connect("proxy", path="/logs")) != first


def test_the_longest_names_fit_into_a_name_and_a_label() -> None:
    pod = "p" * 253
    name = name_of(connect(name=pod))
    assert len(name) <= 253
    assert name.startswith("p" * 200 + "-")
    node = "n" * 62 + ".example.org"
    labels = made(connect(), spec={"nodeName": node})["metadata"]["labels"]
    assert labels["trainseal.dev/node"] == node_label(node) == "n" * 62


# Objects of a run -------------------------------------------------------------------------------


def gone(resource: str = "configmaps", name: str = "char-lm-1-config") -> Request:
    """ann deletes an object."""
    old = {"metadata": {"name": name, "namespace": "research", "uid": "object-uid"}}
    asked = world.request(None, old, operation="DELETE", user="ann@example.org", resource=resource)
    return dataclasses.replace(asked, user={"groups": ["team"]})


@pytest.mark.parametrize(
    ("resource", "kind"),
    [
        ("trainingjobs", "TrainingJob"),
        ("jobs", "Job"),
        ("jobsets", "JobSet"),
        ("trainjobs", "TrainJob"),
        ("trainingruntimes", "TrainingRuntime"),
        ("configmaps", "ConfigMap"),
        ("services", "Service"),
        ("networkpolicies", "NetworkPolicy"),
        ("persistentvolumeclaims", "PersistentVolumeClaim"),
    ],
)
def test_the_deletion_of_an_object_names_it_and_no_pod(resource: str, kind: str) -> None:
    spec = made(gone(resource))["spec"]
    assert spec["action"] == "DeleteObject"
    assert spec["object"] == {"kind": kind, "name": "char-lm-1-config", "uid": "object-uid"}
    assert "pod" not in spec
    assert "node" not in spec


def test_it_is_one_record_a_user_object_and_run() -> None:
    name = made(gone())["metadata"]["name"]
    assert made(dataclasses.replace(gone(), uid="another"))["metadata"]["name"] == name
    assert name.startswith("char-lm-1-config-")
    for other in (
        made(dataclasses.replace(gone(), username="bob")),
        made(gone("services")),
        record(gone(), access(gone()), {}, "another-run", world.NOW, allowed=True),
        record(gone(), access(gone()), {}, SEAL, world.NOW, allowed=False),
    ):
        assert other["metadata"]["name"] != name


def test_what_is_no_part_of_runs_is_an_odd_request() -> None:
    with pytest.raises(OddRequestError, match="DELETE of secrets"):
        read_access(gone("secrets"))


def test_the_dry_run_of_a_deletion_is_none() -> None:
    assert read_access(dataclasses.replace(gone(), dry_run=True)) is None
