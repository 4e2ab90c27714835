from __future__ import annotations

import hashlib
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.exceptions import GenericError, InvalidPathError, PermissionDeniedError

from headway.checkpoint.errors import (
    BucketMissing,
    ObjectMissing,
    StoreDenied,
    StoreError,
    StoreUnavailable,
)
from headway.checkpoint.faults import Place, translate
from headway.checkpoint.retry import RetryPolicy
from headway.checkpoint.stores import Store, check, open_store
from headway_operator.progress.pki import create_identity

SECRET = "s3cr3t-do-not-print"


class VirtualClock:
    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def policy(self, deadline: float, jitter: float = 0.999) -> RetryPolicy:
        return RetryPolicy(
            deadline=deadline,
            request_timeout=5.0,
            first_backoff=1.0,
            max_backoff=8.0,
            clock=self,
            sleep=self.sleep,
            jitter=lambda: jitter,
        )


# --- when to try again --------------------------------------------------------------------------


def test_pauses_double_up_to_the_limit_and_are_jittered() -> None:
    clock = VirtualClock()
    failures = iter(range(6))

    def operation() -> str:
        if next(failures, None) is not None:
            raise StoreUnavailable("failing")
        return "done"

    assert clock.policy(deadline=1000, jitter=0.5).run(operation) == "done"
    assert clock.pauses == [0.5, 1, 2, 4, 4, 4]


@given(deadline=st.floats(0, 300), took=st.floats(0, 4.9), jitter=st.floats(0, 1, exclude_max=True))
def test_a_store_that_stays_away_is_given_up_by_the_deadline(
    deadline: float, took: float, jitter: float
) -> None:
    """No attempt starts after the deadline, however long attempts and pauses take."""
    clock = VirtualClock()
    starts: list[float] = []

    def operation() -> None:
        starts.append(clock.now - 1000.0)
        clock.now += took + 0.01
        raise StoreUnavailable("failing")

    with pytest.raises(StoreUnavailable):
        clock.policy(deadline, jitter).run(operation)
    assert starts[0] == 0
    assert all(start <= deadline for start in starts)


def test_a_long_transfer_that_breaks_is_tried_again() -> None:
    """The deadline is for how long a store may fail, not for how long an upload may take."""
    clock = VirtualClock()
    attempts = 0

    def operation() -> str:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            clock.now += 600
            raise StoreUnavailable("the connection broke")
        return "done"

    assert clock.policy(deadline=20).run(operation) == "done"


@pytest.mark.parametrize("error", [StoreDenied, BucketMissing, ObjectMissing, KeyError])
def test_what_waiting_does_not_cure_is_not_tried_again(error: type[Exception]) -> None:
    clock = VirtualClock()

    def operation() -> None:
        raise error("no")

    with pytest.raises(error):
        clock.policy(deadline=100).run(operation)
    assert clock.pauses == []


# --- what errors mean ---------------------------------------------------------------------------


def answered(status: int, code: str = "") -> str:
    body = f"<Error><Code>{code}</Code></Error>" if code else ""
    return f"Error performing PUT http://x/ - Server returned non-2xx status code: {status}: {body}"


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (GenericError(answered(500)), StoreUnavailable),
        (GenericError(answered(503, "SlowDown")), StoreUnavailable),
        (GenericError(answered(429)), StoreUnavailable),
        (GenericError(answered(400, "RequestTimeout")), StoreUnavailable),
        (FileNotFoundError(answered(404, "NoSuchUpload")), StoreUnavailable),
        (GenericError("kind: Timeout"), StoreUnavailable),
        (GenericError("inner: ConnectionRefused"), StoreUnavailable),
        (GenericError("who knows"), StoreUnavailable),
        (GenericError("No space left on device (os error 28)"), StoreUnavailable),
        (GenericError("Permission denied (os error 13)"), StoreDenied),
        (PermissionDeniedError(answered(403, "SignatureDoesNotMatch")), StoreDenied),
        (GenericError(answered(301, "PermanentRedirect")), StoreDenied),
        (GenericError(answered(404, "NoSuchBucket")), BucketMissing),
        (FileNotFoundError(answered(404, "NoSuchKey")), ObjectMissing),
    ],
)
def test_errors_of_the_library_are_told_apart(error: Exception, meaning: type[StoreError]) -> None:
    got = translate(error, "cannot write 'k'", Place("s3://b/job"))
    assert type(got) is meaning
    assert "cannot write 'k' under s3://b/job: " in str(got)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (GenericError("No space left on device (os error 28)"), "Make room on the volume"),
        (GenericError("Disk quota exceeded (os error 122)"), "Make room on the volume"),
        (OSError(13, "Permission denied"), "Check the path and its permissions"),
        (PermissionDeniedError(answered(403, "InvalidObjectState")), "Restore it from the archive"),
        (InvalidPathError("Path contained empty path segment"), "Rename or delete it"),
    ],
)
def test_an_error_says_what_to_do(error: Exception, advice: str) -> None:
    assert advice in str(translate(error, "cannot read 'k'", Place("/volume/job")))


