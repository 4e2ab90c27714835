"""Thousands of simulated histories of the whole operator, each from a seed.

`HEADWAY_SIM_SEEDS=20000` runs more of them, `HEADWAY_SIM_SEED=123` replays one with its trace.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from scenario import Simulation, exact_history, wild_history
from virtual import run

SEEDS = int(os.environ.get("HEADWAY_SIM_SEEDS", "1000"))
ONE = os.environ.get("HEADWAY_SIM_SEED")
BATCHES = 25


@contextmanager
def errors_into(bugs: list[str]) -> Iterator[None]:
    """Collect what the operator logs as errors."""
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: bugs.append(  # type: ignore[method-assign]
        f"{record.getMessage()} {record.exc_info}"
    )
    logger = logging.getLogger("headway_operator")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def play(seed: int) -> None:
    """Play one history; a broken invariant fails with the seed and everything that happened."""
    seen: list[Simulation] = []

    async def history() -> None:
        simulation = Simulation(seed)
        seen.append(simulation)
        with errors_into(simulation.bugs):
            await (exact_history if seed % 2 else wild_history)(simulation)

    try:
        run(history())
    except Exception as error:  # noqa: BLE001 - whatever it is, the trace is what helps
        trace = "\n".join(seen[0].trace[-400:]) if seen else ""
        pytest.fail(
            f"{trace}\n{type(error).__name__}: {error}\nreplay: HEADWAY_SIM_SEED={seed}",
            pytrace=ONE is not None,
        )


@pytest.mark.skipif(ONE is not None, reason="one seed is replayed")
@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_history_breaks_an_invariant(batch: int) -> None:
    """Crashes, conflicts, lost answers, late and lost events, lost nodes and users."""
    for seed in range(batch, SEEDS, BATCHES):
        play(seed)


@pytest.mark.skipif(ONE is None, reason="set HEADWAY_SIM_SEED to replay a history")
def test_replay() -> None:
    play(int(ONE or 0))
