"""The lead's decisions about the group: when a generation starts, ends, and what it meant.

Pure: events in, actions out; no clock, no I/O. The shell is `lead`.

States: *gathering* (some pods are not connected, or still hold workers of an old generation),
*running* generation g, *stopping* it (all nodes kill their workers), *ended*.

An elastic group goes on with fewer pods than it should have, when those that are missing have been
waited for; when one comes, or the number that it should have changes, the generation is drained
(its ranks save and stop after the same step) and the next one has another size.
"""

from __future__ import annotations

import signal
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum

from headway.agent.placement import Placement, place
from headway_api.contract import ExitCode
from headway_api.failure import Decision, Failure, decide, exhausted
from headway_api.messages import RestartReport
from headway_api.trainingjob import FailurePolicy

QUICK_SECONDS = 10.0
"""A generation that lived shorter than this without a step counts as part of a crash loop."""
LONGEST_PAUSE = 30.0
"""Longest pause between restarts of a crash loop, in seconds."""
_KILLED = 128 + signal.SIGKILL
WAIT_SECONDS = 10.0
"""How long an elastic group waits for pods that are missing: a lost pod's successor takes six
seconds where there is room for it, and a group that shrinks and grows again pays twice."""


class State(Enum):
    """Where the group is."""

    GATHERING = "Waiting"
    RUNNING = "Training"
    STOPPING = "Restarting"
    ENDED = "Done"


@dataclass(frozen=True)
class Begin:
    """Start the next generation after `pause` seconds."""

    pause: float = 0.0


@dataclass(frozen=True)
class StopAll:
    """Kill the workers of `generation` on every node."""

    generation: int


@dataclass(frozen=True)
class Drain:
    """Have the ranks of `generation` save and stop after the same step: the size changes."""

    generation: int


@dataclass(frozen=True)
class Wait:
    """Call `Group.waited` with `number` after so many seconds."""

    number: int
    seconds: float = WAIT_SECONDS


@dataclass(frozen=True)
class Finish:
    """End the group: the lead's pod exits with `code`."""

    code: int
    reason: str
    message: str
    culprit: RestartReport | None = None


@dataclass(frozen=True)
class Leave:
    """These pods are being taken away and have no more workers: they may exit."""

    indices: frozenset[int]


Action = Begin | StopAll | Drain | Wait | Finish | Leave


@dataclass
class Member:
    """A connected pod."""

    uid: str
    address: str
    busy: bool = False
    """Has workers of some generation."""
    survivors: frozenset[int] = frozenset()
    """Local ranks whose process waits for the next generation, with its state (Horovod)."""


