"""What every bench needs: rounds, medians, a table, one line of JSON, processes and a server.

Each bench prints a table for people and, as the last line of stdout, one line of JSON:
``{contestant: {key: value}}``. Everything else goes to stderr.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import psutil
import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from seaweed import SeaweedServer

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")
Results = dict[str, dict[str, Any]]
console = Console(stderr=True)
_SAY_SECONDS = 15.0


# --- pure parts ----------------------------------------------------------------------------------


def median(values: Iterable[float]) -> float | None:
    """The median; None of nothing."""
    known = list(values)
    return statistics.median(known) if known else None


def percentile(values: Iterable[float], share: float) -> float | None:
    """The smallest value that at least `share` (0 to 1) of all values do not exceed."""
    known = sorted(values)
    return known[max(math.ceil(share * len(known)), 1) - 1] if known else None


def chosen(names: Iterable[str], only: Sequence[str] | None) -> list[str]:
    """The contestants that take part: all, unless `--only` names some."""
    return [name for name in names if not only or name in only]


def rounds(names: Sequence[T], count: int, seed: int) -> Iterator[tuple[int, T]]:
    """Every name once a round, in an order of its own: nobody always comes after the same one."""
    order = random.Random(seed)
    for number in range(count):
        yield from ((number, name) for name in order.sample(names, len(names)))


def rounded(results: Results) -> Results:
    """The results with three significant digits: more would be noise."""
    return {
        name: {key: _short(value) for key, value in row.items()} for name, row in results.items()
    }


def _short(value: Any) -> Any:
    if isinstance(value, list):
        return [_short(each) for each in value]
    if isinstance(value, dict):
        return {key: _short(each) for key, each in value.items()}
    if not isinstance(value, float) or not math.isfinite(value) or value == 0:
        return value
    digits = 2 - math.floor(math.log10(abs(value)))
    return round(value, digits) if digits > 0 else float(round(value))


# --- what the reader sees -----------------------------------------------------------------------


def show(
    title: str,
    results: Results,
    notes: Sequence[str] = (),
    failures: Mapping[str, str] | None = None,
) -> None:
    """Print the table, what has to be said about it, and the last line of JSON.

    Args:
        title: Above the table.
        results: Figures by contestant.
        notes: Below the table.
        failures: Who has no figures, and why; in the JSON under the key `error`.
    """
    short = rounded(results)
    out = Console(width=max(Console().width, 120))
    out.print(table(title, short))
    for note in (*notes, *(f"{name}: {why}" for name, why in (failures or {}).items())):
        out.print(f"· {note}", highlight=False, markup=False)
    for name, why in (failures or {}).items():
        short.setdefault(name, {})["error"] = why.splitlines()[-1]
    sys.stdout.write(json.dumps(short) + "\n")
    sys.stdout.flush()


def table(title: str, results: Results) -> Table:
    """Names or keys across, whatever there is less of: that makes a narrow table."""
    keys = list(dict.fromkeys(key for row in results.values() for key in row))
    across = len(results) < len(keys)
    shown = Table("", title=title, title_justify="left")
    for head in results if across else keys:
        shown.add_column(head, justify="right", overflow="fold")
    for first in keys if across else results:
        pairs = [(name, first) for name in results] if across else [(first, key) for key in keys]
        shown.add_row(first, *(_cell(results[name].get(key)) for name, key in pairs))
    return shown


def _cell(value: Any) -> str:
    return "-" if value is None else str(value)


class Bar:
    """A progress bar on stderr; a line now and then where stderr is no terminal.

    Args:
        total: Pieces of work.
    """

    def __init__(self, total: int) -> None:
        self._total, self._done, self._said = total, 0, 0.0
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, TextColumn("{task.description}"), console=console)
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Self:
        if console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """One piece of work."""
        self._bar.update(self._task, description=what)
        yield
        self._done += 1
        self._bar.update(self._task, advance=1)
        if not console.is_terminal and time.monotonic() - self._said > _SAY_SECONDS:
            self._said = time.monotonic()
            console.print(f"{self._done} of {self._total}: {what}", highlight=False)


# --- processes ---------------------------------------------------------------------------------


def run(main: Callable[..., None]) -> None:
    """Run a bench's command. SIGTERM is handled like Ctrl-C: what was started is ended."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    typer.run(main)


