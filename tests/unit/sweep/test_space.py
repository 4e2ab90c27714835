import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweep_worlds import MIXED, SMALL, algorithm, choice, floats, ints, spaces

from headway_api.sweep import SearchParameter
from headway_operator.sweep.space import (
    Continuum,
    Space,
    SpaceError,
    check,
    contains,
    dimension,
    text,
)
from headway_operator.sweep.trial import Scalar

LR = floats("lr", 0.1, 1.0)


def problem(*parameters: SearchParameter, points: list[dict[str, Scalar]] | None = None) -> str:
    with pytest.raises(SpaceError) as caught:
        check(parameters, points or [], algorithm("tpe"))
    said = str(caught.value)
    assert said.endswith(".")
    assert "\n" not in said
    return said


@given(spaces())
def test_any_space_that_is_right_is_let_through(parameters: list[SearchParameter]) -> None:
    check(parameters, [], algorithm("random"))


@pytest.mark.parametrize("name", ["tpe", "random", "gp", "cmaes", "nsgaii", "qmc", "pbt"])
def test_a_mixed_space_suits_every_algorithm_but_the_grid(name: str) -> None:
    check(MIXED, [{"optimizer": "sgd", "nesterov": 1}, {}], algorithm(name))  # type: ignore[arg-type]


def test_a_choice_with_the_same_item_twice_is_refused() -> None:
    assert "choice 1.0 twice" in problem(choice("x", 1, 1.0))
    assert "choice a twice" in problem(choice("x", "a", "b", "a"))
    check([choice("x", 1, True, "1", 0, False, "true")], [], algorithm("tpe"))


def test_a_choice_that_is_no_scalar_is_refused() -> None:
    """The API server lets it pass: schemas have no type for a string or a number."""
    assert 'the choice {"a": 1}: make it a string' in problem(choice("x", 1, {"a": 1}))  # type: ignore[arg-type]
    assert "the choice null" in problem(choice("x", None))  # type: ignore[arg-type]
    assert "the choice inf: make it a finite" in problem(choice("x", math.inf))
    assert "of 2000 characters" in problem(choice("x", "long" * 500))
    assert "initialPoints[0] has for lr [1]:" in problem(LR, points=[{"lr": [1]}])  # type: ignore[dict-item]
    when = {"parameter": "x", "values": [[1]]}
    waiting = SearchParameter.model_validate({"name": "y", "choice": [1], "when": when})
    assert "parameter y waits for [1]" in problem(choice("x", 1), waiting)


def test_a_step_that_leaves_one_value_or_too_many_is_refused() -> None:
    assert "larger than its range" in problem(floats("x", 0.0, 1.0, step=1.5))
    assert "larger than its range" in problem(ints("x", 1, 3, step=5))
    assert "too small" in problem(floats("x", 0.0, 1e20, step=1e-9))
    assert "too small" in problem(floats("x", 1e17, 1.001e17, step=1.0))
    check([ints("x", 3, 3), floats("y", 0.4, 0.5, step=0.1)], [], algorithm("tpe"))


def test_a_range_that_no_float_can_say_is_refused() -> None:
    assert "too wide" in problem(floats("x", -1e308, 1e308))


def test_a_range_that_is_a_point_in_orders_of_magnitude_is_refused() -> None:
    assert "remove log" in problem(ints("x", 2**53 - 1, 2**53, log=True))
    assert "remove log" in problem(floats("x", 1e10, math.nextafter(1e10, 2e10), log=True))


def test_a_condition_on_what_is_not_there_or_comes_later_is_refused() -> None:
    assert "does not stand before it" in problem(choice("x", 1, 2, when=("y", 1)))
    later = problem(choice("x", 1, 2, when=("y", 1)), choice("y", 1, 2))
    assert "does not stand before it" in later


def test_a_condition_that_never_holds_is_refused() -> None:
    y = choice("y", 1, 2)
    assert "to be 3, which it can't be" in problem(y, choice("x", 1, when=("y", 1, 3)))
    assert "to be true, which it can't be" in problem(y, choice("x", 1, when=("y", True)))
    assert "without a step" in problem(LR, choice("x", 1, when=("lr", 0.5)))
    check([ints("y", 0, 9, step=3), choice("x", 1, when=("y", 3, 9))], [], algorithm("tpe"))


def test_names_that_are_the_same_environment_variable_are_refused() -> None:
    said = problem(floats("a.b", 0.0, 1.0), floats("a_b", 0.0, 1.0))
    assert "a.b and a_b would both be HEADWAY_PARAM_A_B" in said
    assert "HEADWAY_PARAM_SEED" in problem(ints("Seed", 0, 9))
    check([ints("seed", 0, 9)], [], algorithm("tpe"))


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ({"rate": 0.5}, "rate, which is no parameter"),
        ({"lr": 2.0}, "2.0 for lr, which is not one of its values"),
        ({"lr": "0.5"}, "0.5 for lr"),
        ({"lr": True}, "true for lr"),
        ({"n": 1.5}, "1.5 for n"),
        ({"n": 2}, "2 for n"),
        ({"opt": "adam", "mom": 0.5}, "only when opt is sgd"),
        ({"mom": 0.5}, "set that too"),
    ],
)
def test_an_initial_point_that_can_not_be_tried_is_refused(
    point: dict[str, Scalar], said: str
) -> None:
    parameters = [
        LR,
        ints("n", 1, 9, step=2),
        choice("opt", "sgd", "adam"),
        floats("mom", 0.0, 1.0, when=("opt", "sgd")),
    ]
    found = problem(*parameters, points=[{}, point])
    assert said in found
    assert "initialPoints[1]" in found


