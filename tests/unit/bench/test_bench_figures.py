"""The benches' arithmetic: what a stall, a share of speed or a percentile means."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from bench import harness, horovodrun, losses
from bench.figures import Turn
from bench.overhead import overhead


def turn(after: list[float], durable: float, call: tuple[float, float] = (10.0, 10.5)) -> Turn:
    """Steps of one second, the last of which ended at 10."""
    return Turn([7.0, 8.0, 9.0, 10.0], call, after, durable)


def test_the_stall_is_the_call_and_what_the_next_step_takes_longer() -> None:
    assert turn([11.7, 12.7], 12.0).stall == pytest.approx(0.5 + 0.2)


def test_one_slow_step_before_the_save_does_not_change_what_a_step_takes() -> None:
    assert Turn([0.0, 1.0, 5.0, 6.0], (6.0, 6.0), [7.0], 6.5).step == 1.0


def test_a_save_that_blocks_until_durable_leaves_no_speed() -> None:
    blocked = turn([15.0], 14.0, (10.0, 14.0))
    assert blocked.speed_ratio == 0
    assert blocked.lost == blocked.until_durable == 4.0


def test_the_step_under_way_when_the_save_is_durable_counts_in_part() -> None:
    half = turn([12.0, 14.0], 13.0, (10.0, 10.0))  # each step takes twice as long
    assert half.steps_until_durable == 1.5
    assert half.speed_ratio == pytest.approx(0.5)
    assert half.lost == pytest.approx(1.5)


def test_every_name_has_its_turn_in_every_round() -> None:
    seen = list(harness.rounds(["a", "b", "c"], 4, seed=1))
    assert sorted(seen) == [(number, name) for number in range(4) for name in "abc"]
    assert seen == list(harness.rounds(["a", "b", "c"], 4, seed=1))
    assert len({tuple(name for n, name in seen if n == number) for number in range(4)}) > 1


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.5, 5), (0.51, 6), (0.99, 10), (1.0, 10)]
)
def test_a_percentile_is_a_value_that_was_seen(share: float, expected: float) -> None:
    assert harness.percentile(range(10, 0, -1), share) == expected


def test_a_try_that_failed_counts_with_the_limit() -> None:
    tries = [losses.Try(1.0, 2), losses.Try(None), losses.Try(3.0, 4)]
    assert losses.summary(tries, "pod_") == {
        "pod_recovered": 2,
        "pod_tries": 3,
        "pod_p50_s": 3.0,
        "pod_p99_s": losses.LIMIT_SECONDS,
        "pod_lost_steps": 2.0,
    }


def test_a_group_that_goes_on_but_never_gets_whole_has_recovered() -> None:
    tries = [losses.Try(1.0, 0, 9.0), losses.Try(1.2, 0, None), losses.Try(1.1, 0, None)]
    found = horovodrun.recovery(tries)
    assert (found["recovered"], found["whole_p50_s"]) == (3, losses.LIMIT_SECONDS)


def test_tries_are_split_without_losing_one() -> None:
    assert losses.shares(50, 3) == [17, 17, 16]


def test_overhead_compares_within_a_round() -> None:
    # The machine is twice as slow in the second round, for both.
    assert overhead([1.01, 2.02], [1.0, 2.0]) == pytest.approx(1.0)


def took(seconds: float) -> horovodrun.Seconds:
    return {kind: [[seconds, seconds, 9.0]] for kind in horovodrun.COUNTS}  # one is disturbed


def test_horovods_overhead_is_within_a_group_of_jobs() -> None:
    groups = [
        {"headway": took(1.02), "horovodrun": took(1.0)},
        {"headway": took(2.0), "horovodrun": took(2.0)},  # a slower time of the machine
    ]
    found = horovodrun.speed(groups, "headway")
    assert found["epoch_s"] == pytest.approx(1.51)
    assert found["allreduce_1mb_ms"] == pytest.approx(1510)
    assert found["overhead_percent"] == pytest.approx(1.0)
    assert found["allreduce_1mb_overhead_range"] == pytest.approx([0.0, 2.0])


def test_horovodrun_has_no_overhead_of_its_own() -> None:
    found = horovodrun.speed([{"headway": took(1.0), "horovodrun": took(1.0)}], "horovodrun")
    assert not [key for key in found if "overhead" in key]


def test_without_horovodrun_there_is_nothing_to_compare_with() -> None:
    assert "overhead_percent" not in horovodrun.speed([{"headway": took(1.0)}], "headway")


def test_both_hosts_of_horovodruns_elastic_job_are_this_machine(tmp_path: Path) -> None:
    shown = subprocess.run([horovodrun.discovery(tmp_path)], capture_output=True, check=True)
    assert shown.stdout.decode().split() == ["localhost:1", "127.0.0.1:1"]


def test_the_last_line_is_json_with_three_digits(capsys: pytest.CaptureFixture[str]) -> None:
    results = {"headway": {"a_ms": 0.123456, "b_ms": 12345.6, "n": 3}, "peer": {"a_ms": None}}
    harness.show("title", results, ["a note"], {"other": "log\nwhy not"})
    shown = capsys.readouterr().out
    assert "a note" in shown
    assert "12346" in shown
    assert json.loads(shown.splitlines()[-1]) == {
        "headway": {"a_ms": 0.123, "b_ms": 12346.0, "n": 3},
        "peer": {"a_ms": None},
        "other": {"error": "why not"},
    }
