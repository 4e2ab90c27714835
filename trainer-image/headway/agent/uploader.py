"""The process that sends checkpoints from shared memory to storage: `python -m …uploader FD`.

A process of its own, so that sending takes no GIL from the training and outlives the workers; a
nice one, so that it computes when they do not. One checkpoint at a time: an order for a newer one
ends the work on an older one.

In: `{"generation", "step", "parts": [{"rank", "slot"}]}`. Out, for each part: `{"receipt", …}`,
`{"overwritten": true, …}` or `{"failed": message, …}`; and `{"waiting": message}` while storage
does not answer.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from headway.checkpoint import writer
from headway.checkpoint.errors import CheckpointError, StoreUnavailable
from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.retry import RetryPolicy
from headway.checkpoint.slot import Contents, Slot
from headway.checkpoint.stores import Store, open_store
from headway_api import contract

log = logging.getLogger(__name__)
NICE = 10
_PAUSE_SECONDS = 1.0
_RETRY = RetryPolicy(deadline=5.0, request_timeout=20.0)
"""Short, since an upload is tried for as long as its slot holds it, and a newer order must not
wait for long."""
_PARTS_AT_ONCE = 4


class OverwrittenError(Exception):
    """The slot holds another checkpoint by now, or the order was replaced by a newer one."""


class _Upload:
    """One checkpoint on its way."""

    def __init__(self, order: Mapping[str, Any], store: Store, link: _Link) -> None:
        self.id = CheckpointId.named_in(order)
        self._parts = order["parts"]
        self._store, self._link = store, link
        self._done: list[dict[str, Any]] = []
        self.ended = threading.Event()

    def run(self) -> None:
        """Send all parts of this pod."""
        with ThreadPoolExecutor(_PARTS_AT_ONCE) as pool:
            list(pool.map(self._send, self._parts))

    def _send(self, part: Mapping[str, Any]) -> None:
        rank = int(part["rank"])
        began = time.monotonic()
        while True:
            try:
                message = self._sent(rank, part["slot"])
            except StoreUnavailable as error:
                # Nothing is lost as long as the slot is ours: the training goes on meanwhile.
                self._link.say({"waiting": str(error)})
                if not self.ended.wait(_PAUSE_SECONDS):
                    continue
                return
            except OverwrittenError:
                message = {"overwritten": True}
            except (CheckpointError, OSError, ValueError) as error:
                message = {"failed": str(error)}
            about = {**self.id.names, "rank": rank}
            self._done.append({**about, **message, "seconds": time.monotonic() - began})
            self._link.say(self._done[-1])
            return

    def again(self, order: Mapping[str, Any]) -> bool:
        """Whether this is an order for the same: then it goes on, and tells again what is done."""
        same = self.id == CheckpointId.named_in(order)
        if same and order["parts"] == self._parts and not self._lost:
            for message in list(self._done):
                self._link.say(message)
            return True
        return False

    @property
    def _lost(self) -> bool:
        return any("receipt" not in message for message in self._done)

    def _sent(self, rank: int, path: str) -> dict[str, Any]:
        slot = Slot(path)
        try:
            contents = self._check(slot)
            layout, state, data = contents.layout, contents.state, contents.data
            pieces = [
                (each.fragment, data[each.offset : each.offset + each.nbytes])
                for each in layout.placed[rank]
            ]
            receipt = writer.send_part(
                self._store,
                self.id,
                rank,
                layout.world_size,
                specs=layout.tensors,
                pieces=pieces,
                rank_state=state["rank_state"],
                objects=state["objects"],
                check=lambda: self._check(slot),
            )
            self._check(slot)
        finally:
            slot.close()
        return {
            "receipt": receipt.model_dump(mode="json"),
            "metrics": state["metrics"],
            "resumed_from": state["resumed_from"],
        }

    def _check(self, slot: Slot) -> Contents:
        """The slot is still what we were to send: a worker unseals it before it writes to it."""
        contents = slot.read()
        if contents is None or contents.id != self.id or self.ended.is_set():
            raise OverwrittenError
        return contents


class _Link:
    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._lock = threading.Lock()

    def say(self, message: Mapping[str, Any]) -> None:
        with self._lock:
            self._end.sendall(json.dumps(message).encode() + b"\n")


def _be_nice() -> None:
    """Compute when the training does not."""
    os.nice(NICE)
    # Outside containers, desktops' kernels share the CPU out among sessions first (sched(7)).
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICE))


def main() -> None:
    """Serve orders until the socket is closed."""
    _be_nice()
    for number in (signal.SIGINT, signal.SIGTERM):  # they are meant for the agent
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="headway uploader %(message)s")
    end = socket.socket(fileno=int(sys.argv[1]))
    link, current = _Link(end), None
    store: Store | None = None
    worker: threading.Thread | None = None
    with end.makefile("rb") as orders:
        for line in orders:
            order = json.loads(line)
            if current is not None and current.again(order):
                continue
            if current is not None:
                current.ended.set()
            if worker is not None:
                worker.join()
            store = store or open_store(
                os.environ[contract.ENV_STORAGE_URI],
                endpoint=os.environ.get(contract.ENV_STORAGE_ENDPOINT) or None,
                region=os.environ.get(contract.ENV_STORAGE_REGION) or None,
                retry=_RETRY,
            )
            current = _Upload(order, store, link)
            worker = threading.Thread(target=current.run, daemon=True)
            worker.start()
    os._exit(0)  # what is being sent is of no use to anybody any more


if __name__ == "__main__":
    main()
