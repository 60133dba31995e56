"""The operator's signature over a checkpoint's manifest."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.sample_objects import checkpoint, status_of
from tests.unit import world
from trainseal.provenance.checkpointmanifests import (
    CHECKPOINT_PREDICATE,
    envelope,
    payload,
    sign,
    verify,
)
from trainseal.provenance.dsse import Envelope, verify_envelope
from trainseal.provenance.keyrings import UntrustedError
from trainseal.provenance.statements import parse_statement, subject_digests

RING = world.keyring(world.SEAL_KEY)


def signed(**changed: Any) -> dict[str, Any]:
    obj = checkpoint()
    status = status_of("Checkpoint") | changed
    del status["signature"]
    obj["status"] = status | {"signature": sign(world.SEAL_KEY, obj, status, world.NOW)}
    return obj


def test_a_signed_manifest_is_an_in_toto_statement_over_its_files() -> None:
    statement = parse_statement(verify(RING, signed()))
    assert statement.predicate_type == CHECKPOINT_PREDICATE
    assert [s.name for s in statement.subjects] == ["step-20/model.safetensors"]
    assert subject_digests(statement) == {checkpoint()["spec"]["files"][0]["digest"]}
    assert statement.predicate["tainted"]["finding"] == "file.changed"


def test_its_envelope_verifies_with_nothing_but_the_key() -> None:
    obj = signed()
    found = envelope(obj, verify(RING, obj))
    body = base64.b64decode(str(found["payload"]))
    signature: Any = found["signatures"]
    verify_envelope(
        world.SEAL_KEY.public,
        Envelope(str(found["payloadType"]), body, base64.b64decode(signature[0]["sig"])),
    )
    assert json.loads(body)["predicate"]["spec"] == obj["spec"]


Change = Callable[[dict[str, Any]], object]
CHANGES: dict[str, Change] = {
    "a file's digest": lambda o: o["spec"]["files"][0].update(digest="sha256:" + "f" * 64),
    "a file's name": lambda o: o["spec"]["files"][0].update(path="other"),
    "a file taken off": lambda o: o["spec"]["files"].pop(1),
    "who wrote it": lambda o: o["spec"]["files"][1].update(writer="Trainer"),
    "the run": lambda o: o["spec"].update(sealedRun="another"),
    "the name": lambda o: o["metadata"].update(name="another"),
    "the namespace": lambda o: o["metadata"].update(namespace="another"),
    "the taint taken off": lambda o: o["status"].pop("tainted"),
    "a sign-off put there": lambda o: o["status"].update(
        accepted={"release": "r", "user": "mallory", "reason": "x"}
    ),
    "the volume": lambda o: o["status"]["attested"].update(persistentVolume="pv-2"),
    "the time": lambda o: o["status"]["signature"].update(signedAt="2026-11-23T12:00:01Z"),
    "the key's id": lambda o: o["status"]["signature"].update(keyID="sha256:" + "0" * 64),
    "the signature": lambda o: o["status"]["signature"].update(signature="bm8="),
    "no signature": lambda o: o["status"].pop("signature"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_was_changed_does_not_verify(change: Change) -> None:
    obj = signed()
    assert verify(RING, obj)
    change(obj)
    with pytest.raises(UntrustedError):
        verify(RING, obj)


def test_a_key_that_the_keyring_does_not_hold_signs_nothing() -> None:
    with pytest.raises(UntrustedError, match="keyring"):
        verify(world.keyring(world.MALLORY), signed())


def test_what_the_api_server_adds_changes_nothing() -> None:
    obj = signed()
    stored = copy.deepcopy(obj)
    stored["metadata"] |= {"resourceVersion": "17", "managedFields": [], "generation": 1}
    stored["status"]["refused"] = "said to people, not signed"
    assert verify(RING, stored) == verify(RING, obj)


def test_a_statement_about_nothing_is_not_made() -> None:
    obj = checkpoint()
    for file in obj["spec"]["files"]:
        file.pop("digest", None)
    with pytest.raises(UntrustedError, match="no file"):
        payload(obj, {}, key="k", signed_at="2026-11-23T12:00:00Z")
