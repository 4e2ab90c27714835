"""The lead's half that knows checkpoints: when all ranks save, what is sent, where to start from.

A shell around `agreement` (steps at which all ranks save or stop), `pipeline` (how far each
checkpoint is), `sources` (from whose memory a generation starts) and `committer` (which
checkpoints are in storage). Everything but `receipt`, `claim` and the ends is called from the
lead's loop, one event at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, Protocol

from headway.agent.agreement import Agreement, Decide, Move, Propose
from headway.agent.committer import Abandoned, Committed, Committer
from headway.agent.config import PodConfig
from headway.agent.memory import Copy
from headway.agent.pipeline import Pipeline, Upload
from headway.agent.placement import Placement
from headway.agent.rankstates import RankStates
from headway.agent.reporting import Reporter
from headway.agent.sources import Source, choose
from headway.agent.wire import Message
from headway.checkpoint.layout import CheckpointId

log = logging.getLogger(__name__)
_TRIES_FROM_MEMORY = 2
"""So many generations may end without a step before memory is no longer trusted: what is in it
may be what kills them (Megatron-LM#5281 restarted 44 times from a bad replica)."""


class Send(Protocol):
    """Sends a message to the agent of a pod, or to all of them."""

    def __call__(self, message: Message, to: int | None = None) -> None:
        """Send; who is not connected gets nothing."""


class Checkpoints:
    """The checkpoints of a group, from the first agreement to the last byte in storage.

    Args:
        config: The lead's pod.
        committer: What storage holds.
        reporter: Told what the operator should know.
        send: To the group's agents.
        spawn: Runs something beside the lead's loop.
    """

    def __init__(
        self,
        config: PodConfig,
        committer: Committer,
        reporter: Reporter,
        send: Send,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._policy = config.checkpoint
        self._placement = Placement(())
        self._committer = committer
        self._reporter = reporter
        self._send = send
        self._spawn = spawn
        self._agreement = Agreement(0)
        self._pipeline = Pipeline(frozenset())
        self._states = RankStates()
        self._generation = 0
        self._saved_at = time.monotonic()
        self._saving_step: int | None = None
        self._stopping_at: CheckpointId | None = None
        self._in_storage: CheckpointId | None = None
        self._fetched = self._waiting = False
        self._distrusted = 0
        self._settled = asyncio.Event()
        self._bound: int | None = None
        self.pause_at: int | None = None
        """Step after which the job is to pause. The ranks of a generation know it from the start;
        where it has changed since, they agree on it."""

    # --- when a generation begins ----------------------------------------------------------------

    async def claim(self, known: int, *, look: bool) -> int:
        """Claim the next generation (see `Committer.claim`).

        Args:
            known: The highest generation that anybody knows of.
            look: Whether storage may hold something newer than what nodes have in memory.

        Raises:
            Fenced: this group is over.
        """
        generation = await self._committer.claim(known)
        if look:
            self._in_storage = await self._committer.newest()
        return generation

    def begin(
        self, generation: int, placement: Placement, held: Mapping[int, Collection[Copy]]
    ) -> Source | None:
        """A generation begins.

        Args:
            generation: Its number.
            placement: Its ranks.
            held: What each node has in memory.

        Returns:
            From whose memory it starts; None for storage. Generations that started from memory
            and have not got to a single step speak against memory.
        """
        self._place(placement)
        self._agreement = Agreement(placement.world_size)
        self._generation = generation
        self._saving_step = self._stopping_at = None
        self._bound = self.pause_at
        self._saved_at = time.monotonic()
        self._distrusted += 1
        trusted = self._distrusted <= _TRIES_FROM_MEMORY
        source = self._choose(placement, held) if trusted else None
        self._fetched = bool(source and source.donors)
        return source

    def in_memory(self, placement: Placement, held: Mapping[int, Collection[Copy]]) -> bool:
        """Whether a generation of these ranks could start from memory."""
        return self._choose(placement, held) is not None

    def _choose(self, placement: Placement, held: Mapping[int, Collection[Copy]]) -> Source | None:
        return choose(held, placement, self._states.knows, self._in_storage)

    def _place(self, placement: Placement) -> None:
        if placement != self._placement:
            self._placement = placement
            self._pipeline = Pipeline(frozenset(range(placement.world_size)))

    @property
    def _alone(self) -> bool:
        return len(self._placement.pods) == 1

    def began(self, source: Source | None) -> None:
        """The workers have been told to start from this source."""
        whole = source is not None and not source.moved
        self._upload(self._pipeline.began(source.id if source and whole else None))

    def order(self, source: Source, index: int, addresses: Mapping[int, str]) -> Message:
        """What tells a node how to get at the source.

        Args:
            source: Where the generation starts from.
            index: The node.
            addresses: Of all nodes.
        """
        order: Message = {**source.id.names}
        if index in source.donors:
            order["from"] = addresses[source.donors[index]]
        if index in source.told:
            ranks = self._placement.ranks(index)
            order["rank_states"] = self._states.of(source.id, ranks)["states"]
        return order

    def keep(self, states: Message) -> None:
        """Take the states of ranks that another pod has kept for an earlier lead."""
        self._states.add_all(states)

    def distrust_memory(self) -> None:
        """A node could not get what it was to start from: the next generation uses storage."""
        self._distrusted = _TRIES_FROM_MEMORY

    # --- agreeing -------------------------------------------------------------------------------

    def save_when_due(self, now: float) -> None:
        """Propose a save if the policy asks for one; all ranks must be there and training."""
        idle = self._agreement.open is None and self._pipeline.copying is None
        if not self._committer.stores or not idle or self._pipeline.last_step is not None:
            return
        policy = self._policy
        if policy.every_steps:
            self._move(self._agreement.propose("save", policy.every_steps))
        elif now - self._saved_at >= (policy.every_seconds or 300):
            self._move(self._agreement.propose("save"))

    def bound_when_changed(self) -> None:
        """Propose another step to pause after, if it is not the one that the ranks know."""
        ends = self._pipeline.last_step is not None
        if self.pause_at != self._bound and self._agreement.open is None and not ends:
            self._move(self._agreement.propose("bound", bound=self.pause_at))

    def stop(self) -> None:
        """Propose a step after which all ranks save and end."""
        self._move(self._agreement.propose("stop"))

    @property
    def stop_is_sealed(self) -> bool:
        """Whether the checkpoint of the step at which all ranks stop is in memory."""
        return self._stopping_at is not None and self._pipeline.newest == self._stopping_at

    def _move(self, moves: list[Move]) -> None:
        for move in moves:
            if isinstance(move, Propose):
                message: Message = {
                    "type": "propose",
                    "number": move.number,
                    "purpose": move.purpose,
                    "step": move.step,
                    "bound": move.bound,
                }
            else:
                assert isinstance(move, Decide)
                if move.accepted:
                    self._agreed(move.proposal)
                message = {"type": "decide", "number": move.number, "accepted": move.accepted}
            self._send({"type": "tell", "message": message})

    def _agreed(self, proposal: Propose) -> None:
        """All ranks save after this step: nothing else is saved or sent before they have."""
        if proposal.purpose == "bound":
            self._bound = proposal.bound
            return
        checkpoint = CheckpointId(self._generation, proposal.step)
        every, before = self._policy.every_steps, self._saving_step
        if every and proposal.purpose == "save" and before is not None:
            for _ in range((proposal.step - before) // every - 1):
                self._reporter.skipped()
        self._saving_step = proposal.step
        self._saved_at = time.monotonic()
        if proposal.purpose == "stop":
            self._stopping_at = checkpoint
        self._pipeline.agreed(checkpoint, urgent=proposal.purpose == "stop")

    # --- what ranks say ---------------------------------------------------------------------------

    def reached(self, step: int) -> None:
        """A rank is at this step."""
        self._agreement.reached(step)

    def stepped(self, step: int) -> None:
        """A rank has finished a step of this generation."""
        self._distrusted = 0
        self._agreement.reached(step)

    def restored(self, message: Message) -> None:
        """Rank 0 has restored a checkpoint."""
        self._agreement.reached(int(message["step"]))
        from_peer = message["source"] == "memory" and self._fetched
        self._reporter.restored({**message, **({"source": "peer"} if from_peer else {})})

    def on_rank(self, rank: int, message: Message) -> None:
        """Take what a rank says of an agreement or a save."""
        match message["type"]:
            case "promise":
                self._move(self._agreement.promised(int(message["number"]), rank))
            case "refuse":
                self._move(self._agreement.refused(int(message["number"]), int(message["step"])))
            case "sealed":
                self._on_sealed(rank, message)
            case "finishing" | "pausing":
                self._on_finishing(int(message["step"]))
            case "save_failed":
                self._saved(
                    self._committer.abandon(CheckpointId.named_in(message), str(message["message"]))
                )

    def _on_sealed(self, rank: int, message: Message) -> None:
        checkpoint = CheckpointId.named_in(message)
        if not self._alone:
            self._states.add(checkpoint, rank, message["rank_state"])
        self._upload(self._pipeline.sealed(checkpoint, rank))
        if self._pipeline.newest == checkpoint:
            log.debug("checkpoint of step %d is in memory", checkpoint.step)
            if not self._alone:
                own, other = self._placement.ranks(0), next(i for i in self._placement.pods if i)
                self._send({"type": "keep", **self._states.of(checkpoint, own)}, to=other)

    def _on_finishing(self, step: int) -> None:
        self._upload(self._pipeline.ends_at(step))
        committed = self._pipeline.committed
        if committed is not None and committed.step == step:
            # By an earlier generation, whose ranks heard of it: these have not.
            self._send({"type": "tell", "message": {"type": "committed", "step": step}})

    # --- on the way to storage --------------------------------------------------------------------

    def on_uploader(self, message: Message) -> None:
        """Take what an uploader says, except for receipts."""
        match message["type"]:
            case "unsent":  # a worker has already begun to write over it
                self._upload(self._pipeline.failed(CheckpointId.named_in(message)))
            case "failed":
                self._saved(
                    self._committer.abandon(CheckpointId.named_in(message), str(message["failed"]))
                )
            case "waiting":
                self._storage_waits(str(message["message"]))

    async def receipt(self, message: Message) -> None:
        """Take a rank's receipt; with the last one the checkpoint is committed.

        Raises:
            Fenced: this group is over.
        """
        result = await self._committer.receipt(message, self._placement.world_size)
        if result is not None:
            self._saved(result)

    async def send_the_rest(self, seconds: float) -> None:
        """Send what is whole in memory and not in storage yet: memory goes with the pods."""
        rest, deadline = self._pipeline.unsent, time.monotonic() + seconds
        if rest is None or not self._committer.stores:
            return
        log.info("sending the checkpoint of step %d to storage before the pods go", rest.step)
        self._upload(self._pipeline.began(rest))
        while self._pipeline.unsent == rest and (left := deadline - time.monotonic()) > 0:
            self._settled.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._settled.wait(), min(left, 1.0))

    async def settle(self) -> None:
        """Wait for the work in hand, at the end of a group."""
        await self._committer.settle()

    def _upload(self, uploads: list[Upload]) -> None:
        for upload in uploads:
            self._committer.expect(upload.id)
            self._send({"type": "upload", **upload.id.names})

    def _storage_waits(self, why: str) -> None:
        if not self._waiting:
            self._reporter.event("StorageUnavailable", f"storage does not answer: {why}")
        self._waiting = True

    def _saved(self, result: Committed | Abandoned) -> None:
        """A checkpoint has come to an end, one way or the other."""
        told: Message = {"type": "abandoned", "step": result.step}
        self._waiting = False
        if isinstance(result, Committed):
            told["type"] = "committed"
            self._reporter.committed(result, result.seconds)
            self._spawn(self._committer.retire())
            uploads = self._pipeline.stored(result.id)
        else:
            told["message"] = result.message
            uploads = self._pipeline.failed(result.id)
        self._send({"type": "tell", "message": told})
        self._upload(uploads)
        self._settled.set()
