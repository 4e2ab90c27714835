"""A real cluster: the API server's HTTP protocol with plain dicts over one aiohttp session.

Protocol: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp
import orjson

from .client import (
    ApiError,
    Gone,
    Listing,
    Object,
    Propagation,
    Resource,
    Subresource,
    Unavailable,
    WatchEvent,
    api_error,
)
from .connection import Connection, open_connection
from .retry import retry_delay

PAGE: Final = 500
"""Objects in one answer to a list."""
WATCH_GRACE: Final = 30.0
"""Seconds beyond its time-out after which a watch that the server did not end is dead."""
JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"
UNAUTHORIZED: Final = 401

_LOST = (aiohttp.ClientError, TimeoutError, OSError)


class KubeApi:
    """The `KubeClient` of a real API server.

    Obeys 429 with Retry-After on every request and repeats idempotent ones a few times after a
    lost connection or a 5xx (see `retry.py`); a create is never sent twice in doubt.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._connection = connection
        self._sleep = sleep
        self._jitter = jitter

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """See `KubeClient.get`."""
        return _object(await self._request("GET", path_of(resource, namespace, name)))

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        resource_version: str | None = None,
    ) -> Listing:
        """See `KubeClient.list`; read in pages of `PAGE` objects."""
        query = {
            "labelSelector": label_selector,
            "resourceVersion": resource_version,
            "resourceVersionMatch": resource_version and "NotOlderThan",
        }
        try:
            return await self._list(resource, namespace, {**query, "limit": str(PAGE)})
        except Gone:  # the server forgot this version between two pages
            return await self._list(resource, namespace, query)

    async def watch(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        resource_version: str | None = None,
        timeout_seconds: float | None = None,
    ) -> AsyncGenerator[WatchEvent, None]:
        """See `KubeClient.watch`."""
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "labelSelector": label_selector,
            "resourceVersion": resource_version,
            "timeoutSeconds": str(max(1, round(timeout_seconds))) if timeout_seconds else None,
        }
        timeout = aiohttp.ClientTimeout(
            total=timeout_seconds and timeout_seconds + WATCH_GRACE, sock_connect=10
        )
        try:
            response, _ = await self._send("GET", path_of(resource, namespace), query, timeout)
            try:
                if response.status >= 400:
                    raise _error(response, await response.read())
                async for line in split_lines(response.content.iter_any()):
                    yield _watch_event(line)
            finally:
                _hang_up(response)
        except _LOST as error:
            raise _unavailable(error) from error

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        """See `KubeClient.create`."""
        path = path_of(resource, namespace)
        body = {**_identity(resource), **body}
        return _object(await self._request("POST", path, body=body, idempotent=False))

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Object,
        *,
        subresource: Subresource | None = None,
    ) -> Object:
        """See `KubeClient.patch`."""
        path = path_of(resource, namespace, name, subresource)
        return _object(await self._request("PATCH", path, body=body, content_type=MERGE_PATCH))

    async def apply(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Object,
        *,
        field_manager: str,
        force: bool = True,
    ) -> Object:
        """See `KubeClient.apply`."""
        query = {"fieldManager": field_manager, "force": "true" if force else "false"}
        identified = {
            **_identity(resource),
            **body,
            "metadata": {**body.get("metadata", {}), "name": name},
        }
        path = path_of(resource, namespace, name)
        return _object(
            await self._request(
                "PATCH", path, query=query, body=identified, content_type=APPLY_PATCH
            )
        )

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        grace_seconds: int | None = None,
        propagation: Propagation = "Background",
    ) -> None:
        """See `KubeClient.delete`."""
        options: Object = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
        }
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        await self._request("DELETE", path_of(resource, namespace, name), body=options)

    async def pod_log(self, namespace: str, name: str, *, tail_lines: int | None = None) -> str:
        """See `KubeClient.pod_log`."""
        path = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(name)}/log"
        query = {"tailLines": None if tail_lines is None else str(tail_lines)}
        return (await self._request("GET", path, query=query)).decode(errors="replace")

    async def raw_get(
        self, path: str, *, query: Mapping[str, str | None] | None = None, accept: str = "*/*"
    ) -> bytes:
        """The body of any path of the API server.

        Args:
            path: such as `/openid/v1/jwks`.
            query: parameters; those that are None are left out.
            accept: media type to ask for.
        """
        return await self._request("GET", path, query=query, accept=accept)

    async def create_token(
        self,
        namespace: str,
        service_account: str,
        *,
        audience: str,
        expiration_seconds: int = 3600,
        pod: tuple[str, str] | None = None,
    ) -> str:
        """A token of a service account, as the kubelet would mount it into a pod.

        Args:
            namespace: of the service account.
            service_account: its name.
            audience: who will check the token.
            expiration_seconds: 600 at least.
            pod: name and uid of the pod whose deletion ends the token's validity.
        """
        spec: Object = {"audiences": [audience], "expirationSeconds": expiration_seconds}
        if pod is not None:
            name, uid = pod
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
        account = f"/serviceaccounts/{quote(service_account)}/token"
        answer = await self._request(
            "POST",
            f"/api/v1/namespaces/{quote(namespace)}{account}",
            body={"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
            idempotent=False,
        )
        return str(_object(answer)["status"]["token"])

    async def _list(
        self, resource: Resource, namespace: str | None, query: Mapping[str, str | None]
    ) -> Listing:
        identity = _identity(resource)
        items = []
        page_query = dict(query)
        while True:
            page = _object(
                await self._request("GET", path_of(resource, namespace), query=page_query)
            )
            # Lists of built-in kinds leave the identity out of their items.
            items += [{**identity, **item} for item in page.get("items") or ()]
            metadata = page["metadata"]
            if not metadata.get("continue"):
                return Listing(items, metadata["resourceVersion"])
            page_query |= {
                "continue": metadata["continue"],
                "resourceVersion": None,
                "resourceVersionMatch": None,
            }

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | None] | None = None,
        body: Object | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        idempotent: bool = True,
    ) -> bytes:
        """Send until answered or not worth it; the answer's body."""
        data = None if body is None else orjson.dumps(body)
        headers = {"Accept": accept} | ({} if data is None else {"Content-Type": content_type})
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._once(method, path, query or {}, data, headers)
            except ApiError as error:
                delay = retry_delay(
                    error, attempt=attempt, idempotent=idempotent, jitter=self._jitter()
                )
                if delay is None:
                    raise
            await self._sleep(delay)

    async def _once(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | None],
        data: bytes | None,
        headers: Mapping[str, str],
    ) -> bytes:
        """One try, or two where the first one's token had expired."""
        try:
            response, token = await self._send(method, path, query, None, data, headers)
            if response.status == UNAUTHORIZED:
                response.release()
                await self._connection.renew(token)
                response, _ = await self._send(method, path, query, None, data, headers)
            async with response:
                answer = await response.read()
                if response.status >= 400:
                    raise _error(response, answer)
                return answer
        except _LOST as error:
            raise _unavailable(error) from error

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | None],
        timeout: aiohttp.ClientTimeout | None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[aiohttp.ClientResponse, str | None]:
        """Send one request with the current token; the open response and that token."""
        token = await self._connection.token()
        sent = {**(headers or {}), **({"Authorization": token} if token else {})}
        given = {key: value for key, value in query.items() if value is not None}
        url = f"{self._connection.host}{path}{'?' + urlencode(given) if given else ''}"
        response = await self._connection.request(
            method, url, body=data, headers=sent, timeout=timeout
        )
        return response, token


