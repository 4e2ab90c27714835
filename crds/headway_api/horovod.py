"""Settings of Horovod as fields, and the variables by which Horovod reads them.

Names and units of 0.28.1: horovod/common/common.h, operations.cc (InitializeHorovodOnce),
utils/env_parser.cc, parameter_manager.cc, gloo/gloo_context.cc.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationError

from headway_api.base import ApiModel, IntOrString, Rule

Seconds = Annotated[int, Field(ge=1, le=604800)]
_MILLISECONDS = re.compile(r"^[0-9]{1,7}(\.[0-9]{1,6})?$")
Milliseconds = Annotated[int | str, IntOrString(_MILLISECONDS.pattern, minimum=0, max_length=16)]
Samples = Annotated[int, Field(ge=0, le=1000000)]


class StallCheck(ApiModel):
    """What happens when some ranks wait for others that don't come to the same operation."""

    enabled: bool = True
    """Whether ranks that others wait for are looked for at all."""
    warn_after_seconds: Seconds | None = None
    """The log of rank 0 names the ranks that others have waited for so long (Horovod: 60). It is
    looked for as often, so that it may take twice as long."""
    abort_after_seconds: Seconds | None = None
    """Ends the generation when others have waited for so long (Horovod: never); the group then
    restarts as after every failure."""

    cel: ClassVar = (
        Rule(
            "!has(self.abortAfterSeconds) || self.abortAfterSeconds >="
            " (has(self.warnAfterSeconds) ? self.warnAfterSeconds : 60)",
            "abortAfterSeconds must not be shorter than warnAfterSeconds (60 when unset): Horovod"
            " would never abort",
            ".abortAfterSeconds",
        ),
    )


class Fusion(ApiModel):
    """How tensors are put together, to be reduced at once."""

    threshold_bytes: Annotated[int, Field(ge=0, le=2**40)] | None = None
    """Bytes that are reduced at once (Horovod: 134217728, 128 MiB); 0 puts nothing together."""
    cycle_time_milliseconds: Milliseconds | None = None
    """How long is waited for more tensors (Horovod: 1), e.g. `5` or `"3.5"`."""


class Autotune(ApiModel):
    """Lets Horovod find the values of `fusion` by trying; what `fusion` sets is left alone."""

    enabled: bool = True
    """Whether it does."""
    warmup_samples: Samples | None = None
    """Samples at the start that are not looked at (Horovod: 3)."""
    steps_per_sample: Annotated[int, Field(ge=1, le=1000000)] | None = None
    """Steps that make up a sample, about (Horovod: 10)."""
    max_samples: Annotated[int, Field(ge=1, le=1000000)] | None = None
    """Samples after which the best values stay (Horovod: 20)."""
    log: bool = False
    """Keeps what was tried, and how fast it was: `horovod/autotune-g<generation>.csv` in the job's
    folder in storage."""


class Timeline(ApiModel):
    """A record of what was reduced when."""

    enabled: bool = True
    """Whether it is written: `horovod/timeline-g<generation>.json` in the job's folder in storage,
    its first 64 MiB, for Perfetto or chrome://tracing. A thread of rank 0 is busy all the time
    with it, so have it on for a look."""
    mark_cycles: bool = False
    """Marks where each of Horovod's cycles begins."""


class Horovod(ApiModel):
    """Settings of Horovod."""

    stall_check: StallCheck | None = None
    """What happens when some ranks wait for others."""
    fusion: Fusion | None = None
    """How tensors are put together."""
    autotune: Autotune | None = None
    """Lets Horovod find the values of `fusion`."""
    timeline: Timeline | None = None
    """A record of what was reduced when, for a viewer of traces. Needs `storage`."""
    timeout_seconds: Seconds | None = None
    """How long ranks wait for each other in `hvd.init()`, and in an operation of Gloo
    (Horovod: 30)."""

    @property
    def kept(self) -> tuple[str, ...]:
        """The files that rank 0 is to write, and the agent takes to storage."""
        wanted = {
            "timeline": self.timeline is not None and self.timeline.enabled,
            "autotune": self.autotune is not None and self.autotune.enabled and self.autotune.log,
        }
        return tuple(name for name, is_wanted in wanted.items() if is_wanted)


