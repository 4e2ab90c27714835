"""Which pods of a job can be reached where."""

import hashlib
from collections.abc import Iterable

from headway_api.messages import Peer, PeersResponse
from headway_operator.cluster.client import Object
from headway_operator.trainingjob.view import Pod


def peers_of(job: Object, pods: Iterable[Pod]) -> PeersResponse:
    """All pods of the job that have an address and are to stay.

    The version is a hash of the content: it means the same after a change of leader, and on
    every replica.
    """
    uid = job["metadata"]["uid"]
    replicas = int((job["spec"].get("workers") or {}).get("replicas", 1))
    peers = sorted(
        (
            Peer(index=pod.index, uid=pod.uid, address=pod.address)
            for pod in pods
            if pod.owner == uid and _reachable(pod)
        ),
        key=lambda peer: peer.index,
    )
    told = [replicas, *((peer.index, peer.uid, peer.address) for peer in peers)]
    version = hashlib.sha256(repr(told).encode()).hexdigest()[:16]
    return PeersResponse(version=version, replicas=replicas, peers=peers)


def _reachable(pod: Pod) -> bool:
    leaving = pod.deleting is not None or bool(pod.removal) or pod.ended
    return bool(pod.address) and pod.index >= 0 and not leaving
