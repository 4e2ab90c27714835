"""What only the user can mend."""

from __future__ import annotations


class Stuck(Exception):  # noqa: N818 - the name of a condition of the job, not a fault of ours
    """A job can't go on as it is written.

    Attributes:
        reason: CamelCase word for the condition.
        message: a sentence that says what to change.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
