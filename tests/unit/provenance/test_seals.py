"""The operator's mark and binding: they hold for exactly one seal, and for nothing else."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from datetime import timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit import world
from trainseal.provenance.keyrings import KeyringEntry, UntrustedError, sign_as
from trainseal.provenance.memberships import Membership
from trainseal.provenance.seals import (
    BINDING_TYPE,
    MAX_SPEC_BYTES,
    SEAL_ANNOTATION,
    SEAL_TYPE,
    BoundUid,
    SealTooLargeError,
    bind,
    check_size,
    membership_of,
    sign_seal,
    stored_bytes,
    verify_binding,
    verify_seal,
)
from trainseal.provenance.tickets import Ticket, issue_ticket

Object = dict[str, Any]
RING = world.keyring(world.SEAL_KEY)


@pytest.fixture(scope="module")
def seal() -> Object:
    return world.sealed_world().seal


def check(seal: Object, ring: Any = RING, cluster: str = world.CLUSTER) -> tuple[BoundUid, ...]:
    return verify_binding(
        ring,
        cluster=cluster,
        namespace=seal["metadata"]["namespace"],
        name=seal["metadata"]["name"],
        spec=seal["spec"],
        binding=seal["status"]["binding"],
    )


def check_mark(seal: Object, text: str | None = None, ring: Any = RING) -> None:
    verify_seal(
        ring,
        seal["metadata"]["annotations"][SEAL_ANNOTATION] if text is None else text,
        namespace=seal["metadata"]["namespace"],
        name=seal["metadata"]["name"],
        spec=seal["spec"],
    )


# The binding ------------------------------------------------------------------------------------


def test_a_bound_seal_gives_the_objects_it_is_bound_to(seal: Object) -> None:
    assert check(seal) == (BoundUid("worker", "Job", "char-lm-worker", world.OBJECT_UID),)


def test_it_does_so_after_a_round_trip_through_json(seal: Object) -> None:
    assert check(json.loads(json.dumps(seal)))


CHANGES: dict[str, Callable[[Object], object]] = {
    "its name": lambda s: s["metadata"].update(name="other"),
    "its namespace": lambda s: s["metadata"].update(namespace="other"),
    "its spec": lambda s: s["spec"].update(run=2),
    "a template": lambda s: s["spec"]["roles"][0]["template"]["spec"].update(hostPID=True),
    "its requester": lambda s: s["spec"]["requester"].update(username="x"),
    "the bound UID": lambda s: s["status"]["binding"]["objects"][0].update(uid="x"),
    "the bound name": lambda s: s["status"]["binding"]["objects"][0].update(name="x"),
    "one object more": lambda s: s["status"]["binding"]["objects"].append(
        {"role": "worker", "kind": "Job", "name": "x", "uid": "y"}
    ),
    "no object": lambda s: s["status"]["binding"].update(objects=[]),
    "no list of objects": lambda s: s["status"]["binding"].update(objects="x"),
    "an object that is none": lambda s: s["status"]["binding"].update(objects=["x"]),
    "a thousand objects": lambda s: s["status"]["binding"].update(
        objects=s["status"]["binding"]["objects"] * 1000
    ),
    "the time": lambda s: s["status"]["binding"].update(boundAt="2026-11-23T12:00:01Z"),
    "no time": lambda s: s["status"]["binding"].pop("boundAt"),
    "a time without zone": lambda s: s["status"]["binding"].update(boundAt="2026-11-23T12:00:00"),
    "the key": lambda s: s["status"]["binding"].update(keyID=world.MALLORY.public.id),
    "no signature": lambda s: s["status"]["binding"].pop("signature"),
    "a signature that is no base64": lambda s: s["status"]["binding"].update(signature="%%%"),
    "a signature that is no ASCII": lambda s: s["status"]["binding"].update(signature="ключ"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_an_edited_seal_is_not_trusted(seal: Object, what: str) -> None:
    edited = copy.deepcopy(seal)
    CHANGES[what](edited)
    with pytest.raises(UntrustedError):
        check(edited)


def test_nor_is_one_lifted_into_another_cluster(seal: Object) -> None:
    with pytest.raises(UntrustedError, match="was sealed in cluster"):
        check(seal, cluster="other")
    lifted = copy.deepcopy(seal)
    lifted["spec"]["cluster"] = "other"
    with pytest.raises(UntrustedError):
        check(lifted, cluster="other")


def test_nor_one_that_somebody_else_signed(seal: Object) -> None:
    forged = copy.deepcopy(seal)
    forged["status"]["binding"] = world.binding(forged, world.MALLORY)
    with pytest.raises(UntrustedError, match="the keyring does not hold"):
        check(forged)
    forged["status"]["binding"]["keyID"] = world.SEAL_KEY.public.id
    with pytest.raises(UntrustedError, match="edited or forged"):
        check(forged)


@pytest.fixture(scope="module")
def elastic() -> Object:
    """A run with an elastic role, in its third epoch, of three workers."""
    found = world.sealed_world(world.elastic).seal
    later = world.membership(3, 3, world.NOW + timedelta(hours=2))
    found["status"]["binding"] = world.binding(found, members=later)
    return found


EPOCHS: dict[str, Callable[[Object], object]] = {
    "another number of members": lambda b: b["members"][0].update(replicas=4),
    "another role": lambda b: b["members"][0].update(role="server"),
    "a role twice": lambda b: b["members"].append(b["members"][0]),
    "no members": lambda b: b.pop("members"),
    "an empty list of members": lambda b: b.update(members=[]),
    "another epoch": lambda b: b.update(epoch=2),
    "an epoch that is no number": lambda b: b.update(epoch=True),
    "no epoch": lambda b: b.pop("epoch"),
    "another time": lambda b: b.update(epochSince="2026-11-23T14:00:01Z"),
    "no time": lambda b: b.pop("epochSince"),
    "none of it": lambda b: [b.pop(f) for f in ("epoch", "members", "epochSince")],
}


@pytest.mark.parametrize("what", EPOCHS)
def test_who_is_a_member_is_signed_with_the_binding(elastic: Object, what: str) -> None:
    assert check(elastic)
    assert membership_of(elastic["status"]["binding"]) == Membership(
        3, {"worker": 3}, "2026-11-23T14:00:00Z"
    )
    edited = copy.deepcopy(elastic)
    EPOCHS[what](edited["status"]["binding"])
    with pytest.raises(UntrustedError):
        check(edited)


def test_a_membership_added_to_a_binding_without_one_is_not_trusted(seal: Object) -> None:
    edited = copy.deepcopy(seal)
    edited["status"]["binding"] |= {
        "epoch": 1, "epochSince": "2026-11-23T12:00:00Z",
        "members": [{"role": "worker", "replicas": 9}],
    }  # fmt: skip
    with pytest.raises(UntrustedError, match="edited or forged"):
        check(edited)


def test_a_binding_without_a_membership_is_signed_as_earlier_releases_signed_it(
    seal: Object,
) -> None:
    """What was signed then is spelt out: a seal that was bound before an upgrade stays bound."""
    binding = seal["status"]["binding"]
    body = {
        "boundAt": "2026-11-23T12:00:00Z",
        "cluster": world.CLUSTER,
        "namespace": "research",
        "name": seal["metadata"]["name"],
        "sealDigest": binding["sealDigest"],
        "objects": [
            {"role": "worker", "kind": "Job", "name": "char-lm-worker", "uid": world.OBJECT_UID}
        ],
    }
    text = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    earlier = copy.deepcopy(seal)
    earlier["status"]["binding"]["signature"] = sign_as(world.SEAL_KEY, BINDING_TYPE, text)
    assert check(earlier)


def test_an_epoch_is_signed_with_a_key_that_is_valid_when_it_begins(elastic: Object) -> None:
    """Keys are rotated while a run is on: its binding is older than the key of its epoch."""
    public = world.SEAL_KEY.public
    entry = KeyringEntry(public, world.NOW + timedelta(hours=1))
    assert check(elastic, {public.id: entry})


@pytest.mark.parametrize(
    ("start", "end", "good"),
    [(-1, None, True), (0, 0, True), (-2, -1, False), (1, None, False)],
)
def test_a_key_counts_for_what_it_signed_while_it_was_valid(
    seal: Object, start: int, end: int | None, good: bool
) -> None:
    public = world.SEAL_KEY.public
    entry = KeyringEntry(
        public,
        world.NOW + timedelta(hours=start),
        None if end is None else world.NOW + timedelta(hours=end),
    )
    if good:
        assert check(seal, {public.id: entry})
    else:
        with pytest.raises(UntrustedError, match="outside its key's validity"):
            check(seal, {public.id: entry})


def test_times_are_written_in_utc_wherever_the_clock_is(seal: Object) -> None:
    there = world.NOW.astimezone(timezone(timedelta(hours=9)))
    objects = (BoundUid("worker", "Job", "x", "y"),)
    found = bind(
        world.SEAL_KEY, namespace="n", name="x", spec=seal["spec"], objects=objects, now=there
    )
    assert found["boundAt"] == "2026-11-23T12:00:00Z"


NAMES = st.text("abc-", min_size=1, max_size=8)
SPECS = st.dictionaries(st.text(max_size=5), st.integers(-9, 9) | st.text(max_size=5), max_size=4)


@given(NAMES, NAMES, SPECS, st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_what_is_bound_verifies_and_names_its_objects(
    namespace: str, name: str, spec: Object, uids: list[tuple[str, str]]
) -> None:
    spec = {**spec, "cluster": "c"}
    objects = tuple(BoundUid(role, "Job", f"{role}-x", uid) for role, uid in uids)
    found = bind(
        world.SEAL_KEY, namespace=namespace, name=name, spec=spec, objects=objects, now=world.NOW
    )
    assert (
        verify_binding(RING, cluster="c", namespace=namespace, name=name, spec=spec, binding=found)
        == objects
    )


# The mark ---------------------------------------------------------------------------------------


def test_a_seal_of_ours_bears_our_mark(seal: Object) -> None:
    check_mark(seal)


@pytest.mark.parametrize("what", ["its name", "its namespace", "its spec", "a template"])
def test_the_mark_holds_for_one_seal(seal: Object, what: str) -> None:
    edited = copy.deepcopy(seal)
    CHANGES[what](edited)
    with pytest.raises(UntrustedError, match="was not made by TrainSeal's controller"):
        check_mark(edited)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "e30=.e30=",
        "%.%",
        "é.é",
        "x" * 5000,
        base64.b64encode(b"[]").decode() + ".AAAA",
        base64.b64encode(b'{"a":1,"a":2}').decode() + ".AAAA",
    ],
)
def test_a_text_that_is_no_mark_is_refused_in_words(seal: Object, text: str) -> None:
    with pytest.raises(UntrustedError, match="was not made by TrainSeal's controller"):
        check_mark(seal, text)


def test_a_mark_by_another_key_is_refused(seal: Object) -> None:
    metadata = seal["metadata"]
    forged = sign_seal(
        world.MALLORY,
        namespace=metadata["namespace"],
        name=metadata["name"],
        spec=seal["spec"],
        now=world.NOW,
    )
    with pytest.raises(UntrustedError, match="the keyring does not hold"):
        check_mark(seal, forged)


def test_a_signature_made_for_one_purpose_serves_no_other(seal: Object) -> None:
    """Should the keys ever be the same, a ticket still is no mark."""
    ticket = issue_ticket(world.SEAL_KEY, Ticket("x", "y", "sha256:" + "0" * 64, world.NOW))
    with pytest.raises(UntrustedError):
        check_mark(seal, ticket)
    body = base64.b64decode(seal["metadata"]["annotations"][SEAL_ANNOTATION].partition(".")[0])
    other = sign_as(world.SEAL_KEY, "application/x", body)
    with pytest.raises(UntrustedError):
        check_mark(seal, f"{base64.b64encode(body).decode()}.{other}")
    same = sign_as(world.SEAL_KEY, SEAL_TYPE, body)
    check_mark(seal, f"{base64.b64encode(body).decode()}.{same}")


# Size -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ({"a": [1, True, None, 0.5]}, r'{"a":[1,true,null,0.5]}'),
        ('a <b> & "c"', r'"a \u003cb\u003e \u0026 \"c\""'),
        ("é☃𝄞", '"é☃𝄞"'),
        ("\u2028\u2029", r'"\u2028\u2029"'),
        ("\n\x01\x7f", '"\\n\\u0001\x7f"'),
    ],
)
def test_bytes_are_counted_as_go_writes_them(value: object, stored: str) -> None:
    """The right side is what json.NewEncoder of Go makes of the value, as the API server does."""
    assert stored_bytes(value) == len(stored.encode())


def test_a_spec_may_be_as_large_as_the_bound_and_not_larger() -> None:
    spec = {"text": "x" * (MAX_SPEC_BYTES - len('{"text":""}'))}
    check_size(spec)
    with pytest.raises(SealTooLargeError, match=f"found {MAX_SPEC_BYTES + 1} bytes"):
        check_size({"text": spec["text"] + "x"})
    with pytest.raises(SealTooLargeError):
        check_size({"text": spec["text"][1:] + "<"})
