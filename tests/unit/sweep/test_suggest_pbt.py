import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweep_worlds import MIXED, floats, ints, request

from headway_api.sweep import Pbt
from headway_operator.sweep.space import Space, contains
from headway_operator.sweep.suggest import suggest
from headway_operator.sweep.suggest.pbt import Due, due, explored
from headway_operator.sweep.trial import Direction, Scalar, Trial

PBT = Pbt(population=8, steps_per_generation=100, generations=4, quantile=0.25)


class World:
    """A controller that does one thing at a time, and trials that train by turns."""

    def __init__(self, pbt: Pbt, seed: int, direction: Direction = "Minimize") -> None:
        self.pbt, self.direction = pbt, direction
        self.rng = random.Random(seed)
        self.trials: dict[int, Trial] = {}
        self.most = 10**6
        self.failing = 0.0

    def due(self) -> Due:
        more = self.most - len(self.trials)
        return due(self.pbt, self.direction, list(self.trials.values()), "7", more)

    def act(self, found: Due) -> bool:
        """Do one of the things that are due; which is for chance to say."""
        acts = [
            *[lambda: self.make(found.until)] * bool(found.new),
            *[lambda i=i, to=to: self.promote(i, to) for i, to in found.promote],
            *[lambda i=i: self.set(i, state="Stopped") for i, _ in found.stop],
        ]
        if acts:
            self.rng.choice(acts)()
        return bool(acts)

    def make(self, until: int | None) -> None:
        index = len(self.trials)
        known = list(self.trials.values())
        goal = [self.direction]
        asked = request(MIXED, "pbt", index, known, directions=goal, pbt=self.pbt)
        found = suggest(asked)
        start = found.attrs["pbt"]["step"] if found.attrs else 0
        self.trials[index] = Trial(
            index, found.params, "Running", step=start, until=until, attrs=found.attrs
        )

    def promote(self, index: int, until: int) -> None:
        self.set(index, state="Running", until=until)

    def set(self, index: int, **fields: object) -> None:
        self.trials[index] = replace(self.trials[index], **fields)  # type: ignore[arg-type]

    def train(self) -> bool:
        """One trial comes to its pause, or fails."""
        running = [trial for trial in self.trials.values() if trial.state == "Running"]
        if not running:
            return False
        trial = self.rng.choice(running)
        if self.rng.random() < self.failing:
            self.set(trial.index, state="Failed")
        else:
            values = (self.rng.random(),)
            self.set(trial.index, state="Paused", step=trial.until, values=values)
        return True

    def run(self) -> list[Trial]:
        for _ in range(10_000):
            turn = [lambda: self.act(self.due()), self.train]
            self.rng.shuffle(turn)
            if not (turn[0]() or turn[1]()):
                assert self.due().over
                return list(self.trials.values())
        raise AssertionError("no end")


def copies(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.attrs]


def paused(values: Sequence[float | None], until: int = 100) -> list[Trial]:
    return [
        Trial(
            i,
            suggest(request(MIXED, "pbt", i)).params,
            "Failed" if value is None else "Paused",
            None if value is None else (value,),
            step=until,
            until=until,
        )
        for i, value in enumerate(values)
    ]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.02, 0.2]))
def test_a_population_comes_to_its_end_however_things_interleave(seed: int, failing: float) -> None:
    world = World(PBT, seed)
    world.failing = failing
    trials = world.run()
    assert all(trial.ended for trial in trials)
    assert all((trial.until or 0) <= 400 for trial in trials)
    sources = [trial.attrs["pbt"] for trial in copies(trials)]
    assert len({own["replaces"] for own in sources}) == len(sources)
    assert all(own["from"] != own["replaces"] for own in sources)
    if not failing:  # two of eight, after each generation but the last
        assert len(trials) == 8 + 3 * 2
        assert sum(trial.step == 400 for trial in trials) == 8


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(0, 2**32))
def test_the_order_of_the_writes_changes_no_copy(first: int, second: int) -> None:
    """Whatever was done before a crash, what comes after does the rest."""

    def made(seed: int) -> list[tuple[object, ...]]:
        world = World(PBT, seed)
        world.trials = {trial.index: trial for trial in paused([5, 1, 7, 3, 8, 2, 6, 4])}
        while world.act(world.due()):
            pass
        return [(t.index, t.params, t.state, t.until, t.attrs) for t in world.trials.values()]

    assert made(first) == made(second)


