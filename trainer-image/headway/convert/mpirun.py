"""Options of mpirun: Open MPI's, and those of MPICH and Intel MPI that manifests have."""

from __future__ import annotations

from collections.abc import Sequence

from headway.convert.options import Launch, Option, scan

NAMES = {"mpirun", "mpiexec", "orterun", "mpiexec.hydra", "mpirun.openmpi", "mpiexec.openmpi"}
_NONE = """
    allow-run-as-root tag-output timestamp-output v verbose q quiet display-map display-allocation
    report-bindings oversubscribe nooversubscribe nolocal novm noprefix pernode enable-recovery
    continuous bind-to-core bind-to-none bind-to-socket bycore bynode byslot bysocket
    use-hwthread-cpus show-progress do-not-launch do-not-resolve merge-stderr-to-stdout
    enable-instant-on-support xml get-stack-traces report-state-on-timeout tv debug
    leave-session-attached genvall envall genvnone envnone l prepend-rank rr
"""
_ONE = """
    np npernode npersocket host hostfile x bind-to map-by rank-by wdir path prefix
    timeout output-filename cpu-set cpu-list cpus-per-proc cpus-per-rank rankfile tune app
    report-uri stdin ppr personality output max-restarts preload-files ppn f iface launcher
    bootstrap rmk genvlist envlist configfile ompi-server slot-list max-vm-size
"""
_TWO = "mca gmca genv env omca pmca"
_ARITY = {
    **dict.fromkeys(_NONE.split(), 0),
    **dict.fromkeys(_ONE.split(), 1),
    **dict.fromkeys(_TWO.split(), 2),
}
_ALIASES = {
    "n": "np",
    "c": "np",
    "N": "npernode",
    "H": "host",
    "hosts": "host",
    "perhost": "ppn",
    "machinefile": "hostfile",
    "default-hostfile": "hostfile",
    "wd": "wdir",
    "rf": "rankfile",
    "am": "tune",
    "ap": "app",
    "s": "stdin",
    "d": "debug",
}
_UNCLEAR = {
    "timeout": "ended the job after that many seconds: set activeDeadlineSeconds",
    "app": "reads programs from a file: write the program as command",
    "configfile": "reads programs from a file: write the program as command",
    "tune": "reads options from a file: variables in it belong into pod.env",
    "prefix": "is not used: PATH and LD_LIBRARY_PATH come from the image or pod.env",
    "path": "is not used: PATH comes from the image or pod.env",
    "preload-files": "copied files to the ranks: mount them",
    "max-restarts": "is not used: failurePolicy.maxRestarts says how often the group restarts",
}


def parse(words: Sequence[str]) -> Launch:
    """What mpirun was asked for.

    Args:
        words: What follows its name.
    """
    known, unknown, program = scan(words, _ARITY, _ALIASES)
    launch = Launch("mpirun", program)
    for option in known:
        _apply(option, launch)
    launch.ask_about(unknown)
    if ":" in words[program:]:
        launch.unclear.append("mpirun starts several programs (`:`): the ranks of a job run one")
    return launch


def _apply(option: Option, launch: Launch) -> None:
    name, values = option.name, option.values
    if name == "np":
        launch.processes = option.value
    elif name in {"npernode", "ppn"}:
        launch.per_worker = option.value
    elif name == "pernode":
        launch.per_worker = "1"
    elif name == "wdir":
        launch.working_dir = option.value
    elif name == "x":
        # Open MPI takes a list in one option too: -x A=1,B only where `mca_base_env_list` is meant.
        variable, equals, value = option.value.partition("=")
        launch.env[variable] = value if equals else None
    elif name in {"genv", "env"} and len(values) == 2:
        launch.env[values[0]] = values[1]
    elif name == "genv" and option.value:  # Intel MPI: -genv NAME=value
        variable, _, value = option.value.partition("=")
        launch.env[variable] = value
    elif name in {"genvlist", "envlist"}:
        launch.env |= dict.fromkeys(option.value.split(","))
    elif name in _UNCLEAR:
        launch.unclear.append(f"mpirun's {option.text} {_UNCLEAR[name]}")
    else:
        launch.useless.append(option.text)
