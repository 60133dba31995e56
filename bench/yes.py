"""The yardstick: an aiohttp webhook over TLS that reads the review and says yes.

It says no to one thing, pods labelled ``bench-probe``, so that one can tell when it is asked.
"""

from __future__ import annotations

import json
import ssl
import sys

from aiohttp import web


async def yes(request: web.Request) -> web.Response:
    """Allowed, whatever it is."""
    review = json.loads(await request.read())["request"]
    probe = "bench-probe" in (review["object"]["metadata"].get("labels") or {})
    return web.json_response(
        {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "response": {
                "uid": review["uid"],
                "allowed": not probe,
                **({"status": {"message": "yes-only"}} if probe else {}),
            },
        }
    )


def main() -> None:
    """``yes.py CERTIFICATE_AND_KEY PORT``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1])
    app = web.Application()
    app.router.add_post("/{path:.*}", yes)
    web.run_app(
        app,
        host="127.0.0.1",
        port=int(sys.argv[2]),
        ssl_context=context,
        access_log=None,
        print=None,
    )


if __name__ == "__main__":
    main()
