"""Tables of the terminal, and comparisons."""

import io
import math
from typing import Any

import pytest
from result_worlds import a_job, a_record, a_sweep, course, found, trained
from rich.console import Console, RenderableType

from headway_operator.results import compare
from headway_operator.results.errors import ResultsError
from headway_operator.results.findings import Findings
from headway_operator.results.table import Sort, ordered, shown

PARAMS = {"lr": 0.01, "optimizer": "sgd", "momentum": 0.3, "layers": 1, "epochs": 20}


def text(what: RenderableType, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width, markup=False, highlight=False).print(what)
    return out.getvalue()


def lines(here: Findings, width: int = 80, limit: int = 20, *, wide: bool = False) -> list[str]:
    trials, rest = ordered(here, Sort.best, limit)
    return text(shown(here, trials, rest, width, wide=wide), width).splitlines()


def test_a_sweep_is_told_with_its_best_trial_and_a_row_for_each() -> None:
    sweep = a_sweep(maxTrials=40, timeBudgetSeconds=14400)
    here = found(sweep, *trained(sweep, 12))
    told = lines(here)
    assert (
        told[0] == "digits  Running  12 of 40 trials have ended (9 complete, 2 stopped, 1 failed)"
    )
    assert told[1].split() == ["goal", "minimize", "loss"]
    assert told[2] == "  spent   1800 steps, active for 2 h 0 min of 4 h 0 min"
    assert here.best is not None
    assert told[3].startswith(f"  best    trial {here.best.index}: loss {here.best.values[0]:.6g}")  # type: ignore[index]
    head = next(place for place, line in enumerate(told) if line.startswith("trial"))
    assert told[head].split() == ["trial", "state", "step", "loss", *here.varying]
    assert [int(line.split()[0]) for line in told[head + 1 :]] == [
        *(each.index for each in here.ranked),
        6,  # failed
    ]


@pytest.mark.parametrize("width", [80, 60])
def test_no_line_is_wider_than_the_terminal_and_what_is_left_out_is_told(width: int) -> None:
    names = [f"parameter_{n}" for n in range(9)]
    sweep = a_sweep(parameters=[{"name": n, "float": {"min": 0, "max": 1}} for n in names])
    params = dict.fromkeys(names, 0.5)
    here = found(sweep, a_job(sweep, 0, params, {"loss": course(1.0)}))
    told = lines(here, width)
    assert max(map(len, told)) <= width
    head = next(line for line in told if line.startswith("trial")).split()
    hidden = [name for name in names if name not in head]
    assert hidden
    assert f"no room for {', '.join(hidden)}: -o wide shows all" in " ".join(" ".join(told).split())


def test_wide_tells_everything_and_cuts_nothing() -> None:
    sweep = a_sweep()
    here = found(sweep, *trained(sweep, 8))
    told = "\n".join(lines(here, 500, 0, wide=True))
    for said in ("epochs", "digits-3", here.results[3].checkpoint, "exit code 1: no GPU"):
        assert said in told


def test_the_limit_is_told() -> None:
    sweep = a_sweep()
    told = lines(found(sweep, *trained(sweep, 9)), limit=4)
    assert told[-1] == "and 5 more: --limit 0 shows all"


def test_a_sweep_without_trials_is_told() -> None:
    assert lines(found(a_sweep()))[0] == "digits  Running  0 of 10 trials have ended"


def test_the_pareto_front_is_told_and_marked() -> None:
    sweep = a_sweep(objectives=[{"metric": "loss"}, {"metric": "acc", "direction": "Maximize"}])
    jobs = [
        a_job(sweep, index, PARAMS, {"loss": [(1, loss)], "acc": [(1, acc)]})
        for index, (loss, acc) in enumerate([(1.0, 0.5), (2.0, 0.9), (2.0, 0.4)])
    ]
    told = lines(found(sweep, *jobs))
    assert told[3].split()[:7] == ["front", "trial", "0:", "loss", "1", "acc", "0.5"]
    assert [line.split()[0] for line in told[-3:]] == ["*0", "*1", "2"]


def test_what_users_write_is_not_obeyed_by_the_terminal() -> None:
    evil = "\x1b[31m[red]x[/red]\nnext"
    sweep = a_sweep(parameters=[{"name": "x", "choice": [evil, "b"]}])
    here = found(sweep, a_job(sweep, 0, {"x": evil}, {"loss": course(1.0)}))
    told = "\n".join(lines(here))
    assert "\x1b" not in told
    assert "[red]x[/red] next" in told