def headway_run(script: Sequence[str], folder: Path, world: int, **spec: Any) -> list[str]:
    """Our command for a bench's job: so many pods with one worker process each.

    Args:
        script: What each worker runs, without `python`.
        folder: For manifest, storage and state.
        world: Pods.
        spec: Further fields of the job.
    """
    job = {
        "apiVersion": "headway.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "bench"},
        "spec": {
            "command": ["python", *script],
            "workers": {"replicas": world},
            "storage": {"uri": str(folder / "storage")},
            **spec,
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "job.yaml"
    manifest.write_text(yaml.safe_dump(job))
    command = [sys.executable, "-m", "headway.cli", "run", "-f", str(manifest)]
    return [*command, "--logs", "all", "--state", str(folder / "state")]


def cpus(pinned: int | None) -> list[str]:
    """A command's prefix that ties it (and all its children) to one CPU, where there are two."""
    available = sorted(os.sched_getaffinity(0))
    if pinned is None or len(available) < 2:
        return []
    return ["taskset", "-c", str(available[pinned])]


def die_with_parent() -> None:
    """End the child when the bench is killed without a chance to clean up."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def start(
    command: Sequence[str],
    log: Path,
    env: Mapping[str, str] | None = None,
    pinned: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process group of its own, with its output in `log`."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    python_path = f"{ROOT / 'hack'}:{os.environ.get('PYTHONPATH', '')}"
    with log.open("ab") as output:
        return subprocess.Popen(
            [*cpus(pinned), *command],
            cwd=ROOT,
            env={**os.environ, "PATH": path, "PYTHONPATH": python_path, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 (it makes one system call)
        )


def tree(pid: int) -> list[psutil.Process]:
    """A process and all its descendants that are there now."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def end(process: subprocess.Popen[bytes], grace: float = 5.0) -> None:
    """End a process and its descendants: SIGTERM to it, SIGKILL to whatever is left."""
    family = tree(process.pid)
    if grace and process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    for each in family:
        with contextlib.suppress(psutil.Error):
            each.kill()
    process.wait()
    psutil.wait_procs(family, timeout=5)


def wait_for(what: str, probe: Callable[[], T | None], seconds: float, pause: float = 0.01) -> T:
    """Poll until `probe` gives something.

    Raises:
        TimeoutError: it did not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (found := probe()) is not None and found is not False:
            return found
        time.sleep(pause)
    raise TimeoutError(f"waited {seconds:g} s for {what}")


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, for an error message."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


# --- storage -----------------------------------------------------------------------------------


class Storage:
    """SeaweedFS for one bench: its bucket, and the environment in which peers find it."""

    bucket = "bench"

    def __init__(self, server: SeaweedServer) -> None:
        self.server = server
        self.env = {
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": server.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            "BENCH_BUCKET": self.bucket,
        }

    def store(self, prefix: str = "") -> Any:
        """An obstore store below a prefix of the bucket."""
        from obstore.store import S3Store  # noqa: PLC0415 (benches without storage do without)

        return S3Store(
            self.bucket,
            prefix=prefix or None,
            endpoint=self.server.endpoint,
            access_key_id=self.server.access_key,
            secret_access_key=self.server.secret_key,
            region="us-east-1",
            client_options={"allow_http": True},
        )

    def clear(self, prefix: str) -> None:
        """Delete every object below a prefix."""
        store = self.store(prefix)
        for chunk in store.list():
            store.delete([each["path"] for each in chunk])

    def vacuum(self) -> None:
        """Give the space of deleted objects back, which SeaweedFS otherwise does much later."""
        port = self.server._ports["master.port"]
        url = f"http://127.0.0.1:{port}/vol/vacuum?garbageThreshold=0.01"
        with urllib.request.urlopen(url, timeout=120) as answer:
            answer.read()


@contextlib.contextmanager
def storage(folder: Path, pinned: int | None) -> Iterator[Storage]:
    """A running SeaweedFS, tied to one CPU."""
    os.environ["PATH"] += f":{ROOT / '.venv' / 'bin'}"  # `weed` is there
    server = SeaweedServer(folder / "s3", "bench", "bench-secret")
    before = os.sched_getaffinity(0)
    if pinned is not None and len(before) > 1:
        os.sched_setaffinity(0, {sorted(before)[pinned]})  # children inherit it
    try:
        server.start()
    finally:
        os.sched_setaffinity(0, before)
    try:
        server.make_bucket(Storage.bucket)
        yield Storage(server)
    finally:
        server.stop()


@contextlib.contextmanager
def workspace(name: str, keep: Path | None = None, *, in_memory: bool = False) -> Iterator[Path]:
    """A folder for logs and data: `keep`, or one that is gone afterwards."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    above = memory_folder() if in_memory else None
    with tempfile.TemporaryDirectory(
        prefix=f"headway-bench-{name}-", dir=above, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


def memory_folder() -> Path:
    """Where files are in memory."""
    shm = Path("/dev/shm")
    return shm if os.access(shm, os.W_OK) else Path(tempfile.gettempdir())
