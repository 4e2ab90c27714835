from __future__ import annotations

import pytest
from checkpoint_world import chunk_of
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from headway.checkpoint.state import CHUNK, ITEM_SIZES, Fragment, TensorSpec, partition

shapes = st.lists(st.integers(0, 6), max_size=3).map(tuple)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(lambda n: "@" not in n)
tensors = st.dictionaries(names, st.tuples(st.sampled_from(sorted(ITEM_SIZES)), shapes), max_size=8)


def specs_of(state: dict[str, tuple[str, tuple[int, ...]]]) -> list[TensorSpec]:
    return [TensorSpec(name=n, dtype=dtype, shape=shape) for n, (dtype, shape) in state.items()]


@given(state=tensors, world_size=st.integers(1, 400), chunk=st.sampled_from([8, 64, CHUNK]))
def test_partition_covers_every_element_exactly_once(
    state: dict[str, tuple[str, tuple[int, ...]]], world_size: int, chunk: int
) -> None:
    """Also with empty tensors, scalars, and more ranks than bytes."""
    specs = specs_of(state)
    with chunk_of(chunk):
        parts = partition(specs, world_size)
    assert len(parts) == world_size
    covered: dict[str, list[Fragment]] = {spec.name: [] for spec in specs}
    for fragment in (fragment for part in parts for fragment in part):
        covered[fragment.name].append(fragment)
    for spec in specs:
        runs = covered[spec.name]
        assert runs, f"{spec} is nobody's"
        assert [run.start for run in runs] == [
            sum(run.count for run in runs[:index]) for index in range(len(runs))
        ]
        assert sum(run.count for run in runs) == spec.count
        assert all(run.count > 0 for run in runs) or (spec.count == 0 and len(runs) == 1)
        assert all(run.count * spec.item_size <= chunk for run in runs)


@given(state=tensors, world_size=st.integers(1, 40))
def test_partition_is_balanced_to_one_element(
    state: dict[str, tuple[str, tuple[int, ...]]], world_size: int
) -> None:
    specs = specs_of(state)
    sizes = {spec.name: spec.item_size for spec in specs}
    total = sum(spec.nbytes for spec in specs)
    for part in partition(specs, world_size):
        nbytes = sum(fragment.count * sizes[fragment.name] for fragment in part)
        assert abs(nbytes - total / world_size) < 2 * max(ITEM_SIZES.values())


@given(state=tensors, world_size=st.integers(1, 9), seed=st.randoms(use_true_random=False))
def test_partition_does_not_depend_on_the_order_of_tensors(
    state: dict[str, tuple[str, tuple[int, ...]]], world_size: int, seed: object
) -> None:
    """Ranks that enumerate their state differently must still agree."""
    specs = specs_of(state)
    shuffled = list(specs)
    seed.shuffle(shuffled)  # type: ignore[attr-defined]
    assert partition(specs, world_size) == partition(shuffled, world_size)


def test_two_tensors_of_one_name_are_refused() -> None:
    spec = TensorSpec(name="w", dtype="F32", shape=(2,))
    with pytest.raises(ValueError, match="unique"):
        partition([spec, spec], 2)


def test_a_world_without_ranks_is_refused() -> None:
    with pytest.raises(ValueError, match="world_size"):
        partition([], 0)


@pytest.mark.parametrize("name", ["", "__metadata__", "weight@0", "a@b@17"])
def test_names_that_the_file_format_needs_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="cannot name a tensor"):
        TensorSpec(name=name, dtype="F32", shape=())


def test_an_unknown_dtype_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValidationError, match="BF16"):
        TensorSpec(name="w", dtype="float32", shape=())


def test_a_scalar_has_one_element_and_an_empty_tensor_none() -> None:
    assert TensorSpec(name="s", dtype="I64", shape=()).nbytes == 8
    assert TensorSpec(name="e", dtype="I64", shape=(3, 0)).nbytes == 0
