"""Files that Horovod's rank 0 writes, on their way to storage: its timeline, autotune's log.

Rank 0 writes into the pod's scratch, which is memory; each generation has files of its own. What
is there is put to storage every so often, and once more when the ranks are gone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from headway.agent.config import PodConfig
from headway.checkpoint.errors import CheckpointError
from headway.checkpoint.retry import RetryPolicy
from headway.checkpoint.stores import Store
from headway_api import contract

log = logging.getLogger(__name__)
LIMIT = 64 * 2**20
"""Bytes of a file that are kept: its beginning. Viewers get slow long before."""
EVERY_SECONDS = 30.0
_FAREWELL_SECONDS = 10.0
"""For what is still to be sent when the pod ends."""
_RETRY = RetryPolicy(deadline=5.0, request_timeout=10.0)


@dataclass(frozen=True)
class _Kind:
    variable: str
    suffix: str
    repaired: Callable[[bytes], bytes]


def closed(data: bytes) -> bytes:
    """A timeline as valid JSON, wherever it was cut off: up to its last whole event.

    Horovod ends each event with the bracket that ends the file, and overwrites that with the next.
    A file is only cut while its ranks still write, or where a rank was killed.
    """
    if data.rstrip().endswith(b"}]"):
        return data
    end = data.rfind(b"},")  # what is inside of an event ends in `}}`
    return data[: end + 1] + b"]" if end >= 0 else b"[]"


def whole_lines(data: bytes) -> bytes:
    """A table up to its last whole line."""
    return data[: data.rfind(b"\n") + 1]


_KINDS = {
    "timeline": _Kind("HOROVOD_TIMELINE", "json", closed),
    "autotune": _Kind("HOROVOD_AUTOTUNE_LOG", "csv", whole_lines),
}


def key(name: str, generation: int) -> str:
    """Where a file is in the job's folder in storage."""
    return f"horovod/{name}-g{generation}.{_KINDS[name].suffix}"


class Files:
    """Takes the files of each generation to storage.

    Args:
        config: This pod.
        env: Its environment, which says which files are wanted. Paths that the user has set
            (`spec.pod.env`) are the user's.
    """

    def __init__(self, config: PodConfig, env: Mapping[str, str]) -> None:
        self._config = config
        wanted = env.get(contract.ENV_HOROVOD_FILES, "").split(",") if config.storage_uri else []
        self._names = [n for n in wanted if n in _KINDS and _KINDS[n].variable not in env]
        self._sent: dict[Path, int] = {}
        self._store: Store | None = None
        self._told: dict[str, str] = {}
        self._ended = threading.Event()
        self._keepers: list[threading.Thread] = []

    def begin(self, generation: int, *, goes_on: bool = False) -> dict[str, str]:
        """The variables of a new generation's ranks; its files are taken care of from here on.

        Args:
            generation: Its number.
            goes_on: Processes of the one before are still there and write where they did: their
                files stay those of this pod.
        """
        if goes_on and not self._ended.is_set():
            return self._told
        self.end()
        self._ended = threading.Event()
        self._keepers = [each for each in self._keepers if each.is_alive()]
        if self._names:
            # Not of asyncio's pool, which the end of the agent would wait for.
            arguments = (generation, self._ended)
            self._keepers.append(threading.Thread(target=self._keep, args=arguments, daemon=True))
            self._keepers[-1].start()
        self._told = {_KINDS[n].variable: str(self._path(n, generation)) for n in self._names}
        return self._told

    def end(self) -> None:
        """The ranks are gone: what they have left is sent beside the next generation."""
        self._ended.set()

    async def close(self) -> None:
        """Wait until all is sent, but not for long: the pod may be about to be killed."""
        self.end()
        for each in self._keepers:
            await asyncio.to_thread(each.join, _FAREWELL_SECONDS)

    def _path(self, name: str, generation: int) -> Path:
        return self._config.scratch / f"horovod-{name}-g{generation}.{_KINDS[name].suffix}"

    def _keep(self, generation: int, ended: threading.Event) -> None:
        last = False
        while not last:
            last = ended.wait(EVERY_SECONDS)
            for name in self._names:  # only rank 0 writes, so that there is none in other pods
                self._send(name, generation)
        for name in self._names:
            self._path(name, generation).unlink(missing_ok=True)

    def _send(self, name: str, generation: int) -> None:
        """Put a file to storage, unless it is there as it is. Nothing that fails stops training."""
        path = self._path(name, generation)
        try:
            size = path.stat().st_size
            if size > LIMIT:
                # Horovod writes on where it was, behind a hole that takes no memory.
                os.truncate(path, LIMIT)
            if min(size, LIMIT) == self._sent.get(path, 0):
                return
            with path.open("rb") as file:
                data = _KINDS[name].repaired(file.read(LIMIT))
            self._open().put(key(name, generation), data)
            self._sent[path] = min(size, LIMIT)
            if size > LIMIT:
                log.warning("%s keeps its first %d MiB only", key(name, generation), LIMIT >> 20)
        except FileNotFoundError:
            return
        except (CheckpointError, OSError, ValueError) as error:
            log.warning("%s is not in storage: %s", key(name, generation), error)

    def _open(self) -> Store:
        if self._store is None:
            self._store = self._config.open_store(_RETRY)
        return self._store
