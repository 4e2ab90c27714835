"""Object stores: S3, Google Cloud Storage, Azure and local paths behind one small class.

Everything is synchronous and may be called from any thread: the trainer writes from a background
thread, the uploader is a process of its own, and asyncio code uses `asyncio.to_thread`. The
network code below (obstore, Rust) releases the GIL. Open a store after a fork, never before: its
threads do not survive one.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, InvalidPathError
from obstore.store import LocalStore, S3Store, from_url

from .errors import ObjectMissing, StoreDenied
from .faults import Place, is_beyond_end, translate, without_credentials
from .layout import PROBE
from .raw import LocalFiles, RawAccess, Upload
from .retry import RetryPolicy
from .s3requests import S3Requests
from .state import CHUNK

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig, S3Config, S3Credential
    from typing_extensions import Buffer

T = TypeVar("T")

# S3 takes at most 10,000 pieces per upload.
_MAX_PIECES = 9_000
# Pieces are sent from the views themselves; more at once only helps against long round trips.
_PIECES_IN_FLIGHT = 4

_CREDENTIALS: Final = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


class Store:
    """The objects under one root. Keys are relative to it and use `/`.

    Every method raises `StoreUnavailable` (after retries), `StoreDenied` or `BucketMissing` as
    `errors` documents them. Use `open_store` to make one.
    """

    def __init__(
        self,
        backend: ObjectStore,
        place: Place,
        retry: RetryPolicy,
        raw: RawAccess | None = None,
    ) -> None:
        self._backend = backend
        self._place = place
        self._retry = retry
        self._raw = raw

    def __repr__(self) -> str:
        return f"Store({self._place})"

    @property
    def uri(self) -> str:
        """The root as it was given, without credentials."""
        return self._place.uri

    def put(self, key: str, data: bytes | Iterable[Buffer], *, size: int | None = None) -> None:
        """Write an object, all or nothing.

        Args:
            key: where; an object that is there already is replaced.
            data: its bytes, or something that can be iterated again on a retry. An iterable is
                sent in pieces as it is read.
            size: total bytes of an iterable, to choose the size of the pieces.
        """
        piece = max(CHUNK, -(-(size or 0) // _MAX_PIECES))

        def send() -> None:
            if isinstance(data, bytes):
                obstore.put(self._backend, key, data, use_multipart=False)
            else:
                obstore.put(
                    self._backend,
                    key,
                    iter(data),
                    use_multipart=True,
                    chunk_size=piece,
                    max_concurrency=_PIECES_IN_FLIGHT,
                )
            if isinstance(self._raw, LocalFiles):
                self._raw.flush(key)

        self._do("write", key, send)

    def get(self, key: str) -> bytes:
        """Read a whole object.

        Raises:
            ObjectMissing: there is none.
        """
        return self._do("read", key, lambda: bytes(obstore.get(self._backend, key).bytes()))

    def get_range(self, key: str, start: int, length: int) -> memoryview:
        """Read `length` bytes from byte `start`; fewer, or none, when the object ends before.

        Raises:
            ObjectMissing: there is no such object.
        """

        def read() -> memoryview:
            try:
                got = obstore.get_range(self._backend, key, start=start, length=length)
            except BaseError as error:
                if is_beyond_end(error):
                    return memoryview(b"")
                raise
            return memoryview(got)

        return self._do("read", key, read)

    def size(self, key: str) -> int:
        """Return the bytes of an object.

        Raises:
            ObjectMissing: there is none.
        """
        return self._do("read", key, lambda: int(obstore.head(self._backend, key)["size"]))

    def list(self, prefix: str) -> list[str]:
        """Return all keys below the folder `prefix` (no slash at the end), sorted."""

        def read() -> list[str]:
            try:
                pages = obstore.list(self._backend, prefix)
                return sorted(meta["path"] for page in pages for meta in page)
            except InvalidPathError:
                # One object with an odd name, such as `a//b`, must not hide all others.
                if self._raw is None:
                    raise
                return sorted(key for key in self._raw.keys(prefix) if _is_plain(key))

        return self._do("list", prefix, read)

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there counts as deleted."""
        try:
            self._do("delete", key, lambda: obstore.delete(self._backend, key))
        except ObjectMissing:
            return

    def uploads(self, prefix: str) -> Sequence[Upload]:
        """Return the uploads below the folder `prefix` that were never completed.

        On S3 and on local paths; elsewhere the store itself removes them in time.
        """
        raw = self._raw
        if raw is None:
            return []
        return self._do("list the uploads of", prefix, lambda: list(raw.uploads(prefix)))

    def abort_upload(self, upload: Upload) -> None:
        """Delete what was sent of an upload that `uploads` returned; one that is over is fine."""
        if self._raw is not None:
            self._do("abort the upload of", upload.key, partial(self._raw.abort, upload))

    def _do(self, verb: str, key: str, operation: Callable[[], T]) -> T:
        def attempt() -> T:
            try:
                return operation()
            except (BaseError, OSError) as error:
                # Not chained: the original's text can hold credentials, see `faults`.
                raise translate(error, f"cannot {verb} {key!r}", self._place) from None

        return self._retry.run(attempt)


