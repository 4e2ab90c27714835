"""A worker's side of its agent's socket (see `headway.agent.worker_link`).

One thread reads; the training thread only looks at attributes, so that a step costs nothing.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import socket
import threading
from dataclasses import dataclass, field
from typing import Any, Literal

from headway.zygote.protocol import STACKS_SIGNAL
from headway_api import contract

Message = dict[str, Any]
_POLL_SECONDS = 1.0
_DECISION_SECONDS = 30.0
"""Longest wait at a proposed step for the lead's answer. The lead answers within milliseconds,
and when it is gone, so are we: its agent kills this process."""


@dataclass
class _Proposal:
    number: int
    purpose: Literal["save", "stop", "bound"]
    step: int
    bound: int | None = None
    decided: threading.Event = field(default_factory=threading.Event)
    accepted: bool = False


class AgentLink:
    """Talks with the agent; without an agent every call does nothing.

    Args:
        rank: Global rank of this process.
        generation: Generation it belongs to.
    """

    def __init__(self, rank: int, generation: int) -> None:
        self.connected = False
        self._lock = threading.Lock()
        self._step = 0
        self._proposal: _Proposal | None = None
        self._news = threading.Condition()
        self._committed_step = -1
        self._abandoned: dict[int, str] = {}
        self._answers: dict[int, Message] = {}
        self._asked = 0
        self.bound: int | None = None
        """The step after which all ranks pause; None for never."""
        self.held: int | None = None
        """The slot that is on its way to storage; it must not be written to."""
        self._path = os.environ.get(contract.ENV_AGENT_SOCKET)
        if not self._path:
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(self._path)
        self.connected = True
        # The agent asks with this signal when nothing moves any more.
        faulthandler.register(STACKS_SIGNAL, all_threads=True)
        self.send({"type": "hello", "rank": rank, "generation": generation, "pid": os.getpid()})
        self._reader = threading.Thread(target=self._read, name="headway-agent", daemon=True)
        self._reader.start()

    def close(self) -> None:
        """End the connection."""
        if not self._path:
            return
        with contextlib.suppress(OSError):  # the agent may have been faster
            self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._socket.close()

    def attach(self, step: int) -> None:
        """Say that this rank takes part in agreements, from `step` on."""
        self._step = step
        self.send({"type": "attach", "step": step})

    def send(self, message: Message) -> None:
        """Send a message; an agent that is gone is about to end this process anyway."""
        if not self.connected:
            return
        data = json.dumps(message).encode() + b"\n"
        try:
            with self._lock:
                self._socket.sendall(data)
        except OSError:
            self.connected = False

    def ask(self, question: Message) -> Message:
        """Send a question and wait for the agent's answer.

        Raises:
            RuntimeError: the agent is gone; it takes this process with it.
        """
        with self._news:
            self._asked += 1
            number = self._asked
        self.send({**question, "ask": number})
        with self._news:
            while self.connected and number not in self._answers:
                self._news.wait(_POLL_SECONDS)
            if number not in self._answers:
                raise RuntimeError("the agent of this pod is gone")
            return self._answers.pop(number)

    def passed(self, step: int) -> Literal["save", "stop", "pause"] | None:
        """Note that `step` is finished; returns what all ranks do after this very step.

        Waits for the lead's decision if this step is proposed for something.

        Raises:
            RuntimeError: the lead does not answer, though it is there.
        """
        agreed = self._agreed(step)
        if agreed is not None and agreed.purpose == "bound":
            self.bound = agreed.bound
        if self.is_bound(step):
            return "pause"
        return None if agreed is None or agreed.purpose == "bound" else agreed.purpose

    def is_bound(self, step: int) -> bool:
        """Whether the training goes no further than this step."""
        return self.bound is not None and step >= self.bound

    def _agreed(self, step: int) -> _Proposal | None:
        with self._lock:
            self._step = step
            proposal = self._proposal
        if proposal is None or proposal.step != step:
            return None
        if not proposal.decided.wait(_DECISION_SECONDS):
            # Going on alone would leave the others with a checkpoint that is never complete.
            raise RuntimeError(
                f"no word from the lead within {_DECISION_SECONDS:g} s whether to "
                f"{proposal.purpose} at step {step}; see the log of worker 0"
            )
        return proposal if proposal.accepted else None

    def refusal(self, step: int) -> str | None:
        """Wait until the checkpoint of `step` is committed, or can't be any more.

        Returns:
            None if it is committed, else why it can't be: the lead has given it up, or the agent
            is gone.
        """
        with self._news:
            while self.connected and step not in self._abandoned:
                if self._committed_step >= step:
                    return None
                self._news.wait(_POLL_SECONDS)
        return self._abandoned.get(step, "the agent of this pod is gone")

    def _read(self) -> None:
        with self._socket.makefile("rb") as lines:
            for line in lines:
                self._handle(json.loads(line))
        self.connected = False

    def _handle(self, message: Message) -> None:
        match message["type"]:
            case "propose":
                self.send(self._answer(message))
            case "decide":
                proposal = self._proposal
                if proposal is not None and proposal.number == message["number"]:
                    proposal.accepted = bool(message["accepted"])
                    proposal.decided.set()
            case "answer":
                with self._news:
                    self._answers[int(message["ask"])] = message
                    self._news.notify_all()
            case "held":
                self.held = message["slot"]
            case "committed":
                with self._news:
                    self._committed_step = max(self._committed_step, int(message["step"]))
                    self._news.notify_all()
            case "abandoned":
                with self._news:
                    self._abandoned[int(message["step"])] = str(message["message"])
                    self._news.notify_all()

    def _answer(self, message: Message) -> Message:
        """Promise to halt at the proposed step, or say that it is too late for it."""
        proposal = _Proposal(
            int(message["number"]),
            message["purpose"],
            int(message["step"]),
            message.get("bound"),
        )
        with self._lock:
            step = self._step
            if step >= proposal.step:
                return {"type": "refuse", "number": proposal.number, "step": step}
            self._proposal = proposal
        return {"type": "promise", "number": proposal.number}
