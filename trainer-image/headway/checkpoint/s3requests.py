"""The S3 requests that the storage library has no call for (see `raw`).

They are signed by awscrt, a dependency anyway. Where the bucket is (path style or host style,
endpoint, region) is read off a URL that the library signs, so that the two always agree.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlencode, urlsplit
from xml.etree import ElementTree as ET

import obstore
from awscrt.auth import (
    AwsCredentialsProvider,
    AwsSignedBodyHeaderType,
    AwsSigningConfig,
    aws_sign_request,
)
from awscrt.http import HttpHeaders, HttpRequest

from .raw import Upload

if TYPE_CHECKING:
    from obstore.store import S3Credential, S3Store


class RequestFailedError(OSError):
    """The server refused or failed. Its text is what `faults.translate` reads."""


@dataclass(frozen=True)
class S3Requests:
    """Requests to one bucket; keys are relative to `prefix`.

    Attributes:
        bucket: opens the bucket's root, as the library does.
        prefix: without slashes at its ends; may be empty.
        credentials: None means the environment's or the pod's own, as in the library.
        timeout: seconds that one request may take.
    """

    bucket: Callable[[], S3Store]
    prefix: str
    credentials: S3Credential | None
    timeout: float

    def keys(self, folder: str) -> Iterator[str]:
        """See `RawAccess`."""
        query = {"list-type": "2", "prefix": self._full(folder) + "/", "encoding-type": "url"}
        while True:
            page = self._xml("GET", "", query)
            for each in _all(page, "Contents"):
                yield self._relative(_text(each, "Key"))
            if _text(page, "IsTruncated") != "true":
                return
            query["continuation-token"] = _text(page, "NextContinuationToken")

    def uploads(self, folder: str) -> Iterator[Upload]:
        """See `RawAccess`."""
        query = {"uploads": "", "prefix": self._full(folder) + "/", "encoding-type": "url"}
        while True:
            page = self._xml("GET", "", query)
            for each in _all(page, "Upload"):
                begun = datetime.fromisoformat(_text(each, "Initiated"))
                yield Upload(self._relative(_text(each, "Key")), _text(each, "UploadId"), begun)
            if _text(page, "IsTruncated") != "true":
                return
            query["key-marker"] = unquote(_text(page, "NextKeyMarker"))
            query["upload-id-marker"] = _text(page, "NextUploadIdMarker")

    def abort(self, upload: Upload) -> None:
        """See `RawAccess`."""
        try:
            self._send("DELETE", self._full(upload.key), {"uploadId": upload.id})
        except RequestFailedError as error:
            if "NoSuchUpload" not in str(error):
                raise

    def _full(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _relative(self, quoted: str) -> str:
        return unquote(quoted).removeprefix(self.prefix + "/" if self.prefix else "")

    def _xml(self, method: str, key: str, query: dict[str, str]) -> ET.Element:
        # The store is the user's own, and the parser knows no external entities.
        return ET.fromstring(self._send(method, key, query))  # noqa: S314

    def _send(self, method: str, key: str, query: dict[str, str]) -> bytes:
        url = self._url
        path = f"{url.path.rstrip('/')}/{quote(key)}?{urlencode(query, quote_via=quote)}"
        request = HttpRequest(method, path, HttpHeaders([("host", url.netloc)]))
        aws_sign_request(request, self._signing).result(self.timeout)
        address = f"{url.scheme}://{url.netloc}{path}"
        headers = dict(request.headers)
        # The address is the library's own: http or https.
        signed = urllib.request.Request(address, method=method, headers=headers)  # noqa: S310
        try:
            with urllib.request.urlopen(signed, timeout=self.timeout) as answer:  # noqa: S310
                body: bytes = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                said = error.read().decode(errors="replace")
            raise RequestFailedError(f"status code: {error.code}: {said}") from None
        return body

    @cached_property
    def _url(self) -> SplitResult:
        return urlsplit(obstore.sign(self.bucket(), "GET", "", timedelta(minutes=1)))

    @cached_property
    def _signing(self) -> AwsSigningConfig:
        scope = parse_qs(self._url.query)["X-Amz-Credential"][0]  # key/date/region/s3/aws4_request
        return AwsSigningConfig(
            credentials_provider=_provider(self.credentials),
            region=scope.split("/")[-3],
            service="s3",
            use_double_uri_encode=False,
            should_normalize_uri_path=False,
            signed_body_header_type=AwsSignedBodyHeaderType.X_AMZ_CONTENT_SHA_256,
        )


def _provider(credentials: S3Credential | None) -> Any:
    if credentials is None:
        return AwsCredentialsProvider.new_default_chain()
    return AwsCredentialsProvider.new_static(
        credentials["access_key_id"], credentials["secret_access_key"], credentials["token"]
    )


def _all(parent: ET.Element, tag: str) -> Iterator[ET.Element]:
    """The children of this name; servers differ in the namespace that they put before it."""
    return (child for child in parent if child.tag.rpartition("}")[2] == tag)


def _text(parent: ET.Element, tag: str) -> str:
    found = next(_all(parent, tag), None)
    return "" if found is None or found.text is None else found.text
