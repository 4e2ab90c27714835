"""What the end of a worker is said to come from."""

from __future__ import annotations

import pytest

from headway.agent.hints import hint, is_echo

SHM = "RuntimeError: unable to allocate shared memory(shm) for file </torch_1>: No space left"
TIMEOUT = (
    "[/gloo/context.cc:95] Wait timeout after 30 seconds for key(s): 3. You may want to increase "
    "the timeout via HOROVOD_GLOO_TIMEOUT_SECONDS"
)
SHUT_DOWN = "horovod.common.exceptions.HorovodInternalError: Horovod has been shut down. This was"
STALLED = f"""\
[W stall_inspector.cc:107] One or more tensors were submitted to be reduced.
Missing ranks:
1: [allreduce.a]
2: [allreduce.a]
[E stall_inspector.cc:105] One or more tensors were submitted to be reduced.
Missing ranks:
2: [allreduce.b]
3!: [allreduce.a, allreduce.b ...]
11!: [allreduce.a]
One or more rank (marked by "!") is stalled for longer than 20 seconds. Will shutdown.
Traceback (most recent call last):
{SHUT_DOWN}
"""


@pytest.mark.parametrize(
    ("signal", "tail", "absent", "said"),
    [
        ("SIGBUS", "", [], "spec.pod.sharedMemory"),
        ("", SHM, [], "spec.pod.sharedMemory"),
        ("", "DataLoader worker (pid 7) is killed by signal: Bus error.", [], "sharedMemory"),
        ("", "ModuleNotFoundError: No module named 'horovod'", [], "Dockerfile.horovod"),
        ("", "ImportError: Extension horovod.torch has not been built: /x", [], "Build it again"),
        ("", "ImportError: mpi_lib_v2.so: undefined symbol: _ZN3c10", [], "another version"),
        ("", STALLED, [], "the others waited for rank 3, 11 for more than 20 s in allreduce.a, "),
        ("SIGABRT", TIMEOUT, [2, 3], "rank 2, 3 had not called hvd.init()"),
        ("SIGABRT", TIMEOUT, range(20), "5, 6, 7, … had not called"),
    ],
)
def test_the_cause_is_said_where_it_can_be_known(
    signal: str, tail: str, absent: list[int], said: str
) -> None:
    assert said in hint(signal, tail, absent)


@pytest.mark.parametrize(
    ("signal", "tail", "absent"),
    [
        ("SIGKILL", "", []),
        ("", "ValueError: no", [1]),
        ("", "No module named 'horovodrun_helper'"[:22], []),
        ("SIGABRT", TIMEOUT, []),
        ("", STALLED.partition("[E ")[0] + SHUT_DOWN, []),  # it had only warned
    ],
)
def test_nothing_is_guessed(signal: str, tail: str, absent: list[int]) -> None:
    assert hint(signal, tail, absent) == ""


def test_a_rank_that_only_tells_that_horovod_has_ended_knows_no_cause() -> None:
    assert is_echo(SHUT_DOWN)
    assert not is_echo(STALLED)
    assert not is_echo("ValueError: no")
