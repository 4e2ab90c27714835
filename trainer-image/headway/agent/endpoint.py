"""Client of the operator's HTTPS endpoint: who our peers are, and where progress goes.

Nothing here is needed for a restart in place: the operator may be away for as long as it likes.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import aiohttp

from headway.agent.config import PodConfig
from headway_api import contract
from headway_api.messages import JoinResponse, PeersResponse, ProgressReport, ReportResponse

log = logging.getLogger(__name__)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0
_TIMEOUT = aiohttp.ClientTimeout(total=40, connect=5)
"""Longer than the longest long-poll, in seconds."""


class Endpoint:
    """The operator's endpoint as one pod sees it."""

    def __init__(self, config: PodConfig) -> None:
        self._config = config
        self._base = config.endpoint + contract.job_path(config.namespace, config.job)
        context = ssl.create_default_context(cadata=config.endpoint_ca or None)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context), timeout=_TIMEOUT
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def join(self) -> JoinResponse:
        """Introduce this pod; tries until the operator answers."""
        body = {"index": self._config.index, "uid": self._config.pod_uid}
        answer = await self._until_answered("POST", "/join", json=body)
        return JoinResponse.model_validate(answer)

    async def peers(self, after: str, wait: float, silent: str = "") -> PeersResponse | None:
        """The pods of the group as soon as they differ from version `after`.

        Args:
            after: the version that is known.
            wait: how long to wait for another, in seconds.
            silent: UID of the lead, if we hear nothing from it: the operator replaces its pod if
                this is said for some seconds, and the lead says nothing to the operator either.

        Returns None when they did not within `wait` seconds, or the endpoint did not answer.
        """
        params = {"after": after, "timeout": f"{wait:g}"} | ({"silent": silent} if silent else {})
        try:
            answer = await self._ask("GET", "/peers", params=params)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.debug("no news of the peers: %s", error)
            await asyncio.sleep(min(wait, _LONGEST_PAUSE / 10))
            return None
        return PeersResponse.model_validate(answer) if answer else None

    async def report(self, report: ProgressReport) -> ReportResponse | None:
        """Send a progress report, once. Returns the answer; None if it did not arrive."""
        try:
            body = report.model_dump(mode="json", by_alias=True, exclude_none=True)
            answer = await self._ask("POST", "/progress", json=body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.debug("progress report not delivered: %s", error)
            return None
        return ReportResponse.model_validate(answer or {})

    async def _until_answered(self, method: str, path: str, **options: Any) -> Any:
        pause, told = _FIRST_PAUSE, False
        while True:
            try:
                return await self._ask(method, path, **options)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if not told:
                    log.warning("the operator's endpoint does not answer yet: %s", error)
                told = True
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _ask(self, method: str, path: str, **options: Any) -> Any:
        # Read each time: the kubelet renews the token in place.
        token = (await asyncio.to_thread(self._config.token_file.read_text)).strip()
        headers = {"Authorization": f"Bearer {token}"}
        async with self._session.request(
            method, self._base + path, headers=headers, **options
        ) as response:
            if response.status >= HTTPStatus.BAD_REQUEST:
                text = (await response.text())[:300]
                raise aiohttp.ClientError(f"{response.status} {text}")
            return await response.json() if response.status == HTTPStatus.OK else None
