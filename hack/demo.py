"""`make demo`: a real TrainingJob on this machine, with a worker process killed on the way.

Starts an S3 server, runs examples/digits/job.yaml with `headway run`, kills one worker process
in the middle without warning, checks what came out of it, and draws the training curve.
Everything it writes is in one folder; everything it starts ends with it.

`make demo-horovod` (`demo.py horovod`) does the same with examples/horovod/job.yaml.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from headway.checkpoint.errors import StoreError
from headway.checkpoint.reader import list_commits
from headway.checkpoint.stores import Store, open_store
from headway.tracking.history import Point, read_history
from seaweed import SeaweedServer

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = Path(os.environ.get("HEADWAY_DEMO_OUTPUT", ROOT / "demo-output"))
EXAMPLES = ROOT / "examples"
BUCKET = "headway"
KILL_AFTER_STEP = 100
WANTED_ACCURACY = 0.95
console = Console(stderr=True)


@dataclass
class Kill:
    """The worker process that was killed, and after which committed step."""

    pid: int
    rank: int
    after_step: int


def die_with_parent() -> None:
    """End the child when this process is killed without a chance to clean up."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def interrupt(_: int, __: FrameType | None) -> None:
    """SIGTERM is handled like Ctrl-C; a second one must not break the clean-up."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def start(server: SeaweedServer, manifest: Path, state: Path, *run: str) -> subprocess.Popen[str]:
    """Start `headway run`, or `headway sweep run`, with the demo's own S3 server."""
    credentials = {
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
    }
    command = [sys.executable, "-m", "headway.cli", *run, "-f", str(manifest), "-o", "json"]
    return subprocess.Popen(
        [*command, "--endpoint", server.endpoint, "--state", str(state)],
        cwd=ROOT,
        env={**os.environ, **credentials},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509 (one thread here; it makes one system call)
    )


def worker(run: subprocess.Popen[str], rank: int) -> psutil.Process | None:
    """The worker process of this rank, if it runs now."""
    try:
        for process in psutil.Process(run.pid).children(recursive=True):
            if process.environ().get("RANK") == str(rank) and process.parent() is not None:
                return process
    except psutil.Error:
        return None
    return None


def newest_step(store: Store) -> int:
    """Step of the newest checkpoint; 0 without one."""
    commits = list_commits(store)
    return commits[0].step if commits else 0


def kill_one(
    run: subprocess.Popen[str], server: SeaweedServer, example: str, kills: list[Kill]
) -> None:
    """Kill rank 1 once a checkpoint beyond `KILL_AFTER_STEP` is there."""
    root = open_job(server, run, example)
    while root is not None and run.poll() is None:
        try:
            step = newest_step(root)
        except StoreError:
            return
        victim = worker(run, rank=1)
        if step >= KILL_AFTER_STEP and victim is not None:
            time.sleep(0.3)  # somewhere between two checkpoints
            victim.kill()
            kills.append(Kill(victim.pid, 1, step))
            return
        time.sleep(0.1)


def open_job(server: SeaweedServer, run: subprocess.Popen[str], example: str) -> Store | None:
    """The job's root in storage, once the job exists."""
    state = OUTPUT / "state" / "cluster.json"
    while run.poll() is None:
        found = sorted((OUTPUT / "state" / "pods").glob("*/*"))
        if state.exists() and found:
            uid = job_uid(state)
            if uid:
                return job_store(server, example, uid)
        time.sleep(0.1)
    return None


def job_store(server: SeaweedServer, example: str, uid: str) -> Store:
    """The root in storage of the job with this UID, which is called as its example is."""
    return open_store(
        f"s3://{BUCKET}/jobs/{example}-{uid[:8]}",
        endpoint=server.endpoint,
        region="us-east-1",
        access_key=server.access_key,
        secret_key=server.secret_key,
    )


def job_uid(state: Path) -> str | None:
    """UID of the TrainingJob in the saved objects."""

    def search(value: Any) -> str | None:
        if isinstance(value, dict):
            if value.get("kind") == "TrainingJob" and "metadata" in value:
                uid: str = value["metadata"]["uid"]
                return uid
            value = list(value.values())
        if isinstance(value, list):
            return next((uid for uid in map(search, value) if uid), None)
        return None

    return search(json.loads(state.read_text()))


