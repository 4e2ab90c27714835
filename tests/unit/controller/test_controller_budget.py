"""How often progress is written: every 10 s per job, and so many of all jobs together."""

import pytest

from headway_operator.budget import ProgressBudget


def test_a_job_is_granted_one_write_per_interval() -> None:
    budget = ProgressBudget(10, 100)
    assert budget.take("a", 0) == 0
    assert budget.take("a", 4) == 6
    assert budget.take("b", 4) == 0
    assert budget.take("a", 10) == 0


def test_a_write_that_had_to_be_made_takes_progress_along() -> None:
    budget = ProgressBudget(10, 100)
    budget.wrote("a", 5)
    assert budget.take("a", 8) == 7
    assert budget.left("a", 8) == 7
    assert budget.left("b", 8) == 0


@pytest.mark.parametrize("idle", [0.0, 3600.0])
def test_all_jobs_share_one_rate_and_an_idle_night_buys_no_burst(idle: float) -> None:
    budget = ProgressBudget(10, 5)
    granted = sum(
        budget.take(f"job-{tick}-{number}", idle + tick / 10) == 0
        for tick in range(100)
        for number in range(10)
    )
    assert granted == pytest.approx(5 + 5 * 10, abs=1)


def test_who_waits_as_told_is_granted() -> None:
    budget = ProgressBudget(10, 2)
    assert [budget.take(key, 0) for key in "ab"] == [0, 0]
    wait = budget.take("c", 0)
    assert wait > 0
    assert budget.take("c", wait) == 0


def test_a_job_made_anew_starts_afresh() -> None:
    budget = ProgressBudget(10, 100)
    budget.take("a", 0)
    budget.forget("a")
    assert budget.take("a", 1) == 0
