"""What Horovod's rank 0 writes, on its way to storage."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import BinaryIO

import pytest

from headway.agent.config import PodConfig
from headway.agent.horovod import timeline
from headway.agent.horovod.timeline import Files, closed, whole_lines
from headway_api import contract

HEAD = (
    b'[\n{"name": "process_name", "ph": "M", "pid": 0, "args": {"start_time": 1}},\n'
    b'{"name": "process_sort_index", "ph": "M", "pid": 0, "args": {"sort_index": 0}},\n'
)
EVENTS = [
    b'{"ph": "B", "name": "ALLREDUCE", "ts": 1, "pid": 1}',
    b'{"ph": "E", "ts": 2, "pid": 1, "args": {"dtype": "float32", "shape": "[1000, 3]"}}',
    b'{"ph": "i", "name": "CYCLE_START", "ts": 3, "s": "g"}',
]
WHOLE = HEAD + b",".join(EVENTS) + b"]"
DEADLINE = 30.0


def pod(folder: Path) -> tuple[PodConfig, dict[str, str]]:
    env = {
        contract.ENV_FRAMEWORK: "Horovod",
        contract.ENV_STORAGE_URI: str(folder / "storage"),
        contract.ENV_SCRATCH: str(folder),
        contract.ENV_HOROVOD_FILES: "timeline,autotune",
    }
    return PodConfig.from_env(env, ["python", "train.py"]), env


class Writer:
    """Writes as Horovod does: an event takes the place of the bracket that ended the file."""

    def __init__(self, told: dict[str, str]) -> None:
        self.path = Path(told["HOROVOD_TIMELINE"])
        self._file: BinaryIO = self.path.open("wb")
        self._file.write(HEAD)
        self._bare = True

    def write(self, event: bytes) -> None:
        if not self._bare:
            self._file.seek(self._file.tell() - 1)
            self._file.write(b",")
        self._file.write(event + b"]")
        self._file.flush()
        self._bare = False

    def memory(self) -> int:
        """Returns the bytes that the file takes."""
        return self.path.stat().st_blocks * 512

    def close(self) -> int:
        """Returns the position in the file."""
        position = self._file.tell()
        self._file.close()
        return position


def stored(folder: Path, name: str) -> bytes:
    path = folder / "storage/horovod" / name
    return path.read_bytes() if path.exists() else b""


def left(scratch: Path) -> list[Path]:
    return list(scratch.glob("horovod-*"))


def put(path: str | Path, data: bytes) -> None:
    Path(path).write_bytes(data)


def test_a_timeline_is_valid_json_wherever_it_is_cut() -> None:
    assert closed(WHOLE) == WHOLE
    whole = json.loads(WHOLE)
    for length in range(len(WHOLE)):
        kept = json.loads(closed(WHOLE[:length]))
        assert kept == whole[: len(kept)]
        assert len(kept) >= WHOLE[:length].count(b"},") - 1


def test_a_table_ends_with_a_whole_line() -> None:
    assert whole_lines(b"a,b\n1,2\n3,") == b"a,b\n1,2\n"
    assert whole_lines(b"a,") == b""


async def test_files_are_in_storage_while_the_ranks_run_and_when_they_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "EVERY_SECONDS", 0.05)
    files = Files(*pod(tmp_path))
    told = files.begin(7)
    assert set(told) == {"HOROVOD_TIMELINE", "HOROVOD_AUTOTUNE_LOG"}
    rank = Writer(told)
    rank.write(EVENTS[0])
    async with asyncio.timeout(DEADLINE):
        while stored(tmp_path, "timeline-g7.json") != HEAD + EVENTS[0] + b"]":  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # a file sets no event
    rank.write(EVENTS[1])
    rank.close()
    put(told["HOROVOD_AUTOTUNE_LOG"], b"a,b\n1,2\n")
    again = files.begin(8)
    assert again["HOROVOD_TIMELINE"] != told["HOROVOD_TIMELINE"]
    put(again["HOROVOD_TIMELINE"], WHOLE)
    await files.close()
    assert stored(tmp_path, "timeline-g7.json") == HEAD + EVENTS[0] + b"," + EVENTS[1] + b"]"
    assert stored(tmp_path, "autotune-g7.csv") == b"a,b\n1,2\n"
    assert stored(tmp_path, "timeline-g8.json") == WHOLE
    assert not left(tmp_path)


async def test_a_file_that_grows_on_keeps_its_beginning_and_no_more_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limit, count = 100_000, 5000
    monkeypatch.setattr(timeline, "EVERY_SECONDS", 0.02)
    monkeypatch.setattr(timeline, "LIMIT", limit)
    files = Files(*pod(tmp_path))
    rank = Writer(files.begin(1))
    for number in range(count):
        rank.write(json.dumps({"ph": "B", "name": "x" * 100, "ts": number, "pid": 1}).encode())
        if number % 100 == 0:
            await asyncio.sleep(0.01)
    taken = rank.memory()
    position = rank.close()
    await files.close()
    kept = [event["ts"] for event in json.loads(stored(tmp_path, "timeline-g1.json"))[2:]]
    assert kept == list(range(len(kept)))
    assert 0.9 * limit < len(stored(tmp_path, "timeline-g1.json")) <= limit
    assert position > 6 * limit
    assert taken < position / 2
    assert caplog.text.count("timeline-g1.json keeps its first") == 1


async def test_what_storage_refuses_is_a_warning_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path / "storage", b"a file, not a folder")
    files = Files(*pod(tmp_path))
    put(files.begin(1)["HOROVOD_TIMELINE"], WHOLE)
    await files.close()
    assert "horovod/timeline-g1.json is not in storage" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {contract.ENV_HOROVOD_FILES: ""},
        {"HOROVOD_TIMELINE": "/data/t.json", "HOROVOD_AUTOTUNE_LOG": "/data/a.csv"},
    ],
)
async def test_where_nothing_is_wanted_horovod_is_told_nothing(
    tmp_path: Path, change: dict[str, str]
) -> None:
    config, env = pod(tmp_path)
    files = Files(config, env | change)
    assert files.begin(1) == {}
    await files.close()


async def test_processes_that_outlive_their_generation_write_where_they_did(tmp_path: Path) -> None:
    files = Files(*pod(tmp_path))
    told = files.begin(1)
    put(told["HOROVOD_TIMELINE"], HEAD + EVENTS[0] + b"]")
    assert files.begin(2, goes_on=True) == told
    put(told["HOROVOD_TIMELINE"], WHOLE)
    await files.close()
    assert stored(tmp_path, "timeline-g1.json") == WHOLE
