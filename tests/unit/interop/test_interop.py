"""Checkpoints outside jobs: loading, and other formats in and out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp
from interop_world import same, save, trained

from headway.checkpoint.errors import Fenced, NoValidCheckpoint
from headway.checkpoint.fence import claim
from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.reader import list_commits
from headway.checkpoint.stores import Store, open_store
from headway.interop.exporting import export
from headway.interop.formats import Format
from headway.interop.importing import import_checkpoint
from headway.interop.loading import load, load_model

OLDER, NEWER = CheckpointId(1, 10), CheckpointId(1, 20)


@pytest.fixture
def job(tmp_path: Path) -> str:
    return str(tmp_path / "job")


@pytest.fixture
def store(job: str) -> Store:
    return open_store(job)


def states(objects: dict[str, Any]) -> dict[str, Any]:
    return {name: value.state_dict() for name, value in objects.items()}


# --- loading ------------------------------------------------------------------------------------


def test_the_newest_checkpoint_loads_without_a_job(store: Store, job: str) -> None:
    save(store, OLDER, trained(1))
    objects = trained(2)
    save(store, NEWER, objects)
    loaded = load(job)
    assert (loaded.checkpoint, loaded.fallbacks) == (NEWER, ())
    assert loaded.metrics == {"loss": 0.5}
    assert same(states(objects), loaded.objects)


def test_one_checkpoint_loads_by_its_own_uri(store: Store, job: str) -> None:
    older = trained(1)
    save(store, OLDER, older)
    save(store, NEWER, trained(2))
    assert same(older["model"].state_dict(), load_model(f"{job}/{OLDER.directory}"))
    assert load(f"{job}/{OLDER.directory}/").checkpoint == OLDER


def test_a_damaged_checkpoint_is_passed_over_and_named(
    store: Store, job: str, caplog: pytest.LogCaptureFixture
) -> None:
    older = trained(1)
    save(store, OLDER, {**older, "extra": {"only here": torch.ones(3)}})
    save(store, NEWER, trained(2))
    store.delete(NEWER.part_key(1, 2))
    with caplog.at_level(logging.WARNING, "headway"):
        loaded = load(job)
    assert loaded.checkpoint == OLDER
    assert same(states(older), {n: loaded.objects[n] for n in older})
    assert "passed over step 20 of generation 1" in caplog.text
    with pytest.raises(NoValidCheckpoint, match="part-00001-of-00002"):
        load(f"{job}/{NEWER.directory}")


def test_a_model_alone_is_read_without_the_bytes_of_its_optimizer(store: Store, job: str) -> None:
    objects = trained(1)
    # A name that begins like the model's, and lies beside it.
    save(store, NEWER, {**objects, "model.ema": {"w": torch.ones(3)}}, world_size=1)
    whole = bytearray(store.get(NEWER.part_key(0, 1)))
    at = whole.index(objects["optimizer"].state_dict()["state"][0]["exp_avg"].numpy().tobytes())
    whole[at] ^= 1
    store.put(NEWER.part_key(0, 1), bytes(whole))
    assert same(objects["model"].state_dict(), load_model(job))
    with pytest.raises(NoValidCheckpoint, match="exp_avg"):
        load(job)


def test_the_order_in_memory_of_a_weight_comes_back(store: Store, job: str) -> None:
    convolution = torch.nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    save(store, NEWER, {"model": convolution})
    assert same(convolution.state_dict(), load_model(job))


def test_what_is_not_there_is_said_with_what_is(store: Store, job: str, tmp_path: Path) -> None:
    with pytest.raises(NoValidCheckpoint, match="no directory"):
        load(str(tmp_path / "typo"))
    assert not (tmp_path / "typo").exists()
    with pytest.raises(NoValidCheckpoint, match="there is no checkpoint"):
        load(job)
    save(store, NEWER, trained(1))
    with pytest.raises(KeyError, match="holds no 'ema'; it holds model, optimizer, scheduler"):
        load_model(job, "ema")
    with pytest.raises(NoValidCheckpoint, match="of step 10 of generation 1"):
        load(f"{job}/{OLDER.directory}")


# --- out and in again ---------------------------------------------------------------------------


@pytest.mark.parametrize("to", [Format.torch, Format.dcp])
@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_a_whole_state_goes_out_and_comes_in_again(
    store: Store,
    job: str,
    tmp_path: Path,
    to: Format,
    optimizer: type[torch.optim.Optimizer],
) -> None:
    objects = trained(1, optimizer)
    save(store, NEWER, objects)
    assert export(job, tmp_path / "out", to) == NEWER
    again = str(tmp_path / "again")
    checkpoint = import_checkpoint(tmp_path / "out", again, step=20, generation=3)
    assert checkpoint == CheckpointId(generation=3, step=20)
    loaded = load(again)
    assert loaded.checkpoint == checkpoint
    fresh = trained(2, optimizer)
    for name, value in fresh.items():
        value.load_state_dict(loaded.objects[name])
    assert same(states(objects), states(fresh))


def test_a_model_goes_out_as_safetensors_and_comes_in_again(
    store: Store, job: str, tmp_path: Path
) -> None:
    objects = trained(1)
    save(store, NEWER, objects, world_size=3)
    file = tmp_path / "sub" / "model.safetensors"
    assert export(job, file, Format.safetensors) == NEWER
    state = objects["model"].state_dict()
    assert same(state, {key: safetensors.torch.load_file(file)[key] for key in state})
    again = str(tmp_path / "again")
    import_checkpoint(file, again)
    assert same(state, {key: load_model(again)[key] for key in state})


def test_peers_read_what_is_exported(store: Store, job: str, tmp_path: Path) -> None:
    objects = trained(1)
    save(store, NEWER, objects)
    export(job, tmp_path / "state.pt", Format.torch, ["model"])
    found = torch.load(tmp_path / "state.pt", weights_only=True)
    assert same({"model": objects["model"].state_dict()}, found)
    export(job, tmp_path / "dcp", Format.dcp)
    fresh = trained(2)["model"].state_dict()
    with pytest.warns(UserWarning, match="torch.distributed is"):
        dcp.load({"model": fresh}, checkpoint_id=tmp_path / "dcp")
    assert same(objects["model"].state_dict(), fresh)


def test_a_fallback_leaves_nothing_of_the_bad_checkpoint_in_the_file(
    store: Store, job: str, tmp_path: Path
) -> None:
    older = trained(1)
    save(store, OLDER, older)
    save(store, NEWER, {"model": {"larger": torch.ones(1000), "weight": torch.ones(3)}})
    store.delete(NEWER.part_key(1, 2))
    assert export(job, tmp_path / "m.safetensors", Format.safetensors) == OLDER
    state = older["model"].state_dict()
    found = safetensors.torch.load_file(tmp_path / "m.safetensors")
    assert same(state, {key: found[key] for key in state})
    assert found.keys() == state.keys()


@pytest.mark.parametrize("to", Format)
def test_an_export_that_fails_leaves_nothing(
    store: Store, job: str, tmp_path: Path, to: Format
) -> None:
    save(store, NEWER, trained(1))
    store.delete(NEWER.part_key(0, 2))
    folder = tmp_path / "out"
    with pytest.raises(NoValidCheckpoint):
        export(job, folder / "target", to)
    assert not folder.exists() or list(folder.iterdir()) == []


@pytest.mark.parametrize("to", Format)
def test_nothing_is_overwritten(store: Store, job: str, tmp_path: Path, to: Format) -> None:
    save(store, NEWER, trained(1))
    (tmp_path / "there").write_text("mine")
    with pytest.raises(FileExistsError, match="choose another name"):
        export(job, tmp_path / "there", to)
    assert (tmp_path / "there").read_text() == "mine"


def test_what_safetensors_cannot_hold_is_named(store: Store, job: str, tmp_path: Path) -> None:
    save(store, NEWER, {"model": {"w": torch.ones(2), "_extra_state": {"n": 1}}, "lr": {"lr": 1}})
    with pytest.raises(ValueError, match=r"_extra_state.*export it as torch or dcp"):
        export(job, tmp_path / "m.safetensors", Format.safetensors)
    with pytest.raises(ValueError, match="holds one object"):
        export(job, tmp_path / "m.safetensors", Format.safetensors, ["model", "lr"])


# --- in -----------------------------------------------------------------------------------------


def test_a_file_of_tensors_alone_is_the_model_unless_it_is_named(tmp_path: Path) -> None:
    model = trained(1)["model"].state_dict()
    torch.save(model, tmp_path / "weights.pt")
    import_checkpoint(tmp_path / "weights.pt", str(tmp_path / "a"))
    import_checkpoint(tmp_path / "weights.pt", str(tmp_path / "b"), name="ema")
    assert same(model, load_model(str(tmp_path / "a")))
    assert same(model, load_model(str(tmp_path / "b"), "ema"))


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"model": Path("x")}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil\.pt cannot be read"):
        import_checkpoint(tmp_path / "evil.pt", str(tmp_path / "job"))


@pytest.mark.parametrize("name", ["text.pt", "text.safetensors", "folder", "missing"])
def test_what_is_no_checkpoint_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "folder").mkdir()
    with pytest.raises((ValueError, FileNotFoundError), match=name):
        import_checkpoint(tmp_path / name, str(tmp_path / "job"))


def test_an_import_that_a_restore_would_not_take_is_refused(
    store: Store, job: str, tmp_path: Path
) -> None:
    save(store, NEWER, trained(1))
    torch.save(trained(2)["model"].state_dict(), tmp_path / "weights.pt")
    with pytest.raises(FileExistsError, match="step 20 of generation 1"):
        import_checkpoint(tmp_path / "weights.pt", job, step=99)
    claim(store, 3, "a running job")
    with pytest.raises(Fenced):
        import_checkpoint(tmp_path / "weights.pt", job, step=1, generation=2)
    assert list_commits(store) == [NEWER]
    import_checkpoint(tmp_path / "weights.pt", job, step=1, generation=3)
    assert load(job).checkpoint == CheckpointId(3, 1)
