"""Which rank runs where."""

from __future__ import annotations

from itertools import product

import pytest

from headway.agent.placement import Placement, place


def test_ranks_follow_the_index_of_their_pod() -> None:
    made = place([2, 0, 1], 2)
    assert made.processes == ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1))
    assert made.pods == (0, 1, 2)
    assert [made.ranks(index) for index in (0, 1, 2)] == [[0, 1], [2, 3], [4, 5]]


def test_a_missing_pod_leaves_no_hole_in_the_ranks() -> None:
    made = place([0, 2], 1)
    assert made.pods == (0, 2)
    assert made.rank(2, 0) == 1
    assert made.world_size == 2


def test_rank_0_is_a_process_that_has_the_state() -> None:
    assert place([0, 1, 2], 1, {2: [0]}).pods == (2, 0, 1)
    assert place([0, 1], 1, {0: [], 1: [0]}).processes == ((1, 0), (0, 0))


def test_a_local_rank_never_changes_and_so_the_gpu_does_not() -> None:
    made = place([0], 2, {0: [1]})  # only the second process of the pod has survived
    assert made.processes == ((0, 1), (0, 0))
    assert (made.rank(0, 1), made.local_rank(0)) == (0, 1)


@pytest.mark.parametrize("pods", [1, 2, 3])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_whoever_survives_every_process_has_one_rank(pods: int, processes: int) -> None:
    everybody = list(product(range(pods), range(processes)))
    for chosen in product([False, True], repeat=len(everybody)):
        survivors: dict[int, list[int]] = {}
        for (index, local), lives in zip(everybody, chosen, strict=True):
            if lives:
                survivors.setdefault(index, []).append(local)
        made = place(range(pods), processes, survivors)
        assert sorted(made.processes) == everybody
        assert sorted(made.pods) == list(range(pods))
        first_index, first_local = made.processes[0]
        assert not survivors or first_local in survivors.get(first_index, [])
        assert Placement.told(made.message) == made