def draw(points: list[Point], resumed: int, title: str, path: Path) -> None:
    """The training curve of all generations, with the restart marked."""
    os.environ.setdefault("MPLCONFIGDIR", str(OUTPUT / "matplotlib"))
    import matplotlib as mpl  # noqa: PLC0415 (its cache folder has to be set first)

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 6), sharex=True, layout="constrained")
    for generation in sorted({p.generation for p in points}):
        mine = [p for p in points if p.generation == generation]
        for axis, metric in ((top, "loss"), (bottom, "val_accuracy")):
            known = [p for p in mine if metric in p.metrics]
            axis.plot(
                [p.step for p in known],
                [p.metrics[metric] for p in known],
                label=f"generation {generation}",
                linewidth=1.6,
            )
    first = [p.step for p in points if p.generation == min(q.generation for q in points)]
    for axis in (top, bottom):
        axis.axvline(max(first), color="crimson", linestyle="--", linewidth=1)
        axis.axvline(resumed, color="grey", linestyle=":", linewidth=1)
        axis.grid(alpha=0.3)
    top.annotate(
        f"worker killed at step {max(first)},\nresumed from step {resumed}",
        (max(first), top.get_ylim()[1]),
        xytext=(8, -8),
        textcoords="offset points",
        va="top",
        color="crimson",
    )
    top.set_ylabel("training loss")
    bottom.set_ylabel("validation accuracy")
    bottom.set_xlabel("step")
    top.legend(loc="upper right", bbox_to_anchor=(1, 0.75))
    figure.suptitle(f"{title}: two workers, one killed without warning")
    figure.savefig(path, dpi=110)


def findings(job: dict[str, Any], kills: list[Kill]) -> list[tuple[str, str, bool]]:
    """What happened: name, value, and whether it is as it should be."""
    status = job.get("status") or {}
    progress, restarts = status.get("progress") or {}, status.get("restarts") or {}
    checkpoint, last = status.get("checkpoint") or {}, restarts.get("last") or {}
    accuracy = float((progress.get("metrics") or {}).get("val_accuracy", "nan"))
    steps, total = progress.get("step"), progress.get("totalSteps")
    resumed = checkpoint.get("resumedFromStep")
    killed = kills[0].after_step if kills else None
    reason = str(last.get("message", "none")).splitlines()[0]
    return [
        ("phase", str(status.get("phase")), status.get("phase") == "Succeeded"),
        ("steps", f"{steps} of {total}", steps is not None and steps == total),
        ("restarts", f"{restarts.get('total', 0)}: {reason}", restarts.get("total") == 1),
        ("resumed from step", str(resumed), killed is not None and resumed == killed),
        ("validation accuracy", f"{accuracy:.3f}", accuracy >= WANTED_ACCURACY),
        ("last checkpoint", str(checkpoint.get("uri")), checkpoint.get("step") == steps),
    ]


def demo(example: str) -> int:
    """Run it all; returns the exit status."""
    if example == "horovod" and importlib.util.find_spec("horovod") is None:
        console.print("there is no Horovod in .venv: make horovod builds it (minutes, once)")
        return 2
    if OUTPUT.exists():
        shutil.rmtree(OUTPUT)
    OUTPUT.mkdir(parents=True)
    kills: list[Kill] = []
    secret = secrets.token_hex(16)
    console.print(f"everything this demo writes is in {OUTPUT}", highlight=False, soft_wrap=True)
    with SeaweedServer(OUTPUT / "s3", "demo", secret) as server:
        server.make_bucket(BUCKET)
        run = start(server, EXAMPLES / example / "job.yaml", OUTPUT / "state", "run")
        killer = threading.Thread(target=kill_one, args=(run, server, example, kills), daemon=True)
        killer.start()
        try:
            text, _ = run.communicate()
        except KeyboardInterrupt:
            console.print("interrupted: ending the job", style="yellow")
            run.send_signal(signal.SIGTERM)
            run.wait()
            return 130
        killer.join(10)
        job = json.loads(text) if text.strip() else {}
        rows = findings(job, kills)
        points = read_history(job_store(server, example, job["metadata"]["uid"]))
    picture = OUTPUT / "curve.png"
    if points and kills:
        draw(points, kills[0].after_step, example, picture)
    (OUTPUT / "job.json").write_text(json.dumps(job, indent=2))
    return report(rows, picture)


def report(rows: list[tuple[str, str, bool]], picture: Path, shows: str = "training curve") -> int:
    """Print what happened; 0 if all of it is as it should be."""
    table = Table(title="what happened", title_justify="left", show_header=False)
    table.add_column()
    table.add_column()
    table.add_column(overflow="fold")
    for name, value, good in rows:
        table.add_row("[green]✓[/]" if good else "[red]✗[/]", name, value)
    drawn = picture.exists()
    table.add_row("[green]✓[/]" if drawn else "[red]✗[/]", shows, str(picture))
    console.print(table)
    return 0 if drawn and all(good for _, _, good in rows) else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupt)
    options = argparse.ArgumentParser(description="Run an example, and kill a worker on the way.")
    options.add_argument("example", nargs="?", default="digits", choices=["digits", "horovod"])
    sys.exit(demo(options.parse_args().example))
