"""Published test functions for search algorithms; each is minimized.

Sources: Surjanovic and Bingham, Virtual Library of Simulation Experiments; Zitzler, Deb and Thiele,
Comparison of Multiobjective Evolutionary Algorithms, 2000 (ZDT); Jenatton et al., Bayesian
Optimization with Tree-structured Dependencies, ICML 2017; Ru et al., Bayesian Optimisation over
Multiple Continuous and Categorical Inputs, ICML 2020 (Func-2C).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from headway_api.sweep import FloatRange, IntRange, SearchParameter, When
from headway_operator.sweep.trial import Scalar

Params = Mapping[str, Scalar]


@dataclass(frozen=True)
class Problem:
    """A function and where it is searched.

    Attributes:
        name: Of the function.
        parameters: The search space.
        values: Of a configuration, one for each objective; the number is the seed of what is random
            in it, the same for all who search side by side.
        objectives: How many there are.
        noise: Standard deviation of what a search is told, around the true value. What it is judged
            by is the true value of the trial that it was told to be the best.
        reference: With two objectives, up to where their hypervolume is counted.
    """

    name: str
    parameters: Sequence[SearchParameter]
    values: Callable[[Params, int], tuple[float, ...]]
    objectives: int = 1
    noise: float = 0.0
    reference: tuple[float, float] = (1.1, 11.0)


def floats(name: str, low: float, high: float, **fields: Any) -> SearchParameter:
    """A parameter of real numbers; `log`, `step` and `when` as in the API."""
    when = fields.pop("when", None)
    return SearchParameter(name=name, float_=FloatRange(min=low, max=high, **fields), when=when)


def _box(
    name: str,
    function: Callable[[list[float]], float],
    *ranges: tuple[float, float],
    noise: float = 0.0,
) -> Problem:
    parameters = [floats(f"x{i}", low, high) for i, (low, high) in enumerate(ranges)]
    return Problem(name, parameters, lambda params, _: (function(_vector(params)),), noise=noise)


def _vector(params: Params) -> list[float]:
    return [float(params[f"x{i}"]) for i in range(len(params))]


def sphere(x: list[float]) -> float:
    return sum((v - 1.0) ** 2 for v in x)


def rosenbrock(x: list[float]) -> float:
    return sum(100.0 * (b - a * a) ** 2 + (1.0 - a) ** 2 for a, b in pairwise(x))


def ackley(x: list[float]) -> float:
    x = [v - 3.0 for v in x]
    far = math.sqrt(sum(v * v for v in x) / len(x))
    waves = sum(math.cos(2 * math.pi * v) for v in x) / len(x)
    return -20.0 * math.exp(-0.2 * far) - math.exp(waves) + 20.0 + math.e


def rastrigin(x: list[float]) -> float:
    x = [v - 1.3 for v in x]
    return sum(v * v - 10.0 * math.cos(2 * math.pi * v) + 10.0 for v in x)


def branin(x: list[float]) -> float:
    a, b = x
    bowl = b - 5.1 / (4 * math.pi**2) * a * a + 5 / math.pi * a - 6
    return bowl**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(a) + 10


def hartmann6(x: list[float]) -> float:
    total = 0.0
    for weight, scales, centre in zip(_ALPHA, _A, _P, strict=True):
        terms = zip(scales, x, centre, strict=True)
        total += weight * math.exp(-sum(s * (v - c * 1e-4) ** 2 for s, v, c in terms))
    return -total


_ALPHA = (1.0, 1.2, 3.0, 3.2)
_A = (
    (10, 3, 17, 3.5, 1.7, 8),
    (0.05, 10, 17, 0.1, 8, 14),
    (3, 3.5, 1.7, 10, 17, 8),
    (17, 8, 0.05, 10, 0.1, 14),
)
_P = (
    (1312, 1696, 5569, 124, 8283, 5886),
    (2329, 4135, 8307, 3736, 1004, 9991),
    (2348, 1451, 3522, 2883, 3047, 6650),
    (4047, 8828, 8732, 5743, 1091, 381),
)


def levy(x: list[float]) -> float:
    w = [1 + (v - 1) / 4 for v in x]
    middle = sum((v - 1) ** 2 * (1 + 10 * math.sin(math.pi * v + 1) ** 2) for v in w[:-1])
    last = (w[-1] - 1) ** 2 * (1 + math.sin(2 * math.pi * w[-1]) ** 2)
    return math.sin(math.pi * w[0]) ** 2 + middle + last


def training(params: Params, _: int = 0) -> tuple[float, ...]:
    """Like the loss of a training: log scales, whole numbers, choices, and what depends on them."""
    lr, layers = float(params["lr"]), int(params["layers"])
    found = (math.log10(lr) + 2.7) ** 2 + 0.2 * (layers - 5) ** 2
    found += 0.5 * abs(math.log2(int(params["width"]) / 128)) + 4 * float(params["dropout"])
    found += 0.1 * layers * abs(math.log10(lr) + 2.7)
    if params["optimizer"] == "sgd":
        return (found + 0.5 + 20 * (float(params["momentum"]) - 0.9) ** 2,)
    return (found + (1.0 if params["optimizer"] == "adagrad" else 0.0),)


def _training() -> Problem:
    parameters = [
        floats("lr", 1e-6, 1.0, log=True),
        SearchParameter(name="layers", int_=IntRange(min=1, max=12)),
        SearchParameter(name="width", int_=IntRange(min=8, max=1024, log=True)),
        floats("dropout", 0.0, 0.8, step=0.1),
        SearchParameter(name="optimizer", choice=["sgd", "adam", "adagrad"]),
        floats("momentum", 0.0, 0.99, when=When(parameter="optimizer", values=["sgd"])),
    ]
    return Problem("training", parameters, training)


def tree(params: Params, _: int = 0) -> tuple[float, ...]:
    """Jenatton's tree of depth two: which of its parameters there are depends on the others."""
    left = params["x1"] == 0
    side = params["x2"] if left else params["x3"]
    leaf = (4 if left else 6) + int(side)
    shared = float(params["r8" if left else "r9"])
    return (float(params[f"x{leaf}"]) ** 2 + (leaf - 3) / 10 + shared,)


