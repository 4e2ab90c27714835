"""What a killed upload leaves behind: pieces that S3 keeps, charges for, and does not list.

The library sends large parts in pieces. A process that dies in between leaves those that arrived;
on a local path, a file that is not listed either.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from .layout import CHECKPOINTS, parse_checkpoint_key
from .raw import Upload
from .reader import list_commits
from .retention import abandoned
from .stores import Store


def abort_stale_uploads(
    store: Store, generation: int, *, now: datetime, older_than: timedelta = timedelta(minutes=15)
) -> list[Upload]:
    """Abort unfinished uploads of this job that nobody will complete; call it after a commit.

    These are of checkpoints that were committed or abandoned (see `retention.abandoned`). What
    may still be under way is left alone whatever its age, and so is what others upload beside.

    Args:
        store: the job's root.
        generation: the caller's own, which must be the current one.
        now: with a time zone.
        older_than: younger uploads are left alone: they may be of a process that has not noticed
            yet that its group is over.

    Returns:
        What was aborted.

    Raises:
        StoreError: the store refused (`s3:ListBucketMultipartUploads` and
            `s3:AbortMultipartUpload` are needed) or failed.
    """
    old = [upload for upload in store.uploads(CHECKPOINTS) if now - upload.begun > older_than]
    named = {upload: key.id for upload in old if (key := parse_checkpoint_key(upload.key))}
    if not named:
        return []
    commits = list_commits(store)
    over = {*commits, *abandoned(set(named.values()) - set(commits), commits, generation)}
    stale = [upload for upload, checkpoint in named.items() if checkpoint in over]
    for upload in stale:
        store.abort_upload(upload)
    return stale
