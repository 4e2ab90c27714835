"""Entry point of a pod: `headway-agent -- python train.py`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from headway.agent import agent, termination
from headway.agent.config import ConfigError, PodConfig
from headway_api.contract import ExitCode
from headway_api.messages import TerminationReport

_USAGE = """usage: headway-agent -- COMMAND [ARGUMENT ...]

Runs COMMAND in each worker process of this pod. The operator sets the environment that tells
the pod its place; on its own it runs one worker on this machine.

example: headway-agent -- python train.py --epochs 3
"""


def main() -> None:
    """Run the agent; ends the process with the pod's exit code."""
    arguments = sys.argv[1:]
    if arguments[:1] in (["-h"], ["--help"]):
        sys.stdout.write(_USAGE)
        return
    command = arguments[1:] if arguments[:1] == ["--"] else arguments
    logging.basicConfig(
        level=os.environ.get("HEADWAY_LOG_LEVEL", "INFO"),
        format="%(asctime)s headway %(levelname).1s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    try:
        config = PodConfig.from_env(os.environ, command)
    except ConfigError as error:
        logging.getLogger(__name__).error("%s", error)
        sys.exit(ExitCode.CONFIG)
    try:
        code = asyncio.run(agent.run(config))
    except Exception as error:
        # A defect of ours must reach the status too, not only the log.
        report = TerminationReport(reason="AgentError", exit_code=1, message=repr(error))
        termination.write(config.termination_log, report)
        raise
    sys.exit(code)


if __name__ == "__main__":
    main()
