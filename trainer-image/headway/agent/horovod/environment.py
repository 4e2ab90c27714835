"""Horovod's variables for one rank (horovod/runner/gloo_run.py: create_slot_env_vars)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from headway.agent.placement import Placement

LOOPBACK = "127.0.0.1"
_INTERFACES = ("HOROVOD_GLOO_IFACE", "NCCL_SOCKET_IFNAME")


@dataclass(frozen=True)
class Slot:
    """The place of one rank, in Horovod's terms.

    Attributes:
        rank: Of all ranks.
        size: Number of all ranks.
        local_rank: Of the ranks of its pod.
        local_size: Number of the ranks of its pod.
        cross_rank: Of the ranks with this local rank, one a pod.
        cross_size: Number of those.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    cross_rank: int
    cross_size: int

    @classmethod
    def of(cls, placement: Placement, index: int, local_rank: int) -> Slot:
        """The place of a process.

        Args:
            placement: Of the generation.
            index: Of its pod.
            local_rank: Of the process in its pod.
        """
        pods, in_pod = placement.pods, len(placement.ranks(index))
        rank, size = placement.rank(index, local_rank), placement.world_size
        return cls(rank, size, local_rank, in_pod, pods.index(index), len(pods))

    @property
    def answer(self) -> str:
        """As Horovod reads it when its place has changed (gloo_context.cc)."""
        places = (self.rank, self.size, self.local_rank, self.local_size)
        return ",".join(map(str, (*places, self.cross_rank, self.cross_size)))


def interface_of(address: str) -> str | None:
    """Name of the network interface that has this address; None if there is none."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address.partition("%")[0] == address for each in addresses):
            return name
    # Local mode gives each pod an address of its own of 127.0.0.0/8, which no interface lists.
    return interface_of(LOOPBACK) if address.startswith("127.") and address != LOOPBACK else None


def environment(
    slot: Slot, host: str, address: str, port: int, given: Mapping[str, str]
) -> dict[str, str]:
    """All variables of a rank.

    Args:
        slot: Its place.
        host: Name of its pod: ranks of one name have shared memory.
        address: Of its pod, at which others reach it. Of several interfaces, the one that has it
            is used.
        port: Of this pod's rendezvous on the loopback interface.
        given: What the user has set (`spec.pod.env`): an interface that is named there counts.
    """
    interface = interface_of(address)
    interfaces = {each: interface for each in _INTERFACES if interface and each not in given}
    return interfaces | {
        "HOROVOD_HOSTNAME": host,
        "HOROVOD_RANK": str(slot.rank),
        "HOROVOD_SIZE": str(slot.size),
        "HOROVOD_LOCAL_RANK": str(slot.local_rank),
        "HOROVOD_LOCAL_SIZE": str(slot.local_size),
        "HOROVOD_CROSS_RANK": str(slot.cross_rank),
        "HOROVOD_CROSS_SIZE": str(slot.cross_size),
        # Without effect on scripts that do not use `hvd.elastic.run`.
        "HOROVOD_ELASTIC": "1",
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": LOOPBACK,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
    }
