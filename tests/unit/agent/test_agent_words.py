"""Last words and reports: they fit where they must, and keep the facts."""

from __future__ import annotations

import json

import pytest

from headway.agent.faults import describe, last_lines
from headway.agent.reporting import StepRate, decimal, reported
from headway.agent.termination import LIMIT, fit
from headway.agent.workers import exit_code
from headway_api.contract import ExitCode
from headway_api.messages import ProgressReport, RestartReport, TerminationReport


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