_VARIABLES: dict[str, tuple[str, ...]] = {
    "HOROVOD_STALL_CHECK_TIME_SECONDS": ("stallCheck", "warnAfterSeconds"),
    "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": ("stallCheck", "abortAfterSeconds"),
    "HOROVOD_FUSION_THRESHOLD": ("fusion", "thresholdBytes"),
    "HOROVOD_CYCLE_TIME": ("fusion", "cycleTimeMilliseconds"),
    "HOROVOD_AUTOTUNE": ("autotune", "enabled"),
    "HOROVOD_AUTOTUNE_WARMUP_SAMPLES": ("autotune", "warmupSamples"),
    "HOROVOD_AUTOTUNE_STEPS_PER_SAMPLE": ("autotune", "stepsPerSample"),
    "HOROVOD_AUTOTUNE_BAYES_OPT_MAX_SAMPLES": ("autotune", "maxSamples"),
    "HOROVOD_TIMELINE_MARK_CYCLES": ("timeline", "markCycles"),
    "HOROVOD_GLOO_TIMEOUT_SECONDS": ("timeoutSeconds",),
}
"""Each has the value of a field. Where files are is the agent's business."""
_STALL_CHECK_OFF = "HOROVOD_STALL_CHECK_DISABLE"


def variables(settings: Horovod) -> dict[str, str]:
    """Horovod's variables for these settings; none for what is unset."""
    wire = settings.wire()
    found = {name: _at(wire, path) for name, path in _VARIABLES.items()}
    if settings.stall_check is not None and not settings.stall_check.enabled:
        found[_STALL_CHECK_OFF] = True
    return {name: _text(value) for name, value in found.items() if value is not None}


def fields(env: Mapping[str, str]) -> tuple[dict[str, Any], set[str]]:
    """The other way round, for values that fields can say: `spec.horovod`.

    Paths of files are left out: a field of their own has no place for them.

    Args:
        env: Variables, Horovod's and others.

    Returns:
        The fields as in a manifest, and the variables that they stand for.
    """
    given: dict[str, Any] = {}
    taken: set[str] = set()
    for name, path in _VARIABLES.items():
        value = _value(path[-1], env.get(name, "").strip())
        # A block that is there is on: what belongs to it must not turn it on.
        off = path[0] == "timeline" or (path[0] == "autotune" and "autotune" not in given)
        if value is None or (off and path[-1] != "enabled"):
            continue
        tried = _with(given, path, value)
        if _is_valid(tried):
            given, taken = tried, taken | {name}
    if env.get(_STALL_CHECK_OFF, "").strip() == "1":
        given, taken = _with(given, ("stallCheck", "enabled"), False), taken | {_STALL_CHECK_OFF}
    return given, taken


def _at(wire: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = wire
    for name in path:
        value = (value or {}).get(name)
    return value


def _with(given: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    first, *rest = path
    inner = _with(given.get(first, {}), tuple(rest), value) if rest else value
    return {**given, first: inner}


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _value(field: str, text: str) -> Any:
    """What a field would say; None where it can't."""
    if field == "enabled":
        return {"0": False, "1": True}.get(text)
    if text.isascii() and text.isdecimal():
        return int(text)
    return text if field == "cycleTimeMilliseconds" and _MILLISECONDS.fullmatch(text) else None


def _is_valid(given: Mapping[str, Any]) -> bool:
    try:
        stall = Horovod.model_validate(given).stall_check
    except ValidationError:
        return False
    if stall is None or stall.abort_after_seconds is None:
        return True
    return stall.abort_after_seconds >= (stall.warn_after_seconds or 60)
