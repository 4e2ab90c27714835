"""Random number generators: what was drawn after a capture is drawn again after a restore."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
import torch

from headway.train import rng


def draw() -> list[Any]:
    # A single normal number leaves the second of its pair behind in Python and NumPy.
    numbers = [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn()]
    return [*numbers, *torch.rand(3).tolist(), torch.randn(1).item()]


@pytest.mark.parametrize("before", range(3))
def test_all_generators_go_on_where_they_were(before: int) -> None:
    for _ in range(before):
        draw()
    state = json.loads(json.dumps(rng.capture().as_json()))
    first = draw()
    draw()
    rng.restore(state)
    assert draw() == first


def test_preserved_generators_are_put_back_even_after_an_error() -> None:
    state = rng.capture().as_json()

    def fail() -> None:
        with rng.preserved():
            rng.seed_for(1)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert rng.capture().as_json() == state


def test_a_seed_stands_for_what_it_is_for() -> None:
    drawn = []
    for what in [(1, 2, 3), (1, 2, 4), (1, 23, 0), (12, 3, 0), (1, 2, 3)]:
        rng.seed_for(*what)
        drawn.append(draw())
    assert drawn[0] == drawn[-1]
    assert len({tuple(each) for each in drawn}) == 4


class Gpus:
    """As many as you like."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
        self.states = [torch.full((16,), number, dtype=torch.uint8) for number in range(count)]
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: list(self.states))
        monkeypatch.setattr(torch.cuda, "set_rng_state_all", self.set)

    def set(self, states: Any) -> None:
        for number, state in enumerate(states):
            self.states[number] = state


@pytest.mark.parametrize(("before", "after"), [(2, 2), (2, 1), (1, 2), (2, 0)])
def test_the_generator_of_every_gpu_goes_on(
    monkeypatch: pytest.MonkeyPatch, before: int, after: int
) -> None:
    saved = Gpus(monkeypatch, before).states
    state = json.loads(json.dumps(rng.capture().as_json()))
    now = Gpus(monkeypatch, after)
    now.states = [each + 100 for each in now.states]
    rng.restore(state)
    common = min(before, after)
    assert [s.tolist() for s in now.states[:common]] == [s.tolist() for s in saved[:common]]
    assert all(state[0] >= 100 for state in now.states[common:])
