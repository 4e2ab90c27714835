"""Options of torchrun (torch/distributed/run.py): the agents do what it does."""

from __future__ import annotations

from collections.abc import Sequence

from headway.convert.options import Launch, Option, scan

NAMES = {"torchrun"}
MODULES = {"torch.distributed.run", "torch.distributed.launch", "torch.distributed.elastic"}
_NONE = "standalone no-python run-path use-env module m"
_ONE = """
    nnodes nproc-per-node node-rank rdzv-backend rdzv-endpoint rdzv-id rdzv-conf max-restarts
    monitor-interval start-method role log-dir r redirects t tee local-ranks-filter master-addr
    master-port local-addr logs-specs numa-binding duplicate-stdout-filters
    duplicate-stderr-filters event-log-handler signals-to-handle shutdown-timeout
    virtual-local-rank
"""
_ARITY = {**dict.fromkeys(_NONE.split(), 0), **dict.fromkeys(_ONE.split(), 1)}
_ALIASES = {"nproc": "nproc-per-node", "m": "module", "r": "redirects", "t": "tee"}
_UNCLEAR = {
    "numa-binding": "has no counterpart: ranks are not bound to CPUs",
    "run-path": "has no counterpart: the command is python and a script, or python -m",
}


def parse(words: Sequence[str], python: Sequence[str], tool: str = "torchrun") -> Launch:
    """What torchrun was asked for.

    Args:
        words: What follows its name.
        python: The interpreter and its flags, which the ranks keep.
        tool: Its name, or that of the module.
    """
    known, unknown, program = scan(words, _ARITY, _ALIASES)
    launch = Launch(tool, program, interpreter=list(python))
    names = {option.name for option in known}
    for option in known:
        _apply(option, launch)
    if "no-python" in names:
        launch.interpreter = []
    elif "module" in names:
        launch.interpreter.append("-m")
    if tool.endswith(".launch") and "use-env" not in names:
        launch.unclear.append(
            "torch.distributed.launch gave each rank --local-rank: read LOCAL_RANK instead"
        )
    launch.ask_about(unknown)
    return launch


def _apply(option: Option, launch: Launch) -> None:
    name, value = option.name, option.value
    if name == "nproc-per-node":
        launch.per_worker = value
    elif name == "nnodes":
        fewest, colon, most = value.partition(":")
        launch.nodes = most if colon else fewest
        launch.elastic = (fewest, most) if colon and fewest != most else ("", "")
    elif name == "max-restarts":
        launch.max_restarts = value
    elif name in _UNCLEAR:
        launch.unclear.append(f"{launch.tool}'s {option.text} {_UNCLEAR[name]}")
    elif name not in {"module", "no-python", "use-env"}:
        launch.useless.append(option.text)
