"""A rank and its agent, over a real socket: what was agreed happens at that step, or not at all."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headway.train import link as link_module
from headway.train.link import AgentLink
from headway_api import contract


class Agent:
    """The other end."""

    def __init__(self, path: Path) -> None:
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._connection: socket.socket | None = None

    def accept(self) -> None:
        self._connection, _ = self._server.accept()
        self._lines = self._connection.makefile("rb")

    def hear(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._lines.readline())
        return message

    def say(self, **message: Any) -> None:
        assert self._connection is not None
        self._connection.sendall(json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        self.hang_up()
        self._server.close()

    def hang_up(self) -> None:
        if self._connection is not None:
            self._lines.close()
            self._connection.close()
        self._connection = None


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    path = tmp_path / "agent.sock"
    monkeypatch.setenv(contract.ENV_AGENT_SOCKET, str(path))
    agent = Agent(path)
    yield agent
    agent.close()


@pytest.fixture
def link(agent: Agent) -> Iterator[AgentLink]:
    link = AgentLink(rank=1, generation=4)
    agent.accept()
    hello = agent.hear()
    assert (hello["rank"], hello["generation"]) == (1, 4)
    yield link
    link.close()


def propose(
    agent: Agent, number: int, step: int, purpose: str = "save", **more: Any
) -> dict[str, Any]:
    agent.say(type="propose", number=number, step=step, purpose=purpose, **more)
    return agent.hear()


def test_a_proposed_step_is_promised_and_waited_at(agent: Agent, link: AgentLink) -> None:
    assert propose(agent, 1, step=2) == {"type": "promise", "number": 1}
    assert link.passed(1) is None
    decide = threading.Timer(
        0.1, agent.say, kwargs={"type": "decide", "number": 1, "accepted": True}
    )
    decide.start()
    assert link.passed(2) == "save"
    decide.join()
    assert link.passed(3) is None


def test_a_step_that_is_past_is_refused_with_where_we_are(agent: Agent, link: AgentLink) -> None:
    link.passed(7)
    assert propose(agent, 1, step=7) == {"type": "refuse", "number": 1, "step": 7}
    assert link.passed(8) is None


def test_a_withdrawn_proposal_does_nothing(agent: Agent, link: AgentLink) -> None:
    propose(agent, 1, step=2)
    agent.say(type="decide", number=1, accepted=False)
    assert link.passed(2) is None


def test_at_its_bound_a_rank_pauses_whatever_else_was_agreed(agent: Agent, link: AgentLink) -> None:
    link.bound = 3
    propose(agent, 1, step=3, purpose="stop")
    agent.say(type="decide", number=1, accepted=True)
    assert link.passed(2) is None
    assert link.passed(3) == "pause"


@pytest.mark.parametrize(("bound", "then"), [(None, None), (9, None), (4, "pause"), (1, "pause")])
def test_another_bound_holds_from_the_agreed_step_on(
    agent: Agent, link: AgentLink, bound: int | None, then: str | None
) -> None:
    link.bound = 6
    propose(agent, 1, step=4, purpose="bound", bound=bound)
    agent.say(type="decide", number=1, accepted=True)
    assert link.passed(3) is None
    assert link.passed(4) == then
    assert link.bound == bound
    assert link.passed(6) == then


def test_a_bound_that_was_withdrawn_changes_nothing(agent: Agent, link: AgentLink) -> None:
    link.bound = 6
    propose(agent, 1, step=4, purpose="bound", bound=None)
    agent.say(type="decide", number=1, accepted=False)
    assert link.passed(4) is None
    assert link.passed(6) == "pause"


def test_a_lead_that_never_decides_ends_the_rank_loudly(
    agent: Agent, link: AgentLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_DECISION_SECONDS", 0.1)
    propose(agent, 1, step=1, purpose="stop")
    with pytest.raises(RuntimeError, match="whether to stop at step 1"):
        link.passed(1)


def test_a_commit_is_waited_for(agent: Agent, link: AgentLink) -> None:
    agent.say(type="committed", step=10)
    assert link.refusal(10) is None
    agent.say(type="abandoned", step=20, message="no")
    assert link.refusal(20) == "no"


def test_nobody_waits_for_an_agent_that_is_gone(agent: Agent, link: AgentLink) -> None:
    agent.hang_up()
    assert "gone" in str(link.refusal(5))


def test_without_an_agent_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(contract.ENV_AGENT_SOCKET, raising=False)
    link = AgentLink(0, 1)
    link.attach(0)
    assert not link.connected
    assert link.passed(1) is None
    assert link.refusal(1) is not None
