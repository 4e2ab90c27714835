"""One replica acts: a Lease, as client-go's leader election uses it.

Protocol: https://pkg.go.dev/k8s.io/client-go/tools/leaderelection. Clocks of machines are never
compared: a standby counts from when it saw the Lease change, the leader from before it sent its
renewal, so that the leader stops before a standby starts.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from headway_api.contract import GROUP
from headway_operator.cluster.client import (
    LEASE,
    AlreadyExists,
    ApiError,
    Conflict,
    KubeClient,
    NotFound,
    Object,
)

ANNOTATION_ADDRESS: Final = f"{GROUP}/leader-address"
"""On the Lease: where the other replicas forward what pods ask."""

logger = logging.getLogger(__name__)


class LostLeaseError(Exception):
    """This replica leads no more, or can't know: it must stop at once."""


@dataclass(frozen=True)
class Terms:
    """Times in seconds; the defaults are client-go's."""

    lease: float = 15.0
    """A Lease that has not changed for so long is free."""
    renew: float = 10.0
    """A leader that could not renew for so long gives up: less than `lease`, so that it has
    stopped before another starts."""
    retry: float = 2.0
    """Between two renewals, or two looks of a standby."""


class Election:
    """A replica's part in the election.

    Args:
        client: the cluster.
        namespace: of the Lease.
        name: of the Lease.
        identity: of this process: unique, and naming its pod.
        address: `https://<ip>:<port>` of this replica.
        terms: how long things take.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        address: str,
        *,
        terms: Terms = Terms(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._address = address
        self._terms = terms
        self._clock = clock
        self._lease: Object = {}
        self._changed = float("-inf")
        self._renewed = float("-inf")

    def leads(self) -> bool:
        """Whether this replica holds the Lease, and no other can hold it at this moment."""
        return self._clock() - self._renewed < self._terms.lease

    def leader_address(self) -> str | None:
        """Where the leading replica is; None where there is none, or it may be gone."""
        if not self._lease or self._is_free():
            return None
        address: str | None = self._lease["metadata"].get("annotations", {}).get(ANNOTATION_ADDRESS)
        return address

    async def acquire(self) -> None:
        """Wait until this replica leads."""
        while True:
            try:
                if await self._try_to_acquire():
                    logger.info("%s leads", self._identity)
                    return
            except (ApiError, TimeoutError) as error:
                logger.warning("can't read the Lease %s: %s", self._name, error)
            await asyncio.sleep(self._terms.retry * random.uniform(0.8, 1.2))  # noqa: S311

    async def hold(self) -> None:
        """Renew until cancelled.

        Raises:
            LostLeaseError: another replica has the Lease, or it could not be renewed in time.
        """
        while True:
            try:
                async with asyncio.timeout(self._renewed + self._terms.renew - self._clock()):
                    await self._renew()
            except TimeoutError:
                raise LostLeaseError(f"not renewed within {self._terms.renew:g} s") from None
            await asyncio.sleep(self._terms.retry)

    async def release(self) -> None:
        """Give the Lease up, so that a standby need not wait; a failure is let go."""
        if not self.leads():
            return
        self._renewed = float("-inf")
        try:
            async with asyncio.timeout(self._terms.retry):
                await self._give_up()
        except (ApiError, TimeoutError, LostLeaseError) as error:
            logger.warning("could not release the Lease %s: %s", self._name, error)

    # --- one step --------------------------------------------------------------------------------

    async def _try_to_acquire(self) -> bool:
        async with asyncio.timeout(self._terms.renew):
            try:
                self._see(await self._client.get(LEASE, self._namespace, self._name))
            except NotFound:
                return await self._create()
            if not self._is_free():
                return False
            began = self._clock()
            try:
                await self._write(self._claim(self._lease["spec"]))
            except (Conflict, NotFound):  # another was faster
                return False
            self._renewed = began
            return True

    async def _create(self) -> bool:
        began = self._clock()
        body: Object = {
            "metadata": {
                "name": self._name,
                "namespace": self._namespace,
                "annotations": {ANNOTATION_ADDRESS: self._address},
            },
            "spec": self._claim({}),
        }
        try:
            self._see(await self._client.create(LEASE, self._namespace, body))
        except AlreadyExists:
            return False
        self._renewed = began
        return True

    async def _renew(self) -> None:
        """Renew once, however many tries that takes."""
        while True:
            began = self._clock()
            try:
                await self._write({"renewTime": _now()})
            except Conflict:
                # Our own earlier try may have arrived after all; or somebody annotated the Lease.
                await self._look_again()
            except NotFound:
                raise LostLeaseError(f"the Lease {self._name} was deleted") from None
            except ApiError as error:
                logger.warning("can't renew the Lease %s: %s", self._name, error)
                await asyncio.sleep(self._terms.retry)
            else:
                self._renewed = began
                return

    async def _give_up(self) -> None:
        while True:
            try:
                return await self._write({"holderIdentity": "", "renewTime": _now()})
            except Conflict:  # a renewal was on its way
                await self._look_again()

    async def _look_again(self) -> None:
        try:
            self._see(await self._client.get(LEASE, self._namespace, self._name))
        except ApiError as error:
            logger.warning("can't read the Lease %s: %s", self._name, error)
            await asyncio.sleep(self._terms.retry)
            return
        holder = self._lease["spec"].get("holderIdentity")
        if holder != self._identity:
            raise LostLeaseError(f"{holder or 'nobody'} holds the Lease {self._name} now")

    async def _write(self, spec: Object) -> None:
        """Change the Lease as it was last seen; a Conflict tells that it has changed since."""
        metadata = {
            "resourceVersion": self._lease["metadata"]["resourceVersion"],
            "annotations": {ANNOTATION_ADDRESS: self._address},
        }
        body: Object = {"metadata": metadata, "spec": spec}
        self._see(await self._client.patch(LEASE, self._namespace, self._name, body))

    def _see(self, lease: Object) -> None:
        if not self._lease or lease["spec"] != self._lease["spec"]:
            self._changed = self._clock()
        self._lease = lease

    def _is_free(self) -> bool:
        spec = self._lease["spec"]
        if not spec.get("holderIdentity"):
            return True
        # The longer of both: replicas of two versions may disagree during an upgrade.
        term = max(self._terms.lease, spec.get("leaseDurationSeconds") or 0)
        return self._clock() - self._changed >= term

    def _claim(self, spec: Object) -> Object:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": round(self._terms.lease),
            "acquireTime": _now(),
            "renewTime": _now(),
            "leaseTransitions": (spec.get("leaseTransitions") or 0) + 1 if spec else 0,
        }


def _now() -> str:
    """A MicroTime, for people who read the Lease."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
