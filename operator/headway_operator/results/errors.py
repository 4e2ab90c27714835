"""What the user of these commands can mend."""


class ResultsError(Exception):
    """It can't be done; the text says why, and what to change."""


class NotDrawnError(ResultsError):
    """There is nothing to draw; the text says why."""
