"""Agreeing on a step: no rank passes an agreed step alone, whatever the timing."""

from __future__ import annotations

import random

import pytest

from headway.agent.agreement import Agreement, Decide, Move, Propose


def test_all_promise_and_the_step_holds() -> None:
    agreement = Agreement(2, step=10)
    assert agreement.propose("save") == [Propose(1, "save", 12)]
    assert agreement.promised(1, 0) == []
    assert agreement.promised(1, 0) == []  # delivered twice
    assert agreement.promised(1, 1) == [Decide(Propose(1, "save", 12), True)]
    assert agreement.open is None


def test_a_save_every_n_steps_lands_on_a_multiple() -> None:
    agreement = Agreement(1, step=49)
    assert agreement.propose("save", every=25) == [Propose(1, "save", 75)]
    assert agreement.refused(1, 80) == [
        Decide(Propose(1, "save", 75), False),
        Propose(2, "save", 100),
    ]


def test_a_stop_waits_for_the_open_proposal_and_then_comes() -> None:
    agreement = Agreement(1, step=5)
    agreement.propose("save")
    assert agreement.propose("stop") == []
    assert agreement.promised(1, 0) == [
        Decide(Propose(1, "save", 7), True),
        Propose(2, "stop", 7),
    ]


def test_a_refusal_goes_on_with_the_stop_that_waited() -> None:
    agreement = Agreement(1, step=5)
    agreement.propose("save")
    agreement.propose("stop")
    moves = agreement.refused(1, 20)
    assert moves[0] == Decide(Propose(1, "save", 7), False)
    assert isinstance(moves[1], Propose)
    assert moves[1].purpose == "stop"
    assert moves[1].step > 20


def test_another_bound_is_proposed_again_until_nobody_is_past_it() -> None:
    agreement = Agreement(1, step=5)
    assert agreement.propose("bound", bound=40) == [Propose(1, "bound", 7, 40)]
    assert agreement.refused(1, 20) == [
        Decide(Propose(1, "bound", 7, 40), False),
        Propose(2, "bound", 24, 40),
    ]
    assert agreement.promised(2, 0) == [Decide(Propose(2, "bound", 24, 40), True)]


def test_answers_to_old_proposals_are_ignored() -> None:
    agreement = Agreement(1)
    agreement.propose("save")
    agreement.refused(1, 9)
    assert agreement.promised(1, 0) == []
    assert agreement.open is not None
    assert agreement.open.number == 2


class Rank:
    """A free-running rank: it halts only at a step that it has promised."""

    def __init__(self) -> None:
        self.step = 0
        self.promised: Propose | None = None
        self.did: list[tuple[str, int]] = []
        self.inbox: list[Move] = []
        self.outbox: list[tuple[str, int, int]] = []

    def advance(self) -> None:
        if self.promised is None or self.promised.step != self.step:
            self.step += 1
            self.outbox.append(("reached", 0, self.step))

    def hear(self) -> None:
        if not self.inbox:
            return
        move = self.inbox.pop(0)
        if isinstance(move, Propose):
            late = self.step >= move.step
            self.outbox.append(("refuse" if late else "promise", move.number, self.step))
            self.promised = self.promised if late else move
        elif self.promised is not None and self.promised.number == move.number:
            if move.accepted:
                assert self.step <= self.promised.step, "passed an agreed step"
                self.did.append((self.promised.purpose, self.promised.step))
            self.promised = None


def answer(agreement: Agreement, index: int, rank: Rank) -> list[Move]:
    """The lead reads one message of a rank."""
    if not rank.outbox:
        return []
    kind, number, step = rank.outbox.pop(0)
    if kind == "promise":
        return agreement.promised(number, index)
    if kind == "refuse":
        return agreement.refused(number, step)
    agreement.reached(step)
    return []


@pytest.mark.parametrize("seed", range(50))
def test_ranks_with_random_delays_always_agree_on_the_same_steps(seed: int) -> None:
    """Free-running ranks, messages of random age: each rank does the same at the same steps."""
    chance = random.Random(seed)
    ranks = [Rank() for _ in range(chance.randint(1, 6))]
    agreement = Agreement(len(ranks))
    for turn in range(8000):
        index = chance.randrange(len(ranks))
        moves: list[Move] = []
        match chance.choices(("advance", "hear", "lead"), (1, 2, 4))[0]:
            case "advance":
                ranks[index].advance()
            case "hear":
                ranks[index].hear()
            case _:
                moves += answer(agreement, index, ranks[index])
        if turn % 300 == 0:
            moves += agreement.propose("save", chance.choice((None, 5)))
        for rank in ranks:
            rank.inbox += moves
    longest = max((rank.did for rank in ranks), key=len)
    assert len(longest) >= 3
    for rank in ranks:
        assert rank.did == longest[: len(rank.did)]
        assert len(rank.did) >= len(longest) - 1  # the last decision may still be under way
