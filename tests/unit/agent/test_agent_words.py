"""Last words and reports: they fit where they must, and keep the facts."""

from __future__ import annotations

import json

import pytest

from headway.agent.faults import describe, last_lines
from headway.agent.reporting import Reporter, StepRate, decimal, reported
from headway.agent.termination import LIMIT, fit
from headway.agent.workers import exit_code
from headway_api.contract import ExitCode
from headway_api.messages import (
    CheckpointReport,
    EventReport,
    ProgressReport,
    RestartReport,
    TerminationReport,
)
from headway_api.observations import Observation, all_merged, report, shortened


def exited(**changes: object) -> dict[str, object]:
    message = {"rank": 5, "code": 1, "signal": "", "oom": False, "tail": "", "time": 0.0}
    return {**message, **changes}


@pytest.mark.parametrize(
    ("changes", "reason", "says"),
    [
        ({}, "Error", "rank 5 on worker 2 exited with code 1"),
        ({"signal": "SIGSEGV", "code": 139}, "Signal", "killed by SIGSEGV"),
        ({"signal": "SIGKILL", "code": 137, "oom": True}, "OOMKilled", "out of memory"),
        ({"tail": "a\nValueError: x"}, "Error", "ValueError: x"),
        ({"code": 78, "tail": "nope: No such file"}, "ConfigurationError", "nope: No such file"),
    ],
)
def test_how_a_worker_ended_in_words(changes: dict[str, object], reason: str, says: str) -> None:
    report = describe(2, exited(**changes))
    assert (report.reason, report.worker, report.rank) == (reason, 2, 5)
    assert says in report.message


def test_only_the_last_lines_are_kept() -> None:
    text = "\n".join(f"line {i}" for i in range(100))
    assert last_lines(text).splitlines()[0] == "line 88"
    assert len(last_lines("x" * 100_000)) == 1800


@pytest.mark.parametrize("size", [0, 10, 500, 3000, 100_000])
@pytest.mark.parametrize("letter", ["x", "ü", "\u4e16", '"', "\x01"])
def test_a_termination_report_fits_the_kubelets_limit_and_keeps_the_facts(
    size: int, letter: str
) -> None:
    culprit = RestartReport(
        time="2026-01-01T00:00:00Z",
        reason="Error",
        worker=1,
        rank=1,
        exit_code=3,
        message=letter * size,
    )
    progress = ProgressReport(
        session="s" * 32,
        attempt=1,
        generation=2,
        last_restart=culprit,
        metrics={f"metric_{i}": "0.123456" for i in range(64)},
    )
    report = TerminationReport(
        reason="Error", exit_code=3, message=letter * size, culprit=culprit, progress=progress
    )
    text = fit(report)
    assert len(text.encode()) <= LIMIT
    read = TerminationReport.model_validate_json(text)
    assert (read.reason, read.exit_code) == ("Error", 3)
    json.loads(text)


def test_exit_codes_are_those_of_a_shell() -> None:
    assert exit_code(0) == (0, "")
    assert exit_code(3) == (3, "")
    assert exit_code(-9) == (137, "SIGKILL")
    assert exit_code(-15) == (ExitCode.PREEMPTED, "SIGTERM")


def test_the_time_left_comes_from_the_steps_of_this_generation() -> None:
    rate = StepRate()
    assert rate.seconds_for(10) is None
    rate.at(100, 0.0)
    rate.at(120, 2.0)
    assert rate.seconds_for(50) == 5
    rate.at(110, 3.0)  # a restart has gone back: no negative rate
    assert rate.seconds_for(50) == 5


def test_the_status_gets_no_more_metrics_than_it_has_room_for() -> None:
    many = reported({f"m{i:03}": float(i) for i in range(100)})
    assert len(many) == 64
    assert many["m063"] == "63"


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.5"), (1 / 3, "0.333333"), (float("nan"), "nan"), (1e-9, "1e-09")]
)
def test_metrics_are_decimal_strings(value: float, text: str) -> None:
    assert decimal(value) == text


