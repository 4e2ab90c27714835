"""`headway checkpoint`: what it prints and with which status it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from interop_world import same, save, trained
from typer.testing import CliRunner, Result

from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.stores import Store, open_store
from headway.cli import application
from headway.interop.loading import load, load_model

OLDER, NEWER = CheckpointId(1, 10), CheckpointId(1, 20)


@pytest.fixture
def job(tmp_path: Path) -> str:
    return str(tmp_path / "job")


@pytest.fixture
def store(job: str) -> Store:
    store = open_store(job)
    save(store, OLDER, trained(1))
    save(store, NEWER, trained(2))
    return store


def headway(*arguments: object) -> Result:
    return CliRunner().invoke(application(), ["checkpoint", *map(str, arguments)])


def test_list_shows_all_newest_first_and_what_is_wrong_with_each(store: Store, job: str) -> None:
    unfinished, torn = CheckpointId(2, 5), CheckpointId(2, 3)
    store.put(unfinished.part_key(0, 1), b"x")
    store.put(torn.commit_key, b"x")
    found = headway("list", job, "-o", "json")
    assert found.exit_code == 0
    rows = json.loads(found.stdout)
    assert [(row["step"], row["generation"]) for row in rows] == [(5, 2), (3, 2), (20, 1), (10, 1)]
    assert [row["state"] for row in rows] == [
        "never committed",
        "COMMIT.json is torn: it is not JSON",
        "committed",
        "committed",
    ]
    assert rows[2]["metrics"] == {"loss": 0.5}
    assert rows[2]["size"] == sum(store.size(key) for key in store.list(NEWER.directory)) - (
        store.size(NEWER.commit_key)
    )
    assert "000000000020-000001" in headway("list", job).stdout


def test_verify_says_which_objects_are_bad_and_fails(store: Store, job: str) -> None:
    assert headway("verify", job).stdout == "000000000020-000001: valid\n"
    data = bytearray(store.get(NEWER.part_key(1, 2)))
    data[-1] ^= 1
    store.put(NEWER.part_key(1, 2), bytes(data))
    store.delete(NEWER.rank_key(0))
    found = headway("verify", job)
    assert found.exit_code == 1
    lines = found.stdout.splitlines()
    assert lines[0] == "000000000020-000001: DAMAGED"
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        NEWER.rank_key(0),
        NEWER.part_key(1, 2),
    ]
    assert headway("verify", f"{job}/{OLDER.directory}").exit_code == 0
    every = headway("verify", "--all", job)
    assert every.exit_code == 1
    assert "000000000010-000001: valid" in every.stdout


@pytest.mark.parametrize("what", ["gone", "longer", "torn commit"])
def test_verify_notices_whatever_is_wrong_with_an_object(store: Store, job: str, what: str) -> None:
    key = {"torn commit": NEWER.commit_key}.get(what, NEWER.part_key(0, 2))
    if what == "gone":
        store.delete(key)
    else:
        store.put(key, store.get(key) + b"}")
    found = headway("verify", job)
    assert found.exit_code == 1
    assert key in found.stdout


def test_a_checkpoint_goes_out_and_comes_in_again(store: Store, job: str, tmp_path: Path) -> None:
    found = headway("export", job, tmp_path / "model.safetensors")
    assert found.stdout == f"{tmp_path / 'model.safetensors'} holds step 20 of generation 1\n"
    imported = tmp_path / "imported"
    found = headway("import", tmp_path / "model.safetensors", imported, "--step", 7)
    assert found.exit_code == 0
    assert f"resumeFrom: {imported}" in found.stdout
    assert load(str(imported)).checkpoint == CheckpointId(0, 7)
    assert same(load_model(job), {k: load_model(str(imported))[k] for k in load_model(job)})
    headway("export", job, tmp_path / "all.pt", "--to", "torch", "--only", "model")
    assert headway("import", tmp_path / "all.pt", tmp_path / "again").exit_code == 0
    assert same(load_model(job), load_model(str(tmp_path / "again")))


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("list", "{tmp}/typo"), 1, "there is no directory"),
        (("list", "ftp://host/job"), 2, "cannot store under"),
        (("verify", "{tmp}"), 1, "there is no checkpoint"),
        (("export", "{job}", "{tmp}/m", "--only", "ema"), 2, "holds no 'ema'"),
        (("export", "{job}", "{tmp}"), 1, "exists already"),
        (("import", "{tmp}/missing", "{tmp}/x"), 1, "there is no"),
        (("import", "{tmp}/job/LATEST", "{tmp}/x"), 2, "cannot be read as a file of torch.save"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(
    store: Store, job: str, tmp_path: Path, arguments: tuple[str, ...], status: int, message: str
) -> None:
    found = headway(*(each.format(job=job, tmp=tmp_path) for each in arguments))
    assert found.exit_code == status
    assert message in found.stderr
    assert "Traceback" not in found.output
    assert len(found.stderr.splitlines()) == 1


def test_looking_at_checkpoints_does_not_load_torch(store: Store, job: str) -> None:
    script = (
        "import sys; from headway.interop.command import app\n"
        "for command in ('list', 'verify'):\n"
        f"    app([command, {job!r}], standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert done.returncode == 0


@pytest.mark.parametrize("command", ["list", "verify", "export", "import"])
def test_help_has_examples(command: str) -> None:
    assert f"headway checkpoint {command} " in headway(command, "--help").stdout
