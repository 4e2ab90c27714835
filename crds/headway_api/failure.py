"""Failure rules: what a failure means for the group.

One pure function, used by the lead agent for restarts in place and by the operator for lost
pods, so that a rule means the same in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headway_api.contract import ExitCode
from headway_api.trainingjob import FailurePolicy

Action = Literal["Fail", "Restart", "RestartWithoutCounting"]

INFRASTRUCTURE = frozenset(
    {"Evicted", "NodeLost", "PodDeleted", "Preempted", "NodeShutdown", "PeerLost", "Paused"}
)
"""Reasons that are nobody's fault: restarts for them don't count unless a rule says so."""

HUNG = "Hung"
"""Reason of a restart in place after workers made no step for `progressDeadlineSeconds`. It counts
like a crash: a program that hangs each time has to fail some day."""

NEVER_HEALS = frozenset({ExitCode.CONFIG, ExitCode.BUDGET})
"""Exit codes of the agent after which a restart would only fail again."""


@dataclass(frozen=True)
class Failure:
    """What is known of a failure.

    Attributes:
        reason: CamelCase word.
        exit_code: of the pod or the worker process.
        of_worker: whether a worker process ended: its exit codes are its own affair, but for
            `ExitCode.CONFIG`, with which our library in it says that it can't work.
    """

    reason: str
    exit_code: int | None = None
    of_worker: bool = False


@dataclass(frozen=True)
class Decision:
    """What to do about it, and which rule said so (None for the defaults)."""

    action: Action
    rule: str | None = None

    @property
    def counts(self) -> bool:
        """Whether the restart uses up some of `maxRestarts`."""
        return self.action == "Restart"


def decide(policy: FailurePolicy, failure: Failure) -> Decision:
    """The first rule that matches decides; without one, infrastructure faults don't count.

    A rule matches when each of its criteria does.
    """
    for rule in policy.rules or ():
        codes, reasons = rule.on_exit_codes, rule.on_reasons
        if codes is not None and failure.exit_code not in codes:
            continue
        if reasons is not None and failure.reason not in reasons:
            continue
        return Decision(rule.action, rule.name)
    if failure.exit_code == ExitCode.CONFIG:
        return Decision("Fail")
    if failure.of_worker:
        return Decision("Restart")
    if failure.exit_code in NEVER_HEALS:
        return Decision("Fail")
    if failure.reason in INFRASTRUCTURE or failure.exit_code == ExitCode.PREEMPTED:
        return Decision("RestartWithoutCounting")
    return Decision("Restart")


def exhausted(policy: FailurePolicy, counted: int) -> bool:
    """Whether `counted` restarts leave none to spare."""
    return counted >= policy.max_restarts