def test_trials_can_be_sorted() -> None:
    sweep = a_sweep()
    here = found(sweep, *trained(sweep, 9))
    assert [each.index for each in ordered(here, Sort.trial, 0)[0]] == list(range(9))
    steps = [each.trial.step for each in ordered(here, Sort.step, 0)[0]]
    assert steps == sorted(steps, reverse=True)


# --- comparing ------------------------------------------------------------------------------------


def of(*values: float, name: str = "digits", steps: int = 30, **spec: Any) -> Findings:
    sweep = a_sweep(name, **spec)
    jobs = [a_job(sweep, i, PARAMS, {"loss": course(v, steps)}) for i, v in enumerate(values)]
    return found(sweep, *jobs)


def test_what_it_took_to_reach_a_value_counts_the_trials_before_it() -> None:
    here = of(5.0, 3.0, 1.0, 0.5)
    loss = here.spec.objectives[0]
    assert compare.reached(here, loss, 3.0) == compare.Reached(2, 60)
    # The third was at 1 + 1/6 after 25 of its 30 steps.
    assert compare.reached(here, loss, 1.2) == compare.Reached(3, 85)
    assert compare.reached(here, loss, 0.1) is None


def test_the_common_target_is_what_the_worst_sweep_has_reached() -> None:
    fast, slow, none = of(0.5, 4.0), of(3.0, 2.0), of()
    loss = fast.spec.objectives[0]
    assert compare.common_target([fast, slow], loss) == 2.0
    assert compare.common_target([fast, none], loss) is None


def test_a_history_is_the_best_so_far() -> None:
    here = of(5.0, 3.0, 4.0, 1.0)
    assert compare.history(here, here.spec.objectives[0]) == [5.0, 3.0, 3.0, 1.0]
    up = of(0.5, 2.0, objectives=[{"metric": "loss", "direction": "Maximize", "take": "Last"}])
    assert compare.history(up, up.spec.objectives[0]) == [0.5, 0.5, 2.0, 2.0]


def test_a_value_that_is_never_a_number_is_never_the_best() -> None:
    here = of(math.nan, math.inf, 2.0)
    best = compare.best_of(here, here.spec.objectives[0])
    assert best is not None
    assert best[1] == 2.0


def test_sweeps_stand_beside_each_other() -> None:
    fast = of(0.5, 4.0, name="fast", stopping={"asha": {"minSteps": 1, "maxSteps": 30}})
    slow = of(3.0, 2.0, name="slow", algorithm={"name": "random"})
    loss = fast.spec.objectives[0]
    told = [
        line.split() for line in text(compare.sweeps_table([fast, slow], loss, 2.0)).splitlines()
    ]
    assert told[0] == ["loss", "fast", "slow"]
    assert ["algorithm", "tpe", "random"] in told
    assert ["best", "0.5", "2"] in told
    assert ["trials", "to", "2", "1", "2"] in told
    assert ["steps", "to", "2", "5", "60"] in told
    assert ["best", "at", "50%", "0.5", "3"] in told


@pytest.mark.parametrize(
    ("other", "metric", "said"),
    [
        (
            of(objectives=[{"metric": "acc"}]),
            None,
            "sweep digits has no objective loss: it has acc",
        ),
        (
            of(objectives=[{"metric": "loss", "direction": "Maximize"}]),
            None,
            "digits to maximize it",
        ),
        (of(), "acc", "has no objective acc"),
    ],
)
def test_what_has_nothing_in_common_is_not_compared(
    other: Findings, metric: str | None, said: str
) -> None:
    with pytest.raises(ResultsError, match=said):
        compare.same_objective([of(), other], metric)


def test_trials_beside_each_other_begin_with_what_differs() -> None:
    sweep = a_sweep()
    jobs = [
        a_job(sweep, 0, {**PARAMS, "layers": 2}, {"loss": course(1.0)}),
        a_job(sweep, 1, PARAMS, {"loss": course(2.0)}, phase="Suspended", stopped="late"),
    ]
    here = found(sweep, a_record(sweep, jobs[:1]), jobs[1])
    told = [
        line.split() for line in text(compare.trials_table(here, here.results), 200).splitlines()
    ]
    assert told[0] == ["trial", "0", "1"]
    assert told[1] == ["layers", "2", "1"]
    assert ["lr", "0.01", "0.01"] in told[2:6]
    assert ["loss", "1", "2"] in told
    assert ["last", "loss", "1", "at", "30", "2", "at", "30"] in told
    assert ["why", "late"] in told
