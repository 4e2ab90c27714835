"""The worker group: which pods belong to it now, and which only are in the way."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from headway_operator.trainingjob.view import Pod


@dataclass(frozen=True)
class Group:
    """Pods of one attempt, by index.

    Attributes:
        attempt: number of the attempt.
        replicas: how many pods it should have.
        members: its pods, handled ones included.
        others: pods of earlier attempts or beyond `replicas`: to be removed.
        handled: UIDs of members whose loss is accounted for: to be replaced.
        smallest: with how many it is complete; fewer than `replicas` in an elastic group.
    """

    attempt: int
    replicas: int
    members: tuple[Pod, ...]
    others: tuple[Pod, ...]
    handled: frozenset[str]
    smallest: int

    @classmethod
    def of(
        cls,
        pods: tuple[Pod, ...],
        *,
        attempt: int,
        replicas: int,
        handled: Collection[str],
        smallest: int | None = None,
    ) -> Group:
        """Sort a job's pods."""
        members = tuple(pod for pod in pods if pod.attempt >= attempt and 0 <= pod.index < replicas)
        others = tuple(pod for pod in pods if pod not in members)
        present = frozenset(pod.uid for pod in members)
        fewest = replicas if smallest is None else min(smallest, replicas)
        return cls(attempt, replicas, members, others, present & frozenset(handled), fewest)

    @property
    def standing(self) -> tuple[Pod, ...]:
        """Members that are not about to be replaced."""
        return tuple(pod for pod in self.members if pod.uid not in self.handled)

    @property
    def lead(self) -> Pod | None:
        """The pod of worker 0."""
        return next((pod for pod in self.standing if pod.index == 0), None)

    @property
    def missing(self) -> tuple[int, ...]:
        """Indices without a pod."""
        present = {pod.index for pod in self.members}
        return tuple(index for index in range(self.replicas) if index not in present)

    @property
    def complete(self) -> bool:
        """Whether there are enough pods that run, or have done their part: all, unless elastic."""
        up = [pod.index for pod in self.standing if pod.ready or pod.phase == "Succeeded"]
        return len(up) >= self.smallest and 0 in up
