"""Records of trials that somebody has edited: the search goes on without what they said."""

from typing import Any

import pytest
from sweep_worlds import floats, request

from headway_api.sweep import Algorithm, Pbt
from headway_operator.sweep.suggest import pbt, suggest
from headway_operator.sweep.trial import Trial

SPACE = [floats("x", 0, 1), floats("y", 0, 1)]
PBT = Pbt(population=2, steps_per_generation=10, generations=3)
SETTINGS: dict[Algorithm, dict[str, Any]] = {
    "tpe": {"startup_trials": 2},
    "cmaes": {"population": 4},
    "nsgaii": {"population": 4},
    "pbt": {"pbt": PBT},
}


def words(value: Any) -> dict[str, Any]:
    """Everything that an algorithm writes about a trial, with the same wrong value."""
    names = ("generation", "place", "parents", "from", "step", "replaces", "exchange")
    return dict.fromkeys(names, value)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(
    "told", [5, None, [1], "x", words("q"), words(None), words([1]), words({}), words(2)]
)
def test_a_search_goes_on_when_what_it_noted_of_a_trial_was_edited(
    name: Algorithm, told: Any
) -> None:
    trials = [
        Trial(i, {"x": 0.1 * i, "y": 0.2}, "Paused", (0.1 * i,), step=10, until=10)
        for i in range(3)
    ]
    trials += [
        Trial(i, {"x": 0.1 * i, "y": 0.2}, "Complete", (0.1 * i,), attrs={name: told})
        for i in range(3, 6)
    ]
    if name == "pbt":
        assert pbt.due(PBT, "Minimize", trials, "7")
    else:
        made = suggest(request(SPACE, name, 6, trials, **SETTINGS[name]))
        assert made.params.keys() == {"x", "y"}
