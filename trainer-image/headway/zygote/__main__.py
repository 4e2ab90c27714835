"""`python -m headway.zygote FD`: serves orders from the socket FD until it is closed.

In: `{"program": …, "preload": […]}` once, then `{"fork": key, "env": {…}}` with the descriptor
of the child's output. Out: `{"ready": true, "unsafe": "…", "failed": […]}`, `{"forked": key,
"pid": …}`, `{"exited": pid, "status": returncode}`.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import gc
import importlib.util
import io
import json
import os
import re
import selectors
import signal
import socket
import sys
import threading
from typing import Any

from headway.zygote import identity, safety, script
from headway.zygote.protocol import MESSAGE_BYTES, STACKS_SIGNAL

_PR_SET_PDEATHSIG = 1
_TORCH = ("torch", "torch._dynamo", "torch.distributed", "torch.utils.data", "headway.train")
"""The first `DDP(…)` imports `torch._dynamo`, some 800 modules: 1.5 s of each restart."""
_USES_TORCH = re.compile(rb"\b(torch|headway|lightning|transformers|accelerate|horovod)\b")


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Serve; in a forked child, run the program and return when it does."""
    _die_with_parent()
    # Whoever signals all of a pod's processes means the agent, which ends us as it should.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    link = socket.socket(fileno=int(sys.argv[1]))
    # Inherited by no program that a child starts.
    link.set_inheritable(False)
    order = json.loads(link.recv(MESSAGE_BYTES))
    program = script.Program(**order["program"])
    script.set_path(program)
    # A program that needs no torch must not wait for it.
    torch = _TORCH if _USES_TORCH.search(script.source(program)) and _exists("torch") else ()
    failed = script.preload([*torch, *order["preload"]])
    gc.collect()
    gc.freeze()  # collections in the children must not touch, and so copy, what they share
    link.send(
        json.dumps(
            {"ready": True, "unsafe": safety.reason_not_to_fork(), "failed": failed}
        ).encode()
    )
    child = _serve(link)
    if child is None:
        return
    identity.show([sys.executable, *order["shown"]])
    _run(program)


def _exists(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _serve(link: socket.socket) -> dict[str, Any] | None:
    """Fork on demand and tell of exits; returns an order in its child, None at the end."""
    bell, ringer = socket.socketpair()
    for end in (bell, ringer):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(ringer.fileno(), warn_on_full_buffer=False)
    with selectors.DefaultSelector() as selector:
        selector.register(link, selectors.EVENT_READ)
        selector.register(bell, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if bell in ready:
                bell.recv(4096)
                _tell_of_exits(link)
            if link in ready:
                data, fds, _, _ = socket.recv_fds(link, MESSAGE_BYTES, 1)
                if not data:
                    return None
                order = json.loads(data)
                pid = os.fork()
                if not pid:
                    _become_worker(order, fds[0], link, bell, ringer)
                    return dict(order)
                os.close(fds[0])
                link.send(json.dumps({"forked": order["fork"], "pid": pid}).encode())


def _tell_of_exits(link: socket.socket) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            link.send(json.dumps({"exited": pid, "status": code}).encode())


def _become_worker(order: dict[str, Any], output: int, *ours: socket.socket) -> None:
    os.setsid()
    _die_with_parent()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    # As a fresh interpreter has them: SIGPIPE is an exception, SIGINT a KeyboardInterrupt.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for each in ours:
        each.close()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.environ.update(order["env"])
    atexit.register(gc.unfreeze)  # or libraries take what they share for a leak at the end
    faulthandler.register(STACKS_SIGNAL, all_threads=True)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        # Python reseeds its own generator at a fork. Unseeded ranks must not draw alike.
        numpy.random.seed()


def _run(program: script.Program) -> None:
    """Run the program; a group waits for a rank that fails, so that one ends without teardown."""
    try:
        script.run(program)
    except SystemExit as error:
        if error.code is None or error.code == 0:
            raise
        if not isinstance(error.code, int):
            sys.stderr.write(f"{error.code}\n")
        _end_at_once(error.code if isinstance(error.code, int) else 1)
    except BaseException as error:  # noqa: BLE001 (this is where an interpreter would print it)
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename in _OURS:
            trace = trace.tb_next
        error.__traceback__ = trace
        sys.excepthook(type(error), error, trace)
        _end_at_once(130 if isinstance(error, KeyboardInterrupt) else 1)


def _end_at_once(code: int) -> None:
    """Do what the interpreter does at its end, but for taking every module apart (0.5 to 2 s)."""
    with contextlib.suppress(Exception):
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        # What was imported before the fork is frozen, and not among these.
        files = [each for each in gc.get_objects() if issubclass(type(each), io.IOBase)]
        atexit._run_exitfuncs()
        for file in files:
            if not file.closed and file.writable():
                file.flush()
    os._exit(code & 0xFF)


_OURS = {__file__, script.__file__, "<frozen runpy>"}

if __name__ == "__main__":
    main()