def test_the_worst_are_replaced_by_copies_of_the_best() -> None:
    for direction, best, worst in (("Minimize", {1, 5}, [2, 4]), ("Maximize", {2, 4}, [1, 5])):
        world = World(PBT, 1, direction)  # type: ignore[arg-type]
        world.trials = {trial.index: trial for trial in paused([5, 1, 7, 3, 8, 2, 6, 4])}
        while world.act(world.due()):
            pass
        found = [trial.attrs["pbt"] for trial in copies(list(world.trials.values()))]
        assert [own["replaces"] for own in found] == worst
        assert {own["from"] for own in found} <= best
        assert [(own["generation"], own["step"]) for own in found] == [(1, 100)] * 2
        assert [i for i, t in world.trials.items() if t.state == "Stopped"] == worst
        assert all(t.until == 200 for t in world.trials.values() if t.state == "Running")


def test_no_member_goes_on_before_all_copies_are_made() -> None:
    world = World(PBT, 1)
    world.trials = {trial.index: trial for trial in paused([5, 1, 7, 3, 8, 2, 6, 4])}
    for left in (2, 1):
        found = world.due()
        assert (found.new, found.until, found.promote) == (left, 200, ())
        world.make(found.until)
    assert len(world.due().promote) == 6


def test_what_failed_is_replaced_as_well() -> None:
    world = World(PBT, 1)
    world.trials = {trial.index: trial for trial in paused([5, None, None, None, 8, 2, 6, 4])}
    while world.act(world.due()):
        pass
    found = [trial.attrs["pbt"]["replaces"] for trial in copies(list(world.trials.values()))]
    assert found == [1, 2, 3]


def test_a_population_that_failed_as_a_whole_is_over() -> None:
    trials = paused([None] * 8)
    assert due(PBT, "Minimize", trials, "7") == Due(over=True)


def test_without_trials_left_to_make_all_members_go_on() -> None:
    trials = paused([5, 1, 7, 3, 8, 2, 6, 4])
    found = due(PBT, "Minimize", trials, "7", more=0)
    assert found.promote == tuple((index, 200) for index in range(8))
    assert not found.new


def test_a_limit_on_trials_ends_the_copies_but_not_the_training() -> None:
    world = World(PBT, 3)
    world.most = 9
    trials = world.run()
    assert len(trials) == 9
    assert sum(trial.step == 400 for trial in trials) == 8


def test_members_that_still_train_are_waited_for() -> None:
    trials = paused([5, 1, 7, 3, 8, 2, 6, 4])
    trials[3] = replace(trials[3], state="Running", step=40)
    assert due(PBT, "Minimize", trials, "7") == Due()
    with pytest.raises(ValueError, match="no trial"):
        suggest(request(MIXED, "pbt", 8, trials, pbt=PBT))


def test_after_the_last_generation_the_members_are_stopped() -> None:
    found = due(PBT, "Minimize", paused([1.0] * 8, until=400), "7")
    assert [index for index, _ in found.stop] == list(range(8))
    assert found.over


def test_a_copy_has_other_parameters_than_its_source() -> None:
    world = World(PBT, 1)
    world.trials = {trial.index: trial for trial in paused([5, 1, 7, 3, 8, 2, 6, 4])}
    while world.act(world.due()):
        pass
    for trial in copies(list(world.trials.values())):
        source = world.trials[trial.attrs["pbt"]["from"]]
        assert trial.params != source.params
        assert contains(MIXED, trial.params)


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.5, 1.0]))
def test_explored_parameters_are_in_the_space(seed: int, resample: float) -> None:
    params = suggest(request(MIXED, "random", seed % 50)).params
    found = explored(Space(MIXED), params, resample, random.Random(seed))
    assert contains(MIXED, found)


def test_numbers_are_multiplied_and_whole_ones_move_at_least_a_step() -> None:
    space = Space([floats("x", 0.0, 10.0), ints("n", 1, 9), floats("s", 0.0, 1.0, step=0.1)])
    params: dict[str, Scalar] = {"x": 5.0, "n": 2, "s": 0.5}
    found = [explored(space, params, 0.0, random.Random(seed)) for seed in range(40)]
    assert {each["x"] for each in found} == {4.0, 6.0}
    assert {each["n"] for each in found} == {1, 3}
    assert {each["s"] for each in found} == {0.4, 0.6}
