import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweep_worlds import SMALL, choice, complete, ints, request, searched

from headway_operator.sweep.space import Space
from headway_operator.sweep.suggest import SpaceExhausted, suggest
from headway_operator.sweep.suggest.grid import points
from headway_operator.sweep.trial import Scalar, Trial

ALL = 3 * (1 + 3 + 2)


def key(trial: Trial) -> str:
    return repr(sorted(trial.params.items()))


def test_a_grid_is_tried_as_a_whole_and_nothing_twice() -> None:
    trials = searched(SMALL, "grid", ALL)
    assert len({key(trial) for trial in trials}) == ALL
    with pytest.raises(SpaceExhausted):
        suggest(request(SMALL, "grid", ALL, trials))


def test_the_first_parameter_changes_slowest() -> None:
    found = list(points(Space(SMALL)))
    assert [params["a"] for params in found] == [1] * 6 + [2] * 6 + [3] * 6
    assert found[:6] == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y", "c": 0.0},
        {"a": 1, "b": "y", "c": 0.1},
        {"a": 1, "b": "y", "c": 0.2},
        {"a": 1, "b": "y", "c": 0.3, "d": True},
        {"a": 1, "b": "y", "c": 0.3, "d": 1},
    ]


def test_initial_points_are_not_tried_again() -> None:
    given_: list[dict[str, Scalar]] = [{"a": 3, "b": "x"}, {"a": 1, "b": "y", "c": 0.3, "d": 1}]
    trials = searched(SMALL, "grid", ALL, initial_points=given_)
    assert len({key(trial) for trial in trials}) == ALL


def test_what_another_sweep_has_tried_is_not_tried_again() -> None:
    warm = searched(SMALL, "grid", 7)
    lost = Trial(7, {"a": 2, "b": "y", "c": 0.0}, "Failed")
    trials = searched(SMALL, "grid", ALL - 7, warm=[*warm, lost])
    assert len({key(trial) for trial in [*warm, *trials]}) == ALL


def test_a_trial_that_somebody_deleted_is_tried_again() -> None:
    trials = searched(SMALL, "grid", ALL)
    found = suggest(request(SMALL, "grid", ALL, [*trials[:4], *trials[5:]]))
    assert found.params == trials[4].params


@given(st.sets(st.integers(0, ALL - 1)))
def test_whichever_are_tried_the_next_is_the_first_of_the_others(tried: set[int]) -> None:
    every = list(points(Space(SMALL)))
    trials = [Trial(i, every[place], "Running") for i, place in enumerate(sorted(tried))]
    left = [params for place, params in enumerate(every) if place not in tried]
    if left:
        assert suggest(request(SMALL, "grid", len(trials), trials)).params == left[0]
    else:
        with pytest.raises(SpaceExhausted):
            suggest(request(SMALL, "grid", len(trials), trials))


def test_a_grid_without_end_is_made_as_it_is_needed() -> None:
    parameters = [ints("a", 0, 2**53), choice("b", 1, 2)]
    found = suggest(request(parameters, "grid", 0))
    assert found.params == {"a": 0, "b": 1}
    known = [complete(0, found, 1.0)]
    assert suggest(request(parameters, "grid", 1, known)).params == {"a": 0, "b": 2}
