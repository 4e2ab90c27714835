"""What the end of a worker is said to come from."""

from __future__ import annotations

import pytest

from headway.agent.hints import hint

SHM = "RuntimeError: unable to allocate shared memory(shm) for file </torch_1>: No space left"
TIMEOUT = (
    "[/gloo/context.cc:95] Wait timeout after 30 seconds for key(s): 3. You may want to increase "
    "the timeout via HOROVOD_GLOO_TIMEOUT_SECONDS"
)


@pytest.mark.parametrize(
    ("signal", "tail", "absent", "said"),
    [
        ("SIGBUS", "", [], "spec.pod.sharedMemory"),
        ("", SHM, [], "spec.pod.sharedMemory"),
        ("", "DataLoader worker (pid 7) is killed by signal: Bus error.", [], "sharedMemory"),
        ("", "ModuleNotFoundError: No module named 'horovod'", [], "Dockerfile.horovod"),
        ("", "ImportError: Extension horovod.torch has not been built: /x", [], "Build it again"),
        ("", "ImportError: mpi_lib_v2.so: undefined symbol: _ZN3c10", [], "another version"),
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
    ],
)
def test_nothing_is_guessed(signal: str, tail: str, absent: list[int]) -> None:
    assert hint(signal, tail, absent) == ""
