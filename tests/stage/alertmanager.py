"""An Alertmanager's ear: takes what its API v2 is told, on an address of this machine's."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.cluster.ports import free_port


@dataclass(frozen=True, slots=True)
class Alertmanager:
    """``url`` is its base URL."""

    url: str
    told: list[dict[str, Any]] = field(default_factory=list)

    def about(self, job: str) -> list[dict[str, Any]]:
        """The alerts on a job's run."""
        return [alert for alert in self.told if alert["labels"].get("job") == job]


@contextmanager
def alertmanager(host: str) -> Iterator[Alertmanager]:
    """One that listens until the block ends."""
    address = (host, free_port(host))
    heard = Alertmanager(f"http://{address[0]}:{address[1]}")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Source: Alertmanager's API v2, postableAlerts."""
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/api/v2/alerts":
                heard.told.extend(json.loads(body))
            self.send_response(200 if self.path == "/api/v2/alerts" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(address, Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
