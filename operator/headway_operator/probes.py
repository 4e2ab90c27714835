"""What the kubelet and Prometheus ask: /healthz, /readyz and /metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

Check = Callable[[], Sequence[str]]
"""What is wrong, a sentence each; nothing when all is well."""


@asynccontextmanager
async def answering(
    host: str, port: int, *, healthy: Check, ready: Check, registry: CollectorRegistry
) -> AsyncIterator[None]:
    """Answer within the context.

    Args:
        host: address to listen at.
        port: to listen at.
        healthy: asked for /healthz; a pod that is not gets restarted.
        ready: asked for /readyz.
        registry: of the metrics; those of the process are added.

    Raises:
        OSError: the address is in use.
    """
    ProcessCollector(registry=registry)

    async def metrics(_: web.Request) -> web.Response:
        headers = {"Content-Type": CONTENT_TYPE_PLAIN_0_0_4}
        return web.Response(body=generate_latest(registry), headers=headers)

    app = web.Application()
    app.router.add_get("/healthz", _answer(healthy))
    app.router.add_get("/readyz", _answer(ready))
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    try:
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        yield
    finally:
        await runner.cleanup()


def _answer(check: Check) -> Handler:
    async def handle(_: web.Request) -> web.Response:
        wrong = check()
        return web.Response(status=503 if wrong else 200, text="\n".join(wrong) or "ok")

    return handle
