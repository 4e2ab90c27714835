"""The key with which the agents of one job authenticate to each other."""

import hashlib
import hmac
from typing import Final

_CONTEXT: Final = b"headway.dev/job-key/v1\0"
"""Keeps this use of the operator's secret apart from any other that may come."""


def job_key(secret: bytes, job_uid: str) -> str:
    """Derive a job's key, so that no Secret per job has to be kept.

    HMAC-SHA256 (RFC 2104) of the UID under the operator's secret: pods that know one job's key
    learn nothing about another's, and a recreated job of the same name gets a new one.

    Args:
        secret: the operator's 32 bytes.
        job_uid: UID of the TrainingJob.

    Returns:
        64 hexadecimal digits.
    """
    return hmac.new(secret, _CONTEXT + job_uid.encode(), hashlib.sha256).hexdigest()
