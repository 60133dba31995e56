"""Only what nobody judged is tried again."""

from __future__ import annotations

import pytest

from tests.chaos.answers import Answer, meaning, reason


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (201, "", Answer.MADE),
        (409, "already exists", Answer.MADE),
        (403, "admission webhook denied the request: no signature", Answer.REFUSED),
        (422, "ValidatingAdmissionPolicy 'trainseal-pods' denied request", Answer.REFUSED),
        (400, "denied", Answer.REFUSED),
        (500, "Internal error occurred: something else", Answer.REFUSED),
        (0, "ClientConnectorError()", Answer.AGAIN),
        (500, "Internal error occurred: failed calling webhook: EOF", Answer.AGAIN),
        (503, "could not be verified (undetermined)", Answer.AGAIN),
        (504, "the server was unable to return a response in time", Answer.AGAIN),
        (429, "too many requests", Answer.AGAIN),
        (403, "pods is forbidden: not yet ready to handle request", Answer.AGAIN),
        (403, 'pods is forbidden: User "m" cannot create resource "pods"', Answer.AGAIN),
    ],
)
def test_an_answer_means(status: int, text: str, expected: Answer) -> None:
    assert meaning(status, text) is expected


def test_tries_are_counted_by_why() -> None:
    assert reason(0, "") == "no answer"
    assert reason(500, "failed calling webhook") == "the webhook could not be asked"
    assert reason(403, 'User "m" cannot create resource "pods"') == "the API server was starting"
    assert reason(503, "undetermined") == "status 503"
