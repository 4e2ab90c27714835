"""Local paths: disks that are full or cannot be written, and processes killed while they write."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from checkpoint_world import contents, make_state, restore, save

from headway.checkpoint.errors import StoreError, StoreUnavailable
from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.leftovers import abort_stale_uploads
from headway.checkpoint.retry import RetryPolicy
from headway.checkpoint.state import CHUNK
from headway.checkpoint.stores import Store, open_store

OLDER, NEWER = CheckpointId(1, 10), CheckpointId(1, 20)
LARGE = [("model.weight", "U8", (CHUNK + 5,))]
HASTY = RetryPolicy(deadline=0.1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    ("shapes", "what"),
    [
        ([("model.weight", "U8", (2_000_000,))], "one write"),
        (LARGE, "pieces"),
    ],
    ids=["one write", "pieces"],
)
def test_a_full_disk_is_named_and_costs_nothing_that_was_committed(
    small_disk: Path, shapes: list[tuple[str, str, tuple[int, ...]]], what: str
) -> None:
    store = open_store(str(small_disk / "job"), retry=HASTY)
    save(store, OLDER, make_state(10))
    with pytest.raises(StoreUnavailable, match=r"No space left on device.*Make room.*keepLast"):
        save(store, NEWER, make_state(20, shapes))
    assert restore(store)[1] == contents(make_state(10))
    assert store.uploads("ckpt") == [], "what was written so far is gone"
    save(store, NEWER, make_state(20))
    assert restore(store)[1] == contents(make_state(20))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "job"), retry=HASTY)
    (tmp_path / "job" / "ckpt").write_text("a file where a folder must be")
    with pytest.raises(StoreError, match=r"cannot write 'ckpt/.*(Not a directory|File exists)"):
        save(store, NEWER, make_state(20))


def kill_while_writing(root: Path, key: str) -> None:
    """Have a process killed after it has written the first piece of an object."""
    script = (
        "import os, signal\n"
        "from headway.checkpoint.stores import open_store\n"
        "def pieces():\n"
        f"    yield bytes({CHUNK})\n"
        f"    yield bytes({CHUNK})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"open_store({str(root)!r}).put({key!r}, pieces(), size=1)"
    )
    subprocess.run([sys.executable, "-c", script], check=False)


def test_what_a_killed_process_had_written_is_found_and_deleted(store: Store, root: Path) -> None:
    save(store, OLDER, make_state(10))
    kill_while_writing(root, NEWER.part_key(0, 1))
    kill_while_writing(root, CheckpointId(1, 30).part_key(0, 1))
    assert [key for key in store.list("ckpt") if not key.startswith(OLDER.directory)] == []
    save(store, CheckpointId(1, 25), make_state(25))
    now = datetime.now(UTC)
    assert abort_stale_uploads(store, 1, now=now) == [], "too young"
    aborted = abort_stale_uploads(store, 1, now=now + timedelta(hours=1))
    assert [upload.key for upload in aborted] == [NEWER.part_key(0, 1)]
    assert not (root / NEWER.directory).exists()
    assert len(store.uploads("ckpt")) == 1, "that of step 30 may still be under way"
    assert restore(store)[1] == contents(make_state(25))
    store.abort_upload(aborted[0])  # a second time is harmless


def test_a_file_that_may_not_be_deleted_is_named(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_while_writing(root, NEWER.part_key(0, 1))
    (left,) = store.uploads("ckpt")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(StoreError, match=r"cannot abort.*Permission denied.*Check the path"):
        store.abort_upload(left)


def test_an_object_and_its_name_are_on_the_disk_before_a_write_is_done(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a power cut could take a commit whose predecessors were deleted because of it."""
    flushed: list[Path] = []

    def fsync(handle: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{handle}").readlink())

    monkeypatch.setattr(os, "fsync", fsync)
    store.put(NEWER.commit_key, b"x")
    folder = root / NEWER.directory
    assert flushed == [folder / "COMMIT.json", folder, root / "ckpt", root]


def test_a_disk_that_is_full_only_when_it_is_flushed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NFS does, which takes the bytes first."""

    def refuse(_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreUnavailable, match="No space left on device"):
        save(open_store(str(tmp_path / "job"), retry=HASTY), NEWER, make_state(20))
