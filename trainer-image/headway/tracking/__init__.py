"""The history of a run: every reported value, as JSON lines beside the checkpoints."""
