"""SIGTERM is the agent's: it has all ranks save the same step, and then ends them."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any


def leave_to_agent() -> None:
    """Take no notice of SIGTERM in this process, unless the script has a handler of its own.

    Whoever ends a pod may signal each of its processes, not only the agent.
    """
    ours = threading.current_thread() is threading.main_thread()  # others may set no handlers
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return
    trainer = os.getpid()

    def ignore(number: int, _: Any) -> None:
        # Not SIG_IGN, which also what this process starts would inherit.
        if os.getpid() != trainer:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, ignore)
