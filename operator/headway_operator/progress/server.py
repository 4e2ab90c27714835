"""The endpoint itself: aiohttp over TLS."""

import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from headway_operator.progress.directory import Leadership
from headway_operator.progress.forward import RETRY_SECONDS, Forwarder
from headway_operator.progress.pki import Identity
from headway_operator.progress.refusals import Refusal, refusal_response
from headway_operator.progress.routes import SERVICES, Services, add_routes

BODY_LIMIT: Final = 64 * 1024
KEEP_ALIVE_SECONDS: Final = 15.0
"""Longer than the pause between two reports of a lead (10 s), so that it needs one handshake
(which costs more than a report), and no more: an idle connection costs 50 KiB under uvloop and
290 KiB under asyncio's own TLS."""
SHUTDOWN_SECONDS: Final = 1.0
"""Long polls are cut when the replica stops: their pods ask another one."""


class Endpoint:
    """The HTTPS server of one replica.

    Args:
        identity: certificate, authority and secret.
        services: what the routes work with.
        leadership: which replica leads.
        server_hostname: a DNS name in the certificate, by which replicas verify each other.
    """

    def __init__(
        self,
        identity: Identity,
        services: Services,
        leadership: Leadership,
        *,
        server_hostname: str,
    ) -> None:
        self._tls = _tls_context()
        self.use(identity)
        self._ca = identity.ca
        self._services = services
        self._leadership = leadership
        self._server_hostname = server_hostname

    def use(self, identity: Identity) -> None:
        """Serve with this certificate from the next connection on."""
        # Python reads certificates from files only; this one is private and gone at once.
        with tempfile.NamedTemporaryFile(mode="w", suffix=".pem") as file:
            file.write(identity.key + identity.certificate)
            file.flush()
            self._tls.load_cert_chain(file.name)

    @asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[int]:
        """Serve within the context; gives the port (a free one for 0).

        Raises:
            OSError: the address is in use.
        """
        forwarder = Forwarder(self._ca, self._server_hostname)
        runner = web.AppRunner(
            _application(self._services, self._leadership, forwarder),
            access_log=None,
            auto_decompress=False,  # 64 KiB are to stay 64 KiB
            handler_cancellation=True,  # a poll ends with its client
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            shutdown_timeout=SHUTDOWN_SECONDS,
        )
        try:
            await runner.setup()
            await web.TCPSite(runner, host, port, ssl_context=self._tls, backlog=1024).start()
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()
            await forwarder.close()


def _application(
    services: Services, leadership: Leadership, forwarder: Forwarder
) -> web.Application:
    app = web.Application(
        client_max_size=BODY_LIMIT,
        middlewares=[_tell_refusals, _led(leadership, forwarder)],
    )
    app[SERVICES] = services
    add_routes(app)
    return app


@web.middleware
async def _tell_refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refusal as refusal:
        return refusal_response(refusal)
    except web.HTTPException as error:
        return refusal_response(Refusal(error.status, error.text or error.reason))


def _led(leadership: Leadership, forwarder: Forwarder) -> Middleware:
    @web.middleware
    async def answer_or_forward(request: web.Request, handler: Handler) -> web.StreamResponse:
        if leadership.leads():
            return await handler(request)
        leader = leadership.leader_address()
        if leader is None:
            raise Refusal(503, "no replica of the operator leads at the moment", RETRY_SECONDS)
        return await forwarder.forward(request, leader)

    return answer_or_forward


def _tls_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # no client of ours resumes; each ticket costs CPU and memory
    return context
