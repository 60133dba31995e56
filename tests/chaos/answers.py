"""What an API server's answer means to whoever submits: made, refused, or worth another try. Pure.

As docs/how-to/read-a-refusal.md has it: an error of the connection, and what could not be judged,
is tried again; what was judged is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from http import HTTPStatus


class Answer(Enum):
    """Of one attempt."""

    MADE = "made"
    #: It was judged, and refused.
    REFUSED = "refused"
    #: Nobody judged it.
    AGAIN = "again"


#: The connection failed, or no answer came.
NO_ANSWER = 0
#: The API server's words where it could not ask a webhook: an Internal error, and no denial.
NOT_ASKED = "failed calling webhook"
#: Its words where it has only just started and does not know its policies yet, or its roles:
#: whoever asks here has the right to create.
_NOT_READY = ("not yet ready to handle request", "cannot create resource")
_AGAIN = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)


def meaning(status: int, text: str) -> Answer:
    """Of a creation's status code and body.

    That it is there already means made: an attempt before, of which no answer came, made it.
    """
    if status in (HTTPStatus.CREATED, HTTPStatus.CONFLICT):
        return Answer.MADE
    if status == NO_ANSWER or status in _AGAIN:
        return Answer.AGAIN
    if status == HTTPStatus.INTERNAL_SERVER_ERROR and NOT_ASKED in text:
        return Answer.AGAIN
    return Answer.AGAIN if any(words in text for words in _NOT_READY) else Answer.REFUSED


def reason(status: int, text: str) -> str:
    """Why another try, in few words, to count them by."""
    if status == NO_ANSWER:
        return "no answer"
    if NOT_ASKED in text:
        return "the webhook could not be asked"
    if any(words in text for words in _NOT_READY):
        return "the API server was starting"
    return f"status {status}"


def told(counts: Mapping[str, int]) -> str:
    """Counts in words, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{number} x {words}" for words, number in ordered) or "none"
