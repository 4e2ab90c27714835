"""Options of horovodrun, which are Horovod's variables in another form (see `horovod`).

After horovod/runner/launch.py (parse_args) and horovod/runner/common/util/config_parser.py
(set_env_from_args) of Horovod 0.28.1.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

from headway.convert import mpirun
from headway.convert.options import Launch, Option, scan

NAMES = {"horovodrun"}


def _same(value: str) -> str:
    return value


def _mebibytes(value: str) -> str:
    return str(int(float(value) * 1024 * 1024))


_VALUES: dict[str, tuple[str, Callable[[str], str]]] = {
    "fusion-threshold-mb": ("HOROVOD_FUSION_THRESHOLD", _mebibytes),
    "cycle-time-ms": ("HOROVOD_CYCLE_TIME", _same),
    "cache-capacity": ("HOROVOD_CACHE_CAPACITY", _same),
    "autotune-log-file": ("HOROVOD_AUTOTUNE_LOG", _same),
    "autotune-warmup-samples": ("HOROVOD_AUTOTUNE_WARMUP_SAMPLES", _same),
    "autotune-steps-per-sample": ("HOROVOD_AUTOTUNE_STEPS_PER_SAMPLE", _same),
    "autotune-bayes-opt-max-samples": ("HOROVOD_AUTOTUNE_BAYES_OPT_MAX_SAMPLES", _same),
    "autotune-gaussian-process-noise": ("HOROVOD_AUTOTUNE_GAUSSIAN_PROCESS_NOISE", _same),
    "timeline-filename": ("HOROVOD_TIMELINE", _same),
    "stall-check-warning-time-seconds": ("HOROVOD_STALL_CHECK_TIME_SECONDS", _same),
    "stall-check-shutdown-time-seconds": ("HOROVOD_STALL_SHUTDOWN_TIME_SECONDS", _same),
    "num-nccl-streams": ("HOROVOD_NUM_NCCL_STREAMS", _same),
    "thread-affinity": ("HOROVOD_THREAD_AFFINITY", _same),
    "gloo-timeout-seconds": ("HOROVOD_GLOO_TIMEOUT_SECONDS", _same),
    "log-level": ("HOROVOD_LOG_LEVEL", _same),
}
_SWITCHES = {
    "hierarchical-allreduce": ("HOROVOD_HIERARCHICAL_ALLREDUCE", "1"),
    "no-hierarchical-allreduce": ("HOROVOD_HIERARCHICAL_ALLREDUCE", "0"),
    "hierarchical-allgather": ("HOROVOD_HIERARCHICAL_ALLGATHER", "1"),
    "no-hierarchical-allgather": ("HOROVOD_HIERARCHICAL_ALLGATHER", "0"),
    "torus-allreduce": ("HOROVOD_TORUS_ALLREDUCE", "1"),
    "no-torus-allreduce": ("HOROVOD_TORUS_ALLREDUCE", "0"),
    "autotune": ("HOROVOD_AUTOTUNE", "1"),
    "timeline-mark-cycles": ("HOROVOD_TIMELINE_MARK_CYCLES", "1"),
    "no-timeline-mark-cycles": ("HOROVOD_TIMELINE_MARK_CYCLES", "0"),
    "no-stall-check": ("HOROVOD_STALL_CHECK_DISABLE", "1"),
    "stall-check": ("HOROVOD_STALL_CHECK_DISABLE", "0"),
    "tcp": ("NCCL_IB_DISABLE", "1"),
    "log-with-timestamp": ("HOROVOD_LOG_HIDE_TIME", "0"),
    "log-without-timestamp": ("HOROVOD_LOG_HIDE_TIME", "1"),
    "log-hide-timestamp": ("HOROVOD_LOG_HIDE_TIME", "1"),
    "no-log-hide-timestamp": ("HOROVOD_LOG_HIDE_TIME", "0"),
}
_USELESS = {
    **dict.fromkeys(
        [
            "verbose",
            "disable-cache",
            "gloo",
            "mpi",
            "jsrun",
            "mpi-threads-disable",
            "no-mpi-threads-disable",
            "no-autotune",
            "prefix-output-with-timestamp",
            "version",
            "check-build",
        ],
        0,
    ),
    **dict.fromkeys(
        [
            "hosts",
            "hostfile",
            "host-discovery-script",
            "start-timeout",
            "ssh-port",
            "ssh-identity-file",
            "output-filename",
            "elastic-timeout",
            "slots-per-host",
            "binding-args",
        ],
        1,
    ),
    "blacklist-cooldown-range": 2,
}
_OTHERS = dict.fromkeys(
    [
        "num-proc",
        "min-num-proc",
        "max-num-proc",
        "network-interfaces",
        "mpi-args",
        "config-file",
        "reset-limit",
    ],
    1,
)
_ARITY = {**dict.fromkeys(_VALUES, 1), **dict.fromkeys(_SWITCHES, 0), **_USELESS, **_OTHERS}
_ALIASES = {
    "np": "num-proc",
    "min-np": "min-num-proc",
    "max-np": "max-num-proc",
    "H": "hosts",
    "p": "ssh-port",
    "i": "ssh-identity-file",
    "v": "version",
    "cb": "check-build",
    "network-interface": "network-interfaces",
    "prefix-timestamp": "prefix-output-with-timestamp",
}
_UNCLEAR = {
    "config-file": "is a file that is not read: its settings are HOROVOD_… variables of pod.env",
    "reset-limit": "has no counterpart: failurePolicy.maxRestarts says how often the group"
    " restarts",
}


def parse(words: Sequence[str]) -> Launch:
    """What horovodrun was asked for.

    Args:
        words: What follows its name.
    """
    known, unknown, program = scan(words, _ARITY, _ALIASES)
    launch = Launch("horovodrun", program, horovod=True)
    for option in known:
        _apply(option, launch)
    for switch in ("HOROVOD_AUTOTUNE", "HOROVOD_TIMELINE"):
        if switch not in launch.env:  # as in Horovod, what belongs to it does not count then
            idle = [name for name in launch.env if name.startswith(f"{switch}_")]
            launch.useless += [f"{name}={launch.env.pop(name)}" for name in idle]
    launch.ask_about(unknown)
    return launch


def _apply(option: Option, launch: Launch) -> None:
    name, value = option.name, option.value
    if name == "num-proc":
        launch.processes = value
    elif name == "min-num-proc":
        launch.elastic = (value, launch.elastic[1])
    elif name == "max-num-proc":
        launch.elastic = (launch.elastic[0], value)
    elif name in _VALUES:
        variable, transform = _VALUES[name]
        try:
            launch.env[variable] = transform(value)
        except ValueError:
            launch.unclear.append(f"horovodrun's {option.text}: set {variable} in pod.env")
    elif name in _SWITCHES:
        variable, text = _SWITCHES[name]
        launch.env[variable] = text
    elif name == "network-interfaces":
        launch.env |= {"HOROVOD_GLOO_IFACE": value.split(",")[0], "NCCL_SOCKET_IFNAME": value}
    elif name == "mpi-args":
        _mpi(option, launch)
    elif name in _UNCLEAR:
        launch.unclear.append(f"horovodrun's {option.text} {_UNCLEAR[name]}")
    else:
        launch.useless.append(option.text)


def _mpi(option: Option, launch: Launch) -> None:
    inner = mpirun.parse(shlex.split(option.value))
    launch.env |= inner.env
    launch.useless += inner.useless
    launch.unclear += inner.unclear
    launch.working_dir = inner.working_dir or launch.working_dir
