"""Requests that are turned down, told as Kubernetes `Status` objects.

Format: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

from typing import Final

import orjson
from aiohttp import web

_REASONS: Final = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    408: "Timeout",
    413: "RequestEntityTooLarge",
    422: "Invalid",
    429: "TooManyRequests",
    503: "ServiceUnavailable",
}


class Refusal(Exception):  # noqa: N818 - not an error of ours
    """Why a request is turned down.

    Attributes:
        code: HTTP status.
        message: a sentence for the user who reads the pod's log.
        retry_after: seconds after which the same request may succeed.
    """

    def __init__(self, code: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after


def refusal_response(refusal: Refusal) -> web.Response:
    """The answer that tells a client of its refusal."""
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": refusal.message,
        "reason": _REASONS.get(refusal.code, "Unknown"),
        "code": refusal.code,
    }
    headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
    return web.Response(
        status=refusal.code,
        body=orjson.dumps(status),
        headers=headers,
        content_type="application/json",
    )