@asynccontextmanager
async def connect(
    kubeconfig: Path | None = None, context: str | None = None
) -> AsyncIterator[KubeApi]:
    """A client for the cluster that `open_connection` finds, closed at the end."""
    async with open_connection(kubeconfig, context) as connection:
        yield KubeApi(connection)


def path_of(
    resource: Resource,
    namespace: str | None,
    name: str | None = None,
    subresource: Subresource | None = None,
) -> str:
    """The path of a collection, an object or its subresource."""
    parts = ["apis", resource.group] if resource.group else ["api"]
    parts.append(resource.version)
    if namespace is not None:
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(resource.plural)
    if name is not None:
        parts.append(quote(name, safe=""))
    if subresource is not None:
        parts.append(subresource)
    return "/" + "/".join(parts)


async def split_lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Lines of any length from chunks cut anywhere; an unfinished last line is dropped."""
    pending: list[bytes] = []
    async for chunk in chunks:
        *complete, rest = chunk.split(b"\n")
        for line in complete:
            yield b"".join([*pending, line])
            pending.clear()
        if rest:
            pending.append(rest)


def _identity(resource: Resource) -> Object:
    return {"apiVersion": resource.api_version, "kind": resource.kind}


def _object(answer: bytes) -> Object:
    value: Object = orjson.loads(answer)
    return value


def _hang_up(response: aiohttp.ClientResponse) -> None:
    """Leave a stream in the middle: TLS's goodbye would wait for a server that keeps talking."""
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    response.close()


def _watch_event(line: bytes) -> WatchEvent:
    event = orjson.loads(line)
    if event["type"] == "ERROR":
        raise _status_error(event["object"], retry_after=None)
    return WatchEvent(event["type"], event["object"])


def _error(response: aiohttp.ClientResponse, answer: bytes) -> ApiError:
    header = response.headers.get("Retry-After", "")
    retry_after = float(header) if header.isdigit() else None
    try:
        status = orjson.loads(answer)
    except orjson.JSONDecodeError:  # a proxy's page, or plain text
        status = {"message": answer[:500].decode(errors="replace")}
    if not isinstance(status, dict):
        status = {"message": str(status)}
    return _status_error({"code": response.status, **status}, retry_after)


def _status_error(status: Mapping[str, Any], retry_after: float | None) -> ApiError:
    details = status.get("details") or {}
    return api_error(
        int(status.get("code") or 500),
        status.get("reason") or "Unknown",
        status.get("message") or "the API server gave no message",
        retry_after or details.get("retryAfterSeconds"),
    )


def _unavailable(error: BaseException) -> Unavailable:
    return Unavailable(0, "NoAnswer", f"no answer from the API server: {error!r}")