def open_store(
    uri: str,
    *,
    endpoint: str | None = None,
    region: str | None = None,
    access_key: str | None = None,
    secret_key: str | None = None,
    session_token: str | None = None,
    retry: RetryPolicy | None = None,
) -> Store:
    """Open the root of a job's storage. Sends nothing yet: see `check`.

    Args:
        uri: ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``az://container/prefix``,
            ``file:///dir`` or a plain path. Local directories are made.
        endpoint: URL of an S3-compatible server; None means AWS_ENDPOINT_URL or AWS itself.
            Plain HTTP is used when, and only when, it says ``http://``.
        region: S3 region; None means AWS_REGION.
        access_key: S3 access key id; None means AWS_ACCESS_KEY_ID or the pod's own role.
        secret_key: its secret; None means AWS_SECRET_ACCESS_KEY.
        session_token: for temporary credentials, beside `access_key`.
        retry: when to give up; None means the defaults of `RetryPolicy`.

    Raises:
        ValueError: the URI or the combination of arguments cannot work.
        StoreDenied: the local directory cannot be made.
    """
    retry = retry or RetryPolicy()
    parts = urlsplit(uri)
    if parts.scheme in ("", "file"):
        return _open_local(uri, retry)
    if parts.scheme not in _CREDENTIALS:
        raise ValueError(
            f"cannot store under {without_credentials(uri)!r}: use s3://bucket/prefix, "
            "gs://bucket/prefix, az://container/prefix, file:///directory or a path"
        )
    if not parts.netloc:
        raise ValueError(f"{uri!r} names no bucket: use {parts.scheme}://bucket/prefix")
    if parts.scheme == "s3":
        credentials = _given_credentials(access_key, secret_key, session_token)
        return _open_s3(uri, endpoint, region, credentials, retry)
    place = Place(without_credentials(uri), credentials=_CREDENTIALS[parts.scheme])
    client = _client_options(retry)
    backend = from_url(uri, client_options=client, retry_config=_retry_config(retry))
    return Store(backend, place, retry)


def check(store: Store) -> None:
    """Prove that this process may write, read, list and delete under the root.

    Meant for the moment before training starts: a permission that is missing must not show
    itself at the first checkpoint.

    Raises:
        StoreDenied: one of the four is not permitted; the message says which.
        BucketMissing: there is no such bucket.
        StoreUnavailable: the store does not answer.
    """
    key, data = f"{PROBE}/{secrets.token_hex(8)}", b"headway may write here"
    store.put(key, data)
    try:
        if store.get(key) != data or key not in store.list(PROBE):
            raise StoreDenied(
                f"{store.uri} did not give back what was just written to it: "
                "use a store that reads its own writes"
            )
    finally:
        store.delete(key)


def _open_local(uri: str, retry: RetryPolicy) -> Store:
    parts = urlsplit(uri)
    if parts.scheme and (parts.netloc not in ("", "localhost") or not parts.path.startswith("/")):
        raise ValueError(f"{uri!r} is not a local directory: use file:///directory, three slashes")
    path = Path(unquote(parts.path)) if parts.scheme else Path(uri)
    if not str(uri):
        raise ValueError("the storage URI is empty: use s3://bucket/prefix or a directory")
    place = Place(str(path.absolute()))
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreDenied(f"cannot make the directory {place}: {error.strerror}") from error
    backend = LocalStore(path.absolute(), automatic_cleanup=True)
    return Store(backend, place, retry, LocalFiles(path.absolute()))


def _is_plain(key: str) -> bool:
    """Whether the library takes this for a key."""
    odd = {"", ".", ".."} & set(key.split("/"))
    return not odd and all(character >= " " and character != "\x7f" for character in key)


def _given_credentials(
    access_key: str | None, secret_key: str | None, session_token: str | None
) -> S3Credential | None:
    if access_key is None and secret_key is None and session_token is None:
        return None
    if access_key is None or secret_key is None:
        raise ValueError("give access_key and secret_key together, or neither")
    return {
        "access_key_id": access_key,
        "secret_access_key": secret_key,
        "token": session_token,
        "expires_at": None,
    }


def _open_s3(
    uri: str,
    endpoint: str | None,
    region: str | None,
    credentials: S3Credential | None,
    retry: RetryPolicy,
) -> Store:
    parts = urlsplit(uri)
    endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3")
    endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL") or ""
    plain = endpoint.startswith("http://")
    # Over TLS the transport already proves what arrives, and hashing each byte for the signature
    # as well would double the client's work. Over plain HTTP that hash is the only proof.
    config: S3Config = {"unsigned_payload": not plain}
    if endpoint:
        config["endpoint"] = endpoint
    if region:
        config["region"] = region
    client = _client_options(retry)
    client["allow_http"] = plain
    # On pieces as well, where the library gives no type. SeaweedFS gzips what has none, for a tenth
    # of the space: a restore of 400 MB then costs the server 1.5 s of CPU instead of 0.4.
    client["default_headers"] = {"content-type": "application/octet-stream"}
    # A provider replaces all of AWS_*: a given key must not be mixed with another key's token.
    provider = None if credentials is None else lambda: credentials
    bucket = partial(
        S3Store,
        parts.netloc,
        config=config,
        client_options=client,
        retry_config=_retry_config(retry),
        credential_provider=provider,
    )
    prefix = parts.path.strip("/")
    raw = S3Requests(bucket, prefix, credentials, retry.request_timeout)
    source = _CREDENTIALS["s3"] if credentials is None else "the given access key and its secret"
    place = Place(without_credentials(uri), without_credentials(endpoint), source)
    return Store(bucket(prefix=prefix or None), place, retry, raw)


def _client_options(retry: RetryPolicy) -> ClientConfig:
    timeout = timedelta(seconds=retry.request_timeout)
    connect = min(timeout, timedelta(seconds=5))
    return {"timeout": timeout, "connect_timeout": connect}


def _retry_config(retry: RetryPolicy) -> RetryConfig:
    # Single requests are repeated briefly, so that one lost piece of a large upload is not the
    # whole upload again; how long an operation may fail is for `RetryPolicy` to decide.
    return {
        "max_retries": 2,
        "retry_timeout": timedelta(seconds=min(retry.request_timeout, retry.deadline)),
        "backoff": {"init_backoff": timedelta(milliseconds=100)},
    }