@dataclass
class Group:
    """State of the group as its lead sees it.

    Attributes:
        replicas: Pods that the group should have.
        processes: Ranks in each pod.
        policy: Failure policy of the job.
        smallest: Fewest pods with which it goes on; `replicas` unless it is elastic.
        counted_before: Restarts that counted before this lead's session.
        generation: The current or latest generation; 0 before the first.
        highest: The highest generation that anybody has told of; the next one is higher.
        total: Restarts in place of this session.
        counted: Those of them that count.
        last: The latest of them.
        placement: Which ranks run where, in the current or latest generation.
        draining: Its ranks have been asked to stop, since the size changes.
        pausing: The step after which its ranks pause, once one has got there.
    """

    replicas: int
    processes: int
    policy: FailurePolicy
    smallest: int | None = None
    counted_before: int = 0
    generation: int = 0
    total: int = 0
    counted: int = 0
    last: RestartReport | None = None
    state: State = State.GATHERING
    placement: Placement = field(default_factory=lambda: Placement(()))
    draining: bool = False
    pausing: int | None = None
    members: dict[int, Member] = field(default_factory=dict)
    leaving: set[int] = field(default_factory=set)
    highest: int = 0
    _lost_uids: set[str] = field(default_factory=set)
    _done: set[int] = field(default_factory=set)
    _saved: set[int] = field(default_factory=set)
    _started_at: float = 0.0
    _stepped: bool = False
    _quick: int = 0
    _pending: bool = False
    _wait: int = 0
    _waited: bool = False

    def __post_init__(self) -> None:
        self.heard(self.generation)

    @property
    def world_size(self) -> int:
        """Ranks in the current generation."""
        return self.placement.world_size

    @property
    def missing(self) -> list[int]:
        """Indices of pods that should be there and are not connected."""
        return [i for i in range(self.replicas) if i not in self.members]

    @property
    def absent(self) -> list[int]:
        """Indices of pods of the current generation that are not connected."""
        return [i for i in self.placement.pods if i not in self.members]

    @property
    def elastic(self) -> bool:
        """Whether its size may change."""
        return self.smallest is not None

    @property
    def _present(self) -> list[int]:
        """Pods that could take part in a generation now."""
        return [i for i in range(self.replicas) if i in self.members and i not in self.leaving]

    @property
    def next_placement(self) -> Placement:
        """Which ranks would run where if a generation began now."""
        present = self._present
        survivors = {i: self.members[i].survivors for i in present}
        return place(present, self.processes, survivors) if present else Placement(())

    # --- members ------------------------------------------------------------------------------

    def heard(self, generation: int) -> None:
        """A generation that there has been, whoever led it."""
        self.highest = max(self.highest, generation)

    def joined(
        self, index: int, uid: str, address: str, survivors: Collection[int] = ()
    ) -> list[Action]:
        """A pod's agent has connected.

        Args:
            index: Of the pod. In an elastic group it may come before its number is asked for.
            uid: Of the pod.
            address: Of the pod.
            survivors: Local ranks whose process waits for the next generation.
        """
        fits = index >= 0 if self.elastic else 0 <= index < self.replicas
        if not fits or self.state is State.ENDED:
            return []
        actions: list[Action] = []
        if self.state is State.RUNNING and index in self.placement.pods:
            actions += self._stop()  # it came back before we noticed that it was gone
        if uid in self._lost_uids:  # the same pod: no new pod that the operator would count
            self._lost_uids.discard(uid)
            self.total += 1
        self.members[index] = Member(uid, address, survivors=frozenset(survivors))
        self.leaving.discard(index)
        return actions + self._drain_if_another_size() + self._begin_if_ready()

    def resized(self, replicas: int) -> list[Action]:
        """The group should have so many pods now."""
        if not self.elastic or self.state is State.ENDED:
            return []
        self.replicas = replicas
        return self._drain_if_another_size() + self._begin_if_ready()

    def lost(self, index: int) -> list[Action]:
        """A pod's agent is gone: its connection ended, or it was silent for too long."""
        member = self.members.pop(index, None)
        if member is None or self.state is State.ENDED:
            return []
        self.leaving.discard(index)
        if index < self.replicas:
            self._lost_uids.add(member.uid)
        if self.state is State.RUNNING:
            return self._stop() if index in self.placement.pods else []
        return self._stopped_if_all()

    def going(self, index: int) -> list[Action]:
        """A pod got SIGTERM: it leaves as soon as its workers have ended."""
        if index in self.members:
            self.leaving.add(index)
        return self._leave()

    # --- generations ----------------------------------------------------------------------------

    def began(self, generation: int, now: float) -> None:
        """The shell has ordered the start of this generation."""
        self.placement = self.next_placement
        self.generation = generation
        self.heard(generation)
        self.state, self._started_at = State.RUNNING, now
        self._stepped, self._pending = False, False
        self.draining = self._waited = False
        self.pausing = None
        self._wait += 1
        self._done.clear()
        self._saved.clear()
        for index in self.placement.pods:
            self.members[index].busy = True

    def stepped(self) -> None:
        """A step was finished in this generation: it is no crash loop."""
        self._stepped, self._quick = True, 0

    def node_stopped(
        self, index: int, generation: int, survivors: Collection[int] = ()
    ) -> list[Action]:
        """A pod has no more workers of this generation, but for those that wait for the next."""
        member = self.members.get(index)
        if member is None or generation != self.generation:
            return []
        member.busy, member.survivors = False, frozenset(survivors)
        return self._stopped_if_all()

    def exited(self, failure: RestartReport, generation: int, now: float) -> list[Action]:
        """A worker process has ended.

        Args:
            failure: How, with `rank` and `exit_code`; its rule is filled in here.
            generation: Of the worker; an old one is ignored.
            now: Time in seconds, to tell a crash loop.
        """
        rank, code = failure.rank, failure.exit_code
        # Who comes to the end on the way to another size is done, and must not start again.
        heard = self.state is State.RUNNING or (self.draining and code == ExitCode.DONE)
        if generation != self.generation or rank is None or not heard:
            return []
        if code == ExitCode.DONE:
            self._done.add(rank)
            all_done = len(self._done) == self.world_size
            done = Finish(ExitCode.DONE, "Done", "every rank has finished")
            return self._finish(done) if all_done else []
        if code == ExitCode.PAUSED and self.pausing is not None:
            self._saved.add(rank)
            all_paused = len(self._saved | self._done) == self.world_size
            return self._finish(self._pause(self.pausing)) if all_paused else []
        if code == ExitCode.PREEMPTED and (self.leaving or self.draining):
            self._saved.add(rank)
            return self._stop() if len(self._saved | self._done) == self.world_size else []
        return self._failed(failure, now)

    def hung(self, generation: int, seconds: float, now: float, time: str) -> list[Action]:
        """No rank has made a step for so long: the group is restarted as after a crash."""
        if generation != self.generation or self.state is not State.RUNNING:
            return []
        message = f"no step for {seconds:g} s; the stacks of all workers are in their logs"
        return self._failed(RestartReport(time=time, reason="Hung", message=message), now)

    def abandoned(self) -> list[Action]:
        """The generation can't go on, or begin, on every node: it is nobody's failure."""
        return self._stop() if self.state is State.RUNNING else []

    def drained(self) -> list[Action]:
        """The ranks stop as one; who comes to the end before that is done."""
        self.draining = True
        return self.abandoned()

    def waited(self, number: int) -> list[Action]:
        """Pods that are missing have been waited for long enough."""
        if number != self._wait or self.state is not State.GATHERING:
            return []
        self._waited = True
        return self._begin_if_ready()

    # --- decisions -------------------------------------------------------------------------------

    def _failed(self, failure: RestartReport, now: float) -> list[Action]:
        if self.leaving or self.draining:  # a failure on the way down proves nothing
            return self._stop()
        decision = decide(self.policy, Failure(failure.reason, failure.exit_code, of_worker=True))
        failure = failure.model_copy(update={"rule": decision.rule})
        if decision.action == "Fail":
            return self._finish(self._fail(failure, decision))
        if decision.counts and exhausted(self.policy, self.counted_before + self.counted):
            used = "All restarts of failurePolicy.maxRestarts are used up."
            message = f"{used} {failure.message}"
            return self._finish(Finish(ExitCode.BUDGET, "Budget", message, failure))
        self.total += 1
        self.counted += decision.counts
        self.last = failure
        # Who is killed from outside has not crashed; scripts need not report their steps.
        killed = failure.reason == "Signal" and failure.exit_code == _KILLED
        quick = not self._stepped and not killed and now - self._started_at < QUICK_SECONDS
        self._quick = self._quick + 1 if quick else 0
        return self._stop()

    @staticmethod
    def _fail(failure: RestartReport, decision: Decision) -> Finish:
        by = f" (failure rule {decision.rule})" if decision.rule else ""
        return Finish(failure.exit_code or 1, failure.reason, failure.message + by, failure)

    @staticmethod
    def _pause(step: int) -> Finish:
        said = f"step {step} is saved; raise pauseAtStep or remove it to go on"
        return Finish(ExitCode.PAUSED, "Paused", said)

    def _finish(self, finish: Finish) -> list[Action]:
        self.state = State.ENDED
        return [finish]

    def _stop(self) -> list[Action]:
        self.state = State.STOPPING
        return [StopAll(self.generation), *self._stopped_if_all()]

    def _stopped_if_all(self) -> list[Action]:
        if self.state is State.STOPPING and not any(m.busy for m in self.members.values()):
            self.state = State.GATHERING
        return self._leave() + self._begin_if_ready()

    def _leave(self) -> list[Action]:
        free = frozenset(i for i in self.leaving if i in self.members and not self.members[i].busy)
        return [Leave(free)] if free else []

    def _drain_if_another_size(self) -> list[Action]:
        """Take everybody in who waits, and let those go who are not asked for any more."""
        if self.state is not State.RUNNING or self.draining or self.leaving:
            return []
        if set(self._present) == set(self.placement.pods):
            return []
        self.draining = True
        return [Drain(self.generation)]

    def _begin_if_ready(self) -> list[Action]:
        idle = (
            self.state is State.GATHERING
            and not self._pending
            and 0 in self._present  # whose agent leads
            and not any(m.busy for m in self.members.values())
        )
        if not idle:
            return []
        if any(i in self.members and i < self.replicas for i in self.leaving):
            return []  # when it is gone one knows whether a successor comes
        if not self.may_begin:
            if len(self._present) < self._fewest:
                return []
            self._wait += 1
            return [Wait(self._wait)]
        self._pending = True
        # 0, 0, 1, 2, 4 … seconds: the first retry of a crash is free.
        pause = min(2.0 ** (self._quick - 2), LONGEST_PAUSE) if self._quick > 1 else 0.0
        return [Begin(pause)]

    @property
    def may_begin(self) -> bool:
        """Whether the generation that was decided on can still begin."""
        enough = self._fewest if self._waited else self.replicas
        return 0 in self._present and len(self._present) >= enough

    @property
    def _fewest(self) -> int:
        return self.smallest or self.replicas

    def interrupted(self) -> list[Action]:
        """The shell could not begin after all (a member was lost in between): look again."""
        self._pending = False
        return self._begin_if_ready()