def _tree() -> Problem:
    def when(name: str, value: int) -> When:
        return When(parameter=name, values=[value])

    parameters = [
        SearchParameter(name="x1", choice=[0, 1]),
        SearchParameter(name="x2", choice=[0, 1], when=when("x1", 0)),
        SearchParameter(name="x3", choice=[0, 1], when=when("x1", 1)),
        floats("x4", -1.0, 1.0, when=when("x2", 0)),
        floats("x5", -1.0, 1.0, when=when("x2", 1)),
        floats("x6", -1.0, 1.0, when=when("x3", 0)),
        floats("x7", -1.0, 1.0, when=when("x3", 1)),
        floats("r8", 0.0, 1.0, when=when("x1", 0)),
        floats("r9", 0.0, 1.0, when=when("x1", 1)),
    ]
    return Problem("tree", parameters, tree)


def func2c(params: Params, _: int = 0) -> tuple[float, ...]:
    """Two choices of functions whose sum counts: choices and numbers that depend on each other."""
    x, y = 2 * float(params["x"]), 2 * float(params["y"])
    first = _PARTS[str(params["first"])]
    second = _PARTS.get(str(params["second"]), _beale)
    return (first(x, y) + second(x, y),)


def _camel(x: float, y: float) -> float:
    return ((4 - 2.1 * x**2 + x**4 / 3) * x**2 + x * y + (-4 + 4 * y**2) * y**2) / 10


def _beale(x: float, y: float) -> float:
    terms = ((1.5, 1), (2.25, 2), (2.625, 3))
    return sum((start - x + x * y**power) ** 2 for start, power in terms) / 50


_PARTS: Mapping[str, Callable[[float, float], float]] = {
    "rosenbrock": lambda x, y: rosenbrock([x, y]) / 300,
    "camel": _camel,
    "beale": _beale,
}


def _func2c() -> Problem:
    parameters = [
        SearchParameter(name="first", choice=["rosenbrock", "camel", "beale"]),
        SearchParameter(name="second", choice=["rosenbrock", "camel", "beale", "beale2", "beale3"]),
        floats("x", -1.0, 1.0),
        floats("y", -1.0, 1.0),
    ]
    return Problem("func2c", parameters, func2c)


def zdt1(params: Params, _: int = 0) -> tuple[float, ...]:
    first, *others = _vector(params)
    g = 1 + 9 * sum(others) / len(others)
    return first, g * (1 - math.sqrt(first / g))


def zdt2(params: Params, _: int = 0) -> tuple[float, ...]:
    first, *others = _vector(params)
    g = 1 + 9 * sum(others) / len(others)
    return first, g * (1 - (first / g) ** 2)


def _zdt(name: str, values: Callable[[Params, int], tuple[float, ...]]) -> Problem:
    return Problem(name, [floats(f"x{i}", 0.0, 1.0) for i in range(6)], values, objectives=2)


FUNCTIONS = {
    problem.name: problem
    for problem in (
        _box("sphere", sphere, *[(-5.0, 5.0)] * 5),
        _box("rosenbrock", rosenbrock, *[(-2.0, 2.0)] * 4),
        _box("ackley", ackley, *[(-32.0, 32.0)] * 5),
        _box("rastrigin", rastrigin, *[(-5.12, 5.12)] * 4),
        _box("branin", branin, (-5.0, 10.0), (0.0, 15.0)),
        _box("hartmann6", hartmann6, *[(0.0, 1.0)] * 6),
        _box("levy", levy, *[(-10.0, 10.0)] * 4),
        _box("noisy-branin", branin, (-5.0, 10.0), (0.0, 15.0), noise=5.0),
        _box("noisy-hartmann6", hartmann6, *[(0.0, 1.0)] * 6, noise=0.3),
        _training(),
        _tree(),
        _func2c(),
        _zdt("zdt1", zdt1),
        _zdt("zdt2", zdt2),
    )
}


def hypervolume(points: Sequence[Sequence[float]], reference: tuple[float, float]) -> float:
    """Area that two minimized objectives leave behind them, up to a reference point."""
    total, lowest = 0.0, reference[1]
    for first, second in sorted((a, b) for a, b in points):
        if first < reference[0] and second < lowest:
            total += (reference[0] - first) * (lowest - second)
            lowest = second
    return total
