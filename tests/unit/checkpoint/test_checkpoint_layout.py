from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.checkpoint.layout import (
    CheckpointId,
    CommitKey,
    MetricsKey,
    PartKey,
    RankKey,
    metrics_key,
    parse_checkpoint_key,
    parse_metrics_key,
)

numbers = st.integers(0, 10**14)
ids = st.builds(CheckpointId, generation=st.integers(0, 10**8), step=numbers)


def test_keys_are_those_of_the_design() -> None:
    checkpoint = CheckpointId(generation=3, step=1500)
    folder = "ckpt/000000001500-000003"
    assert checkpoint.directory == folder
    assert checkpoint.commit_key == f"{folder}/COMMIT.json"
    assert checkpoint.part_key(1, 4) == f"{folder}/part-00001-of-00004.safetensors"
    assert checkpoint.rank_key(1) == f"{folder}/rank-00001.json"
    assert metrics_key(3, 12) == "metrics/000003-000012.jsonl"


def test_a_newer_generation_beats_a_higher_step() -> None:
    assert CheckpointId(generation=4, step=10) > CheckpointId(generation=3, step=900)
    assert CheckpointId(generation=4, step=11) > CheckpointId(generation=4, step=10)


@given(checkpoint=ids, rank=numbers, world_size=numbers)
def test_every_key_is_read_back(checkpoint: CheckpointId, rank: int, world_size: int) -> None:
    assert parse_checkpoint_key(checkpoint.commit_key) == CommitKey(checkpoint)
    assert parse_checkpoint_key(checkpoint.part_key(rank, world_size)) == PartKey(
        checkpoint, rank, world_size
    )
    assert parse_checkpoint_key(checkpoint.rank_key(rank)) == RankKey(checkpoint, rank)
    assert parse_metrics_key(metrics_key(rank, world_size)) == MetricsKey(rank, world_size)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "ckpt",
        "ckpt/",
        "other/000000001500-000003/COMMIT.json",
        "ckpt/000000001500-000003",
        "ckpt/000000001500-000003/",
        "ckpt/000000001500-000003/COMMIT.json.tmp",
        "ckpt/000000001500-000003/commit.json",
        "ckpt/000000001500-000003/deeper/COMMIT.json",
        "ckpt/1500-3/COMMIT.json",
        "ckpt/0000000001500-000003/COMMIT.json",
        "ckpt/000000001500-000003-1/COMMIT.json",
        "ckpt/00000000150x-000003/COMMIT.json",
        "ckpt/\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0661\u0665\u0660\u0660-000003/COMMIT.json",
        "ckpt/000000001500-000003/part-1-of-4.safetensors",
        "ckpt/000000001500-000003/rank-000001.json",
        "ckpt/000000001500-000003/COMMIT.json\n",
    ],
)
def test_junk_is_ignored(key: str) -> None:
    assert parse_checkpoint_key(key) is None
    assert parse_metrics_key(key) is None


@given(st.text())
def test_no_text_makes_the_parser_fail(text: str) -> None:
    for key in (text, f"ckpt/{text}", f"ckpt/000000001500-000003/{text}"):
        parsed = parse_checkpoint_key(key)
        assert parsed is None or key.startswith(parsed.id.directory)


def test_negative_numbers_name_no_checkpoint() -> None:
    with pytest.raises(ValueError, match="negative"):
        CheckpointId(generation=-1, step=0)
