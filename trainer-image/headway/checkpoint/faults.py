"""What an error of the storage library means, in our words.

The library tells transport failures, refusals and missing things apart only in the text of its
errors. That text can hold request details (a web identity token is part of a URL), so only known
parts of it reach our messages: HTTP status, the store's error code, the kind of network failure.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from typing import Final

from obstore.exceptions import (
    InvalidPathError,
    PermissionDeniedError,
    UnauthenticatedError,
)

from .errors import BucketMissing, ObjectMissing, StoreDenied, StoreError, StoreUnavailable

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_OS_ERROR = re.compile(r"(?:\(os error |\[Errno )(\d+)[)\]]")
_BEYOND_END = re.compile(r"status code: 416|StartTooLarge")

_BUCKET_CODES: Final = {"NoSuchBucket", "ContainerNotFound"}
# A server that restarts forgets uploads in progress; sending again from the start cures it.
_PASSING_CODES: Final = {"NoSuchUpload", "RequestTimeout", "SlowDown", "InternalError"}
_PASSING_STATUS: Final = {408, 425, 429}
_REFUSING_OS_ERRORS: Final = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR}
_FULL: Final = {errno.ENOSPC, errno.EDQUOT}
_NETWORK: Final = (
    ("kind: Timeout", "it did not answer in time"),
    ("ConnectionRefused", "the connection was refused"),
    ("dns error", "its host name is not known"),
    ("ertificate", "its TLS certificate is not trusted"),
    ("kind: Connect", "no connection could be made"),
    ("kind: ", "the connection broke"),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store is and what to check when it fails.

    Attributes:
        uri: the root, without credentials.
        endpoint: the server, without credentials; empty when the cloud's own.
        credentials: where the credentials came from, in words; never the credentials.
    """

    uri: str
    endpoint: str = ""
    credentials: str = ""

    def __str__(self) -> str:
        return f"{self.uri} at {self.endpoint}" if self.endpoint else self.uri


def without_credentials(uri: str) -> str:
    """Drop ``user:password@`` from a URI."""
    return re.sub(r"//[^/@]*@", "//", uri)


def is_beyond_end(error: Exception) -> bool:
    """Say whether a range read failed because the object ends before the range starts."""
    return _BEYOND_END.search(str(error)) is not None


def translate(error: Exception, what: str, place: Place) -> StoreError:
    """Turn an error of the storage library into ours.

    Args:
        error: what the library raised.
        what: the operation that failed, such as ``cannot write 'ckpt/…'``.
        place: of the store.
    """
    text = str(error)
    status = int(found[1]) if (found := _STATUS.search(text)) else None
    code = found[1] if (found := _CODE.search(text)) else None
    failed = f"{what} under {place}"
    if code in _BUCKET_CODES:
        return BucketMissing(
            f"{failed}: the bucket does not exist. Create it, or correct the URI or the endpoint"
        )
    if code in _PASSING_CODES or (status and (status >= 500 or status in _PASSING_STATUS)):
        return StoreUnavailable(f"{failed}: the store is failing ({_answer(status, code)})")
    if advice := _advice(error, code):
        return StoreDenied(f"{failed}: {advice}")
    if isinstance(error, FileNotFoundError) or status == 404:
        return ObjectMissing(f"{failed}: there is no such object")
    if status or isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return StoreDenied(f"{failed}: the store refused ({_answer(status, code)}). {_hint(place)}")
    return _without_answer(text, failed, place)


def _advice(error: Exception, code: str | None) -> str | None:
    """What to do about an object that no permission makes readable."""
    if code == "InvalidObjectState":
        return (
            "the object is archived. Restore it from the archive, and exempt this folder from the "
            "bucket's lifecycle rule"
        )
    if isinstance(error, InvalidPathError):
        return (
            "an object there has a name that cannot be used, such as one with `//` or a line break "
            "in it. Rename or delete it"
        )
    return None


def _without_answer(text: str, failed: str, place: Place) -> StoreError:
    if found := _OS_ERROR.search(text):
        number = int(found[1])
        because = f"{failed}: {os.strerror(number)}"
        if number in _FULL:
            return StoreUnavailable(
                f"{because}. Make room on the volume, or keep fewer checkpoints (keepLast)"
            )
        if number in _REFUSING_OS_ERRORS:
            return StoreDenied(f"{because}. Check the path and its permissions")
        if not place.endpoint and not place.credentials:
            return StoreUnavailable(f"{because}. Check the volume")
    for mark, reason in _NETWORK:
        if mark in text:
            return StoreUnavailable(
                f"{failed}: {reason}. Check the endpoint and the network between it and this pod"
            )
    return StoreUnavailable(f"{failed}: the request could not be made. {_hint(place)}")


def _answer(status: int | None, code: str | None) -> str:
    said = f"HTTP {status}" if status else "permission denied"
    return f"{said}, {code}" if code else said


def _hint(place: Place) -> str:
    if not place.credentials:
        return "Check the path and its permissions"
    return f"Check {place.credentials}, what they permit on this bucket, and the region"
