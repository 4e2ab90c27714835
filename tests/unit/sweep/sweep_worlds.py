"""Search spaces and trials for the tests of sweeps."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from headway_api.sweep import Algorithm, Pbt, SearchAlgorithm, SearchParameter
from headway_operator.sweep.suggest import Request, Suggestion, suggest
from headway_operator.sweep.trial import Direction, Scalar, Trial

ALGORITHMS: tuple[Algorithm, ...] = ("tpe", "random", "grid", "gp", "cmaes", "nsgaii", "qmc", "pbt")
SEVERAL: tuple[Algorithm, ...] = ("tpe", "random", "grid", "gp", "nsgaii", "qmc")
"""Those that know several objectives."""


def floats(name: str, low: float, high: float, **more: Any) -> SearchParameter:
    return parameter(name, float={"min": low, "max": high, **_own(more)}, **_when(more))


def ints(name: str, low: int, high: int, **more: Any) -> SearchParameter:
    return parameter(name, int={"min": low, "max": high, **_own(more)}, **_when(more))


def choice(name: str, *items: Scalar, **more: Any) -> SearchParameter:
    return parameter(name, choice=list(items), **_when(more))


def parameter(name: str, **fields: Any) -> SearchParameter:
    return SearchParameter.model_validate({"name": name, **fields})


def _own(more: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in more.items() if key != "when"}


def _when(more: Mapping[str, Any]) -> dict[str, Any]:
    """`when=("optimizer", "sgd", "adam")`."""
    if "when" not in more:
        return {}
    other, *values = more["when"]
    return {"when": {"parameter": other, "values": values}}


def algorithm(name: Algorithm, **more: Any) -> SearchAlgorithm:
    if name == "pbt":
        more.setdefault("pbt", Pbt(steps_per_generation=100, population=1000))
    more.setdefault("startup_trials", 4)
    return SearchAlgorithm(name=name, **more)


MIXED = [
    floats("lr", 1e-5, 1.0, log=True),
    floats("momentum", 0.0, 1.0),
    ints("layers", 1, 8),
    ints("width", 8, 512, log=True),
    floats("dropout", 0.0, 0.5, step=0.1),
    choice("flag", True, 1, "1", False),
    choice("optimizer", "sgd", "adam"),
    floats("nesterov", 0.0, 1.0, when=("optimizer", "sgd")),
    ints("beta", 1, 9, step=2, when=("optimizer", "adam")),
    choice("deep", "a", "b", when=("beta", 3, 9)),
    choice("fixed", "only"),
]
SMALL = [
    ints("a", 1, 3),
    choice("b", "x", "y"),
    floats("c", 0.0, 0.3, step=0.1, when=("b", "y")),
    choice("d", True, 1, when=("c", 0.3)),
]
"""Has an end: 3 · (1 + 3 + 2) configurations."""


def space_of(name: Algorithm) -> list[SearchParameter]:
    return SMALL if name == "grid" else MIXED


def loss(params: Mapping[str, Scalar]) -> float:
    """Something that all of the mixed space matters to."""
    return sum(_badness(name, value) for name, value in sorted(params.items()))


def _badness(name: str, value: Scalar) -> float:
    if name in {"lr", "width"}:
        return abs(math.log(float(value)) + 3.0)
    if isinstance(value, str | bool):
        return 0.5 * (len(str(value)) % 3)
    return (float(value) - 0.3) ** 2


def request(
    parameters: Sequence[SearchParameter],
    name: Algorithm,
    index: int,
    trials: Sequence[Trial] = (),
    *,
    directions: Sequence[Direction] = ("Minimize",),
    seed: str = "7",
    warm: Sequence[Trial] = (),
    initial_points: Sequence[Mapping[str, Scalar]] = (),
    **settings: Any,
) -> Request:
    return Request(
        parameters=parameters,
        directions=directions,
        algorithm=algorithm(name, **settings),
        index=index,
        seed=seed,
        trials=trials,
        warm=warm,
        initial_points=initial_points,
    )


def complete(index: int, suggestion: Suggestion, *values: float) -> Trial:
    return Trial(index, suggestion.params, "Complete", values, attrs=suggestion.attrs)


def searched(
    parameters: Sequence[SearchParameter],
    name: Algorithm,
    count: int,
    value: Callable[[Mapping[str, Scalar]], float] = loss,
    answer: Callable[[Request], Suggestion] = suggest,
    **more: Any,
) -> list[Trial]:
    """A sweep, one trial after the other."""
    trials: list[Trial] = []
    for index in range(count):
        found = answer(request(parameters, name, index, trials, **more))
        trials.append(complete(index, found, value(found.params)))
    return trials


# --- any space ----------------------------------------------------------------------------------

_ITEMS = st.one_of(
    st.booleans(),
    st.integers(-5, 5),
    st.floats(-1e6, 1e6, allow_nan=False),
    st.text(max_size=3),
)


@st.composite
def spaces(draw: st.DrawFn) -> list[SearchParameter]:
    """Any space of up to five parameters that is right."""
    found: list[SearchParameter] = []
    for number in range(draw(st.integers(1, 5))):
        more: dict[str, Any] = {}
        others = [each for each in found if each.float_ is None]
        if others and draw(st.booleans()):
            other = draw(st.sampled_from(others))
            more["when"] = (other.name, *draw(_some_of(other)))
        found.append(draw(_parameters(f"p{number}", more)))
    return found


@st.composite
def _parameters(draw: st.DrawFn, name: str, more: dict[str, Any]) -> SearchParameter:
    kind = draw(st.sampled_from(["float", "log", "stepped", "int", "intlog", "choice"]))
    if kind == "choice":
        items = draw(
            st.lists(_ITEMS, min_size=1, max_size=5, unique_by=lambda v: (v, type(v) is bool))
        )
        return choice(name, *items, **more)
    if kind == "stepped":
        low = draw(st.integers(-100, 100)) / 10
        steps, step = draw(st.integers(1, 12)), draw(st.sampled_from([0.1, 0.25, 1.0, 0.007]))
        return floats(name, low, round(low + steps * step, 6), step=step, **more)
    if kind in {"float", "log"}:
        limits = (1e-300, 1e300) if kind == "log" else (-1e300, 1e300)
        low, high = sorted(draw(st.tuples(st.floats(*limits), st.floats(*limits))))
        high = low if kind == "log" and high < 1.01 * low else high
        return floats(name, low, high, log=kind == "log", **more)
    limits_ = (1, 2**53) if kind == "intlog" else (-(2**53), 2**53)
    first = draw(st.integers(*limits_))
    last = min(first + draw(st.one_of(st.integers(0, 20), st.integers(0, 2**53))), 2**53)
    last = first if kind == "intlog" and last < 1.01 * first else last
    step_ = draw(st.sampled_from([1, 2, 7])) if kind == "int" else 1
    if step_ > 1 and step_ > last - first:
        step_ = 1
    return ints(name, first, last, log=kind == "intlog", step=step_, **more)


def _some_of(other: SearchParameter) -> st.SearchStrategy[list[Scalar]]:
    if other.choice is not None:
        return st.lists(st.sampled_from(other.choice), min_size=1, max_size=2)
    assert other.int_ is not None
    last = (other.int_.max - other.int_.min) // other.int_.step
    places = st.integers(0, min(last, 3))
    low, step = other.int_.min, other.int_.step
    return st.lists(places.map(lambda place: low + place * step), min_size=1, max_size=2)


VALUES = st.one_of(
    st.floats(-10, 10),
    st.sampled_from([0.0, math.inf, -math.inf, math.nan, 1e308, -1e308]),
)


@st.composite
def histories(
    draw: st.DrawFn, parameters: Sequence[SearchParameter], objectives: int = 1, most: int = 12
) -> list[Trial]:
    """Trials as they may be: of any state and value, some of them lost."""
    trials: list[Trial] = []
    for index in range(draw(st.integers(0, most))):
        if draw(st.integers(0, 9)) == 0:
            continue
        found = suggest(request(parameters, "random", index, seed=str(draw(st.integers(0, 3)))))
        values = draw(st.one_of(st.none(), st.tuples(*[VALUES] * objectives)))
        state = draw(st.sampled_from(["Running", "Paused", "Complete", "Stopped", "Failed"]))
        until = draw(st.sampled_from([None, 10, 30]))
        step = draw(st.sampled_from([0, 10, 30, 50]))
        trials.append(Trial(index, found.params, state, values, step=step, until=until))
    return trials
