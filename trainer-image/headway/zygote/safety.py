"""Whether this process may fork children that go on with what it has imported.

Threads do not survive a fork, but the locks they hold do; and CUDA does not work in a child of a
process that has touched it. BLAS libraries know the first trap and end their threads at a fork,
so the question is asked after one.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path


def reason_not_to_fork() -> str:
    """Why forking is unsafe here; empty if it is not."""
    if (python_threads := threading.active_count() - 1) > 0:
        return f"an imported module has started {python_threads} Python threads"
    if _uses_cuda():
        return "an imported module has initialised CUDA"
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    if (threads := len(list(Path("/proc/self/task").iterdir()))) > 1:
        return f"an imported module has started {threads - 1} threads that do not end at a fork"
    return ""


def _uses_cuda() -> bool:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return True
    files = (str(fd.resolve()) for fd in Path("/proc/self/fd").iterdir())
    return any(file.startswith("/dev/nvidia") for file in files)
