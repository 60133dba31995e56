"""What the cluster asks a process: is it alive, is it ready, what does it count."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest


@asynccontextmanager
async def health(port: int, not_ready: Callable[[], str | None]) -> AsyncIterator[None]:
    """Serves /healthz, /readyz and /metrics meanwhile."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    add_health(app, not_ready)
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    try:
        yield
    finally:
        await runner.cleanup()


def add_health(app: web.Application, not_ready: Callable[[], str | None]) -> None:
    """/healthz, and /readyz: 503 with the words of ``not_ready`` while it has any."""

    async def alive(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def ready(_: web.Request) -> web.Response:
        why = not_ready()
        if why:
            return web.Response(text=f"not ready: {why}\n", status=503)
        return web.Response(text="ok\n")

    app.router.add_get("/healthz", alive)
    app.router.add_get("/readyz", ready)