def test_an_errors_own_text_never_reaches_the_message() -> None:
    """The URL of a role's token request holds the token."""
    text = f"POST https://sts/?WebIdentityToken={SECRET} {answered(403, 'AccessDenied')}"
    assert SECRET not in str(translate(GenericError(text), "cannot read", Place("s3://b")))


# --- opening ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "options", "advice"),
    [
        ("ftp://host/dir", {}, "use s3://bucket/prefix"),
        ("s3:///prefix", {}, "names no bucket"),
        ("", {}, "is empty"),
        ("file://host/dir", {}, "three slashes"),
        ("s3://b/p", {"access_key": "A"}, "together"),
        ("s3://b/p", {"session_token": "T"}, "together"),
    ],
)
def test_a_uri_that_cannot_work_is_refused_with_advice(
    uri: str, options: dict[str, str], advice: str
) -> None:
    with pytest.raises(ValueError, match=advice):
        open_store(uri, **options)  # type: ignore[arg-type]


def test_local_roots_are_made_and_hold_plain_files(tmp_path: Path) -> None:
    for uri in (str(tmp_path / "a b" / "c"), f"file://{tmp_path}/a%20b/c"):
        store = open_store(uri)
        store.put("x/y", b"data")
        assert (tmp_path / "a b" / "c" / "x" / "y").read_bytes() == b"data"


def test_a_local_root_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreDenied, match="cannot make the directory"):
        open_store(str(tmp_path / "file" / "dir"))


# --- objects ------------------------------------------------------------------------------------


def test_a_local_store_does_what_the_protocol_needs(store: Store) -> None:
    check(store)
    assert store.list("") == []
    store.put("a/b", b"hello")
    store.put("a/c", [b"hel", memoryview(b"lo"), b""], size=5)
    store.put("ab", b"")
    assert store.get("a/b") == store.get("a/c") == b"hello"
    assert store.list("a") == ["a/b", "a/c"]
    assert store.size("a/b") == 5
    assert bytes(store.get_range("a/b", 1, 3)) == b"ell"
    assert bytes(store.get_range("a/b", 3, 10)) == b"lo"
    assert bytes(store.get_range("a/b", 5, 10)) == b""
    store.delete("a/b")
    store.delete("a/b")
    for ask in (lambda: store.get("a/b"), lambda: store.size("a/b")):
        with pytest.raises(ObjectMissing, match="no such object"):
            ask()
    with pytest.raises(ObjectMissing):
        store.get_range("a/b", 0, 1)


def test_check_notices_a_store_that_does_not_show_what_was_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "list", lambda *_: [])
    with pytest.raises(StoreDenied, match="reads its own writes"):
        check(store)
    monkeypatch.undo()
    assert store.list("") == [], "the probe must not stay behind"


# --- servers that misbehave ---------------------------------------------------------------------


class Misbehaving(BaseHTTPRequestHandler):
    """Answers PUT with the statuses of the server's list, one each, then with 200."""

    server: MisbehavingServer

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.answers.pop(0) if self.server.answers else 200
        self.server.answered += 1
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.send_header("ETag", '"x"')
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class MisbehavingServer(ThreadingHTTPServer):
    daemon_threads = True
    answers: list[int]
    answered = 0


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    server = MisbehavingServer(("127.0.0.1", 0), Misbehaving)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def s3(port: int, policy: RetryPolicy) -> Store:
    return open_store(
        "s3://bucket/job",
        endpoint=f"http://127.0.0.1:{port}",
        region="us-east-1",
        access_key="AKID",
        secret_key=SECRET,
        session_token=SECRET,
        retry=policy,
    )


