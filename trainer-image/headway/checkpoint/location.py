"""What a user means by the URI of a checkpoint: a job's folder, or one checkpoint in it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from .errors import NoValidCheckpoint
from .layout import CHECKPOINTS, CheckpointId, parse_checkpoint_key
from .reader import list_commits
from .stores import Store, open_store


def locate(uri: str) -> tuple[str, CheckpointId | None]:
    """Tell the job's folder, and the checkpoint if the URI names one.

    Args:
        uri: such as ``s3://bucket/job`` or ``s3://bucket/job/ckpt/000000000300-000002``.
    """
    root, mark, directory = uri.rstrip("/").rpartition(f"/{CHECKPOINTS}/")
    key = parse_checkpoint_key(f"{CHECKPOINTS}/{directory}/COMMIT.json") if mark else None
    return (root, key.id) if key else (uri, None)


def open_existing(
    uri: str, *, endpoint: str | None = None, region: str | None = None
) -> tuple[Store, CheckpointId | None]:
    """Open what a user names, to read from it.

    Args:
        uri: see `locate`.
        endpoint: see `open_store`.
        region: see `open_store`.

    Raises:
        NoValidCheckpoint: a local path that does not exist. Unlike `open_store`, this makes none.
        ValueError: the URI cannot work.
    """
    root, only = locate(uri)
    parts = urlsplit(root)
    local = {"": root, "file": unquote(parts.path)}.get(parts.scheme)
    if local is not None and not Path(local).is_dir():
        raise NoValidCheckpoint(f"there is no directory {local}: give a job's folder")
    return open_store(root, endpoint=endpoint, region=region), only


def others(store: Store, only: CheckpointId | None) -> set[CheckpointId]:
    """The checkpoints that a restore is to skip when it must take `only`.

    Raises:
        StoreError: the store cannot be listed.
    """
    return set() if only is None else {each for each in list_commits(store) if each != only}
