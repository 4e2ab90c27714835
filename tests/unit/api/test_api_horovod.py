"""Horovod's settings as fields and as variables say the same."""

from typing import Any

import pytest

from headway_api.horovod import Horovod, fields, variables


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"timeoutSeconds": 60},
        {"stallCheck": {"warnAfterSeconds": 5, "abortAfterSeconds": 9}},
        {"stallCheck": {"enabled": False}},
        {"fusion": {"thresholdBytes": 0, "cycleTimeMilliseconds": "3.5"}},
        {"autotune": {"enabled": True, "warmupSamples": 1, "stepsPerSample": 2, "maxSamples": 3}},
        {"autotune": {"enabled": False}},
    ],
)
def test_fields_and_variables_say_the_same(settings: dict[str, Any]) -> None:
    told = variables(Horovod.model_validate(settings))
    assert fields(told) == (settings, set(told))


@pytest.mark.parametrize(
    "env",
    [
        {"HOROVOD_FUSION_THRESHOLD": "64MB"},
        {"HOROVOD_FUSION_THRESHOLD": "-1"},
        {"HOROVOD_CYCLE_TIME": "5ms"},
        {"HOROVOD_AUTOTUNE": "yes"},
        {"HOROVOD_AUTOTUNE_WARMUP_SAMPLES": "3"},  # switched nothing on
        {"HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "30"},  # never: less than the warning's 60
        {"HOROVOD_STALL_CHECK_DISABLE": "0"},
        {"HOROVOD_GLOO_TIMEOUT_SECONDS": ""},
        {"HOROVOD_TIMELINE": "/t", "HOROVOD_TIMELINE_MARK_CYCLES": "1"},
        {"HOROVOD_CACHE_CAPACITY": "7", "PATH": "/bin"},
    ],
)
def test_what_no_field_says_stays_a_variable(env: dict[str, str]) -> None:
    assert fields(env) == ({}, set())