def test_a_store_that_fails_for_a_while_is_written_to_in_the_end(
    server: MisbehavingServer,
) -> None:
    server.answers = [503, 500, 429, 503, 503, 503, 503]
    policy = RetryPolicy(deadline=30, request_timeout=5, first_backoff=0.01)
    s3(server.server_port, policy).put("k", b"data")
    assert server.answers == []


def test_a_store_that_keeps_failing_is_given_up_in_time(server: MisbehavingServer) -> None:
    server.answers = [503] * 10_000
    policy = RetryPolicy(deadline=0.5, request_timeout=5, first_backoff=0.01)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="HTTP 503"):
        s3(server.server_port, policy).put("k", b"data")
    assert time.monotonic() - began < 5


def test_a_refusal_is_not_repeated_and_names_what_to_check(server: MisbehavingServer) -> None:
    server.answers = [403] * 10
    policy = RetryPolicy(deadline=30, request_timeout=5)
    with pytest.raises(StoreDenied, match=r"s3://bucket/job.*HTTP 403.*access key") as raised:
        s3(server.server_port, policy).put("k", b"data")
    assert server.answered == 1
    shown = "".join(traceback.format_exception(raised.value))
    assert SECRET not in shown
    assert SECRET not in repr(s3(server.server_port, policy))


def test_the_variables_that_hold_credentials_are_named_when_they_are_the_source(
    server: MisbehavingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    server.answers = [403]
    with pytest.raises(StoreDenied, match="AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"):
        open_store("s3://bucket/job").put("k", b"data")


def test_given_credentials_are_not_mixed_with_a_session_of_the_environment(
    server: MisbehavingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-another-key")
    server.answers = []
    tokens: list[str | None] = []

    def do_put(self: Misbehaving) -> None:
        tokens.append(self.headers["x-amz-security-token"])
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.send_header("ETag", '"x"')
        self.end_headers()

    monkeypatch.setattr(Misbehaving, "do_PUT", do_put)
    endpoint = f"http://127.0.0.1:{server.server_port}"
    open_store("s3://bucket/job", endpoint=endpoint, access_key="A", secret_key="B").put("k", b"")
    assert tokens == [None]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_every_byte_is_hashed_for_the_signature_only_where_no_tls_proves_it(
    server: MisbehavingServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheme: str
) -> None:
    if scheme == "https":
        identity = create_identity(["localhost"], datetime.now(UTC))
        (tmp_path / "ca.pem").write_text(identity.ca)
        (tmp_path / "server.pem").write_text(identity.key + identity.certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "server.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    hashes: list[str] = []

    def do_put(self: Misbehaving) -> None:
        hashes.append(self.headers["x-amz-content-sha256"])
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.send_header("ETag", '"x"')
        self.end_headers()

    monkeypatch.setattr(Misbehaving, "do_PUT", do_put)
    endpoint = f"{scheme}://localhost:{server.server_port}"
    policy = RetryPolicy(deadline=5, request_timeout=5)
    credentials = {"access_key": "A", "secret_key": "B", "region": "us-east-1"}
    open_store("s3://bucket/job", endpoint=endpoint, retry=policy, **credentials).put("k", b"data")
    expected = "UNSIGNED-PAYLOAD" if scheme == "https" else hashlib.sha256(b"data").hexdigest()
    assert hashes == [expected]


@pytest.mark.parametrize(
    "operation",
    [
        lambda store: store.put("k", b"data"),
        lambda store: store.put("k", [b"x" * 1000] * 3, size=3000),
        lambda store: store.get("k"),
        lambda store: store.list("ckpt"),
    ],
    ids=["put", "put in pieces", "get", "list"],
)
def test_a_server_that_accepts_and_never_answers_hits_the_time_limit(
    operation: Callable[[Store], object],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stalled:
        store = s3(stalled.getsockname()[1], RetryPolicy(deadline=0.5, request_timeout=0.5))
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="did not answer in time"):
            operation(store)
        assert time.monotonic() - began < 5


# --- what may be imported -----------------------------------------------------------------------


def test_checkpoints_need_neither_torch_nor_numpy_nor_kopf() -> None:
    """The agent and the uploader import this package; both must start in no time."""
    code = """
import pkgutil, sys, headway.checkpoint as package
for module in pkgutil.iter_modules(package.__path__):
    __import__(f"headway.checkpoint.{module.name}")
print(sorted({"torch", "numpy", "kopf", "kubernetes"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