def test_an_initial_point_may_say_1_for_a_float_and_leave_the_rest_out() -> None:
    parameters = [LR, choice("kind", "a"), floats("x", 0.0, 1.0, when=("kind", "a"))]
    check(parameters, [{"lr": 1}, {"x": 0}, {}], algorithm("tpe"))


def test_a_grid_needs_an_end_in_each_direction() -> None:
    with pytest.raises(SpaceError, match="parameter lr is a float without a step"):
        check([LR], [], algorithm("grid"))
    check([*SMALL, ints("many", 0, 2**53), floats("one", 1.0, 1.0)], [], algorithm("grid"))


@pytest.mark.parametrize(
    "parameters",
    [
        [choice("x", 1, 2)],
        [LR, choice("x", 1, 2)],
        [LR, floats("fixed", 1.0, 1.0)],
        [LR, choice("x", 1, 2), floats("y", 0.0, 1.0, when=("x", 1))],
    ],
)
def test_cmaes_needs_two_numbers_in_every_trial(parameters: list[SearchParameter]) -> None:
    with pytest.raises(SpaceError, match="cmaes needs two or more"):
        check(parameters, [], algorithm("cmaes"))


# --- values -------------------------------------------------------------------------------------


@given(spaces(), st.randoms(use_true_random=False))
def test_a_drawn_configuration_is_in_the_space_and_comes_back_unchanged(
    parameters: list[SearchParameter], rng: random.Random
) -> None:
    space = Space(parameters)
    params = space.assembled(lambda _, values: values.at(rng.random()))
    assert contains(parameters, params)
    typed = space.typed(params)
    assert typed is not None
    assert [(k, v, type(v)) for k, v in typed.items()] == [
        (k, v, type(v)) for k, v in params.items()
    ]


@given(spaces(), st.floats(0, 1))
def test_every_value_knows_its_place(parameters: list[SearchParameter], share: float) -> None:
    for parameter in parameters:
        values = dimension(parameter)
        value = values.at(share)
        assert values.typed(value) == value
        if not isinstance(values, Continuum):
            assert values.value(values.place(value)) == value
            if 1 < values.size < 1000:
                assert values.at(values.share(value)) == value
        elif values.size != 1:
            assert 0 <= values.share(value) <= 1


def test_steps_of_a_float_are_what_people_write() -> None:
    values = dimension(floats("x", 0.1, 0.7, step=0.1))
    assert [values.value(place) for place in range(values.size or 0)] == [
        0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7,
    ]  # fmt: skip
    assert values.typed(0.1 + 0.2) == 0.3
    assert values.typed(0.35) is None


def test_the_last_step_is_not_beyond_the_range() -> None:
    assert dimension(floats("x", 0.0, 1.0, step=0.3)).size == 4
    assert dimension(ints("x", 1, 10, step=4)).size == 3


def test_a_choice_keeps_the_type_of_its_items() -> None:
    values = dimension(choice("x", True, 1, "1", 0.0))
    found = [values.typed(given) for given in (True, 1, 1.0, "1", 0, False)]
    assert [repr(each) for each in found] == ["True", "1", "1", "'1'", "0.0", "None"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None, [1], "1", True])
def test_what_is_no_number_is_no_value_of_a_range(bad: object) -> None:
    for parameter in (LR, ints("n", 0, 9), floats("s", 0.0, 9.0, step=1.0)):
        assert dimension(parameter).typed(bad) is None


def test_conditions_hold_through_several_parameters() -> None:
    assert contains(SMALL, {"a": 1, "b": "x"})
    assert contains(SMALL, {"a": 1, "b": "y", "c": 0.3, "d": True})
    assert not contains(SMALL, {"a": 1, "b": "y", "c": 0.3})
    assert not contains(SMALL, {"a": 1, "b": "y", "c": 0.2, "d": True})
    assert not contains(SMALL, {"a": 1, "b": "x", "e": 1})
    assert not contains(SMALL, {"b": "x"})


def test_each_value_has_the_same_piece_of_the_range() -> None:
    values = dimension(ints("x", 0, 3))
    found = [values.at(place / 400) for place in range(400)]
    assert [found.count(value) for value in range(4)] == [100] * 4


def test_log_gives_each_order_of_magnitude_the_same_piece() -> None:
    values = dimension(floats("x", 1e-4, 1.0, log=True))
    found = [float(values.at(place / 400)) for place in range(400)]
    assert sum(value < 1e-2 for value in found) == 200


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_comes_back_from_its_text_to_the_last_bit(value: float) -> None:
    assert float(text(value)).hex() == value.hex()


def test_booleans_are_lower_case_in_a_text() -> None:
    assert [text(v) for v in (True, False, 1, 1.0, "True")] == ["true", "false", "1", "1.0", "True"]
