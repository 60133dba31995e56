"""AdmissionReviews: read as the API server writes them, answered as it reads them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainseal.admission.reviews import (
    MAX_MESSAGE,
    TRY_AGAIN,
    MalformedReviewError,
    Response,
    deny,
    parse,
    render,
)

REVIEW: dict[str, Any] = {
    "kind": "AdmissionReview",
    "apiVersion": "admission.k8s.io/v1",
    "request": {
        "uid": "u-1",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "subResource": "resize",
        "namespace": "research",
        "name": "x",
        "operation": "UPDATE",
        "userInfo": {"username": "bob", "uid": "uid-bob", "groups": ["a"]},
        "object": {"kind": "Pod"},
        "oldObject": {"kind": "Pod", "metadata": {}},
        "dryRun": True,
    },
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)


def body(**request: Any) -> bytes:
    return json.dumps({**REVIEW, "request": {**REVIEW["request"], **request}}).encode()


def test_a_review_is_read_whole() -> None:
    found = parse(body())
    assert (found.uid, found.operation, found.resource) == ("u-1", "UPDATE", "pods")
    assert (found.subresource, found.namespace, found.name) == ("resize", "research", "x")
    assert (found.username, found.user_uid, found.dry_run) == ("bob", "uid-bob", True)
    assert (found.object, found.old) == ({"kind": "Pod"}, {"kind": "Pod", "metadata": {}})


def test_what_the_api_server_leaves_out_is_empty() -> None:
    found = parse(body(object=None, oldObject=None, namespace=None, userInfo=None, dryRun=None))
    assert (found.object, found.old, found.namespace, found.username) == ({}, {}, "", "")
    assert not found.dry_run


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b"[]", b"null", b"1", b'"x"', b"{}", b'{"request":1}', b'{"request":{}}'),
        *(b"\xff", b'{"request":{"uid":"\\ud800"}}', b"[" * 100_000),
        body(object="x"),
        body(oldObject=["x"]),
        body(userInfo="x"),
        body(resource=None),
    ],
)
def test_what_is_no_review_is_refused_as_such(data: bytes) -> None:
    with pytest.raises(MalformedReviewError, match="not an AdmissionReview"):
        parse(data)


@given(JSON, st.sampled_from(["uid", "resource", "object", "oldObject", "userInfo", "operation"]))
def test_no_field_of_another_type_is_more_than_a_refusal(value: Any, field: str) -> None:
    try:
        found = parse(body(**{field: value}))
    except MalformedReviewError:
        return
    assert isinstance(found.object, dict)
    assert isinstance(found.old, dict)


def answered(response: Response) -> dict[str, Any]:
    review = json.loads(render("u-1", response))
    assert (review["apiVersion"], review["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    found: dict[str, Any] = review["response"]
    assert found["uid"] == "u-1"
    return found


def test_an_answer_that_allows_says_no_more() -> None:
    assert answered(Response(True)) == {"uid": "u-1", "allowed": True}


def test_a_denial_carries_its_words_and_code() -> None:
    assert answered(deny("no, ö"))["status"] == {
        "code": 403,
        "reason": "Forbidden",
        "message": "no, ö",
    }
    again = answered(deny("later", TRY_AGAIN))["status"]
    assert (again["code"], again["reason"]) == (503, "ServiceUnavailable")


def test_an_answer_is_bounded() -> None:
    assert len(answered(deny("x" * 10**6))["status"]["message"]) == MAX_MESSAGE
    assert [len(w) for w in answered(Response(True, warnings=["x" * 9999]))["warnings"]] == [1024]


def test_a_patch_is_base64_of_json() -> None:
    patch: list[Any] = [{"op": "add", "path": "/metadata/annotations", "value": {"a": "ö"}}]
    found = answered(Response(True, patch=patch, audit={"a": "b"}))
    assert found["patchType"] == "JSONPatch"
    assert json.loads(base64.b64decode(found["patch"])) == patch
    assert found["auditAnnotations"] == {"a": "b"}
