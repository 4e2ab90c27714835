"""Published test functions for search algorithms; each is minimized.

Sources: Surjanovic and Bingham, Virtual Library of Simulation Experiments; Zitzler, Deb and Thiele,
Comparison of Multiobjective Evolutionary Algorithms, 2000 (ZDT).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from headway_api.sweep import FloatRange, IntRange, SearchParameter, When
from headway_operator.sweep.trial import Scalar

Params = Mapping[str, Scalar]


@dataclass(frozen=True)
class Problem:
    """A function and where it is searched.

    Attributes:
        name: Of the function.
        parameters: The search space.
        values: Of a configuration, one for each objective.
        objectives: How many there are.
    """

    name: str
    parameters: Sequence[SearchParameter]
    values: Callable[[Params], tuple[float, ...]]
    objectives: int = 1


def _box(
    name: str, function: Callable[[list[float]], float], *ranges: tuple[float, float]
) -> Problem:
    parameters = [
        SearchParameter(name=f"x{i}", float_=FloatRange(min=low, max=high))
        for i, (low, high) in enumerate(ranges)
    ]
    return Problem(name, parameters, lambda params: (function(_vector(params)),))


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


def training(params: Params) -> tuple[float, ...]:
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
        SearchParameter(name="lr", float_=FloatRange(min=1e-6, max=1.0, log=True)),
        SearchParameter(name="layers", int_=IntRange(min=1, max=12)),
        SearchParameter(name="width", int_=IntRange(min=8, max=1024, log=True)),
        SearchParameter(name="dropout", float_=FloatRange(min=0.0, max=0.8, step=0.1)),
        SearchParameter(name="optimizer", choice=["sgd", "adam", "adagrad"]),
        SearchParameter(
            name="momentum",
            float_=FloatRange(min=0.0, max=0.99),
            when=When(parameter="optimizer", values=["sgd"]),
        ),
    ]
    return Problem("training", parameters, training)


def zdt1(params: Params) -> tuple[float, ...]:
    first, *others = _vector(params)
    g = 1 + 9 * sum(others) / len(others)
    return first, g * (1 - math.sqrt(first / g))


def zdt2(params: Params) -> tuple[float, ...]:
    first, *others = _vector(params)
    g = 1 + 9 * sum(others) / len(others)
    return first, g * (1 - (first / g) ** 2)


def _zdt(name: str, values: Callable[[Params], tuple[float, ...]]) -> Problem:
    unit = FloatRange(min=0.0, max=1.0)
    parameters = [SearchParameter(name=f"x{i}", float_=unit) for i in range(6)]
    return Problem(name, parameters, values, objectives=2)


PROBLEMS = {
    problem.name: problem
    for problem in (
        _box("sphere", sphere, *[(-5.0, 5.0)] * 5),
        _box("rosenbrock", rosenbrock, *[(-2.0, 2.0)] * 4),
        _box("ackley", ackley, *[(-32.0, 32.0)] * 5),
        _box("rastrigin", rastrigin, *[(-5.12, 5.12)] * 4),
        _box("branin", branin, (-5.0, 10.0), (0.0, 15.0)),
        _box("hartmann6", hartmann6, *[(0.0, 1.0)] * 6),
        _box("levy", levy, *[(-10.0, 10.0)] * 4),
        _training(),
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
