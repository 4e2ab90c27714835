"""Lists that the storage library refuses, and lists of more than one page."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.reader import list_commits
from headway.checkpoint.retry import RetryPolicy
from headway.checkpoint.stores import Store, open_store

COMMIT = CheckpointId(generation=1, step=1).commit_key
ODD = ["ckpt//x", "ckpt/a//b", "ckpt/../x", "ckpt/./x", "ckpt/a\nb", "ckpt/a\tb"]


class Bucket(ThreadingHTTPServer):
    """Lists what it is told to hold, three to a page; checks no signature."""

    daemon_threads = True
    keys: list[str]
    uploads: list[str]


class Answers(BaseHTTPRequestHandler):
    server: Bucket

    def do_GET(self) -> None:
        query = {k: v[0] for k, v in parse_qs(urlsplit(self.path).query, True).items()}
        body = self._uploads(query) if "uploads" in query else self._objects(query)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _objects(self, query: dict[str, str]) -> bytes:
        start = int(query.get("continuation-token", "+0").removeprefix("+"))
        found = [key for key in self.server.keys if f"job/{key}".startswith(query["prefix"])]
        name = quote if query.get("encoding-type") == "url" else _escape
        entries = "".join(
            f"<Contents><Key>{name('job/' + key)}</Key><Size>1</Size><ETag>x</ETag>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in found[start : start + 3]
        )
        more = start + 3 < len(found)
        token = f"<NextContinuationToken>+{start + 3}</NextContinuationToken>" if more else ""
        return (
            f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>"
            f"{token}{entries}</ListBucketResult>"
        ).encode()

    def _uploads(self, query: dict[str, str]) -> bytes:
        after = query.get("key-marker", "")
        found = [f"job/{key}" for key in self.server.uploads if f"job/{key}" > after]
        more = len(found) > 3
        entries = "".join(
            f"<Upload><Key>{quote(key)}</Key><UploadId>id</UploadId>"
            "<Initiated>2026-01-01T00:00:00.000Z</Initiated></Upload>"
            for key in found[:3]
        )
        marker = f"<NextKeyMarker>{quote(found[2])}</NextKeyMarker>" if more else ""
        return (
            '<ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{marker}{entries}"
            "</ListMultipartUploadsResult>"
        ).encode()

    def log_message(self, *_: object) -> None:
        pass


def _escape(key: str) -> str:
    return "".join(f"&#{ord(c)};" if c < " " or c == "&" else c for c in key)


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    server = Bucket(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def job(bucket: Bucket) -> Store:
    return open_store(
        "s3://bucket/job",
        endpoint=f"http://127.0.0.1:{bucket.server_port}",
        region="us-east-1",
        access_key="A",
        secret_key="B",
        retry=RetryPolicy(deadline=1, request_timeout=5, first_backoff=0.01),
    )


@pytest.mark.parametrize("odd", ODD)
def test_an_object_with_an_odd_name_hides_no_checkpoint(bucket: Bucket, odd: str) -> None:
    bucket.keys = [odd, COMMIT]
    assert job(bucket).list("ckpt") == [COMMIT]
    assert list_commits(job(bucket)) == [CheckpointId(generation=1, step=1)]


def test_all_pages_of_a_list_with_odd_names_are_read(bucket: Bucket) -> None:
    plain = [f"ckpt/ü +%&{n}" for n in range(8)]
    bucket.keys = ["ckpt//x", *plain]
    assert job(bucket).list("ckpt") == plain


def test_all_pages_of_unfinished_uploads_are_read(bucket: Bucket) -> None:
    bucket.uploads = [f"ckpt/ü +%&{n}" for n in range(8)]
    assert [upload.key for upload in job(bucket).uploads("ckpt")] == bucket.uploads


def test_a_file_with_an_odd_name_hides_no_checkpoint(store: Store, root: Path) -> None:
    store.put(COMMIT, b"x")
    (root / "ckpt" / "line\nbreak").write_bytes(b"x")
    assert store.list("ckpt") == [COMMIT]
