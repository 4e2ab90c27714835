"""Where the API server is and who we are: one HTTP session with fresh credentials."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp.typedefs import LooseHeaders
from kubernetes.aio import config
from kubernetes.aio.client import Configuration

CONNECTION_LIMIT = 50
CONNECT_SECONDS = 10.0
REQUEST_SECONDS = 30.0
"""Silence from the server after which a request has failed."""
READ_BUFFER = 2**18


class Connection:
    """An aiohttp session to one API server, authenticated on every request.

    Attributes:
        host: base URL, without a slash at the end.
    """

    def __init__(
        self, configuration: Configuration, *, kubeconfig: Path | None, context: str | None
    ) -> None:
        self.host = str(configuration.host).rstrip("/")
        self._configuration = configuration
        self._kubeconfig = kubeconfig
        self._context = context
        self._renewing = asyncio.Lock()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=CONNECTION_LIMIT,
                ssl=_tls(configuration),
                socket_factory=_watchful_socket,
            ),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_SECONDS, sock_read=REQUEST_SECONDS
            ),
            # Compressing costs both sides more CPU than a cluster's network is worth.
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": "headway-operator",
            },
            read_bufsize=READ_BUFFER,
        )

    async def token(self) -> str | None:
        """The Authorization header's value; a mounted token is read anew each minute."""
        value: str | None = await self._configuration.get_api_key_with_prefix("BearerToken")
        return value

    async def renew(self, refused: str | None) -> None:
        """Load the credentials again, unless somebody already replaced the refused ones."""
        async with self._renewing:
            if await self.token() == refused:
                await _load(self._configuration, self._kubeconfig, self._context)

    async def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None,
        headers: dict[str, str],
        timeout: aiohttp.ClientTimeout | None,
    ) -> aiohttp.ClientResponse:
        """Send one request; the caller releases the response."""
        sent: LooseHeaders = headers
        return await self._session.request(
            method,
            url,
            data=body,
            headers=sent,
            timeout=timeout or self._session.timeout,
            proxy=self._configuration.proxy,
            server_hostname=self._configuration.tls_server_name,
        )

    async def session(self) -> aiohttp.ClientSession:
        """The session itself, which bears the token of now: for a library that sends by itself."""
        token = await self.token()
        if token:
            self._session.headers["Authorization"] = token
        return self._session

    async def close(self) -> None:
        """Close the session and its connections."""
        await self._session.close()


@asynccontextmanager
async def open_connection(
    kubeconfig: Path | None = None, context: str | None = None
) -> AsyncIterator[Connection]:
    """Connect with a kubeconfig, or as the pod we run in, or with the user's default.

    Args:
        kubeconfig: file to use; without one, the pod's service account inside a cluster, and
            `$KUBECONFIG` or `~/.kube/config` elsewhere.
        context: of the kubeconfig; its current one by default.

    Raises:
        kubernetes.aio.config.ConfigException: no usable credentials.
    """
    connection = await new_connection(kubeconfig, context)
    try:
        yield connection
    finally:
        await connection.close()


async def new_connection(kubeconfig: Path | None = None, context: str | None = None) -> Connection:
    """Like `open_connection`, for somebody else to close."""
    configuration = Configuration()
    await _load(configuration, kubeconfig, context)
    return Connection(configuration, kubeconfig=kubeconfig, context=context)


async def _load(configuration: Configuration, kubeconfig: Path | None, context: str | None) -> None:
    if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        return
    await config.load_kube_config(  # type: ignore[no-untyped-call]
        config_file=_kubeconfig(kubeconfig),
        context=context,
        client_configuration=configuration,
        persist_config=False,
    )


def _kubeconfig(given: Path | None) -> str:
    paths = str(given or os.environ.get("KUBECONFIG") or Path("~/.kube/config").expanduser())
    if not any(Path(path).is_file() for path in paths.split(os.pathsep)):
        raise config.ConfigException(
            f"no cluster: {paths} does not exist and this is no pod. "
            "Set KUBECONFIG or name a kubeconfig file"
        )
    return paths


def _tls(configuration: Configuration) -> ssl.SSLContext:
    context = ssl.create_default_context(
        cafile=configuration.ssl_ca_cert, cadata=configuration.ca_cert_data
    )
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    # Cluster CAs made by older tools lack extensions that Python 3.13 insists on.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _watchful_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that notices a dead peer within half a minute, even on a silent watch."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):  # Linux has them all, other systems some
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made
