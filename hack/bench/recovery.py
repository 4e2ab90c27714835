"""`make bench-recovery`: from the loss of a process or a pod to the next finished step."""

from __future__ import annotations

import random
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import psutil
import typer

from bench import harness
from bench.harness import console
from bench.losses import LIMIT_SECONDS, WORLD, Block, Job, Loss, Try, any_rank, shares, summary

SCRIPT = Path(__file__).with_name("recovery_script.py")
PEERS = ("torchrun", "torchrun_no_store_sharing")


def command_of(
    name: str, state_mb: int, loader_workers: int, folder: Path
) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a contestant's job."""
    script = [str(SCRIPT), "headway" if name == "headway" else "torchrun"]
    script += ["--state-mb", str(state_mb), "--loader-workers", str(loader_workers)]
    env = {"BENCH_STEPS": str(folder), "OMP_NUM_THREADS": "1"}
    if name == "headway":
        every, policy = {"everySteps": 25}, {"maxRestarts": 10000}
        ours = harness.headway_run(script, folder, WORLD, checkpoint=every, failurePolicy=policy)
        return ours, env
    if name == "torchrun_no_store_sharing":
        env["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*command, f"--nproc-per-node={WORLD}", "--max-restarts=100000", *script], env


# --- losses --------------------------------------------------------------------------------------


def agent(job: Job) -> list[psutil.Process]:
    """The agent of worker 1."""
    return pod(job, 1)[:1]


def pod(job: Job, index: int = 1) -> list[psutil.Process]:
    """Every process of the pod of a worker, the agent first."""
    found = [p for p in harness.tree(job.process.pid) if _index(p) == str(index)]
    return sorted(found, key=lambda p: p.create_time())


def preemption(dice: random.Random) -> Loss:
    """SIGTERM for the agent of a random worker, as the kubelet does it to a pod."""
    return Loss(lambda job: pod(job, dice.randrange(WORLD))[:1], signal.SIGTERM)


def _index(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("HEADWAY_WORKER_INDEX")
    except psutil.Error:
        return None


# --- the bench -----------------------------------------------------------------------------------


def main(  # noqa: PLR0913, PLR0917 (each is an option)
    tries: Annotated[int, typer.Option(help="Killed workers under Headway.")] = 50,
    peer_tries: Annotated[int, typer.Option(help="Killed workers under each torchrun.")] = 15,
    other_tries: Annotated[int, typer.Option(help="Killed agents, and lost pods (Headway).")] = 5,
    preemptions: Annotated[int, typer.Option(help="Pods that get SIGTERM (Headway).")] = 50,
    blocks: Annotated[int, typer.Option(help="Turns that the contestants take.")] = 3,
    state_mb: Annotated[int, typer.Option(help="Size of the training state in MB.")] = 1,
    only: Annotated[list[str] | None, typer.Option(help="Only these contestants.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of victims and moments.")] = None,
    quick: Annotated[bool, typer.Option(help="A look: few tries, one block.")] = False,
    keep: Annotated[Path | None, typer.Option(help="Folder for logs, kept afterwards.")] = None,
) -> None:
    """Kill workers at random steps: Headway and torchrun side by side, in turns.

    Then, under Headway only: killed agents, lost pods, and pods that are taken away (SIGTERM).

    Two ranks on this machine, PyTorch DDP over gloo, checkpoints every 25 steps into memory. A
    job that finishes no step within 40 s of the kill has failed, and is started anew.

    For example:

        make bench-recovery

        make bench-recovery ARGS="--quick"

        make bench-recovery ARGS="--only headway --tries 200 --seed 7"
    """
    if quick:
        tries, peer_tries, other_tries, preemptions, blocks = 6, 3, 1, 3, 1
    seed = random.randrange(10**6) if seed is None else seed
    dice = random.Random(seed)
    console.print(f"seed {seed}")
    names = harness.chosen(("headway", *PEERS), only)
    plan = {name: shares(tries if name == "headway" else peer_tries, blocks) for name in names}
    found: dict[str, list[Try]] = {name: [] for name in names}
    others = {
        "agent_": (Loss(agent), other_tries, 0),
        "pod_": (Loss(pod), other_tries, 0),
        "sigterm_": (preemption(dice), preemptions, 1),
    }
    if "headway" not in names:
        others.clear()
    total = sum(map(sum, plan.values())) + sum(count for _, count, _ in others.values())
    with (
        harness.workspace("recovery", keep, in_memory=True) as folder,
        harness.Bar(total) as bar,
    ):
        for number, name in harness.rounds(names, blocks, seed):
            place = folder / f"kills-{number}"
            launch = partial(command_of, name, state_mb, 0)
            block = Block(name, plan[name][number], any_rank(dice), place, launch, dice)
            found[name] += block.run(bar)
        extra = {}
        for prefix, (loss, count, loaders) in others.items():
            launch = partial(command_of, "headway", state_mb, loaders)
            block = Block("headway", count, loss, folder / prefix, launch, dice)
            extra[prefix] = block.run(bar)
    results = {name: summary(each) for name, each in found.items()}
    for prefix, each in extra.items():
        results["headway"] |= summary(each, prefix)
    harness.show(
        "from the loss to the next finished step",
        results,
        [f"seed {seed}; a try that failed counts with {LIMIT_SECONDS:g} s"],
    )


if __name__ == "__main__":
    harness.run(main)
