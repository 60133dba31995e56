"""The webhook's HTTP face: one path a question, bounded bodies, metrics."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import Counter, Histogram

from trainseal.admission.reviews import (
    MAX_MESSAGE,
    TOO_MANY,
    TRY_AGAIN,
    MalformedReviewError,
    Request,
    Response,
    parse,
    render,
)
from trainseal.cluster.health import add_health
from trainseal.provenance.helppages import HELP_TO_TRY_AGAIN, QUESTIONS, ended, of_reasons

_log = logging.getLogger(__name__)
#: The API server takes requests of at most 3 MiB; a review holds the object twice on UPDATE.
MAX_BODY = 8 * 1024 * 1024
_ANSWERS = Counter("trainseal_admissions_total", "Admission answers.", ["path", "answer"])
_SECONDS = Histogram(
    "trainseal_admission_seconds",
    "Time to an answer.",
    ["path"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1, 2.5, 5, 10),
)

Answer = Callable[[Request], Awaitable[Response]]


def application(
    answers: dict[str, Answer], ready: Callable[[], str], documents: str = ""
) -> web.Application:
    """The app: ``answers`` by path; ``ready`` gives what is missing, empty when nothing is;
    ``documents`` is where people read the documents.
    """
    app = web.Application(client_max_size=MAX_BODY)
    for path, answer in answers.items():
        app.router.add_post(path, _handler(path, answer, documents))
    add_health(app, ready)
    return app


def _handler(
    path: str, answer: Answer, documents: str
) -> Callable[[web.Request], Awaitable[web.Response]]:
    seconds = _SECONDS.labels(path)
    allowed, denied = _ANSWERS.labels(path, "allowed"), _ANSWERS.labels(path, "denied")
    failed = _ANSWERS.labels(path, "failed")

    async def handle(http: web.Request) -> web.Response:
        start = time.perf_counter()
        try:
            request = parse(await http.read())
        except MalformedReviewError as error:
            failed.inc()
            return web.Response(status=400, text=f"{error}\n")
        try:
            response = await answer(request)
        except Exception:  # noqa: BLE001 - logged, and answered so that the API server denies
            # Answered with an error: the API server's failure policy is to deny.
            failed.inc()
            _log.exception("answering %s for %s/%s", path, request.namespace, request.name)
            return web.Response(status=500, text="TrainSeal's webhook failed; see its log\n")
        (allowed if response.allowed else denied).inc()
        if not response.allowed:
            _log.info(
                "denied %s %s %s/%s for %s: %.400s",
                request.operation, request.resource, request.namespace, request.name,
                request.username, response.message.replace("\n", " | "),
            )  # fmt: skip
        seconds.observe(time.perf_counter() - start)
        response = with_help(response, path, documents)
        return web.Response(body=render(request.uid, response), content_type="application/json")

    return handle


def with_help(response: Response, path: str, documents: str) -> Response:
    """A denial that says where its help is, at its end."""
    if response.allowed:
        return response
    if response.reasons:
        places = of_reasons(response.reasons)
    elif response.code in (TRY_AGAIN, TOO_MANY):
        places = [HELP_TO_TRY_AGAIN]
    else:
        places = [QUESTIONS[path]] if path in QUESTIONS else []
    message = ended(response.message, places, documents, MAX_MESSAGE)
    return dataclasses.replace(response, message=message)