def courses(metrics: int, reports: int, name: str = "metric_{}") -> list[Observation]:
    """Courses as long, and of numbers as long, as they get."""
    found: list[Observation] = []
    for step in range(1, reports + 1):
        new = [
            report(name.format(i), 10**12 + step, -1.2345678901234567e-123 * step)
            for i in range(metrics)
        ]
        found = all_merged(found, new)
    return found


def full_report(**changes: object) -> ProgressReport:
    """A report with a lot of everything."""
    metrics = {f"metric_name_{i}": "-1.23457e-123" for i in range(64)}
    uri = "s3://bucket/" + "x" * 200
    full = ProgressReport(
        session="s" * 32,
        attempt=1,
        generation=2,
        step=10**12,
        metrics=metrics,
        checkpoint=CheckpointReport(step=1, uri=uri, time="2026-01-01", metrics=metrics),
        observations=courses(8, 64),
        last_restart=RestartReport(time="2026-01-01", reason="Error", message="x" * 2200),
    )
    return full.model_copy(update=changes)


@pytest.mark.parametrize("name", ["m{}", "a_metric_of_a_rather_long_name/" * 3 + "{}"])
def test_last_words_keep_the_step_and_the_bests_of_what_is_observed(name: str) -> None:
    observed = courses(8, 64, name)
    words = TerminationReport(
        reason="Paused",
        exit_code=ExitCode.PAUSED,
        message="m" * 4000,
        progress=full_report(observations=observed),
    )
    text = fit(words)
    assert len(text.encode()) <= LIMIT
    read = TerminationReport.model_validate_json(text).progress
    assert read is not None
    assert (read.step, read.session) == (10**12, "s" * 32)
    assert read.checkpoint is not None
    assert read.checkpoint.step == 1
    assert [shortened(each, 0) for each in read.observations] == [
        shortened(each, 0) for each in observed
    ]


def test_last_words_keep_as_much_of_a_curve_as_there_is_room_for() -> None:
    words = TerminationReport(
        reason="Done", exit_code=0, progress=full_report(metrics={}, observations=courses(2, 64))
    )
    read = TerminationReport.model_validate_json(fit(words)).progress
    assert read is not None
    assert len(read.observations[0].curve) == 16
    assert read.observations[0].spacing == 4


def test_the_largest_report_fits_the_endpoint() -> None:
    """Many silent peers, long Events and eight metrics that are observed, all at once."""
    reporter = Reporter(attempt=1)
    for index in range(1000):
        reporter.lost(index, "u" * 36)
    for number in range(20):
        reporter.event("CheckpointFallback", f"{number} " + "x" * 400)
    silent, events = reporter.report.silent, reporter.report.events
    assert (len(silent), isinstance(events[0], EventReport)) == (128, True)
    text = full_report(silent=silent, events=events).model_dump_json(by_alias=True)
    assert len(text.encode()) < 60 * 1024


def test_only_what_is_observed_has_a_course_and_each_report_its_own_step() -> None:
    """Metrics stay known after they were reported: that makes no further reports of them."""
    reporter = Reporter(attempt=1)
    reporter.observe(["val"])
    said = {"type": "step", "epoch": None, "total": None}
    reporter.stepped({**said, "step": 4, "metrics": {"loss": 1.0}, "reported": {"loss": 4}})
    assert reporter.report.observations == []
    values = {"loss": 0.5, "val": 1 / 3}
    reporter.stepped({**said, "step": 9, "metrics": values, "reported": {"loss": 9, "val": 7}})
    reporter.stepped({**said, "step": 12, "metrics": values, "reported": {"loss": 12}})
    assert reporter.report.observations == [report("val", 7, 1 / 3)]
    reporter.stepped({**said, "step": 13, "metrics": {"val": 2.0}, "reported": {"val": 13}})
    (seen,) = reporter.report.observations
    assert [(point.step, point.value) for point in seen.curve] == [
        (7, "0.3333333333333333"),
        (13, "2.0"),
    ]
