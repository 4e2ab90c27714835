"""Courses of metrics go where the training state goes: with checkpoints, and back with them."""

from headway.agent.reporting import Reporter
from headway.train.courses import Courses
from headway_api.observations import report


def courses(*steps: int) -> Courses:
    made = Courses()
    made.observed = ["loss"]
    for step in steps:
        made.add({"loss": step, "lr": step}, {"loss": 1 / step, "lr": 0.1})
    return made


def test_only_what_is_observed_and_reported_anew_is_kept() -> None:
    made = courses(1, 2)
    made.add({}, {"loss": 7.0})
    (state,) = made.state()
    assert state["metric"] == "loss"
    assert [point["step"] for point in state["curve"]] == [1, 2]


def test_a_restored_run_goes_on_with_the_course_of_its_checkpoint() -> None:
    again = courses()
    again.restore(courses(1, 2, 3).state())
    again.add({"loss": 4}, {"loss": 0.25})
    assert again.state() == courses(1, 2, 3, 4).state()


def test_a_new_lead_learns_of_what_the_one_before_did_not_live_to_tell() -> None:
    state = [*courses(1, 2, 3).state(), report("lr", 1, 0.1).wire()]
    reporter = Reporter(attempt=1)
    reporter.observe(["loss"])
    reporter.restored({"step": 3, "source": "storage", "courses": state})
    (seen,) = reporter.report.observations
    assert [point.step for point in seen.curve] == [1, 2, 3]
    assert seen.min is not None
    assert seen.min.step == 3
